//! Real HTTP/2 endpoints (nghttpd and nginx) with real clients of both versions (curl, nghttp and
//! h2load).

use crate::support::eventually;
use crate::support::peers::{Server, curl, program};
use crate::support::pki::{Pki, Wanted};
use crate::support::proxy::Proxy;

/// The page of every endpoint.
const PAGE: &str = "a page\n";
const LARGE_BYTES: usize = 3_000_000;

/// A proxy with a plain and a TLS listener in front of a service, and the URLs of both listeners.
struct Front {
    proxy: Proxy,
    http: String,
    https: String,
    ca: String,
}

impl Front {
    fn before(pki: &Pki, service: &str) -> Self {
        let (proxy, plain, tls) = Proxy::before(pki, service);
        let http = format!("http://127.0.0.1:{plain}");
        let https = format!("https://localhost:{tls}");
        Self { proxy, http, https, ca: pki.path("ca.pem") }
    }

    /// The ways to run curl: the URL, the expected version, and the options.
    fn clients(&self) -> [(&str, &str, Vec<&str>); 5] {
        [
            // This curl requests an upgrade to h2c, which the proxy may ignore.
            (&self.http, "1.1", vec!["--http2"]),
            (&self.http, "1.1", vec!["--http1.1"]),
            (&self.http, "2", vec!["--http2-prior-knowledge"]),
            (&self.https, "1.1", vec!["--http1.1", "--cacert", &self.ca]),
            (&self.https, "2", vec!["--http2", "--cacert", &self.ca]),
        ]
    }

    /// Checks that no request had a response flag, and that nothing panicked.
    #[track_caller]
    fn is_content(&self) {
        assert_eq!(self.proxy.metric("ringway_service_response_flags_total"), 0.0);
        assert_eq!(self.proxy.metric("ringway_worker_panics_total"), 0.0);
    }
}

/// A real endpoint, and the settings of a service for it.
struct Endpoint {
    server: Server,
    protocol: String,
    /// Whether it echoes posted bodies.
    echoes: bool,
}

/// nghttpd and nginx, with and without TLS, each with a page and a large file.
fn endpoints(pki: &Pki) -> Vec<Endpoint> {
    pki.leaf("web", &Wanted::default());
    let files = [("page", PAGE.to_owned()), ("large", "n".repeat(LARGE_BYTES))];
    let tls = format!("tls: {{ca: {}}}", pki.path("ca.pem"));
    let mut all = Vec::new();
    for (protocol, shown) in [
        ("protocol: http2".to_owned(), None),
        (format!("protocol: http2, {tls}"), Some((pki, "web"))),
        (format!("protocol: auto, {tls}"), Some((pki, "web"))),
    ] {
        let server = Server::nghttpd(&files, shown);
        all.push(Endpoint { server, protocol: protocol.clone(), echoes: true });
        let server = Server::nginx_http2(&files, shown);
        all.push(Endpoint { server, protocol, echoes: false });
    }
    all
}

impl Endpoint {
    fn service(&self) -> String {
        // On a busy machine a handshake may take more than the default of a second.
        let patient = "connect_timeout: 20s";
        format!("{}, {patient}, endpoints: [\"127.0.0.1:{}\"]", self.protocol, self.server.port)
    }
}

#[test]
fn curl_gets_pages_heads_ranges_and_uploads_by_both_versions() {
    let pki = Pki::new();
    let sent = pki.path("sent");
    let body = "0123456789abcdef".repeat(64 * 1024);
    std::fs::write(&sent, &body).unwrap();
    let upload = format!("@{sent}");
    for server in endpoints(&pki) {
        let (front, protocol) = (Front::before(&pki, &server.service()), &server.protocol);
        for (base, version, options) in front.clients() {
            let ask = |more: &[&str], path: &str| {
                curl(&[&options[..], more, &[&format!("{base}{path}")]].concat())
            };
            let shown = ["-o", "/dev/null", "-w", "%{http_version} %{http_code} %{size_download}"];
            assert_eq!(ask(&[], "/page"), PAGE, "{protocol}");
            assert_eq!(ask(&shown, "/large"), format!("{version} 200 {LARGE_BYTES}"));
            let head = ask(&["-I"], "/large").to_ascii_lowercase();
            assert!(head.contains(&format!("content-length: {LARGE_BYTES}\r\n")), "{head}");
            assert_eq!(&ask(&shown, "/none")[..version.len() + 4], format!("{version} 404"));
            // nginx answers before it has received the whole upload.
            if server.echoes {
                assert!(ask(&["--data-binary", &upload], "/page") == body, "{protocol}");
            }
            if options == ["--http2-prior-knowledge"] {
                continue; // curl 7.88 itself cannot ask twice on such a connection
            }
            let page = format!("{base}/page");
            let many: Vec<&str> = std::iter::repeat_n(page.as_str(), 20).collect();
            assert_eq!(curl(&[&options[..], &many].concat()), PAGE.repeat(20));
        }
        if !server.echoes {
            assert_eq!(curl(&["-r", "2-5", &format!("{}/page", front.http)]), "page");
        }
        front.is_content();
        // Connections are reused.
        let opened = front.proxy.metric("ringway_service_pool_reused_total");
        assert!(opened > 50.0, "{opened}");
    }
}

#[test]
fn nghttp_gets_many_streams_of_one_connection() {
    let pki = Pki::new();
    for server in endpoints(&pki) {
        let (front, protocol) = (Front::before(&pki, &server.service()), &server.protocol);
        for base in [&front.http, &front.https] {
            let urls = ["/page", "/large", "/page?2"].map(|path| format!("{base}{path}"));
            let output = program("nghttp").args(["-nv"]).args(&urls).output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            assert_eq!(said.matches(":status: 200").count(), 3, "{protocol}: {said}");
            assert!(!said.contains("RST_STREAM"), "{protocol}: {said}");
        }
        front.is_content();
    }
}

/// Sends this many requests with h2load. All must succeed.
#[track_caller]
fn h2load(requests: u32, arguments: &[&str]) {
    let mut command = program("h2load");
    command.args(["-n", &requests.to_string()]).args(arguments);
    let output = command.output().unwrap_or_else(|error| panic!("h2load: {error}; run ./test"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let all = format!("{requests} succeeded, 0 failed, 0 errored, 0 timeout");
    assert!(said.contains(&all), "{arguments:?}: {said}");
    assert!(said.contains(&format!("{requests} 2xx, 0 3xx, 0 4xx, 0 5xx")), "{said}");
}

#[test]
fn h2load_fails_in_no_pair_of_versions() {
    let pki = Pki::new();
    // nginx sends GOAWAY after every hundred requests.
    let protocol = "protocol: http1".to_owned();
    let http1 = Endpoint { server: Server::nginx(), protocol, echoes: false };
    for server in endpoints(&pki).into_iter().chain([http1]) {
        let front = Front::before(&pki, &server.service());
        for base in [&front.http, &front.https] {
            let url = format!("{base}/page");
            h2load(1000, &["-c", "8", "-m", "20", &url]);
            h2load(1000, &["-c", "8", "--h1", &url]);
        }
        h2load(16, &["-c", "4", "-m", "4", &format!("{}/large", front.http)]);
        front.is_content();
        let series = "ringway_service_requests_total{service=\"app\",class=\"2xx\"";
        let all = 4.0 * 1000.0 + 16.0;
        eventually("the count", || (front.proxy.metric(series) == all).then_some(()));
    }
}

#[test]
fn a_deadline_goes_on_as_what_is_left_of_it() {
    let pki = Pki::new();
    pki.leaf("web", &Wanted::default());
    let files = [("page", PAGE.to_owned())];
    let server = Server::nghttpd(&files, None);
    let server = Endpoint { server, protocol: "protocol: grpc".to_owned(), echoes: true };
    for kind in ["application/grpc", "application/grpc-web+proto"] {
        // Each call needs a new connection, so some time passes.
        let front = Front::before(&pki, &server.service());
        let kind = format!("content-type: {kind}");
        let options = ["--http2-prior-knowledge", "-H", "grpc-timeout: 15S", "-H", &kind, "-d", ""];
        curl(&[&options[..], &[&format!("{}/page", front.http)]].concat());
    }
    let said = eventually("what the endpoint has got", || {
        let said = server.server.said();
        (said.matches("grpc-timeout: ").count() == 2).then_some(said)
    });
    for part in said.split("grpc-timeout: ").skip(1) {
        let value = part.split_once("\n").unwrap().0.trim();
        let micros: u64 = value.strip_suffix('u').expect("microseconds").parse().unwrap();
        assert!(micros > 0 && micros < 15_000_000, "{value}");
    }
    assert_eq!(said.matches("content-type: application/grpc\n").count(), 1, "{said}");
    assert_eq!(said.matches("content-type: application/grpc+proto\n").count(), 1, "{said}");
    assert_eq!(said.matches("te: trailers\n").count(), 1, "of gRPC-Web: {said}");
}
