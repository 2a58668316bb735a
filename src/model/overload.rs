//! Overload of the process, and the priorities of requests.

use super::Item;

/// Overload of the process. `None` means the default.
#[derive(Clone, Debug, Default)]
pub struct Overload {
    /// The limit on memory, in bytes.
    pub memory: Option<Item<Watched>>,
    /// The limit on open files and sockets.
    pub descriptors: Option<Item<Watched>>,
    /// The limit on CPU time, in CPUs.
    pub cpu: Option<Item<Watched>>,
    /// The part of a limit from which requests of low priority are refused, in percent.
    pub shed: Option<Item<u8>>,
    /// The part of a limit from which only requests of high priority are served, in percent.
    pub stop: Option<Item<u8>>,
    /// The header field that has the priority of a request.
    pub priority: Option<Item<PriorityBy>>,
}

/// A limit on a resource.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Watched {
    /// The limit of the system.
    Auto,
    /// No limit.
    Off,
    /// This limit.
    At(f64),
}

/// The header field that has the priority of a request.
#[derive(Clone, Debug, Default)]
pub struct PriorityBy {
    /// The name of the field.
    pub header: Option<Item<String>>,
    /// The values of important requests.
    pub high: Vec<Item<String>>,
    /// The values of unimportant requests.
    pub low: Vec<Item<String>>,
}

/// How important a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// Important.
    High,
    /// As requests without a priority.
    Normal,
    /// Unimportant.
    Low,
}
