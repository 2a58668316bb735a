//! Heads of requests and responses, and how the proxy reads them.

use crate::support::free_port;
use crate::support::http::Client;
use crate::support::origin::Origin;
use crate::support::peers::curl;
use crate::support::proxy::Proxy;

fn before(origin: &Origin, listener: &str) -> (Proxy, u16) {
    let port = free_port();
    let proxy = Proxy::start(&format!(
        "listeners: {{web: {{bind: 127.0.0.1:{port}{listener}}}}}\n\
         routes: {{\"*\": [{{to: app}}]}}\n\
         services: {{app: {{endpoints: [\"{}\"]}}}}\n",
        origin.address()
    ));
    (proxy, port)
}

#[test]
fn rfc9110_15_2_any_number_of_interim_responses_passes() {
    let origin = Origin::scripted(|peer| {
        while let Some(request) = peer.request() {
            let count = if request.starts_with("GET /flood") { 5_000 } else { 50 };
            for offset in 0..count {
                peer.send(format!(
                    "HTTP/1.1 104 Upload Resumption\r\nUpload-Offset: {offset}\r\n\r\n"
                ));
            }
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
        }
    });
    let (_proxy, port) = before(&origin, "");
    let mut client = Client::connect(port);
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
    for offset in 0..50 {
        let interim = client.response();
        assert_eq!(
            (interim.status, interim.field("upload-offset")),
            (104, Some(&*offset.to_string()))
        );
    }
    assert_eq!(client.response().text(), "hi");
    // The number of interim bytes is limited: limits.header_bytes, and some more for each second.
    client.send("GET /flood HTTP/1.1\r\nHost: a\r\n\r\n");
    let last = std::iter::repeat_with(|| client.response()).find(|answer| answer.status != 104);
    let last = last.unwrap();
    assert_eq!((last.status, last.text()), (502, "too many interim responses"));
}

#[test]
fn rfc9110_8_6_a_response_that_cannot_have_a_body_has_no_length() {
    let origin = Origin::scripted(|peer| {
        while peer.request().is_some() {
            peer.send("HTTP/1.1 103 Early Hints\r\nContent-Length: 0\r\nLink: </x>\r\n\r\n");
            peer.send("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\nX-A: b\r\n\r\n");
        }
    });
    let (_proxy, port) = before(&origin, "");
    let mut client = Client::connect(port);
    let hint = client.request("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((hint.status, hint.field("link")), (103, Some("</x>")));
    assert_eq!(hint.field("content-length"), None);
    let response = client.response();
    assert_eq!((response.status, response.field("x-a")), (204, Some("b")));
    assert_eq!(response.field("content-length"), None);
    // HTTP/2 clients reset a stream with such a field.
    let url = format!("http://127.0.0.1:{port}/");
    let said = curl(&["--http2-prior-knowledge", "-o", "/dev/null", "-w", "%{http_code}", &url]);
    assert_eq!(said, "204");
}

#[test]
fn heads_that_are_rare_but_right_are_read() {
    let origin = Origin::echoing();
    let (_proxy, port) = before(&origin, "");
    let mut client = Client::connect(port);
    let response = client.request("GET / HTTP/1.2\r\nHost: a\r\n\r\n"); // RFC 9110 2.5
    assert_eq!(response.status, 200);
    let chunks = "5 ;a=b\r\nhello\r\n0\r\n\r\n"; // RFC 9112 7.1.1
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").send(chunks);
    assert_eq!(client.response().status, 200);
    // An HTTP/1.0 request needs no Host. The request to the endpoint has one.
    let response = Client::connect(port).request("GET /old HTTP/1.0\r\n\r\n");
    assert_eq!(response.status, 200);
    let requests = origin.requests();
    assert!(requests.iter().all(|request| request.contains(" HTTP/1.1\r\n")));
    let host = format!("\r\nHost: {}\r\n", origin.address());
    assert!(requests.last().unwrap().contains(&host), "{requests:?}");
}

#[test]
fn the_clients_address_is_one_notion() {
    let (one, two) = (Origin::saying("one"), Origin::saying("two"));
    let port = free_port();
    let _proxy = Proxy::start(&format!(
        "listeners: {{web: {{bind: 127.0.0.1:{port}, trusted_hops: 1}}}}\n\
         routes: {{\"*\": [{{to: app}}]}}\n\
         services: {{app: {{balance: {{hash: source-ip}}, endpoints: [\"{}\", \"{}\"]}}}}\n",
        one.address(),
        two.address()
    ));
    let mut client = Client::connect(port);
    let mut ask = |last: &str| {
        let forged = "9.9.9.9";
        let fields = format!("X-Forwarded-For: {forged}\r\nX-Forwarded-For: {last}\r\n");
        client.request(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).text().to_owned()
    };
    let places: Vec<_> = (0..60).map(|number| ask(&format!("10.0.0.{number}"))).collect();
    assert!(places.iter().any(|place| place == "one") && places.iter().any(|place| place == "two"));
    let again: Vec<_> = (0..60).map(|number| ask(&format!("10.0.0.{number}:80"))).collect();
    assert_eq!(places, again, "each client stays at its endpoint");
}

#[test]
fn the_scheme_of_the_client_is_the_one_that_the_trusted_proxy_says() {
    let origin = Origin::saying("x");
    let (_proxy, port) = before(&origin, ", trusted_hops: 1, proxy_protocol: true");
    // A PROXY header of version 2 with PP2_TYPE_SSL, and one without.
    let header = |values: &[u8]| {
        let mut bytes = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0".to_vec();
        bytes.push(12 + values.len() as u8);
        bytes.extend_from_slice(&[10, 0, 0, 9, 10, 0, 0, 1, 0, 9, 0, 1]);
        bytes.extend_from_slice(values);
        bytes
    };
    let (plain, tls) = (header(&[]), header(b"\x20\0\x05\x01\0\0\0\0"));
    for (before, fields, scheme) in [
        (&plain, "", "http"),
        (&tls, "", "https"),
        (&plain, "X-Forwarded-Proto: https\r\n", "https"),
        (&tls, "X-Forwarded-Proto: https\r\nX-Forwarded-Proto: http\r\n", "http"),
        (&plain, "X-Forwarded-Proto: https, http\r\n", "http"),
    ] {
        let mut client = Client::connect(port);
        client.send(before);
        client.request(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
        let requests = origin.requests();
        let said = format!("\r\nx-forwarded-proto: {scheme}\r\n");
        assert!(requests.last().unwrap().contains(&said), "{fields}: {requests:?}");
    }
}

#[test]
fn rules_with_the_same_name_take_turns_of_their_own() {
    let (one, two) = (Origin::saying("one"), Origin::saying("two"));
    let port = free_port();
    let split = "to: {app/v1: 50, app/v2: 50}, name: canary";
    let _proxy = Proxy::start(&format!(
        "listeners: {{web: {{bind: 127.0.0.1:{port}}}}}\n\
         routes: {{\"*\": [{{match: {{path: /a}}, {split}}}, {{match: {{path: /b}}, {split}}}]}}\n\
         services: {{app: {{versions: {{v1: [\"{}\"], v2: [\"{}\"]}}}}}}\n",
        one.address(),
        two.address()
    ));
    let mut client = Client::connect(port);
    for _ in 0..4 {
        let turns = [("/a", "one"), ("/b", "one"), ("/a", "two"), ("/b", "two")];
        for (path, expected) in turns {
            assert_eq!(client.get("a", path).text(), expected, "{path}");
        }
    }
}
