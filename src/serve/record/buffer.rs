//! Collects the access log lines of a worker. Another thread writes them.

use std::cell::RefCell;

use super::line::{Record, write_line};
use crate::snapshot::LogFormat;

/// A batch is handed over when it reaches this size, or when [`LogBuffer::flush`] is called.
pub const LOG_BATCH_BYTES: usize = 32 * 1024;

/// The receiver of a batch of whole lines.
pub type HandOver = Box<dyn Fn(Vec<u8>)>;

/// Collects lines and hands them over in batches.
#[derive(Default)]
pub struct LogBuffer {
    hand_over: Option<HandOver>,
    lines: RefCell<Vec<u8>>,
}

impl LogBuffer {
    /// A buffer that passes its batches to `hand_over`. A buffer from `default` has no receiver
    /// and keeps all lines.
    pub fn new(hand_over: HandOver) -> Self {
        Self { hand_over: Some(hand_over), lines: RefCell::default() }
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

    /// Hands over the lines collected so far.
    pub fn flush(&self) {
        let Some(hand_over) = &self.hand_over else { return };
        if !self.lines.borrow().is_empty() {
            hand_over(self.lines.replace(Vec::with_capacity(LOG_BATCH_BYTES + 1024)));
        }
    }
}
