//! DestinationRule: subsets of a service, and settings for the traffic to it.

use super::hosts::{Hosts, RuleOfHost};
use super::{Context, at};
use crate::model::{
    Balance, CircuitBreaker, ClientFiles, ClientTls, HashBy, Item, Keepalive, Locality,
    OutlierDetection, Place, Prefer, SendProxyProtocol, Service, ServiceProtocol, SlowStart, Tcp,
};
use crate::sources::objects::{Fields, Object};
use crate::time::NO_LIMIT;

/// A subset of a service.
#[derive(Clone, Debug)]
pub(super) struct Subset {
    pub(super) name: Item<String>,
    pub(super) labels: Vec<(Item<String>, Item<String>)>,
    pub(super) traffic: Traffic,
}

/// A `trafficPolicy`. `None` means the policy above it, or the default.
#[derive(Clone, Debug, Default)]
pub(super) struct Traffic {
    /// The place of the policy. `None` if there is none.
    pub(super) place: Option<Place>,
    balancer: Option<Balancer>,
    pool: Option<Pool>,
    outliers: Option<Item<OutlierDetection>>,
    tls: Option<Option<Item<ClientTls>>>,
    proxy_protocol: Option<SendProxyProtocol>,
    ports: Vec<(u16, Self)>,
}

#[derive(Clone, Debug, Default)]
struct Balancer {
    balance: Balance,
    locality: Option<Item<Locality>>,
    slow_start: Option<Item<SlowStart>>,
}

#[derive(Clone, Debug, Default)]
struct Pool {
    breaker: CircuitBreaker,
    connect_timeout: Option<std::time::Duration>,
    idle_timeout: Option<std::time::Duration>,
    tcp: Tcp,
    streams: Option<Item<u32>>,
    upgrade: bool,
}

/// Applies the policies for the port `port` to a service. A later policy of the list overrides an
/// earlier one.
pub(super) fn apply(service: &mut Service, policies: &[&Traffic], port: u16) {
    for policy in policies {
        let of_port = policy.ports.iter().find(|(known, _)| *known == port);
        match of_port {
            Some((_, own)) => set(service, own),
            None => set(service, policy),
        }
    }
}

fn set(service: &mut Service, policy: &Traffic) {
    let Traffic { balancer, pool, outliers, tls, proxy_protocol, .. } = policy;
    if let Some(balancer) = balancer {
        service.balance = balancer.balance.clone();
        service.locality.clone_from(&balancer.locality);
        service.slow_start.clone_from(&balancer.slow_start);
    }
    if let Some(pool) = pool {
        service.circuit_breaker = Some(pool.breaker.clone());
        service.connect_timeout = pool.connect_timeout;
        service.idle_timeout = pool.idle_timeout;
        service.tcp = pool.tcp.clone();
        service.http2.max_concurrent_streams.clone_from(&pool.streams);
        if pool.upgrade && service.protocol == ServiceProtocol::Http1 {
            service.protocol = ServiceProtocol::Http2;
        }
    }
    if outliers.is_some() {
        service.outlier_detection.clone_from(outliers);
    }
    if let Some(tls) = tls {
        service.tls.clone_from(tls);
    }
    if let Some(version) = proxy_protocol {
        service.send_proxy_protocol = *version;
    }
}

/// Reads a DestinationRule.
pub(super) fn destination_rule(cx: &mut Context<'_>, object: &Object, hosts: &mut Hosts) {
    let Some(mut spec) = cx.reader.spec(object) else { return };
    let before = cx.reader.count();
    let r = &mut cx.reader;
    let host = spec.string(r, "host");
    let traffic = traffic(cx, &mut spec, "trafficPolicy");
    let mut subsets = Vec::new();
    for node in spec.list(&mut cx.reader, "subsets") {
        let Some(mut fields) = Fields::of(&mut cx.reader, node, "a subset") else { continue };
        let name = fields.string(&mut cx.reader, "name");
        let labels = fields.texts(&mut cx.reader, "labels");
        let traffic = self::traffic(cx, &mut fields, "trafficPolicy");
        fields.finish(&mut cx.reader);
        match name {
            Some(name) => subsets.push(Subset { name, labels, traffic }),
            None => cx.reader.at(node.place, "this subset has no name", "write `name: NAME`"),
        }
    }
    let r = &mut cx.reader;
    let export_to = spec.strings(r, "exportTo");
    let selector = spec.map(r, "workloadSelector").map(|mut selector| {
        let labels = selector.texts(r, "matchLabels");
        selector.finish(r);
        labels
    });
    spec.finish(r);
    let Some(host) = host else {
        cx.reader.at(object.place, "there is no `host`", "write `host: NAME`");
        return;
    };
    if !cx.is_exported(&object.namespace, &export_to)
        || selector.is_some_and(|labels| !cx.has_labels(&labels))
    {
        return;
    }
    let full = hosts.full(&host.value, &object.namespace);
    if cx.reader.count() == before && !hosts.knows(&full) {
        let message = format!("no service has the host {full}");
        cx.reader.warn_item(&host, message, hosts.advice(&full));
        return;
    }
    let rule = RuleOfHost { title: object.title(), traffic, subsets };
    hosts.add_rule(cx, &Item::new(full, host.origin), rule);
}

fn traffic(cx: &mut Context<'_>, fields: &mut Fields<'_>, name: &'static str) -> Traffic {
    let Some(mut policy) = fields.map(&mut cx.reader, name) else { return Traffic::default() };
    let place = fields.place_of(name);
    let mut traffic = parts(cx, &mut policy, place);
    for node in policy.list(&mut cx.reader, "portLevelSettings") {
        let owner = "an element of `portLevelSettings`";
        let Some(mut fields) = Fields::of(&mut cx.reader, node, owner) else { continue };
        let port = fields.map(&mut cx.reader, "port").and_then(|mut port| {
            let number = port.number::<u16>(&mut cx.reader, "number");
            port.finish(&mut cx.reader);
            number
        });
        let own = parts(cx, &mut fields, node.place);
        fields.finish(&mut cx.reader);
        match port {
            Some(port) => traffic.ports.push((port.value, own)),
            None => cx.reader.at(node.place, "there is no port", "write `port: {number: PORT}`"),
        }
    }
    policy.refuse(&mut cx.reader, "tunnel", "leave it out");
    policy.refuse(&mut cx.reader, "retryBudget", "write `retries: {budget: ...}` in a service");
    if let Some(mut protocol) = policy.map(&mut cx.reader, "proxyProtocol") {
        let versions = [("V1", SendProxyProtocol::V1), ("V2", SendProxyProtocol::V2)];
        let version = protocol.one_of(&mut cx.reader, "version", &versions);
        traffic.proxy_protocol = Some(version.map_or(SendProxyProtocol::V1, |it| it.value));
        protocol.finish(&mut cx.reader);
    }
    policy.finish(&mut cx.reader);
    traffic
}

/// The parts that a policy and its settings for ports have in common.
fn parts(cx: &mut Context<'_>, policy: &mut Fields<'_>, place: Place) -> Traffic {
    Traffic {
        place: Some(place),
        balancer: balancer(cx, policy),
        pool: pool(cx, policy),
        outliers: outliers(cx, policy),
        tls: tls(cx, policy),
        ..Traffic::default()
    }
}

fn balancer(cx: &mut Context<'_>, policy: &mut Fields<'_>) -> Option<Balancer> {
    let r = &mut cx.reader;
    let mut fields = policy.map(r, "loadBalancer")?;
    let names = [
        ("UNSPECIFIED", Some(Balance::LeastRequest)),
        ("LEAST_REQUEST", Some(Balance::LeastRequest)),
        ("LEAST_CONN", Some(Balance::LeastRequest)),
        ("ROUND_ROBIN", Some(Balance::RoundRobin)),
        ("RANDOM", Some(Balance::Random)),
        ("PASSTHROUGH", None),
    ];
    let words: Vec<(&str, usize)> = names.iter().map(|(name, _)| *name).zip(0..).collect();
    let mut balancer = Balancer::default();
    if let Some(simple) = fields.one_of(r, "simple", &words) {
        match &names[simple.value].1 {
            Some(balance) => balancer.balance = balance.clone(),
            None => r.item(
                &simple,
                "`PASSTHROUGH` is not supported",
                "leave the host out of the mesh: unknown destinations pass unchanged",
            ),
        }
    }
    if let Some(mut hash) = fields.map(r, "consistentHash") {
        hash_key(cx, &mut hash, &mut balancer);
        hash.finish(&mut cx.reader);
    }
    let r = &mut cx.reader;
    if let Some(mut locality) = fields.map(r, "localityLbSetting") {
        let place = locality.place;
        let enabled = locality.boolean(r, "enabled");
        for name in ["distribute", "failover", "failoverPriority"] {
            locality.refuse(r, name, "write `locality` in a service of Ringway's own files");
        }
        locality.finish(r);
        if enabled.is_some_and(|enabled| !enabled.value) {
            let off = Locality { prefer: Some(Prefer::None), ..Locality::default() };
            balancer.locality = Some(Item::new(off, at(place)));
        }
    }
    balancer.slow_start = slow_start(cx, &mut fields);
    fields.finish(&mut cx.reader);
    Some(balancer)
}

fn slow_start(cx: &mut Context<'_>, fields: &mut Fields<'_>) -> Option<Item<SlowStart>> {
    let r = &mut cx.reader;
    let start = |window, aggression, min_percent| SlowStart { window, aggression, min_percent };
    let seconds = fields.duration(r, "warmupDurationSecs");
    if let Some(mut warmup) = fields.map(r, "warmup") {
        let window = warmup.duration(r, "duration");
        let percent = warmup.number::<f64>(r, "minimumPercent");
        let aggression = warmup.number::<f64>(r, "aggression");
        warmup.finish(r);
        let (percent, aggression) =
            (percent.map(|it| it.value as u8), aggression.map(|it| it.value));
        return window.map(|it| Item::new(start(it.value, aggression, percent), it.origin));
    }
    seconds.map(|it| Item::new(start(it.value, None, None), it.origin))
}

fn hash_key(cx: &mut Context<'_>, hash: &mut Fields<'_>, balancer: &mut Balancer) {
    let r = &mut cx.reader;
    let header = hash.string(r, "httpHeaderName").map(|name| HashBy::Header(name.value));
    let ip = hash.boolean(r, "useSourceIp").filter(|it| it.value).map(|_| HashBy::SourceIp);
    let cookie = hash.map(r, "httpCookie").and_then(|mut cookie| {
        let name = cookie.string(r, "name");
        let ttl = cookie.duration(r, "ttl");
        cookie.ignore("path");
        cookie.refuse(r, "attributes", "leave it out");
        cookie.finish(r);
        if let Some(ttl) = ttl.filter(|ttl| !ttl.value.is_zero()) {
            let help = "write `sticky: {cookie: {name: ...}}` in a rule of Ringway's own files";
            r.item(&ttl, "the proxy does not set the cookie of a hash", help);
        }
        name.map(|name| HashBy::Cookie(name.value))
    });
    hash.refuse(
        r,
        "httpQueryParameterName",
        "write `httpHeaderName`, `httpCookie` or `useSourceIp`",
    );
    // Sizes of tables: Ringway has one table for each set of endpoints, with a fixed size.
    hash.ignore("minimumRingSize");
    for name in ["ringHash", "maglev"] {
        if let Some(mut table) = hash.map(r, name) {
            table.ignore("minimumRingSize");
            table.ignore("tableSize");
            table.finish(r);
        }
    }
    match header.or(cookie).or(ip) {
        Some(key) => balancer.balance = Balance::Hash(key),
        None => {
            let help = "write `httpHeaderName`, `httpCookie` or `useSourceIp: true`";
            r.at(hash.place, "`consistentHash` has no key", help);
        }
    }
}

fn pool(cx: &mut Context<'_>, policy: &mut Fields<'_>) -> Option<Pool> {
    let r = &mut cx.reader;
    let mut fields = policy.map(r, "connectionPool")?;
    let mut pool = Pool::default();
    if let Some(mut tcp) = fields.map(r, "tcp") {
        pool.breaker.max_connections = tcp.number(r, "maxConnections");
        pool.connect_timeout = tcp.duration(r, "connectTimeout").map(|time| time.value);
        if let Some(mut alive) = tcp.map(r, "tcpKeepalive") {
            let place = alive.place;
            let keepalive = Keepalive {
                time: alive.duration(r, "time").map(|time| time.value),
                interval: alive.duration(r, "interval").map(|time| time.value),
                probes: alive.number(r, "probes").map(|probes| probes.value),
            };
            alive.finish(r);
            pool.tcp.keepalive = Some(Item::new(Some(keepalive), at(place)));
        }
        tcp.refuse(r, "maxConnectionDuration", "leave it out");
        tcp.refuse(r, "idleTimeout", "write `http: {idleTimeout: TIME}`");
        tcp.finish(r);
    }
    if let Some(mut http) = fields.map(r, "http") {
        pool.breaker.max_pending_requests = http.number(r, "http1MaxPendingRequests");
        pool.breaker.max_requests = http.number(r, "http2MaxRequests");
        pool.breaker.max_retries = http.number(r, "maxRetries").map(|max| max.value);
        pool.idle_timeout = http.duration(r, "idleTimeout").map(|time| match time.value {
            time if time.is_zero() => NO_LIMIT,
            time => time,
        });
        pool.streams = http.number(r, "maxConcurrentStreams");
        let upgrades = [("DEFAULT", false), ("DO_NOT_UPGRADE", false), ("UPGRADE", true)];
        let upgrade = http.one_of(r, "h2UpgradePolicy", &upgrades);
        pool.upgrade = upgrade.is_some_and(|upgrade| upgrade.value);
        http.refuse(r, "maxRequestsPerConnection", "leave it out");
        if http.boolean(r, "useClientProtocol").is_some_and(|it| it.value) {
            let help = "name the port `http-...`, `http2-...` or `grpc-...`";
            r.at(http.place_of("useClientProtocol"), "`useClientProtocol` is not supported", help);
        }
        http.finish(r);
    }
    fields.finish(r);
    Some(pool)
}

/// The default values are Istio's.
fn outliers(cx: &mut Context<'_>, policy: &mut Fields<'_>) -> Option<Item<OutlierDetection>> {
    let r = &mut cx.reader;
    let mut fields = policy.map(r, "outlierDetection")?;
    let place = fields.place;
    let all = fields.number::<u32>(r, "consecutive5xxErrors");
    let gateway = fields.number::<u32>(r, "consecutiveGatewayErrors");
    let split = fields.boolean(r, "splitExternalLocalOriginErrors");
    let local = fields.number::<u32>(r, "consecutiveLocalOriginFailures");
    fields.refuse(r, "consecutiveErrors", "write `consecutive5xxErrors`");
    let split = split.is_some_and(|split| split.value);
    let detection = OutlierDetection {
        consecutive_5xx: Some(all.map_or(5, |it| it.value)),
        consecutive_gateway_errors: gateway.map(|it| it.value),
        consecutive_local_failures: split.then(|| local.map_or(5, |it| it.value)),
        interval: fields.duration(r, "interval").map(|time| time.value),
        base_ejection_time: fields.duration(r, "baseEjectionTime").map(|time| time.value),
        max_ejection_percent: fields.number(r, "maxEjectionPercent"),
        panic_percent: fields
            .number(r, "minHealthPercent")
            .or_else(|| Some(Item::new(0, at(place)))),
        ..OutlierDetection::default()
    };
    fields.finish(r);
    Some(Item::new(detection, at(place)))
}

fn tls(cx: &mut Context<'_>, policy: &mut Fields<'_>) -> Option<Option<Item<ClientTls>>> {
    #[derive(Clone, Copy)]
    enum Mode {
        Disable,
        Simple,
        Mutual,
        Mesh,
    }
    let r = &mut cx.reader;
    let mut fields = policy.map(r, "tls")?;
    let modes = [
        ("DISABLE", Mode::Disable),
        ("SIMPLE", Mode::Simple),
        ("MUTUAL", Mode::Mutual),
        ("ISTIO_MUTUAL", Mode::Mesh),
    ];
    let mode = fields.one_of(r, "mode", &modes);
    for name in ["clientCertificate", "privateKey", "caCertificates", "caCrl", "credentialName"] {
        let help = "an object cannot name files of this host: write `tls` in a service of \
                    Ringway's own files";
        fields.refuse(r, name, help);
    }
    fields.refuse(r, "subjectAltNames", "write `sni`, or `subjectAltNames` in the ServiceEntry");
    let sni = fields.string(r, "sni");
    let unverified = fields.boolean(r, "insecureSkipVerify");
    let place = fields.place;
    fields.finish(r);
    match mode.as_ref().map(|mode| mode.value) {
        Some(Mode::Mesh) => Some(Some(Item::new(ClientTls::Mesh, at(place)))),
        Some(Mode::Simple) => {
            let unverified = unverified.is_some_and(|it| it.value);
            let files = ClientFiles { sni, unverified, ..ClientFiles::default() };
            Some(Some(Item::new(ClientTls::Files(Box::new(files)), at(place))))
        }
        Some(Mode::Mutual) => {
            let help = "write `tls: {ca: FILE, cert: FILE, key: FILE}` in a service of Ringway's \
                        own files";
            cx.reader.at(place, "the mode MUTUAL is not supported", help);
            None
        }
        Some(Mode::Disable) | None => Some(None),
    }
}
