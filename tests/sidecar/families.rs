//! DNS names with IPv4 and IPv6 addresses, on hosts with routes for only one of these families.

use std::net::UdpSocket;

use crate::support::eventually;
use crate::support::http::Client;
use crate::support::names::{NameServer, Say};
use crate::support::netns::{App, Host, Wire, can_have_hosts};
use crate::support::proxy::Proxy;

/// The addresses of the name: two IPv4 addresses of the host itself, and four IPv6 addresses.
const IPV4: [&str; 2] = ["127.0.1.1", "127.0.1.2"];
const IPV6: [&str; 4] = ["2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8::4"];

fn names(side: &Host) -> NameServer {
    let socket = side.within(|| UdpSocket::bind("127.0.0.53:53").unwrap());
    let all = IPV4.iter().chain(&IPV6).map(|ip| ip.parse().unwrap()).collect();
    let names = NameServer::over(socket, Say::Addresses(all, 300));
    side.resolve_by(&names.ip);
    names
}

fn proxy(side: &Host, service: &str) -> Proxy {
    let config = format!(
        "listeners: {{web: {{bind: 127.0.0.1:80}}}}\nroutes: {{\"*\": [{{to: app}}]}}\n\
         services: {{app: {{{service}}}}}\n"
    );
    Proxy::start_in(&side.name, &config)
}

fn get(side: &Host, number: usize) -> u16 {
    let request = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {number}\r\nConnection: close\r\n\r\n");
    Client::over(side.connect("127.0.0.1:80")).request(request).status
}

#[test]
fn a_family_without_a_route_comes_last_until_it_has_one() {
    if !can_have_hosts() {
        return;
    }
    for balance in ["round-robin", "random", "least-request", "peak-ewma", "{hash: {header: x}}"] {
        let wire = Wire::new(1);
        let side = &wire.hosts[0];
        side.run(&["ip", "-6", "route", "del", "default"]);
        let _names = names(side);
        let app = |ip: &str| App::saying(side.listen(&format!("{ip}:8080")), "here");
        let _apps = IPV4.map(app);
        let proxy = proxy(side, &format!("dns: \"app.test:8080\", balance: {balance}"));
        for number in 0..200 {
            assert_eq!(get(side, number), 200, "{balance}, request {number}");
        }
        let failures = || proxy.metric("ringway_endpoint_connect_failures_total");
        assert!(failures() < 10.0, "{balance}: {} of 200 requests tried IPv6", failures());
        if balance != "round-robin" {
            continue;
        }
        // Add the IPv6 addresses to the host, so that it also has a route to them.
        for ip in IPV6 {
            let ip = format!("{ip}/64");
            side.run(&["ip", "-6", "address", "add", &ip, "dev", "eth0", "nodad"]);
        }
        let apps = IPV6.map(|ip| app(&format!("[{ip}]")));
        let mut number = 0;
        eventually("requests over IPv6", || {
            number += 1;
            assert_eq!(get(side, number), 200);
            apps.iter().all(|app| !app.peers().is_empty()).then_some(())
        });
    }
}

#[test]
fn a_service_may_have_the_addresses_of_one_family_alone() {
    if !can_have_hosts() {
        return;
    }
    let wire = Wire::new(1);
    let side = &wire.hosts[0];
    let _names = names(side);
    for (family, expected) in
        [("ipv4", &IPV4[..]), ("ipv6", &IPV6[..]), ("any", &[&IPV4[..], &IPV6[..]].concat()[..])]
    {
        let service = format!("dns: {{address: \"app.test:8080\", family: {family}}}");
        let proxy = proxy(side, &service);
        let page = proxy.admin("/services");
        let page: serde_json::Value = serde_json::from_str(page.text()).unwrap();
        let text = page.to_string();
        for ip in IPV4.iter().chain(&IPV6) {
            let shown = text.contains(&format!("{ip}:8080\"")) || text.contains(&format!("[{ip}]"));
            assert_eq!(shown, expected.contains(ip), "{family}: {ip}: {text}");
        }
    }
}
