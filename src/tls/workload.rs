//! The identity that a SPIFFE Workload API has issued to this workload.

use std::fmt;
use std::sync::Arc;

use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, PrivatePkcs8KeyDer,
};
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::{SignatureAlgorithm, SignatureScheme};
use webpki::{CertRevocationList, OwnedCertRevocationList};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::PROVIDER;
use super::verify::{Bundle, spiffe_id};
use crate::identity::SpiffeId;

/// The parts of an identity, as they were received.
#[derive(Clone, Debug, Default)]
pub struct IdentityParts<'a> {
    /// The SPIFFE ID.
    pub id: &'a str,
    /// The certificate and its intermediates: DER, one after the other.
    pub chain: &'a [u8],
    /// The private key: DER of PKCS#8.
    pub key: &'a [u8],
    /// The roots of the trust domain: DER, one after the other.
    pub bundle: &'a [u8],
    /// The roots of other trust domains, by the domain or its ID.
    pub federated: &'a [(&'a str, &'a [u8])],
    /// Revocation lists, each as DER.
    pub crls: &'a [&'a [u8]],
}

/// A certificate with its key, and the roots that this workload trusts. All parts fit together.
pub struct WorkloadIdentity {
    /// The SPIFFE ID.
    pub id: SpiffeId,
    /// The certificate and its key.
    pub own: Arc<CertifiedKey>,
    /// The roots by trust domain, that of this workload first. The others are sorted.
    roots: Vec<(Box<str>, Vec<CertificateDer<'static>>)>,
    crls: Vec<CertificateRevocationListDer<'static>>,
}

impl fmt::Debug for WorkloadIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WorkloadIdentity({})", self.id)
    }
}

impl PartialEq for WorkloadIdentity {
    /// Each certificate has its own key, so the keys need no comparison.
    fn eq(&self, other: &Self) -> bool {
        self.own.cert == other.own.cert && self.roots == other.roots && self.crls == other.crls
    }
}

impl WorkloadIdentity {
    /// Reads the parts of an identity.
    ///
    /// # Errors
    /// Which part is wrong, in words.
    pub fn read(parts: &IdentityParts<'_>) -> Result<Self, String> {
        let id = SpiffeId::parse(parts.id)
            .map_err(|why| format!("{:?} is not a SPIFFE ID: {why}", shortened(parts.id)))?;
        let chain = certificates(parts.chain).ok_or("its chain is not DER of certificates")?;
        match chain.first().and_then(spiffe_id) {
            Some(proven) if proven == id => {}
            Some(proven) => return Err(format!("the certificate of {id} proves {proven}")),
            None => return Err(format!("the certificate of {id} has no SPIFFE ID")),
        }
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(parts.key.to_vec()));
        let own = CertifiedKey::from_der(chain, key, &PROVIDER)
            .map_err(|error| format!("the key of {id} cannot be used: {error}"))?;
        let mut others: Vec<(Box<str>, _)> = Vec::new();
        for (domain, bundle) in parts.federated {
            let domain = domain.strip_prefix("spiffe://").unwrap_or(domain);
            SpiffeId::of_trust_domain(domain)
                .map_err(|why| format!("{:?} is not a trust domain: {why}", shortened(domain)))?;
            if domain != id.trust_domain() {
                others.push((domain.into(), roots(domain, bundle)?));
            }
        }
        // The server sends maps in any order. In one order, the same roots are the same bytes.
        others.sort_by(|(one, _), (other, _)| one.cmp(other));
        let first = (id.trust_domain().into(), roots(id.trust_domain(), parts.bundle)?);
        let roots = std::iter::once(first).chain(others).collect();
        let mut crls = Vec::new();
        for crl in parts.crls {
            OwnedCertRevocationList::from_der(crl)
                .map_err(|error| format!("a revocation list cannot be used: {error}"))?;
            crls.push(CertificateRevocationListDer::from(crl.to_vec()));
        }
        Ok(Self { id, own: Arc::new(own), roots, crls })
    }

    /// The roots, as trust anchors.
    pub fn bundles(&self) -> Vec<Bundle> {
        let bundle = |(domain, roots): &(Box<str>, Vec<CertificateDer<'static>>)| {
            let anchor = |root| Some(webpki::anchor_from_trusted_cert(root).ok()?.to_owned());
            let anchors = roots.iter().filter_map(anchor).collect();
            Bundle { trust_domain: Some(domain.clone()), anchors }
        };
        self.roots.iter().map(bundle).collect()
    }

    /// The revocation lists.
    pub fn crls(&self) -> impl Iterator<Item = CertRevocationList<'static>> {
        self.crls.iter().filter_map(|crl| Some(OwnedCertRevocationList::from_der(crl).ok()?.into()))
    }

    /// The bytes of the trust domains and their roots, to compare them.
    pub fn trusted(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (domain, roots) in &self.roots {
            bytes.extend_from_slice(domain.as_bytes());
            roots.iter().for_each(|root| bytes.extend_from_slice(root));
        }
        bytes
    }

    /// The bytes of the revocation lists, to compare them.
    pub fn revoked(&self) -> Vec<u8> {
        self.crls.iter().flat_map(|crl| crl.iter().copied()).collect()
    }
}

/// The beginning of a name that the server has sent, for a message.
fn shortened(name: &str) -> &str {
    const SHOWN_MAX: usize = 100;
    name.char_indices().nth(SHOWN_MAX).map_or(name, |(end, _)| &name[..end])
}

/// The certificates in `der`, which has at least one, and nothing else.
fn certificates(der: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let (mut found, mut rest) = (Vec::new(), der);
    while !rest.is_empty() {
        let (after, _) = X509Certificate::from_der(rest).ok()?;
        let (one, _) = rest.split_at_checked(rest.len() - after.len())?;
        found.push(CertificateDer::from(one.to_vec()));
        rest = after;
    }
    (!found.is_empty()).then_some(found)
}

/// The roots of a trust domain, sorted.
fn roots(domain: &str, der: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let wrong = || format!("the roots of {domain} are not DER of certificates");
    let mut roots = certificates(der).ok_or_else(wrong)?;
    for root in &roots {
        webpki::anchor_from_trusted_cert(root)
            .map_err(|error| format!("a root of {domain} cannot be used: {error}"))?;
    }
    roots.sort_by(|one: &CertificateDer<'_>, other| one.as_ref().cmp(other.as_ref()));
    Ok(roots)
}

/// A key that signs nothing. It stands for an identity that nobody has asked for yet: with it, no
/// handshake succeeds.
#[derive(Debug)]
struct NoKey;

impl SigningKey for NoKey {
    fn choose_scheme(&self, _: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        None
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

/// A stand-in for an identity that is not known yet. No handshake succeeds with it.
pub fn unknown_key() -> Arc<CertifiedKey> {
    Arc::new(CertifiedKey::new(Vec::new(), Arc::new(NoKey)))
}

#[cfg(test)]
mod tests;
