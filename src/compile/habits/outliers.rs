//! The keys of other proxies for outlier detection and slow start, with the advice for each.

use super::Word;

const OUTLIERS: &str = "max_ejection_percent";
const WARMUP: &str = "min_weight_percent";

const LOCAL_FAILURES: &str = "write `consecutive_local_failures: {#=N}`: \
    then attempts without a response have a count of their own";
const STDEV: &str =
    "write `success_rate: {stdev_factor: {stdev=FACTOR}}`; Envoy's 1900 is 1.9 here";
const FAILURES: &str = "write `failure_percentage: {}` to eject, or leave it out";
const FAILURE_HOSTS: &str = "write `failure_percentage: {minimum_hosts: {#=N}}`";
const FAILURE_VOLUME: &str = "write `failure_percentage: {request_volume: {#=N}}`";
const ENFORCING: &str = "leave it out: a limit that is written is enforced; `consecutive_5xx: 0` \
    switches it off; the other limits are off unless they are written";

#[rustfmt::skip] // one line for each word
/// Each key, the map in which it is written, and the advice.
pub(super) const WORDS: &[Word] = &[
    ("consecutive_5xx_errors", OUTLIERS, "write `consecutive_5xx: {#=N}`"),
    ("consecutive_errors", OUTLIERS, "write `consecutive_5xx: {#=N}`"),
    ("consecutive_failures", OUTLIERS, "write `consecutive_5xx: {#=N}`"),
    ("error_limit", OUTLIERS, "write `consecutive_5xx: {#=N}`"),
    ("max_fails", OUTLIERS, "write `consecutive_5xx: {#=N}`"),
    ("consecutive_gateway_failure", OUTLIERS, "write `consecutive_gateway_errors: {#=N}`"),
    ("consecutive_local_origin_failure", OUTLIERS, LOCAL_FAILURES),
    ("consecutive_local_origin_failures", OUTLIERS, LOCAL_FAILURES),
    ("split_external_local_origin_errors", OUTLIERS, LOCAL_FAILURES),
    ("min_health_percent", OUTLIERS, "write `panic_threshold: {#=N}%`"),
    ("fail_timeout", OUTLIERS, "write `base_ejection_time: {~=TIME}`"),
    ("enforcing_consecutive_5xx", OUTLIERS, ENFORCING),
    ("enforcing_consecutive_gateway_failure", OUTLIERS, ENFORCING),
    ("enforcing_consecutive_local_origin_failure", OUTLIERS, ENFORCING),
    ("enforcing_local_origin_success_rate", OUTLIERS, ENFORCING),
    ("success_rate_minimum_hosts", OUTLIERS, "write `success_rate: {minimum_hosts: {#=N}}`"),
    ("success_rate_request_volume", OUTLIERS, "write `success_rate: {request_volume: {#=N}}`"),
    ("success_rate_stdev_factor", OUTLIERS, STDEV),
    ("stdev_factor", OUTLIERS, STDEV),
    ("failure_percentage_threshold", OUTLIERS, "write `failure_percentage: {threshold: {#=N}%}`"),
    ("failure_percentage_minimum_hosts", OUTLIERS, FAILURE_HOSTS),
    ("failure_percentage_request_volume", OUTLIERS, FAILURE_VOLUME),
    ("enforcing_success_rate", OUTLIERS, "write `success_rate: {}` to eject, or leave it out"),
    ("enforcing_failure_percentage", OUTLIERS, FAILURES),
    ("max_ejection_time_jitter", OUTLIERS, "leave it out: ejections end at their time"),
    ("slow_start_window", WARMUP, "write `window: {~=TIME}`"),
    ("duration", WARMUP, "write `window: {~=TIME}`"),
    ("minimum_percent", WARMUP, "write `min_weight_percent: {#|value=N}%`"),
];
