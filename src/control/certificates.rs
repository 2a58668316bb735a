//! Renewal of the workload's certificate, and warnings about certificates that expire soon.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::sources::files::Materials;
use crate::tls::CertificateInfo;

/// How long to wait before the next try after issuing failed.
const RETRY: Duration = Duration::from_secs(30);

/// The time when the workload's own certificate is renewed.
pub struct Renewal(Option<Instant>);

impl Renewal {
    /// The renewal time of the certificate in `materials`.
    pub fn of(materials: &Materials) -> Self {
        let at = materials.renew_at(fastrand::f64());
        let left = |at: SystemTime| at.duration_since(SystemTime::now()).unwrap_or_default();
        Self(at.map(|at| Instant::now() + left(at)))
    }

    /// Sets the time of the next try.
    pub fn retry(&mut self) {
        self.0 = Some(Instant::now() + RETRY);
    }

    /// Completes at the renewal time.
    pub async fn due(&self) {
        match self.0 {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }
}

/// Warns once about each certificate that expires soon.
#[derive(Default)]
pub struct Worn(HashSet<(String, String)>);

impl Worn {
    /// Logs a warning for each certificate in use that expires soon.
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
                    "a certificate expires soon: less than 20 % of its lifetime is left"
                );
            }
        }
    }
}
