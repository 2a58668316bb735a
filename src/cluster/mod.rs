//! Services, as compiled from the configuration, and their endpoints. A service is immutable; its
//! endpoints are in a cell, because they change more often.

mod cells;
mod set;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::balance::Policy;
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
use crate::resilience::{GlobalLimit, RateLimit, RetryBudget, RetryPolicy};
use crate::time::Time;
use crate::tls::ClientTls;

pub use crate::resilience::{CircuitBreaker, Limit, Mirrored};
pub use cells::{EndpointCells, ServiceCells};
pub use set::{EndpointSet, Endpoints, ServiceCandidates, Subset};

/// One instance of a service.
#[derive(Debug)]
pub struct Endpoint {
    /// The address.
    pub address: Address,
    /// The share of traffic relative to the other endpoints; the default is 1. With 0, the endpoint
    /// gets no traffic.
    pub weight: u32,
    /// The zone, for locality (not used for choosing yet).
    pub zone: Option<Box<str>>,
    /// The version of the service that the endpoint belongs to, if the service has versions.
    pub version: Option<Box<str>>,
    /// The health. `None` means that the endpoint is not checked. It survives reloads.
    pub health: Option<Arc<HealthState>>,
    /// The state of outlier detection. `None` means that there is none. It survives reloads.
    pub outlier: Option<Arc<OutlierState>>,
    /// When the endpoint began to get traffic. `None` means that there is no slow start. It
    /// survives reloads.
    pub warmup: Option<Arc<Warmup>>,
    /// The counters. They survive reloads while the address stays the same.
    pub stats: Arc<PerWorker<EndpointCells>>,
}

impl Endpoint {
    /// Whether both have the same address and version. Such endpoints share their state.
    pub fn is_same(&self, other: &Self) -> bool {
        self.address == other.address && self.version == other.version
    }

    /// The state that decides whether the endpoint gets requests: an ejected endpoint is unhealthy.
    /// Returns `None` if nothing judges the endpoint.
    pub fn state(&self) -> Option<State> {
        let checked = self.health.as_deref().map(HealthState::state);
        match &self.outlier {
            Some(outlier) if outlier.is_ejected() => Some(State::Unhealthy),
            Some(_) => Some(checked.unwrap_or(State::Healthy)),
            None => checked,
        }
    }

    /// Records the result of a health check that ended at `now`. Returns the new state if it has
    /// changed. A recovered endpoint begins its slow start.
    pub fn hear_check(
        &self,
        outcome: Result<(), (Reason, String)>,
        thresholds: Thresholds,
        now: Time,
        now_unix_s: u64,
    ) -> Option<State> {
        let health = self.health.as_ref()?;
        if let Some(warmup) = self.warmup.as_ref().filter(|_| health.state() != State::Healthy) {
            // Begin before the state changes: a worker that sees the change has to see this, too.
            warmup.begin(now);
        }
        health.hear(outcome, thresholds, now_unix_s)
    }

    /// The state, unless the weight of the endpoint is 0.
    pub fn weighted_state(&self) -> Option<State> {
        self.state().filter(|_| self.weight > 0)
    }
}

/// The protocol of the endpoints of a service.
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
    /// Opaque bytes.
    Tcp,
}

/// A service: its endpoints, and the settings of connections to them.
#[derive(Debug)]
pub struct Service {
    /// The name in the configuration.
    pub name: Box<str>,
    /// The protocol of its endpoints.
    pub protocol: Protocol,
    /// The virtual addresses: captured connections to them go to any endpoint.
    pub addresses: Vec<SocketAddr>,
    /// The mark, the source address and the TCP settings of connections to the endpoints.
    pub egress: Egress,
    /// The endpoints.
    pub endpoints: EndpointSet,
    /// The name in DNS whose addresses are its endpoints. `None` when they are configured.
    pub dns_name: Option<DnsName>,
    /// The policy that chooses an endpoint.
    pub policy: Policy,
    /// TLS to the endpoints. `None` means plain text.
    pub tls: Option<Arc<ClientTls>>,
    /// The token requirement of requests. A requirement of the route replaces it.
    pub jwt: Option<Arc<Requirement>>,
    /// The time limit of connecting, including the TLS handshake.
    pub connect_timeout: Duration,
    /// When connecting takes this long, another endpoint is tried at the same time.
    pub connect_hedge: Duration,
    /// How long an exchange may take from its request head to the end of the response.
    pub timeout: Option<Duration>,
    /// Retries of failed requests. `None` means that there is no policy.
    pub retries: Option<Arc<RetryPolicy>>,
    /// The budget of retries. `None` if neither the service nor a rule to it has a policy. It
    /// survives reloads.
    pub retry_budget: Option<Arc<RetryBudget>>,
    /// The circuit breaker. `None` means no limits. Its taken slots survive reloads.
    pub breaker: Option<Arc<CircuitBreaker>>,
    /// The limit on the requests to the service.
    pub rate_limit: Option<Arc<RateLimit>>,
    /// The limit that a rate limit service counts.
    pub global_limit: Option<Arc<GlobalLimit>>,
    /// How long a pooled connection may wait for its next request.
    pub idle_timeout: Duration,
    /// Idle connections kept for each endpoint, over all workers.
    pub max_idle_connections: u32,
    /// The PROXY header to send first, if any.
    pub send_proxy_protocol: Option<SendProxyProtocol>,
    /// The gRPC methods that were called.
    pub methods: Arc<Methods>,
    /// The HTTP/2 settings for connections to the endpoints.
    pub http2: Settings,
    /// The health check of the endpoints. `None` means that no endpoint is checked.
    pub health: Option<Arc<Check>>,
    /// The outlier detection. `None` means that no endpoint is ejected.
    pub outlier: Option<OutlierDetection>,
    /// The slow start. `None` means that an endpoint has its whole share at once.
    pub slow_start: Option<SlowStart>,
    /// If fewer endpoints than this percentage are healthy, all endpoints get requests.
    pub panic_percent: u8,
    /// Counts the changes of the states of endpoints. `None` means that they have no state. It
    /// survives reloads while the name of the service stays the same.
    pub changes: Option<Arc<Changes>>,
    /// The counters. They survive reloads while the name stays the same.
    pub stats: Arc<PerWorker<ServiceCells>>,
}

/// A destination of a rule: indices into `Snapshot::services` and [`Endpoints::subsets`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Index of the service.
    pub service: u32,
    /// Index of the subset.
    pub subset: u32,
}

impl Destination {
    /// The original destination of a captured connection.
    pub const ORIGINAL: Self = Self { service: u32::MAX, subset: 0 };
}

impl Service {
    /// Begins to use the current endpoints at `now`: new ones begin their slow start, and outlier
    /// detection ejects exactly these. If they are the `first` endpoints, none is new. Not for
    /// workers.
    pub fn begin(&self, now: Time, first: bool) {
        let list = &self.endpoints.load().list;
        let warmups = list.iter().filter_map(|endpoint| endpoint.warmup.as_ref());
        warmups.for_each(|warmup| warmup.begin_if_new(now, first));
        let Some(outlier) = &self.outlier else { return };
        let weighty = list.iter().filter(|endpoint| endpoint.weight > 0);
        let states = weighty.filter_map(|endpoint| endpoint.outlier.clone());
        // An endpoint in several versions has one state.
        let mut seen = HashSet::new();
        let states = states.filter(|state| seen.insert(Arc::as_ptr(state)));
        outlier.group.follow(&outlier.policy, states.collect(), now);
    }

    /// Whether an endpoint may be unhealthy or ejected.
    pub fn is_judged(&self) -> bool {
        self.health.is_some() || self.outlier.is_some()
    }

    /// A copy of the service with only one endpoint and the same settings, for traffic to exactly
    /// this endpoint.
    pub fn narrowed(&self, endpoint: Arc<Endpoint>) -> Self {
        let policy = Policy::RoundRobin;
        Self {
            name: self.name.clone(),
            protocol: self.protocol,
            addresses: Vec::new(),
            endpoints: EndpointSet::new(Endpoints::new(vec![endpoint], Vec::new(), &policy).into()),
            dns_name: None,
            egress: self.egress,
            policy,
            tls: self.tls.clone(),
            jwt: self.jwt.clone(),
            connect_timeout: self.connect_timeout,
            connect_hedge: self.connect_hedge,
            timeout: self.timeout,
            retries: self.retries.clone(),
            retry_budget: self.retry_budget.clone(),
            breaker: self.breaker.clone(),
            rate_limit: self.rate_limit.clone(),
            global_limit: self.global_limit.clone(),
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
            stats: Arc::clone(&self.stats),
        }
    }
}
