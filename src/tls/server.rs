//! Compiled TLS settings of a listener: certificates by server name, versions, and accepted
//! clients.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::server::{ClientHello, ProducesTickets, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{Error, ServerConfig, SupportedProtocolVersion};

use super::PROVIDER;
use super::tickets::EarlySessions;
use super::verify::{PeerVerifier, spiffe_id};
use crate::identity::SpiffeId;

/// The ALPN protocol of HTTP/3 (RFC 9114 3.1).
const ALPN_HTTP3: &[u8] = b"h3";

/// The number of session tickets that are sent after a full handshake.
const TICKETS_SENT: usize = 1;

/// How a listener handles a connection without TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Refuse the connection.
    Strict,
    /// Serve the connection without TLS.
    Permissive,
}

/// Compiled TLS settings of a listener.
#[derive(Debug)]
pub struct ServerTls {
    /// The rustls configuration.
    pub config: Arc<ServerConfig>,
    /// How to handle a connection without TLS.
    pub mode: Mode,
    /// A number that changes when the accepted clients change. Connections with an older number are
    /// drained.
    pub terms: u64,
    /// The SPIFFE ID of the first certificate, if it has one.
    pub identity: Option<SpiffeId>,
    /// The verifier of client certificates. `None` if the server requests none.
    pub verifier: Option<Arc<PeerVerifier>>,
}

/// The accepted TLS versions. TLS 1.3 is always one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Versions {
    /// TLS 1.2 and 1.3.
    #[default]
    From12,
    /// TLS 1.3 only.
    Only13,
}

impl Versions {
    /// Returns the list of versions for rustls.
    pub fn list(self) -> &'static [&'static SupportedProtocolVersion] {
        static FROM_12: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
        match self {
            Self::From12 => &FROM_12,
            Self::Only13 => &FROM_12[..1],
        }
    }
}

/// Whether the server requests client certificates.
#[derive(Clone, Debug)]
pub enum ClientAuth {
    /// The server does not request a certificate.
    None,
    /// The server requests a certificate. The verifier decides whether it is mandatory.
    Asked(Arc<PeerVerifier>),
}

/// The parameters of [`ServerTls::new`].
pub struct ServerParameters {
    /// Certificates by server name.
    pub certificates: CertificateTable,
    /// The accepted clients.
    pub clients: ClientAuth,
    /// The accepted TLS versions.
    pub versions: Versions,
    /// The protocols for ALPN. If the list is empty, the server does not answer ALPN.
    pub alpn: &'static [&'static [u8]],
    /// The keys for session tickets. All workers share them. A reload keeps the keys only if the
    /// accepted clients stay the same, because a ticket replaces the check of a client certificate.
    pub tickets: Arc<dyn ProducesTickets>,
    /// A number that changes when the accepted clients change: see [`ServerTls::terms`].
    pub terms: u64,
    /// How to handle a connection without TLS.
    pub mode: Mode,
}

/// No session is resumed.
#[derive(Debug)]
struct NoTickets;

impl ProducesTickets for NoTickets {
    fn enabled(&self) -> bool {
        false
    }

    fn lifetime(&self) -> u32 {
        0
    }

    fn encrypt(&self, _: &[u8]) -> Option<Vec<u8>> {
        None
    }

    fn decrypt(&self, _: &[u8]) -> Option<Vec<u8>> {
        None
    }
}

impl ServerTls {
    /// Compiles `parameters`.
    ///
    /// # Errors
    /// When rustls rejects the configuration.
    pub fn new(parameters: ServerParameters) -> Result<Self, Error> {
        let builder = ServerConfig::builder_with_provider(Arc::clone(&PROVIDER))
            .with_protocol_versions(parameters.versions.list())?;
        let (builder, verifier) = match parameters.clients {
            ClientAuth::None => (builder.with_no_client_auth(), None),
            ClientAuth::Asked(verifier) => {
                (builder.with_client_cert_verifier(Arc::clone(&verifier) as _), Some(verifier))
            }
        };
        let identity = parameters.certificates.identity();
        let mut config = builder.with_cert_resolver(Arc::new(parameters.certificates));
        config.alpn_protocols = parameters.alpn.iter().map(|name| name.to_vec()).collect();
        // Use the server's order: AES first, because most servers have AES in hardware.
        config.ignore_client_order = true;
        config.ticketer = parameters.tickets;
        config.send_tls13_tickets = TICKETS_SENT;
        // Sessions are in tickets. A session store would need a lock between workers.
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        let ServerParameters { mode, terms, .. } = parameters;
        Ok(Self { config: Arc::new(config), mode, terms, identity, verifier })
    }

    /// The settings of the handshake for HTTP/3. Clients with certificates get no session tickets:
    /// QUIC does not say whether a session was resumed, so an expired certificate would not be
    /// noticed.
    /// With `early`, a session is kept there until it is resumed once, so that early data (0-RTT)
    /// is accepted once.
    pub fn http3(&self, early: Option<EarlySessions>) -> Arc<ServerConfig> {
        let mut config = ServerConfig::clone(&self.config);
        config.alpn_protocols = vec![ALPN_HTTP3.to_vec()];
        if let Some(sessions) = early {
            config.ticketer = Arc::new(NoTickets);
            config.session_storage = sessions;
            config.max_early_data_size = u32::MAX; // the only value of QUIC (RFC 9001 4.6.1)
        }
        if self.verifier.is_some() {
            config.send_tls13_tickets = 0;
            // A ticket of the same listener over TCP would be accepted, too.
            config.ticketer = Arc::new(NoTickets);
        }
        Arc::new(config)
    }

    /// The settings without resumption, for a server that does not look at a resumed session
    /// again: its certificate may have expired since.
    pub fn without_resumption(&self) -> Arc<ServerConfig> {
        let mut config = ServerConfig::clone(&self.config);
        config.ticketer = Arc::new(NoTickets);
        config.send_tls13_tickets = 0;
        Arc::new(config)
    }

    /// Whether clients are asked for a certificate.
    pub fn asks_clients(&self) -> bool {
        self.verifier.is_some()
    }

    /// Returns the same settings with another mode.
    pub fn with_mode(&self, mode: Mode) -> Self {
        Self {
            config: Arc::clone(&self.config),
            mode,
            terms: self.terms,
            identity: self.identity.clone(),
            verifier: self.verifier.clone(),
        }
    }
}

/// The certificates of a listener. The client's server name selects one (RFC 6066 3): an exact
/// name, then a wildcard for one label, then the first certificate.
#[derive(Debug, Default)]
pub struct CertificateTable {
    exact: HashMap<Box<str>, Vec<Arc<CertifiedKey>>>,
    wildcard: HashMap<Box<str>, Vec<Arc<CertifiedKey>>>,
    default: Vec<Arc<CertifiedKey>>,
    known_names_only: bool,
}

impl CertificateTable {
    /// No certificate is for a name that was not added, so that such a handshake fails.
    pub fn keep_to_names(&mut self) {
        self.known_names_only = true;
    }

    /// Adds a certificate for `names`, which may begin with `*.`. The first added certificate is
    /// the default, together with others for the same names (for example RSA and ECDSA keys).
    pub fn add(&mut self, certificate: &Arc<CertifiedKey>, names: &[String]) {
        let first = self.default.is_empty();
        let mut beside_first = false;
        for name in names {
            let name = name.to_ascii_lowercase();
            let list = match name.strip_prefix("*.") {
                Some(suffix) => self.wildcard.entry(suffix.into()).or_default(),
                None => self.exact.entry(name.into()).or_default(),
            };
            beside_first |= list
                .iter()
                .any(|known| self.default.iter().any(|default| Arc::ptr_eq(known, default)));
            list.push(Arc::clone(certificate));
        }
        if first || beside_first {
            self.default.push(Arc::clone(certificate));
        }
    }

    fn identity(&self) -> Option<SpiffeId> {
        self.default.first()?.cert.first().and_then(spiffe_id)
    }

    /// Returns the certificates for `name`, in order of preference.
    fn find(&self, name: Option<&str>) -> &[Arc<CertifiedKey>] {
        let other: &[Arc<CertifiedKey>] = match self.known_names_only {
            true => &[],
            false => &self.default,
        };
        let Some(name) = name else { return other };
        let name = name.to_ascii_lowercase();
        let wildcard = || name.split_once('.').and_then(|(_, suffix)| self.wildcard.get(suffix));
        self.exact.get(&*name).or_else(wildcard).map_or(other, Vec::as_slice)
    }
}

impl ResolvesServerCert for CertificateTable {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let certificates = self.find(hello.server_name());
        let schemes = hello.signature_schemes();
        let usable = certificates.iter().find(|c| c.key.choose_scheme(schemes).is_some());
        usable.or_else(|| certificates.first()).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_gets_the_certificate_of_the_name_it_asks_for() {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = || {
            let made = rcgen::CertificateParams::default().self_signed(&key).unwrap();
            let der = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
            Arc::new(CertifiedKey::from_der(vec![made.der().clone()], der, &PROVIDER).unwrap())
        };
        let certificates = [certificate(), certificate(), certificate(), certificate()];
        let mut table = CertificateTable::default();
        let names = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        table.add(&certificates[0], &names(&["a.example"]));
        table.add(&certificates[1], &names(&["*.b.example", "B.example"]));
        table.add(&certificates[2], &names(&["x.b.example"]));
        table.add(&certificates[3], &names(&["a.example"]));
        for (asked, expected) in [
            (Some("a.example"), vec![0, 3]),
            (Some("A.EXAMPLE"), vec![0, 3]),
            (Some("b.example"), vec![1]),
            (Some("y.b.example"), vec![1]),
            (Some("x.b.example"), vec![2]),
            (Some("x.y.b.example"), vec![0, 3]),
            (Some("unknown"), vec![0, 3]),
            (None, vec![0, 3]),
        ] {
            let found = table.find(asked);
            let index = |c| certificates.iter().position(|known| Arc::ptr_eq(known, c)).unwrap();
            assert_eq!(found.iter().map(index).collect::<Vec<_>>(), expected, "{asked:?}");
        }
    }
}
