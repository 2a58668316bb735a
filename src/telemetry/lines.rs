//! Lines of the access log that wait for their export to a collector.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::outlet::{Losses, QUEUE_BYTES_MAX};

/// The memory overhead of a batch in the queue.
const BATCH_COST_BYTES: usize = 64;

/// A bounded queue of lines. Further lines are dropped and counted.
pub struct LineQueue {
    waiting: Mutex<Waiting>,
    losses: Arc<Losses>,
}

#[derive(Default)]
struct Waiting {
    batches: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl LineQueue {
    /// Creates an empty queue. Its losses are counted in `losses`.
    pub fn new(losses: Arc<Losses>) -> Self {
        Self { waiting: Mutex::default(), losses }
    }

    /// Adds complete lines.
    pub fn push(&self, lines: Vec<u8>) {
        let mut waiting = self.lock();
        if waiting.bytes + lines.len() + BATCH_COST_BYTES > QUEUE_BYTES_MAX {
            drop(waiting);
            return self.losses.count(&lines, "the collector is too slow");
        }
        waiting.bytes += lines.len() + BATCH_COST_BYTES;
        waiting.batches.push_back(lines);
    }

    /// The number of bytes that wait.
    pub fn waiting(&self) -> usize {
        self.lock().bytes
    }

    /// Takes lines, the oldest first: at most `max` bytes, but at least one batch of a worker.
    pub fn take(&self, max: usize) -> Vec<u8> {
        let mut waiting = self.lock();
        let mut taken = Vec::new();
        while let Some(batch) = waiting.batches.front() {
            if !taken.is_empty() && taken.len() + batch.len() > max {
                break;
            }
            waiting.bytes -= batch.len() + BATCH_COST_BYTES;
            let batch = waiting.batches.pop_front().unwrap_or_default();
            if taken.is_empty() { taken = batch } else { taken.extend_from_slice(&batch) }
        }
        taken
    }

    /// Counts lines that were taken and are lost.
    pub fn lost(&self, lines: u64, reason: &str) {
        self.losses.add(lines, reason);
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queue_is_bounded_and_counts_lines() {
        let losses = Arc::new(Losses::new(|_, _| {}));
        let queue = LineQueue::new(Arc::clone(&losses));
        queue.push(b"one\ntwo\n".to_vec());
        queue.push(b"three\n".to_vec());
        assert_eq!(queue.take(1), b"one\ntwo\n");
        queue.push(b"four\n".to_vec());
        assert_eq!(queue.take(100), b"three\nfour\n");
        assert_eq!((queue.take(100), queue.waiting()), (Vec::new(), 0));
        let line = [&[b'x'; 999][..], b"\n"].concat();
        for _ in 0..QUEUE_BYTES_MAX / 1000 + 10 {
            queue.push(line.clone());
        }
        assert!(queue.waiting() <= QUEUE_BYTES_MAX);
        let kept = queue.waiting() / (line.len() + BATCH_COST_BYTES);
        assert_eq!(losses.lines() as usize + kept, QUEUE_BYTES_MAX / 1000 + 10);
        queue.lost(3, "the collector is away");
        assert_eq!(losses.lines() as usize + kept, QUEUE_BYTES_MAX / 1000 + 13);
    }
}
