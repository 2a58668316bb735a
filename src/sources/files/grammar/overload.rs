//! The grammar of `overload:` and `priority:`. Its comments are the descriptions in the JSON
//! Schema.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::sources::files::values::{
    CpuLimit, DescriptorLimit, MemoryLimit, OneOrMany, Percent, Placed,
};

/// Overload protection: near one of its limits, the process refuses the least important requests
/// first.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Overload {
    /// The limit on resident memory, such as `512MiB`, or `none`. Default `auto`: the limit of the
    /// control group (cgroup).
    pub memory: Option<Placed<MemoryLimit>>,
    /// The limit on open files and sockets, or `none`. Default `auto`: the limit of the process
    /// (RLIMIT_NOFILE).
    pub descriptors: Option<Placed<DescriptorLimit>>,
    /// The limit on CPU time, in CPUs, or `auto`: the quota of the control group, or all CPUs.
    /// Default `none`.
    pub cpu: Option<Placed<CpuLimit>>,
    /// The usage, in percent of a limit, from which requests of low priority are refused. Default
    /// 90%.
    pub shed: Option<Placed<Percent>>,
    /// The usage, in percent of a limit, from which only requests of high priority are served and
    /// few connections are accepted. Default 97%.
    pub stop_accepting: Option<Placed<Percent>>,
    /// The header field that determines the priority of a request. Default: none, so that only the
    /// `priority` of a rule counts.
    pub priority: Option<Placed<PriorityBy>>,
}

/// The header field that determines the priority of a request.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PriorityBy {
    /// The name of the field.
    pub header: Option<Placed<String>>,
    /// The values that mean high priority, one or a list.
    pub high: OneOrMany<Placed<String>>,
    /// The values that mean low priority, one or a list.
    pub low: OneOrMany<Placed<String>>,
}

/// The priority of requests when the process is overloaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// Never refused because of overload.
    High,
    /// The priority of a request for which none is configured.
    Normal,
    /// Refused first.
    Low,
}
