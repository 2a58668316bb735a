//! Writes `x-forwarded-client-cert`, the field that describes the client's certificate to services,
//! in Envoy's format.

use std::fmt::Write as _;

use aws_lc_rs::digest::{SHA256, digest};
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::identity::SpiffeId;

/// Returns the list element for a client with `certificate`. `by` is the proxy's own identity.
pub fn element(certificate: &CertificateDer<'_>, by: Option<&SpiffeId>) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    if let Some(by) = by {
        write!(out, "By={};", by.as_str()).ok();
    }
    out.push_str("Hash=");
    for byte in digest(&SHA256, certificate).as_ref() {
        write!(out, "{byte:02x}").ok();
    }
    if let Ok((_, parsed)) = X509Certificate::from_der(certificate) {
        write!(out, ";Subject=\"{}\"", escaped(&parsed.subject().to_string())).ok();
    }
    if let Some(id) = super::spiffe_id(certificate) {
        write!(out, ";URI={}", id.as_str()).ok();
    }
    out
}

/// Escapes text that is written between double quotes. A CA may sign any subject, so the subject
/// must not be able to end the quoted text or the field.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            ' '..='~' => out.push(c),
            _ => out.push('?'),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    #[test]
    fn a_hostile_subject_stays_inside_its_quotes() {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "a\"; URI=spiffe://x/\r\nb: ü\\");
        let id = "spiffe://cluster.local/ns/demo/sa/shop";
        params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
        let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let by = SpiffeId::parse("spiffe://cluster.local/ns/demo/sa/me").unwrap();
        let element = element(made.der(), Some(&by));
        let (hash, rest) = element.split_once(";Subject=").unwrap();
        assert!(hash.starts_with("By=spiffe://cluster.local/ns/demo/sa/me;Hash="), "{element}");
        assert_eq!(hash.rsplit('=').next().unwrap().len(), 64);
        let expected =
            r#""CN=a\"; URI=spiffe://x/??b: ?\\";URI=spiffe://cluster.local/ns/demo/sa/shop"#;
        assert_eq!(rest, expected);
    }
}
