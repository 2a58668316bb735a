//! HTTP/2 clients (curl, nghttp and h2load), with and without TLS, and HTTP/1.1 origins.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::origin::Origin;
use crate::support::peers::{curl, program};
use crate::support::pki::{Pki, Wanted};
use crate::support::proxy::Proxy;
use crate::support::{eventually, free_port};

/// Starts a proxy with a plain listener and a TLS listener in front of `origin`. Returns the proxy,
/// the plain port and the TLS port.
fn in_front_of(pki: &Pki, origin: &Origin, more: &str) -> (Proxy, u16, u16) {
    pki.leaf("web", &Wanted::default());
    let (plain, tls) = (free_port(), free_port());
    let proxy = Proxy::start(&format!(
        "listeners:\n  plain: {{bind: 127.0.0.1:{plain}}}\n\
         \x20 tls: {{bind: 127.0.0.1:{tls}, tls: {{cert: {}, key: {}}}}}\n\
         routes: {{\"*\": [{{match: {{path: /fixed}}, respond: {{body: fixed}}}}, {{to: app}}]}}\n\
         services: {{app: {{endpoints: [\"{}\"]}}}}\n{more}",
        pki.path("web.pem"),
        pki.path("web.key"),
        origin.address()
    ));
    (proxy, plain, tls)
}

#[test]
fn curl_gets_its_answers_with_prior_knowledge_and_by_alpn() {
    let pki = Pki::new();
    let origin = Origin::echoing();
    let log = "telemetry: {access_log: {path: stdout}}\n";
    let (proxy, plain, tls) = in_front_of(&pki, &origin, log);
    let ca = pki.path("ca.pem");
    let (http, https) = (format!("http://127.0.0.1:{plain}"), format!("https://localhost:{tls}"));
    let version = "%{http_version} %{http_code}";
    let large = "0123456789abcdef".repeat(100_000);
    let file = pki.path("large");
    std::fs::write(&file, &large).unwrap();
    for (base, options) in
        [(&http, vec!["--http2-prior-knowledge"]), (&https, vec!["--http2", "--cacert", &ca])]
    {
        let ask = |more: &[&str], path: &str| {
            let url = format!("{base}{path}");
            curl(&[&options[..], more, &[&url]].concat())
        };
        assert_eq!(ask(&["-o", "/dev/null", "-w", version], "/"), "2 200");
        assert_eq!(ask(&["-d", "x=y"], "/"), "x=y");
        assert_eq!(ask(&[], "/fixed"), "fixed");
        assert_eq!(ask(&["-I", "-o", "/dev/null", "-w", version], "/fixed"), "2 200");
        let sent = format!("@{file}");
        assert!(ask(&["--data-binary", &sent], "/") == large);
        // The origin echoes the chunked body, including its chunks.
        let chunks = ask(&["-H", "Content-Length:", "--data-binary", &sent], "/");
        assert!(chunks.len() > large.len() && chunks.ends_with("\r\n0\r\n\r\n"));
    }
    let requests = origin.requests().concat();
    assert!(requests.contains("x-forwarded-proto: https"));
    assert!(requests.contains("host: localhost:") || requests.contains("Host: localhost:"));
    eventually("the access log", || proxy.log().contains("\"protocol\":\"HTTP/2\"").then_some(()));
}

#[test]
fn streams_go_side_by_side_and_trailers_come_through() {
    let pki = Pki::new();
    let quick_is_answered = AtomicBool::new(false);
    let origin = Origin::scripted(move |peer| {
        while let Some(request) = peer.request() {
            if request.starts_with("GET /slow") {
                eventually("the quick one to be answered", || {
                    quick_is_answered.load(Ordering::SeqCst).then_some(())
                });
                // Give the quick answer time to pass the proxy.
                std::thread::park_timeout(std::time::Duration::from_millis(300));
            }
            peer.send(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n\
                 2\r\nhi\r\n0\r\nx-sum: 7\r\n\r\n",
            );
            if request.starts_with("GET /quick") {
                quick_is_answered.store(true, Ordering::SeqCst);
            }
        }
    });
    let (_proxy, plain, _) = in_front_of(&pki, &origin, "");
    let url = |path: &str| format!("http://127.0.0.1:{plain}{path}");
    let output = program("nghttp")
        .args(["-v", &url("/slow"), &url("/quick"), &url("/slow?2")])
        .output()
        .unwrap_or_else(|error| panic!("nghttp: {error}; run ./test"));
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(said.matches(":status: 200").count(), 3, "{said}");
    assert_eq!(said.matches("x-sum: 7").count(), 3, "{said}");
    // The quick request is answered first, although it was sent second.
    let stream_of = |at: usize| {
        let (_, id) = said[..at].rsplit_once("stream_id=").unwrap();
        id.split(')').next().unwrap().parse::<u32>().unwrap()
    };
    let first = said.find(":status: 200").unwrap();
    assert_eq!(stream_of(first + 20), 15, "{said}");
}

fn h2load(arguments: &[&str]) -> String {
    let output = program("h2load").args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("h2load: {error}; run ./test"));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn h2load_gets_an_answer_to_every_request() {
    let pki = Pki::new();
    let origin = Origin::saying("hello");
    let (proxy, plain, tls) = in_front_of(&pki, &origin, "");
    for url in [format!("http://127.0.0.1:{plain}/"), format!("https://localhost:{tls}/")] {
        let said = h2load(&["-n", "3000", "-c", "10", "-m", "10", &url]);
        assert!(said.contains("3000 succeeded, 0 failed, 0 errored"), "{said}");
        assert!(said.contains("status codes: 3000 2xx"), "{said}");
    }
    let series = "ringway_service_requests_total{service=\"app\",class=\"2xx\"";
    eventually("the count", || (proxy.metric(series) == 6000.0).then_some(()));
    assert_eq!(proxy.metric("ringway_worker_panics_total"), 0.0);
}

#[test]
fn reloads_under_load_fail_no_request() {
    let pki = Pki::new();
    let origin = Origin::saying("hello");
    let (proxy, plain, _) = in_front_of(&pki, &origin, "");
    let text = std::fs::read_to_string(proxy.config_file()).unwrap();
    let url = format!("http://127.0.0.1:{plain}/");
    let load = std::thread::spawn(move || h2load(&["-D", "2", "-c", "4", "-m", "10", &url]));
    let mut reloads = 0;
    while !load.is_finished() {
        reloads += 1;
        proxy.reload(&format!("{text}drain: {reloads}s\n"));
    }
    let said = load.join().unwrap();
    assert!(said.contains(" 0 failed, 0 errored, 0 timeout"), "{said}");
    assert!(reloads >= 5, "{reloads}");
}

#[test]
fn a_drain_says_goodbye_and_finishes_what_was_begun() {
    let pki = Pki::new();
    let (began, begun) = std::sync::mpsc::channel();
    let (go, went) = std::sync::mpsc::channel::<()>();
    let (began, went) = (std::sync::Mutex::new(began), std::sync::Mutex::new(went));
    let origin = Origin::scripted(move |peer| {
        while peer.request().is_some() {
            began.lock().unwrap().send(()).unwrap();
            went.lock().unwrap().recv().ok();
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
        }
    });
    let (mut proxy, plain, _) = in_front_of(&pki, &origin, "");
    let url = format!("http://127.0.0.1:{plain}/");
    let asking = std::thread::spawn(move || {
        let output = program("nghttp").args(["-v", &url]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    });
    begun.recv().unwrap();
    proxy.signal(nix::sys::signal::Signal::SIGTERM);
    eventually("the listener to close", || {
        std::net::TcpStream::connect(("127.0.0.1", plain)).is_err().then_some(())
    });
    go.send(()).unwrap();
    let said = asking.join().unwrap();
    assert!(said.contains(":status: 200") && said.contains("hello"), "{said}");
    assert!(said.contains("GOAWAY"), "{said}");
    assert!(proxy.wait().success());
}
