//! Spans of traces, and the queue in which they wait for their export.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The maximum number of spans that wait for their export. Further ones are dropped and counted.
pub const SPANS_MAX: usize = 8192;

/// The number of spans with which an export begins at once.
pub const BATCH: usize = 512;

/// The owner of a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The exchange with the client.
    Server,
    /// One attempt at an endpoint.
    Client,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attribute {
    /// Text.
    Text(Cow<'static, str>),
    /// A number.
    Number(i64),
}

impl From<&str> for Attribute {
    fn from(text: &str) -> Self {
        Self::Text(Cow::Owned(text.to_owned()))
    }
}

impl From<u64> for Attribute {
    fn from(number: u64) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

/// A span that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The trace.
    pub trace: [u8; 16],
    /// The span.
    pub id: [u8; 8],
    /// The span of the caller. `None` begins a trace.
    pub parent: Option<[u8; 8]>,
    /// Whether the caller runs in another process.
    pub parent_is_remote: bool,
    /// The `tracestate` of the request.
    pub state: String,
    /// The owner of the span.
    pub side: Side,
    /// The name.
    pub name: String,
    /// The start, in nanoseconds since the Unix epoch.
    pub began_unix_ns: u64,
    /// The end, in nanoseconds since the Unix epoch.
    pub ended_unix_ns: u64,
    /// The attributes.
    pub attributes: Vec<(Cow<'static, str>, Attribute)>,
    /// Whether the span has failed, and why.
    pub error: Option<String>,
}

/// The spans of all workers that wait for their export.
#[derive(Default)]
pub struct Spans {
    queue: Mutex<VecDeque<Span>>,
    dropped: AtomicU64,
    recorded: AtomicU64,
}

impl Spans {
    /// Adds spans. Drops and counts them if [`SPANS_MAX`] spans wait.
    pub fn push(&self, spans: Vec<Span>) {
        let count = spans.len() as u64;
        let mut queue = self.lock();
        if queue.len() + spans.len() > SPANS_MAX {
            drop(queue);
            return self.drop_counted(count);
        }
        queue.extend(spans);
        self.recorded.fetch_add(count, Ordering::Relaxed);
    }

    /// The number of spans that wait.
    pub fn waiting(&self) -> usize {
        self.lock().len()
    }

    /// Takes up to `max` spans, the oldest first.
    pub fn take(&self, max: usize) -> Vec<Span> {
        let mut queue = self.lock();
        let count = queue.len().min(max);
        queue.drain(..count).collect()
    }

    /// Counts spans that were dropped.
    pub fn drop_counted(&self, count: u64) {
        self.dropped.fetch_add(count, Ordering::Relaxed);
    }

    /// The numbers of spans that were recorded, and that were dropped.
    pub fn counts(&self) -> (u64, u64) {
        (self.recorded.load(Ordering::Relaxed), self.dropped.load(Ordering::Relaxed))
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Span>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The span id of the attempt `number` of an exchange with the span `of`.
pub fn of_attempt(of: [u8; 8], number: u32) -> [u8; 8] {
    // An odd factor gives each number another id.
    let mixed = u64::from_be_bytes(of) ^ u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed.max(1).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(number: u64) -> Span {
        Span {
            trace: [1; 16],
            id: number.to_be_bytes(),
            parent: None,
            parent_is_remote: false,
            state: String::new(),
            side: Side::Server,
            name: "GET".into(),
            began_unix_ns: 0,
            ended_unix_ns: 1,
            attributes: Vec::new(),
            error: None,
        }
    }

    #[test]
    fn the_queue_is_bounded_and_counts_what_it_drops() {
        let spans = Spans::default();
        let all = SPANS_MAX as u64;
        (0..all + 5).for_each(|number| spans.push(vec![span(number)]));
        assert_eq!((spans.waiting(), spans.counts()), (SPANS_MAX, (all, 5)));
        assert_eq!(spans.take(2), [span(0), span(1)]);
        spans.push(vec![span(9), span(10), span(11)]);
        assert_eq!(spans.counts(), (all, 8));
        spans.push(vec![span(9), span(10)]);
        assert_eq!(spans.take(usize::MAX).len(), SPANS_MAX);
    }

    #[test]
    fn attempts_have_ids_of_their_own() {
        let ids: std::collections::HashSet<_> =
            (1..1000).map(|number| of_attempt([7; 8], number)).collect();
        assert_eq!(ids.len(), 999);
        assert!(!ids.contains(&[0; 8]) && !ids.contains(&[7; 8]));
    }
}
