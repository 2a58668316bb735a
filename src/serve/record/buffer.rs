//! Collects the access log lines of a worker in batches. A separate thread writes the batches.

use std::cell::RefCell;

use crate::observe::{Format, Record};

/// The size at which a batch is handed over to the writing thread. [`LogBuffer::flush`] hands it
/// over earlier. To wake the thread costs as much as writing 16 KiB.
pub const LOG_BATCH_BYTES: usize = 64 * 1024;

/// The function that gets each batch of complete lines.
pub type HandOver = Box<dyn Fn(Vec<u8>)>;

/// Collects lines, and hands them over in batches.
#[derive(Default)]
pub struct LogBuffer {
    hand_over: Option<HandOver>,
    lines: RefCell<Vec<u8>>,
}

impl LogBuffer {
    /// Creates a buffer that passes its batches to `hand_over`. A buffer from `default` keeps all
    /// lines.
    pub fn new(hand_over: HandOver) -> Self {
        Self { hand_over: Some(hand_over), lines: RefCell::default() }
    }

    /// Adds the line of one exchange.
    pub fn write(&self, format: &Format, record: &Record<'_>) {
        let mut lines = self.lines.borrow_mut();
        format.write_line(&mut lines, record);
        let full = lines.len() >= LOG_BATCH_BYTES;
        drop(lines);
        if full {
            self.flush();
        }
    }

    /// Hands over the lines that were collected so far.
    pub fn flush(&self) {
        let Some(hand_over) = &self.hand_over else { return };
        if !self.lines.borrow().is_empty() {
            hand_over(self.lines.replace(Vec::with_capacity(LOG_BATCH_BYTES + 1024)));
        }
    }
}
