//! Explains to operators why a TLS handshake failed.

use std::fmt;

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};

use super::HandshakeError;

/// The error text for an oversized handshake message.
pub const OVERSIZED: &str = "the peer sent an oversized handshake message";

/// Kinds of failed handshakes, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The handshake was not complete within its time limit.
    Timeout,
    /// The connection was closed or reset during the handshake.
    Closed,
    /// The peer sent plain HTTP, or something else that is not TLS.
    NotTls,
    /// The peer presented no certificate.
    NoCertificate,
    /// The proxy refused the peer's certificate.
    Certificate,
    /// The peer refused the handshake with an alert.
    Alert,
    /// There is no common version or cipher suite, or the peer violated the protocol.
    Protocol,
}

impl Failure {
    /// Every kind, in the order of [`Failure::index`].
    pub const ALL: [Self; 7] = [
        Self::Timeout,
        Self::Closed,
        Self::NotTls,
        Self::NoCertificate,
        Self::Certificate,
        Self::Alert,
        Self::Protocol,
    ];

    /// Returns the kind of a rustls error.
    pub fn of(error: &Error) -> Self {
        match error {
            Error::NoCertificatesPresented => Self::NoCertificate,
            Error::InvalidCertificate(_) | Error::InvalidCertRevocationList(_) => Self::Certificate,
            Error::AlertReceived(_) => Self::Alert,
            _ => Self::Protocol,
        }
    }

    /// Returns the kind of a failed handshake.
    pub fn of_handshake(error: &HandshakeError) -> Self {
        match error {
            HandshakeError::Tls(error) => Self::of(error),
            HandshakeError::Io(_) => Self::Closed,
            HandshakeError::Oversized => Self::Protocol,
        }
    }

    /// The value of the metric label `reason`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Closed => "closed",
            Self::NotTls => "not_tls",
            Self::NoCertificate => "no_certificate",
            Self::Certificate => "certificate",
            Self::Alert => "alert",
            Self::Protocol => "protocol",
        }
    }

    /// The position in [`Failure::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }
}

/// Writes a text for operators that explains `error`.
pub fn write(f: &mut fmt::Formatter<'_>, error: &Error) -> fmt::Result {
    match error {
        Error::NoCertificatesPresented => f.write_str("the peer presented no certificate"),
        Error::InvalidCertificate(error) => write_certificate(f, error),
        Error::AlertReceived(alert) => {
            write!(f, "the peer refused with the alert {}", alert_name(*alert))
        }
        Error::InvalidMessage(
            InvalidMessage::HandshakePayloadTooLarge | InvalidMessage::CertificatePayloadTooLarge,
        ) => f.write_str(OVERSIZED),
        other => write!(f, "{other}"),
    }
}

fn write_certificate(f: &mut fmt::Formatter<'_>, error: &CertificateError) -> fmt::Result {
    f.write_str("the peer's certificate is refused: ")?;
    match error {
        CertificateError::UnknownIssuer => f.write_str(
            "it does not lead to a trusted root (self-signed, or an intermediate is missing)",
        ),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            f.write_str("it has expired")
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            f.write_str("it is not valid yet")
        }
        CertificateError::BadSignature => {
            f.write_str("its signature is not of a trusted root (another CA of the same name?)")
        }
        CertificateError::Revoked => f.write_str("it is revoked"),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            f.write_str("its extended key usage does not allow this use")
        }
        CertificateError::NotValidForName => f.write_str("it is for another name"),
        CertificateError::NotValidForNameContext { expected, presented } => {
            let names: Vec<_> = presented.iter().map(|name| bare(name)).collect();
            let names = if names.is_empty() { "no name" } else { &names.join(", ") };
            write!(f, "it is for {names}, not for {}", expected.to_str())
        }
        CertificateError::Other(other) => write!(f, "{}", other.0),
        other => write!(f, "{other}"),
    }
}

/// Removes the kind that webpki writes around a name: `DnsName("a.test")` becomes `a.test`.
fn bare(presented: &str) -> &str {
    let inside = presented.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inside.unwrap_or(presented).trim_matches('"')
}

/// Returns the alert (RFC 8446 6.2) for an error for which rustls creates no alert.
pub fn alert_for(error: &Error) -> AlertDescription {
    match error {
        Error::PeerMisbehaved(_) | Error::InappropriateMessage { .. } => {
            AlertDescription::UnexpectedMessage
        }
        _ => AlertDescription::DecodeError,
    }
}

fn alert_name(alert: AlertDescription) -> String {
    let name = format!("{alert:?}");
    let mut words = String::new();
    for (index, letter) in name.chars().enumerate() {
        if letter.is_ascii_uppercase() && index > 0 {
            words.push('_');
        }
        words.push(letter.to_ascii_lowercase());
    }
    words
}
