//! Checks certificates, keys and roots that come without the listener or service that needs them.

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use crate::tls::PROVIDER;

/// Checks a certificate chain and its private key.
///
/// # Errors
/// A sentence about what is wrong, without the content.
pub fn check_certificate(chain: &[u8], key: &[u8]) -> Result<(), String> {
    let chain = certificates(chain)?;
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|_| "there is no private key in PEM without a passphrase".to_owned())?;
    match CertifiedKey::from_der(chain, key, &PROVIDER) {
        Ok(_) => Ok(()),
        Err(rustls::Error::InconsistentKeys(_)) => {
            Err("the private key does not belong to the certificate".to_owned())
        }
        Err(error) => Err(format!("the certificate cannot be used: {error}")),
    }
}

/// Checks roots.
///
/// # Errors
/// A sentence about what is wrong.
pub fn check_roots(roots: &[u8]) -> Result<(), String> {
    for certificate in certificates(roots)? {
        webpki::anchor_from_trusted_cert(&certificate)
            .map_err(|error| format!("a root cannot be used: {error}"))?;
    }
    Ok(())
}

fn certificates(bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let list = CertificateDer::pem_slice_iter(bytes).collect::<Result<Vec<_>, _>>();
    let list = list.map_err(|error| format!("this is not valid PEM: {error}"))?;
    match list.is_empty() {
        true => Err("there is no certificate in PEM".to_owned()),
        false => Ok(list),
    }
}
