//! Compiles what peers are verified with: roots, and revocation lists.

use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::pem::PemObject as _;
use webpki::{CertRevocationList, OwnedCertRevocationList};

use super::Accepts;
use crate::compile::Compiler;
use crate::model::{Item, Material, Origin};
use crate::tls::Bundle;

/// Adds the roots of other trust domains that files have. Returns the revocation lists of files.
pub(super) fn of_files(
    compiler: &mut Compiler<'_>,
    bundles: &mut Vec<Bundle>,
    accepts: &mut Accepts,
) -> Option<Vec<CertRevocationList<'static>>> {
    let mesh = &compiler.model.mesh;
    for (domain, file) in &mesh.trust_bundles {
        let bytes = compiler.material(file)?;
        bundles.extend(bundle(compiler, &file.origin, bytes, Some(&domain.value)));
        accepts.trusted.extend_from_slice(bytes);
    }
    if let Some(file) = &mesh.crl {
        accepts.revoked.extend_from_slice(compiler.material(file)?);
    }
    Some(revocation_lists(compiler, mesh.crl.as_ref()))
}

/// Parses the roots in `bytes`.
pub(super) fn bundle(
    compiler: &mut Compiler<'_>,
    origin: &Origin,
    bytes: &[u8],
    trust_domain: Option<&str>,
) -> Option<Bundle> {
    let mut anchors = Vec::new();
    for certificate in compiler.certificates_in(origin, bytes, true)? {
        match webpki::anchor_from_trusted_cert(&certificate) {
            Ok(anchor) => anchors.push(anchor.to_owned()),
            Err(error) => {
                compiler.fault(origin, format!("a root here cannot be used: {error}"));
            }
        }
    }
    Some(Bundle { trust_domain: trust_domain.map(Into::into), anchors })
}

/// The CAs in a file. They may sign certificates for any name.
pub(in crate::compile) fn authorities<'a>(
    compiler: &mut Compiler<'a>,
    file: &'a Item<Material>,
) -> Option<Vec<Bundle>> {
    let bytes = compiler.material(file)?;
    bundle(compiler, &file.origin, bytes, None).map(|bundle| vec![bundle])
}

pub(super) fn revocation_lists<'a>(
    compiler: &mut Compiler<'a>,
    file: Option<&'a Item<Material>>,
) -> Vec<CertRevocationList<'static>> {
    let Some(file) = file else { return Vec::new() };
    let Some(bytes) = compiler.material(file) else { return Vec::new() };
    let mut lists = Vec::new();
    for list in CertificateRevocationListDer::pem_slice_iter(bytes) {
        let parsed = list.map_err(|error| error.to_string()).and_then(|list| {
            OwnedCertRevocationList::from_der(&list).map_err(|error| error.to_string())
        });
        match parsed {
            Ok(list) => lists.push(list.into()),
            Err(error) => {
                compiler.fault(&file.origin, format!("not a revocation list: {error}"));
            }
        }
    }
    lists
}
