//! The words of tools for gradual releases, with the advice for each: Argo Rollouts, Flagger and
//! scripts that move weights.

use super::Word;
use super::words::{RULE, RUNTIME, SERVICE};

const SHIFT_MAP: &str = "abort_if";
const ABORT_MAP: &str = "error_rate";

const SHIFT: &str = "write `shift: {from: v1, to: v2, step: {stepweight|step=N}%, \
    every: {interval|every=TIME}}`; `to` has the weights at the start";
const ABORT: &str = "write `abort_if: {error_rate: N%, p99: TIME, min_requests: N}`";
const STATE: &str = "write `state_dir: {=/var/lib/ringway}`";
const OF_RULE: &str = "write `shift` in a rule of `routes`, not in the service";
const SUCCESS: &str = "write `error_rate: {rest=N%}`: the share of requests that may fail";

#[rustfmt::skip] // one line for each word
/// Each key, the map that it is written in, and the advice.
pub(super) const WORDS: &[Word] = &[
    ("canary", RULE, SHIFT),
    ("rollout", RULE, SHIFT),
    ("blue_green", RULE, SHIFT),
    ("progressive", RULE, SHIFT),
    ("traffic_shift", RULE, SHIFT),
    ("analysis", RULE, SHIFT),
    ("shift", SERVICE, OF_RULE),
    ("canary", SERVICE, OF_RULE),
    // A shift.
    ("step_weight", SHIFT_MAP, "write `step: {=N%}`"),
    ("step_percent", SHIFT_MAP, "write `step: {=N%}`"),
    ("set_weight", SHIFT_MAP, "write `step: {=N%}`"),
    ("weight", SHIFT_MAP, "write `step: {=N%}`"),
    ("steps", SHIFT_MAP, "write `step: N%`: all steps are equal"),
    ("interval", SHIFT_MAP, "write `every: {~=TIME}`"),
    ("duration", SHIFT_MAP, "write `every: {~=TIME}`, the time between two steps"),
    ("pause", SHIFT_MAP, "write `every: {~|duration=TIME}`, the time between two steps"),
    ("period", SHIFT_MAP, "write `every: {~=TIME}`"),
    ("max_weight", SHIFT_MAP, "leave it out: the last step is 100%"),
    ("start_weight", SHIFT_MAP, "write the first shares in `to` of the rule"),
    ("stable", SHIFT_MAP, "write `from: {*=v1}`"),
    ("primary", SHIFT_MAP, "write `from: {*=v1}`"),
    ("canary", SHIFT_MAP, "write `to: {*=v2}`"),
    ("analysis", SHIFT_MAP, ABORT),
    ("metrics", SHIFT_MAP, ABORT),
    ("threshold", SHIFT_MAP, ABORT),
    ("abort_on", SHIFT_MAP, ABORT),
    ("rollback_if", SHIFT_MAP, ABORT),
    ("rollback", SHIFT_MAP, ABORT),
    ("start_time", SHIFT_MAP, "write `start: {=YYYY-MM-DDThh:mm:ssZ}`"),
    ("begin", SHIFT_MAP, "write `start: {=YYYY-MM-DDThh:mm:ssZ}`"),
    ("at", SHIFT_MAP, "write `start: {=YYYY-MM-DDThh:mm:ssZ}`"),
    // The reasons to go back.
    ("errors", ABORT_MAP, "write `error_rate: {=N%}`"),
    ("error_percent", ABORT_MAP, "write `error_rate: {=N%}`"),
    ("failure_rate", ABORT_MAP, "write `error_rate: {=N%}`"),
    ("success_rate", ABORT_MAP, SUCCESS),
    ("request_success_rate", ABORT_MAP, SUCCESS),
    ("latency", ABORT_MAP, "write `p99: {~=TIME}`"),
    ("request_duration", ABORT_MAP, "write `p99: {~|max=TIME}`"),
    ("p95", ABORT_MAP, "write `p99: {~=TIME}`"),
    ("p50", ABORT_MAP, "write `p99: {~=TIME}`"),
    ("request_volume", ABORT_MAP, "write `min_requests: {#=N}`"),
    ("requests", ABORT_MAP, "write `min_requests: {#=N}`"),
    ("count", ABORT_MAP, "write `min_requests: {#=N}`"),
    // The directory for state.
    ("state_directory", RUNTIME, STATE),
    ("data_dir", RUNTIME, STATE),
    ("server_state_base", RUNTIME, STATE),
];
