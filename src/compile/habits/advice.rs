//! Advice that several words of other proxies have. See `fill` for the placeholders.

pub(super) const BIND: &str = "write `bind: {@=127.0.0.1:8080}`";
pub(super) const SERVICES: &str =
    "what requests go to is in `services`: services: {{services=app: {endpoints: [IP:PORT]}}}";
pub(super) const LISTENERS: &str = "what clients connect to is in `listeners`: \
    listeners: {web: {bind: {@=127.0.0.1:8080}}}; the rest is in `routes` and `services`";
pub(super) const KUBERNETES: &str = "this is an object of Kubernetes; a file of Ringway has the \
    sections listeners, routes and services";
pub(super) const ROUTES: &str = "rules are in `routes`, by host: routes: {\"*\": [{to: app}]}";
pub(super) const CERTIFICATES: &str = "write `tls: {cert: FILE, key: FILE}` in the listener";
pub(super) const LISTENER_TLS: &str = "write `tls: {cert: FILE, key: FILE}`";
pub(super) const LISTENER_CERT: &str = "write `tls: {cert: {=FILE}, key: FILE}`";
pub(super) const LISTENER_KEY: &str = "write `tls: {cert: FILE, key: {=FILE}}`";
pub(super) const WORKERS: &str =
    "write `workers: {#=auto}`; `auto`, the default, is one worker per CPU";
pub(super) const RUNTIME_WORKERS: &str =
    "write `runtime: {workers: {#=auto}}`; `auto`, the default, is one worker per CPU";
pub(super) const ACCESS_LOG: &str =
    "write `telemetry: {access_log: {path: {|path|output|file|filepath=stdout}}}`";
pub(super) const HOSTS: &str =
    "a host is a key of `routes`: routes: {{hostname=shop.example.com}: [{to: app}]}";
pub(super) const HOPS: &str =
    "write `trusted_hops: {#=1}`, the number of trusted proxies in front of this one";
pub(super) const RULES: &str = "a listener serves all rules of `routes`; \
    write rules there, by host: routes: {\"*\": [{to: app}]}";
pub(super) const DEFAULT: &str = "a listener serves all rules of `routes`; \
    write the rule for all hosts: routes: {\"*\": [{{toservice=to: app}}]}";
pub(super) const MATCH_PATH: &str = "a path is part of `match`: match: {path: {pathbelow=/api/*}}, \
    or {path: {pathalone=/api}} for that path alone";
pub(super) const PREFIX: &str =
    "write `path: {pathbelow=/api/*}`, which is {pathalone=/api} and all paths below it";
pub(super) const PATH: &str = "write `path: {pathmatch=/api/*`, `path: /exact` or `path: ~regex}`";
pub(super) const EXACT: &str = "write `path: {pathalone=/exact}`";
pub(super) const REGEX: &str = "write `path: {regex=~regex}`, which is for the whole path";
pub(super) const TO: &str =
    "write `{target=to: app`, and `services: {app: {endpoints: [127.0.0.1:9000]}}}`";
pub(super) const SPLIT: &str = "weights are part of `to`: to: {{weights=app/v1: 90, app/v2: 10}}";
pub(super) const STRIP: &str = "match {path: {pathbelow=/api/*}} and write `rewrite: {prefix: /}`: \
    it replaces {pathdir=/api/}";
pub(super) const ANSWER: &str =
    "write `{answer=respond: {status: 200, body: ok}` or `redirect: {scheme: https}}`";
pub(super) const PREFIX_REWRITE: &str =
    "write `rewrite: {prefix: {pathdir=/new/}}` with match {path: /old/*}, which it replaces";
pub(super) const HOST_REWRITE: &str = "write `rewrite: {host: {hostname=NAME}}`";
pub(super) const NO_REGEX: &str =
    "there is no rewriting by regex; `prefix` and `path` replace text";
pub(super) const REWRITES: &str = "write `rewrite: {prefix: /new/}` with match {path: /old/*}, \
    `rewrite: {path: /new}` or `rewrite: {host: NAME}`";
pub(super) const EDIT: &str = "write `headers: {request: {set: {NAME: VALUE}}}`; `add` adds to \
    values that are there, `remove: [NAME]` removes; `response` is for the way back";
pub(super) const ADD_TO_REQUEST: &str = "write `headers: {request: {add: {NAME: VALUE}}}`, \
    or `set` to replace values that are there";
pub(super) const ADD_TO_RESPONSE: &str = "write `headers: {response: {add: {NAME: VALUE}}}`, \
    or `set` to replace values that are there";
pub(super) const EDIT_SIDE: &str =
    "say of which message: {request: {set: {NAME: VALUE}}} or {response: ...}";
pub(super) const WEBSOCKET: &str = "leave it out: WebSockets pass without a setting";
pub(super) const ENDPOINTS: &str =
    "write `{reach=endpoints: [127.0.0.1:9000]`, or for a name `dns: HOST:PORT}`";
pub(super) const SERVICE_ADDRESS: &str =
    "write `{reach=endpoints: [127.0.0.1:9000]}`; `addresses` are virtual ones";
pub(super) const DNS: &str = "write `dns: HOST:PORT`";
pub(super) const BALANCE: &str = "write `balance: round-robin` (or least-request, random, \
    peak-ewma, {hash: source-ip}); the default is least-request";
pub(super) const LOAD_BALANCER: &str = "write `{reach=endpoints: [127.0.0.1:9000, ...]}` for its \
    servers, and `balance: round-robin` for the algorithm";
pub(super) const CHECK: &str = "write `health_check: {tcp: true}` to open a connection, \
    or {http: /healthz} or {grpc: true} to ask the service";
pub(super) const CHECK_HTTP: &str =
    "write `health_check: {http: {checkpath=/healthz}}`, {grpc: true} or {tcp: true}";
pub(super) const CHECK_PATH: &str = "write `http: {checkpath=/healthz}`, \
    or `http: {path: {checkpath=/healthz}, status: 200-399}`";
pub(super) const CHECK_STATUS: &str = "write `http: {path: /healthz, status: [{*=200-399}]}`";
pub(super) const BACKUP: &str = "there are no backup endpoints: take this one out; \
    without `backup`, it gets requests all the time";
pub(super) const NO_CONNECTION_LIMIT: &str = "there is no limit on connections to a service; \
    `max_idle_connections` is for unused ones, and `connections` of a listener for clients";
pub(super) const VERSIONS: &str = "write `versions: {v1: [127.0.0.1:9001], v2: [127.0.0.1:9002]}` \
    in place of `endpoints`";
pub(super) const STICKY: &str = "write `balance: {hash: {cookie: {name=NAME}}}`; \
    the service has to set this cookie";
pub(super) const ADDRESS: &str = "write `{endpoint=address: 127.0.0.1:9000`, IP and port together}";
pub(super) const SKIP_VERIFY: &str =
    "write `verify: none`; it accepts anyone, so prefer `ca: FILE`";
pub(super) const IDENTITIES: &str =
    "write `identities: [{*=spiffe://cluster.local/ns/shop/sa/web}]`";
pub(super) const ACME: &str = "write `cert: FILE, key: FILE`: Ringway does not get certificates \
    itself; let certbot or cert-manager write the files: a change of them is applied at once";
pub(super) const ACME_FOR_ALL: &str = "write `tls: {cert: FILE, key: FILE}` in the listener: \
    Ringway does not get certificates itself; certbot or cert-manager may write the files";
pub(super) const TIMES: &str = "write `timeouts: {header: 10s, body_idle: 60s, keep_alive: 60s}` \
    in a listener, `connect_timeout` and `timeout` in a service, or `timeout` in a rule";
pub(super) const CLIENT_TIMES: &str = "write `body_idle: {~=60s}` for silence within a body, \
    and `keep_alive: {~=60s}` for the time between requests";
pub(super) const SERVER_TIMES: &str = "write `body_idle: {~=60s}` for silence within a body, both \
    ways; `timeout: {~=60s}` of a rule or service limits a whole response";
pub(super) const READ_TIMES: &str = "write `body_idle: {~=60s}` for silence within a body; \
    `timeout: {~=60s}` would limit the whole response, and the wait for it";
pub(super) const REQUEST_TIMES: &str = "write `header: {~=10s}` for the head of a request; \
    `timeout` of a rule or service limits a whole request";
pub(super) const URL_PARTS: &str = "name the parts: {scheme: {urlscheme=https}, host: \
    {urlhost=HOST}}; without `path` the path stays";
pub(super) const METRICS: &str =
    "leave it out: GET /metrics of the admin interface (`admin.bind`) has them";
pub(super) const HTTPS: &str = "write `redirect_https: true` in the listener without `tls`; \
    for some paths alone, `redirect: {scheme: https}` below a host with its port: \"*:80\"";
pub(super) const REDIRECT_RULE: &str = "write `redirect_https: true`; for some hosts or paths \
    alone, write rules below a host with its port: \
    routes: {\"*:80\": [{redirect: {scheme: https}}]}";
pub(super) const CLIENTS: &str =
    "write a rule in `authorization`: {action: deny, from: {ips: [{*=10.0.0.0/8}]}}";
pub(super) const HOST_IS_KEPT: &str =
    "leave it out: Host is passed on; a rule's `rewrite: {host: NAME}` changes it";
pub(super) const CLIENT_CA: &str =
    "write `client_ca: FILE`, and `client_auth: optional` if need be";
pub(super) const TLS_MODE: &str =
    "SIMPLE is {ca: FILE}, MUTUAL adds `cert` and `key`, ISTIO_MUTUAL is `tls: mesh`";
pub(super) const MERGE: &str = "merge keys of YAML do not work here; write the entries out";
pub(super) const RETRY: &str = "write `retries: {attempts: {#|num_retries|attempts=2}, \
    on: [{*retry_on=connect-failure}]}`";
pub(super) const RATE_LIMIT: &str = "write `rate_limit: {{bucket=requests: 100, per: 1s}}`; \
    with `by: source`, each client has its own";
pub(super) const BUCKET: &str =
    "write `{bucket=requests: 100, per: 1s}`; `burst` is how many more may come at once";
pub(super) const ON: &str = "write `on: [{*=connect-failure}]`";
pub(super) const CLAIMS: &str = "write `jwt: PROVIDER` in the rule or service, \
    and `when: {claims: {sub: NAME}}` here";
