//! Advice that several words of other proxies share. The module `fill` describes the placeholders.

pub const BIND: &str = "write `bind: {@=127.0.0.1:8080}`";
pub const SERVICES: &str =
    "what requests go to is in `services`: services: {{services=app: {endpoints: [IP:PORT]}}}";
pub const LISTENERS: &str = "what clients connect to is in `listeners`: \
    listeners: {web: {bind: {@=127.0.0.1:8080}}}; the rest is in `routes` and `services`";
pub const KUBERNETES: &str = "this is an object of Kubernetes; a file of Ringway has the sections \
    listeners, routes and services";
pub const ROUTES: &str = "rules are in `routes`, by host: routes: {\"*\": [{to: app}]}";
pub const CERTIFICATES: &str = "write `tls: {cert: FILE, key: FILE}` in the listener";
pub const LISTENER_TLS: &str = "write `tls: {cert: FILE, key: FILE}`";
pub const LISTENER_CERT: &str = "write `tls: {cert: {=FILE}, key: FILE}`";
pub const LISTENER_KEY: &str = "write `tls: {cert: FILE, key: {=FILE}}`";
pub const WORKERS: &str = "write `workers: {#=auto}`; `auto`, the default, is one worker per CPU";
pub const RUNTIME_WORKERS: &str =
    "write `runtime: {workers: {#=auto}}`; `auto`, the default, is one worker per CPU";
pub const ACCESS_LOG: &str =
    "write `telemetry: {access_log: {path: {|path|output|file|filepath=stdout}}}`";
pub const HOSTS: &str =
    "a host is a key of `routes`: routes: {{hostname=shop.example.com}: [{to: app}]}";
pub const HOPS: &str =
    "write `trusted_hops: {#=1}`, the number of trusted proxies in front of this one";
pub const RULES: &str = "a listener serves all rules of `routes`; \
    write rules there, by host: routes: {\"*\": [{to: app}]}";
pub const DEFAULT: &str = "a listener serves all rules of `routes`; \
    write the rule for all hosts: routes: {\"*\": [{{toservice=to: app}}]}";
pub const MATCH_PATH: &str = "a path is part of `match`: match: {path: {pathbelow=/api/*}}, \
    or {path: {pathalone=/api}} for that path alone";
pub const PREFIX: &str =
    "write `path: {pathbelow=/api/*}`, which is {pathalone=/api} and all paths below it";
pub const PATH: &str = "write `path: {pathmatch=/api/*`, `path: /exact` or `path: ~regex}`";
pub const EXACT: &str = "write `path: {pathalone=/exact}`";
pub const REGEX: &str = "write `path: {regex=~regex}`, which is for the whole path";
pub const TO: &str =
    "write `{target=to: app`, and `services: {app: {endpoints: [127.0.0.1:9000]}}}`";
pub const SPLIT: &str = "weights are part of `to`: to: {{weights=app/v1: 90, app/v2: 10}}";
pub const STRIP: &str = "match {path: {pathbelow=/api/*}} and write `rewrite: {prefix: /}`: \
    it replaces {pathdir=/api/}";
pub const ANSWER: &str =
    "write `{answer=respond: {status: 200, body: ok}` or `redirect: {scheme: https}}`";
pub const PREFIX_REWRITE: &str =
    "write `rewrite: {prefix: {pathdir=/new/}}` with match {path: /old/*}, which it replaces";
pub const HOST_REWRITE: &str = "write `rewrite: {host: {hostname=NAME}}`";
pub const NO_REGEX: &str = "there is no rewriting by regex; `prefix` and `path` replace text";
pub const REWRITES: &str = "write `rewrite: {prefix: /new/}` with match {path: /old/*}, \
    `rewrite: {path: /new}` or `rewrite: {host: NAME}`";
pub const EDIT: &str = "write `headers: {request: {set: {NAME: VALUE}}}`; `add` adds to values \
    that are there, `remove: [NAME]` removes; `response` is for the way back";
pub const ADD_TO_REQUEST: &str = "write `headers: {request: {add: {NAME: VALUE}}}`, \
    or `set` to replace values that are there";
pub const ADD_TO_RESPONSE: &str = "write `headers: {response: {add: {NAME: VALUE}}}`, \
    or `set` to replace values that are there";
pub const EDIT_SIDE: &str =
    "say of which message: {request: {set: {NAME: VALUE}}} or {response: ...}";
pub const WEBSOCKET: &str = "leave it out: WebSockets pass without a setting";
pub const ENDPOINTS: &str =
    "write `{reach=endpoints: [127.0.0.1:9000]`, or for a name `dns: HOST:PORT}`";
pub const SERVICE_ADDRESS: &str =
    "write `{reach=endpoints: [127.0.0.1:9000]}`; `addresses` are virtual ones";
pub const DNS: &str = "write `dns: HOST:PORT`";
pub const BALANCE: &str = "write `balance: round-robin` (or least-request, random, peak-ewma, \
    {hash: source-ip}); the default is least-request";
pub const LOAD_BALANCER: &str = "write `{reach=endpoints: [127.0.0.1:9000, ...]}` for its servers, \
    and `balance: round-robin` for the algorithm";
pub const CHECK: &str = "write `health_check: {tcp: true}` to open a connection, \
    or {http: /healthz} or {grpc: true} to ask the service";
pub const CHECK_HTTP: &str =
    "write `health_check: {http: {checkpath=/healthz}}`, {grpc: true} or {tcp: true}";
pub const CHECK_PATH: &str = "write `http: {checkpath=/healthz}`, \
    or `http: {path: {checkpath=/healthz}, status: 200-399}`";
pub const CHECK_STATUS: &str = "write `http: {path: /healthz, status: [{*=200-399}]}`";
pub const BACKUP: &str = "write `priority: 1` in place of it: this endpoint gets requests when \
    too few of the others are healthy";
pub const VERSIONS: &str = "write `versions: {v1: [127.0.0.1:9001], v2: [127.0.0.1:9002]}` \
    in place of `endpoints`";
pub const STICKY: &str = "write `balance: {hash: {cookie: {name=NAME}}}`; \
    the service has to set this cookie";
pub const ADDRESS: &str = "write `{endpoint=address: 127.0.0.1:9000`, IP and port together}";
pub const SKIP_VERIFY: &str = "write `verify: none`; it accepts anyone, so prefer `ca: FILE`";
pub const IDENTITIES: &str = "write `identities: [{*=spiffe://cluster.local/ns/shop/sa/web}]`";
pub const ACME: &str = "write `cert: FILE, key: FILE`: Ringway does not get certificates itself; \
    let certbot or cert-manager write the files: a change of them is applied at once";
pub const ACME_FOR_ALL: &str = "write `tls: {cert: FILE, key: FILE}` in the listener: \
    Ringway does not get certificates itself; certbot or cert-manager may write the files";
pub const TIMES: &str = "write `timeouts: {header: 10s, body_idle: 60s, keep_alive: 60s}` \
    in a listener, `connect_timeout` and `timeout` in a service, or `timeout` in a rule";
pub const CLIENT_TIMES: &str = "write `body_idle: {~=60s}` for silence within a body, \
    and `keep_alive: {~=60s}` for the time between requests";
pub const SERVER_TIMES: &str = "write `body_idle: {~=60s}` for silence within a body, both ways; \
    `timeout: {~=60s}` of a rule or service limits a whole response";
pub const READ_TIMES: &str = "write `body_idle: {~=60s}` for silence within a body; \
    `timeout: {~=60s}` would limit the whole response, and the wait for it";
pub const REQUEST_TIMES: &str = "write `header: {~=10s}` for the head of a request; \
    `timeout` of a rule or service limits a whole request";
pub const URL_PARTS: &str = "name the parts: {scheme: {urlscheme=https}, host: {urlhost=HOST}}; \
    without `path` the path stays";
pub const METRICS: &str =
    "leave it out: GET /metrics of the admin interface (`admin.bind`) has them";
pub const HTTPS: &str = "write `redirect_https: true` in the listener without `tls`; \
    for some paths alone, `redirect: {scheme: https}` below a host with its port: \"*:80\"";
pub const REDIRECT_RULE: &str = "write `redirect_https: true`; for some hosts or paths alone, \
    write rules below a host with its port: routes: {\"*:80\": [{redirect: {scheme: https}}]}";
pub const CLIENTS: &str =
    "write a rule in `authorization`: {action: deny, from: {ips: [{*=10.0.0.0/8}]}}";
pub const HOST_IS_KEPT: &str =
    "leave it out: Host is passed on; a rule's `rewrite: {host: NAME}` changes it";
pub const CLIENT_CA: &str = "write `client_ca: FILE`, and `client_auth: optional` if need be";
pub const TLS_MODE: &str =
    "SIMPLE is {ca: FILE}, MUTUAL adds `cert` and `key`, ISTIO_MUTUAL is `tls: mesh`";
pub const MERGE: &str = "merge keys of YAML do not work here; write the entries out";
pub const TRAFFIC_POLICY: &str =
    "write its parts here: balance, tls, health_check, outlier_detection";
pub const OUTLIER: &str = "write `outlier_detection: {consecutive_5xx: {#=5}}`";
pub const MAX_FAILS: &str = "write `outlier_detection: {consecutive_5xx: {#=5}}` in the service";
pub const FAIL_TIMEOUT: &str =
    "write `outlier_detection: {base_ejection_time: {~=30s}}` in the service";
pub const RETRY: &str = "write `retries: {attempts: {#|num_retries|attempts=2}, \
    on: [{*retry_on=connect-failure}]}`";
pub const RATE_LIMIT: &str = "write `rate_limit: {{bucket=requests: 100, per: 1s}}`; \
    with `by: source`, each client has its own";
pub const GLOBAL: &str = "write `rate_limit: {service: NAME, domain: NAME, descriptors: [source]}` \
    for a rate limit service; `rate_limit: {requests: 100, per: 1s}` needs none";
pub const GLOBAL_SERVICE: &str = "write `service: NAME`, a service with `protocol: grpc`";
pub const GLOBAL_DESCRIPTORS: &str =
    "write `descriptors: [[{header: x-user}, path], source]`, a list of entries each";
pub const ATTEMPT_COUNT: &str =
    "write `retries: {attempt_count: both}`; `request` or `response` for one of them";
pub const HEDGE: &str = "write `retries: {hedge: {after: p95}}`; a time instead of p95 works, too";
pub const ON: &str = "write `on: [{*=connect-failure}]`";
pub const CLAIMS: &str = "write `jwt: PROVIDER` in the rule or service, \
    and `when: {claims: {sub: NAME}}` here";
pub const BANDWIDTH: &str =
    "write `rate_limit: {bytes: 100KiB, per: 1s}`; with `by: source` for each client";
pub const SLOW: &str = "write `slow_start: {~=30s}`";
pub const BUCKET: &str =
    "write `{bucket=requests: 100, per: 1s}`; `burst` is how many more may come at once";
