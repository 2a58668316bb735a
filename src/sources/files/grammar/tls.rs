//! The grammar of TLS and identity. Its comments are the descriptions in the JSON Schema.

use schemars::JsonSchema;
use serde::Deserialize;

use super::intercept::Intercept;
use super::mesh::{Inbound, MeshDns, Outbound};
use crate::sources::files::values::{Entries, OneOrMany, Placed, Time};

/// TLS of a listener: certificates from files, or `mesh`: this workload's identity, with clients
/// that prove theirs.
#[derive(Clone, Debug)]
pub enum ListenerTls {
    /// A word; only `mesh` is one.
    Word(String),
    /// Certificates from files.
    Files(Box<ServerFiles>),
}

/// A certificate of a listener and, on the first of a list, who may connect.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServerFiles {
    /// PEM file with the certificate and its intermediates.
    pub cert: Placed<String>,
    /// PEM file with the private key (PKCS#8, PKCS#1 or SEC1).
    pub key: Placed<String>,
    /// Names of clients' SNI that get it; `*.` for one label. Default: those in the certificate.
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
    /// The oldest version spoken: `1.2` or `1.3`. Default 1.2.
    pub min_version: Option<Placed<String>>,
}

/// Whether a client must present a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuth {
    /// It is asked, and may have none.
    Optional,
    /// It is refused without one.
    Require,
}

/// TLS to a service: by files, or `mesh`: this workload's identity, and theirs is checked.
#[derive(Clone, Debug)]
pub enum ServiceTls {
    /// A word; only `mesh` is one.
    Word(String),
    /// By files.
    Files(Box<ClientFiles>),
}

/// TLS to the endpoints of a service.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ClientFiles {
    /// PEM file with the CAs that the endpoints' certificates must lead to.
    pub ca: Option<Placed<String>>,
    /// PEM file with the certificate that is presented when an endpoint asks.
    pub cert: Option<Placed<String>>,
    /// PEM file with its private key.
    pub key: Option<Placed<String>>,
    /// The name that is asked for and must be proven. Default: the name in `dns`, else the address.
    pub sni: Option<Placed<String>>,
    /// PEM file with revocation lists.
    pub crl: Option<Placed<String>>,
    /// What is checked. Default `full`. `none` accepts anyone, also an attacker.
    pub verify: Verify,
}

/// What is checked of an endpoint's certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verify {
    /// That it leads to the CA, is in force, and is for the name.
    #[default]
    Full,
    /// Nothing.
    None,
}

/// Who this workload is, and how others reach it.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Mesh {
    /// The trust domain. Default `cluster.local`.
    pub trust_domain: Option<Placed<String>>,
    /// The identity that this workload proves to others.
    pub identity: Option<Placed<Identity>>,
    /// PEM files with the roots of other trust domains, by trust domain.
    pub trust_bundles: Entries<Placed<String>>,
    /// PEM file with revocation lists.
    pub crl: Option<Placed<String>>,
    /// What others send to this workload, and what listeners with `tls: mesh` demand.
    pub inbound: Inbound,
    /// What this workload sends to others.
    pub outbound: Outbound,
    /// A resolver that gives names of services their virtual addresses. Default: none.
    pub dns: Option<MeshDns>,
    /// The rules that bring traffic here, and what they leave alone.
    pub intercept: Intercept,
}

/// An identity: from files that something else renews, or issued by a local CA. It has either
/// `cert`, `key` and `roots`, or `ca` and `id`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Identity {
    /// PEM file with the certificate and its intermediates.
    pub cert: Option<Placed<String>>,
    /// PEM file with its private key.
    pub key: Option<Placed<String>>,
    /// PEM file with the roots of the trust domain.
    pub roots: Option<Placed<String>>,
    /// The directory that `ringway ca init` has made.
    pub ca: Option<Placed<String>>,
    /// The SPIFFE ID: `spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT`.
    pub id: Option<Placed<String>>,
    /// How long an issued certificate lives; it is renewed at half of that. Default 24h.
    pub lifetime: Option<Time>,
}
