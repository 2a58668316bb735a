//! What the control thread knows and the admin interface shows.

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
    /// The files that it was read from, as (name, text).
    pub files: Arc<Vec<(Arc<str>, Arc<str>)>>,
    /// Counters of the workers.
    pub workers: Arc<PerWorker<WorkerCells>>,
    /// The kernel interface of each worker.
    pub drivers: Vec<&'static str>,
    /// The process is about to end.
    pub draining: bool,
    /// Configurations applied and refused.
    pub reloads: Reloads,
    /// Lines of the access log that could not be written fast enough.
    pub log_lines_dropped: u64,
    /// Names looked up, by outcome (found, failed).
    pub lookups: (u64, u64),
    /// Key sets fetched, by outcome (read, failed).
    pub key_fetches: (u64, u64),
    /// Queries of names that were captured.
    pub queries: Queries,
    /// When the process began.
    pub started: SystemTime,
}

/// How reloads went.
#[derive(Default)]
pub struct Reloads {
    /// Applied, the first one included.
    pub succeeded: u64,
    /// Refused.
    pub failed: u64,
    /// When the last one was applied or refused.
    pub last: Option<SystemTime>,
    /// What was wrong with the last one; empty when it was applied.
    pub errors: String,
}

/// What has become of captured queries of names.
#[derive(Clone, Copy, Debug, Default)]
pub struct Queries {
    /// Answered here.
    pub here: u64,
    /// Answered by the system's resolvers.
    pub elsewhere: u64,
    /// Answered by nobody.
    pub failed: u64,
    /// Dropped: no query, or too many at once.
    pub dropped: u64,
}

impl Status {
    /// Nothing applied yet.
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

    /// What is known now. Not to be held across an await.
    pub fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
