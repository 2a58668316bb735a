//! The grammar of captured traffic. Its comments are the descriptions in the JSON Schema.

use schemars::JsonSchema;
use serde::Deserialize;

use super::listener::{ForwardClientCert, Timeouts};
use crate::sources::files::values::{Entries, OneOrMany, Placed, Time};

/// What others send to this workload.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Inbound {
    /// Where captured connections arrive: `IP:PORT`, one or a list; by convention port 15006.
    /// Default: none are captured.
    pub bind: OneOrMany<Placed<String>>,
    /// How they are captured. Default `redirect`.
    pub intercept: InterceptBy,
    /// For all ports, also of listeners with `tls: mesh`. Default `permissive`.
    pub mtls: Mtls,
    /// For single ports, instead.
    pub ports: Entries<Placed<Mtls>>,
    /// What single ports carry, where it need not be looked at.
    pub protocols: Entries<Placed<PortProtocol>>,
    /// Where the workload is reached. Default `original`.
    pub application: Application,
    /// Whose address the workload sees as its peer. Default: `client` with `intercept: tproxy` and
    /// `application: original`, else `proxy`.
    pub source: Option<Placed<PeerSource>>,
    /// Requests that need neither an identity nor permission: health checks of an orchestrator.
    pub probes: Vec<Placed<Probe>>,
    /// What the workload is told of client certificates. Default `sanitize`.
    pub forward_client_cert: ForwardClientCert,
    /// Captured UDP, which comes by TPROXY to the same addresses. Default: none is captured.
    pub udp: Option<Udp>,
    /// How long a client may take.
    pub timeouts: Timeouts,
    /// Connections open at once. Default: no limit of its own.
    pub connections: Option<u32>,
}

/// What this workload sends to others.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Outbound {
    /// Where captured connections arrive: `IP:PORT`, one or a list; by convention port 15001.
    /// Default: none are captured.
    pub bind: OneOrMany<Placed<String>>,
    /// How they are captured. Default `redirect`.
    pub intercept: InterceptBy,
    /// The hosts of `routes` that it serves. Default: all.
    pub hosts: Option<OneOrMany<Placed<String>>>,
    /// What becomes of destinations that neither a route nor a service names. Default `allow`.
    pub unknown: Unknown,
    /// What single ports carry, where it need not be looked at.
    pub ports: Entries<Placed<PortProtocol>>,
    /// Captured UDP, which comes by TPROXY to the same addresses. Default: none is captured.
    pub udp: Option<Udp>,
    /// How long a client may take.
    pub timeouts: Timeouts,
    /// Connections open at once. Default: no limit of its own.
    pub connections: Option<u32>,
}

/// Limits on captured UDP; `{}` for the defaults. It needs CAP_NET_ADMIN and, inbound, CAP_NET_RAW.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Udp {
    /// How long a flow (a client and a destination) may be silent. Default 60s.
    pub idle_timeout: Option<Time>,
    /// Flows open at once. Default 10000.
    pub flows: Option<u32>,
}

/// How traffic is captured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum InterceptBy {
    /// By REDIRECT of nft or iptables.
    #[default]
    Redirect,
    /// By TPROXY; needs CAP_NET_ADMIN.
    Tproxy,
    /// By REDIRECT in rules of someone else: `ringway intercept` installs none.
    None,
}

/// What becomes of destinations that nobody names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unknown {
    /// Connections go on to them.
    #[default]
    Allow,
    /// Connections to them are refused.
    Deny,
}

/// Where the workload is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Application {
    /// At the address and port that the client meant.
    #[default]
    Original,
    /// At the same port of 127.0.0.1 or ::1.
    Loopback,
}

/// Whose address the workload sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PeerSource {
    /// The client's; needs CAP_NET_ADMIN and rules that bring the answers back.
    Client,
    /// This host's.
    Proxy,
}

/// What a port carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PortProtocol {
    /// Its first bytes tell; where the client stays silent the server may speak first.
    #[default]
    Auto,
    /// HTTP; the client speaks first.
    Http,
    /// Bytes.
    Tcp,
}

/// A health check: GET or HEAD of this path at this port, in the clear.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// The port of the workload.
    pub port: u16,
    /// The path, without a query.
    pub path: Placed<String>,
}

/// Whether others must come through mutual TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mtls {
    /// They must.
    Strict,
    /// They may; plain text is served too.
    #[default]
    Permissive,
    /// They cannot: plain text only.
    Disable,
}

/// A resolver for the workload. What it does not know it asks the system's resolvers.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MeshDns {
    /// `IP:PORT`, for UDP and TCP; by convention 127.0.0.1:15053.
    pub bind: Placed<String>,
}
