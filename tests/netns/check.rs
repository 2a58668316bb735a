//! `intercept check`: reports captured traffic, and names traffic that is not captured.

use super::namespace::World;
use super::needs_namespaces;
use super::talk::{server, transparent};

const BACKENDS: [&str; 2] = ["nft", "iptables"];

#[test]
fn good_rules_are_proven_with_and_without_a_proxy() {
    needs_namespaces!("good_rules_are_proven_with_and_without_a_proxy");
    let world = World::new();
    let host = &world.host;
    let before = host.state();
    for backend in BACKENDS {
        for mode in ["", "--tproxy"] {
            let options = format!("{mode} --user none --exclude-inbound-ports 443");
            host.must(&format!("intercept up --backend {backend} {options}"));
            for proxied in [false, true] {
                let serve = if mode.is_empty() { server } else { transparent };
                let listeners = proxied
                    .then(|| (serve(host, "inbound", 15006), server(host, "outbound", 15001)));
                let said = host.must(&format!("intercept check {options}"));
                for words in [
                    "ok       outbound IPv4: a connection to 192.0.2.1:443 is caught at 127.0.0.1",
                    "ok       outbound IPv6: a connection to [2001:db8::1]:443 is caught at [::1]",
                    "ok       outbound IPv4: the same with the proxy's mark 1338 is left alone",
                    "ok       outbound IPv6: the same with the proxy's mark 1338 is left alone",
                    "ok       inbound IPv4: a connection from outside to port 80 is caught",
                    "ok       inbound IPv6: a connection from outside to port 80 is caught",
                ] {
                    assert!(said.contains(words), "{backend} {mode}: {words}:\n{said}");
                }
                assert_eq!(said.contains("no proxy listens"), !proxied, "{said}");
                drop(listeners);
            }
        }
        host.must("intercept down");
        assert_eq!(host.state(), before, "nothing is left of the check");
    }
}

#[test]
fn a_broken_rule_is_named() {
    needs_namespaces!("a_broken_rule_is_named");
    let world = World::new();
    let host = &world.host;
    for (breaking, options, failed) in [
        ("true", "", vec![]),
        ("nft flush chain inet ringway outbound", "", vec!["outbound IPv4", "outbound IPv6"]),
        ("nft flush chain inet ringway inbound", "", vec!["inbound IPv4", "inbound IPv6"]),
        (
            "nft insert rule inet ringway outbound meta nfproto ipv6 accept",
            "",
            vec!["outbound IPv6"],
        ),
        ("nft insert rule inet ringway inbound meta nfproto ipv4 accept", "", vec!["inbound IPv4"]),
        (
            "nft flush chain inet ringway divert_in",
            "--tproxy",
            vec!["inbound IPv4", "inbound IPv6"],
        ),
        (
            "nft 'table inet wall { chain i { type filter hook input priority 0; \
             tcp dport 15006 drop; }; }'",
            "",
            vec!["does a firewall drop packets to port 15006?"],
        ),
        // The rules capture the proxy's own traffic.
        (
            "nft insert rule inet ringway outbound ip daddr 192.0.2.1 tcp dport 443 \
             redirect to :15001",
            "",
            vec!["outbound IPv4: the same with the proxy's mark 1338 is caught"],
        ),
    ] {
        host.must(&format!("intercept up --backend nft --user none {options}"));
        host.sh(breaking);
        let (fine, said) = host.ringway(&format!("intercept check --user none {options}"));
        assert_eq!(fine, failed.is_empty(), "{breaking}: {said}");
        let lines: Vec<&str> = said.lines().filter(|line| line.starts_with("FAILED")).collect();
        for words in &failed {
            assert!(lines.iter().any(|line| line.contains(words)), "{breaking}: {words}:\n{said}");
        }
        let wall = breaking.contains("wall");
        assert!(wall || lines.len() == failed.len(), "{breaking}:\n{said}");
        host.sh("nft flush ruleset");
    }
    host.must("intercept up --user none --no-inbound --outbound-port 16001");
    let (fine, said) = host.ringway("intercept check --user none --no-inbound");
    assert!(!fine && said.contains("must be caught at port 15001, and"), "{said}");
    let (fine, said) = host.ringway("intercept check --user root");
    assert!(!fine && said.contains("run the check as another user"), "{said}");
}
