//! TLS to a service, as compiled.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, Error};

use super::PROVIDER;
use super::server::Versions;
use super::verify::PeerVerifier;
use crate::net::Address;

/// Sessions with endpoints of one service that are remembered for resumption.
pub const SESSIONS_MAX: usize = 1024;

/// TLS to the endpoints of a service.
#[derive(Debug)]
pub struct ClientTls {
    /// For rustls.
    pub config: Arc<ClientConfig>,
    /// The same for bytes: without a protocol to choose (ALPN).
    pub bytes: Arc<ClientConfig>,
    /// Changes when others are accepted than before: pooled connections that began on other terms
    /// are not used again.
    pub terms: u64,
    /// Who checks the certificates of endpoints.
    pub verifier: Arc<PeerVerifier>,
    /// The name that is asked for and, unless identities are checked, proven. `None`: the
    /// endpoint's address.
    pub name: Option<ServerName<'static>>,
}

impl ClientTls {
    /// TLS that presents `own` if the endpoint asks, and accepts what `verifier` does.
    ///
    /// # Errors
    /// When rustls finds the parts inconsistent.
    pub fn new(
        verifier: PeerVerifier,
        own: Option<Arc<CertifiedKey>>,
        name: Option<ServerName<'static>>,
        terms: u64,
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
        Ok(Self { config, bytes, terms, verifier, name })
    }

    /// The name to ask the endpoint at `address` for.
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
