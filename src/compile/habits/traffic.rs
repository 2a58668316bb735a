//! The keys of other proxies for faults, mirrors, rate limits and cookies, with their advice.

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
const COOKIE: &str = "ttl";
const BY_MAP: &str = "identity";

const FAULT: &str = "write `fault: {fault={delay: {duration: TIME}, abort: {status: STATUS}}}`\
    {noshare=; `percent: N` in a part for a share of the requests}";
const DELAY_RULE: &str = "write `fault: {delay: {delay={duration: TIME}}}`\
    {noshare=; `percent: N` beside `duration` for a share of the requests}";
const ABORT_RULE: &str = "write `fault: {abort: {abort={status: STATUS}}}`\
    {noshare=; `percent: N` beside `status` for a share of the requests}";
const FAULT_BANDWIDTH: &str = "write `bandwidth: {bandwidth={bytes_per_second: SIZE}}`\
    {noshare=; `percent: N` beside it for a share of the responses}";
const BANDWIDTH_OF: &str = "write `bytes_per_second: {size=SIZE}`";
const BANDWIDTH_RULE: &str = "write `fault: {bandwidth: {bandwidth={bytes_per_second: SIZE}}}` to \
    test with slow responses";
const MIRROR: &str = "write `mirror: {mirror={to: OTHER}}`, one for a rule\
    {noshare=; `percent: N` for a share of the requests}";
const MIRRORING: &str = "write `mirror: {copies={to: NAME}}` with the name in `mirrors`; \
    the main service is `to` of the rule";
const COPY: &str = "write `to: {copy=OTHER}`";
const BY: &str = "write `by: {header: NAME}`, `by: identity` or `by: source`";
const NO_COOKIE: &str = "write `header: NAME`, `identity: true` or `source: true`: no limit counts \
    by a cookie";
const HEADER_ENTRY: &str = "write `{header: {header_name=NAME}, key: {descriptor_key=KEY}}`";
const GENERIC_KEY: &str = "write `{value: {descriptor_value=TEXT}}`: its key is generic_key";
const MIRROR_SHARE: &str = "write `mirror: {mirrorshare={to: OTHER, percent: N}}`; \
    the copies go to another service or version";
const INTERVAL: &str = "write `{limits|~per=per: TIME}`";
const BUCKET_KEYS: &str = "write `{limits=requests: N, per: 1s}`; \
    `burst` is how many may come at once with the first one";
const LIMITS: &str = "write `{limits=requests: N, per: 1s}`";

#[rustfmt::skip] // one line for each word
/// Each key, the map in which it is written, and the advice.
pub(super) const TRAFFIC: &[Word] = &[
    // Keys for faults and mirrors.
    ("faults", RULE, FAULT),
    ("fault_injection", RULE, FAULT),
    ("envoy.filters.http.fault", RULE, FAULT),
    ("delay", RULE, DELAY_RULE),
    ("abort", RULE, ABORT_RULE),
    ("fixed_delay", DELAY, "write `duration: {~=TIME}`"),
    ("time", DELAY, "write `duration: {~=TIME}`"),
    ("percentage", DELAY, "write `percent: {percent=N}`"),
    ("http_status", ABORT, "write `status: {#=STATUS}`"),
    ("http_delay", RULE, DELAY_RULE),
    ("response_rate_limit", FAULT_MAP, FAULT_BANDWIDTH),
    ("rate_limit", FAULT_MAP, FAULT_BANDWIDTH),
    ("fixed_limit", BANDWIDTH_MAP, "write `bytes_per_second: {kib=SIZE}`"),
    ("limit_kbps", BANDWIDTH_MAP, "write `bytes_per_second: {kib=SIZE}`"),
    ("rate", BANDWIDTH_MAP, BANDWIDTH_OF),
    ("percentage", BANDWIDTH_MAP, "write `percent: {percent=N}`"),
    ("bandwidth", RULE, BANDWIDTH_RULE),
    ("percentage", ABORT, "write `percent: {percent=N}`"),
    ("mirrors", RULE, MIRROR),
    ("mirror_percentage", RULE, MIRROR_SHARE),
    ("mirror_percent", RULE, MIRROR_SHARE),
    ("request_mirror_policies", RULE, MIRROR),
    ("mirroring", RULE, MIRRORING),
    ("shadow", RULE, MIRROR),
    ("mirror_request_body", RULE, "write `mirror_bytes: 0` in `mirror` for no bodies"),
    ("host", MIRROR_MAP, COPY),
    ("subset", MIRROR_MAP, COPY),
    ("cluster", MIRROR_MAP, COPY),
    ("service", MIRROR_MAP, COPY),
    ("name", MIRROR_MAP, COPY),
    ("percentage", MIRROR_MAP, "write `percent: {percent=N}`"),
    ("runtime_fraction", MIRROR_MAP, "write `percent: {percent=N}`"),
    ("max_body_size", MIRROR_MAP, "write `mirror_bytes: {size=64KiB}`"),
    ("disable_shadow_host_suffix_append", MIRROR_MAP, "write `shadow_host: false`"),
    // Keys for rate limits, and keys that are in the wrong map.
    ("circuit_breaker", RULE, OF_SERVICE),
    ("outlier_detection", RULE, OF_SERVICE),
    ("slow_start", RULE, OF_SERVICE),
    ("mirror", SERVICE, OF_RULE),
    ("fault", SERVICE, OF_RULE),
    ("limit_kbps", RATE, "write `bytes: {kib=SIZE}, per: 1s`"),
    ("average", RATE, LIMITS),
    ("rate", RATE, "write `{rate=requests: N, per: 1s}`"),
    ("limit", RATE, LIMITS),
    ("max_tokens", RATE, BUCKET_KEYS),
    ("tokens_per_fill", RATE, BUCKET_KEYS),
    ("fill_interval", RATE, INTERVAL),
    ("period", RATE, INTERVAL),
    ("interval", RATE, INTERVAL),
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
    ("request_headers", ENTRY, HEADER_ENTRY),
    ("header_name", ENTRY, "write `{header: {*=NAME}}`"),
    ("descriptor_key", ENTRY, "write `key: {*=KEY}`"),
    ("descriptor_value", ENTRY, "write `value: {*=TEXT}`"),
    ("generic_key", ENTRY, GENERIC_KEY),
    ("remote_address", ENTRY, "write `source`: its key is remote_address"),
    ("masked_remote_address", ENTRY, "write `source`: its key is remote_address"),
    ("destination_cluster", ENTRY, "write `service`: its key is destination_cluster"),
    ("source_cluster", ENTRY, "write `identity`, the SPIFFE ID of the client"),
    ("skip_if_absent", ENTRY, "write `default: TEXT`, the value without the header"),
    ("key", RATE, BY),
    ("cookie", BY_MAP, NO_COOKIE),
    ("ip", BY_MAP, "write `source: true`"),
    ("source_ip", BY_MAP, "write `source: true`"),
    ("client_ip", BY_MAP, "write `source: true`"),
    ("remote_address", BY_MAP, "write `source: true`"),
    ("source_criterion", RATE, BY),
    ("nodelay", RATE, "leave it out: a request waits for nothing, it passes or gets 429"),
    ("delay", RATE, "leave it out: a request waits for nothing, it passes or gets 429"),
    // Keys of a cookie that keeps a client on its version.
    ("max_age", COOKIE, "write `ttl: {~=TIME}`"),
    ("expires", COOKIE, "write `ttl: {~=TIME}`"),
    ("secure", COOKIE, "leave it out: a client that uses TLS gets `Secure`"),
    ("http_only", COOKIE, "leave it out: the cookie has `HttpOnly`"),
    ("same_site", COOKIE, "leave it out: the cookie has `SameSite=Lax`"),
    ("attributes", COOKIE, "leave it out: the cookie has `HttpOnly` and `SameSite=Lax`"),
    ("domain", COOKIE, "leave it out: the cookie is for the host of the request alone"),
];
