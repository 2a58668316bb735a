//! Traffic that the rules capture and exclude, with both programs and both address families.

use super::namespace::World;
use super::needs_namespaces;
use super::talk::{Asking, ask, ask_as, ask_udp, send, server, transparent, udp_server};
use crate::support::eventually;

const BACKENDS: [&str; 2] = ["nft", "iptables"];

#[test]
fn redirect_brings_both_directions_with_their_destinations() {
    needs_namespaces!("redirect_brings_both_directions_with_their_destinations");
    let world = World::new();
    let (host, others) = (&world.host, &world.others);
    let _app = server(host, "app", 8080);
    let _server = server(others, "server", 80);
    let _other = server(others, "server", 443);
    for backend in BACKENDS {
        for (ip, remote) in World::HOST.iter().zip(World::SERVER) {
            assert!(ask(others, ip, 8080).starts_with("app "));
            assert!(ask(host, remote, 80).starts_with("server "));
        }
        host.must(&format!("intercept up --backend {backend} --user none"));
        for (ip, remote) in World::HOST.iter().zip(World::SERVER) {
            // No proxy listens: connections are refused, and none bypasses the proxy.
            assert_eq!(ask(others, ip, 8080), "refused");
            assert_eq!(ask(host, remote, 80), "refused");
        }
        let inbound = server(host, "inbound", 15006);
        let outbound = server(host, "outbound", 15001);
        for (ip, remote) in World::HOST.iter().zip(World::SERVER) {
            let shown = if ip.contains(':') { format!("[{ip}]") } else { (*ip).to_owned() };
            assert!(ask(others, ip, 8080).starts_with(&format!("inbound {shown}:8080 from ")));
            let shown =
                if remote.contains(':') { format!("[{remote}]") } else { remote.to_owned() };
            assert!(ask(host, remote, 443).starts_with(&format!("outbound {shown}:443 from ")));
            // Traffic of this host to itself is not captured.
            assert!(ask(host, ip, 8080).starts_with("app "));
            let own = if ip.contains(':') { "::1" } else { "127.0.0.1" };
            assert!(ask(host, own, 8080).starts_with("app "));
        }
        drop((inbound, outbound));
        host.must("intercept down");
    }
}

#[test]
fn tproxy_keeps_the_destination_and_brings_answers_back() {
    needs_namespaces!("tproxy_keeps_the_destination_and_brings_answers_back");
    let world = World::new();
    let (host, others) = (&world.host, &world.others);
    let _app = server(host, "app", 8080);
    let _server = server(others, "server", 80);
    for backend in BACKENDS {
        host.must(&format!("intercept up --backend {backend} --tproxy --user none"));
        let inbound = transparent(host, "inbound", 15006);
        let outbound = server(host, "outbound", 15001);
        for (index, (ip, remote)) in World::HOST.iter().zip(World::SERVER).enumerate() {
            let caught = ask(others, ip, 8080);
            assert!(caught.starts_with("inbound ") && caught.contains(ip), "{backend}: {caught}");
            assert!(ask(host, remote, 80).starts_with("outbound "), "{backend}");
            // Connections of the proxy itself are not disturbed, and get their answers.
            let marked = ask_as(host, remote, 80, Asking { mark: 1338, ..Asking::default() });
            assert!(marked.starts_with("server "), "{backend}: {marked}");
            let client = ["10.99.0.2", "fd99::2"][index];
            let seen = borrowing(&world, client, ip, 8080);
            assert!(seen.ends_with(&format!("from {client}")), "{backend}: {seen}");
        }
        drop((inbound, outbound));
        let refused = if backend == "nft" { "refused" } else { "silent" };
        assert_eq!(ask(others, World::HOST[0], 8080), refused);
        host.must("intercept down");
        assert!(ask(others, World::HOST[0], 8080).starts_with("app "));
    }
    // With --fail-open, connections go to the application when no proxy listens.
    host.must("intercept up --backend nft --tproxy --fail-open --user none");
    for ip in World::HOST {
        assert!(ask(others, ip, 8080).starts_with("app "));
    }
}

/// Sends a request from the host with the source address of a client on another host, like a
/// transparent proxy.
fn borrowing(world: &World, client: &str, address: &str, port: u16) -> String {
    use std::io::Read as _;
    use std::net::SocketAddr;
    let (client, address) = (client.parse().unwrap(), address.parse().unwrap());
    world.host.within(|| {
        let address = SocketAddr::new(address, port);
        let domain = socket2::Domain::for_address(address);
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None).unwrap();
        socket.set_ip_transparent_v4(true).unwrap();
        socket.set_mark(1338).unwrap();
        socket.bind(&SocketAddr::new(client, 0).into()).unwrap();
        let limit = std::time::Duration::from_secs(10);
        if let Err(error) = socket.connect_timeout(&address.into(), limit) {
            return error.to_string();
        }
        let mut text = String::new();
        (&socket).read_to_string(&mut text).unwrap();
        text.trim().to_owned()
    })
}

#[test]
fn the_proxy_and_the_excluded_are_left_alone() {
    needs_namespaces!("the_proxy_and_the_excluded_are_left_alone");
    let world = World::new();
    let (host, others) = (&world.host, &world.others);
    for port in [8080, 8081, 22] {
        std::mem::forget(server(host, "app", port));
        std::mem::forget(server(others, "server", port));
    }
    let _inbound = transparent(host, "inbound", 15006);
    let _outbound = server(host, "outbound", 15001);
    let (v4, v6) = (World::SERVER[0], World::SERVER[1]);
    let uid = |uid| Asking { uid, ..Asking::default() };
    for backend in BACKENDS {
        let up = format!("intercept up --backend {backend} --user 4001 --group 4002 --mark 77");
        host.must(&format!(
            "{up} --exclude-outbound-ports 20-22 --exclude-outbound-cidrs {v4}/32 \
             --exclude-uids 4003 --exclude-gids 4004"
        ));
        for who in [
            uid(4001),
            Asking { uid: 5, gid: 4002, mark: 0 },
            Asking { mark: 77, ..uid(0) },
            uid(4003),
            Asking { uid: 5, gid: 4004, mark: 0 },
        ] {
            let said = ask_as(host, v6, 8080, who);
            assert!(said.starts_with("server "), "{backend} {} {}: {said}", who.uid, who.gid);
        }
        assert!(ask_as(host, v6, 8080, uid(5)).starts_with("outbound "));
        assert!(ask(host, v4, 8080).starts_with("server "));
        assert!(ask(host, v6, 22).starts_with("server "));
        host.must(&format!("{up} --exclude-outbound-interfaces eth+"));
        assert!(ask(host, v6, 8080).starts_with("server "));
        for mode in ["", "--tproxy"] {
            host.must(&format!("{up} {mode} --exclude-inbound-ports 22,8081"));
            assert!(ask(others, "10.99.0.1", 8081).starts_with("app "));
            assert!(ask(others, "fd99::1", 22).starts_with("app "));
            assert!(ask(others, "fd99::1", 8080).starts_with("inbound "));
            host.must(&format!("{up} {mode} --exclude-inbound-cidrs fd99::2/128"));
            assert!(ask(others, "fd99::1", 8080).starts_with("app "));
            assert!(ask(others, "10.99.0.1", 8080).starts_with("inbound "));
            host.must(&format!("{up} {mode} --exclude-inbound-interfaces eth0"));
            assert!(ask(others, "10.99.0.1", 8080).starts_with("app "));
            host.must(&format!("{up} {mode}"));
            // The proxy's listeners can be reached directly.
            assert!(ask(others, "10.99.0.1", 15006).starts_with("inbound 10.99.0.1:15006"));
        }
        host.must(&format!("{up} --no-inbound"));
        assert!(ask(others, "10.99.0.1", 8080).starts_with("app "));
        host.must(&format!("{up} --no-outbound"));
        assert!(ask(host, v6, 8080).starts_with("server "));
        host.must("intercept down");
    }
}

#[test]
fn udp_is_caught_in_both_directions_and_answered_from_where_it_went() {
    needs_namespaces!("udp_is_caught_in_both_directions_and_answered_from_where_it_went");
    let world = World::new();
    let (host, others) = (&world.host, &world.others);
    for any in ["0.0.0.0", "::"] {
        std::mem::forget(udp_server(host, "app", (any, 5000), false));
        std::mem::forget(udp_server(host, "app", (any, 443), false));
    }
    for remote in World::SERVER {
        std::mem::forget(udp_server(others, "server", (remote, 443), false));
    }
    for backend in BACKENDS {
        for (index, (ip, remote)) in World::HOST.iter().zip(World::SERVER).enumerate() {
            let any = ["0.0.0.0", "::"][index];
            host.must(&format!("intercept up --backend {backend} --udp 443,5000 --user none"));
            if backend == "nft" {
                assert_eq!(ask_udp(others, ip, 5000), "refused");
            }
            // The sender of this datagram gets no error, but the datagram must not pass.
            send(host, remote, 443);
            eventually("the datagram to be dropped", || {
                let (_, rules) = host.ringway("intercept show --installed");
                let dropped = |line: &str| {
                    line.contains("-A RINGWAY_DIVERT_IN -i lo -p udp") && !line.starts_with("[0:")
                        || line.contains("drop") && !line.contains("packets 0 ")
                };
                rules.lines().any(dropped).then_some(())
            });
            let inbound = udp_server(host, "inbound", (any, 15006), true);
            let outbound = udp_server(host, "outbound", (any, 15001), true);
            let said = ask_udp(host, remote, 443);
            assert!(said.starts_with("outbound ") && said.contains(remote), "{backend}: {said}");
            let said = ask_udp(others, ip, 5000);
            assert!(said.starts_with("inbound ") && said.contains(ip), "{backend}: {said}");
            host.must(&format!("intercept up --backend {backend} --udp 1-442 --user none"));
            let said = ask_udp(host, remote, 443);
            assert!(said.starts_with("server "), "{backend}: {said}");
            assert!(ask_udp(others, ip, 5000).starts_with("app "), "{backend}");
            drop((inbound, outbound));
        }
        host.must("intercept down");
    }
}

#[test]
fn dns_goes_to_the_resolver_that_was_named() {
    needs_namespaces!("dns_goes_to_the_resolver_that_was_named");
    let world = World::new();
    let (host, others) = (&world.host, &world.others);
    let _server = server(others, "server", 53);
    for backend in BACKENDS {
        host.must(&format!("intercept up --backend {backend} --dns 15053 --udp all --user none"));
        for (own, remote) in ["127.0.0.1", "::1"].into_iter().zip(World::SERVER) {
            let resolver = udp_server(host, "resolver", (own, 15053), false);
            let by_tcp = server(host, "resolver", 15053);
            assert!(ask_udp(host, remote, 53).starts_with("resolver "), "{backend}");
            assert!(ask(host, remote, 53).starts_with("resolver "), "{backend}");
            let asking = Asking { mark: 1338, ..Asking::default() };
            assert!(ask_as(host, remote, 53, asking).starts_with("server "), "{backend}");
            drop((resolver, by_tcp));
        }
        host.must("intercept down");
    }
}
