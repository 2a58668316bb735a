//! The mesh: the identity of this workload, its trust, and captured traffic.

use std::net::SocketAddr;
use std::time::Duration;

use super::{ForwardClientCert, Identity, Item, Material, Timeouts};
use crate::net::Network;

/// The identity of this workload, and how others reach it.
#[derive(Clone, Debug, Default)]
pub struct Mesh {
    /// The trust domain; `None` for the default.
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
    /// Where the resolver listens; `None` for no resolver.
    pub dns: Option<SocketAddr>,
    /// The rules that capture traffic.
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
    /// Where captured connections arrive; empty for no capture.
    pub binds: Vec<Item<SocketAddr>>,
    /// The means of capture.
    pub intercept: InterceptBy,
    /// The demand for mutual TLS on all ports.
    pub mtls: Mtls,
    /// The demand for mutual TLS on single ports.
    pub port_mtls: Vec<(u16, Item<Mtls>)>,
    /// The protocols of single ports.
    pub protocols: Vec<(Item<u16>, PortProtocol)>,
    /// Where the workload is reached.
    pub application: Application,
    /// The peer address that the workload sees; `None` for the default.
    pub source: Option<Item<PeerSource>>,
    /// Requests that need neither identity nor permission.
    pub probes: Vec<Item<Probe>>,
    /// What the workload learns about client certificates.
    pub forward_client_cert: ForwardClientCert,
    /// Captured UDP; `None` for none.
    pub udp: Option<Udp>,
    /// Time limits for clients.
    pub timeouts: Timeouts,
    /// Open connections at most; `None` for no own limit.
    pub connections: Option<u32>,
}

/// Captured traffic from this workload.
#[derive(Clone, Debug, Default)]
pub struct Outbound {
    /// Where captured connections arrive; empty for no capture.
    pub binds: Vec<Item<SocketAddr>>,
    /// The means of capture.
    pub intercept: InterceptBy,
    /// The hosts that it serves; `None` for all.
    pub hosts: Option<Vec<Item<String>>>,
    /// Refuse destinations that neither a route nor a service names.
    pub deny_unknown: bool,
    /// The protocols of single ports.
    pub protocols: Vec<(Item<u16>, PortProtocol)>,
    /// Captured UDP; `None` for none.
    pub udp: Option<Udp>,
    /// Time limits for clients.
    pub timeouts: Timeouts,
    /// Open connections at most; `None` for no own limit.
    pub connections: Option<u32>,
}

/// Limits on captured UDP; `None` for the default of each value.
#[derive(Clone, Debug, Default)]
pub struct Udp {
    /// Silence that ends a flow.
    pub idle_timeout: Option<Duration>,
    /// Open flows.
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
    /// REDIRECT by rules of others.
    None,
}

/// Where the workload is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Application {
    /// At the original address.
    #[default]
    Original,
    /// On the loopback interface.
    Loopback,
}

/// The peer address that the workload sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerSource {
    /// The client's.
    Client,
    /// This host's.
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
    /// Bytes.
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

/// The demand for mutual TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mtls {
    /// Clients must use it.
    Strict,
    /// Clients may use it.
    #[default]
    Permissive,
    /// Clients cannot use it.
    Disable,
}

/// The rules that capture traffic.
#[derive(Clone, Debug, Default)]
pub struct Intercept {
    /// The mark of packets that the proxy sends; `None` for the default.
    pub mark: Option<Item<u32>>,
    /// Inbound exceptions.
    pub exclude_inbound: Exclude,
    /// Outbound exceptions.
    pub exclude_outbound: Exclude,
    /// Users whose connections are not captured.
    pub exclude_users: Vec<String>,
    /// Groups whose connections are not captured.
    pub exclude_groups: Vec<String>,
    /// Captured UDP ports, as ranges; empty for all.
    pub udp_ports: Vec<(u16, u16)>,
    /// The user of the proxy.
    pub user: Option<String>,
    /// The group of the proxy.
    pub group: Option<String>,
    /// Traffic passes by while no proxy runs. By default it is refused.
    pub open_when_dead: bool,
}

/// Exceptions in one direction.
#[derive(Clone, Debug, Default)]
pub struct Exclude {
    /// Ranges of ports.
    pub ports: Vec<(u16, u16)>,
    /// Ranges of addresses.
    pub networks: Vec<Network>,
    /// Interfaces: `eth1`, or `docker+` for all whose names begin so.
    pub interfaces: Vec<String>,
}
