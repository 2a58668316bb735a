//! A CA certificate with its key, and the common parts of all certificates that it signs.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, IsCa, KeyPair};
use rcgen::{KeyUsagePurpose, PublicKeyData, SanType, SerialNumber};
use time::OffsetDateTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;
use zeroize::Zeroizing;

use super::{CLOCK_SKEW, CaError, files};
use crate::identity::SpiffeId;

/// A CA certificate with its key. Its `Debug` does not show the key.
pub(super) struct Signer {
    /// All certificates of the file, without its other contents.
    pub chain_pem: String,
    /// The trust domain of the CA.
    pub trust_domain: SpiffeId,
    /// The common name of the CA's subject.
    pub common_name: String,
    /// The end of the validity. The CA signs no certificate that is valid for longer.
    pub not_after: SystemTime,
    issuer: rcgen::Issuer<'static, KeyPair>,
    path: PathBuf,
}

impl Signer {
    /// Reads a CA certificate and its key.
    pub(super) fn open(certificate: &Path, key: &Path) -> Result<Self, CaError> {
        let unusable = |problem| CaError::Unusable { path: certificate.to_owned(), problem };
        let text = files::read(certificate)?;
        let chain = pem::parse_many(text.as_bytes()).unwrap_or_default();
        let chain: Vec<_> = chain.into_iter().filter(|pem| pem.tag() == "CERTIFICATE").collect();
        let first = chain.first().ok_or_else(|| unusable("holds no certificate in PEM"))?;
        let (_, read) = X509Certificate::from_der(first.contents())
            .map_err(|_| unusable("holds no X.509 certificate"))?;
        if !read.is_ca() {
            return Err(unusable("is not the certificate of a CA"));
        }
        let pair = KeyPair::from_pem(&files::read(key)?).map_err(|_| CaError::Unusable {
            path: key.to_owned(),
            problem: "holds no private key in PEM that can sign (PKCS#8, ECDSA P-256 for example)",
        })?;
        if pair.der_bytes() != &*read.public_key().subject_public_key.data {
            let (certificate, key) = (certificate.to_owned(), key.to_owned());
            return Err(CaError::Mismatch { certificate, key });
        }
        let seconds = u64::try_from(read.validity().not_after.timestamp()).unwrap_or_default();
        let name = read.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
        Ok(Self {
            trust_domain: trust_domain_of(&read)
                .ok_or_else(|| unusable("names no trust domain (URI spiffe://TRUST-DOMAIN)"))?,
            common_name: name.unwrap_or_default().to_owned(),
            not_after: UNIX_EPOCH + Duration::from_secs(seconds),
            issuer: rcgen::Issuer::from_ca_cert_der(&first.contents().into(), pair)?,
            chain_pem: certificates_pem(&chain),
            path: certificate.to_owned(),
        })
    }

    /// Signs a certificate for `key`. Its validity is `span`, which comes from [`Signer::span`].
    pub(super) fn sign(
        &self,
        mut params: CertificateParams,
        span: &Span,
        key: &KeyPair,
    ) -> Result<String, CaError> {
        params.use_authority_key_identifier_extension = true;
        dated(&mut params, span)?;
        Ok(params.signed_by(key, &self.issuer)?.pem())
    }

    /// Returns the validity of a certificate with this lifetime. It never ends after that of the
    /// CA.
    pub(super) fn span(
        &self,
        now: SystemTime,
        lifetime: Duration,
        remedy: &'static str,
    ) -> Result<Span, CaError> {
        if now >= self.not_after {
            let ended = humantime::format_rfc3339_seconds(self.not_after).to_string();
            return Err(CaError::Ended { path: self.path.clone(), ended, remedy });
        }
        let span = Span::new(now, lifetime)?;
        Ok(Span { not_after: span.not_after.min(self.not_after), ..span })
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, trust_domain, not_after, .. } = self;
        let mut shown = f.debug_struct("Signer");
        shown.field("path", path).field("trust_domain", trust_domain);
        shown.field("not_after", not_after).finish_non_exhaustive()
    }
}

/// The validity of a certificate, in whole seconds.
#[derive(Clone, Copy)]
pub(super) struct Span {
    pub not_before: SystemTime,
    pub not_after: SystemTime,
}

impl Span {
    /// Creates a validity that starts a little before `now`: see [`CLOCK_SKEW`].
    pub(super) fn new(now: SystemTime, lifetime: Duration) -> Result<Self, CaError> {
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let now = UNIX_EPOCH + Duration::from_secs(since);
        let lifetime = Duration::from_secs(lifetime.as_secs());
        let skew = CLOCK_SKEW.min(Duration::from_secs(lifetime.as_secs() / 10));
        let not_after = now.checked_add(lifetime).filter(|end| *end > now);
        let not_before = now.checked_sub(skew).unwrap_or(UNIX_EPOCH);
        Ok(Self { not_before, not_after: not_after.ok_or(CaError::Lifetime)? })
    }
}

/// Sets the validity and a random serial number.
pub(super) fn dated(params: &mut CertificateParams, span: &Span) -> Result<(), CaError> {
    params.not_before = date(span.not_before)?;
    params.not_after = date(span.not_after)?;
    params.serial_number = Some(random_serial()?);
    Ok(())
}

/// Returns the parameters of a SPIFFE CA certificate (X509-SVID, sections 2 and 4): the trust
/// domain is its only URI, and it may sign certificates and revocation lists. `path_length` is the
/// number of CA certificates allowed below it.
pub(super) fn ca_params(
    name: &str,
    trust_domain: &SpiffeId,
    path_length: u8,
) -> Result<CertificateParams, CaError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.subject_alt_names = vec![SanType::URI(trust_domain.as_str().try_into()?)];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

/// Whether a file contains a CA certificate; false if it cannot be read.
pub(super) fn is_ca(path: &Path) -> bool {
    let Ok(text) = files::read(path) else { return false };
    let certificates = pem::parse_many(text.as_bytes()).unwrap_or_default();
    certificates.first().is_some_and(|first| {
        X509Certificate::from_der(first.contents()).is_ok_and(|(_, read)| read.is_ca())
    })
}

/// Creates an ECDSA key on P-256, because every peer supports this curve and it is fast.
pub(super) fn new_key() -> Result<KeyPair, CaError> {
    Ok(KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?)
}

/// Returns a key as PKCS#8 in PEM. Its memory is wiped when it is dropped.
pub(super) fn key_pem(key: &KeyPair) -> Zeroizing<String> {
    Zeroizing::new(key.serialize_pem())
}

/// Creates a serial number of 16 random bytes (RFC 5280 4.1.2.2: positive, at most 20 bytes). The
/// first two bits are fixed, so that the number is positive and always of the same length.
fn random_serial() -> Result<SerialNumber, CaError> {
    let mut serial = [0; 16];
    aws_lc_rs::rand::fill(&mut serial).map_err(|_| CaError::Random)?;
    serial[0] = serial[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&serial))
}

fn date(at: SystemTime) -> Result<OffsetDateTime, CaError> {
    let seconds = at.duration_since(UNIX_EPOCH).map_err(|_| CaError::Lifetime)?.as_secs();
    let seconds = i64::try_from(seconds).map_err(|_| CaError::Lifetime)?;
    OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| CaError::Lifetime)
}

/// Returns the URI of the certificate, if it is the only one and the ID of a trust domain.
fn trust_domain_of(certificate: &X509Certificate<'_>) -> Option<SpiffeId> {
    let names = &certificate.subject_alternative_name().ok()??.value.general_names;
    let mut uris = names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(uri),
        _ => None,
    });
    let id = SpiffeId::parse(uris.next()?).ok()?;
    (uris.next().is_none() && id.path().is_empty()).then_some(id)
}

fn certificates_pem(certificates: &[pem::Pem]) -> String {
    let lines = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_many_config(certificates, lines)
}
