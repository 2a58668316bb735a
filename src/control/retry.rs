//! Decides when the configuration files are read again without a file event, because they could not
//! be read, applied or watched.

use std::time::Duration;

use tokio::time::Instant;

/// The wait before the first retry, and the maximum wait. Each wait is twice as long as the
/// previous one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// The reason for another try.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// No other try is needed.
    Nothing,
    /// The process had no descriptors or memory left.
    Shortage,
    /// A file could not be read.
    Unread,
    /// A file could not be watched.
    Blind,
}

/// The time of the next try.
#[derive(Default)]
pub struct Retry(Option<(Instant, Duration)>);

impl Retry {
    /// Sets the time of the next try. `need` is the reason for it.
    pub fn after(&mut self, need: Need) {
        let pause = self.0.map_or(FIRST_PAUSE, |(_, pause)| (2 * pause).min(PAUSE_MAX));
        match need {
            Need::Nothing => {
                self.0 = None;
                return;
            }
            Need::Shortage => tracing::warn!(
                ?pause,
                "no descriptors or memory left for the new configuration; it will be tried again"
            ),
            Need::Unread if self.0.is_none() => tracing::warn!(
                ?pause,
                "configuration files could not be read; they will be tried again"
            ),
            Need::Unread | Need::Blind => {}
        }
        self.0 = Some((Instant::now() + pause, pause));
    }

    /// Completes at the time of the next try. Never completes if no try is needed.
    pub async fn due(&self) {
        match self.0 {
            Some((at, _)) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }
}
