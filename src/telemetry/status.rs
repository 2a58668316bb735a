//! The status of the process, which the admin interface shows.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use super::logs::AccessLog;
use crate::cells::PerWorker;
use crate::runtime::core::WorkerCells;
use crate::snapshot::{Level, Resource, Snapshot};

/// The status of the process. The control thread writes it, and the admin interface shows it.
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
    /// The access log.
    pub access_log: Arc<AccessLog>,
    /// DNS lookups of services.
    pub lookups: NameLookups,
    /// Fetches of key sets: (succeeded, failed).
    pub key_fetches: (u64, u64),
    /// Captured DNS queries.
    pub queries: Queries,
    /// The use of the resources that have a limit.
    pub overload: [Option<Reading>; Resource::ALL.len()],
    /// The start time of the process.
    pub started: SystemTime,
}

/// The use of a resource of the process.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// The resource.
    pub resource: Resource,
    /// How much of it is in use: bytes, descriptors or CPUs.
    pub used: f64,
    /// The limit.
    pub limit: f64,
    /// The level.
    pub level: Level,
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
    /// The files differ from the configuration in use, or could not be read.
    pub files_differ: bool,
    /// The errors of the last reload. Empty if it was applied.
    pub errors: String,
}

/// The results of DNS lookups of services.
#[derive(Clone, Copy, Debug, Default)]
pub struct NameLookups {
    /// The name has addresses.
    pub succeeded: u64,
    /// The name does not exist, or has no addresses.
    pub none: u64,
    /// The lookup failed for one of the address families.
    pub failed: u64,
}

/// The results of captured DNS queries.
#[derive(Clone, Copy, Debug, Default)]
pub struct Queries {
    /// Answered by Ringway.
    pub here: u64,
    /// Answered by the DNS servers of the system.
    pub elsewhere: u64,
    /// The servers of the system did not answer, or refused (SERVFAIL, NOTIMP or REFUSED).
    pub failed: u64,
    /// Dropped: malformed, or too many at once.
    pub dropped: u64,
}

impl Status {
    /// The status before the first configuration is applied.
    pub fn new(workers: Arc<PerWorker<WorkerCells>>) -> Self {
        Self(Arc::new(Mutex::new(Known {
            snapshot: None,
            files: Arc::default(),
            drivers: vec!["starting"; workers.workers()],
            workers,
            draining: false,
            reloads: Reloads::default(),
            access_log: Arc::default(),
            lookups: NameLookups::default(),
            key_fetches: (0, 0),
            queries: Queries::default(),
            overload: Default::default(),
            started: SystemTime::now(),
        })))
    }

    /// Locks the status. Do not hold the guard across an await.
    pub fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
