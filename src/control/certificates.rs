//! Renews the workload's certificate, and warns about certificates that expire soon.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::sources::files::Materials;
use crate::tls::CertificateInfo;

/// The wait before the next try after the certificate could not be issued.
const RETRY: Duration = Duration::from_secs(30);

/// The time at which the workload's own certificate is renewed. `None` if the proxy does not issue
/// it.
pub struct Renewal(Option<Instant>);

impl Renewal {
    /// The renewal time of the issued certificate in `materials`.
    pub fn of(materials: &Materials) -> Self {
        let at = materials.renew_at(fastrand::f64());
        let left = |at: SystemTime| at.duration_since(SystemTime::now()).unwrap_or_default();
        Self(at.map(|at| Instant::now() + left(at)))
    }

    /// Sets the time of the next try, in case the renewal fails.
    pub fn retry(&mut self) {
        self.0 = Some(Instant::now() + RETRY);
    }

    /// Completes at the renewal time. Never completes if there is no certificate to renew.
    pub async fn due(&self) {
        match self.0 {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }
}

/// Remembers the certificates that were warned about. Each gets one warning before it expires.
#[derive(Default)]
pub struct Worn(HashSet<(String, String)>);

impl Worn {
    /// Logs a warning for each certificate in use that expires soon and has no warning yet.
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
                    "a certificate expires soon: less than 20 % of its lifetime is left; renew it"
                );
            }
        }
    }
}
