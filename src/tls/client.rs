//! Compiled TLS settings of a service.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, Error};

use super::PROVIDER;
use super::server::Versions;
use super::verify::PeerVerifier;
use crate::net::Address;

/// The maximum number of sessions that are stored for resumption, for each service.
pub const SESSIONS_MAX: usize = 1024;

/// TLS to the endpoints of a service.
#[derive(Debug)]
pub struct ClientTls {
    /// The rustls configuration.
    pub config: Arc<ClientConfig>,
    /// The same configuration without ALPN, for connections that carry opaque bytes.
    pub bytes: Arc<ClientConfig>,
    /// A number that changes when the accepted peers change. Pooled connections with an older
    /// number are not used again.
    pub terms: u64,
    /// A number that changes when any of these settings changes, including the proxy's own
    /// certificate.
    pub inputs: u64,
    /// The verifier of endpoint certificates.
    pub verifier: Arc<PeerVerifier>,
    /// The server name (SNI) to send. Unless SPIFFE IDs are checked, the certificate must be valid
    /// for this name. `None` means the endpoint's address.
    pub name: Option<ServerName<'static>>,
}

impl ClientTls {
    /// Creates TLS settings that present `own` if the endpoint requests a certificate, and check
    /// the endpoint with `verifier`. `terms` and `inputs` become the fields of the same names.
    ///
    /// # Errors
    /// When rustls rejects the configuration.
    pub fn new(
        verifier: PeerVerifier,
        own: Option<Arc<CertifiedKey>>,
        name: Option<ServerName<'static>>,
        (terms, inputs): (u64, u64),
        alpn: &[&[u8]],
    ) -> Result<Self, Error> {
        let verifier = Arc::new(verifier);
        let builder = ClientConfig::builder_with_provider(Arc::clone(&PROVIDER))
            .with_protocol_versions(Versions::From12.list())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&verifier) as _);
        let mut config = match own {
            None => builder.with_no_client_auth(),
            Some(own) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own))),
        };
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        config.resumption = Resumption::in_memory_sessions(SESSIONS_MAX);
        let mut bytes = config.clone();
        bytes.alpn_protocols.clear();
        let (config, bytes) = (Arc::new(config), Arc::new(bytes));
        Ok(Self { config, bytes, terms, inputs, verifier, name })
    }

    /// The settings of the handshake for HTTP/3. Sessions are not resumed: QUIC does not say
    /// whether one was, so an expired certificate would not be noticed.
    pub fn http3(&self) -> Arc<ClientConfig> {
        let mut config = ClientConfig::clone(&self.config);
        config.alpn_protocols = vec![b"h3".to_vec()];
        config.resumption = Resumption::disabled();
        Arc::new(config)
    }

    /// Returns the server name for the endpoint at `address`.
    pub fn name_for(&self, address: &Address) -> ServerName<'static> {
        match (&self.name, address) {
            (Some(name), _) => name.clone(),
            (None, Address::Tcp(address)) => ServerName::IpAddress(address.ip().into()),
            (None, Address::Unix(_)) => {
                ServerName::IpAddress(std::net::IpAddr::from([127, 0, 0, 1]).into())
            }
        }
    }
}
