//! The configuration changes while requests are running: no request fails, and no configuration is
//! applied in part.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use nix::sys::signal::Signal;

use crate::support::http::Client;
use crate::support::origin::Origin;
use crate::support::proxy::Proxy;
use crate::support::{eventually, free_port};

fn config(port: u16, origin: &Origin) -> String {
    format!(
        "listeners: {{web: {{bind: 127.0.0.1:{port}}}}}\n\
         routes: {{\"*\": [{{to: app}}]}}\n\
         services: {{app: {{endpoints: [\"{}\"]}}}}\n",
        origin.address()
    )
}

#[test]
fn a_new_file_changes_the_running_proxy_and_keeps_its_connections() {
    let (one, two) = (Origin::saying("one"), Origin::saying("two"));
    let port = free_port();
    let proxy = Proxy::start(&config(port, &one));
    let mut client = Client::connect(port);
    assert_eq!(client.get("a", "/").text(), "one");
    proxy.reload(&config(port, &two));
    assert_eq!(client.get("a", "/").text(), "two", "on the same connection");
}

#[test]
fn a_broken_file_keeps_the_old_configuration_and_says_why() {
    let origin = Origin::saying("x");
    let port = free_port();
    let proxy = Proxy::start(&config(port, &origin));
    std::fs::write(proxy.config_file(), "listeners: {web: {bnd: 1}}\nroutez: {}\n").unwrap();
    eventually("the failure to be counted", || {
        let series = "ringway_config_reloads_total{result=\"failure\"}";
        (proxy.metric(series) >= 1.0).then_some(())
    });
    assert_eq!(Client::connect(port).get("a", "/").text(), "x");
    let shown = proxy.admin("/config");
    assert!(shown.text().contains("bnd") && shown.text().contains("routez"), "{}", shown.text());
    eventually("the log to say it", || proxy.log().contains("routez").then_some(()));
    assert_eq!(proxy.metric("ringway_config_last_reload_successful"), 0.0);
    std::fs::write(proxy.config_file(), config(port, &origin)).unwrap();
    eventually("the repaired file to be accepted", || {
        (proxy.metric("ringway_config_last_reload_successful") == 1.0).then_some(())
    });
}

#[test]
fn listeners_come_and_go_without_touching_the_others() {
    let origin = Origin::saying("x");
    let (port, extra) = (free_port(), free_port());
    let proxy = Proxy::start(&config(port, &origin));
    let mut client = Client::connect(port);
    assert_eq!(client.get("a", "/").text(), "x");
    let with_extra = config(port, &origin)
        .replace("listeners: {", &format!("listeners: {{more: {{bind: 127.0.0.1:{extra}}}, "));
    proxy.reload(&with_extra);
    let mut added = Client::connect(extra);
    assert_eq!(added.get("a", "/").text(), "x");
    proxy.reload(&config(port, &origin));
    assert_eq!(added.rest(), b"", "an idle connection of the removed listener is closed");
    eventually("the removed port to refuse", || {
        std::net::TcpStream::connect(("127.0.0.1", extra)).is_err().then_some(())
    });
    assert_eq!(client.get("a", "/").text(), "x", "the other listener's connection goes on");
}

#[test]
fn a_request_in_progress_finishes_as_it_began() {
    let (release, released) = std::sync::mpsc::channel::<()>();
    let released = std::sync::Mutex::new(released);
    let slow = Origin::scripted(move |peer| {
        peer.request();
        released.lock().unwrap().recv().ok();
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow");
    });
    let other = Origin::saying("other");
    let port = free_port();
    let proxy = Proxy::start(&config(port, &slow));
    let mut client = Client::connect(port);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("the request to arrive", || (!slow.requests().is_empty()).then_some(()));
    proxy.reload(&config(port, &other));
    release.send(()).unwrap();
    assert_eq!(client.response().text(), "slow");
    assert_eq!(client.get("a", "/").text(), "other");
}

#[test]
fn sigterm_lets_requests_finish_and_then_ends() {
    let (release, released) = std::sync::mpsc::channel::<()>();
    let released = std::sync::Mutex::new(released);
    let slow = Origin::scripted(move |peer| {
        peer.request();
        released.lock().unwrap().recv().ok();
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow");
    });
    let port = free_port();
    let mut proxy = Proxy::start(&config(port, &slow));
    let mut client = Client::connect(port);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("the request to arrive", || (!slow.requests().is_empty()).then_some(()));
    proxy.signal(Signal::SIGTERM);
    eventually("new connections to be refused", || {
        std::net::TcpStream::connect(("127.0.0.1", port)).is_err().then_some(())
    });
    release.send(()).unwrap();
    let response = client.response();
    assert_eq!(response.text(), "slow");
    assert_eq!(response.field("connection"), Some("close"));
    assert_eq!(proxy.wait().code(), Some(0));
}

#[test]
fn nothing_fails_while_files_change_under_load() {
    let origins = [Origin::saying("one"), Origin::saying("two")];
    let (port, extra) = (free_port(), free_port());
    let proxy = Proxy::start(&config(port, &origins[0]));
    let stop = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..8)
        .map(|number| {
            let (stop, answered) = (stop.clone(), answered.clone());
            std::thread::spawn(move || {
                let mut client = Client::connect(port);
                while !stop.load(Ordering::Relaxed) {
                    if number % 2 == 0 {
                        client = Client::connect(port);
                    }
                    let response = client.get("a", "/");
                    assert_eq!(response.status, 200, "{}", response.head);
                    assert!(matches!(response.text(), "one" | "two"));
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for round in 0..30 {
        let mut new = config(port, &origins[round % 2]);
        if round % 3 == 0 {
            let more = format!("listeners: {{more: {{bind: 127.0.0.1:{extra}}}, ");
            new = new.replace("listeners: {", &more);
        }
        if round % 5 == 0 {
            new = new.replace("[{to: app}]", "[{match: {path: /x}, to: app}, {to: {app: 3}}]");
        }
        proxy.reload(&new);
    }
    stop.store(true, Ordering::Relaxed);
    clients.into_iter().for_each(|client| client.join().unwrap());
    assert!(answered.load(Ordering::Relaxed) > 100);
    assert_eq!(proxy.metric("ringway_worker_panics_total"), 0.0);
}
