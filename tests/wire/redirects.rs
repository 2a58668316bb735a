//! Redirects from HTTP to HTTPS.

use crate::support::free_port;
use crate::support::http::Client;
use crate::support::peers::curl;
use crate::support::proxy::Proxy;

#[test]
fn a_listener_redirects_each_request_to_https() {
    let (plain, other) = (free_port(), free_port());
    let proxy = Proxy::start(&format!(
        "listeners:\n  web: {{bind: 127.0.0.1:{plain}, redirect_https: true}}\n  \
         other: {{bind: 127.0.0.1:{other}}}\n\
         routes: {{\"*\": [{{respond: {{status: 200}}}}]}}\n"
    ));
    let mut client = Client::connect(plain);
    for (host, target, location) in [
        ("shop.example.com", "/a?b=c", "https://shop.example.com/a?b=c"),
        ("shop.example.com:8080", "/", "https://shop.example.com/"),
        ("[::1]:80", "/", "https://[::1]/"),
    ] {
        let answer = client.get(host, target);
        assert_eq!(answer.status, 301, "{host}");
        assert_eq!(answer.field("location"), Some(location), "{host}");
    }
    let url = format!("http://127.0.0.1:{plain}/x");
    let asked = ["--http2-prior-knowledge", "-o", "/dev/null", "-w", "%{redirect_url}", &url];
    assert_eq!(curl(&asked), "https://127.0.0.1/x");
    // The routes are those of the other listener.
    assert_eq!(Client::connect(other).get("shop.example.com", "/").status, 200);
    let counted = "ringway_route_requests_total{host=\"*\",route=\"redirect_https\"";
    let page = proxy.admin("/metrics");
    assert!(page.text().contains(counted), "{}", page.text());
}

#[test]
fn a_host_without_a_port_has_the_port_of_its_scheme() {
    let port = free_port();
    let _proxy = Proxy::start(&format!(
        "listeners: {{web: {{bind: 127.0.0.1:{port}, trusted_hops: 1}}}}\n\
         routes:\n  \"*:80\": [{{redirect: {{scheme: https}}}}]\n  \
         \"*:443\": [{{respond: {{status: 200}}}}]\n"
    ));
    let mut client = Client::connect(port);
    for (host, scheme, status) in [
        ("a", "", 301),
        ("a:80", "", 301),
        ("a:443", "", 200),
        ("a", "X-Forwarded-Proto: https\r\n", 200),
        ("a:8080", "", 404),
    ] {
        let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n{scheme}\r\n");
        assert_eq!(client.request(request).status, status, "{host} {scheme}");
    }
}
