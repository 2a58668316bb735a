//! Clients and services of both HTTP versions, with and without TLS.

use crate::support::eventually;
use crate::support::frames::{Frames, code, kind, setting};
use crate::support::http::Client;
use crate::support::origin::Origin;
use crate::support::peers::{Server, curl, program};
use crate::support::pki::{Pki, Wanted};
use crate::support::proxy::Proxy;

/// Sends all kinds of requests to each listener.
fn ask_everything(pki: &Pki, origin: &Origin, (plain, tls): (u16, u16), large: &str) {
    let ca = pki.path("ca.pem");
    let (http, https) = (format!("http://127.0.0.1:{plain}/"), format!("https://localhost:{tls}/"));
    let body = std::fs::read_to_string(large).unwrap();
    for (url, version, options) in [
        (&http, "1.1", vec!["--http1.1"]),
        (&http, "2", vec!["--http2-prior-knowledge"]),
        (&https, "1.1", vec!["--http1.1", "--cacert", &ca]),
        (&https, "2", vec!["--http2", "--cacert", &ca]),
    ] {
        let ask = |more: &[&str]| curl(&[&options[..], more, &[url]].concat());
        let shown = "%{http_version} %{http_code}";
        let got = ask(&["-o", "/dev/null", "-w", shown, "-b", "a=1; b=2"]);
        assert_eq!(got, format!("{version} 200"));
        let asked = origin.requests().pop().unwrap().to_ascii_lowercase();
        assert_eq!(asked.matches("cookie").count(), 1, "{asked}");
        assert!(asked.contains("cookie: a=1; b=2\r\n"), "{asked}");
        assert_eq!(ask(&["-I", "-o", "/dev/null", "-w", shown]), format!("{version} 200"));
        assert_eq!(ask(&["-d", "x=y"]), "x=y");
        assert_eq!(ask(&["-d", "x=y", "-H", "Expect: 100-continue"]), "x=y");
        let sent = format!("@{large}");
        assert!(ask(&["--data-binary", &sent]) == body);
        // The origin echoes the chunked body, including its chunks.
        let chunked = if version == "2" { "Content-Length:" } else { "Transfer-Encoding: chunked" };
        let part = &body[..1 << 20];
        let chunks = ask(&["-H", chunked, "--data-binary", &format!("@{large}.part")]);
        assert!(chunks.len() > part.len() && chunks.len() < part.len() * 11 / 10);
        assert!(chunks.ends_with("\r\n0\r\n\r\n"));
    }
}

#[test]
fn bodies_heads_and_cookies_pass_in_all_pairs() {
    let pki = Pki::new();
    pki.leaf("web", &Wanted::default());
    std::fs::write(pki.path("both"), pki.read("web.pem") + &pki.read("web.key")).unwrap();
    let large = pki.path("large");
    std::fs::write(&large, "0123456789abcdef".repeat(640 * 1024)).unwrap();
    std::fs::write(format!("{large}.part"), "0123456789abcdef".repeat(64 * 1024)).unwrap();
    let origin = Origin::echoing();
    let crt = format!("ssl crt {}", pki.path("both"));
    let (h2, tls1, tls2) = (
        Server::haproxy_before("proto h2", origin.port),
        Server::haproxy_before(&format!("{crt} alpn http/1.1"), origin.port),
        Server::haproxy_before(&format!("{crt} alpn h2"), origin.port),
    );
    let trust = format!("tls: {{ca: {}}}", pki.path("ca.pem"));
    for service in [
        format!("protocol: http1, endpoints: [\"{}\"]", origin.address()),
        format!("protocol: http2, endpoints: [\"127.0.0.1:{}\"]", h2.port),
        format!("protocol: http1, {trust}, endpoints: [\"127.0.0.1:{}\"]", tls1.port),
        format!("protocol: http2, {trust}, endpoints: [\"127.0.0.1:{}\"]", tls2.port),
        format!("protocol: auto, {trust}, endpoints: [\"127.0.0.1:{}\"]", tls2.port),
    ] {
        let (proxy, plain, tls) = Proxy::before(&pki, &service);
        ask_everything(&pki, &origin, (plain, tls), &large);
        assert_eq!(proxy.metric("ringway_service_response_flags_total"), 0.0, "{service}");
    }
}

/// Origins of both versions that answer with early hints, a body and trailers.
fn hinting() -> [(Origin, &'static str); 2] {
    let one = Origin::scripted(|peer| {
        while peer.request().is_some() {
            peer.send(
                "HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\nHTTP/1.1 200 OK\r\n\
                 Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nx-sum: 7\r\n\r\n",
            );
        }
    });
    let two = Origin::scripted(|peer| {
        let Some(mut frames) = Frames::accept(peer, &[]) else { return };
        while let Some((stream, _)) = frames.request() {
            frames.headers(stream, &[(":status", "103"), ("link", "</x>")], false);
            frames.headers(stream, &[(":status", "200")], false);
            frames.data(stream, b"hi", false);
            frames.headers(stream, &[("x-sum", "7")], true);
        }
    });
    [(one, "http1"), (two, "http2")]
}

#[test]
fn interim_responses_and_trailers_pass_in_all_pairs() {
    let pki = Pki::new();
    pki.leaf("web", &Wanted::default());
    for (origin, protocol) in hinting() {
        let service = format!("protocol: {protocol}, endpoints: [\"{}\"]", origin.address());
        let (_proxy, plain, _) = Proxy::before(&pki, &service);
        let mut client = Client::connect(plain);
        let hint = client.request("GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\n\r\n");
        assert_eq!((hint.status, hint.field("link")), (103, Some("</x>")));
        let response = client.response();
        assert_eq!((response.status, response.text()), (200, "hi"));
        assert_eq!(response.trailers, "x-sum: 7\r\n");
        let url = format!("http://127.0.0.1:{plain}/");
        let said = program("nghttp").args(["-v", &url]).output().unwrap().stdout;
        let said = String::from_utf8_lossy(&said);
        for part in [":status: 103", "link: </x>", ":status: 200", "x-sum: 7"] {
            assert!(said.contains(part), "{protocol}, {part}: {said}");
        }
    }
}

#[test]
fn rfc8441_a_websocket_by_http1_goes_to_http2_by_extended_connect() {
    let pki = Pki::new();
    pki.leaf("web", &Wanted::default());
    let origin = Origin::scripted(|peer| {
        let allowed = [(setting::ENABLE_CONNECT_PROTOCOL, 1)];
        let Some(mut frames) = Frames::accept(peer, &allowed) else { return };
        // The first request shows that the proxy has applied the settings.
        let Some((known, _)) = frames.request() else { return };
        frames.respond(known, "known");
        let Some(asked) = frames.next_of(kind::HEADERS) else { return };
        assert!(!asked.ends());
        frames.headers(asked.stream, &[(":status", "200")], false);
        while let Some(data) = frames.next_of(kind::DATA) {
            frames.data(asked.stream, &data.payload, data.ends());
        }
    });
    let service = format!("protocol: http2, endpoints: [\"{}\"]", origin.address());
    let (_proxy, plain, _) = Proxy::before(&pki, &service);
    let mut client = Client::connect(plain);
    assert_eq!(client.get("a", "/").text(), "known");
    let answer = client.request(
        "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    assert_eq!(answer.status, 101);
    // The value in the example of RFC 6455 1.3.
    assert_eq!(answer.field("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    client.send(b"\x81\x02hi");
    assert_eq!(client.exactly(4).unwrap(), b"\x81\x02hi");
}

/// Whether a request is refused because HTTP/1.1 would read it differently.
#[track_caller]
fn refused(port: u16, fields: &[(&str, &str)], body: Option<&str>) -> bool {
    let mut frames = Frames::connect(port);
    frames.headers(1, fields, body.is_none());
    if let Some(body) = body {
        frames.data(1, body.as_bytes(), true);
    }
    loop {
        let frame = frames.next().expect("an answer");
        match frame.kind {
            kind::RST_STREAM | kind::GOAWAY => return true,
            // The HPACK static table has `:status: 400` at index 12 and `:status: 200` at index 8
            // (RFC 7541 A).
            kind::HEADERS => return frame.payload.first() == Some(&0x8c),
            _ => {}
        }
    }
}

#[test]
fn rfc9113_10_3_what_http1_would_understand_otherwise_is_refused() {
    let pki = Pki::new();
    pki.leaf("web", &Wanted::default());
    let origin = Origin::saying("through");
    let service = format!("protocol: http1, endpoints: [\"{}\"]", origin.address());
    let (proxy, plain, _) = Proxy::before(&pki, &service);
    let good = [(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/")];
    for (more, body) in [
        (("x-a", "1\r\nx-b: 2"), None),
        (("x-a", "1\nx-b: 2"), None),
        (("x-a", "1\0"), None),
        (("x-a\r\nx-b", "1"), None),
        (("x:a", "1"), None),
        (("x a", "1"), None),
        (("X-Upper", "1"), None),
        (("", "1"), None),
        (("content-length", "5"), Some("1234")),
        (("content-length", "3"), Some("1234")),
        (("content-length", "4, 4"), Some("1234")),
        (("content-length", "+4"), Some("1234")),
        (("content-length", "5"), None),
        (("transfer-encoding", "chunked"), Some("0\r\n\r\n")),
        (("connection", "close"), None),
        (("keep-alive", "5"), None),
        (("proxy-connection", "close"), None),
        (("upgrade", "h2c"), None),
        (("te", "gzip"), None),
        (("host", "b"), None),
        ((":path", "/two"), None),
        ((":unknown", "1"), None),
    ] {
        let fields = [&good[..], &[more]].concat();
        assert!(refused(plain, &fields, body), "{more:?}");
        assert_eq!(origin.requests(), Vec::<String>::new(), "{more:?}");
    }
    for (name, value) in [
        (":path", "/ HTTP/1.1\r\nx: y"),
        (":path", "/a b"),
        (":path", "x"),
        (":path", ""),
        (":method", "GET / HTTP/1.1\r\nx: y"),
        (":method", "G T"),
        (":authority", "a\r\nx: y"),
        (":authority", "a b"),
        (":scheme", "ht tp"),
    ] {
        let mut fields = good;
        fields.iter_mut().filter(|field| field.0 == name).for_each(|field| field.1 = value);
        assert!(refused(plain, &fields, None), "{name} {value:?}");
        assert_eq!(origin.requests(), Vec::<String>::new(), "{name} {value:?}");
    }
    assert!(!refused(plain, &[&good[..], &[("te", "trailers")]].concat(), None));
    assert_eq!(origin.requests().len(), 1);
    assert_eq!(proxy.metric("ringway_worker_panics_total"), 0.0);
}

#[test]
fn two_long_lived_connections_are_served_by_two_workers() {
    let pki = Pki::new();
    pki.leaf("web", &Wanted::default());
    let origin = Origin::scripted(|peer| {
        let Some(mut frames) = Frames::accept(peer, &[]) else { return };
        while let Some((stream, _)) = frames.request() {
            frames.respond(stream, "hi");
        }
    });
    let service = format!("protocol: grpc, endpoints: [\"{}\"]", origin.address());
    let (proxy, plain, _) = Proxy::before(&pki, &service);
    let fields = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")];
    let mut connections = [Frames::connect(plain), Frames::connect(plain)];
    for number in 0..20 {
        for frames in &mut connections {
            frames.headers(2 * number + 1, &fields, true);
            while !frames.next().expect("an answer").ends() {}
        }
    }
    for worker in ["0", "1"] {
        let of =
            |name: &str| proxy.metric(&format!("ringway_worker_{name}{{worker=\"{worker}\"}}"));
        eventually("its share", || (of("requests_total") >= 20.0).then_some(()));
        assert_eq!(of("connections_active"), 1.0);
    }
    connections[0].go_away(0, code::NO_ERROR);
}
