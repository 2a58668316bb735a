//! The words of tools for gradual releases, with the advice for each: Argo Rollouts, Flagger and
//! scripts that move weights.

use super::Word;
use super::words::{RULE, RUNTIME, SERVICE};

const SHIFT_MAP: &str = "abort_if";
const ABORT_MAP: &str = "error_rate";

const SHIFT: &str = "write `to: {SERVICE/v1: 100, SERVICE/v2: 0}` and \
    `shift: {from: v1, to: v2, step: {stepweight|step=10}%, every: {interval|every=5m}}`";
const ABORT: &str = "write `abort_if: {error_rate: 2%, p99: 500ms, min_requests: 100}`";
const STATE: &str = "write `state_dir: {=/var/lib/ringway}`";
const OF_RULE: &str = "write `shift` in a rule of `routes`, not in the service";
const SUCCESS: &str = "write `error_rate: 1%`: the share of requests that may fail";

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
    ("step_weight", SHIFT_MAP, "write `step: {=10%}`"),
    ("step_percent", SHIFT_MAP, "write `step: {=10%}`"),
    ("set_weight", SHIFT_MAP, "write `step: {=10%}`"),
    ("weight", SHIFT_MAP, "write `step: {=10%}`"),
    ("steps", SHIFT_MAP, "write `step: 10%, every: 5m`: all steps are equal"),
    ("interval", SHIFT_MAP, "write `every: {~=5m}`"),
    ("duration", SHIFT_MAP, "write `every: {~=5m}`, the time between two steps"),
    ("pause", SHIFT_MAP, "write `every: {~|duration=5m}`, the time between two steps"),
    ("period", SHIFT_MAP, "write `every: {~=5m}`"),
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
    ("start_time", SHIFT_MAP, "write `start: {=2026-12-01T09:00:00Z}`"),
    ("begin", SHIFT_MAP, "write `start: {=2026-12-01T09:00:00Z}`"),
    ("at", SHIFT_MAP, "write `start: {=2026-12-01T09:00:00Z}`"),
    // The reasons to go back.
    ("errors", ABORT_MAP, "write `error_rate: {=2%}`"),
    ("error_percent", ABORT_MAP, "write `error_rate: {=2%}`"),
    ("failure_rate", ABORT_MAP, "write `error_rate: {=2%}`"),
    ("success_rate", ABORT_MAP, SUCCESS),
    ("request_success_rate", ABORT_MAP, SUCCESS),
    ("latency", ABORT_MAP, "write `p99: {~=500ms}`"),
    ("request_duration", ABORT_MAP, "write `p99: {~|max=500ms}`"),
    ("p95", ABORT_MAP, "write `p99: {~=500ms}`"),
    ("p50", ABORT_MAP, "write `p99: {~=500ms}`"),
    ("request_volume", ABORT_MAP, "write `min_requests: {#=100}`"),
    ("requests", ABORT_MAP, "write `min_requests: {#=100}`"),
    ("count", ABORT_MAP, "write `min_requests: {#=100}`"),
    // The directory for state.
    ("state_directory", RUNTIME, STATE),
    ("data_dir", RUNTIME, STATE),
    ("server_state_base", RUNTIME, STATE),
];
