//! The grammar of `overload:` and `priority:`. Its comments are the descriptions in the JSON
//! Schema.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::sources::files::values::{
    CpuLimit, DescriptorLimit, MemoryLimit, OneOrMany, Percent, Placed,
};

/// Overload of the process: near a limit, it refuses the least important requests first.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Overload {
    /// The limit on memory, such as `512MiB`; `none` for no limit. Default `auto`: that of the
    /// control group (cgroup).
    pub memory: Option<Placed<MemoryLimit>>,
    /// The limit on open files and sockets; `none` for no limit. Default `auto`: that of the
    /// process (RLIMIT_NOFILE).
    pub descriptors: Option<Placed<DescriptorLimit>>,
    /// The limit on CPU time, in CPUs; `auto` for the quota of the control group, or all CPUs.
    /// Default `none`.
    pub cpu: Option<Placed<CpuLimit>>,
    /// From this part of a limit on, requests of low priority are refused. Default 90%.
    pub shed: Option<Placed<Percent>>,
    /// From this part of a limit on, only requests of high priority are served, and few
    /// connections are accepted. Default 97%.
    pub stop_accepting: Option<Placed<Percent>>,
    /// The header field that has the priority of a request. Default: none, and only `priority` of
    /// a rule counts.
    pub priority: Option<Placed<PriorityBy>>,
}

/// The header field that has the priority of a request.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PriorityBy {
    /// The name of the field.
    pub header: Option<Placed<String>>,
    /// The values of important requests, one or a list.
    pub high: OneOrMany<Placed<String>>,
    /// The values of unimportant requests, one or a list.
    pub low: OneOrMany<Placed<String>>,
}

/// How important requests are when the process is overloaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// They are refused last, and never because of overload.
    High,
    /// As requests without a priority.
    Normal,
    /// They are refused first.
    Low,
}
