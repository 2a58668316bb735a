//! Questions about a chain that path validation (webpki) does not answer: whether a chain that was
//! accepted still leads to a root, and whether a certificate is a root itself.

use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// What a path of certificates is made of.
struct Link<'a> {
    subject: &'a [u8],
    issuer: &'a [u8],
    lasts: bool,
}

/// Whether `chain`, leaf first, still has a path to one of `anchors` at `now`. It was validated
/// before, so only names and times are looked at. A path counts, not each certificate (RFC 5280
/// 6.1): servers send what no path needs, for example an old cross-signed root.
pub(super) fn still_leads<'t>(
    chain: &[CertificateDer<'_>],
    anchors: impl Iterator<Item = &'t TrustAnchor<'static>> + Clone,
    now: UnixTime,
) -> bool {
    let Some(parsed) = chain.iter().map(|der| EndEntityCert::try_from(der).ok()).collect() else {
        return false;
    };
    let parsed: Vec<EndEntityCert<'_>> = parsed;
    let link = |(certificate, der)| link(certificate, der, now);
    let mut links: Vec<Link<'_>> = parsed.iter().zip(chain).map(link).collect();
    // From the leaf up: each step uses a certificate at most once.
    let mut reached: Vec<&[u8]> = Vec::new();
    if !links.is_empty() {
        let leaf = links.remove(0);
        let is_root = anchors.clone().any(|anchor| anchor.subject.as_ref() == leaf.subject);
        if !leaf.lasts {
            return false;
        }
        if is_root {
            return true;
        }
        reached.push(leaf.issuer);
    }
    while let Some(issuer) = reached.pop() {
        if anchors.clone().any(|anchor| anchor.subject.as_ref() == issuer) {
            return true;
        }
        while let Some(at) = links.iter().position(|link| link.lasts && link.subject == issuer) {
            reached.push(links.swap_remove(at).issuer);
        }
    }
    false
}

fn link<'a>(parsed: &'a EndEntityCert<'_>, der: &CertificateDer<'_>, now: UnixTime) -> Link<'a> {
    Link { subject: parsed.subject(), issuer: parsed.issuer(), lasts: lasts(der, now) }
}

fn lasts(der: &CertificateDer<'_>, now: UnixTime) -> bool {
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    X509Certificate::from_der(der).is_ok_and(|(_, certificate)| {
        let validity = certificate.validity();
        validity.not_before.timestamp() <= now && now <= validity.not_after.timestamp()
    })
}

/// Whether a certificate that says CA:TRUE is one of `anchors`, and may be used for `usage` at
/// `now`. `openssl req -x509` makes such certificates; who gives one as `ca` trusts its key for
/// anything.
pub(super) fn is_anchor(
    der: &CertificateDer<'_>,
    anchors: &[TrustAnchor<'static>],
    now: UnixTime,
    usage: KeyUsage,
) -> bool {
    let Ok(parsed) = EndEntityCert::try_from(der) else { return false };
    let key = parsed.subject_public_key_info();
    // The key of an anchor is the content of the DER sequence.
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

/// Whether the extended key usage, if there is one, has `usage`.
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
