//! The access log and the log of the process. Neither blocks a thread that logs a line.

use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use super::lines::LineQueue;
use super::outlet::{Losses, Outlet};
use crate::error::plain;
use crate::snapshot::LogSink;

/// How long a process that ends waits until its logs are written.
pub const FINISH_LIMIT: Duration = Duration::from_secs(2);

/// How long the process waits until its logs are written, if a second signal has arrived.
pub const HURRIED_FINISH_LIMIT: Duration = Duration::from_millis(100);

/// The access log. All workers share it.
pub struct AccessLog {
    target: Mutex<Target>,
    losses: Arc<Losses>,
    exported: LineQueue,
}

#[derive(Default)]
struct Target {
    sink: Option<LogSink>,
    /// The outlet of the current target. `None` if there is no target, or if its thread cannot be
    /// started.
    outlet: Option<Outlet>,
    /// The outlets of earlier targets, whose threads may still write or may be stuck.
    old: Vec<Outlet>,
}

impl Default for AccessLog {
    fn default() -> Self {
        let report = |lines, reason: &str| {
            tracing::warn!(lines, reason, "access log lines were dropped");
        };
        let losses = Arc::new(Losses::new(report));
        let exported = LineQueue::new(Arc::clone(&losses));
        Self { target: Mutex::default(), losses, exported }
    }
}

impl AccessLog {
    /// Writes to `sink` from now on; `None` turns the access log off. Does nothing if `sink` has
    /// not changed.
    pub fn configure(&self, sink: Option<&LogSink>) {
        let mut target = self.target.lock().unwrap_or_else(PoisonError::into_inner);
        let needs_thread = sink.is_some_and(|sink| !matches!(sink, LogSink::Otlp(_)));
        if target.sink.as_ref() == sink && target.outlet.is_some() == needs_thread {
            return;
        }
        target.let_go();
        target.sink = sink.cloned();
        let Some(sink) = sink.cloned() else { return };
        if let LogSink::Otlp(_) = sink {
            return;
        }
        match Outlet::open("access-log", sink, Arc::clone(&self.losses)) {
            Ok(outlet) => target.outlet = Some(outlet),
            Err(error) => {
                tracing::error!(
                    error = %plain(&error),
                    "cannot start the access log thread; access log lines are dropped until the \
                     next successful reload"
                )
            }
        }
    }

    /// Opens the file again. Log rotation has moved it.
    pub fn reopen(&self) {
        let mut target = self.target.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(LogSink::File(_)) = &target.sink {
            target.let_go();
            let sink = target.sink.clone();
            drop(target);
            self.configure(sink.as_ref());
        }
    }

    /// Queues complete lines. If the queue is full, the lines are dropped and counted.
    pub fn write(&self, lines: Vec<u8>) {
        let target = self.target.lock().unwrap_or_else(PoisonError::into_inner);
        match (&target.outlet, &target.sink) {
            (Some(outlet), _) => outlet.write(lines),
            (None, Some(LogSink::Otlp(_))) => self.exported.push(lines),
            (None, Some(_)) => self.losses.count(&lines, "there is no thread to write them"),
            (None, None) => {}
        }
    }

    /// The lines that wait for a collector.
    pub fn exported(&self) -> &LineQueue {
        &self.exported
    }

    /// The number of lines that were dropped.
    pub fn dropped(&self) -> u64 {
        self.losses.lines()
    }

    /// Waits until all lines are written, but at most for `limit`.
    pub fn finish(&self, limit: Duration) {
        let outlet = self.target.lock().unwrap_or_else(PoisonError::into_inner).outlet.take();
        if let Some(outlet) = outlet {
            outlet.finish(limit);
        }
    }
}

impl Target {
    fn let_go(&mut self) {
        self.old.retain(Outlet::forget);
        if let Some(old) = self.outlet.take() {
            old.let_go();
            self.old.push(old);
        }
    }
}

/// The log of the process, which goes to standard error.
static PROCESS_LOG: OnceLock<(Outlet, Arc<Losses>)> = OnceLock::new();

/// Starts the thread that writes the log of the process. Returns a function that creates writers to
/// this log.
///
/// # Errors
/// If the thread cannot be started.
pub fn start_process_log() -> io::Result<impl Fn() -> ProcessLog + Clone> {
    let report = |lines, reason: &str| {
        tracing::warn!(lines, reason, "lines of this log were dropped");
    };
    let losses = Arc::new(Losses::of_log(report));
    let outlet = Outlet::open("log", LogSink::Stderr, Arc::clone(&losses))?;
    PROCESS_LOG.set((outlet, losses)).ok();
    Ok(|| ProcessLog)
}

/// The number of lines of the process log that were dropped.
pub fn process_log_dropped() -> u64 {
    PROCESS_LOG.get().map_or(0, |(_, losses)| losses.lines())
}

/// Ends the log of the process. Waits until all lines are written, but at most for `limit`.
pub fn finish_process_log(limit: Duration) {
    if let Some((outlet, _)) = PROCESS_LOG.get() {
        outlet.finish(limit);
    }
}

/// A writer to the log of the process. Each write must contain complete lines.
pub struct ProcessLog;

impl io::Write for ProcessLog {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        if let Some((outlet, _)) = PROCESS_LOG.get() {
            outlet.write(lines.to_vec());
        }
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
