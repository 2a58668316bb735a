//! The status of the process, for the admin interface.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::history::History;
use super::logs::AccessLog;
use crate::cells::PerWorker;
use crate::observe::Observers;
use crate::runtime::core::WorkerCells;
use crate::snapshot::{Level, Resource, Snapshot};

/// The status of the process. The control thread writes it, and the admin interface shows it.
/// Clones share it.
#[derive(Clone)]
pub struct Status(Arc<Mutex<Known>>);

/// The content of [`Status`].
pub struct Known {
    /// The configuration in use.
    pub snapshot: Option<Arc<Snapshot>>,
    /// The files of the configuration in use, each as (name, text).
    pub files: Arc<Vec<(Arc<str>, Arc<str>)>>,
    /// The counters of all workers.
    pub workers: Arc<PerWorker<WorkerCells>>,
    /// The kernel interface of each worker: `io_uring` or `epoll`.
    pub drivers: Vec<&'static str>,
    /// Whether the process is draining.
    pub draining: bool,
    /// How many configurations were applied and refused.
    pub reloads: Reloads,
    /// The access log, for its counter of dropped lines.
    pub access_log: Arc<AccessLog>,
    /// The taps, and the stories of the last exchanges.
    pub observers: Arc<Observers>,
    /// The results of DNS lookups of services.
    pub lookups: NameLookups,
    /// The numbers of key set fetches, as (succeeded, failed).
    pub key_fetches: (u64, u64),
    /// The results of captured DNS queries.
    pub queries: Queries,
    /// The servers that are asked for more of the configuration, by the name of their kind.
    pub sources: BTreeMap<&'static str, SourceState>,
    /// The services that rules name and that no source has.
    pub absent: Vec<String>,
    /// The usage of the resources that have a limit.
    pub overload: [Option<Reading>; Resource::ALL.len()],
    /// The traffic of the last hour. It is read while the admin interface is on.
    pub history: History,
    /// The start time of the process.
    pub started: SystemTime,
    /// The start time of the process, on a clock that is never set.
    pub begun: Instant,
}

/// The state of a server that is asked for more of the configuration.
#[derive(Clone, Debug, Default)]
pub struct SourceState {
    /// The kind of the server.
    pub name: &'static str,
    /// The part of the server's keys that is read.
    pub keys: String,
    /// The member that is or was asked.
    pub member: String,
    /// Whether it answers.
    pub connected: bool,
    /// How often a connection was made.
    pub connections: u64,
    /// The time of its last sign of life. `None` before the first one.
    pub heard: Option<Instant>,
    /// The last revision that it has sent.
    pub seen_revision: u64,
    /// The revision in use.
    pub revision: u64,
    /// The number of documents in use.
    pub documents: usize,
    /// The time at which the copy in use was written. `None` if the documents are those of the
    /// server itself.
    pub copied: Option<SystemTime>,
    /// The number of revisions that were refused.
    pub refused: u64,
    /// The reason why the last revision was refused. Empty if it is in use.
    pub refusal: String,
    /// The reason why the server does not answer. Empty if it does.
    pub error: String,
    /// The size of all resources in use. 0 if the server has documents.
    pub bytes: usize,
    /// The resources by type. Empty if the server has documents.
    pub resources: Vec<ResourceState>,
}

/// The resources of one type.
#[derive(Clone, Debug, Default)]
pub struct ResourceState {
    /// The type.
    pub kind: &'static str,
    /// The version in use. Empty if only single resources have one.
    pub version: String,
    /// The number of resources in use.
    pub count: usize,
    /// The refused resources, each with the reason.
    pub refused: Vec<(String, String)>,
    /// The resources that wait for another one, each with that one.
    pub waiting: Vec<(String, String)>,
}

impl SourceState {
    /// Notes a sign of life of the server. Returns whether it did not answer before.
    pub fn hear(&mut self) -> bool {
        self.heard = Some(Instant::now());
        let is_back = !std::mem::replace(&mut self.connected, true);
        if is_back {
            self.error.clear();
            self.connections += 1;
        }
        is_back
    }

    /// Notes the end of a connection because of `error`. Returns whether the server had answered.
    pub fn lose(&mut self, error: &str) -> bool {
        error.clone_into(&mut self.error);
        std::mem::take(&mut self.connected)
    }

    /// The age of the documents in use: the time since the server was last heard, or since the copy
    /// was written. `None` if there are none yet.
    pub fn age(&self) -> Option<Duration> {
        match self.copied {
            Some(copied) => Some(copied.elapsed().unwrap_or_default()),
            None => self.heard.map(|heard| heard.elapsed()),
        }
    }
}

/// The usage of a resource of the process.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// The resource.
    pub resource: Resource,
    /// The amount in use, in bytes, descriptors or CPUs.
    pub used: f64,
    /// The limit, in the same unit.
    pub limit: f64,
    /// The level of this resource.
    pub level: Level,
}

/// The results of applying configurations.
#[derive(Clone, Default)]
pub struct Reloads {
    /// The number of applied configurations, including the first one.
    pub succeeded: u64,
    /// The number of refused configurations.
    pub failed: u64,
    /// The time of the last reload. `None` before the first one.
    pub last: Option<SystemTime>,
    /// Whether the files differ from the configuration in use, or could not be read.
    pub files_differ: bool,
    /// The errors of the last reload. Empty if the configuration was applied.
    pub errors: String,
}

/// The results of DNS lookups of services. Each field is a number of lookups.
#[derive(Clone, Copy, Debug, Default)]
pub struct NameLookups {
    /// Lookups that have found addresses.
    pub succeeded: u64,
    /// Lookups of a name that does not exist or has no addresses.
    pub none: u64,
    /// Lookups that have failed for at least one address family.
    pub failed: u64,
}

/// The results of captured DNS queries. Each field is a number of queries.
#[derive(Clone, Copy, Debug, Default)]
pub struct Queries {
    /// Queries that Ringway has answered itself.
    pub here: u64,
    /// Queries that a DNS server of the system has answered.
    pub elsewhere: u64,
    /// Queries that no DNS server of the system has answered, or that it has refused (SERVFAIL,
    /// NOTIMP or REFUSED).
    pub failed: u64,
    /// Queries that were dropped: malformed ones, or too many at the same time.
    pub dropped: u64,
}

impl Status {
    /// The status before the first configuration is applied.
    pub fn new(workers: Arc<PerWorker<WorkerCells>>, observers: Arc<Observers>) -> Self {
        Self(Arc::new(Mutex::new(Known {
            snapshot: None,
            files: Arc::default(),
            drivers: vec!["starting"; workers.workers()],
            workers,
            draining: false,
            reloads: Reloads::default(),
            access_log: Arc::default(),
            observers,
            lookups: NameLookups::default(),
            key_fetches: (0, 0),
            queries: Queries::default(),
            sources: BTreeMap::new(),
            absent: Vec::new(),
            overload: Default::default(),
            history: History::default(),
            started: SystemTime::now(),
            begun: Instant::now(),
        })))
    }

    /// Locks the status. Do not hold the guard across an await.
    pub fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy of the status without the history of the traffic, for another thread.
    pub fn copy(&self) -> Known {
        let known = self.known();
        Known {
            snapshot: known.snapshot.clone(),
            files: Arc::clone(&known.files),
            workers: Arc::clone(&known.workers),
            drivers: known.drivers.clone(),
            draining: known.draining,
            reloads: known.reloads.clone(),
            access_log: Arc::clone(&known.access_log),
            observers: Arc::clone(&known.observers),
            lookups: known.lookups,
            key_fetches: known.key_fetches,
            queries: known.queries,
            sources: known.sources.clone(),
            absent: known.absent.clone(),
            overload: known.overload,
            history: History::default(),
            started: known.started,
            begun: known.begun,
        }
    }

    /// Reads the counters for the history of the traffic. Drops series of Istio's metrics that were
    /// not used for too long, because nobody may ask for the metrics.
    pub fn read_history(&self) {
        let mut known = self.known();
        if let Some(snapshot) = known.snapshot.clone() {
            known.history.read(&snapshot);
            if let Some(standard) = &snapshot.standard {
                standard.store.sweep(known.begun.elapsed(), standard.unused_after);
            }
        }
    }
}
