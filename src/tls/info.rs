//! Information about a certificate for operators, without its key.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::CertificateDer;
use serde::Serialize;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// The part of the lifetime after which the log warns about a certificate in use.
const WORN: f64 = 0.8;

/// A description of a certificate in use.
#[derive(Clone, Debug, Serialize)]
pub struct CertificateInfo {
    /// The owner of the certificate: `listener web`, `service shop`, `mesh identity`.
    pub owner: String,
    /// The subject, as text.
    pub subject: String,
    /// The subject alternative names: DNS names, addresses and URIs.
    pub names: Vec<String>,
    /// The SPIFFE ID. `None` if the certificate has none.
    pub spiffe_id: Option<String>,
    /// The issuer, and the subjects of the intermediate certificates that are sent with the
    /// certificate.
    pub chain: Vec<String>,
    /// The serial number, in hexadecimal.
    pub serial: String,
    /// The start of the validity, in Unix seconds.
    pub not_before_unix_s: i64,
    /// The end of the validity, in Unix seconds.
    pub not_after_unix_s: i64,
}

impl CertificateInfo {
    /// Reads the first certificate of `chain`. Returns `None` if it cannot be parsed.
    pub fn read(owner: &str, chain: &[CertificateDer<'_>]) -> Option<Self> {
        let (_, first) = X509Certificate::from_der(chain.first()?).ok()?;
        let mut sent = vec![first.issuer().to_string()];
        for certificate in &chain[1..] {
            if let Ok((_, certificate)) = X509Certificate::from_der(certificate) {
                sent.push(certificate.subject().to_string());
            }
        }
        let mut names = Vec::new();
        for extension in first.extensions() {
            if let ParsedExtension::SubjectAlternativeName(list) = extension.parsed_extension() {
                names.extend(list.general_names.iter().filter_map(name));
            }
        }
        Some(Self {
            owner: owner.to_owned(),
            subject: first.subject().to_string(),
            names,
            spiffe_id: super::spiffe_id(&chain[0]).map(|id| id.as_str().to_owned()),
            chain: sent,
            serial: first.raw_serial_as_string(),
            not_before_unix_s: first.validity().not_before.timestamp(),
            not_after_unix_s: first.validity().not_after.timestamp(),
        })
    }

    /// Returns the end of the validity.
    pub fn not_after(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.not_after_unix_s.try_into().unwrap_or_default())
    }

    /// Seconds until the certificate expires; negative after that.
    pub fn seconds_left(&self, now: SystemTime) -> i64 {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        self.not_after_unix_s - i64::try_from(now).unwrap_or(i64::MAX)
    }

    /// Whether more than 80 % of the certificate's lifetime have passed. It should have been
    /// renewed by then.
    pub fn is_worn(&self, now: SystemTime) -> bool {
        let life = self.not_after_unix_s - self.not_before_unix_s;
        (self.seconds_left(now) as f64) < life as f64 * (1.0 - WORN)
    }
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) | GeneralName::URI(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|ip| std::net::IpAddr::from(ip).to_string()),
            _ => <[u8; 16]>::try_from(*bytes).ok().map(|ip| std::net::IpAddr::from(ip).to_string()),
        },
        _ => None,
    }
}
