//! Counters of gRPC calls, by method. Methods are added on their first call, up to a limit.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::Code;
use crate::cells::{Count, PerWorker};

/// How many methods of one service are counted by name. Calls of further methods count together as
/// `other`.
pub const METHODS_MAX: usize = 256;

/// The name under which calls of all other methods are counted.
pub const OTHER: &str = "other";

/// The counters of one method, for one worker.
#[derive(Debug, Default)]
pub struct MethodCells {
    /// Calls, by status code.
    pub codes: [Count; Code::COUNT],
    /// Messages in requests.
    pub request_messages: Count,
    /// Messages in responses.
    pub response_messages: Count,
}

type Cells = Arc<PerWorker<MethodCells>>;

/// The methods of one service. The lock is taken when a worker sees a method for the first time,
/// and when metrics are read.
#[derive(Debug)]
pub struct Methods {
    known: Mutex<HashMap<Box<str>, Cells>>,
    workers: usize,
}

impl Methods {
    /// Creates an empty set for `workers` workers.
    pub fn new(workers: usize) -> Self {
        Self { known: Mutex::default(), workers }
    }

    /// All methods with their counters, sorted by name.
    pub fn all(&self) -> Vec<(Box<str>, Cells)> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> =
            known.iter().map(|(name, cells)| (name.clone(), Arc::clone(cells))).collect();
        all.sort_by(|one, other| one.0.cmp(&other.0));
        all
    }

    fn find(&self, name: &str) -> (Box<str>, Cells) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let full = known.len() >= METHODS_MAX && !known.contains_key(name);
        let name: Box<str> = if full { OTHER } else { name }.into();
        let new = || Arc::new(PerWorker::new(self.workers));
        let cells = Arc::clone(known.entry(name.clone()).or_insert_with(new));
        (name, cells)
    }
}

/// A gRPC call that has ended.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The method. `None` if its name is not valid.
    pub method: Option<&'a str>,
    /// The status code.
    pub code: Code,
    /// The number of messages from the client.
    pub request_messages: u64,
    /// The number of messages to the client.
    pub response_messages: u64,
}

/// One worker's cache of [`Methods`]. Reading it needs no lock.
#[derive(Debug, Default)]
pub struct KnownMethods(RefCell<HashMap<Box<str>, Cells>>);

impl KnownMethods {
    /// Counts a call. The name of a method that is not implemented is not stored, because clients
    /// can invent names.
    pub fn count(&self, methods: &Methods, worker: usize, call: &Call<'_>) {
        let made_up = call.code == Code::UNIMPLEMENTED;
        let mut name = call.method.unwrap_or(OTHER);
        let mut known = self.0.borrow_mut();
        if made_up && !known.contains_key(name) {
            name = OTHER;
        }
        if !known.contains_key(name) {
            let (found, cells) = methods.find(name);
            known.insert(found, cells);
        }
        let Some(cells) = known.get(name).or_else(|| known.get(OTHER)) else { return };
        let cells = cells.worker(worker);
        cells.codes[usize::from(call.code.number())].increment();
        cells.request_messages.add(call.request_messages);
        cells.response_messages.add(call.response_messages);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_learnt_up_to_a_limit_and_made_up_ones_never() {
        let (methods, known) = (Methods::new(1), KnownMethods::default());
        let call = |name: &str, code| {
            let counts =
                Call { method: Some(name), code, request_messages: 1, response_messages: 2 };
            known.count(&methods, 0, &counts);
        };
        call("a/x", Code::UNIMPLEMENTED);
        assert_eq!(methods.all().len(), 1);
        for number in 0..METHODS_MAX + 10 {
            call(&format!("a/{number}"), Code::OK);
        }
        let all = methods.all();
        assert_eq!(all.len(), METHODS_MAX);
        let of = |name: &str| all.iter().find(|(known, _)| **known == *name).map(|(_, c)| c);
        assert_eq!(of("a/7").unwrap().sum(|cells| &cells.response_messages), 2);
        assert_eq!(of(OTHER).unwrap().sum(|cells| &cells.codes[0]), 11);
    }
}
