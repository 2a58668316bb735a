//! When certificates are issued anew, and what is said of those that nobody renews.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::sources::files::Materials;
use crate::tls::CertificateInfo;

/// How long until the next try when issuing has failed.
const RETRY: Duration = Duration::from_secs(30);

/// When the workload's own certificate is due.
pub struct Renewal(Option<Instant>);

impl Renewal {
    /// The moment for what `materials` hold.
    pub fn of(materials: &Materials) -> Self {
        let at = materials.renew_at(fastrand::f64());
        let left = |at: SystemTime| at.duration_since(SystemTime::now()).unwrap_or_default();
        Self(at.map(|at| Instant::now() + left(at)))
    }

    /// Tries again in a while.
    pub fn retry(&mut self) {
        self.0 = Some(Instant::now() + RETRY);
    }

    /// Completes when it is due.
    pub async fn due(&self) {
        match self.0 {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }
}

/// Warns of each certificate once when little of its life is left.
#[derive(Default)]
pub struct Worn(HashSet<(String, String)>);

impl Worn {
    /// Looks at the certificates in use.
    pub fn look<'a>(&mut self, certificates: impl Iterator<Item = &'a CertificateInfo>) {
        let now = SystemTime::now();
        for certificate in certificates.filter(|certificate| certificate.is_worn(now)) {
            let CertificateInfo { owner, subject, serial, .. } = certificate;
            if self.0.insert((owner.clone(), serial.clone())) {
                let seconds_left = certificate.seconds_left(now);
                tracing::warn!(
                    owner,
                    subject,
                    serial,
                    seconds_left,
                    "less than 20 % of a certificate's life is left, and nothing has renewed it"
                );
            }
        }
    }
}
