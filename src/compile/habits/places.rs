//! Keys of Ringway in the wrong map, and keys of other proxies for features that Ringway does not
//! have.

use super::advice::{NO_FILES, PATH_KEYS};
use super::plain;
use super::words::{LISTENER, RULE, SERVICE, TOP};

/// The four maps that these keys are written in.
const MAPS: [&str; 4] = [TOP, LISTENER, RULE, SERVICE];

/// Keys, separated by spaces, and the advice where none of the maps above has them.
const PLACES: &[(&str, &str)] = &[
    (
        "health_check outlier_detection circuit_breaker balance locality connect_timeout \
         connect_hedge concurrency slow_start max_idle_connections send_proxy_protocol endpoints \
         versions",
        "write it in a service",
    ),
    (
        "retries jwt rate_limit stream_idle_timeout",
        "write it in a rule of `routes`, or in a service",
    ),
    (
        "rewrite headers match redirect respond mirror fault shift sticky request_body_timeout",
        "write it in a rule of `routes`",
    ),
    (
        "bind redirect_https trusted_hops timeouts direction forward_client_cert connections \
         connections_per_source requests_per_connection request_id escaped_slashes abort_on_close",
        "write it in a listener",
    ),
    (
        "listeners routes services telemetry authorization mesh admin drain limits overload \
         runtime sources",
        "write it at the top of the file",
    ),
];

/// Keys, separated by spaces, and the advice for a feature that there is not.
const ABSENT: &[(&str, &str)] = &[
    (
        "gzip gzip_types compress compression compressor encode brotli zstd deflate",
        "Ringway does not compress: let the service do it, and leave this out",
    ),
    (
        "cache proxy_cache proxy_cache_path proxy_cache_valid http_cache cache_control",
        "Ringway does not cache responses: leave this out, or name a cache as the service",
    ),
    (
        "cors cors_policy access_control access_control_allow_origin",
        "Ringway does not answer CORS requests: leave this out, and let the service do it",
    ),
    (
        "basic_auth auth_basic auth_basic_user_file digest_auth users",
        "Ringway does not check passwords: let the service do it; or write `jwt: PROVIDER` for \
         tokens, or rules in `authorization` for addresses and identities",
    ),
    (
        "ext_authz external_auth forward_auth auth_request authz_service",
        "Ringway does not ask another service whether a request is allowed: write \
         `jwt: PROVIDER` for tokens, or rules in `authorization`",
    ),
    (
        "lua lua_filter wasm wasm_plugin wasm_plugins plugins plugin njs js_content \
         content_by_lua content_by_lua_block access_by_lua_block ext_proc",
        "Ringway does not run code of others: leave this out; `headers`, `rewrite` and \
         `authorization` do what most of it is for",
    ),
    ("try_files root alias autoindex index file_server static", NO_FILES),
    (
        "sub_filter replace_response templates",
        "Ringway does not change bodies: let the service do it, and leave this out",
    ),
    (
        "buffering proxy_buffering proxy_request_buffering flush_interval buffer",
        "leave it out: Ringway streams bodies in both directions",
    ),
    (
        "client_max_body_size max_body_size request_body_max_size",
        "leave it out: Ringway streams bodies and cannot limit them",
    ),
];

/// The advice for the key `word`. `known` are the valid keys of its map.
pub(super) fn of_key(word: &str, known: &[&str]) -> Option<&'static str> {
    if !MAPS.iter().any(|map| known.contains(map)) {
        return None;
    }
    let is_path = word.starts_with('/') || word.starts_with("location /");
    if is_path && known.contains(&RULE) {
        return Some(PATH_KEYS);
    }
    let word = plain(word);
    let has = |(keys, _): &&(&str, &str)| keys.split_whitespace().any(|key| plain(key) == word);
    PLACES.iter().chain(ABSENT).find(has).map(|(_, advice)| *advice)
}
