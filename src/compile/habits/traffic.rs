//! The keys of other proxies for faults, mirrors and rate limits, with the advice for each.

use super::Word;
use super::advice::{BUCKET, GLOBAL, GLOBAL_DESCRIPTORS, GLOBAL_SERVICE};
use super::words::{LISTENER, RULE, SERVICE};

const OF_SERVICE: &str = "write it in the service, not in the rule";
const OF_RULE: &str = "write it in a rule of `routes`, not in the service";
const MIRROR_MAP: &str = "shadow_host";
const DELAY: &str = "duration";
const ABORT: &str = "grpc_status";
const FAULT_MAP: &str = "bandwidth";
const BANDWIDTH_MAP: &str = "bytes_per_second";
const RATE: &str = "burst";
const ENTRY: &str = "default";

const FAULT: &str = "write `fault: {delay: {duration: {~|fixeddelay|fixed_delay=2s}, percent: 5}, \
    abort: {status: {#|httpstatus|http_status=503}, percent: 1}}`";
const FAULT_BANDWIDTH: &str = "write `bandwidth: {bytes_per_second: 100KiB, percent: 5}`";
const BANDWIDTH_OF: &str = "write `bytes_per_second: {#=100KiB}`";
const BANDWIDTH_RULE: &str = "write `fault: {bandwidth: {bytes_per_second: 100KiB}}` to test with \
    slow responses";
const MIRROR: &str = "write `mirror: {to: {host|cluster=app}, percent: 10}`";

#[rustfmt::skip] // one line for each word
/// Each key, the map in which it is written, and the advice.
pub(super) const TRAFFIC: &[Word] = &[
    // Keys for faults and mirrors.
    ("faults", RULE, FAULT),
    ("fault_injection", RULE, FAULT),
    ("envoy.filters.http.fault", RULE, FAULT),
    ("delay", RULE, "write `fault: {delay: {duration: {~|duration|fixeddelay=2s}, percent: 5}}`"),
    ("abort", RULE, "write `fault: {abort: {status: {#|httpstatus|http_status=503}, percent: 1}}`"),
    ("fixed_delay", DELAY, "write `duration: {~=2s}`"),
    ("time", DELAY, "write `duration: {~=2s}`"),
    ("percentage", DELAY, "write `percent: {#|value|numerator=5}`"),
    ("http_status", ABORT, "write `status: {#=503}`"),
    ("http_delay", RULE, FAULT),
    ("response_rate_limit", FAULT_MAP, FAULT_BANDWIDTH),
    ("rate_limit", FAULT_MAP, FAULT_BANDWIDTH),
    ("fixed_limit", BANDWIDTH_MAP, BANDWIDTH_OF),
    ("limit_kbps", BANDWIDTH_MAP, BANDWIDTH_OF),
    ("rate", BANDWIDTH_MAP, BANDWIDTH_OF),
    ("limit_rate", RULE, BANDWIDTH_RULE),
    ("bandwidth_limit", RULE, BANDWIDTH_RULE),
    ("bandwidth", RULE, BANDWIDTH_RULE),
    ("percentage", ABORT, "write `percent: {#|value|numerator=1}`"),
    ("mirrors", RULE, MIRROR),
    ("mirror_percentage", RULE, "write `mirror: {to: app, percent: {#|value=10}}`"),
    ("mirror_percent", RULE, "write `mirror: {to: app, percent: {#=10}}`"),
    ("request_mirror_policies", RULE, MIRROR),
    ("mirroring", RULE, MIRROR),
    ("shadow", RULE, MIRROR),
    ("mirror_request_body", RULE, "write `mirror: {to: app, mirror_bytes: 0}` for no bodies"),
    ("host", MIRROR_MAP, "write `to: {*=app}`; `to: app/v2` for a version"),
    ("subset", MIRROR_MAP, "write `to: SERVICE/{*=v2}`"),
    ("cluster", MIRROR_MAP, "write `to: {*=app}`"),
    ("service", MIRROR_MAP, "write `to: {*=app}`"),
    ("percentage", MIRROR_MAP, "write `percent: {#|value|numerator=10}`"),
    ("runtime_fraction", MIRROR_MAP, "write `percent: {#|numerator=10}`"),
    ("max_body_size", MIRROR_MAP, "write `mirror_bytes: {#=65536}`"),
    ("disable_shadow_host_suffix_append", MIRROR_MAP, "write `shadow_host: false`"),
    // Keys for rate limits, and keys that are in the wrong map.
    ("circuit_breaker", RULE, OF_SERVICE),
    ("outlier_detection", RULE, OF_SERVICE),
    ("slow_start", RULE, OF_SERVICE),
    ("mirror", SERVICE, OF_RULE),
    ("fault", SERVICE, OF_RULE),
    ("limit_kbps", RATE, "write `bytes: 100KiB, per: 1s`"),
    ("average", RATE, "write `requests: {#=100}`, in each `per`"),
    ("rate", RATE, "write `{rate=requests: 10, per: 1s` for `10r/s}`"),
    ("limit", RATE, "write `requests: {#=100}`, in each `per`"),
    ("max_tokens", RATE, "write `requests: {#=100}`; `burst` is how many more may come at once"),
    ("tokens_per_fill", RATE, "write `requests: {#=100}`, in each `per`"),
    ("fill_interval", RATE, "write `per: {~=1s}`"),
    ("period", RATE, "write `per: {~=1s}`"),
    ("interval", RATE, "write `per: {~=1s}`"),
    ("unit", RATE, "write `per: 1s`, 1m or 1h"),
    ("token_bucket", RATE, BUCKET),
    ("actions", RATE, GLOBAL_DESCRIPTORS),
    ("failure_mode_deny", RATE, "write `on_failure: deny`"),
    ("failure_mode_allow", RATE, "write `on_failure: allow`, which is the default"),
    ("rate_limit_service", RATE, GLOBAL_SERVICE),
    ("grpc_service", RATE, GLOBAL_SERVICE),
    ("stage", RATE, "leave it out: a limit of the listener is asked before one of the rule"),
    ("rate_limited_as_resource_exhausted", RATE, "leave it out: gRPC calls get RESOURCE_EXHAUSTED"),
    ("rate_limit_service", RULE, GLOBAL),
    ("rate_limit_service", LISTENER, GLOBAL),
    ("rate_limit_service", SERVICE, GLOBAL),
    ("request_headers", ENTRY, "write `{header: NAME, key: KEY}`"),
    ("header_name", ENTRY, "write `{header: {*=NAME}}`"),
    ("descriptor_key", ENTRY, "write `key: {*=KEY}`"),
    ("descriptor_value", ENTRY, "write `value: {*=TEXT}`"),
    ("generic_key", ENTRY, "write `{value: TEXT}`: its key is generic_key"),
    ("remote_address", ENTRY, "write `source`: its key is remote_address"),
    ("masked_remote_address", ENTRY, "write `source`: its key is remote_address"),
    ("destination_cluster", ENTRY, "write `service`: its key is destination_cluster"),
    ("source_cluster", ENTRY, "write `identity`, the SPIFFE ID of the client"),
    ("skip_if_absent", ENTRY, "write `default: TEXT`, the value without the header"),
    ("key", RATE, "write `by: {header: NAME}`, `by: identity` or `by: source`"),
    ("source_criterion", RATE, "write `by: {header: NAME}`, `by: identity` or `by: source`"),
    ("nodelay", RATE, "leave it out: a request waits for nothing, it passes or gets 429"),
    ("delay", RATE, "leave it out: a request waits for nothing, it passes or gets 429"),
];
