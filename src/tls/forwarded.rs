//! `x-forwarded-client-cert`: what services behind us are told of the client's certificate, in the
//! form that Envoy has made common.

use std::fmt::Write as _;

use aws_lc_rs::digest::{SHA256, digest};
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::identity::SpiffeId;

/// The element for a client that has presented `certificate`; `by` is our own identity.
pub fn element(certificate: &CertificateDer<'_>, by: Option<&SpiffeId>) -> String {
    let mut out = String::new();
    // Writing to a String does not fail, here and below.
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

/// The text inside quotes. A subject is whatever its CA has signed: nothing of it may end the
/// quotes or the field.
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
