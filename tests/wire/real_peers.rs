//! Real servers behind the proxy and real clients in front of it.

use crate::support::free_port;
use crate::support::http::Client;
use crate::support::peers::{Server, curl};
use crate::support::proxy::Proxy;

fn in_front_of(origin: u16) -> (Proxy, String) {
    let port = free_port();
    let proxy = Proxy::start(&format!(
        "listeners: {{web: {{bind: 127.0.0.1:{port}}}}}\n\
         routes: {{\"*\": [{{to: app}}]}}\n\
         services: {{app: {{endpoints: [\"127.0.0.1:{origin}\"]}}}}\n"
    ));
    (proxy, format!("http://127.0.0.1:{port}"))
}

#[test]
fn curl_gets_pages_ranges_and_heads_from_nginx() {
    let nginx = Server::nginx();
    let (proxy, url) = in_front_of(nginx.port);
    assert_eq!(curl(&[&format!("{url}/page")]), "from nginx\n");
    assert_eq!(curl(&["-r", "5-9", &format!("{url}/page")]), "nginx");
    assert!(curl(&["-I", &format!("{url}/large")]).contains("Content-Length: 3000000"));
    assert!(curl(&["-0", &format!("{url}/page")]).contains("from nginx"));
    let large = curl(&[&format!("{url}/large")]);
    assert!(large.len() == 3_000_000 && large.bytes().all(|byte| byte == b'n'));
    let status = curl(&["-o", "/dev/null", "-w", "%{http_code}", &format!("{url}/none")]);
    assert_eq!(status, "404");
    // nginx closes each connection after seven requests. No client may notice this.
    let page = format!("{url}/page");
    let many: Vec<&str> = std::iter::repeat_n(page.as_str(), 50).collect();
    assert_eq!(curl(&many), "from nginx\n".repeat(50));
    assert_eq!(proxy.metric("ringway_service_requests_total{service=\"app\",class=\"5xx\"}"), 0.0);
}

#[test]
fn curl_talks_to_haproxy() {
    let haproxy = Server::haproxy();
    let (_proxy, url) = in_front_of(haproxy.port);
    assert_eq!(curl(&[&format!("{url}/a/b")]), "GET /a/b 127.0.0.1");
    let posted = curl(&["-d", "x=y", "-H", "Expect: 100-continue", &format!("{url}/post")]);
    assert_eq!(posted, "POST /post 127.0.0.1");
}

#[test]
fn a_strict_origin_never_sees_anything_malformed() {
    let origin = Server::strict_origin();
    let (_proxy, url) = in_front_of(origin.port);
    let port: u16 = url.rsplit(':').next().unwrap().parse().unwrap();
    for (text, status) in [
        ("GET /bytes/5 HTTP/1.1\r\nHost: a\r\n\r\n", 200),
        ("GET /chunked/9000 HTTP/1.1\r\nHost: a\r\nTE: trailers, deflate\r\n\r\n", 200),
        ("GET http://a/status/204 HTTP/1.1\r\nHost: a\r\n\r\n", 204),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 200),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nConnection: content-length, host, x\r\nX: 1\r\n\
          Content-Length: 3\r\n\r\nabc",
            200,
        ),
        (
            "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: CHUNKED\r\n\r\n3;x=\"y\"\r\nabc\r\n\
          0\r\nX-T: 1\r\n\r\n",
            200,
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\n\
          HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
            200,
        ),
        ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", 501),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-length: 1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n\tb\r\n\r\n", 400),
    ] {
        let mut client = Client::connect(port);
        assert_eq!(client.request(text).status, status, "{text}");
    }
    let log = origin.log();
    assert!(log.lines().count() >= 7, "{log}");
    // The connection that `Server::start` opens and closes leaves no record.
    assert!(!log.contains("\"bad\""), "{log}");
}
