//! Checks of certificates that path validation (webpki) does not make: whether every certificate of
//! a chain is valid at a given time, and whether the peer's certificate is a trusted root itself.

use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Whether each certificate of `chain` is valid at `now`.
pub(super) fn all_last(chain: &[CertificateDer<'_>], now: UnixTime) -> bool {
    chain.iter().all(|der| lasts(der, now))
}

fn lasts(der: &CertificateDer<'_>, now: UnixTime) -> bool {
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    X509Certificate::from_der(der).is_ok_and(|(_, certificate)| {
        let validity = certificate.validity();
        validity.not_before.timestamp() <= now && now <= validity.not_after.timestamp()
    })
}

/// Whether a CA certificate is one of `anchors`, and may be used for `usage` at `now`. `openssl req
/// -x509` makes self-signed certificates that are CA certificates. An operator who configures such
/// a certificate as `ca` trusts its key, so a peer may present it as its own certificate.
pub(super) fn is_anchor(
    der: &CertificateDer<'_>,
    anchors: &[TrustAnchor<'static>],
    now: UnixTime,
    usage: KeyUsage,
) -> bool {
    let Ok(parsed) = EndEntityCert::try_from(der) else { return false };
    let key = parsed.subject_public_key_info();
    // `TrustAnchor` stores the SubjectPublicKeyInfo without the tag and the length of its outer
    // SEQUENCE, so compare without them.
    let same_key = |anchor: &TrustAnchor<'_>| {
        key.as_ref().strip_suffix(anchor.subject_public_key_info.as_ref()).is_some_and(is_header)
    };
    let is_it =
        |anchor: &TrustAnchor<'_>| anchor.subject.as_ref() == parsed.subject() && same_key(anchor);
    anchors.iter().any(is_it) && lasts(der, now) && allows(der, usage)
}

/// Whether `bytes` are the tag and the length of a DER sequence.
fn is_header(bytes: &[u8]) -> bool {
    bytes.first() == Some(&0x30) && bytes.len() <= 5
}

/// Whether the extended key usage of the certificate allows `usage`. Without that extension, any
/// usage is allowed.
fn allows(der: &CertificateDer<'_>, usage: KeyUsage) -> bool {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else { return false };
    match certificate.extended_key_usage() {
        Ok(None) => true,
        Ok(Some(found)) if usage == KeyUsage::server_auth() => {
            found.value.any || found.value.server_auth
        }
        Ok(Some(found)) => found.value.any || found.value.client_auth,
        Err(_) => false,
    }
}
