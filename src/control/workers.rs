//! Starts the workers.

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::run::RunError;
use crate::cells::PerWorker;
use crate::error::plain;
use crate::model::Driver;
use crate::observe::Observers;
use crate::observe::story::Stories;
use crate::runtime::core::WorkerCells;
use crate::runtime::ring;
use crate::snapshot::Overload;
use crate::telemetry::status::Status;
use crate::worker::mailbox::{Inbox, Loads, Mailbox, Reports, mailbox};
use crate::worker::thread::{Start, spawn};

/// The state that all workers share.
pub struct WorkerParts<'p> {
    /// The counters of all workers.
    pub stats: &'p Arc<PerWorker<WorkerCells>>,
    /// The channel of reports from the workers.
    pub reports: &'p Reports,
    /// The status of the process.
    pub status: &'p Status,
    /// The level of overload.
    pub overload: &'p Arc<Overload>,
    /// The start of the workers' clocks.
    pub began: Instant,
}

/// Starts the workers. Returns their mailboxes.
///
/// # Errors
/// If a thread or a mailbox cannot be made.
pub fn start_workers(
    workers: usize,
    places: Option<&[usize]>,
    driver: Driver,
    parts: &WorkerParts<'_>,
) -> Result<Vec<Mailbox>, RunError> {
    let system = |error: std::io::Error| RunError::System(format!("no worker: {}", plain(&error)));
    let pairs: Vec<(Mailbox, Inbox)> =
        (0..workers).map(|_| mailbox()).collect::<Result<_, _>>().map_err(system)?;
    let (mailboxes, inboxes): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
    let loads = Loads::new(workers);
    for (index, inbox) in inboxes.into_iter().enumerate() {
        let driver = match driver {
            Driver::Auto => ring::Driver::Auto,
            Driver::IoUring => ring::Driver::IoUring,
            Driver::Epoll => ring::Driver::Epoll,
        };
        let (log, observers) = {
            let known = parts.status.known();
            (Arc::clone(&known.access_log), Arc::clone(&known.observers))
        };
        let start = Start {
            index,
            stats: Arc::clone(parts.stats),
            loads: loads.clone(),
            reports: parts.reports.clone(),
            access_log: Arc::new(move |lines| log.write(lines)),
            overload: Arc::clone(parts.overload),
            observers,
            seed: fastrand::u64(..),
            inbox,
            peers: mailboxes.clone(),
            driver,
            began: parts.began,
            cpu: places.map(|cpus| cpus[index]),
        };
        spawn(start).map_err(system)?;
    }
    Ok(mailboxes)
}

/// The taps and stories of `workers` whose clocks start now.
pub fn observers(workers: usize) -> Observers {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let stories = Stories::new(workers, now.as_micros() as u64);
    Observers { stories, ..Observers::default() }
}
