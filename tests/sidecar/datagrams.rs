//! Captured UDP, and the resolver for names of services.

use std::io::{BufRead, BufReader};
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::rules;
use crate::support::netns::{Host, Wire, can_have_hosts};
use crate::support::pki::{Pki, Wanted};
use crate::support::proxy::Proxy;
use crate::support::{PATIENCE, eventually, skipped};

/// A program on a host. It is killed when this value is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// A DNS server on `host` with one known name.
fn name_server(host: &Host, port: u16) -> Running {
    let port = format!("--port={port}");
    let words = ["dnsmasq", "--keep-in-foreground", "--no-resolv", "--no-hosts", "--pid-file="];
    let more =
        ["--conf-file=/dev/null", "--user=root", "--address=/known.example/192.0.2.7", &port];
    let child = host.command(&[&words[..], &more].concat()).stderr(Stdio::null()).spawn().unwrap();
    let running = Running(child);
    let at = format!("@{}", host.v4());
    let number = &port["--port=".len()..];
    eventually("dnsmasq", || {
        (!dig(host, &[&at, "-p", number, "known.example"]).is_empty()).then_some(())
    });
    running
}

/// The short output of dig. Empty if there is no answer.
fn dig(host: &Host, words: &[&str]) -> String {
    let patience = ["dig", "+short", "+time=1", "+tries=1"];
    let output = host.command(&[&patience[..], words].concat()).output().unwrap();
    match output.status.success() {
        true => String::from_utf8(output.stdout).unwrap().trim().to_owned(),
        false => String::new(),
    }
}

fn sidecar(side: &Host, more: &str) -> Proxy {
    Proxy::start_in(
        &side.name,
        &format!(
            "mesh: {{outbound: {{bind: [\"0.0.0.0:15001\", \"[::]:15001\"], {more}}}}}\n\
             services:\n\
             \x20 names: {{addresses: [\"10.9.0.1:8053\", \"[fd09::1]:8053\"], \
             endpoints: [\"10.99.0.2:8053\"]}}\n\
             \x20 quic: {{addresses: \"10.9.0.2:8443\", endpoints: [\"10.99.0.2:8443\"]}}\n\
             \x20 inside: {{addresses: \"10.9.0.3:8053\", tls: {{verify: none}}, \
             endpoints: [\"10.99.0.2:8054\"]}}\n"
        ),
    )
}

#[test]
fn queries_of_names_pass_and_are_counted_and_denied_ones_are_not_answered() {
    if !can_have_hosts() {
        return;
    }
    let wire = Wire::new(2);
    let [side, other] = &wire.hosts[..] else { panic!() };
    let _server = name_server(other, 8053);
    let proxy = sidecar(side, "unknown: deny, udp: {idle_timeout: 300ms, flows: 50}");
    rules::up(side, "nft", &proxy);
    let ask = |server: &str| dig(side, &[&format!("@{server}"), "-p", "8053", "known.example"]);
    for server in ["10.99.0.2", "10.9.0.1", "fd09::1"] {
        assert_eq!(ask(server), "192.0.2.7", "{server}");
    }
    assert_eq!(proxy.metric("ringway_capture_udp_flows_total"), 3.0);
    assert_eq!(proxy.metric("ringway_capture_udp_sent_datagrams_total"), 3.0);
    assert_eq!(proxy.metric("ringway_capture_udp_received_datagrams_total"), 3.0);
    assert_eq!(ask("fd99::2"), "", "nobody names that");
    let refused = |reason: &str| {
        let name = "ringway_capture_udp_refused_datagrams_total{listener=\"mesh.outbound\"";
        proxy.metric(&format!("{name},reason=\"{reason}\""))
    };
    assert_eq!(refused("unknown"), 1.0);
    assert_eq!(ask("10.9.0.3"), "", "not in the clear to who demands TLS");
    assert_eq!(refused("needs_tls"), 1.0);
    eventually("the flows to end", || {
        (proxy.metric("ringway_capture_udp_flows_active") == 0.0).then_some(())
    });
    assert_eq!(ask("10.9.0.1"), "192.0.2.7", "a new flow");
    assert_eq!(proxy.metric("ringway_capture_refused_total"), 0.0);
}

#[test]
fn rules_and_limits_hold_for_datagrams() {
    if !can_have_hosts() {
        return;
    }
    let wire = Wire::new(2);
    let [side, other] = &wire.hosts[..] else { panic!() };
    let _server = name_server(other, 8053);
    rules::outbound_udp(side);
    let proxy = sidecar(side, "udp: {flows: 2}");
    let ask = |server: &str| dig(side, &[&format!("@{server}"), "-p", "8053", "known.example"]);
    assert_eq!([ask("10.9.0.1"), ask("10.9.0.1")], ["192.0.2.7", "192.0.2.7"]);
    assert_eq!(ask("10.9.0.1"), "", "two flows are open");
    let overflow = "ringway_capture_udp_refused_datagrams_total{listener=\"mesh.outbound\",\
                    reason=\"overflow\"";
    assert_eq!(proxy.metric(overflow), 1.0);
    let config = std::fs::read_to_string(proxy.config_file()).unwrap();
    let denied = "authorization: [{action: deny, to: {service: names, ports: 8053}}]\n";
    proxy.reload(&(config.replace("flows: 2", "flows: 20") + denied));
    assert_eq!(ask("10.9.0.1"), "");
    let denied = "ringway_capture_udp_refused_datagrams_total{listener=\"mesh.outbound\",\
                  reason=\"denied\"";
    assert_eq!(proxy.metric(denied), 1.0);
}

/// A socket on a host, whose reads take at most ten seconds.
fn socket(host: &Host, address: &str) -> UdpSocket {
    let socket = host.within(|| UdpSocket::bind(address).unwrap());
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

#[test]
fn a_server_that_chooses_its_ids_gets_no_other_flow() {
    if !can_have_hosts() {
        return;
    }
    let wire = Wire::new(2);
    let [side, other] = &wire.hosts[..] else { panic!() };
    let (hostile, honest) = (socket(other, "10.99.0.2:9001"), socket(other, "10.99.0.2:9002"));
    let proxy = sidecar(side, "udp: {}");
    rules::up(side, "nft", &proxy);
    // The ids are equal to the bytes that follow the first one in a record of DTLS, and in "Order".
    for (id, datagram) in [(&b"\xfe\xff\0\0"[..], &b"\x16\xfe\xff\0\0"[..]), (b"rder", b"Order")] {
        let begins = socket(side, "0.0.0.0:0");
        let mut initial = vec![0xc3, 0, 0, 0, 1, 8, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0x44, 0x9e];
        initial.resize(1200, 0);
        begins.send_to(&initial, "10.99.0.2:9001").unwrap();
        let mut block = [0; 2048];
        let (length, from) = hostile.recv_from(&mut block).unwrap();
        assert_eq!(length, 1200);
        let answer = [&b"\xc0\0\0\0\x01\0\x04"[..], id, &[0; 20]].concat();
        hostile.send_to(&answer, from).unwrap();
        assert_eq!(begins.recv(&mut block).unwrap(), answer.len());
        let asks = socket(side, "0.0.0.0:0");
        asks.send_to(datagram, "10.99.0.2:9002").unwrap();
        let (length, _) = honest.recv_from(&mut block).expect("the datagram");
        assert_eq!(&block[..length], datagram);
    }
    assert_eq!(proxy.metric("ringway_capture_udp_moved_flows_total"), 0.0);
    // To the same server, the id finds the connection.
    socket(side, "0.0.0.0:0").send_to(b"Order", "10.99.0.2:9001").unwrap();
    hostile.recv(&mut [0; 2048]).unwrap();
    let moved = || (proxy.metric("ringway_capture_udp_moved_flows_total") == 1.0).then_some(());
    eventually("the flow that moved", moved);
    // A packet in the middle of an unknown connection has no name, so its service is not known.
    let middle = [0xe3, 0, 0, 0, 1, 0, 0, 0, 0];
    socket(side, "0.0.0.0:0").send_to(&middle, "10.99.0.2:9002").unwrap();
    let refused = "ringway_capture_udp_refused_datagrams_total{listener=\"mesh.outbound\",\
                   reason=\"unknown_connection\"}";
    eventually("unknown_connection", || (proxy.metric(refused) == 1.0).then_some(()));
}

#[test]
fn no_name_is_read_where_tcp_is_declared() {
    let Some((python, pki, wire)) = beside_a_quic_server() else { return };
    let [side, other] = &wire.hosts[..] else { panic!() };
    let _server = quic_server(&python, other, "8443", &pki, "one");
    let ca = pki.path("ca.pem");
    // By its name, the connection would go where nobody listens.
    let proxy = Proxy::start_in(
        &side.name,
        "mesh: {outbound: {bind: [\"0.0.0.0:15001\", \"[::]:15001\"], udp: {}, \
         ports: {8443: tcp}}}\n\
         routes: {one.example: [{to: nowhere}]}\n\
         services:\n\
         \x20 nowhere: {endpoints: [\"10.99.0.2:1\"]}\n\
         \x20 quic: {protocol: tcp, addresses: \"10.9.0.2:443\", \
         endpoints: [\"10.99.0.2:8443\"]}\n",
    );
    rules::up(side, "nft", &proxy);
    for (address, port) in [("10.9.0.2", "443"), ("10.99.0.2", "8443")] {
        let said = side.run(&[&python, QUIC, "client", address, port, &ca]);
        assert_eq!(said, "echoed\n", "{address}");
    }
}

#[test]
fn what_others_ask_a_workload_is_answered_from_the_address_that_they_ask() {
    if !can_have_hosts() {
        return;
    }
    let wire = Wire::new(2);
    let [client, side] = &wire.hosts[..] else { panic!() };
    // The server holds the port on all addresses, and does not share it.
    let _server = name_server(side, 8053);
    let config = "mesh: {inbound: {bind: [\"0.0.0.0:15006\", \"[::]:15006\"], udp: {}}}\n";
    let proxy = Proxy::start_in(&side.name, config);
    rules::up(side, "nft", &proxy);
    // dig ignores answers from other addresses.
    let ask = |server: &str| dig(client, &[&format!("@{server}"), "-p", "8053", "known.example"]);
    for server in ["10.99.0.2", "fd99::2"] {
        assert_eq!(ask(server), "192.0.2.7", "{server}\n{}", proxy.log());
    }
    assert_eq!(proxy.metric("ringway_capture_udp_flows_total"), 2.0);
    assert_eq!(proxy.metric("ringway_capture_udp_received_datagrams_total"), 2.0);
    let denied = "authorization: [{action: deny, to: {ports: 8053}, from: {ips: 10.99.0.1}}]\n";
    proxy.reload(&(config.to_owned() + denied));
    assert_eq!([ask("10.99.0.2"), ask("fd99::2")], ["", "192.0.2.7"]);
}

/// The Python with aioquic, unless it is missing.
fn aioquic() -> Option<String> {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/bin/python");
    let has_it = Command::new(&python).args(["-c", "import aioquic"]).output();
    if has_it.is_ok_and(|output| output.status.success()) {
        return can_have_hosts().then(|| python.to_str().unwrap().to_owned());
    }
    skipped("QUIC: aioquic is not in target/tools (pip)");
    None
}

const QUIC: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sidecar/quic.py");

/// A server of QUIC at `port` of a host, with the certificate `name`.
fn quic_server(python: &str, host: &Host, port: &str, pki: &Pki, name: &str) -> Running {
    let (cert, key) = (pki.path(&format!("{name}.pem")), pki.path(&format!("{name}.key")));
    let server = [python, QUIC, "server", "0.0.0.0", port, &cert, &key];
    let mut server = Running(host.command(&server).stdout(Stdio::piped()).spawn().unwrap());
    let mut line = String::new();
    BufReader::new(server.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    server
}

/// aioquic's Python, a certificate `one` for one.example, and two hosts. `None` without aioquic.
fn beside_a_quic_server() -> Option<(String, Pki, Wire)> {
    let python = aioquic()?;
    let pki = Pki::new();
    pki.leaf("one", &Wanted { names: &["one.example"], ..Wanted::default() });
    Some((python, pki, Wire::new(2)))
}

#[test]
fn a_quic_client_passes() {
    let Some((python, pki, wire)) = beside_a_quic_server() else { return };
    let [side, other] = &wire.hosts[..] else { panic!() };
    let _server = quic_server(&python, other, "8443", &pki, "one");
    let ca = pki.path("ca.pem");
    let proxy = sidecar(side, "udp: {}");
    rules::up(side, "iptables", &proxy);
    let requests = || proxy.metric("ringway_endpoint_requests_total{service=\"quic\"");
    for address in ["10.9.0.2", "10.99.0.2"] {
        let said = side.run(&[&python, QUIC, "client", address, "8443", &ca]);
        assert_eq!(said, "echoed\n", "{address}");
    }
    assert_eq!(proxy.metric("ringway_capture_udp_flows_total"), 2.0);
    assert_eq!(requests(), 0.0, "a flow is no request");
    assert!(proxy.metric("ringway_capture_udp_sent_bytes_total") > 400_000.0);
    assert!(proxy.metric("ringway_capture_udp_received_bytes_total") > 400_000.0);
}

#[test]
fn the_server_name_of_captured_quic_selects_the_service() {
    let Some(python) = aioquic() else { return };
    let pki = Pki::new();
    for name in ["one", "two"] {
        pki.leaf(name, &Wanted { names: &[&format!("{name}.example")], ..Wanted::default() });
    }
    let wire = Wire::new(2);
    let [side, other] = &wire.hosts[..] else { panic!() };
    let _one = quic_server(&python, other, "9001", &pki, "one");
    let _two = quic_server(&python, other, "9002", &pki, "two");
    let ca = pki.path("ca.pem");
    let config = "mesh: {outbound: {bind: [\"0.0.0.0:15001\", \"[::]:15001\"], udp: {}, \
                  unknown: deny}}\n\
                  routes: {one.example: [{to: one}], two.example: [{to: two}], \
                  three.example: [{to: three}]}\n\
                  services:\n\
                  \x20 one: {endpoints: [\"10.99.0.2:9001\"]}\n\
                  \x20 two: {endpoints: [\"10.99.0.2:9002\"]}\n\
                  \x20 three: {endpoints: [\"10.99.0.2:9001\"], tls: {verify: none}}\n";
    let proxy = Proxy::start_in(&side.name, config);
    rules::up(side, "nft", &proxy);
    let ask = |name: &str| {
        // The client trusts the name of the server alone, and asks where no server is.
        let words = [&python, QUIC, "client", "10.9.0.9", "443", &ca, name];
        side.command(&words).output().unwrap().status.success()
    };
    assert!(ask("one.example") && ask("two.example"), "{}", proxy.log());
    let flows = || proxy.metric("ringway_capture_udp_flows_total");
    assert_eq!(flows(), 4.0, "each client has moved once");
    let denied = "authorization: [{action: deny, to: {service: two}}]\n";
    proxy.reload(&(config.to_owned() + denied));
    let refused = |reason: &str| {
        let name = "ringway_capture_udp_refused_datagrams_total{listener=\"mesh.outbound\"";
        proxy.metric(&format!("{name},reason=\"{reason}\"}}"))
    };
    for (name, reason) in
        [("two.example", "denied"), ("three.example", "needs_tls"), ("x.example", "unknown")]
    {
        let client = [&python, QUIC, "client", "10.9.0.9", "443", &ca, name];
        let _client = Running(side.command(&client).stderr(Stdio::null()).spawn().unwrap());
        eventually(reason, || (refused(reason) > 0.0).then_some(()));
    }
    assert_eq!(flows(), 4.0);
}

#[test]
fn the_resolver_knows_services_and_asks_others_for_the_rest() {
    if !can_have_hosts() {
        return;
    }
    let wire = Wire::new(2);
    let [side, other] = &wire.hosts[..] else { panic!() };
    let server = name_server(other, 53);
    side.resolve_by("10.99.0.2");
    let config = "mesh: {dns: {bind: \"127.0.0.1:15053\"}}\n\
                  services:\n\
                  \x20 stock: {addresses: [\"10.9.0.1:80\", \"[fd09::1]:80\"], endpoints: []}\n";
    let proxy = Proxy::start_in(&side.name, config);
    let ask = |words: &[&str]| dig(side, &[&["@127.0.0.1", "-p", "15053"][..], words].concat());
    for (words, expected) in [
        (&["stock"][..], "10.9.0.1"),
        (&["+tcp", "STOCK"], "10.9.0.1"),
        (&["AAAA", "stock"], "fd09::1"),
        (&["MX", "stock"], ""),
        (&["known.example"], "192.0.2.7"),
        (&["+tcp", "known.example"], "192.0.2.7"),
    ] {
        assert_eq!(ask(words), expected, "{words:?}");
    }
    let counted =
        |result: &str| proxy.metric(&format!("ringway_dns_queries_total{{result=\"{result}\"}}"));
    assert_eq!((counted("here"), counted("elsewhere"), counted("failed")), (4.0, 2.0, 0.0));
    proxy.reload(&config.replace("10.9.0.1:80", "10.9.0.7:80"));
    eventually("the new address", || (ask(&["stock"]) == "10.9.0.7").then_some(()));
    drop(server);
    let said = side.run(&["dig", "@127.0.0.1", "-p", "15053", "known.example"]);
    assert!(said.contains("SERVFAIL"), "{said}");
}
