//! A certificate authority in a directory: a root, an intermediate, and certificates for workloads
//! (SPIFFE X.509-SVIDs). `ringway ca` uses it, and the proxy uses it to issue its own certificate.
//!
//! The root signs only intermediates, so its key is needed only for `init` and `renew` and can be
//! offline otherwise. Workload files include the intermediate, and peers trust the root, so a new
//! intermediate changes nothing for peers.

mod authority;
mod files;
mod issuer;
mod signer;

use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

pub use authority::{Made, Plan, init, renew};
pub use issuer::{Issued, Issuer, Request, Saved};

use crate::error::plain;
use crate::identity::SpiffeId;

/// The root certificate.
pub const ROOT_CERTIFICATE: &str = "root.pem";
/// The key of the root. It is needed only to create intermediates.
pub const ROOT_KEY: &str = "root.key";
/// The certificate that signs workload certificates. The certificates up to the root may follow it.
pub const INTERMEDIATE_CERTIFICATE: &str = "intermediate.pem";
/// The key that signs workload certificates.
pub const INTERMEDIATE_KEY: &str = "intermediate.key";
/// The trust bundle for peers.
pub const ROOTS: &str = "roots.pem";

/// How long before the current time a certificate starts to be valid, so that a peer whose clock is
/// slow accepts it. At most a tenth of the lifetime.
pub const CLOCK_SKEW: Duration = Duration::from_secs(60);

/// Errors of the CA, with the file and advice.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The directory has no intermediate certificate.
    #[error("there is no CA in {0}: make one with `ringway ca init --dir {0}`")]
    NoCa(PathBuf),
    /// The user of this process may not enter the directory.
    #[error(
        "permission denied: this user may not look into {0}; under systemd use the drop-in \
         ringway.service.d/ca.conf, else give the directory to the user of the proxy, or issue a \
         certificate as its owner with `ringway ca issue` and name its files"
    )]
    Forbidden(PathBuf),
    /// The root's private key is needed but missing.
    #[error("{0} is missing: bring the root's key back, or make a new CA in another directory")]
    NoRootKey(PathBuf),
    /// `init` would have to overwrite a file.
    #[error(
        "{0} is already there, and a CA is never overwritten: choose another --dir, or remove the \
         old CA when nothing trusts it any more; `ringway ca renew` makes a new intermediate"
    )]
    Exists(PathBuf),
    /// A certificate for a workload would overwrite a file of a CA.
    #[error("{0} belongs to a CA and is never overwritten: choose another --out")]
    Reserved(PathBuf),
    /// A file could not be read or written.
    #[error("cannot {what} {path}: {}", plain(error))]
    Io {
        /// The failed operation: `read`, `write`, `create`.
        what: &'static str,
        /// The path of the file.
        path: PathBuf,
        /// The error of the system.
        error: io::Error,
    },
    /// The file does not hold a usable CA certificate or CA private key.
    #[error("{path} {problem}")]
    Unusable {
        /// The path of the file.
        path: PathBuf,
        /// The problem with the file, and advice.
        problem: &'static str,
    },
    /// The key does not belong to the certificate.
    #[error("{key} is not the key of {certificate}: put a matching pair there")]
    Mismatch {
        /// The path of the certificate.
        certificate: PathBuf,
        /// The path of the key.
        key: PathBuf,
    },
    /// The signing certificate has expired.
    #[error("{path} has ended at {ended}: {remedy}")]
    Ended {
        /// The path of the certificate.
        path: PathBuf,
        /// The time of the expiry (RFC 3339).
        ended: String,
        /// Advice for the operator.
        remedy: &'static str,
    },
    /// The ID is in another trust domain.
    #[error("{id} is not in the trust domain of this CA: write spiffe://{trust_domain}{path}",
        path = id.path())]
    Foreign {
        /// The requested ID.
        id: SpiffeId,
        /// The trust domain of the CA.
        trust_domain: String,
    },
    /// The ID names a trust domain but no workload.
    #[error("{0} names no workload: write {0}/ns/NAMESPACE/sa/NAME")]
    NoWorkload(SpiffeId),
    /// The name is not a DNS name.
    #[error("{0:?} is no DNS name: write one as shop.example.com or *.example.com")]
    DnsName(String),
    /// The CA's name is not valid for a certificate.
    #[error("the CA's name must have 1 to 50 characters")]
    Name,
    /// The lifetime is zero, or the end is later than a certificate can express.
    #[error("this lifetime is impossible: write 24h, for example")]
    Lifetime,
    /// Signing failed.
    #[error("cannot sign: {0}")]
    Signing(#[from] rcgen::Error),
    /// The system gave no random bytes.
    #[error("the system gives no random bytes")]
    Random,
}

/// Returns the time to renew a certificate: half of its lifetime, plus or minus a random part of up
/// to a tenth, so that workloads that started together do not renew together. At least four tenths
/// of the lifetime remain for retries. `jitter` is a random number from 0 to 1.
pub fn renew_at(not_before: SystemTime, not_after: SystemTime, jitter: f64) -> SystemTime {
    let life = not_after.duration_since(not_before).unwrap_or_default();
    let jitter = if jitter.is_nan() { 0.5 } else { jitter.clamp(0.0, 1.0) };
    not_before + life.mul_f64(0.4 + 0.2 * jitter)
}

#[cfg(test)]
mod tests;
