//! A certificate authority in a directory: a root, an intermediate, and certificates for workloads
//! (X.509-SVIDs of SPIFFE). `ringway ca` uses it by hand, the proxy to issue for itself.
//!
//! The root signs intermediates only, so its key is needed at `init` and `renew` and can be
//! somewhere else in between. Workloads carry the intermediate in their chain, and peers trust the
//! root: a new intermediate changes nothing for them.

mod authority;
mod files;
mod issuer;
mod signer;

use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

pub use authority::{Made, Plan, init, renew};
pub use issuer::{Issued, Issuer, Request, Saved};

use crate::identity::SpiffeId;

/// The root certificate.
pub const ROOT_CERTIFICATE: &str = "root.pem";
/// The key of the root: needed to make intermediates, and for nothing else.
pub const ROOT_KEY: &str = "root.key";
/// The certificate that signs workloads; it may be followed by those that lead to the root.
pub const INTERMEDIATE_CERTIFICATE: &str = "intermediate.pem";
/// The key that signs workloads.
pub const INTERMEDIATE_KEY: &str = "intermediate.key";
/// What peers trust: the trust bundle.
pub const ROOTS: &str = "roots.pem";

/// How much earlier than now a certificate begins, so that a peer whose clock is late accepts it.
/// Short certificates begin a tenth of their lifetime earlier.
pub const CLOCK_SKEW: Duration = Duration::from_secs(60);

/// Why the CA could not do it: what, which file, and what to do instead.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The directory holds no intermediate.
    #[error("there is no CA in {0}: make one with `ringway ca init --dir {0}`")]
    NoCa(PathBuf),
    /// The root's key is needed and is not there.
    #[error("{0} is not there: bring the root's key back for this, or make a new CA elsewhere")]
    NoRootKey(PathBuf),
    /// `init` would have to overwrite a file.
    #[error(
        "{0} is already there, and a CA is never overwritten: choose another --dir, or remove the \
         old CA when nothing trusts it any more; `ringway ca renew` makes a new intermediate"
    )]
    Exists(PathBuf),
    /// A certificate for a workload would overwrite one of a CA.
    #[error("{0} belongs to a CA and is never overwritten: choose another --out")]
    Reserved(PathBuf),
    /// A file could not be read or written.
    #[error("cannot {what} {path}: {error}")]
    Io {
        /// What was tried: `read`, `write`, `create`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A file is not what a CA needs.
    #[error("{path} {problem}")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        problem: &'static str,
    },
    /// The key does not belong to the certificate.
    #[error("{key} is not the key of {certificate}: put the two that belong together there")]
    Mismatch {
        /// The certificate.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
    },
    /// The certificate that would sign has ended.
    #[error("{path} has ended at {ended}: {remedy}")]
    Ended {
        /// The certificate.
        path: PathBuf,
        /// When it did (RFC 3339).
        ended: String,
        /// What to do.
        remedy: &'static str,
    },
    /// The ID is of another trust domain.
    #[error("{id} is not in the trust domain of this CA: write spiffe://{trust_domain}{path}",
        path = id.path())]
    Foreign {
        /// The ID that was asked for.
        id: SpiffeId,
        /// The trust domain of the CA.
        trust_domain: String,
    },
    /// The ID names a trust domain and no workload.
    #[error("{0} names no workload: write {0}/ns/NAMESPACE/sa/NAME")]
    NoWorkload(SpiffeId),
    /// The name is no DNS name.
    #[error("{0:?} is no DNS name: write one as shop.example.com or *.example.com")]
    DnsName(String),
    /// The CA's name cannot stand in a certificate.
    #[error("the CA's name must have 1 to 50 characters")]
    Name,
    /// The lifetime is zero, or ends beyond what a certificate can say.
    #[error("this lifetime is impossible: write 24h, for example")]
    Lifetime,
    /// Signing failed.
    #[error("cannot sign: {0}")]
    Signing(#[from] rcgen::Error),
    /// The system gave no random bytes.
    #[error("the system gives no random bytes")]
    Random,
}

/// When a certificate is renewed: in the middle of its life, and up to a tenth of its life earlier
/// or later, so that workloads that began together do not come together. There is then as much
/// time left to try again as it has been used. `jitter` is drawn by the caller, from 0 to 1.
pub fn renew_at(not_before: SystemTime, not_after: SystemTime, jitter: f64) -> SystemTime {
    let life = not_after.duration_since(not_before).unwrap_or_default();
    let jitter = if jitter.is_nan() { 0.5 } else { jitter.clamp(0.0, 1.0) };
    not_before + life.mul_f64(0.4 + 0.2 * jitter)
}

#[cfg(test)]
mod tests;
