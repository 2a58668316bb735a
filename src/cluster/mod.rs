//! Compiled services and their endpoints. A service is immutable. Its endpoints are in a cell that
//! is replaced, because they change more often.

mod cells;
mod set;

use std::collections::HashSet;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::balance::{Level, Locality, Policy, Position};
use crate::cells::PerWorker;
use crate::grpc::methods::Methods;
use crate::health::{
    Changes, Check, HealthState, OutlierDetection, OutlierState, Reason, SlowStart, State,
    Thresholds, Warmup,
};
use crate::http2::Settings;
use crate::jwt::Requirement;
use crate::net::{Address, DnsName, Egress};
use crate::proxy_protocol::SendProxyProtocol;
use crate::quic::ClientQuic;
use crate::resilience::{GlobalLimit, LimitList, RetryBudget, RetryPolicy};
use crate::standard::Target;
use crate::time::Time;
use crate::tls::ClientTls;

pub use crate::resilience::{CircuitBreaker, Concurrency, Hedged, Limit, Mirrored};
pub use cells::{EndpointCells, ServiceCells, ZoneCells};
pub use set::{EndpointSet, Endpoints, ServiceCandidates, Subset};

/// An endpoint: one instance of a service.
#[derive(Debug)]
pub struct Endpoint {
    /// The address of the endpoint.
    pub address: Address,
    /// The share of traffic relative to the other endpoints. The default is 1. An endpoint with 0
    /// gets no traffic.
    pub weight: u32,
    /// The zone of the endpoint, such as `eu/a`.
    pub zone: Option<Box<str>>,
    /// The priority of the endpoint, and its distance from this proxy.
    pub level: Level,
    /// The counters of the endpoints with the same zone and level. `None` if no endpoint of the
    /// service has a zone or a priority.
    pub zone_stats: Option<Arc<PerWorker<ZoneCells>>>,
    /// The version of the service that the endpoint runs. `None` if the service has no versions.
    pub version: Option<Box<str>>,
    /// The health state. `None` means that the endpoint is not checked. It is kept over reloads.
    pub health: Option<Arc<HealthState>>,
    /// The state of outlier detection. `None` without outlier detection. It is kept over reloads.
    pub outlier: Option<Arc<OutlierState>>,
    /// When the slow start of the endpoint began. `None` without slow start. It is kept over
    /// reloads.
    pub warmup: Option<Arc<Warmup>>,
    /// The counters. They are kept over reloads while the address stays the same.
    pub stats: Arc<PerWorker<EndpointCells>>,
}

impl Endpoint {
    /// Whether both endpoints have the same address and version. Such endpoints share their state.
    pub fn is_same(&self, other: &Self) -> bool {
        self.address == other.address && self.version == other.version
    }

    /// The state that decides whether the endpoint gets requests. An ejected endpoint counts as
    /// unhealthy. `None` if the endpoint has neither a health check nor outlier detection.
    pub fn state(&self) -> Option<State> {
        let checked = self.health.as_deref().map(HealthState::state);
        match &self.outlier {
            Some(outlier) if outlier.is_ejected() => Some(State::Unhealthy),
            Some(_) => Some(checked.unwrap_or(State::Healthy)),
            None => checked,
        }
    }

    /// Records the result of a health check that ended at `now`. Returns the new state if it has
    /// changed. A recovered endpoint begins a slow start.
    pub fn hear_check(
        &self,
        outcome: Result<(), (Reason, String)>,
        thresholds: Thresholds,
        now: Time,
        now_unix_s: u64,
    ) -> Option<State> {
        let health = self.health.as_ref()?;
        if let Some(warmup) = self.warmup.as_ref().filter(|_| health.state() != State::Healthy) {
            // Begin before the state changes, so that a worker that reads the change also reads the
            // beginning.
            warmup.begin(now);
        }
        health.hear(outcome, thresholds, now_unix_s)
    }

    /// The state of the endpoint. `None` also if its weight is 0.
    pub fn weighted_state(&self) -> Option<State> {
        self.state().filter(|_| self.weight > 0)
    }
}

/// The protocol that the endpoints of a service use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2.
    Http2,
    /// gRPC, over HTTP/2.
    Grpc,
    /// HTTP/2 if the endpoint chooses it by ALPN, else HTTP/1.1.
    Auto,
    /// HTTP/3, over QUIC.
    Http3,
    /// Opaque bytes over TCP.
    Tcp,
}

/// How requests for the endpoints of a service use QUIC where TCP works, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beside {
    /// The endpoints are proxies of the mesh that accept QUIC (`mesh.transport: quic`).
    Mesh {
        /// The UDP port of proxies that capture the traffic of their workload. `None` means the
        /// port of the endpoint.
        port: Option<u16>,
    },
    /// The endpoints may offer QUIC in responses (`alt-svc`).
    Learned,
}

impl fmt::Display for Beside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Learned => f.write_str("QUIC where `alt-svc` offers it, else TCP"),
            Self::Mesh { port: None } => f.write_str("QUIC, or TCP where QUIC fails"),
            Self::Mesh { port: Some(port) } => {
                write!(f, "QUIC to port {port}, or TCP where QUIC fails")
            }
        }
    }
}

/// The endpoints of a service in Kubernetes.
#[derive(Debug)]
pub struct Slices {
    /// The namespace, the name of the service and the name of its port: `shop/web/http`.
    pub name: Box<str>,
    /// The zone of this proxy, to compare it with those of later endpoints.
    pub position: Position,
}

/// A service: its endpoints, and the settings of connections to them.
#[derive(Debug)]
pub struct Service {
    /// The name of the service in the configuration.
    pub name: Box<str>,
    /// The protocol of the endpoints.
    pub protocol: Protocol,
    /// The virtual addresses. Captured connections to them are forwarded to any endpoint.
    pub addresses: Vec<SocketAddr>,
    /// The mark, the source address and the TCP settings of connections to the endpoints.
    pub egress: Egress,
    /// The current endpoints.
    pub endpoints: EndpointSet,
    /// The DNS name whose addresses are the endpoints. `None` when the endpoints are configured.
    pub dns_name: Option<DnsName>,
    /// The name in Consul. `None` when the endpoints come from elsewhere.
    pub consul_name: Option<Box<str>>,
    /// The endpoints in Kubernetes. `None` when they come from elsewhere.
    pub slices: Option<Box<Slices>>,
    /// The source that may replace the endpoints alone. `None` when they come with the rest.
    pub source: Option<Box<str>>,
    /// The zone and the level of all addresses of the DNS name. `None` if the zone is unknown.
    pub dns_zone: Option<(Box<str>, Level)>,
    /// The load balancing policy.
    pub policy: Policy,
    /// The preference for near endpoints. `None` if all endpoints have the same level.
    pub locality: Option<Locality>,
    /// The settings of HTTP/3. `None` unless the protocol is HTTP/3, or `beside` allows it.
    pub http3: Option<ClientQuic>,
    /// The way over QUIC beside the one over TCP. `None` means that there is none.
    pub beside: Option<Beside>,
    /// The TLS settings for connections to the endpoints. `None` means no TLS.
    pub tls: Option<Arc<ClientTls>>,
    /// The token that requests must have. A requirement of the route replaces it.
    pub jwt: Option<Arc<Requirement>>,
    /// The time limit for opening a connection, including the TLS handshake.
    pub connect_timeout: Duration,
    /// If opening a connection takes this long, another endpoint is tried at the same time.
    pub connect_hedge: Duration,
    /// The status of the response to a request while there are no endpoints.
    pub empty_status: u16,
    /// The time limit from the head of a request to the end of the response. `None` means no limit.
    pub timeout: Option<Duration>,
    /// When and how often requests are retried. `None` means that they are not retried.
    pub retries: Option<Arc<RetryPolicy>>,
    /// The retry budget. `None` if neither the service nor a rule to it has a retry policy. It is
    /// kept over reloads.
    pub retry_budget: Option<Arc<RetryBudget>>,
    /// The circuit breaker. `None` means no limits. Its slots in use are kept over reloads.
    pub breaker: Option<Arc<CircuitBreaker>>,
    /// The adaptive limit on requests in flight. `None` means no limit. Its state is kept over
    /// reloads.
    pub concurrency: Option<Arc<Concurrency>>,
    /// The rate limit on requests to the service.
    pub rate_limits: LimitList,
    /// The limit that a rate limit service counts.
    pub global_limit: Option<Arc<GlobalLimit>>,
    /// The maximum time in which no byte of an exchange passes, in either direction. `None` means
    /// the time of the listener.
    pub stream_idle_timeout: Option<Duration>,
    /// How long a pooled connection is kept while it is idle.
    pub idle_timeout: Duration,
    /// The maximum number of idle connections to each endpoint, over all workers.
    pub max_idle_connections: u32,
    /// The PROXY protocol header to send first on each connection. `None` means no header.
    pub send_proxy_protocol: Option<SendProxyProtocol>,
    /// The counters of the gRPC methods that were called.
    pub methods: Arc<Methods>,
    /// The HTTP/2 settings for connections to the endpoints.
    pub http2: Settings,
    /// The health check of the endpoints. `None` means that no endpoint is checked.
    pub health: Option<Arc<Check>>,
    /// The outlier detection. `None` means that no endpoint is ejected.
    pub outlier: Option<OutlierDetection>,
    /// The slow start. `None` means that a new endpoint gets its full traffic at once.
    pub slow_start: Option<SlowStart>,
    /// If fewer endpoints than this percentage are healthy, all endpoints get requests.
    pub panic_percent: u8,
    /// Counts the state changes of the endpoints. `None` if they have no state. It is kept over
    /// reloads while the name of the service stays the same.
    pub changes: Option<Arc<Changes>>,
    /// The service in the labels of the standard metrics. `None` if they are off.
    pub target: Option<Arc<Target>>,
    /// The counters. They are kept over reloads while the name stays the same.
    pub stats: Arc<PerWorker<ServiceCells>>,
}

/// A destination of a rule: indices into `Snapshot::services` and [`Endpoints::subsets`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Index of the service in `Snapshot::services`.
    pub service: u32,
    /// Index of the subset in [`Endpoints::subsets`].
    pub subset: u32,
}

impl Destination {
    /// The original destination of a captured connection.
    pub const ORIGINAL: Self = Self { service: u32::MAX, subset: 0 };
}

impl Service {
    /// Starts to use the current endpoints at `now`: new ones begin their slow start, and outlier
    /// detection applies to exactly these. If they are the `first` endpoints of the service, none
    /// of them is new. Workers must not call this.
    pub fn begin(&self, now: Time, first: bool) {
        let list = &self.endpoints.load().list;
        let warmups = list.iter().filter_map(|endpoint| endpoint.warmup.as_ref());
        warmups.for_each(|warmup| warmup.begin_if_new(now, first));
        let Some(outlier) = &self.outlier else { return };
        let weighty = list.iter().filter(|endpoint| endpoint.weight > 0);
        let states = weighty.filter_map(|endpoint| endpoint.outlier.clone());
        // An endpoint that is in several versions has only one state.
        let mut seen = HashSet::new();
        let states = states.filter(|state| seen.insert(Arc::as_ptr(state)));
        outlier.group.follow(&outlier.policy, states.collect(), now);
    }

    /// Whether endpoints have a health check or outlier detection.
    pub fn is_judged(&self) -> bool {
        self.health.is_some() || self.outlier.is_some()
    }

    /// Returns a copy of the service with the same settings but only one endpoint, for traffic to
    /// exactly this endpoint.
    pub fn narrowed(&self, endpoint: Arc<Endpoint>) -> Self {
        let policy = Policy::RoundRobin;
        Self {
            name: self.name.clone(),
            protocol: self.protocol,
            addresses: Vec::new(),
            endpoints: EndpointSet::new(Endpoints::new(vec![endpoint], Vec::new(), &policy).into()),
            dns_name: None,
            consul_name: None,
            slices: None,
            source: None,
            dns_zone: None,
            egress: self.egress,
            policy,
            locality: None,
            http3: self.http3.clone(),
            beside: self.beside,
            tls: self.tls.clone(),
            jwt: self.jwt.clone(),
            connect_timeout: self.connect_timeout,
            connect_hedge: self.connect_hedge,
            empty_status: self.empty_status,
            timeout: self.timeout,
            retries: self.retries.clone(),
            retry_budget: self.retry_budget.clone(),
            breaker: self.breaker.clone(),
            concurrency: self.concurrency.clone(),
            rate_limits: self.rate_limits.clone(),
            global_limit: self.global_limit.clone(),
            stream_idle_timeout: self.stream_idle_timeout,
            idle_timeout: self.idle_timeout,
            max_idle_connections: self.max_idle_connections,
            send_proxy_protocol: self.send_proxy_protocol,
            methods: Arc::clone(&self.methods),
            http2: self.http2,
            health: None,
            outlier: None,
            slow_start: None,
            panic_percent: self.panic_percent,
            changes: None,
            target: self.target.clone(),
            stats: Arc::clone(&self.stats),
        }
    }
}
