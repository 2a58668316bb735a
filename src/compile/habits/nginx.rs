//! The words of nginx and others for addresses that are let in, for times, and for the process.

use super::Word;
use super::advice::*;
use super::words::{LIMITS, LISTENER, RULE, SERVICE, TOP};

const DNS_MAP: &str = "gone_after";

#[rustfmt::skip] // one line for each word
/// Each key, the map in which it is written, and the advice.
pub(super) const WORDS: &[Word] = &[
    ("allow", RULE, ALLOWED),
    ("deny", RULE, DENIED),
    ("ip_allow_list", RULE, ALLOWED),
    ("ip_white_list", RULE, ALLOWED),
    ("ip_restriction", RULE, ALLOWED),
    ("allow", LISTENER, ALLOWED_HERE),
    ("deny", LISTENER, DENIED_HERE),
    ("ip_allow_list", LISTENER, ALLOWED_HERE),
    ("ip_white_list", LISTENER, ALLOWED_HERE),
    ("proxy_connect_timeout", RULE, "write `connect_timeout: {~=TIME}` in the service"),
    ("proxy_send_timeout", RULE, SEND_TIME),
    ("proxy_connect_timeout", SERVICE, "write `connect_timeout: {~=TIME}`"),
    ("proxy_send_timeout", SERVICE, SEND_TIME),
    ("send_timeout", SERVICE, SEND_TIME),
    ("fail_timeout", SERVICE, "write `outlier_detection: {base_ejection_time: {~=TIME}}`"),
    ("send_timeout", LISTENER, "write `timeouts: {stream_idle: {~|none=TIME}}`"),
    ("pid", TOP, "leave it out: systemd knows the process"),
    ("daemon", TOP, "leave it out: the process stays in the foreground, and systemd starts it"),
    ("resolver", TOP, RESOLVERS),
    ("resolvers", TOP, RESOLVERS),
    ("resolver", DNS_MAP, RESOLVERS),
    ("servers", DNS_MAP, RESOLVERS),
    ("nameservers", DNS_MAP, RESOLVERS),
    ("worker_connections", LIMITS, "write `connections: {#=N}`"),
    ("keepalive", LISTENER, "write `timeouts: {keep_alive: {~=TIME}}`"),
    ("rate", RULE, "write `rate_limit: {{rate=requests: N, per: 1s}}`"),
    ("hsts", RULE, HSTS),
];
