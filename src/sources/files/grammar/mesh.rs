//! The grammar of captured traffic. Its comments are the descriptions in the JSON Schema.

use schemars::JsonSchema;
use serde::Deserialize;

use super::listener::{ForwardClientCert, Timeouts};
use crate::sources::files::values::{AtLeastOne, Entries, OneOrMany, Placed, Time};

/// Traffic that others send to this workload.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Inbound {
    /// The addresses for captured connections: `IP:PORT`, one or a list. By convention port 15006.
    /// Default: no capture.
    pub bind: OneOrMany<Placed<String>>,
    /// How the kernel redirects connections to the proxy. Default `redirect`.
    pub intercept: InterceptBy,
    /// The mutual TLS mode of all ports, including those of listeners with `tls: mesh`. Default
    /// `permissive`.
    pub mtls: Option<Placed<Mtls>>,
    /// The mutual TLS mode of single ports, instead of `mtls`.
    pub ports: Entries<Placed<Mtls>>,
    /// The protocols of single ports. On all other ports the protocol is detected.
    pub protocols: Entries<Placed<PortProtocol>>,
    /// The address at which the proxy connects to the workload. Default `original`.
    pub application: Application,
    /// The source address of connections to the workload. Default: `client` with `intercept:
    /// tproxy` and `application: original`, else `proxy`.
    pub source: Option<Placed<PeerSource>>,
    /// Health checks of an orchestrator. These requests need no identity and no permission.
    pub probes: Vec<Placed<Probe>>,
    /// How the field `x-forwarded-client-cert` of a request is handled. Default `sanitize`.
    pub forward_client_cert: ForwardClientCert,
    /// Captured UDP traffic. TPROXY delivers it at the addresses of `bind`. Default: UDP is not
    /// captured.
    pub udp: Option<Udp>,
    /// Time limits for clients.
    pub timeouts: Timeouts,
    /// The maximum number of open connections. Default: only `limits.connections` applies.
    pub connections: Option<u32>,
}

/// Traffic that this workload sends to others.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Outbound {
    /// The addresses for captured connections: `IP:PORT`, one or a list. By convention port 15001.
    /// Default: no capture.
    pub bind: OneOrMany<Placed<String>>,
    /// How the kernel redirects connections to the proxy. Default `redirect`.
    pub intercept: InterceptBy,
    /// The hosts of `routes` whose rules apply. Default: all.
    pub hosts: Option<AtLeastOne<Placed<String>>>,
    /// How connections to destinations that belong to no route and no service are handled. Default
    /// `allow`.
    pub unknown: Unknown,
    /// The protocols of single ports. On all other ports the protocol is detected.
    pub ports: Entries<Placed<PortProtocol>>,
    /// Captured UDP traffic. TPROXY delivers it at the addresses of `bind`. Default: UDP is not
    /// captured.
    pub udp: Option<Udp>,
    /// Time limits for clients.
    pub timeouts: Timeouts,
    /// The maximum number of open connections. Default: only `limits.connections` applies.
    pub connections: Option<u32>,
}

/// Limits on captured UDP traffic; `{}` for the defaults. Capture needs CAP_NET_ADMIN and, inbound,
/// CAP_NET_RAW.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Udp {
    /// How long a flow (a client and a destination) may be idle. Default 60s.
    pub idle_timeout: Option<Time>,
    /// The maximum number of open flows. Default 10000.
    pub flows: Option<u32>,
}

/// How the kernel redirects traffic to the proxy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum InterceptBy {
    /// REDIRECT of nft or iptables.
    #[default]
    Redirect,
    /// TPROXY. It needs CAP_NET_ADMIN.
    Tproxy,
    /// REDIRECT by rules of another tool. `ringway intercept` installs none.
    None,
}

/// How connections to unknown destinations are handled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unknown {
    /// Connections to unknown destinations are forwarded.
    #[default]
    Allow,
    /// Connections to unknown destinations are refused.
    Deny,
}

/// The address at which the proxy connects to the workload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Application {
    /// The original destination address and port.
    #[default]
    Original,
    /// The same port of 127.0.0.1 or ::1.
    Loopback,
}

/// The source address of connections to the workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PeerSource {
    /// The client's address. This needs CAP_NET_ADMIN, and rules that route the answers to the
    /// proxy.
    Client,
    /// An address of this host.
    Proxy,
}

/// The protocol of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PortProtocol {
    /// The protocol is detected from the first bytes. If the client sends nothing, the server may
    /// send first.
    #[default]
    Auto,
    /// HTTP. The client sends first.
    Http,
    /// Opaque bytes. Either side may send first.
    Tcp,
}

/// A health check of an orchestrator: a GET or HEAD request for this path at this port, without
/// TLS.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// The port of the workload.
    pub port: u16,
    /// The path, without a query.
    pub path: Placed<String>,
}

/// Whether clients must use mutual TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mtls {
    /// Clients must use mutual TLS.
    Strict,
    /// Clients may use mutual TLS or plain text.
    #[default]
    Permissive,
    /// Clients must use plain text.
    Disable,
}

/// A DNS resolver for the workload. It forwards unknown names to the system's resolvers.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MeshDns {
    /// `IP:PORT`, for UDP and TCP. By convention 127.0.0.1:15053.
    pub bind: Placed<String>,
}
