//! L4: bytes both ways, PROXY protocol in and out.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::support::http::Client;
use crate::support::origin::Origin;
use crate::support::proxy::Proxy;
use crate::support::{eventually, free_port, read_once};

fn config(port: u16, origin: &Origin, listener: &str, service: &str) -> String {
    format!(
        "listeners: {{raw: {{bind: 127.0.0.1:{port}, protocol: tcp, service: raw{listener}}}}}\n\
         services: {{raw: {{protocol: tcp, endpoints: [\"{}\"]{service}}}}}\n",
        origin.address()
    )
}

fn echo_at_the_end() -> Origin {
    Origin::scripted(|peer| {
        let said = peer.until_closed();
        peer.send(said);
    })
}

#[test]
fn half_close_is_kept() {
    let origin = echo_at_the_end();
    let port = free_port();
    let _proxy = Proxy::start(&config(port, &origin, "", ""));
    let mut client = Client::connect(port);
    client.send("said before the end").finish();
    assert_eq!(client.rest(), b"said before the end");
}

#[test]
fn a_server_may_speak_first() {
    let origin = Origin::scripted(|peer| {
        peer.send("220 hello\r\n");
        peer.until_closed();
    });
    let port = free_port();
    let _proxy = Proxy::start(&config(port, &origin, "", ""));
    let mut client = Client::connect(port);
    assert_eq!(client.exactly(11).unwrap(), b"220 hello\r\n");
}

#[test]
fn bulk_arrives_whole_in_both_directions() {
    const BYTES: usize = 64 * 1024 * 1024;
    let origin = Origin::scripted(|peer| {
        let mut out = peer.stream.try_clone().unwrap();
        let sender = std::thread::spawn(move || {
            let block: Vec<u8> = (0..65536).map(|i| (i % 253) as u8).collect();
            for _ in 0..BYTES / block.len() {
                out.write_all(&block).unwrap();
            }
            out.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let mut seen = vec![0; 65536];
        let (mut total, mut wrong) = (0, 0);
        while let Ok(n @ 1..) = read_once(&mut peer.stream, &mut seen) {
            wrong += (0..n).filter(|i| seen[*i] != ((total + i) % 65536 % 251) as u8).count();
            total += n;
        }
        assert_eq!((total, wrong), (BYTES, 0), "what the origin got");
        sender.join().unwrap();
    });
    let port = free_port();
    let proxy = Proxy::start(&config(port, &origin, "", ""));
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let mut out = stream.try_clone().unwrap();
    let sender = std::thread::spawn(move || {
        let block: Vec<u8> = (0..65536).map(|i| (i % 251) as u8).collect();
        for _ in 0..BYTES / block.len() {
            out.write_all(&block).unwrap();
        }
        out.shutdown(std::net::Shutdown::Write).unwrap();
    });
    let mut seen = vec![0; 65536];
    let (mut total, mut wrong) = (0, 0);
    while let Ok(n @ 1..) = read_once(&mut stream, &mut seen) {
        wrong += (0..n).filter(|i| seen[*i] != ((total + i) % 65536 % 253) as u8).count();
        total += n;
    }
    assert_eq!((total, wrong), (BYTES, 0), "what the client got");
    sender.join().unwrap();
    drop(stream);
    eventually("the bytes to be counted", || {
        (proxy.metric("ringway_listener_received_bytes_total") == BYTES as f64).then_some(())
    });
}

#[test]
fn a_reader_that_stops_stops_its_writer() {
    let origin = Origin::scripted(|peer| {
        let block = [7; 65536];
        // This write blocks when all buffers are full.
        peer.stream.set_write_timeout(Some(std::time::Duration::from_secs(1))).unwrap();
        let mut sent = 0;
        while peer.stream.write_all(&block).is_ok() {
            sent += block.len();
            assert!(sent < 512 * 1024 * 1024, "no back-pressure");
        }
    });
    let port = free_port();
    let proxy = Proxy::start(&config(port, &origin, "", ""));
    let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    eventually("the connection to end", || {
        (proxy.metric("ringway_endpoint_connections_total") > 0.0).then_some(())
    });
    let resident = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", proxy.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap().to_owned();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let before = resident();
    eventually("the writer to give up", || {
        std::fs::read_to_string(format!("/proc/{}/status", proxy.pid())).ok()?;
        (origin.accepted() == 1).then_some(())
    });
    assert!(resident() < before + 32 * 1024, "memory stays flat");
    drop(client);
}

#[test]
fn a_reset_stays_a_reset() {
    let origin = Origin::scripted(|peer| {
        peer.send("x");
        peer.reset();
    });
    let port = free_port();
    let _proxy = Proxy::start(&config(port, &origin, "", ""));
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let mut seen = Vec::new();
    let error = stream.read_to_end(&mut seen).expect_err("a reset, not an end");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn a_reset_is_the_failure_of_the_endpoint_and_an_end_is_none() {
    for (resets, failures) in [(true, 1.0), (false, 0.0)] {
        let origin = Origin::scripted(move |peer| {
            peer.send("x");
            if resets {
                peer.reset();
            }
        });
        let port = free_port();
        let proxy = Proxy::start(&config(port, &origin, "", ""));
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(stream.read_to_end(&mut Vec::new()).is_err(), resets);
        eventually("the tunnel is counted", || {
            (proxy.metric("ringway_listener_connections_active") == 0.0).then_some(())
        });
        assert_eq!(proxy.metric("ringway_endpoint_requests_total"), 1.0);
        assert_eq!(proxy.metric("ringway_endpoint_failures_total"), failures, "{resets}");
    }
}

#[test]
fn proxy_protocol_is_sent_and_understood() {
    for version in ["v1", "v2"] {
        // One proxy sends the client's address to another proxy. That proxy sends it to the origin.
        let origin = Origin::scripted(|peer| {
            while peer.request().is_some() {
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            }
        });
        let (outer, inner) = (free_port(), free_port());
        let _inner = Proxy::start(&format!(
            "listeners: {{web: {{bind: 127.0.0.1:{inner}, proxy_protocol: true}}}}\n\
             routes: {{\"*\": [{{to: app}}]}}\n\
             services: {{app: {{endpoints: [\"{}\"]}}}}\n",
            origin.address()
        ));
        let _outer = Proxy::start(&format!(
            "listeners: {{raw: {{bind: 127.0.0.2:{outer}, protocol: tcp, service: next}}}}\n\
             services: {{next: {{protocol: tcp, endpoints: [\"127.0.0.1:{inner}\"], \
             send_proxy_protocol: {version}}}}}\n",
        ));
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        let from: std::net::SocketAddr = "127.0.0.77:0".parse().unwrap();
        socket.bind(&from.into()).unwrap();
        let to: std::net::SocketAddr = format!("127.0.0.2:{outer}").parse().unwrap();
        socket.connect(&to.into()).unwrap();
        let mut stream: TcpStream = socket.into();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.ends_with("ok"), "{version}: {answer}");
        let request = origin.requests()[0].to_lowercase();
        assert!(request.contains("x-forwarded-for: 127.0.0.77\r\n"), "{version}: {request}");
    }
}

#[test]
fn a_connection_without_its_proxy_header_is_refused() {
    let origin = echo_at_the_end();
    let port = free_port();
    let _proxy = Proxy::start(&config(port, &origin, ", proxy_protocol: true", ""));
    let mut client = Client::connect(port);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").finish();
    assert_eq!(client.rest(), b"");
    assert_eq!(origin.accepted(), 0);
}
