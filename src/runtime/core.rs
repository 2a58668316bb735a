//! The shared core of a worker: its I/O, its counters and its random numbers.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use super::io::Io;
use crate::cells::{Count, PerWorker};
use crate::error::Flag;

/// The maximum number of lines that one worker logs in a second about the behaviour of peers.
pub const LIMITED_LOGS_MAX: u64 = 10;

/// The core of one worker. Only the worker's thread uses it, except for the counters.
pub struct Core<I> {
    /// The worker's I/O.
    pub io: I,
    /// Index of the worker, from 0.
    pub index: usize,
    /// Random numbers for balancing and request ids.
    pub random: RefCell<fastrand::Rng>,
    stats: Arc<PerWorker<WorkerCells>>,
    limited_logs: Cell<LimitedLogs>,
}

/// The number of limited lines that were logged in the current second.
#[derive(Clone, Copy, Default)]
struct LimitedLogs {
    second: u64,
    logged: u64,
    suppressed: u64,
}

impl<I: Io> Core<I> {
    /// Creates the core of worker `index`. `stats` are the counters of all workers.
    pub fn new(io: I, index: usize, stats: Arc<PerWorker<WorkerCells>>, seed: u64) -> Self {
        let random = RefCell::new(fastrand::Rng::with_seed(seed));
        Self { io, index, random, stats, limited_logs: Cell::default() }
    }

    /// The counters of this worker.
    pub fn cells(&self) -> &WorkerCells {
        self.stats.worker(self.index)
    }

    /// The number of workers.
    pub fn workers(&self) -> usize {
        self.stats.workers()
    }

    /// Calls `log`, unless this worker has logged [`LIMITED_LOGS_MAX`] such lines in this second.
    /// The log needs a limit because peers decide how often such an event happens. `log` gets the
    /// number of lines that were suppressed before.
    pub fn log_limited(&self, log: impl FnOnce(u64)) {
        let second = self.io.recent().as_micros() / 1_000_000;
        let past = self.limited_logs.get();
        let logged = if past.second == second { past.logged } else { 0 };
        if logged >= LIMITED_LOGS_MAX {
            self.limited_logs.set(LimitedLogs { suppressed: past.suppressed + 1, ..past });
            return;
        }
        log(past.suppressed);
        self.limited_logs.set(LimitedLogs { second, logged: logged + 1, suppressed: 0 });
    }
}

/// The counters of one worker.
#[derive(Debug, Default)]
pub struct WorkerCells {
    /// Connections accepted by this worker.
    pub accepted: Count,
    /// Connections handed to a less loaded worker.
    pub handed_over: Count,
    /// Connections open now (gauge).
    pub active: Count,
    /// Requests served.
    pub requests: Count,
    /// Requests that failed before a service was known, by `Flag::index`.
    pub flags: [Count; Flag::ALL.len()],
    /// Panics of connection tasks. Each ended only its own connection.
    pub panics: Count,
    /// Failures of accept(2), for example because descriptors or memory are used up.
    pub accept_errors: Count,
    /// Requests refused because of overload. The index is the priority of the request: low, normal,
    /// high.
    pub shed: [Count; 3],
    /// Mirrored requests in progress (gauge).
    pub mirrored: Count,
    /// Buffers in use (gauge).
    pub buffers_used: Count,
    /// Buffers kept for reuse (gauge).
    pub buffers_pooled: Count,
    /// Bytes of the buffers in use (gauge).
    pub buffer_bytes: Count,
    /// The limit on the bytes of the buffers in use (gauge).
    pub buffer_bytes_max: Count,
    /// Waits of bodies and tunnels for their receivers at this limit.
    pub buffer_pauses: Count,
    /// Bytes of HTTP/2 frames that are not written yet (gauge).
    pub http2_held_bytes: Count,
}
