//! `mesh`: the identity of this workload, the CAs that it trusts, and captured traffic.

use std::net::SocketAddr;
use std::time::Duration;

use super::{ForwardClientCert, Identity, Item, Material, Origin, Timeouts};
use crate::net::Network;

/// The identity of this workload, the roots that it trusts, and the settings for captured traffic.
#[derive(Clone, Debug, Default)]
pub struct Mesh {
    /// The trust domain. `None` means that of a SPIFFE Workload API, or else `cluster.local`.
    pub trust_domain: Option<Item<String>>,
    /// The identity of this workload. `None` means that it has none.
    pub identity: Option<Item<Identity>>,
    /// The roots of other trust domains: the name of each domain, and PEM.
    pub trust_bundles: Vec<(Item<String>, Item<Material>)>,
    /// PEM with revocation lists for the certificates of peers.
    pub crl: Option<Item<Material>>,
    /// The place of `transport: quic`. `None` means TCP.
    pub quic: Option<Origin>,
    /// The UDP port at which capturing proxies receive QUIC. `None` means the default.
    pub quic_port: Option<Item<u16>>,
    /// Captured traffic to this workload.
    pub inbound: Inbound,
    /// Captured traffic from this workload.
    pub outbound: Outbound,
    /// The address at which the proxy answers the DNS queries of the workload. `None` means no
    /// resolver.
    pub dns: Option<SocketAddr>,
    /// Settings of the capture rules.
    pub intercept: Intercept,
}

impl Mesh {
    /// Whether traffic is captured in at least one direction.
    pub fn captures(&self) -> bool {
        !(self.inbound.binds.is_empty() && self.outbound.binds.is_empty())
    }
}

/// Captured traffic to this workload.
#[derive(Clone, Debug, Default)]
pub struct Inbound {
    /// The addresses for captured connections. Empty means no capture.
    pub binds: Vec<Item<SocketAddr>>,
    /// How the kernel redirects connections to the proxy.
    pub intercept: InterceptBy,
    /// The mutual TLS mode of all ports. `None` means the default.
    pub mtls: Option<Item<Mtls>>,
    /// The mutual TLS mode of single ports, instead of `mtls`.
    pub port_mtls: Vec<(u16, Item<Mtls>)>,
    /// The protocols of single ports. On all other ports the protocol is detected.
    pub protocols: Vec<(Item<u16>, PortProtocol)>,
    /// The address at which the proxy connects to the workload.
    pub application: Application,
    /// The source address of connections to the workload. `None` means the default.
    pub source: Option<Item<PeerSource>>,
    /// Health checks of an orchestrator. They need no identity and no permission.
    pub probes: Vec<Item<Probe>>,
    /// The treatment of `x-forwarded-client-cert`.
    pub forward_client_cert: ForwardClientCert,
    /// Captured UDP. `None` means that UDP is not captured.
    pub udp: Option<Udp>,
    /// Time limits for clients.
    pub timeouts: Timeouts,
    /// The maximum number of open connections. `None` means no separate limit.
    pub connections: Option<Item<u32>>,
}

/// Captured traffic from this workload.
#[derive(Clone, Debug, Default)]
pub struct Outbound {
    /// The addresses at which the proxy accepts captured connections. Empty means no capture.
    pub binds: Vec<Item<SocketAddr>>,
    /// How the kernel redirects connections to the proxy.
    pub intercept: InterceptBy,
    /// The hosts whose routes apply. `None` means all hosts.
    pub hosts: Option<Vec<Item<String>>>,
    /// Whether connections to unknown destinations are refused.
    pub deny_unknown: bool,
    /// The protocols of single ports. On all other ports the protocol is detected.
    pub protocols: Vec<(Item<u16>, PortProtocol)>,
    /// Captured UDP. `None` means that UDP is not captured.
    pub udp: Option<Udp>,
    /// Time limits for clients.
    pub timeouts: Timeouts,
    /// The maximum number of open connections. `None` means no separate limit.
    pub connections: Option<Item<u32>>,
}

/// Limits on captured UDP. `None` means the default value.
#[derive(Clone, Debug, Default)]
pub struct Udp {
    /// How long a flow may be idle. A flow is a client and a destination.
    pub idle_timeout: Option<Duration>,
    /// The maximum number of open flows.
    pub flows: Option<u32>,
}

/// How the kernel redirects traffic to the proxy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InterceptBy {
    /// The REDIRECT target of nft or iptables.
    #[default]
    Redirect,
    /// The TPROXY target of nft or iptables.
    Tproxy,
    /// Rules of another tool redirect the traffic.
    None,
}

/// The address at which the proxy connects to the workload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Application {
    /// The original destination of the captured connection.
    #[default]
    Original,
    /// The loopback address, with the original port.
    Loopback,
}

/// The source address of connections to the workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerSource {
    /// The client's address.
    Client,
    /// An address of this host.
    Proxy,
}

/// The protocol of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PortProtocol {
    /// The first bytes of a connection show the protocol.
    #[default]
    Auto,
    /// HTTP. The client sends first.
    Http,
    /// Opaque bytes. Either side may send first.
    Tcp,
}

/// A health check of an orchestrator: a GET or HEAD request without TLS.
#[derive(Clone, Debug)]
pub struct Probe {
    /// The port of the workload.
    pub port: u16,
    /// The path, without a query.
    pub path: Item<String>,
}

/// Whether clients must use mutual TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mtls {
    /// Clients must use mutual TLS.
    Strict,
    /// Clients may use mutual TLS or plain text.
    #[default]
    Permissive,
    /// Clients must use plain text.
    Disable,
}

/// Settings of the capture rules.
#[derive(Clone, Debug, Default)]
pub struct Intercept {
    /// The mark (SO_MARK) of the proxy's own packets. `None` means the default.
    pub mark: Option<Item<u32>>,
    /// Inbound traffic that is not captured.
    pub exclude_inbound: Exclude,
    /// Outbound traffic that is not captured.
    pub exclude_outbound: Exclude,
    /// Users whose connections are not captured, by name or number.
    pub exclude_users: Vec<String>,
    /// Groups whose connections are not captured, by name or number.
    pub exclude_groups: Vec<String>,
    /// Ranges of UDP ports to capture. An empty list means all ports.
    pub udp_ports: Vec<(u16, u16)>,
    /// The user of the proxy, by name or number.
    pub user: Option<String>,
    /// The group of the proxy, by name or number.
    pub group: Option<String>,
    /// Whether traffic bypasses the proxy while the proxy does not run. If this is false, the
    /// traffic is refused.
    pub open_when_dead: bool,
}

/// Traffic in one direction that is not captured.
#[derive(Clone, Debug, Default)]
pub struct Exclude {
    /// Ranges of destination ports, each as (first, last).
    pub ports: Vec<(u16, u16)>,
    /// Ranges of addresses of the other side.
    pub networks: Vec<Network>,
    /// Interfaces: `eth1`, or `docker+` for all names that begin with `docker`.
    pub interfaces: Vec<String>,
}
