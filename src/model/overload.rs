//! Overload protection of the process, and the priorities of requests.

use super::Item;

/// The settings of overload protection. `None` means the default.
#[derive(Clone, Debug, Default)]
pub struct Overload {
    /// The limit on resident memory, in bytes.
    pub memory: Option<Item<Watched>>,
    /// The limit on open files and sockets.
    pub descriptors: Option<Item<Watched>>,
    /// The limit on CPU time, in CPUs.
    pub cpu: Option<Item<Watched>>,
    /// The usage from which requests of low priority are refused, in percent of a limit.
    pub shed: Option<Item<u8>>,
    /// The usage from which only requests of high priority are served, in percent of a limit.
    pub stop: Option<Item<u8>>,
    /// The header field that determines the priority of a request.
    pub priority: Option<Item<PriorityBy>>,
}

/// A limit on a resource.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Watched {
    /// The limit of the system: the cgroup, or the resource limit of the process.
    Auto,
    /// The resource is not limited.
    Off,
    /// A configured limit.
    At(f64),
}

/// The header field that determines the priority of a request.
#[derive(Clone, Debug, Default)]
pub struct PriorityBy {
    /// The name of the field.
    pub header: Option<Item<String>>,
    /// The values that mean high priority.
    pub high: Vec<Item<String>>,
    /// The values that mean low priority.
    pub low: Vec<Item<String>>,
}

/// The priority of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// Never refused because of overload.
    High,
    /// The priority of a request for which none is configured.
    Normal,
    /// Refused first.
    Low,
}
