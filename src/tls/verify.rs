//! Verification of a peer's certificate.
//!
//! The chain must lead to a trust anchor, and the certificate must be valid for the purpose (RFC
//! 5280, checked by webpki). Then the certificate must have the expected DNS name or address, or
//! exactly one SPIFFE ID. With a SPIFFE ID, the chain must lead to the bundle of that ID's trust
//! domain (X.509-SVID 4.1, 5.2). For a service with configured identities, the ID must be one of
//! them.

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
};
use webpki::{
    CertRevocationList, EndEntityCert, KeyUsage, RevocationOptionsBuilder, UnknownStatusPolicy,
};

use super::PROVIDER;
use super::chain::{all_last, is_anchor};
use crate::identity::{LinkerdName, SpiffeId};

/// The longest accepted chain, in bytes. Session tickets contain it, and OpenSSL accepts tickets of
/// up to 16 KiB.
pub const CHAIN_BYTES_MAX: usize = 15 * 1024;

/// The longest list of CA names that a listener sends in a handshake, in bytes. A longer list, such
/// as that of a bundle of public CAs, is not sent.
pub const HINT_BYTES_MAX: usize = 4096;

/// The root certificates of a trust domain.
#[derive(Debug)]
pub struct Bundle {
    /// The trust domain. `None` means a plain CA file, whose roots are valid for any name.
    pub trust_domain: Option<Box<str>>,
    /// The root certificates, as trust anchors of webpki.
    pub anchors: Vec<TrustAnchor<'static>>,
}

/// The trusted roots and the certificate revocation lists (CRLs).
#[derive(Debug, Default)]
pub struct Trust {
    /// One bundle for each trust domain, or one bundle without a trust domain.
    pub bundles: Vec<Bundle>,
    /// The revocation lists.
    pub crls: Vec<CertRevocationList<'static>>,
}

/// The properties by which a revocation list identifies a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// The subject of the issuer: the content of the DER sequence.
    pub issuer: Box<[u8]>,
    /// The serial number.
    pub serial: Box<[u8]>,
}

impl Issued {
    /// Returns the properties of all certificates in `chain`, for [`PeerVerifier::revoked`].
    pub fn list(chain: &[CertificateDer<'_>]) -> Rc<[Self]> {
        let of = |certificate| {
            let parsed = EndEntityCert::try_from(certificate).ok()?;
            Some(Self { issuer: parsed.issuer().into(), serial: parsed.serial().into() })
        };
        chain.iter().filter_map(of).collect()
    }
}

impl fmt::Display for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("serial ")?;
        self.serial.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The requirements for a peer besides a trusted chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Any certificate of a trusted CA.
    Anyone,
    /// A certificate for the server name of the connection.
    Name,
    /// A certificate with a SPIFFE ID: one of these, or any if the list is empty.
    Spiffe(Vec<SpiffeId>),
    /// No verification, not even of the chain (`verify: none`).
    Unverified,
}

/// The verifier of the peer's certificate, for one listener or service.
#[derive(Debug)]
pub struct PeerVerifier {
    trust: Arc<Trust>,
    expected: Expected,
    mandatory: bool,
    algorithms: WebPkiSupportedAlgorithms,
    /// The names of the CAs that are sent to clients, so that a client can choose among its
    /// certificates.
    hints: Vec<DistinguishedName>,
}

/// The reason why a valid chain does not prove an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentityError {
    /// The chain is longer than [`CHAIN_BYTES_MAX`]. The value is its length in bytes.
    Oversized(usize),
    /// The certificate does not have exactly one URI name. The value is the number of URI names.
    UriNames(usize),
    /// The URI name is not a SPIFFE ID. The value is the reason.
    NotSpiffe(String),
    /// There is no bundle for the trust domain.
    UnknownTrustDomain(String),
    /// The identity is not an expected one.
    Unexpected {
        /// The identity in the certificate.
        found: String,
        /// The expected identities.
        expected: String,
    },
}

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Oversized(bytes) => {
                write!(f, "its chain is oversized: {bytes} bytes, {CHAIN_BYTES_MAX} are allowed")
            }
            Self::UriNames(0) => f.write_str("it has no SPIFFE ID"),
            Self::UriNames(count) => write!(f, "it has {count} URI names instead of one SPIFFE ID"),
            Self::NotSpiffe(why) => write!(f, "its URI name is not a SPIFFE ID ({why})"),
            Self::UnknownTrustDomain(domain) => write!(f, "no bundle for the domain {domain}"),
            Self::Unexpected { found, expected } => {
                write!(f, "it proves {found}, expected {expected}")
            }
        }
    }
}

impl std::error::Error for IdentityError {}

impl From<IdentityError> for Error {
    fn from(error: IdentityError) -> Self {
        CertificateError::Other(OtherError(Arc::new(error))).into()
    }
}

/// Returns the SPIFFE ID of an accepted certificate. `None` if it has none.
pub fn spiffe_id(certificate: &CertificateDer<'_>) -> Option<SpiffeId> {
    let parsed = EndEntityCert::try_from(certificate).ok()?;
    only_spiffe_id(&parsed).ok()
}

fn only_spiffe_id(certificate: &EndEntityCert<'_>) -> Result<SpiffeId, IdentityError> {
    let mut names = certificate.valid_uri_names();
    let Some(first) = names.next() else {
        return only_linkerd_name(certificate).ok_or(IdentityError::UriNames(0));
    };
    match names.count() {
        0 => SpiffeId::parse(first).map_err(|why| IdentityError::NotSpiffe(why.to_string())),
        more => Err(IdentityError::UriNames(more + 1)),
    }
}

/// Converts the DNS name of a Linkerd workload to the SPIFFE ID that Istio would use, because
/// authorization rules name this ID.
fn only_linkerd_name(certificate: &EndEntityCert<'_>) -> Option<SpiffeId> {
    let mut names = certificate.valid_dns_names().filter_map(LinkerdName::parse);
    let name = names.next().filter(|_| names.next().is_none())?;
    let LinkerdName { service_account, namespace, trust_domain, .. } = name;
    SpiffeId::parse(&format!("spiffe://{trust_domain}/ns/{namespace}/sa/{service_account}")).ok()
}

impl PeerVerifier {
    /// Creates a verifier. With `mandatory`, a client without a certificate is refused.
    pub fn new(trust: Arc<Trust>, expected: Expected, mandatory: bool) -> Self {
        let algorithms = PROVIDER.signature_verification_algorithms;
        Self { trust, expected, mandatory, algorithms, hints: Vec::new() }
    }

    /// Makes the listener send the names of the CAs, so that a client with several certificates
    /// chooses the right one (RFC 8446 4.2.4). Has no effect if the names take more than
    /// `HINT_BYTES_MAX`.
    pub fn naming_cas(mut self) -> Self {
        let anchors = self.trust.bundles.iter().flat_map(|bundle| &bundle.anchors);
        let names = anchors.map(|anchor| anchor.subject.as_ref());
        if names.clone().map(<[u8]>::len).sum::<usize>() <= HINT_BYTES_MAX {
            self.hints = names.map(DistinguishedName::in_sequence).collect();
        }
        self
    }

    /// Whether a chain that was accepted in an earlier session is still valid at `now`. `is_server`
    /// says whether the peer is a server. If one of the certificates has expired, the path is
    /// validated again: a chain may have a certificate that no path needs, for example an old
    /// cross-signed root (RFC 5280 6.1).
    pub fn still_accepts(
        &self,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
        is_server: bool,
    ) -> bool {
        let Some((end_entity, intermediates)) = chain.split_first() else { return true };
        let usage = if is_server { KeyUsage::server_auth() } else { KeyUsage::client_auth() };
        all_last(chain, now) || self.check(end_entity, intermediates, None, now, usage).is_ok()
    }

    /// Whether a client without a certificate is refused.
    pub fn is_mandatory(&self) -> bool {
        self.mandatory
    }

    /// Checks whether a peer with a valid certificate for `id` is accepted.
    ///
    /// # Errors
    /// The reason for the refusal.
    pub fn check_id(&self, id: &SpiffeId) -> Result<(), IdentityError> {
        match &self.expected {
            Expected::Spiffe(allowed) => self.bundle_of(id, allowed).map(|_| ()),
            Expected::Anyone | Expected::Name | Expected::Unverified => Ok(()),
        }
    }

    /// Whether the peer's certificate is not verified at all (`verify: none`).
    pub fn accepts_anyone(&self) -> bool {
        self.expected == Expected::Unverified
    }

    /// Returns the first certificate of `issued` that is revoked.
    pub fn revoked<'i>(&self, issued: &'i [Issued]) -> Option<&'i Issued> {
        let lists = &self.trust.crls;
        issued.iter().find(|issued| {
            let names = |list: &&CertRevocationList<'_>| list.issuer() == &*issued.issuer;
            let holds = |list: &CertRevocationList<'_>| {
                list.find_serial(&issued.serial).is_ok_and(|entry| entry.is_some())
            };
            lists.iter().filter(names).any(holds)
        })
    }

    fn check(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: Option<&ServerName<'_>>,
        now: UnixTime,
        usage: KeyUsage,
    ) -> Result<(), Error> {
        if self.expected == Expected::Unverified {
            return Ok(());
        }
        let bytes: usize = intermediates.iter().map(|der| der.len()).sum();
        if end_entity.len() + bytes > CHAIN_BYTES_MAX {
            return Err(IdentityError::Oversized(end_entity.len() + bytes).into());
        }
        let certificate = EndEntityCert::try_from(end_entity).map_err(translated)?;
        let bundle = match &self.expected {
            Expected::Spiffe(allowed) => self.bundle_of_member(&certificate, allowed)?,
            _ => self.trust.bundles.first(),
        };
        let anchors = bundle.map_or(&[][..], |bundle| &bundle.anchors[..]);
        let lists: Vec<&CertRevocationList<'_>> = self.trust.crls.iter().collect();
        // Revocation lists are enforced. A CA without a list revokes nothing.
        let revocation = RevocationOptionsBuilder::new(&lists)
            .ok()
            .map(|builder| builder.with_status_policy(UnknownStatusPolicy::Allow).build());
        let algorithms = self.algorithms.all;
        match certificate.verify_for_usage(
            algorithms,
            anchors,
            intermediates,
            now,
            usage,
            revocation,
            None,
        ) {
            Ok(_) => {}
            Err(webpki::Error::CaUsedAsEndEntity) if is_anchor(end_entity, anchors, now, usage) => {
                // webpki stopped before it checked the revocation lists.
                if self.revoked(&Issued::list(std::slice::from_ref(end_entity))).is_some() {
                    return Err(CertificateError::Revoked.into());
                }
            }
            Err(error) => return Err(translated(error)),
        }
        match (name, &self.expected) {
            (Some(name), Expected::Name) => {
                certificate.verify_is_valid_for_subject_name(name).map_err(translated)
            }
            _ => Ok(()),
        }
    }

    /// Returns the bundle of the trust domain of the certificate, if the certificate's SPIFFE ID is
    /// allowed.
    fn bundle_of_member(
        &self,
        certificate: &EndEntityCert<'_>,
        allowed: &[SpiffeId],
    ) -> Result<Option<&Bundle>, IdentityError> {
        self.bundle_of(&only_spiffe_id(certificate)?, allowed)
    }

    fn bundle_of(
        &self,
        id: &SpiffeId,
        allowed: &[SpiffeId],
    ) -> Result<Option<&Bundle>, IdentityError> {
        let domain = id.trust_domain();
        let bundle = self.trust.bundles.iter().find(|b| b.trust_domain.as_deref() == Some(domain));
        if bundle.is_none() {
            return Err(IdentityError::UnknownTrustDomain(domain.to_owned()));
        }
        if !allowed.is_empty() && !allowed.contains(id) {
            let list: Vec<&str> = allowed.iter().map(SpiffeId::as_str).collect();
            let (found, expected) = (id.as_str().to_owned(), list.join(" or "));
            return Err(IdentityError::Unexpected { found, expected });
        }
        Ok(bundle)
    }
}

impl ClientCertVerifier for PeerVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(end_entity, intermediates, None, now, KeyUsage::client_auth())?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity, intermediates, Some(name), now, KeyUsage::server_auth())?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Converts a webpki error to a rustls error. rustls selects the alert from it.
fn translated(error: webpki::Error) -> Error {
    use webpki::Error as E;
    let translated = match error {
        E::BadDer | E::BadDerTime | E::TrailingData(_) => CertificateError::BadEncoding,
        E::CertNotValidYet { time, not_before } => {
            CertificateError::NotValidYetContext { time, not_before }
        }
        E::CertExpired { time, not_after } => CertificateError::ExpiredContext { time, not_after },
        E::UnknownIssuer => CertificateError::UnknownIssuer,
        E::CertRevoked => CertificateError::Revoked,
        E::UnknownRevocationStatus => CertificateError::UnknownRevocationStatus,
        E::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        E::RequiredEkuNotFoundContext(_) => CertificateError::InvalidPurpose,
        E::CertNotValidForName(names) => {
            let webpki::InvalidNameContext { expected, presented } = names;
            CertificateError::NotValidForNameContext { expected, presented }
        }
        other => CertificateError::Other(OtherError(Arc::new(other))),
    };
    Error::InvalidCertificate(translated)
}
