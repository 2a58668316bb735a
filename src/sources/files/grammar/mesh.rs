//! The grammar of captured traffic. Its comments are the descriptions in the JSON Schema.

use schemars::JsonSchema;
use serde::Deserialize;

use super::listener::{ForwardClientCert, Timeouts};
use crate::sources::files::values::{AtLeastOne, Entries, OneOrMany, Placed, Time};

/// Traffic from others to this workload.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Inbound {
    /// The addresses for captured connections: `IP:PORT`, one or a list. By convention port 15006.
    /// Default: no capture.
    pub bind: OneOrMany<Placed<String>>,
    /// The means of capture. Default `redirect`.
    pub intercept: InterceptBy,
    /// Mutual TLS on all ports, including those of listeners with `tls: mesh`. Default
    /// `permissive`.
    pub mtls: Option<Placed<Mtls>>,
    /// Mutual TLS on single ports, instead of `mtls`.
    pub ports: Entries<Placed<Mtls>>,
    /// The protocols of single ports, which then need no detection.
    pub protocols: Entries<Placed<PortProtocol>>,
    /// The address of the workload. Default `original`.
    pub application: Application,
    /// The peer address that the workload sees. Default: `client` with `intercept: tproxy` and
    /// `application: original`, else `proxy`.
    pub source: Option<Placed<PeerSource>>,
    /// Requests that need no identity and no permission: health checks of an orchestrator.
    pub probes: Vec<Placed<Probe>>,
    /// The treatment of `x-forwarded-client-cert`. Default `sanitize`.
    pub forward_client_cert: ForwardClientCert,
    /// Captured UDP. It arrives by TPROXY at the same addresses. Default: no capture.
    pub udp: Option<Udp>,
    /// Time limits for clients.
    pub timeouts: Timeouts,
    /// The maximum number of open connections. Default: no separate limit.
    pub connections: Option<Placed<u32>>,
}

/// Traffic from this workload to others.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Outbound {
    /// The addresses for captured connections: `IP:PORT`, one or a list. By convention port 15001.
    /// Default: no capture.
    pub bind: OneOrMany<Placed<String>>,
    /// The means of capture. Default `redirect`.
    pub intercept: InterceptBy,
    /// The hosts of `routes` to use. Default: all.
    pub hosts: Option<AtLeastOne<Placed<String>>>,
    /// The treatment of destinations that no route and no service has. Default `allow`.
    pub unknown: Unknown,
    /// The protocols of single ports, which then need no detection.
    pub ports: Entries<Placed<PortProtocol>>,
    /// Captured UDP. It arrives by TPROXY at the same addresses. Default: no capture.
    pub udp: Option<Udp>,
    /// Time limits for clients.
    pub timeouts: Timeouts,
    /// The maximum number of open connections. Default: no separate limit.
    pub connections: Option<Placed<u32>>,
}

/// Limits on captured UDP; `{}` for the defaults. It needs CAP_NET_ADMIN and, inbound, CAP_NET_RAW.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Udp {
    /// How long a flow (a client and a destination) may be silent. Default 60s.
    pub idle_timeout: Option<Time>,
    /// The maximum number of open flows. Default 10000.
    pub flows: Option<u32>,
}

/// The means of capture.
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

/// The treatment of unknown destinations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unknown {
    /// Forward connections to them.
    #[default]
    Allow,
    /// Refuse connections to them.
    Deny,
}

/// The address of the workload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Application {
    /// The original destination address and port.
    #[default]
    Original,
    /// The same port of 127.0.0.1 or ::1.
    Loopback,
}

/// The peer address that the workload sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PeerSource {
    /// The client's address. It needs CAP_NET_ADMIN, and rules that route the answers to the proxy.
    Client,
    /// An address of this host.
    Proxy,
}

/// The protocol of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PortProtocol {
    /// Detect the protocol from the first bytes. If the client is silent, the server may speak
    /// first.
    #[default]
    Auto,
    /// HTTP. The client speaks first.
    Http,
    /// Opaque bytes.
    Tcp,
}

/// A health check: GET or HEAD of this path at this port, without TLS.
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
    /// Required.
    Strict,
    /// Optional. Plain text is accepted too.
    #[default]
    Permissive,
    /// Not possible. Only plain text is accepted.
    Disable,
}

/// A DNS resolver for the workload. It forwards unknown names to the system's resolvers.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MeshDns {
    /// `IP:PORT`, for UDP and TCP. By convention 127.0.0.1:15053.
    pub bind: Placed<String>,
}
