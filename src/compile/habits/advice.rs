//! Advice that several words of other proxies share. The module `fill` describes the placeholders.

pub const BIND: &str = "write `bind: {@=IP:PORT}`";
pub const SERVICES: &str =
    "{sections=services are in `services`: services: {NAME: {endpoints: [IP:PORT]}}}";
pub const LISTENERS: &str = "what clients connect to is in `listeners`: \
    listeners: {NAME: {bind: {@=IP:PORT}}}; the rest is in `routes` and `services`";
pub const KUBERNETES: &str = "this is a part of an object of Kubernetes; a file of Ringway has \
    the sections listeners, routes and services";
pub const ROUTES: &str = "{routes=rules are in `routes`, by host: routes: {HOST: [{to: SERVICE}]}}";
pub const CERTIFICATES: &str = "write `tls: {cert: FILE, key: FILE}` in the listener";
pub const LISTENER_TLS: &str = "write `tls: {cert: FILE, key: FILE}`";
pub const LISTENER_CERT: &str = "write `tls: {cert: {=FILE}, key: FILE}`";
pub const LISTENER_KEY: &str = "write `tls: {cert: FILE, key: {=FILE}}`";
pub const WORKERS: &str = "write `workers: {#=auto}`; `auto`, the default, is one worker per CPU";
pub const RUNTIME_WORKERS: &str =
    "write `runtime: {workers: {#=auto}}`; `auto`, the default, is one worker per CPU";
pub const TRACING: &str = "write `tracing: {otlp: http://HOST:4318}`";
pub const OTLP_ALONE: &str = "write `otlp: http://HOST:4318`: spans are sent as OTLP alone, which \
    Jaeger and most collectors accept";
pub const TRACING_SECTION: &str = "write `telemetry: {tracing: {otlp={otlp: http://HOST:4318}}}`";
pub const TRACING_OF_ALL: &str = "write at the top of the file: \
    `telemetry: {tracing: {otlp={otlp: http://HOST:4318}}}`; it is for all requests";
pub const ACCESS_LOG: &str =
    "write `telemetry: {access_log: {path: {|path|output|file|filepath=stdout}}}`";
pub const LOG_LEVEL: &str = "the level of the messages of the process is a variable of its \
    environment: {loglevel=RUST_LOG=info}";
pub const LOG_SECTION: &str = "{logsection=write `telemetry: {access_log: {path: stdout}}`}";
pub const PROVIDERS: &str = "files are given by -c; `sources` has the others: etcd, consul, \
    kubernetes and xds; token issuers are in `jwt`";
pub const HOSTS: &str = "a host is a key of `routes`: routes: {{hostrules=HOST: [{to: SERVICE}]}}";
pub const HOPS: &str =
    "write `trusted_hops: {#=N}`, the number of trusted proxies in front of this one";
pub const RULES: &str = "a listener serves all rules of `routes`; \
    write rules there, by host: routes: {HOST: [{to: SERVICE}]}";
pub const DEFAULT: &str = "a listener serves all rules of `routes`; \
    write the rule for all hosts: routes: {\"*\": [{{toservice=to: SERVICE}}]}";
pub const MATCH_PATH: &str = "a path is part of `match`: match: {path: {pathbelow=PATH/*}}, \
    or {path: {pathalone=PATH}} for that path alone";
pub const RULE_OF_TRAEFIK: &str = "{traefik=a path is part of `match`: match: {path: PATH/*}}";
pub const BELOW: &str =
    "write `path: {pathbelow=PATH/*}`, which is {pathalone=PATH} and all paths below it";
pub const PATH_KEYS: &str = "a host has a list of rules, and a path is part of `match`: \
    [{paths={match: {path: PATH/*}, to: SERVICE}}]";
pub const RESOLVERS: &str = "leave it out: the servers of /etc/resolv.conf are asked";
pub const HSTS: &str = "write `headers: {response: {set: {strict-transport-security: max-age=N}}}`";
pub const NO_REQUESTS_MAX: &str = "leave it out: a connection to an endpoint has no such limit; \
    `requests_per_connection` of a listener is for clients";
pub const PREFIX: &str = "write `path: {pathbelow=PATH/*}`, which is {pathalone=PATH} and all \
    paths below it{orbegins=}";
pub const PATH: &str = "write `path: {pathwords=PATH/*`, `path: PATH` or `path: ~REGEX`}";
pub const EXACT: &str = "write `path: {pathalone=PATH}`";
pub const REGEX: &str = "write `path: {regex=~REGEX}`, which is for the whole path";
pub const TO: &str = "write `{target=to: NAME`, and `services: {NAME: {endpoints: [IP:PORT]}}}`";
pub const SPLIT: &str = "weights are part of `to`, in one rule with all of them: \
    to: {{weighted|weights=NAME: N, NAME: N}}";
pub const STRIP: &str = "match {path: {pathbelow=PATH/*}} and write `rewrite: {prefix: /}`: \
    it replaces {pathdir=PATH/}";
pub const ANSWER: &str = "write `{answer=respond: {status: STATUS, body: TEXT}` or \
    `redirect: {scheme: https, host: HOST, path: PATH}}`";
pub const PREFIX_REWRITE: &str = "write `rewrite: {prefix: {pathdir=PATH/}}`; \
    it replaces the part before the * of match {path: {oldpath=PREFIX/*}}";
pub const HOST_REWRITE: &str = "write `rewrite: {host: {hostname=NAME}}`";
pub const AUTO_HOST: &str = "write `rewrite: {host: {dnshost=NAME}}`, the host of the service";
pub const NO_REGEX: &str = "there is no rewriting by regex; `prefix` and `path` replace text";
pub const REWRITES: &str = "write `rewrite: {prefix: PATH/}` with match {path: PREFIX/*}, \
    `rewrite: {path: PATH}` or `rewrite: {host: NAME}`";
pub const EDIT: &str = "write `headers: {request: {set: {{pairs=NAME: VALUE}}}}`; `add` adds to \
    values that are there, `remove: [NAME]` removes; `response` is for the way back{novariables=}";
pub const ADD_TO_REQUEST: &str = "write `headers: {request: {add: {{pairs=NAME: VALUE}}}}`, \
    or `set` to replace values that are there{novariables=}";
pub const ADD_TO_RESPONSE: &str = "write `headers: {response: {add: {{pairs=NAME: VALUE}}}}`, \
    or `set` to replace values that are there{novariables=}";
pub const EDIT_RESPONSE: &str = "write `headers: {response: {set: {{pairs=NAME: VALUE}}}}`; `add` \
    adds to values that are there, `remove: [NAME]` removes";
pub const EDIT_SIDE: &str = "write `headers: {request: {{key=set}: {value={NAME: VALUE}}}}`, \
    or `response` for the way back";
pub const EDITS_OF: &str = "write `set: {{fields=NAME: VALUE}}`; \
    `add` adds to values that are there, and `remove: [NAME]` removes";
pub const WEBSOCKET: &str = "leave it out: WebSockets pass without a setting";
pub const ENDPOINTS: &str = "write `{reach=endpoints: [IP:PORT]`, or for a name `dns: HOST:PORT}`";
pub const SERVICE_ADDRESS: &str =
    "write `{reach=endpoints: [IP:PORT]}`; `addresses` are virtual ones";
pub const DNS: &str = "write `dns: HOST:PORT`";
pub const BALANCE: &str = "write `balance: round-robin` (or least-request, random, peak-ewma, \
    {hash: source-ip}); the default is least-request";
pub const LOAD_BALANCER: &str = "write `{reach=endpoints: [IP:PORT, ...]}` for its servers, \
    and `balance: round-robin` for the algorithm";
pub const CHECK: &str = "write `health_check: {tcp: true}` to open a connection, \
    or {http: /healthz} or {grpc: true} to ask the service";
pub const CHECK_HTTP: &str =
    "write `health_check: {http: {checkpath=PATH}}`, {grpc: true} or {tcp: true}";
pub const CHECK_PATH: &str = "write `http: {checkpath=PATH}`, \
    or `http: {path: {checkpath=PATH}, status: STATUS}`";
pub const CHECK_STATUS: &str = "write `http: {path: /healthz, status: [{*=STATUS}]}`";
pub const BACKUP: &str = "write `priority: 1` in place of it: this endpoint gets requests when \
    too few of the others are healthy, by `health_check` or `outlier_detection`";
pub const VERSIONS: &str = "write `versions: {{versions=VERSION: [IP:PORT]}}` \
    in place of `endpoints`";
pub const STICKY: &str = "write `balance: {hash: {cookie: {name=NAME}}}`; \
    the service has to set this cookie";
pub const ADDRESS: &str = "write `{endpoint=address: IP:PORT`, IP and port together}";
pub const SKIP_VERIFY: &str = "write `verify: none`; it accepts anyone, so prefer `ca: FILE`";
pub const IDENTITIES: &str = "write `identities: [{*=spiffe://...}]`";
pub const ACME: &str = "write `cert: FILE, key: FILE`: Ringway does not get certificates itself; \
    let certbot or cert-manager write the files: a change of them is applied at once";
pub const ACME_FOR_ALL: &str = "write `tls: {cert: FILE, key: FILE}` in the listener: \
    Ringway does not get certificates itself; certbot or cert-manager may write the files";
pub const TIMES: &str = "write `timeouts: {header: 10s, stream_idle: 5m, keep_alive: 60s}` \
    in a listener, `connect_timeout` and `timeout` in a service, or `timeout` in a rule";
pub const CLIENT_TIMES: &str = "write `stream_idle: {~ms|none=TIME}` for silence in both \
    directions, `request_body: {~ms|none=TIME}` for a pause within a request, \
    and `keep_alive: {~ms=TIME}` for the time between requests";
pub const SERVER_TIMES: &str = "write `stream_idle: {~ms|none=TIME}` for silence in both \
    directions; `timeout: {~ms|none=TIME}` of a rule or service limits a whole response";
pub const READ_TIMES: &str = "write `stream_idle_timeout: {~|none=TIME}` for silence in both \
    directions; `retries: {attempts: 0, per_try_timeout: {~=TIME}}` limits the wait for a head, \
    and `timeout` all of a response";
pub const SEND_TIME: &str = "write `stream_idle_timeout: {~|none=TIME}`: it counts both directions";
pub const BODY_IDLE: &str = "write `stream_idle_timeout: {~|none=TIME}` for silence in both \
    directions, and `request_body_timeout: {~|none=TIME}` for a pause within a request";
pub const BODY_IDLES: &str = "write `stream_idle: {~|none=TIME}` for silence in both \
    directions, and `request_body: {~|none=TIME}` for a pause within a request";
pub const REQUEST_TIMES: &str = "write `header: {~ms=TIME}` for the head of a request; \
    `timeout` of a rule or service limits a whole request";
pub const URL_PARTS: &str = "name the parts: {{urlparts=scheme: https, host: HOST, path: PATH}}; \
    without `path` the path stays";
pub const METRICS: &str =
    "leave it out: GET /metrics of the admin interface (`admin.bind`) has them";
pub const HTTPS: &str = "write `redirect_https: true` in the listener without `tls`, and take this \
    rule out, with its host if it was the only rule there; for some paths alone, \
    `redirect: {scheme: https}` below a host with its port: \"*:PORT\"";
pub const HTTPS_OF_NGINX: &str = "there are no variables: the other parts of the URL stay. \
    Write `redirect_https: true` in the listener without `tls`, and take this rule out, with its \
    host if it was the only rule there; for some paths alone, `redirect: {scheme: https}` below a \
    host with its port: \"*:PORT\"";
pub const REDIRECT_WITH_STATUS: &str = "write `{answer=redirect: {scheme: https, host: HOST, \
    path: PATH, status: STATUS}}`; the parts that you leave out stay";
pub const REDIRECT_RULE: &str = "write `redirect_https: true`; for some hosts or paths alone, \
    write rules below a host with its port: routes: {\"*:PORT\": [{redirect: {scheme: https}}]}";
pub const CLIENTS: &str = "a rule cannot choose by address; to let only it in: authorization: \
    [{clients={action: allow, from: {ips: [CIDR]}, to: {service: SERVICE}}}]";
pub const ALLOWED: &str = "write at the top of the file: authorization: \
    [{allowed={action: allow, from: {ips: [CIDR]}, to: {service: SERVICE}}}]";
pub const DENIED: &str = "{denied=write at the top of the file: authorization: \
    [{action: deny, from: {ips: [CIDR]}, to: {service: SERVICE}}]}";
pub const ALLOWED_HERE: &str = "write at the top of the file: authorization: \
    [{action: allow, from: {ips: [{cidrs=CIDR}]}, to: {ports: [{ownport=PORT}]}}]";
pub const DENIED_HERE: &str = "{denyall=write at the top of the file: authorization: \
    [{action: deny, from: {ips: [CIDR]}, to: {ports: [PORT]}}]}";
pub const WHEN_OF_ISTIO: &str =
    "{istiowhen=write `headers: {NAME: VALUE}` or `claims: {NAME: VALUE}`}";
pub const HOST_IS_KEPT: &str =
    "leave it out: Host is passed on; a rule's `rewrite: {host: NAME}` changes it";
pub const CLIENT_CA: &str = "write `client_ca: FILE`, and `client_auth: optional` if need be";
pub const TLS_MODE: &str = "SIMPLE is {ca: FILE}, MUTUAL adds `cert` and `key`, \
    ISTIO_MUTUAL is `tls: mesh`; for DISABLE leave `tls` out";
pub const MERGE: &str = "merge keys of YAML do not work here; write the entries out";
pub const TRAFFIC_POLICY: &str =
    "write its parts here: balance, tls, health_check, outlier_detection";
pub const OUTLIER: &str = "write `outlier_detection: {consecutive_5xx: {#=N}}`";
pub const MAX_FAILS: &str = "write `outlier_detection: {consecutive_5xx: 0, \
    consecutive_local_failures: {#=N}}` in the service: attempts without a response count";
pub const FAIL_TIMEOUT: &str =
    "write `outlier_detection: {base_ejection_time: {~=TIME}}` in the service";
pub const RETRY: &str = "write `retries: {attempts: {#|num_retries|attempts=N}, \
    on: [{*retry_on=CONDITION}]}`";
pub const RATE_LIMIT: &str = "write `rate_limit: {{bucket=requests: N, per: 1s}}`; \
    with `by: source`, each client has its own";
pub const GLOBAL: &str = "write `rate_limit: {service: NAME, domain: NAME, descriptors: [source]}` \
    for a rate limit service; `rate_limit: {requests: N, per: 1s}` needs none";
pub const GLOBAL_SERVICE: &str = "write `service: NAME`, a service with `protocol: grpc`";
pub const GLOBAL_DESCRIPTORS: &str =
    "write `descriptors: [[{header: x-user}, path], source]`, a list of entries each";
pub const COUNT_REQUEST: &str = "write `attempt_count: request` (or `both`) in the `retries` of \
    the service; if it has none, write `retries: {attempts: 0, attempt_count: request}` there";
pub const COUNT_RESPONSE: &str = "write `attempt_count: response` (or `both`) in the `retries` of \
    the service; if it has none, write `retries: {attempts: 0, attempt_count: response}` there";
pub const HEDGE_OF_RULE: &str = "{hedged=leave it out if the `retries` of the service have a \
    `hedge`, or write `hedge: {after: p95}` there: `retries` of a rule replace all of those}";
pub const RULES_OF_ISTIO: &str = "{norules=each rule is an entry of `authorization`: \
    [{action: allow, from: {...}}]}";
/// The advice to hedge the requests of a rule that has `retries`.
pub const HEDGE: &str = "write `retries: {hedge: {after: p95}}`; a time instead of p95 works, too";
pub const ON: &str = "write `on: [{*=CONDITION}]`";
pub const IDLE_CONNECTIONS: &str = "write `max_idle_connections: {#=N}`; keep-alive probes of TCP \
    are in `tcp: {keepalive: ...}`";
pub const CLAIMS: &str = "write `jwt: PROVIDER` in the rule or service, \
    and `when: {claims: {sub: NAME}}` here";
pub const LIMIT_REQ: &str = "write `rate_limit: {{zone=requests: RATE, per: 1s, by: source}}`\
    {ofzone= with the rate of the zone}; `by` gives each client its own";
pub const BANDWIDTH: &str = "write `rate_limit: {bytes: {size=SIZE}, per: 1s, by: source}`, \
    a limit for each client; without `by`, all share it";
pub const SLOW: &str = "write `slow_start: {~=TIME}`";
pub const BUCKET: &str = "write `{bucket=requests: N, per: 1s}`; \
    `burst` is how many may come at once with the first one";
pub const NO_FILES: &str = "Ringway serves no files: let a file server do it, and name it as a \
    service: `to: NAME`";
