//! The keys of other proxies, with the advice for each: nginx, HAProxy, Envoy, Istio, Caddy and
//! Traefik.

use super::{ANY, Word};

const TOP: &str = "listeners";
const LISTENER: &str = "trusted_hops";
const RULE: &str = "respond";
const MATCH: &str = "query";
const SERVICE: &str = "max_idle_connections";
const ENDPOINT: &str = "zone";
const HEALTH: &str = "panic_threshold";
const RETRIES: &str = "replay_bytes";
const SERVER_TLS: &str = "client_ca";
const CLIENT_TLS: &str = "sni";
const POLICY: &str = "dry_run";
const SOURCE: &str = "identities";
const OPERATION: &str = "not_ports";
const REDIRECT: &str = "scheme";
const RESPOND: &str = "body";
const REWRITE: &str = "prefix";
const HEADERS: &str = "response";
const EDITS: &str = "remove";
const VALUE: &str = "present";
const TIMEOUTS: &str = "handshake";
const LOG: &str = "format";
const TELEMETRY: &str = "access_log";
const RUNTIME: &str = "driver";
const LIMITS: &str = "header_bytes";
const PROVIDER: &str = "issuer";
const KEYS: &str = "refresh";
const RATE: &str = "burst";

/// Advice that several words have.
const BIND: &str = "write `bind: {@=127.0.0.1:8080}`";
const SERVICES: &str =
    "what requests go to is in `services`: services: {app: {endpoints: [{^=127.0.0.1:9000}]}}";
const LISTENERS: &str = "what clients connect to is in `listeners`: \
    listeners: {web: {bind: {@=127.0.0.1:8080}}}; the rest is in `routes` and `services`";
const KUBERNETES: &str = "this is an object of Kubernetes; a file of Ringway has the sections \
    listeners, routes and services";
const ROUTES: &str = "rules are in `routes`, by host: routes: {\"*\": [{to: app}]}";
const CERTIFICATES: &str = "write `tls: {cert: FILE, key: FILE}` in the listener";
const LISTENER_TLS: &str = "write `tls: {cert: FILE, key: FILE}`";
const LISTENER_CERT: &str = "write `tls: {cert: {=FILE}, key: FILE}`";
const LISTENER_KEY: &str = "write `tls: {cert: FILE, key: {=FILE}}`";
const WORKERS: &str = "write `workers: {#=auto}`; `auto`, the default, is one worker per CPU";
const RUNTIME_WORKERS: &str =
    "write `runtime: {workers: {#=auto}}`; `auto`, the default, is one worker per CPU";
const ACCESS_LOG: &str =
    "write `telemetry: {access_log: {path: {|path|output|file|filepath=stdout}}}`";
const HOSTS: &str =
    "a host is a key of `routes`: routes: {{hostname=shop.example.com}: [{to: app}]}";
const HOPS: &str =
    "write `trusted_hops: {#=1}`, the number of trusted proxies in front of this one";
const RULES: &str = "a listener serves all rules of `routes`; \
    write rules there, by host: routes: {\"*\": [{to: app}]}";
const DEFAULT: &str = "a listener serves all rules of `routes`; \
    write the rule for all hosts: routes: {\"*\": [{{toservice=to: app}}]}";
const MATCH_PATH: &str = "a path is part of `match`: match: {path: {pathbelow=/api/*}}, \
    or {path: {pathalone=/api}} for that path alone";
const PREFIX: &str =
    "write `path: {pathbelow=/api/*}`, which is {pathalone=/api} and all paths below it";
const PATH: &str = "write `path: {pathmatch=/api/*`, `path: /exact` or `path: ~regex}`";
const EXACT: &str = "write `path: {pathalone=/exact}`";
const REGEX: &str = "write `path: {regex=~regex}`, which is for the whole path";
const TO: &str = "write `{target=to: app`, and `services: {app: {endpoints: [127.0.0.1:9000]}}}`";
const SPLIT: &str = "weights are part of `to`: to: {app/v1: 90, app/v2: 10}";
const STRIP: &str = "match {path: {pathbelow=/api/*}} and write `rewrite: {prefix: /}`: \
    it replaces {pathdir=/api/}";
const ANSWER: &str =
    "write `{answer=respond: {status: 200, body: ok}` or `redirect: {scheme: https}}`";
const PREFIX_REWRITE: &str =
    "write `rewrite: {prefix: {pathdir=/new/}}` with match {path: /old/*}, which it replaces";
const HOST_REWRITE: &str = "write `rewrite: {host: {hostname=NAME}}`";
const NO_REGEX: &str = "there is no rewriting by regex; `prefix` and `path` replace text";
const REWRITES: &str = "write `rewrite: {prefix: /new/}` with match {path: /old/*}, \
    `rewrite: {path: /new}` or `rewrite: {host: NAME}`";
const EDIT: &str = "write `headers: {request: {set: {NAME: VALUE}}}`; `add` adds to values \
    that are there, `remove: [NAME]` removes; `response` is for the way back";
const ADD_TO_REQUEST: &str = "write `headers: {request: {add: {NAME: VALUE}}}`, \
    or `set` to replace values that are there";
const ADD_TO_RESPONSE: &str = "write `headers: {response: {add: {NAME: VALUE}}}`, \
    or `set` to replace values that are there";
const EDIT_SIDE: &str = "say of which message: {request: {set: {NAME: VALUE}}} or {response: ...}";
const WEBSOCKET: &str = "leave it out: WebSockets pass without a setting";
const ENDPOINTS: &str =
    "write `{reach=endpoints: [127.0.0.1:9000]`, or for a name `dns: HOST:PORT}`";
const SERVICE_ADDRESS: &str =
    "write `{reach=endpoints: [127.0.0.1:9000]}`; `addresses` are virtual ones";
const DNS: &str = "write `dns: HOST:PORT`";
const BALANCE: &str = "write `balance: round-robin` (or least-request, random, peak-ewma, \
    {hash: source-ip}); the default is least-request";
const LOAD_BALANCER: &str = "write `{reach=endpoints: [127.0.0.1:9000, ...]}` for its servers, \
    and `balance: round-robin` for the algorithm";
const CHECK: &str = "write `health_check: {tcp: true}` to open a connection, \
    or {http: /healthz} or {grpc: true} to ask the service";
const CHECK_HTTP: &str =
    "write `health_check: {http: {checkpath=/healthz}}`, {grpc: true} or {tcp: true}";
const CHECK_PATH: &str = "write `http: {checkpath=/healthz}`, \
    or `http: {path: {checkpath=/healthz}, status: 200-399}`";
const CHECK_STATUS: &str = "write `http: {path: /healthz, status: [{*=200-399}]}`";
const BACKUP: &str = "there are no backup endpoints: take this one out; \
    without `backup`, it gets requests all the time";
const VERSIONS: &str = "write `versions: {v1: [127.0.0.1:9001], v2: [127.0.0.1:9002]}` \
    in place of `endpoints`";
const STICKY: &str = "write `balance: {hash: {cookie: {name=NAME}}}`; \
    the service has to set this cookie";
const ADDRESS: &str = "write `{endpoint=address: 127.0.0.1:9000`, IP and port together}";
const SKIP_VERIFY: &str = "write `verify: none`; it accepts anyone, so prefer `ca: FILE`";
const IDENTITIES: &str = "write `identities: [{*=spiffe://cluster.local/ns/shop/sa/web}]`";
const ACME: &str = "write `cert: FILE, key: FILE`: Ringway does not get certificates itself; \
    let certbot or cert-manager write the files: a change of them is applied at once";
const ACME_FOR_ALL: &str = "write `tls: {cert: FILE, key: FILE}` in the listener: \
    Ringway does not get certificates itself; certbot or cert-manager may write the files";
const TIMES: &str = "write `timeouts: {header: 10s, body_idle: 60s, keep_alive: 60s}` \
    in a listener, `connect_timeout` and `timeout` in a service, or `timeout` in a rule";
const CLIENT_TIMES: &str = "write `body_idle: {~=60s}` for silence within a body, \
    and `keep_alive: {~=60s}` for the time between requests";
const SERVER_TIMES: &str = "write `body_idle: {~=60s}` for silence within a body, both ways; \
    `timeout: {~=60s}` of a rule or service limits a whole response";
const READ_TIMES: &str = "write `body_idle: {~=60s}` for silence within a body; \
    `timeout: {~=60s}` would limit the whole response, and the wait for it";
const REQUEST_TIMES: &str = "write `header: {~=10s}` for the head of a request; \
    `timeout` of a rule or service limits a whole request";
const URL_PARTS: &str = "name the parts: {scheme: {urlscheme=https}, host: {urlhost=HOST}}; \
    without `path` the path stays";
const METRICS: &str = "leave it out: GET /metrics of the admin interface (`admin.bind`) has them";
pub(super) const HTTPS: &str = "write `redirect_https: true` in the listener without `tls`; \
    for some paths alone, `redirect: {scheme: https}` below a host with its port: \"*:80\"";
const REDIRECT_RULE: &str = "write `redirect_https: true`; for some hosts or paths alone, \
    write rules below a host with its port: routes: {\"*:80\": [{redirect: {scheme: https}}]}";
const CLIENTS: &str = "write a rule in `authorization`: {action: deny, from: {ips: 10.0.0.0/8}}";
const HOST_IS_KEPT: &str =
    "leave it out: Host is passed on; a rule's `rewrite: {host: NAME}` changes it";
const CLIENT_CA: &str = "write `client_ca: FILE`, and `client_auth: optional` if need be";
const TLS_MODE: &str =
    "SIMPLE is {ca: FILE}, MUTUAL adds `cert` and `key`, ISTIO_MUTUAL is `tls: mesh`";
const MERGE: &str = "merge keys of YAML do not work here; write the entries out";
const RETRY: &str = "write `retries: {attempts: {#|num_retries|attempts=2}, \
    on: [{*retry_on=connect-failure}]}`";
const RATE_LIMIT: &str = "write `rate_limit: {requests: {#|max_tokens|tokens_per_fill=100}, \
    per: 1s}`; with `by: source`, each client has its own";
const ON: &str = "write `on: [{*=connect-failure}]`";
const CLAIMS: &str = "write `jwt: PROVIDER` in the rule or service, \
    and `when: {claims: {sub: NAME}}` here";

#[rustfmt::skip] // one line for each word
/// Each key, the map that it is written in, and the advice.
pub(super) const WORDS: &[Word] = &[
    // The sections of a file.
    ("http", TOP, LISTENERS),
    ("server", TOP, LISTENERS),
    ("servers", TOP, LISTENERS),
    ("frontend", TOP, LISTENERS),
    ("frontends", TOP, LISTENERS),
    ("listen", TOP, LISTENERS),
    ("entrypoints", TOP, "write `listeners: {web: {bind: {@=127.0.0.1:8080}}}`"),
    ("static_resources", TOP, LISTENERS),
    ("dynamic_resources", TOP, LISTENERS),
    ("apps", TOP, LISTENERS),
    ("upstream", TOP, SERVICES),
    ("upstreams", TOP, SERVICES),
    ("backend", TOP, SERVICES),
    ("backends", TOP, SERVICES),
    ("cluster", TOP, SERVICES),
    ("clusters", TOP, SERVICES),
    ("endpoints", TOP, SERVICES),
    ("routers", TOP, ROUTES),
    ("virtual_hosts", TOP, ROUTES),
    ("hosts", TOP, ROUTES),
    ("locations", TOP, ROUTES),
    ("rules", TOP, ROUTES),
    ("middlewares", TOP, "write what they do in the rules of `routes`: rewrite, redirect, headers"),
    ("stream", TOP, "write a listener with `protocol: tcp` and `service: NAME`"),
    ("global", TOP, "settings of the process are in `runtime`, `admin`, `drain` and `limits`"),
    ("defaults", TOP, "each listener and service has defaults; `tcp` and `limits` are for all"),
    ("events", TOP, "leave it out: there is nothing to tune; `runtime` has the workers"),
    ("worker_processes", TOP, RUNTIME_WORKERS),
    ("workers", TOP, RUNTIME_WORKERS),
    ("threads", TOP, RUNTIME_WORKERS),
    ("nbthread", TOP, RUNTIME_WORKERS),
    ("concurrency", TOP, RUNTIME_WORKERS),
    ("timeouts", TOP, TIMES),
    ("timeout", TOP, TIMES),
    ("access_log", TOP, ACCESS_LOG),
    ("access_logs", TOP, ACCESS_LOG),
    ("log", TOP, ACCESS_LOG),
    ("logs", TOP, ACCESS_LOG),
    ("logging", TOP, ACCESS_LOG),
    ("error_log", TOP, "errors go to standard error; --log json changes their format"),
    ("metrics", TOP, METRICS),
    ("api", TOP, "write `admin: {bind: 127.0.0.1:9900}`"),
    ("tls", TOP, CERTIFICATES),
    ("ssl", TOP, CERTIFICATES),
    ("certificates", TOP, CERTIFICATES),
    ("certificates_resolvers", TOP, ACME_FOR_ALL),
    ("acme", TOP, ACME_FOR_ALL),
    ("<<", LISTENER, MERGE),
    ("<<", SERVICE, MERGE),
    ("<<", RULE, MERGE),
    ("<<", TOP, MERGE),
    ("include", TOP, "leave it out: all *.yaml of a directory are one; give the directory to -c"),
    ("imports", TOP, "leave it out: all *.yaml of a directory are one; give the directory to -c"),
    ("providers", TOP, "token issuers are in `jwt`; files are given by -c"),
    ("node", TOP, "leave it out; the identity of a workload is `mesh: {identity: ...}`"),
    ("authz", TOP, "write `authorization: [{action: allow, from: {...}}]`"),
    ("policies", TOP, "write `authorization: [{action: allow, from: {...}}]`"),
    ("user", TOP, "start the process as that user, by systemd: `User=`"),
    ("api_version", TOP, KUBERNETES),
    ("kind", TOP, KUBERNETES),
    ("metadata", TOP, KUBERNETES),
    ("spec", TOP, KUBERNETES),
    // A listener.
    ("listen", LISTENER, BIND),
    ("address", LISTENER, BIND),
    ("addresses", LISTENER, BIND),
    ("socket_address", LISTENER, BIND),
    ("host", LISTENER, "write `bind: {@=IP:PORT}`; `hosts` names the hosts that it serves"),
    ("ip", LISTENER, BIND),
    ("port", LISTENER, BIND),
    ("ports", LISTENER, "write `bind: [0.0.0.0:80, 0.0.0.0:8080]`"),
    ("ssl", LISTENER, LISTENER_TLS),
    ("https", LISTENER, LISTENER_TLS),
    ("cert", LISTENER, LISTENER_CERT),
    ("key", LISTENER, LISTENER_KEY),
    ("certificate", LISTENER, LISTENER_CERT),
    ("certificates", LISTENER, LISTENER_TLS),
    ("crt", LISTENER, "write `tls: {cert: {=FILE}, key: {=FILE}}`: one file may hold both"),
    ("ssl_certificate", LISTENER, LISTENER_CERT),
    ("ssl_certificate_key", LISTENER, LISTENER_KEY),
    ("tls_context", LISTENER, LISTENER_TLS),
    ("transport_socket", LISTENER, LISTENER_TLS),
    ("mode", LISTENER, "write `protocol: tcp` and `service: NAME`; for HTTP, leave it out"),
    ("alpn", LISTENER, "write `protocol: auto` (the default), `http` or `http2`"),
    ("server_name", LISTENER, HOSTS),
    ("server_names", LISTENER, HOSTS),
    ("domains", LISTENER, HOSTS),
    ("virtual_hosts", LISTENER, RULES),
    ("filter_chains", LISTENER, RULES),
    ("filters", LISTENER, RULES),
    ("routes", LISTENER, RULES),
    ("route", LISTENER, RULES),
    ("rules", LISTENER, RULES),
    ("location", LISTENER, RULES),
    ("locations", LISTENER, RULES),
    ("to", LISTENER, DEFAULT),
    ("proxy_pass", LISTENER, DEFAULT),
    ("reverse_proxy", LISTENER, DEFAULT),
    ("default_backend", LISTENER, DEFAULT),
    ("use_backend", LISTENER, DEFAULT),
    ("backend", LISTENER, DEFAULT),
    ("timeout", LISTENER, TIMES),
    ("idle_timeout", LISTENER, "write `timeouts: {keep_alive: {~=60s}}`"),
    ("keepalive_timeout", LISTENER, "write `timeouts: {keep_alive: {~=60s}}`"),
    ("client_header_timeout", LISTENER, "write `timeouts: {header: {~=10s}}`"),
    ("client_body_timeout", LISTENER, "write `timeouts: {body_idle: {~=60s}}`"),
    ("accept_proxy", LISTENER, "write `proxy_protocol: true`"),
    ("forwarded_headers", LISTENER, HOPS),
    ("trusted_proxies", LISTENER, HOPS),
    ("use_remote_address", LISTENER, HOPS),
    ("xff_num_trusted_hops", LISTENER, HOPS),
    ("set_real_ip_from", LISTENER, HOPS),
    ("redirect", LISTENER, REDIRECT_RULE),
    ("redirect_to_https", LISTENER, "write `redirect_https: true`"),
    ("https_redirect", LISTENER, "write `redirect_https: true`"),
    ("redirections", LISTENER, "write `redirect_https: true`"),
    ("http3", LISTENER, "HTTP/3 is not supported by this version of ringway"),
    ("quic", LISTENER, "HTTP/3 is not supported by this version of ringway"),
    ("name", LISTENER, "the key is the name: listeners: {web: {bind: ...}}"),
    ("workers", LISTENER, RUNTIME_WORKERS),
    ("access_log", LISTENER, ACCESS_LOG),
    // A rule.
    ("path", RULE, MATCH_PATH),
    ("paths", RULE, MATCH_PATH),
    ("uri", RULE, MATCH_PATH),
    ("location", RULE, MATCH_PATH),
    ("prefix", RULE, MATCH_PATH),
    ("path_prefix", RULE, MATCH_PATH),
    ("handle", RULE, MATCH_PATH),
    ("rule", RULE, MATCH_PATH),
    ("matches", RULE, "write `match: {path: {pathmatch=/api/*}}`"),
    ("method", RULE, "a method is part of `match`: match: {method: [{*=GET, HEAD}]}"),
    ("methods", RULE, "a method is part of `match`: match: {method: [{*=GET, HEAD}]}"),
    ("host", RULE, HOSTS),
    ("hosts", RULE, HOSTS),
    ("domains", RULE, HOSTS),
    ("server_name", RULE, HOSTS),
    ("weight", RULE, SPLIT),
    ("weights", RULE, SPLIT),
    ("weighted_clusters", RULE, SPLIT),
    ("split", RULE, SPLIT),
    ("strip_prefix", RULE, STRIP),
    ("strip_path_prefix", RULE, STRIP),
    ("prefix_rewrite", RULE, PREFIX_REWRITE),
    ("regex_rewrite", RULE, NO_REGEX),
    ("host_rewrite", RULE, HOST_REWRITE),
    ("host_rewrite_literal", RULE, HOST_REWRITE),
    ("auto_host_rewrite", RULE, HOST_REWRITE),
    ("url_rewrite", RULE, REWRITES),
    ("proxy_pass", RULE, TO),
    ("reverse_proxy", RULE, TO),
    ("cluster", RULE, TO),
    ("backend", RULE, TO),
    ("use_backend", RULE, TO),
    ("backend_refs", RULE, TO),
    ("upstream", RULE, TO),
    ("service", RULE, TO),
    ("services", RULE, TO),
    ("destination", RULE, TO),
    ("route", RULE, TO),
    ("forward", RULE, TO),
    ("url", RULE, TO),
    ("return", RULE, ANSWER),
    ("direct_response", RULE, ANSWER),
    ("status", RULE, ANSWER),
    ("redirect_to", RULE, HTTPS),
    ("https_redirect", RULE, HTTPS),
    ("add_header", RULE, ADD_TO_RESPONSE),
    ("set_header", RULE, EDIT),
    ("proxy_set_header", RULE, EDIT),
    ("request_headers_to_add", RULE, ADD_TO_REQUEST),
    ("response_headers_to_add", RULE, ADD_TO_RESPONSE),
    ("request_headers", RULE, EDIT),
    ("response_headers", RULE, EDIT),
    ("websocket", RULE, WEBSOCKET),
    ("upgrade_configs", RULE, WEBSOCKET),
    ("middlewares", RULE, "write what they do here: rewrite, redirect, headers"),
    ("filters", RULE, "write what they do here: rewrite, redirect, headers"),
    ("priority", RULE, "the first rule that matches decides: put the more specific one first"),
    ("connect_timeout", RULE, "`connect_timeout` belongs to the service"),
    ("idle_timeout", RULE, "write `body_idle: {~=60s}`"),
    ("proxy_read_timeout", RULE, READ_TIMES),
    ("root", RULE, "Ringway serves no files; `respond` answers with a fixed text"),
    ("file_server", RULE, "Ringway serves no files; `respond` answers with a fixed text"),
    ("auth", RULE, "write `jwt: PROVIDER`, or a rule in `authorization`"),
    ("balance", RULE, "`balance` belongs to the service"),
    // The conditions of a rule.
    ("prefix", MATCH, PREFIX),
    ("path_prefix", MATCH, PREFIX),
    ("uri", MATCH, PATH),
    ("url", MATCH, PATH),
    ("exact", MATCH, EXACT),
    ("regex", MATCH, REGEX),
    ("safe_regex", MATCH, REGEX),
    ("path_regexp", MATCH, REGEX),
    ("host", MATCH, HOSTS),
    ("hosts", MATCH, HOSTS),
    ("authority", MATCH, HOSTS),
    ("query_params", MATCH, "write `query: {NAME: VALUE}`"),
    ("query_parameters", MATCH, "write `query: {NAME: VALUE}`"),
    ("cookie", MATCH, "write `headers: {cookie: \"~.*NAME=VALUE.*\"}`"),
    ("port", MATCH, "the port is part of the host: routes: {\"shop.example.com:8080\": [...]}"),
    ("scheme", MATCH, "use one listener with `tls` and one without; `hosts` chooses their rules"),
    ("client_ip", MATCH, CLIENTS),
    ("source_ip", MATCH, CLIENTS),
    ("remote_ip", MATCH, CLIENTS),
    // A service.
    ("server", SERVICE, ENDPOINTS),
    ("servers", SERVICE, ENDPOINTS),
    ("host", SERVICE, ENDPOINTS),
    ("hosts", SERVICE, ENDPOINTS),
    ("address", SERVICE, SERVICE_ADDRESS),
    ("url", SERVICE, ENDPOINTS),
    ("urls", SERVICE, ENDPOINTS),
    ("port", SERVICE, ENDPOINTS),
    ("targets", SERVICE, ENDPOINTS),
    ("target", SERVICE, ENDPOINTS),
    ("upstreams", SERVICE, ENDPOINTS),
    ("backends", SERVICE, ENDPOINTS),
    ("nodes", SERVICE, ENDPOINTS),
    ("to", SERVICE, ENDPOINTS),
    ("load_assignment", SERVICE, ENDPOINTS),
    ("lb_endpoints", SERVICE, ENDPOINTS),
    ("hostname", SERVICE, ENDPOINTS),
    ("dns_name", SERVICE, ENDPOINTS),
    ("resolve", SERVICE, DNS),
    ("type", SERVICE, "leave it out: `endpoints` are addresses, and `dns: HOST:PORT` is a name"),
    ("lb_policy", SERVICE, BALANCE),
    ("load_balancer", SERVICE, LOAD_BALANCER),
    ("load_balancing", SERVICE, BALANCE),
    ("lb", SERVICE, BALANCE),
    ("algorithm", SERVICE, BALANCE),
    ("policy", SERVICE, BALANCE),
    ("traffic_policy", SERVICE, "write its parts here: balance, tls, health_check"),
    ("sticky", SERVICE, STICKY),
    ("session_affinity", SERVICE, STICKY),
    ("ip_hash", SERVICE, "write `balance: {hash: source-ip}`"),
    ("least_conn", SERVICE, "write `balance: least-request`"),
    ("health_checks", SERVICE, CHECK_HTTP),
    ("retry_policy", SERVICE, RETRY),
    ("retry", SERVICE, RETRY),
    ("max_retries", SERVICE, RETRY),
    ("retry_policy", RULE, RETRY),
    ("retry", RULE, RETRY),
    ("max_retries", RULE, RETRY),
    ("retry_on", RULE, "write `retries: {on: [{*=connect-failure}]}`"),
    ("proxy_next_upstream", RULE, RETRY),
    ("limit_req", RULE, RATE_LIMIT),
    ("limit_req_zone", RULE, RATE_LIMIT),
    ("local_ratelimit", RULE, RATE_LIMIT),
    ("local_rate_limit", RULE, RATE_LIMIT),
    ("rate_limits", RULE, RATE_LIMIT),
    ("throttle", RULE, RATE_LIMIT),
    ("limit_conn", LISTENER, "write `connections_per_source: {#=100}`"),
    ("limit_conn_zone", LISTENER, "write `connections_per_source: 100`"),
    ("max_connections_per_ip", LISTENER, "write `connections_per_source: {#=100}`"),
    ("in_flight_req", LISTENER, "write `connections_per_source: 100`"),
    ("keepalive_requests", LISTENER, "write `requests_per_connection: {#=1000}`"),
    ("max_requests_per_connection", LISTENER, "write `requests_per_connection: {#=1000}`"),
    ("limit_req", LISTENER, RATE_LIMIT),
    ("local_ratelimit", LISTENER, RATE_LIMIT),
    ("local_rate_limit", LISTENER, RATE_LIMIT),
    ("rate_limits", LISTENER, RATE_LIMIT),
    ("rate_limit_sessions", LISTENER, RATE_LIMIT),
    ("limit_req", SERVICE, RATE_LIMIT),
    ("local_ratelimit", SERVICE, RATE_LIMIT),
    ("local_rate_limit", SERVICE, RATE_LIMIT),
    ("rate_limits", SERVICE, RATE_LIMIT),
    ("average", RATE, "write `requests: {#=100}`, in each `per`"),
    ("rate", RATE, "write `requests: 10, per: 1s` for 10r/s"),
    ("limit", RATE, "write `requests: {#=100}`, in each `per`"),
    ("max_tokens", RATE, "write `requests: {#=100}`; `burst` is how many more may come at once"),
    ("tokens_per_fill", RATE, "write `requests: {#=100}`, in each `per`"),
    ("fill_interval", RATE, "write `per: {~=1s}`"),
    ("period", RATE, "write `per: {~=1s}`"),
    ("interval", RATE, "write `per: {~=1s}`"),
    ("unit", RATE, "write `per: 1s`, 1m or 1h"),
    ("token_bucket", RATE, "write `requests: 100, per: 1s`, and `burst` if need be"),
    ("descriptors", RATE, "write `by: {header: NAME}`, `by: identity` or `by: source`"),
    ("key", RATE, "write `by: {header: NAME}`, `by: identity` or `by: source`"),
    ("source_criterion", RATE, "write `by: {header: NAME}`, `by: identity` or `by: source`"),
    ("nodelay", RATE, "leave it out: a request waits for nothing, it passes or gets 429"),
    ("delay", RATE, "leave it out: a request waits for nothing, it passes or gets 429"),
    ("retry_on", RETRIES, ON),
    ("conditions", RETRIES, ON),
    ("num_retries", RETRIES, "write `attempts: {#=2}`"),
    ("max_retries", RETRIES, "write `attempts: {#=2}`"),
    ("retry_back_off", RETRIES, "write `backoff: {base: 25ms, max: 250ms}`"),
    ("retry_budget", RETRIES, "write `budget: {percent: 20%, min: 3}`"),
    ("check", SERVICE, CHECK),
    ("option_httpchk", SERVICE, CHECK_HTTP),
    ("keepalive", SERVICE, "write `max_idle_connections: {#=100}`; probes are in `tcp`"),
    ("keepalive_timeout", SERVICE, "write `idle_timeout: {~=60s}`"),
    ("weight", SERVICE, SPLIT),
    ("subsets", SERVICE, VERSIONS),
    ("ssl", SERVICE, "write `tls: {ca: FILE}`"),
    ("transport_socket", SERVICE, "write `tls: {ca: FILE}`"),
    ("verify", SERVICE, "write `tls: {ca: FILE}`"),
    ("http2_protocol_options", SERVICE, "write `protocol: http2`"),
    ("h2", SERVICE, "write `protocol: http2`"),
    ("grpc", SERVICE, "write `protocol: grpc`"),
    ("send_proxy", SERVICE, "write `send_proxy_protocol: v1`"),
    ("send_proxy_v2", SERVICE, "write `send_proxy_protocol: v2`"),
    ("proxy_protocol", SERVICE, "write `send_proxy_protocol: v2`"),
    ("pass_host_header", SERVICE, HOST_IS_KEPT),
    ("name", SERVICE, "the key is the name: services: {app: {endpoints: [127.0.0.1:9000]}}"),
    ("read_timeout", SERVICE, "write `body_idle: {~=60s}` in the rule, for silence within a body"),
    // An endpoint.
    ("host", ENDPOINT, ADDRESS),
    ("ip", ENDPOINT, ADDRESS),
    ("port", ENDPOINT, ADDRESS),
    ("url", ENDPOINT, ADDRESS),
    ("socket_address", ENDPOINT, ADDRESS),
    ("endpoint", ENDPOINT, ADDRESS),
    ("backup", ENDPOINT, BACKUP),
    ("down", ENDPOINT, "take this endpoint out, or write `weight: 0`"),
    ("max_fails", ENDPOINT, "write `health_check: {http: /healthz}` in the service"),
    // A health check.
    ("path", HEALTH, CHECK_PATH),
    ("uri", HEALTH, CHECK_PATH),
    ("url", HEALTH, CHECK_PATH),
    ("http_health_check", HEALTH, CHECK_PATH),
    ("status", HEALTH, CHECK_STATUS),
    ("expected_statuses", HEALTH, CHECK_STATUS),
    ("method", HEALTH, "write `http: {path: /healthz, method: {=HEAD}}`"),
    ("host", HEALTH, "write `http: {path: /healthz, host: {=NAME}}`"),
    ("rise", HEALTH, "write `healthy: {#=2}`"),
    ("healthy_threshold", HEALTH, "write `healthy: {#=2}`"),
    ("fall", HEALTH, "write `unhealthy: {#=3}`"),
    ("unhealthy_threshold", HEALTH, "write `unhealthy: {#=3}`"),
    ("inter", HEALTH, "write `interval: {~=2s}`"),
    ("port", HEALTH, "a check goes to the address of the endpoint; there is no other port"),
    // TLS of a listener.
    ("certificate", SERVER_TLS, "write `cert: {=FILE}`"),
    ("cert_file", SERVER_TLS, "write `cert: {=FILE}`"),
    ("crt", SERVER_TLS, "write `cert: {=FILE}, key: {=FILE}`: one file may hold both"),
    ("certificate_chain", SERVER_TLS, "write `cert: {=FILE}`"),
    ("chain", SERVER_TLS, "put the intermediate certificates into the file of `cert`"),
    ("ssl_certificate", SERVER_TLS, "write `cert: {=FILE}`"),
    ("certificates", SERVER_TLS, "write a list: tls: [{cert: FILE, key: FILE}, ...]"),
    ("private_key", SERVER_TLS, "write `key: {=FILE}`"),
    ("key_file", SERVER_TLS, "write `key: {=FILE}`"),
    ("ssl_certificate_key", SERVER_TLS, "write `key: {=FILE}`"),
    ("ca", SERVER_TLS, "write `client_ca: {=FILE}` to ask clients for certificates"),
    ("ca_file", SERVER_TLS, "write `client_ca: {=FILE}` to ask clients for certificates"),
    ("verify_client", SERVER_TLS, CLIENT_CA),
    ("verify", SERVER_TLS, CLIENT_CA),
    ("mode", SERVER_TLS, "write `cert` and `key`, or `tls: mesh` for the identity of the workload"),
    ("protocols", SERVER_TLS, "write `min_version: \"1.2\"` or \"1.3\""),
    ("ciphers", SERVER_TLS, "leave it out: there are only good ones to choose from"),
    ("acme", SERVER_TLS, ACME),
    ("cert_resolver", SERVER_TLS, ACME),
    ("auto", SERVER_TLS, ACME),
    ("domains", SERVER_TLS, "write `names: [{*=shop.example.com}]`"),
    ("sni", SERVER_TLS, "write `names: [{*=shop.example.com}]`"),
    // TLS to a service.
    ("insecure_skip_verify", CLIENT_TLS, SKIP_VERIFY),
    ("insecure", CLIENT_TLS, SKIP_VERIFY),
    ("ssl_verify", CLIENT_TLS, SKIP_VERIFY),
    ("server_name", CLIENT_TLS, "write `sni: {=NAME}`"),
    ("ca_file", CLIENT_TLS, "write `ca: {=FILE}`"),
    ("ca_certificates", CLIENT_TLS, "write `ca: {=FILE}`"),
    ("root_cas", CLIENT_TLS, "write `ca: {=FILE}`"),
    ("trusted_ca", CLIENT_TLS, "write `ca: {=FILE}`"),
    ("client_certificate", CLIENT_TLS, "write `cert: {=FILE}` and `key: FILE`"),
    ("private_key", CLIENT_TLS, "write `key: {=FILE}`"),
    ("mode", CLIENT_TLS, TLS_MODE),
    // Authorization.
    ("principals", SOURCE, IDENTITIES),
    ("service_accounts", SOURCE, IDENTITIES),
    ("source", SOURCE, "leave this level out: from: {identities: [...]}"),
    ("ip_blocks", SOURCE, "write `ips: [{*=10.0.0.0/8}]`"),
    ("cidr", SOURCE, "write `ips: [{*=10.0.0.0/8}]`"),
    ("remote_ip_blocks", SOURCE, "write `forwarded_ips: [{*=10.0.0.0/8}]`"),
    ("request_principals", SOURCE, CLAIMS),
    ("operation", OPERATION, "leave this level out: to: {methods: [GET]}"),
    ("services", OPERATION, "write `service: app`; it takes a list, too"),
    ("effect", POLICY, "write `action: allow` or `action: deny`"),
    ("rules", POLICY, "each rule is an entry of `authorization`: [{action: allow, from: {...}}]"),
    ("source", POLICY, "write `from: {identities: [...], ips: [...]}`"),
    ("principals", POLICY, "write `from: {identities: [{*=spiffe://...}]}`"),
    ("selector", POLICY, "write `to: {service: app}`"),
    ("operation", POLICY, "write its keys in `to`: to: {methods: [GET]}"),
    ("condition", POLICY, "write `when: {headers: {...}, claims: {...}}`"),
    ("conditions", POLICY, "write `when: {headers: {...}, claims: {...}}`"),
    // The actions of a rule.
    ("to", REDIRECT, URL_PARTS),
    ("url", REDIRECT, URL_PARTS),
    ("location", REDIRECT, URL_PARTS),
    ("uri", REDIRECT, "write `path: {pathalone=/new}`"),
    ("code", REDIRECT, "write `status: {#=308}`"),
    ("redirect_code", REDIRECT, "write `status: {#=308}`"),
    ("response_code", REDIRECT, "write `status: {#=308}`"),
    ("permanent", REDIRECT, "write `status: 301` (the default), 308, or 302 for a temporary one"),
    ("https", REDIRECT, "write `scheme: https`"),
    ("https_redirect", REDIRECT, "write `scheme: https`"),
    ("authority", REDIRECT, "write `host: {=NAME}`"),
    ("code", RESPOND, "write `status: {#=200}`"),
    ("content", RESPOND, "write `body: {=TEXT}`"),
    ("text", RESPOND, "write `body: {=TEXT}`"),
    ("headers", RESPOND, "write `headers: {response: {set: {...}}}` beside it"),
    ("uri", REWRITE, REWRITES),
    ("regex", REWRITE, NO_REGEX),
    ("replacement", REWRITE, REWRITES),
    ("replace_prefix_match", REWRITE, REWRITES),
    ("strip_prefix", REWRITE, STRIP),
    ("authority", REWRITE, "write `host: {=NAME}`"),
    ("set", HEADERS, EDIT_SIDE),
    ("add", HEADERS, EDIT_SIDE),
    ("remove", HEADERS, EDIT_SIDE),
    (ANY, EDITS, "say what to do: set: {NAME: VALUE}, add: {NAME: VALUE} or remove: [NAME]"),
    ("exact", VALUE, "write the value itself: NAME: {equal=VALUE}"),
    ("regex", VALUE, "write NAME: {regex=~REGEX}, which is for the whole value"),
    ("safe_regex", VALUE, "write NAME: {regex=~REGEX}, which is for the whole value"),
    ("prefix", VALUE, "write NAME: {begins=~TEXT.*}"),
    ("suffix", VALUE, "write NAME: {ends=~.*TEXT}"),
    (ANY, VALUE, "write the value itself, NAME: VALUE, or ~REGEX, or {present: true}"),
    ("delete", EDITS, "write `remove: [NAME]`"),
    ("replace", EDITS, "write `set: {NAME: VALUE}`"),
    ("append", EDITS, "write `add: {NAME: VALUE}`"),
    // The rest.
    ("client", TIMEOUTS, CLIENT_TIMES),
    ("server", TIMEOUTS, SERVER_TIMES),
    ("connect", TIMEOUTS, "write `connect_timeout: {~=5s}` in the service"),
    ("request", TIMEOUTS, REQUEST_TIMES),
    ("idle", TIMEOUTS, "write `keep_alive` for the time between requests, `body_idle` within one"),
    ("read", TIMEOUTS, "write `header` for the head of a request, `body_idle` for its body"),
    ("write", TIMEOUTS, "write `body_idle`: it counts both directions"),
    ("file", LOG, "write `path: {=FILE}`"),
    ("file_path", LOG, "write `path: {=FILE}`"),
    ("output", LOG, "write `path: {=stdout}`"),
    ("logs", TELEMETRY, "write `access_log: {path: stdout}`"),
    ("log", TELEMETRY, "write `access_log: {path: stdout}`"),
    ("metrics", TELEMETRY, METRICS),
    ("threads", RUNTIME, WORKERS),
    ("cpus", RUNTIME, WORKERS),
    ("concurrency", RUNTIME, WORKERS),
    ("worker_processes", RUNTIME, WORKERS),
    ("client_max_body_size", LIMITS, "leave it out: Ringway streams bodies and cannot limit them"),
    ("max_body_size", LIMITS, "leave it out: Ringway streams bodies and cannot limit them"),
    ("max_header_size", LIMITS, "write `header_bytes: 60KiB`"),
    ("jwks_uri", PROVIDER, "write `jwks: {url: {=https://...}}`"),
    ("jwks_url", PROVIDER, "write `jwks: {url: {=https://...}}`"),
    ("from_headers", PROVIDER, "write `header: NAME`"),
    ("uri", KEYS, "write `url: {=https://...}`"),
    ("remote", KEYS, "write `url: {|uri|url=https://...}`"),
    ("local", KEYS, "write `file: {|path|file=FILE}`"),
];
