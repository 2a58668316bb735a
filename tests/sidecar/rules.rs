//! The rules that capture traffic, in their shortest form.

use std::process::Command;

use crate::support::netns::Host;
use crate::support::proxy::Proxy;

/// How traffic is captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// REDIRECT.
    Redirect,
    /// TPROXY.
    Tproxy,
}

impl By {
    /// The value of `intercept` in the configuration.
    pub fn word(self) -> &'static str {
        match self {
            Self::Redirect => "redirect",
            Self::Tproxy => "tproxy",
        }
    }
}

/// The programs that `ringway intercept` uses to install rules.
pub const BACKENDS: [&str; 2] = ["nft", "iptables"];

/// Installs the rules of `ringway intercept up` with `backend`, for the configuration of `proxy`.
#[track_caller]
pub fn up(host: &Host, backend: &str, proxy: &Proxy) {
    let directory = proxy.directory().to_str().unwrap();
    let ringway = env!("CARGO_BIN_EXE_ringway");
    // All processes here run as root, so only the mark identifies the proxy.
    let place = ["--netns", &host.name, "--backend", backend, "-c", directory, "--user", "none"];
    let output = Command::new(ringway).args(["intercept", "up"]).args(place).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Redirects traffic from others to TCP ports 8000 to 9000 to port 15006.
pub fn inbound(host: &Host, by: By) {
    match by {
        By::Redirect => host.nft(
            "table inet test_in {\n\
             chain prerouting {\n\
             type nat hook prerouting priority dstnat\n\
             iifname eth0 tcp dport 8000-9000 redirect to :15006\n\
             }\n}\n",
        ),
        By::Tproxy => {
            route_marked_to_us(host);
            // The application answers to the clients' addresses. These answers belong to
            // connections of the proxy.
            host.nft(
                "table inet test_in {\n\
                 chain prerouting {\n\
                 type filter hook prerouting priority mangle\n\
                 iifname lo meta mark 1338 ct mark set 1337\n\
                 iifname eth0 socket transparent 1 meta mark set 1337 accept\n\
                 iifname eth0 meta l4proto tcp tcp dport 8000-9000 tproxy to :15006 \
                 meta mark set 1337 accept\n\
                 }\n\
                 chain output {\n\
                 type route hook output priority mangle\n\
                 ct mark 1337 ct direction reply meta mark set 1337\n\
                 }\n}\n",
            );
        }
    }
}

/// Redirects traffic of the host to TCP ports 8000 to 9000 to port 15001, except that of the proxy.
pub fn outbound(host: &Host, by: By) {
    match by {
        By::Redirect => host.nft(
            "table inet test_out {\n\
             chain output {\n\
             type nat hook output priority -100\n\
             meta mark 1338 return\n\
             tcp dport 8000-9000 redirect to :15001\n\
             }\n}\n",
        ),
        By::Tproxy => {
            route_marked_to_us(host);
            host.nft(
                "table inet test_out {\n\
                 chain output {\n\
                 type route hook output priority mangle\n\
                 meta mark 1338 return\n\
                 tcp dport 8000-9000 ct direction original meta mark set 1337\n\
                 }\n\
                 chain prerouting {\n\
                 type filter hook prerouting priority mangle\n\
                 iifname lo meta mark 1337 meta l4proto tcp tcp dport 8000-9000 \
                 tproxy to :15001 accept\n\
                 }\n}\n",
            );
        }
    }
}

/// Redirects traffic of the host to UDP ports 8000 to 9000 to port 15001, except that of the proxy.
pub fn outbound_udp(host: &Host) {
    route_marked_to_us(host);
    host.nft(
        "table inet test_udp {\n\
         chain output {\n\
         type route hook output priority mangle\n\
         meta mark 1338 return\n\
         udp dport 8000-9000 ct direction original meta mark set 1337\n\
         }\n\
         chain prerouting {\n\
         type filter hook prerouting priority mangle\n\
         iifname lo meta mark 1337 meta l4proto udp udp dport 8000-9000 \
         tproxy to :15001 accept\n\
         }\n}\n",
    );
}

/// Redirects traffic of users other than root to TCP ports 8000 to 9000 to port 15001.
pub fn outbound_by_user(host: &Host) {
    host.nft(
        "table inet test_user {\n\
         chain output {\n\
         type nat hook output priority -100\n\
         meta skuid 0 return\n\
         tcp dport 8000-9000 redirect to :15001\n\
         }\n}\n",
    );
}

/// Delivers packets with mark 1337 to this host, for any destination.
fn route_marked_to_us(host: &Host) {
    for family in ["-4", "-6"] {
        let routes = host.run(&["ip", family, "rule", "show"]);
        if routes.contains("0x539") {
            continue;
        }
        let rule = ["ip", family, "rule", "add", "fwmark", "1337", "lookup", "133"];
        host.run(&rule);
        let route = ["ip", family, "route", "add", "local", "default", "dev", "lo", "table", "133"];
        host.run(&route);
    }
}
