//! What an operator wants to know of a certificate. Never its key.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::CertificateDer;
use serde::Serialize;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// The share of its life after which a certificate that is still in use is warned of.
const WORN: f64 = 0.8;

/// A certificate in use.
#[derive(Clone, Debug, Serialize)]
pub struct CertificateInfo {
    /// Who uses it: `listener web`, `service shop`, `mesh identity`.
    pub owner: String,
    /// Its subject.
    pub subject: String,
    /// Its DNS names, addresses and URIs.
    pub names: Vec<String>,
    /// The SPIFFE ID that it proves, if any.
    pub spiffe_id: Option<String>,
    /// Who has signed it, and the subjects of the certificates that are sent with it.
    pub chain: Vec<String>,
    /// Its serial number in hexadecimal.
    pub serial: String,
    /// When it begins, in Unix seconds.
    pub not_before_unix_s: i64,
    /// When it ends, in Unix seconds.
    pub not_after_unix_s: i64,
}

impl CertificateInfo {
    /// What is in the first of `chain`; `None` when it cannot be read.
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

    /// When it ends.
    pub fn not_after(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.not_after_unix_s.try_into().unwrap_or_default())
    }

    /// Seconds until it ends; negative when it has.
    pub fn seconds_left(&self, now: SystemTime) -> i64 {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        self.not_after_unix_s - i64::try_from(now).unwrap_or(i64::MAX)
    }

    /// Whether 80 % of its life are over: whatever renews it should have done so.
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
