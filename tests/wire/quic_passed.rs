//! QUIC without termination: the server name selects the service, and the datagrams stay as they
//! are. The clients and the endpoints are other proxies.

use std::net::UdpSocket;
use std::time::Duration;

use crate::support::eventually;
use crate::support::free_port;
use crate::support::http::Client;
use crate::support::origin::Origin;
use crate::support::pki::{Pki, Wanted};
use crate::support::proxy::Proxy;

/// An endpoint that speaks HTTP/3. Returns its port.
fn endpoint(pki: &Pki, name: &str, origin: &Origin) -> (Proxy, u16) {
    pki.leaf(name, &Wanted { names: &[name], ..Wanted::default() });
    let port = free_port();
    let (cert, key) = (pki.path(&format!("{name}.pem")), pki.path(&format!("{name}.key")));
    let proxy = Proxy::start(&format!(
        "listeners: {{in: {{bind: \"127.0.0.1:{port}\", protocol: http3, \
         tls: {{cert: {cert}, key: {key}}}}}}}\n\
         routes: {{\"*\": [{{to: app}}]}}\n\
         services: {{app: {{endpoints: [\"{}\"]}}}}\n\
         telemetry: {{access_log: {{path: stdout}}}}\n",
        origin.address()
    ));
    (proxy, port)
}

/// A proxy whose services are asked over QUIC at `passing`, each with the server name of its host.
fn client(pki: &Pki, passing: u16, names: &[&str]) -> (Proxy, u16) {
    let port = free_port();
    let ca = pki.path("ca.pem");
    let (mut routes, mut services) = (String::new(), String::new());
    for (index, name) in names.iter().enumerate() {
        routes += &format!("\x20 {name}: [{{to: s{index}}}]\n");
        services += &format!(
            "\x20 s{index}: {{protocol: http3, endpoints: [\"127.0.0.1:{passing}\"], \
             tls: {{ca: {ca}, sni: {name}}}, connect_timeout: 1s}}\n"
        );
    }
    let proxy = Proxy::start_with(
        &format!(
            "listeners: {{web: {{bind: \"127.0.0.1:{port}\"}}}}\n\
             routes:\n{routes}services:\n{services}"
        ),
        1,
    );
    (proxy, port)
}

fn refused(proxy: &Proxy, reason: &str) -> f64 {
    let name = "ringway_quic_refused_datagrams_total";
    proxy.metric(&format!("{name}{{listener=\"pass\",reason=\"{reason}\"}}"))
}

/// Sends bytes that are not QUIC, and packets of unknown connections.
fn refuses_garbage(proxy: &Proxy, stranger: &UdpSocket) {
    let mut initial = vec![0xc3, 0, 0, 0, 1, 8, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0x44, 0x9e];
    initial.resize(1200, 0);
    for (datagram, reason) in [
        (&b"hello"[..], "unknown_connection"),
        (b"\x00hello", "not_quic"),
        (&initial, "malformed"),
        (&[0xe3, 0, 0, 0, 1, 0, 0, 0, 0], "unknown_connection"),
    ] {
        let before = refused(proxy, reason);
        stranger.send(datagram).unwrap();
        eventually(reason, || (refused(proxy, reason) > before).then_some(()));
    }
}

#[test]
fn the_server_name_selects_the_service_and_nothing_is_decrypted() {
    let pki = Pki::new();
    let (one, two) = (Origin::saying("from one"), Origin::saying("from two"));
    let (_one, one_port) = endpoint(&pki, "one.example", &one);
    let (_two, two_port) = endpoint(&pki, "two.example", &two);
    let echo = UdpSocket::bind("127.0.0.1:0").unwrap();
    let echo_at = echo.local_addr().unwrap();
    let passing = free_port();
    let config = |more: &str| {
        format!(
            "listeners: {{pass: {{bind: \"127.0.0.1:{passing}\", protocol: quic{more}}}}}\n\
             routes: {{one.example: [{{to: one}}], two.example: [{{to: two}}], \
             denied.example: [{{to: denied}}]}}\n\
             services:\n\
             \x20 one: {{endpoints: [\"127.0.0.1:{one_port}\"]}}\n\
             \x20 two: {{endpoints: [\"127.0.0.1:{two_port}\"]}}\n\
             \x20 denied: {{endpoints: [\"127.0.0.1:{two_port}\"]}}\n\
             \x20 other: {{protocol: tcp, endpoints: [\"{echo_at}\"]}}\n\
             authorization: [{{action: deny, to: {{service: denied}}, from: {{ips: 0.0.0.0/0}}}}]\n"
        )
    };
    let proxy = Proxy::start(&config(""));
    let names = ["one.example", "two.example", "denied.example", "three.example"];
    let (_client, port) = client(&pki, passing, &names);
    let ask = |host: &str| Client::connect(port).get(host, "/");
    for _ in 0..3 {
        assert_eq!(ask("one.example").text(), "from one", "{}", proxy.log());
        assert_eq!(ask("two.example").text(), "from two", "{}", proxy.log());
    }
    assert_eq!(ask("denied.example").status, 503);
    assert!(refused(&proxy, "denied") > 0.0);
    assert_eq!(ask("three.example").status, 503);
    assert!(refused(&proxy, "no_route") > 0.0);
    let flows = proxy.metric("ringway_quic_flows_total");
    assert!((2.0..=4.0).contains(&flows), "a flow for each connection: {flows}");
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    stranger.connect(("127.0.0.1", passing)).unwrap();
    refuses_garbage(&proxy, &stranger);
    // A reload keeps the connections; with a service, the other datagrams go there.
    proxy.reload(&config(", service: other, udp: {idle_timeout: 300ms, flows: 20}"));
    assert_eq!(ask("one.example").text(), "from one");
    let active = proxy.metric("ringway_quic_flows_total");
    assert_eq!(active, flows, "the connections are the same");
    stranger.send(b"\x00hello").unwrap();
    let mut block = [0; 64];
    echo.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stranger.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let (length, from) = echo.recv_from(&mut block).unwrap();
    assert_eq!(&block[..length], b"\x00hello");
    echo.send_to(b"and back", from).unwrap();
    assert_eq!(stranger.recv(&mut block).unwrap(), 8);
    assert_eq!(&block[..8], b"and back");
    // Only so many flows are open, and an idle one ends.
    let more: Vec<_> = (0..60).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    more.iter().for_each(|it| _ = it.send_to(b"\x00flood", ("127.0.0.1", passing)).unwrap());
    eventually("the limit", || (refused(&proxy, "overflow") > 0.0).then_some(()));
    eventually("the end of idle flows", || {
        stranger.send(b"\x00again").unwrap();
        echo.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let end =
            echo.recv_from(&mut block).is_ok_and(|(length, _)| &block[..length] == b"\x00again");
        end.then_some(())
    });
}

/// Outlier detection counts the failures of requests over TCP to the same endpoint in a row.
#[test]
fn an_endpoint_that_answers_no_datagram_has_not_succeeded() {
    let origin = Origin::scripted(|peer| {
        while peer.request().is_some() {
            peer.send("HTTP/1.1 500 x\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let mute = UdpSocket::bind(origin.address()).unwrap();
    let (passing, web) = (free_port(), free_port());
    let proxy = Proxy::start_with(
        &format!(
            "listeners:\n\
             \x20 pass: {{bind: \"127.0.0.1:{passing}\", protocol: quic, service: app, \
             udp: {{idle_timeout: 100ms}}}}\n\
             \x20 web: {{bind: \"127.0.0.1:{web}\"}}\n\
             routes: {{\"*\": [{{to: app}}]}}\n\
             services: {{app: {{endpoints: [\"{}\"], outlier_detection: \
             {{consecutive_5xx: 2, max_ejection_percent: 100%}}}}}}\n",
            origin.address()
        ),
        1,
    );
    let ejections = || proxy.metric("ringway_service_outlier_ejections_total{service=\"app\"");
    let mut client = Client::connect(web);
    assert_eq!(client.get("x", "/").status, 500);
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    stranger.send_to(b"\x00hello", ("127.0.0.1", passing)).unwrap();
    mute.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    mute.recv(&mut [0; 64]).unwrap();
    eventually("the end of the flow", || {
        (proxy.metric("ringway_quic_flows_active") == 0.0).then_some(())
    });
    assert_eq!(ejections(), 0.0);
    assert_eq!(client.get("x", "/").status, 500);
    eventually("the ejection", || (ejections() == 1.0).then_some(()));
}

/// A NAT forgets its flow and chooses another port.
#[test]
fn a_connection_is_followed_when_the_client_gets_another_address() {
    let pki = Pki::new();
    let origin = Origin::saying("from one");
    let (_one, one_port) = endpoint(&pki, "one.example", &origin);
    let passing = free_port();
    let proxy = Proxy::start(&format!(
        "listeners: {{pass: {{bind: \"127.0.0.1:{passing}\", protocol: quic}}}}\n\
         routes: {{one.example: [{{to: one}}]}}\n\
         services: {{one: {{endpoints: [\"127.0.0.1:{one_port}\"]}}}}\n"
    ));
    let near = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (_client, port) = client(&pki, near.local_addr().unwrap().port(), &["one.example"]);
    let far: Vec<_> = (0..8).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    let current = std::sync::atomic::AtomicUsize::new(0);
    let peer = std::sync::Mutex::new(None);
    let over = std::sync::atomic::AtomicBool::new(false);
    let order = std::sync::atomic::Ordering::SeqCst;
    let pause = Some(Duration::from_millis(50));
    std::thread::scope(|scope| {
        near.set_read_timeout(pause).unwrap();
        scope.spawn(|| {
            let mut block = [0; 2048];
            while !over.load(order) {
                let Ok((length, from)) = near.recv_from(&mut block) else { continue };
                *peer.lock().unwrap() = Some(from);
                let socket = &far[current.load(order)];
                socket.send_to(&block[..length], ("127.0.0.1", passing)).ok();
            }
        });
        for socket in &far {
            socket.set_read_timeout(pause).unwrap();
            let (near, peer, over) = (&near, &peer, &over);
            scope.spawn(move || {
                let mut block = [0; 2048];
                while !over.load(order) {
                    let Ok((length, _)) = socket.recv_from(&mut block) else { continue };
                    if let Some(peer) = *peer.lock().unwrap() {
                        near.send_to(&block[..length], peer).ok();
                    }
                }
            });
        }
        let answers: Vec<_> = (0..far.len())
            .map(|at| {
                current.store(at, order);
                Client::connect(port).get("one.example", "/").text().to_owned()
            })
            .collect();
        over.store(true, order);
        assert_eq!(answers, vec!["from one"; far.len()], "{}", proxy.log());
    });
    assert_eq!(proxy.metric("ringway_quic_moved_flows_total"), far.len() as f64 - 1.0);
    assert_eq!(proxy.metric("ringway_quic_flows_total"), far.len() as f64);
}
