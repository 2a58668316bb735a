//! Advice for operators who write keys and values of other proxies. `words` has the table of keys.
//! This file has the tables of values, and of texts in the place of a map.

pub mod address;
mod advice;
mod breaker;
mod fill;
mod kinds;
mod linkerd;
mod locality;
mod nginx;
mod outliers;
mod places;
mod shifts;
mod traffic;
mod variables;
mod words;

pub use self::advice::HEDGE;
pub use self::fill::filled;
pub use self::kinds::{of_kind, version_of};
use self::traffic::TRAFFIC;
pub use self::variables::variable;
use self::words::WORDS;

/// A word of another proxy, the map in which it is written, and the advice. The map is named by a
/// key that no other map has. Words are compared case-insensitively and without `_` and `-`. `*`
/// stands for any other word.
type Word = (&'static str, &'static str, &'static str);

/// The entry of a table for all words that have no other entry.
pub(super) const ANY: &str = "*";

/// Values of other proxies: the word, a valid value of the same key, and the advice.
const VALUES: &[Word] = &[
    ("leastconn", "round-robin", "write `least-request`"),
    ("least_connections", "round-robin", "write `least-request`"),
    ("p2c", "round-robin", "write `least-request`"),
    ("ewma", "round-robin", "write `peak-ewma`"),
    ("weighted", "round-robin", "write weights in endpoints: {address: IP:PORT, weight: N}"),
    ("ip_hash", "round-robin", "write `{hash: source-ip}`"),
    ("source", "round-robin", "write `{hash: source-ip}`"),
    ("cookie", "round-robin", "write `{hash: {cookie: NAME}}`; the service has to set it"),
    ("sticky", "round-robin", "write `{hash: {cookie: NAME}}`; the service has to set it"),
    ("maglev", "round-robin", "write `{hash: {header: NAME}}` or `{hash: source-ip}`"),
    ("ring_hash", "round-robin", "write `{hash: {header: NAME}}` or `{hash: source-ip}`"),
    ("consistent_hash", "round-robin", "write `{hash: {header: NAME}}` or `{hash: source-ip}`"),
    ("ip", "source-ip", "write `source-ip`"),
    ("client_ip", "source-ip", "write `source-ip`"),
    ("h2", "tls", "write `http2`, or `auto` for HTTP/1.1 too"),
    ("h3", "tls", "write `http3`, or leave it out and write `http3: true` for all versions"),
    ("h2c", "tls", "write `http2`, or `auto` for HTTP/1.1 too"),
    ("grpc", "tls", "write `auto` or `http2`; the service has `protocol: grpc`"),
    ("https", "tls", "write `auto`, and add `tls: {cert: FILE, key: FILE}`"),
    ("ssl", "tls", "write `auto` or `tcp`, and add `tls: {cert: FILE, key: FILE}`"),
    ("http1", "tls", "write `http`"),
    ("http/1.1", "tls", "write `http`"),
    ("websocket", "tls", "write `auto`: WebSockets pass without a setting"),
    ("ws", "tls", "write `auto`: WebSockets pass without a setting"),
    ("h2", "grpc", "write `http2`"),
    ("h3", "grpc", "write `http3`"),
    ("quic", "grpc", "write `http3`"),
    ("h2c", "grpc", "write `http2`: without `tls` it is HTTP/2 in plain text"),
    ("http", "grpc", "write `http1`, or `auto`"),
    ("http/1.1", "grpc", "write `http1`"),
    ("https", "grpc", "write `auto`, and add `tls: {ca: FILE}`"),
    ("tls", "grpc", "write `tcp` or `auto`, and add `tls: {ca: FILE}`"),
    ("ssl", "grpc", "write `tcp` or `auto`, and add `tls: {ca: FILE}`"),
    ("http3", "quic", "write `quic`"),
    ("h3", "quic", "write `quic`"),
    ("udp", "quic", "write `quic`"),
    (
        "tls",
        "quic",
        "write `tcp`, or leave it out: mutual TLS is `tls: mesh` of services and listeners",
    ),
    (
        "hbone",
        "quic",
        "write `tcp`, or leave it out: proxies connect to the address of the workload",
    ),
    ("true", "permissive", "write `strict`"),
    ("required", "permissive", "write `strict`"),
    ("mutual", "permissive", "write `strict`"),
    ("false", "permissive", "write `disable`"),
    ("optional", "permissive", "write `permissive`"),
    ("timeout", "gateway-error", "write `reset` with `per_try_timeout`, or 504 for the status"),
    ("ip", "identity", "write `source`"),
    ("client_ip", "identity", "write `source`"),
    ("remote_address", "identity", "write `source`"),
    ("binary_remote_addr", "identity", "write `source`"),
    ("src", "identity", "write `source`"),
    ("DRAFT_VERSION_03", "x-ratelimit", "write `x-ratelimit`"),
    ("envoy", "x-ratelimit", "write `x-ratelimit`"),
    ("off", "x-ratelimit", "write `none`"),
    ("false", "x-ratelimit", "write `none`"),
    ("REGISTRY_ONLY", "deny", "write `deny`"),
    ("ALLOW_ANY", "deny", "write `allow`"),
    ("block", "audit", "write `deny`"),
    ("reject", "audit", "write `deny`"),
    ("permit", "audit", "write `allow`"),
    ("log", "audit", "write `audit`"),
    ("*", "tcp_sent_bytes", "write `all_metrics`"),
    ("*", "TCP_SENT_BYTES", "write `ALL_METRICS`"),
    ("istio_requests_total", "TCP_SENT_BYTES", "write `REQUEST_COUNT`"),
    ("istio_request_duration_milliseconds", "TCP_SENT_BYTES", "write `REQUEST_DURATION`"),
    ("istio_request_bytes", "TCP_SENT_BYTES", "write `REQUEST_SIZE`"),
    ("istio_response_bytes", "TCP_SENT_BYTES", "write `RESPONSE_SIZE`"),
    ("istio_requests_total", "tcp_sent_bytes", "write `request_count`"),
    ("istio_request_duration_milliseconds", "tcp_sent_bytes", "write `request_duration`"),
    ("istio_request_bytes", "tcp_sent_bytes", "write `request_size`"),
    ("istio_response_bytes", "tcp_sent_bytes", "write `response_size`"),
    ("istio_request_messages_total", "tcp_sent_bytes", "write `grpc_request_messages`"),
    ("istio_response_messages_total", "tcp_sent_bytes", "write `grpc_response_messages`"),
    ("istio_tcp_sent_bytes_total", "tcp_sent_bytes", "write `tcp_sent_bytes`"),
    ("istio_tcp_received_bytes_total", "tcp_sent_bytes", "write `tcp_received_bytes`"),
    ("istio_tcp_connections_opened_total", "tcp_sent_bytes", "write `tcp_opened_connections`"),
    ("istio_tcp_connections_closed_total", "tcp_sent_bytes", "write `tcp_closed_connections`"),
    ("combined", "istio", "write `envoy`, which is Envoy's default line, or `json`"),
    ("common", "istio", "write `envoy`, which is Envoy's default line, or `json`"),
    ("httplog", "istio", "write `envoy`, which is Envoy's default line, or `json`"),
    ("clf", "istio", "write `envoy`, which is Envoy's default line, or `json`"),
    ("off", "failed", "write `all` for each request, or `none` for no access log"),
    ("false", "failed", "write `all` for each request, or `none` for no access log"),
    ("on", "failed", "write `all`"),
    ("true", "failed", "write `all`"),
    ("errors", "failed", "write `failed`"),
    ("error", "failed", "write `failed`"),
    ("4xx", "failed", "write `'status >= 400'`"),
    (
        "5xx",
        "failed",
        "write `'status >= 500'`, or `failed`, which also has what was refused or cut off",
    ),
    ("ingress", "inbound", "write `inbound`"),
    ("egress", "inbound", "write `outbound`"),
    ("uring", "io_uring", "write `io_uring`"),
    ("false", "full", "write `none`; it accepts anyone, so prefer `ca: FILE`"),
    ("true", "full", "write `full`, or leave it out"),
    ("true", "require", "write `require`"),
    ("required", "require", "write `require`"),
];

const REDIRECT_PARTS: &str = "write `redirect: {{urlparts=scheme: https, host: HOST}}`; \
    without `path`, the path stays";

/// Advice for a text in the place of a map: the key of the map, the text, and the advice. A text
/// that ends with `*` is a prefix, `|` stands between several texts, and an empty text matches any
/// text. `{}` in the advice is the text; the module `fill` describes the other placeholders.
const SHAPES: &[Word] = &[
    ("listeners", "", "write `listeners: {{listeners=NAME: {bind: IP:PORT}}}`: each has a name"),
    ("routes", "", "write `routes: {\"*\": [{to: SERVICE}]}`: rules by host"),
    (
        "services",
        "",
        "write `services: {{services=NAME: {endpoints: [IP:PORT]}}}`: each has a name",
    ),
    ("ConsulServices", "", "write `services: [NAME]`, names in Consul, or `services: all`"),
    ("jwt", "", "write `jwt: {{jwts=id: {issuer: https://..., jwks: {url: https://...}}}}`"),
    ("bind", "", "write `bind: {@=IP:PORT}`, IP and port together"),
    ("endpoints", "", "write a list: endpoints: [{^=IP:PORT}]"),
    (
        "authorization",
        "",
        "put [ ] around the rule: authorization: [{value={action: ..., from: ...}}]",
    ),
    ("to", "", "write `to: SERVICE`, or with weights `to: {{weights=NAME: N, NAME: N}}`"),
    ("address", "", "write `address: {^=IP:PORT}`"),
    ("path", "", "write `path: {pathwords|anypath=/NAME`}"),
    ("method", "", "write `method: [{exact=GET}]`"),
    ("cert", "", "write `cert: FILE`, with the certificate and its intermediates"),
    ("key", "", "write `key: FILE`, with the private key of the certificate"),
    ("ListenerTls", "auto", "Ringway does not get certificates itself: {cert: FILE, key: FILE}"),
    ("ListenerTls", "off", "leave `tls` out"),
    ("ListenerTls", "false", "leave `tls` out"),
    ("ListenerTls", "", "write {cert: FILE, key: FILE}, a list of those, or `mesh` alone"),
    ("ServiceTls", "off", "leave `tls` out"),
    ("ServiceTls", "false", "leave `tls` out"),
    ("ServiceTls", "", "write {ca: FILE}, with the CAs of the endpoints, or `mesh`"),
    ("issuer", "", "write `issuer: https://...`, the claim `iss` of its tokens"),
    ("action", "", "write `action: allow`, deny or audit"),
    ("jwks", "", "write `jwks: {url: https://...}` or `jwks: {file: FILE}`"),
    ("providers", "", "write `providers: [NAME]`, names of `jwt`"),
    ("port", "", "write `port: 8080`"),
    ("Listener", ":*", "write `{bind: \"0.0.0.0{}\"}`"),
    ("Listener", "", "write `{bind: {@=IP:PORT}}`"),
    ("Rule", "http*", "write `{to: app}`, and `services: {app: {{reach=endpoints: [IP:PORT]}}}`"),
    ("Rule", "", "write `{to: SERVICE}`, with the name of a service"),
    ("Match", "/*", "write `match: {path: {}}`; /api/* is /api and all paths below it"),
    ("Match", "", "write `match: {path: {path|pathmatch=PATH}}`; for several, one rule for each"),
    ("Redirect", "https", advice::HTTPS),
    ("Redirect", "https://$*", advice::HTTPS_OF_NGINX),
    (
        "Redirect",
        "301 https://$*|302 https://$*|303 https://$*|307 https://$*|308 https://$*",
        advice::HTTPS_OF_NGINX,
    ),
    ("Redirect", "301*|302*|303*|307*|308*", advice::REDIRECT_WITH_STATUS),
    ("Redirect", "http*", REDIRECT_PARTS),
    ("Redirect", "/*", "write `redirect: {path: {}}`"),
    ("Redirect", "", "write `redirect: {path: PATH}`, with scheme, host or path"),
    ("Respond", "2*|4*|5*", "write `respond: {status: {}}`"),
    ("Respond", "", "write `respond: {body: {=TEXT}}`; without `status`, it is 200"),
    ("Rewrite", "/*", "write `rewrite: {path: {}}`, or {prefix: {}} with match {path: PREFIX/*}"),
    ("Rewrite", "", "write `rewrite: {path: PATH}`"),
    ("Headers", "", "write `headers: {request: {set: {{pairs=NAME: VALUE}}}}`"),
    (
        "FieldEdits",
        "",
        "write `{set: {{pairs=NAME: VALUE}}}`, add: {NAME: VALUE} or remove: [NAME]",
    ),
    ("headers", "", "write `{matchparts=headers: {NAME: VALUE}}`"),
    ("query", "", "write `query: {NAME: VALUE}`"),
    ("claims", "", "write `claims: {NAME: VALUE}`"),
    ("set", "", "write `set: {{pairs=NAME: VALUE}}`"),
    ("add", "", "write `add: {{pairs=NAME: VALUE}}`"),
    ("Service", "", "write `{keys={endpoints: [IP:PORT]}`, or `{dns: HOST:PORT}}`"),
    ("Hedge", "", "write `hedge: {after: p95}`, a percentile of the latency, or a time"),
    ("versions", "", "write `versions: {{versions=VERSION: [IP:PORT]}}`"),
    ("hash", "", "write `{hash: source-ip}`, {hash: {cookie: NAME}} or {hash: {header: NAME}}"),
    ("cookie", "", "write `{cookie: NAME}`"),
    ("header", "", "write `{header: NAME}`"),
    ("Retries", "", "write `retries: {attempts: {#=N}}`; `on` has the conditions"),
    ("RateLimit", "", "write `rate_limit: {{rate|bucket=requests: N, per: 1s}}`"),
    ("LimitBy", "", "write `by: {header: NAME}`, `by: identity` or `by: source`"),
    ("Backoff", "", "write `backoff: {base: {~=TIME}, max: 250ms}`"),
    ("CircuitBreaker", "", "write `circuit_breaker: {max_requests: {#=N}}`"),
    ("Budget", "", "write `budget: {percent: 20%, min: 3}`"),
    ("OutlierDetection", "", "write `outlier_detection: {consecutive_5xx: {#=N}}`"),
    (
        "Fault",
        "",
        "write `fault: {fault={abort: {status: 503}}}`\
         {noshare=; `percent: N` for a share of the requests}",
    ),
    (
        "Delay",
        "",
        "write `delay: {delay={duration: TIME}}`\
         {noshare=; `percent: N` for a share of the requests}",
    ),
    (
        "Bandwidth",
        "",
        "write `bandwidth: {bandwidth={bytes_per_second: SIZE}}`\
         {noshare=; `percent: N` for a share}",
    ),
    (
        "Abort",
        "",
        "write `abort: {abort={status: STATUS}}`\
         {noshare=; `percent: N` for a share of the requests}",
    ),
    ("Mirror", "http*", "write `mirror: {to: OTHER}`, the service that gets the copies"),
    ("Mirror", "/*", "write `mirror: {to: OTHER}`, the service that gets the copies"),
    (
        "Mirror",
        "",
        "write `mirror: {mirror={to: OTHER}}`\
         {noshare=; `percent: N` for a share of the requests}",
    ),
    ("Shift", "", "write `shift: {from: v1, to: {=v2}, step: N%, every: TIME}`"),
    ("AbortIf", "", "write `abort_if: {error_rate: N%, p99: TIME, min_requests: N}`"),
    ("Locality", "", "write `locality: zone`, or {local_share: N%}; the zones are in `endpoints`"),
    (
        "failover",
        "",
        "write `failover: {{failover=ZONE: [{*=ZONE}]}}`: an own zone, and the others in order",
    ),
    ("SlowStart", "", "write `slow_start: {~=TIME}`, or {window: 30s, min_weight_percent: 10%}"),
    ("window", "", "add `window: TIME`, how long an endpoint gets less traffic"),
    ("SuccessRate", "", "write `success_rate: {}`, or {stdev_factor: 1.9}"),
    ("FailurePercentage", "", "write `failure_percentage: {threshold: 85%}`"),
    ("HealthCheck", "/*", "write `health_check: {http: {}}`"),
    ("HealthCheck", "", "write `health_check: {http: /healthz}`"),
    ("AccessLog", "/*", "write `access_log: {path: {}}`"),
    ("AccessLog", "syslog*", "write `access_log: {path: {}}`"),
    ("AccessLog", "std*", "write `access_log: {path: {}}`"),
    ("AccessLog", "off", "write `access_log: {filter: none}`"),
    ("AccessLog", "none", "write `access_log: {filter: none}`"),
    ("AccessLog", "false", "write `access_log: {filter: none}`"),
    ("AccessLog", "no", "write `access_log: {filter: none}`"),
    ("AccessLog", "all", "write `access_log: {filter: all}`"),
    ("AccessLog", "failed", "write `access_log: {filter: failed}`"),
    ("AccessLog", "", "write `access_log: {path: stdout}`"),
    ("Telemetry", "off", "write `telemetry: {access_log: {filter: none}}`"),
    ("Telemetry", "", "write `telemetry: {access_log: {path: stdout}}`"),
    ("Sources", "", "write `istio: {files: istio/*.yaml}`"),
    ("GatewayApi", "", "write `files: gw/*.yaml`"),
    ("Smi", "", "write `files: smi/*.yaml`"),
    ("certificates", "", "write `certificates: {NAME: {cert: FILE, key: FILE}}`"),
    ("Istio", "", "write `files: istio/*.yaml`"),
    ("labels", "", "write `labels: {app: NAME}`"),
    ("Tracing", "", "write `tracing: {otlp: http://HOST:4318}`"),
    ("custom_tags", "", "write `custom_tags: {NAME: VALUE}`"),
    ("Metrics", "false", "write `metrics: {istio: false}`"),
    ("Metrics", "off", "write `metrics: {istio: false}`"),
    ("Metrics", "", "write `metrics: {istio: true}`"),
    ("Workload", "", "write `workload: {name: {=NAME}, namespace: NAMESPACE}`"),
    ("MetricOverride", "", "write `{metric: {=request_count}, disabled: true}`"),
    ("from_request", "", "write `from_request: {LABEL: path}`, or `method` or `host`"),
    ("Tags", "", "write `tags: {remove: [LABEL], set: {LABEL: VALUE}}`"),
    ("Timeouts", "", "write `timeouts: {header: 10s, stream_idle: 5m, keep_alive: 60s}`"),
    ("Http2", "true", "leave it out: HTTP/2 is on, beside HTTP/1.1"),
    ("Http2", "on", "leave it out: HTTP/2 is on, beside HTTP/1.1"),
    ("Http2", "false", "leave it out, and write `protocol: http` for HTTP/1.1 alone"),
    ("Http2", "off", "leave it out, and write `protocol: http` for HTTP/1.1 alone"),
    (
        "Http2",
        "",
        "write `http2: {max_concurrent_streams: {#=N}}`; `protocol: http2` closes HTTP/1.1",
    ),
    ("Http2Limits", "", "write `http2: {ping_frames: 1000}`"),
    ("Http3Limits", "", "write `http3: {other_frames: 1000}`"),
    ("Tcp", "", "write `tcp: {user_timeout: 2m}`; the protocol is `protocol: tcp`"),
    ("Admin", "off", "write `admin: {bind: off}`"),
    ("Admin", "none", "write `admin: {bind: off}`"),
    ("Admin", "false", "write `admin: {bind: off}`"),
    ("Admin", "", "write `admin: {bind: {local|@=IP:PORT}}`, or `admin: {bind: off}`"),
    ("zone", "", "write `zone: REGION/ZONE`, one text"),
    ("peers", "", "write `peers: {NAME: {@=HOST:PORT}}`"),
    ("Runtime", "", "write `runtime: {workers: {#=N}}`"),
    ("Dns", "", "write `dns: {gone_after: 30s}`"),
    ("Overload", "", "write `overload: {memory: auto, shed: 90%, stop_accepting: 97%}`"),
    ("PriorityBy", "", "write `priority: {header: x-priority, high: [critical], low: [batch]}`"),
    ("Limits", "", "write `limits: {connections: {#=N}}`"),
    ("Mesh", "", "write `mesh: {identity: {ca: DIR, id: spiffe://...}}`"),
    ("Identity", "spiffe*", "write `identity: {ca: DIR, id: {}}`"),
    ("Identity", "", "write `identity: {ca: DIR, id: spiffe://...}`"),
    ("Inbound", "", "write `inbound: {bind: 0.0.0.0:15006}`"),
    ("Outbound", "", "write `outbound: {bind: 127.0.0.1:15001}`"),
    ("Intercept", "", "write `intercept: {exclude: {outbound: {ports: [22]}}}`"),
    ("Exclude", "", "write `exclude: {outbound: {ports: [22]}}`"),
    ("Side", "", "write `{ports: [22], cidrs: [10.0.0.0/8]}`"),
    ("probes", "", "write `probes: [{port: 8080, path: /healthz}]`"),
    ("MeshDns", "", "write `dns: {bind: 127.0.0.1:15053}`"),
    ("Sources", "", "write `sources: {etcd: {endpoints: [HOST:PORT]}}`"),
    ("Etcd", "", "write `etcd: {endpoints: [{*=HOST:PORT}]}`"),
    ("Consul", "", "write `consul: {address: 127.0.0.1:8500, services: [NAME]}`"),
    ("Kubernetes", "auto", "write `kubernetes: {kubeconfig: auto}`"),
    ("Kubernetes", "", "write `kubernetes: {kubeconfig: auto, namespaces: [NAME]}`"),
    ("Xds", "", "write `xds: {address: {=HOST:PORT}}`"),
    ("Udp", "", "write `udp: {idle_timeout: 60s}`"),
    ("Probe", "", "write `{port: 8080, path: /healthz}`"),
    ("trust_bundles", "", "write `trust_bundles: {partner.example: FILE}`"),
    ("ports", "", "write `ports: {{portvalues=8080: VALUE}}`"),
    ("protocols", "", "write `protocols: {8080: http}`"),
    ("JwtProvider", "", "write `{issuer: https://..., jwks: {url: https://...}}`"),
    ("Jwks", "http*", "write `jwks: {url: {}}`"),
    ("Jwks", "", "write `jwks: {url: https://...}` or `{file: FILE}`"),
    ("AuthorizationRule", "", "write `[{action: allow, from: {ips: 10.0.0.0/8}}]`"),
    ("Source", "", "write `from: {identities: [spiffe://...], ips: [10.0.0.0/8]}`"),
    ("Operation", "", "write `to: {service: SERVICE, paths: [PATH]}`"),
    ("When", "", "write `when: {headers: {NAME: VALUE}}`"),
];

/// Keys that turn something on. Without them, it is off.
const SWITCHES: &[&str] = &[
    "backup",
    "down",
    "max_fails",
    "failure_mode_deny",
    "include_request_attempt_count",
    "include_attempt_count_in_response",
    "send_proxy",
    "send_proxy_v2",
    "proxy_protocol",
    "accept_proxy",
    "redirect_to_https",
    "https_redirect",
    "ip_hash",
    "least_conn",
    "auto_host_rewrite",
];

/// Whether the key `word` of another proxy turns something on that is off without it.
pub fn is_switch(word: &str) -> bool {
    SWITCHES.iter().any(|switch| plain(switch) == plain(word))
}

/// The advice for the key `word`. `known` are the valid keys of its map.
pub fn of_key(word: &str, known: &[&str]) -> Option<&'static str> {
    let own = [WORDS, TRAFFIC, outliers::WORDS, breaker::WORDS, locality::WORDS, shifts::WORDS];
    let tables = own.into_iter().chain([linkerd::WORDS, nginx::WORDS]);
    let habit = tables.into_iter().find_map(|table| find(table, word, known));
    habit.or_else(|| places::of_key(word, known))
}

/// The advice for the wrong value `word`. `known` are the valid values.
pub fn of_value(word: &str, known: &[&str]) -> Option<&'static str> {
    find(VALUES, word, known)
}

/// The advice for the text `found` in the place of the map `shape`. `value` returns the author's
/// value for a name of a placeholder; see [`filled`].
pub fn of_shape(
    shape: &str,
    found: &str,
    value: &dyn Fn(&str) -> Option<String>,
) -> Option<String> {
    let fits = |form: &str| match form.strip_suffix('*') {
        Some(prefix) => found.starts_with(prefix),
        None => form.is_empty() || form == found,
    };
    let fits_one = |forms: &str| forms.split('|').any(fits);
    let habit = SHAPES.iter().find(|(known, forms, _)| *known == shape && fits_one(forms));
    habit.map(|(.., advice)| filled(advice, value).replace("{}", found))
}

/// The names of the author's configuration that advice may use.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// The sections.
    pub sections: Vec<String>,
    /// The services.
    pub services: Vec<String>,
    /// The services whose addresses are known, with their keys in the form of [`address::service`].
    pub reached: Vec<(String, String)>,
    /// The ports of the listeners without TLS.
    pub ports: Vec<u16>,
    /// The address of the service `app` that earlier advice makes, in the same form.
    pub advised: Option<String>,
}

/// The advice with the only service of the author in place of `SERVICE`, and with the port of the
/// only listener in place of `PORT` after the `*` for all hosts.
pub fn with_names(advice: &str, names: &mut Names) -> String {
    let mut text = for_address(advice, names).unwrap_or_else(|| advice.to_owned());
    if let [service] = &names.services[..] {
        text = text.replace("SERVICE", service);
    }
    if let [port] = names.ports[..] {
        text = text.replace("*:PORT", &format!("*:{port}"));
    }
    match names.sections.iter().any(|section| section == "services") {
        true => in_services(text),
        false => text,
    }
}

/// The advice to make a service, if the section `services` is there already: a second one would be
/// refused.
fn in_services(advice: String) -> String {
    let Some((before, rest)) = advice.split_once("`services: {") else { return advice };
    let Some((entry, after)) = rest.split_once("}`") else { return advice };
    // Here, the section itself is to be written in another form.
    if after.starts_with(": each") {
        return advice;
    }
    format!("{before}`{entry}` in `services`{after}")
}

/// The advice to make the service `app` for an address, if `app` is there already, or if another
/// service has this address. `None` if the advice is right as it is. Then `app` is there for later
/// advice.
fn for_address(advice: &str, names: &mut Names) -> Option<String> {
    let (before, rest) = advice.split_once("`, and `services: {app: {")?;
    let (keys, after) = rest.split_once("}}`")?;
    let same = names.reached.iter().find(|(_, own)| own == keys).map(|(name, _)| name);
    let app = "app".to_owned();
    let same = same.or_else(|| (names.advised.as_deref() == Some(keys)).then_some(&app));
    // The upstreams of nginx are names of services.
    let named = || names.services.iter().find(|name| keys == format!("dns: {name}:80"));
    if let Some(service) = same.or_else(named) {
        return Some(format!(
            "{}`{after}",
            before.replacen("to: app", &format!("to: {service}"), 1)
        ));
    }
    if names.advised.is_none() && !names.services.contains(&app) {
        names.advised = Some(keys.to_owned());
        return None;
    }
    let before = before.replacen("to: app", "to: NAME", 1);
    Some(format!("{before}`, and `services: {{NAME: {{{keys}}}}}`{after}"))
}

fn find(habits: &[Word], word: &str, known: &[&str]) -> Option<&'static str> {
    let word = plain(word);
    let fits = |(habit, beside, _): &&Word| plain(habit) == word && known.contains(beside);
    habits.iter().find(fits).map(|(.., advice)| *advice)
}

/// The word in lower case, without `_`, `-` and spaces.
pub fn plain(word: &str) -> String {
    word.chars().filter(|c| !matches!(c, '_' | '-' | ' ')).flat_map(char::to_lowercase).collect()
}
