//! The mesh: the identity of this workload, the CAs that it trusts, and captured traffic.

use std::net::SocketAddr;
use std::time::Duration;

use super::{ForwardClientCert, Identity, Item, Material, Timeouts};
use crate::net::Network;

/// The identity of this workload, its trust, and captured traffic.
#[derive(Clone, Debug, Default)]
pub struct Mesh {
    /// The trust domain. `None` means the default.
    pub trust_domain: Option<Item<String>>,
    /// The identity of this workload.
    pub identity: Option<Item<Identity>>,
    /// PEM with the roots of other trust domains, by trust domain.
    pub trust_bundles: Vec<(Item<String>, Item<Material>)>,
    /// PEM with revocation lists.
    pub crl: Option<Item<Material>>,
    /// Captured traffic to this workload.
    pub inbound: Inbound,
    /// Captured traffic from this workload.
    pub outbound: Outbound,
    /// The address of the resolver. `None` means no resolver.
    pub dns: Option<SocketAddr>,
    /// Settings of the capture rules.
    pub intercept: Intercept,
}

impl Mesh {
    /// Whether traffic is captured.
    pub fn captures(&self) -> bool {
        !(self.inbound.binds.is_empty() && self.outbound.binds.is_empty())
    }
}

/// Captured traffic to this workload.
#[derive(Clone, Debug, Default)]
pub struct Inbound {
    /// The addresses for captured connections. Empty means no capture.
    pub binds: Vec<Item<SocketAddr>>,
    /// The means of capture.
    pub intercept: InterceptBy,
    /// Mutual TLS on all ports.
    pub mtls: Option<Item<Mtls>>,
    /// Mutual TLS on single ports.
    pub port_mtls: Vec<(u16, Item<Mtls>)>,
    /// The protocols of single ports.
    pub protocols: Vec<(Item<u16>, PortProtocol)>,
    /// The address of the workload.
    pub application: Application,
    /// The peer address that the workload sees. `None` means the default.
    pub source: Option<Item<PeerSource>>,
    /// Requests that pass without an identity and without authorization.
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
    /// The addresses for captured connections. Empty means no capture.
    pub binds: Vec<Item<SocketAddr>>,
    /// The means of capture.
    pub intercept: InterceptBy,
    /// The hosts to use. `None` means all hosts.
    pub hosts: Option<Vec<Item<String>>>,
    /// Whether unknown destinations are refused.
    pub deny_unknown: bool,
    /// The protocols of single ports.
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
    /// How long a flow may be silent.
    pub idle_timeout: Option<Duration>,
    /// The maximum number of open flows.
    pub flows: Option<u32>,
}

/// The means of capture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InterceptBy {
    /// REDIRECT.
    #[default]
    Redirect,
    /// TPROXY.
    Tproxy,
    /// Rules of another tool redirect the traffic.
    None,
}

/// The address of the workload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Application {
    /// The original destination.
    #[default]
    Original,
    /// The loopback address.
    Loopback,
}

/// The peer address that the workload sees.
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
    /// Detect it.
    #[default]
    Auto,
    /// HTTP.
    Http,
    /// Opaque bytes.
    Tcp,
}

/// A health check of an orchestrator.
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
    /// Required.
    Strict,
    /// Optional.
    #[default]
    Permissive,
    /// Not possible.
    Disable,
}

/// Settings of the capture rules.
#[derive(Clone, Debug, Default)]
pub struct Intercept {
    /// The mark of the proxy's packets. `None` means the default.
    pub mark: Option<Item<u32>>,
    /// Inbound traffic that is not captured.
    pub exclude_inbound: Exclude,
    /// Outbound traffic that is not captured.
    pub exclude_outbound: Exclude,
    /// Users whose connections are not captured.
    pub exclude_users: Vec<String>,
    /// Groups whose connections are not captured.
    pub exclude_groups: Vec<String>,
    /// Ranges of UDP ports to capture. An empty list means all ports.
    pub udp_ports: Vec<(u16, u16)>,
    /// The user of the proxy.
    pub user: Option<String>,
    /// The group of the proxy.
    pub group: Option<String>,
    /// Whether traffic bypasses the proxy while the proxy does not run. By default the traffic is
    /// refused.
    pub open_when_dead: bool,
}

/// Traffic in one direction that is not captured.
#[derive(Clone, Debug, Default)]
pub struct Exclude {
    /// Ranges of ports.
    pub ports: Vec<(u16, u16)>,
    /// Ranges of addresses.
    pub networks: Vec<Network>,
    /// Interfaces: `eth1`, or `docker+` for all names that begin with `docker`.
    pub interfaces: Vec<String>,
}
