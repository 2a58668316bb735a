//! The status of the process, which the admin interface shows.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use crate::cells::PerWorker;
use crate::runtime::core::WorkerCells;
use crate::snapshot::Snapshot;

/// Shared by the control loop and the admin interface; both run on the control thread.
#[derive(Clone)]
pub struct Status(Arc<Mutex<Known>>);

/// The content of [`Status`].
pub struct Known {
    /// The configuration in use.
    pub snapshot: Option<Arc<Snapshot>>,
    /// The files of the configuration, as (name, text).
    pub files: Arc<Vec<(Arc<str>, Arc<str>)>>,
    /// Counters of the workers.
    pub workers: Arc<PerWorker<WorkerCells>>,
    /// The kernel interface of each worker.
    pub drivers: Vec<&'static str>,
    /// The process is draining.
    pub draining: bool,
    /// Configurations applied and refused.
    pub reloads: Reloads,
    /// Access log lines that were dropped because writing was too slow.
    pub log_lines_dropped: u64,
    /// DNS lookups of services: (succeeded, failed).
    pub lookups: (u64, u64),
    /// Fetches of key sets: (succeeded, failed).
    pub key_fetches: (u64, u64),
    /// Captured DNS queries.
    pub queries: Queries,
    /// The start time of the process.
    pub started: SystemTime,
}

/// The results of reloads.
#[derive(Default)]
pub struct Reloads {
    /// Applied configurations, including the first.
    pub succeeded: u64,
    /// Refused configurations.
    pub failed: u64,
    /// The time of the last reload.
    pub last: Option<SystemTime>,
    /// The errors of the last reload. Empty if it was applied.
    pub errors: String,
}

/// The results of captured DNS queries.
#[derive(Clone, Copy, Debug, Default)]
pub struct Queries {
    /// Answered here.
    pub here: u64,
    /// Answered by the system's resolvers.
    pub elsewhere: u64,
    /// Not answered: no resolver of the system answered.
    pub failed: u64,
    /// Dropped: malformed, or too many at once.
    pub dropped: u64,
}

impl Status {
    /// The status at the start; no configuration is applied yet.
    pub fn new(workers: Arc<PerWorker<WorkerCells>>) -> Self {
        Self(Arc::new(Mutex::new(Known {
            snapshot: None,
            files: Arc::default(),
            drivers: vec!["starting"; workers.workers()],
            workers,
            draining: false,
            reloads: Reloads::default(),
            log_lines_dropped: 0,
            lookups: (0, 0),
            key_fetches: (0, 0),
            queries: Queries::default(),
            started: SystemTime::now(),
        })))
    }

    /// Locks the status. Do not hold the guard across an await.
    pub fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
