//! Certificates and TLS settings. The model holds the contents of files, so that compiling reads no
//! files.

use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::Item;

/// A certificate, key or revocation list, as its source has read it. `Debug` does not print the
/// content.
#[derive(Clone, PartialEq, Eq)]
pub struct Material(Result<Arc<Zeroizing<Vec<u8>>>, Arc<str>>);

impl Material {
    /// Material with this content.
    pub fn new(content: Vec<u8>) -> Self {
        Self(Ok(Arc::new(Zeroizing::new(content))))
    }

    /// Material that the source could not read, with the reason.
    pub fn unreadable(reason: &str) -> Self {
        Self(Err(reason.into()))
    }

    /// The content.
    ///
    /// # Errors
    /// The reason why the source could not read it.
    pub fn bytes(&self) -> Result<&[u8], &str> {
        match &self.0 {
            Ok(bytes) => Ok(bytes),
            Err(reason) => Err(reason),
        }
    }
}

impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Ok(bytes) => write!(f, "Material({} bytes)", bytes.len()),
            Err(reason) => write!(f, "Material({reason})"),
        }
    }
}

/// TLS of a listener.
#[derive(Clone, Debug)]
pub enum ServerTls {
    /// Mutual TLS with this workload's identity. Clients must present a trusted identity.
    Mesh,
    /// A certificate and its key.
    Certificate(Box<ServerCertificate>),
}

/// A certificate of a listener. The first one of a list also has the settings for clients.
#[derive(Clone, Debug)]
pub struct ServerCertificate {
    /// PEM with the certificate and its intermediates.
    pub cert: Item<Material>,
    /// PEM with the private key.
    pub key: Item<Material>,
    /// The SNI names that select this certificate. Empty means the names in the certificate.
    pub names: Vec<String>,
    /// DER with an OCSP response.
    pub ocsp: Option<Item<Material>>,
    /// PEM with the CAs of client certificates.
    pub client_ca: Option<Item<Material>>,
    /// Whether clients must present a certificate. `None` means the default.
    pub client_auth: Option<Item<ClientAuth>>,
    /// PEM with revocation lists for client certificates.
    pub crl: Option<Item<Material>>,
    /// The oldest version of TLS. `None` means 1.2.
    pub min_version: Option<Item<TlsVersion>>,
    /// Whether the listener sends the names of the CAs to clients. `None` means the default, true.
    pub send_ca_names: Option<Item<bool>>,
}

/// A TLS version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// Whether a client must present a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// A client without a certificate is accepted.
    Optional,
    /// A client without a certificate is refused.
    Require,
}

/// TLS to the endpoints of a service.
#[derive(Clone, Debug)]
pub enum ClientTls {
    /// Mutual TLS with this workload's identity. Endpoints must present a trusted identity.
    Mesh,
    /// Verification with CAs, and perhaps a certificate for the endpoint.
    Files(Box<ClientFiles>),
}

/// Certificates for TLS to the endpoints of a service.
#[derive(Clone, Debug, Default)]
pub struct ClientFiles {
    /// PEM with the CAs of the endpoints.
    pub ca: Option<Item<Material>>,
    /// PEM with the certificate for endpoints that request one.
    pub cert: Option<Item<Material>>,
    /// PEM with the private key of `cert`.
    pub key: Option<Item<Material>>,
    /// The server name to send and to verify. `None` means the name in `dns`, else the address.
    pub sni: Option<Item<String>>,
    /// PEM with revocation lists for the certificates of endpoints.
    pub crl: Option<Item<Material>>,
    /// Whether the certificates of endpoints are accepted without verification.
    pub unverified: bool,
}

/// The identity of this workload.
#[derive(Clone, Debug)]
pub enum Identity {
    /// A certificate, key and roots.
    Given {
        /// PEM with the certificate and its intermediates.
        cert: Item<Material>,
        /// PEM with its private key.
        key: Item<Material>,
        /// PEM with the roots of the trust domain.
        roots: Item<Material>,
    },
    /// A certificate of a local CA. The origin of each part is the directory of the CA.
    Issued {
        /// PEM with the certificate and its intermediates.
        cert: Item<Material>,
        /// PEM with the private key of `cert`.
        key: Item<Material>,
        /// PEM with the roots of the trust domain.
        roots: Item<Material>,
    },
    /// The identity that a SPIFFE Workload API issues.
    Workload {
        /// The socket of the API: `unix:PATH`.
        socket: Item<String>,
        /// The SPIFFE ID to choose. `None` means the only one.
        id: Option<Item<String>>,
    },
    /// An identity with missing parts. It is an error.
    Incomplete,
}
