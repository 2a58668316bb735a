//! Which traffic is captured. The plan does not depend on nft or iptables.

use std::fmt;
use std::str::FromStr;

use crate::net::Network;

/// The default port for captured inbound connections. Istio uses the same.
pub const INBOUND_PORT: u16 = 15006;

/// The default port for captured outbound connections. Istio uses the same.
pub const OUTBOUND_PORT: u16 = 15001;

/// The default mark (SO_MARK) of the proxy's own sockets. Marked packets are never captured. Istio
/// uses the same.
pub const PROXY_MARK: u32 = 1338;

/// The mark that routes a packet to the proxy in TPROXY mode. Istio uses the same.
pub const DIVERT_MARK: u32 = 1337;

/// The routing table that delivers packets with [`DIVERT_MARK`] to this host. Istio uses the same.
pub const ROUTING_TABLE: u32 = 133;

/// The default user of the proxy, if it exists.
pub const USER: &str = "ringway";

/// Which traffic is captured in one network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterceptPlan {
    /// How connections to this host are captured.
    pub inbound: Inbound,
    /// Whether connections from this host are captured. They always use REDIRECT, because TPROXY
    /// does not work for local packets.
    pub outbound: bool,
    /// The port of the listener for connections to this host.
    pub inbound_port: u16,
    /// The port of the listener for connections from this host.
    pub outbound_port: u16,
    /// The UDP ports of this host to capture.
    pub inbound_udp: Ports,
    /// The UDP ports of other hosts to capture.
    pub outbound_udp: Ports,
    /// The UDP port at which the proxy receives QUIC of other proxies. It is not captured.
    pub quic: Option<u16>,
    /// The port of the DNS resolver on this host to which all DNS queries are redirected. `None`
    /// means that queries are not redirected.
    pub dns: Option<u16>,
    /// How the rules recognise the traffic of the proxy itself, which is not captured.
    pub proxy: Proxy,
    /// Ports of the proxy's own listeners. Connections to them are not captured.
    pub own_ports: Ports,
    /// Connections to this host that are not captured, by their source.
    pub exclude_inbound: Exclusions,
    /// Connections from this host that are not captured, by their destination.
    pub exclude_outbound: Exclusions,
    /// Processes whose connections are not captured.
    pub exclude_owners: Owners,
    /// How captured traffic is handled while no proxy runs.
    pub when_dead: WhenDead,
}

/// How connections to this host are captured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Inbound {
    /// With NAT (REDIRECT). The proxy gets the original destination from the kernel.
    #[default]
    Redirect,
    /// Without NAT (TPROXY). The local address of the proxy's socket is the original destination.
    Tproxy,
    /// Inbound connections are not captured.
    None,
}

/// How captured traffic is handled while no proxy runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenDead {
    /// The kernel refuses the traffic. No traffic bypasses the proxy.
    #[default]
    Closed,
    /// The traffic bypasses the proxy, as far as the rules can do this.
    Open,
}

/// How the rules recognise the proxy's own traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// The mark (SO_MARK) of the proxy's sockets.
    pub mark: u32,
    /// The users and groups of the proxy.
    pub owners: Owners,
}

/// Processes, by their user or group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owners {
    /// The numbers of users.
    pub uids: Vec<u32>,
    /// The numbers of groups.
    pub gids: Vec<u32>,
}

/// Traffic in one direction that is not captured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exclusions {
    /// Destination ports.
    pub ports: Ports,
    /// Addresses of the other side.
    pub networks: Vec<Network>,
    /// Interfaces through which the traffic arrives or leaves.
    pub interfaces: Vec<Interface>,
}

/// A set of ports, as sorted ranges that neither touch nor overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ports(Vec<PortRange>);

impl Ports {
    /// Creates the union of `ranges`.
    pub fn new(ranges: impl IntoIterator<Item = PortRange>) -> Self {
        let mut sorted: Vec<PortRange> = ranges.into_iter().collect();
        sorted.sort_unstable_by_key(|range| range.first);
        let mut merged: Vec<PortRange> = Vec::with_capacity(sorted.len());
        for range in sorted {
            match merged.last_mut() {
                Some(last) if u32::from(range.first) <= u32::from(last.last) + 1 => {
                    last.last = last.last.max(range.last);
                }
                _ => merged.push(range),
            }
        }
        Self(merged)
    }

    /// The ranges, sorted.
    pub fn ranges(&self) -> &[PortRange] {
        &self.0
    }

    /// Whether the set has no ports.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `port` is in the set.
    pub fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|range| range.first <= port && port <= range.last)
    }

    /// The union of both sets.
    #[must_use]
    pub fn with(&self, other: &Self) -> Self {
        Self::new(self.0.iter().chain(&other.0).copied())
    }
}

impl FromIterator<u16> for Ports {
    fn from_iter<T: IntoIterator<Item = u16>>(ports: T) -> Self {
        Self::new(ports.into_iter().map(|port| PortRange { first: port, last: port }))
    }
}

/// Ports from `first` to `last`, both included: `8080`, `8000-8100`, or `all`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// The range of all ports.
    pub const ALL: Self = Self { first: 1, last: u16::MAX };

    /// The first and the last port.
    pub fn bounds(self) -> (u16, u16) {
        (self.first, self.last)
    }
}

impl FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "all" {
            return Ok(Self::ALL);
        }
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let number = |text: &str| text.trim().parse().ok().filter(|&port: &u16| port > 0);
        match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Self { first, last }),
            _ => Err(format!("{text:?} is not a port\nwrite 8080, 8000-8100 or all")),
        }
    }
}

/// The name of a network interface (`eth0`). A `+` at the end matches any rest (`veth+`), as in
/// iptables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface(String);

/// The maximum length of the name of an interface: `IFNAMSIZ` without the final zero byte.
const INTERFACE_BYTES_MAX: usize = 15;

impl Interface {
    /// The name without a final `+`, and whether it had one.
    pub fn name(&self) -> (&str, bool) {
        self.0.strip_suffix('+').map_or((self.0.as_str(), false), |name| (name, true))
    }
}

impl FromStr for Interface {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let name = text.strip_suffix('+').unwrap_or(text);
        // The name becomes part of the text of a rule. So fewer characters are allowed than in the
        // kernel.
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-@:".contains(&byte);
        match !name.is_empty() && text.len() <= INTERFACE_BYTES_MAX && name.bytes().all(plain) {
            true => Ok(Self(text.to_owned())),
            false => Err(format!(
                "{text:?} is not the name of an interface\nwrite eth0, or docker+ for all that \
                 begin with docker; `ip link` lists them"
            )),
        }
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl InterceptPlan {
    /// The error of a plan that cannot be installed, with advice. `None` if the plan is possible.
    pub fn mistake(&self) -> Option<String> {
        let mark = self.proxy.mark;
        if mark == 0 || mark == DIVERT_MARK {
            let taken = if mark == 0 { "all unmarked sockets have it" } else { "TPROXY uses it" };
            return Some(format!("the mark {mark} cannot be the proxy's: {taken}\n  use 1338"));
        }
        let both = self.inbound != Inbound::None && self.outbound;
        (both && self.inbound_port == self.outbound_port).then(|| {
            format!(
                "port {} cannot serve both directions\n  \
                 use {INBOUND_PORT} for inbound and {OUTBOUND_PORT} for outbound",
                self.inbound_port
            )
        })
    }

    /// Whether the rules deliver packets to the proxy with a mark and a policy route.
    pub fn diverts(&self) -> bool {
        self.inbound == Inbound::Tproxy || self.catches_udp()
    }

    /// Whether UDP is captured in at least one direction.
    pub fn catches_udp(&self) -> bool {
        !self.inbound_udp.is_empty() || !self.outbound_udp.is_empty()
    }
}

impl Default for InterceptPlan {
    fn default() -> Self {
        Self {
            inbound: Inbound::Redirect,
            outbound: true,
            inbound_port: INBOUND_PORT,
            outbound_port: OUTBOUND_PORT,
            inbound_udp: Ports::default(),
            outbound_udp: Ports::default(),
            quic: None,
            dns: None,
            proxy: Proxy { mark: PROXY_MARK, owners: Owners::default() },
            own_ports: Ports::default(),
            exclude_inbound: Exclusions::default(),
            exclude_outbound: Exclusions::default(),
            exclude_owners: Owners::default(),
            when_dead: WhenDead::Closed,
        }
    }
}

impl fmt::Display for InterceptPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = Vec::new();
        match self.inbound {
            Inbound::Redirect => said.push(format!("inbound TCP to {}", self.inbound_port)),
            Inbound::Tproxy => said.push(format!("inbound TCP by TPROXY to {}", self.inbound_port)),
            Inbound::None => {}
        }
        if self.outbound {
            said.push(format!("outbound TCP to {}", self.outbound_port));
        }
        if self.catches_udp() {
            said.push("UDP by TPROXY to the same ports".to_owned());
        }
        if let Some(port) = self.dns {
            said.push(format!("DNS to {port}"));
        }
        match said.is_empty() {
            true => f.write_str("nothing is captured"),
            false => f.write_str(&said.join(", ")),
        }
    }
}

/// Returns `networks` without those that are part of another one. nft refuses overlapping ones.
pub fn disjoint(networks: &[Network]) -> Vec<Network> {
    let mut kept: Vec<Network> = Vec::with_capacity(networks.len());
    let mut sorted = networks.to_vec();
    sorted.sort_by_key(Network::bits);
    for network in sorted {
        let same_family = |other: &&Network| other.first().is_ipv4() == network.first().is_ipv4();
        if !kept.iter().filter(same_family).any(|other| other.contains(network.first())) {
            kept.push(network);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(text: &str) -> Ports {
        Ports::new(text.split(' ').map(|range| range.parse().unwrap()))
    }

    #[test]
    fn ports_are_merged_and_in_order() {
        assert_eq!(ports("90 80-85 82-88 89"), ports("80-90"));
        assert_eq!(ports("8080 443").ranges().len(), 2);
        assert_eq!(ports("1 all 65535"), ports("1-65535"));
        assert!(ports("80-90").contains(80) && ports("80-90").contains(90));
        assert!(!ports("80-90").contains(91));
        for bad in ["", "0", "65536", "90-80", "http", "80-", "-80", "1-2-3"] {
            assert!(bad.parse::<PortRange>().unwrap_err().contains("write 8080"), "{bad}");
        }
    }

    #[test]
    fn a_name_of_an_interface_is_no_way_into_a_rule() {
        assert_eq!("docker+".parse::<Interface>().unwrap().name(), ("docker", true));
        assert_eq!("br-1f.2".parse::<Interface>().unwrap().name(), ("br-1f.2", false));
        for bad in ["", "+", "a b", "a\"", "a;b", "averyveryverylongname"] {
            assert!(bad.parse::<Interface>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_network_inside_another_is_left_out() {
        let networks = ["10.1.0.0/16", "10.0.0.0/8", "10.0.0.1", "::/0", "fd00::/8", "11.0.0.0/8"];
        let networks: Vec<_> = networks.iter().map(|text| Network::parse(text).unwrap()).collect();
        let kept: Vec<_> = disjoint(&networks).iter().map(Network::to_string).collect();
        assert_eq!(kept, ["::/0", "10.0.0.0/8", "11.0.0.0/8"]);
    }
}
