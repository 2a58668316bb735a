//! The keys of other proxies for outlier detection and slow start, with the advice for each.

use super::Word;

const OUTLIERS: &str = "max_ejection_percent";
const WARMUP: &str = "min_weight_percent";

const LOCAL_FAILURES: &str = "write `consecutive_local_failures: {#=5}`: \
    then attempts without a response have a count of their own";
const STDEV: &str = "write `success_rate: {stdev_factor: 1.9}`; Envoy writes 1900 for 1.9";
const FAILURES: &str = "write `failure_percentage: {}` to eject, or leave it out";
const FAILURE_HOSTS: &str = "write `failure_percentage: {minimum_hosts: {#=5}}`";
const FAILURE_VOLUME: &str = "write `failure_percentage: {request_volume: {#=50}}`";
const ENFORCING: &str = "leave it out: what is written is enforced, and 0 failures are not counted";

#[rustfmt::skip] // one line for each word
/// Each key, the map in which it is written, and the advice.
pub(super) const WORDS: &[Word] = &[
    ("consecutive_5xx_errors", OUTLIERS, "write `consecutive_5xx: {#=5}`"),
    ("consecutive_errors", OUTLIERS, "write `consecutive_5xx: {#=5}`"),
    ("consecutive_failures", OUTLIERS, "write `consecutive_5xx: {#=5}`"),
    ("error_limit", OUTLIERS, "write `consecutive_5xx: {#=5}`"),
    ("max_fails", OUTLIERS, "write `consecutive_5xx: {#=5}`"),
    ("consecutive_gateway_failure", OUTLIERS, "write `consecutive_gateway_errors: {#=5}`"),
    ("consecutive_local_origin_failure", OUTLIERS, LOCAL_FAILURES),
    ("consecutive_local_origin_failures", OUTLIERS, LOCAL_FAILURES),
    ("split_external_local_origin_errors", OUTLIERS, LOCAL_FAILURES),
    ("min_health_percent", OUTLIERS, "write `panic_threshold: {#=50}%`"),
    ("fail_timeout", OUTLIERS, "write `base_ejection_time: {~=30s}`"),
    ("enforcing_consecutive_5xx", OUTLIERS, ENFORCING),
    ("enforcing_consecutive_gateway_failure", OUTLIERS, ENFORCING),
    ("enforcing_consecutive_local_origin_failure", OUTLIERS, ENFORCING),
    ("enforcing_local_origin_success_rate", OUTLIERS, ENFORCING),
    ("success_rate_minimum_hosts", OUTLIERS, "write `success_rate: {minimum_hosts: {#=5}}`"),
    ("success_rate_request_volume", OUTLIERS, "write `success_rate: {request_volume: {#=100}}`"),
    ("success_rate_stdev_factor", OUTLIERS, STDEV),
    ("stdev_factor", OUTLIERS, STDEV),
    ("failure_percentage_threshold", OUTLIERS, "write `failure_percentage: {threshold: {#=85}%}`"),
    ("failure_percentage_minimum_hosts", OUTLIERS, FAILURE_HOSTS),
    ("failure_percentage_request_volume", OUTLIERS, FAILURE_VOLUME),
    ("enforcing_success_rate", OUTLIERS, "write `success_rate: {}` to eject, or leave it out"),
    ("enforcing_failure_percentage", OUTLIERS, FAILURES),
    ("max_ejection_time_jitter", OUTLIERS, "leave it out: ejections end at their time"),
    ("slow_start_window", WARMUP, "write `window: {~=30s}`"),
    ("duration", WARMUP, "write `window: {~=30s}`"),
    ("minimum_percent", WARMUP, "write `min_weight_percent: 10%`"),
];
