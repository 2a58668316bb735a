//! A worker's access log lines on their way to the control thread.

use std::cell::RefCell;

use super::access::{Record, write_line};
use crate::runtime::mailbox::{Report, ReportKind, Reports};
use crate::snapshot::LogFormat;

/// A batch is handed over when it has grown to this, or when the worker is asked.
pub const LOG_BATCH_BYTES: usize = 32 * 1024;

/// Gathers lines and hands them over in batches.
pub struct LogBuffer {
    worker: usize,
    reports: Option<Reports>,
    lines: RefCell<Vec<u8>>,
}

impl LogBuffer {
    /// A buffer for `worker`; without `reports` (in simulation) lines stay in it.
    pub fn new(worker: usize, reports: Option<Reports>) -> Self {
        Self { worker, reports, lines: RefCell::default() }
    }

    /// Adds the line of one exchange.
    pub fn write(&self, format: LogFormat, record: &Record<'_>) {
        let mut lines = self.lines.borrow_mut();
        write_line(&mut lines, format, record);
        let full = lines.len() >= LOG_BATCH_BYTES;
        drop(lines);
        if full {
            self.flush();
        }
    }

    /// Hands over what there is.
    pub fn flush(&self) {
        if self.reports.is_none() || self.lines.borrow().is_empty() {
            return;
        }
        let batch = self.lines.replace(Vec::with_capacity(LOG_BATCH_BYTES + 1024));
        self.report(ReportKind::Log(batch));
    }

    /// Tells the control thread something. A control thread that is gone is not told.
    pub fn report(&self, kind: ReportKind) {
        if let Some(reports) = &self.reports {
            reports.send(Report { worker: self.worker, kind }).ok();
        }
    }
}
