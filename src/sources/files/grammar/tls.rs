//! The grammar of TLS and identity. Its comments are the descriptions in the JSON Schema.

use schemars::JsonSchema;
use serde::Deserialize;

use super::intercept::Intercept;
use super::mesh::{Inbound, MeshDns, Outbound};
use crate::sources::files::values::{Entries, OneOrMany, Placed, Time};

/// TLS of a listener: certificates from files, or `mesh`. `mesh` means this workload's identity;
/// clients must present theirs.
#[derive(Clone, Debug)]
pub enum ListenerTls {
    /// A word. Only `mesh` is valid.
    Word(String),
    /// Certificates from files.
    Files(Box<ServerFiles>),
}

/// A certificate of a listener. The first one of a list also has the settings for clients.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServerFiles {
    /// PEM file with the certificate and its intermediates.
    pub cert: Placed<String>,
    /// PEM file with the private key (PKCS#8, PKCS#1 or SEC1).
    pub key: Placed<String>,
    /// The SNI names that select this certificate; `*.` stands for one label. Default: the names in
    /// the certificate.
    #[serde(default)]
    pub names: OneOrMany<Placed<String>>,
    /// DER file with an OCSP response to staple.
    pub ocsp: Option<Placed<String>>,
    /// PEM file with the CAs of client certificates.
    pub client_ca: Option<Placed<String>>,
    /// Whether a client must present a certificate. Default `require` with `client_ca`.
    pub client_auth: Option<Placed<ClientAuth>>,
    /// PEM file with revocation lists for client certificates.
    pub crl: Option<Placed<String>>,
    /// Whether the listener sends the names of the CAs in `client_ca`, so that a client with
    /// several certificates can choose the right one. Default true.
    pub send_ca_names: Option<Placed<bool>>,
    /// The oldest supported version: `1.2` or `1.3`. Default 1.2.
    pub min_version: Option<Placed<String>>,
}

/// Whether a client must present a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuth {
    /// A certificate is requested but not required.
    Optional,
    /// A client without a certificate is refused.
    Require,
}

/// TLS to a service: settings with files, or `mesh`. `mesh` means this workload's identity;
/// endpoints must present theirs.
#[derive(Clone, Debug)]
pub enum ServiceTls {
    /// A word. Only `mesh` is valid.
    Word(String),
    /// Settings with files.
    Files(Box<ClientFiles>),
}

/// TLS to the endpoints of a service.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ClientFiles {
    /// PEM file with the CAs of the endpoints' certificates.
    pub ca: Option<Placed<String>>,
    /// PEM file with the certificate for endpoints that request one.
    pub cert: Option<Placed<String>>,
    /// PEM file with the private key of `cert`.
    pub key: Option<Placed<String>>,
    /// The server name to request and verify. Default: the name in `dns`, else the address.
    pub sni: Option<Placed<String>>,
    /// PEM file with revocation lists for the certificates of endpoints.
    pub crl: Option<Placed<String>>,
    /// How the certificates of endpoints are verified. Default `full`. With `none`, any server is
    /// accepted, even that of an attacker.
    pub verify: Verify,
}

/// How the certificate of an endpoint is verified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verify {
    /// The chain, the validity period and the name are verified.
    #[default]
    Full,
    /// The certificate is not verified.
    None,
}

/// The identity of this workload, the roots that it trusts, and captured traffic.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Mesh {
    /// The trust domain. Default `cluster.local`, or that of the identity from `identity.spiffe`.
    pub trust_domain: Option<Placed<String>>,
    /// The identity that this workload presents to peers.
    pub identity: Option<Placed<Identity>>,
    /// PEM files with the roots of other trust domains, by trust domain.
    pub trust_bundles: Entries<Placed<String>>,
    /// PEM file with revocation lists for the certificates of peers.
    pub crl: Option<Placed<String>>,
    /// The transport of HTTP between proxies of the mesh. Default `tcp`.
    pub transport: Option<Placed<MeshTransport>>,
    /// The UDP port at which proxies that capture the traffic of their workload receive QUIC.
    /// Default: the port of `inbound.bind`, or 15006. Without captured traffic: the port of each
    /// endpoint.
    pub quic_port: Option<Placed<u16>>,
    /// Traffic from others to this workload, and the settings for listeners with `tls: mesh`.
    pub inbound: Inbound,
    /// Traffic from this workload to others.
    pub outbound: Outbound,
    /// A resolver that answers service names with their virtual addresses. Default: none.
    pub dns: Option<MeshDns>,
    /// Settings of the capture rules.
    pub intercept: Intercept,
}

/// The transport of HTTP between proxies of the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MeshTransport {
    /// TLS over TCP.
    Tcp,
    /// HTTP/3 over QUIC. Where it does not work, TLS over TCP.
    Quic,
}

/// An identity: from files that another program renews, issued by a local CA, or from a SPIFFE
/// Workload API. Set `cert`, `key` and `roots`, or `ca` and `id`, or `spiffe`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Identity {
    /// PEM file with the certificate and its intermediates.
    pub cert: Option<Placed<String>>,
    /// PEM file with the private key of `cert`.
    pub key: Option<Placed<String>>,
    /// PEM file with the roots of the trust domain.
    pub roots: Option<Placed<String>>,
    /// The directory that `ringway ca init` created.
    pub ca: Option<Placed<String>>,
    /// The socket of a SPIFFE Workload API, such as SPIRE's agent: `unix:/run/spire/agent.sock`.
    pub spiffe: Option<Placed<String>>,
    /// The SPIFFE ID: `spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT`. With `spiffe`, it chooses
    /// one of several identities.
    pub id: Option<Placed<String>>,
    /// The lifetime of an issued certificate. The certificate is renewed at half of its lifetime.
    /// Default 24h.
    pub lifetime: Option<Time>,
}
