//! The wanted configuration, in a form that does not depend on its source: plain data. Each item
//! has its [`Origin`].
//!
//! Sources build models, [`Resources`] merges them, and `compile` makes a snapshot.

mod admin;
mod breaker;
mod fault;
mod health;
mod http2;
mod http3;
mod injected;
mod jwt;
mod listener;
mod locality;
mod mesh;
mod metrics;
mod mirror;
mod origin;
mod outlier;
mod overload;
mod patch;
mod policy;
mod rate_limit;
mod retry;
mod route;
mod service;
mod settings;
mod shift;
mod slow_start;
mod sources;
mod tls;
mod traces;

use std::collections::HashSet;
use std::sync::Arc;

pub use admin::{Admin, AdminBind, AdminPeer};
pub use breaker::{CircuitBreaker, Concurrency};
pub use fault::{Fault, Refusal, Severity};
pub use health::{GrpcProbe, HealthCheck, HealthProbe, HttpProbe};
pub use http2::{Http2, Http2Limits};
pub use http3::{Http3, Http3Limits, Retry};
pub use injected::{Abort, Bandwidth, Delay, InjectedFault, SHARE_PARTS};
pub use jwt::{TokenDemand, TokenKeys, TokenProvider};
pub use listener::{EscapedSlashes, ForwardClientCert, Listener, ListenerProtocol, Timeouts};
pub use locality::{Locality, Prefer, Zone};
pub use mesh::{
    Application, Exclude, Inbound, Intercept, InterceptBy, Mesh, Mtls, Outbound, PeerSource,
    PortProtocol, Probe, Udp,
};
pub use metrics::{MetricOverride, Metrics, RequestFact, StandardMetric, TagValue, WorkloadFacts};
pub use mirror::Mirror;
pub use origin::{Files, Item, Origin, Place, ResourceId};
pub use outlier::{FailurePercentage, OutlierDetection, SuccessRate};
pub use overload::{Overload, Priority, PriorityBy, Watched};
pub use patch::{Change, Kind, Merged, Patch, Precedence, Resource, Resources};
pub use policy::{Choices, Policy, PolicyAction, PolicyCondition, PolicyOperation, PolicySource};
pub use rate_limit::{DescriptorEntry, EntryFact, LimitBy, LimitHeaders, OnFailure, RateLimit};
pub use retry::{HedgeAfter, Retries};
pub use route::{
    Action, FieldEdits, Match, Redirect, Respond, Rewrite, Routes, Rule, Sticky, StickyCookie,
};
pub use service::{
    Balance, Endpoint, Endpoints, HashBy, SendProxyProtocol, Service, ServiceProtocol,
};
pub use settings::{
    AccessLog, Drain, Driver, Keepalive, Limits, LogSink, OutboundDrain, Settings, Tcp,
};
pub use shift::{AbortIf, Shift};
pub use slow_start::SlowStart;
pub use sources::{Consul, Etcd, Kubernetes, Sources, Xds};
pub use tls::{
    ClientAuth, ClientFiles, ClientTls, Identity, Material, ServerCertificate, ServerTls,
    TlsVersion,
};
pub use traces::{TraceForm, Tracing};

/// Items of the model. The models of successive configurations share unchanged items.
pub type Items<T> = Vec<Arc<Item<T>>>;

/// A wanted configuration.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// The names of the files that the places in origins refer to.
    pub files: Files,
    /// Settings of the process.
    pub settings: Settings,
    /// The identity of this workload, and the settings for captured traffic.
    pub mesh: Mesh,
    /// Listeners.
    pub listeners: Items<Listener>,
    /// Routes, by host.
    pub routes: Items<Routes>,
    /// Services.
    pub services: Items<Service>,
    /// Token issuers.
    pub providers: Items<TokenProvider>,
    /// The token requirement of all listeners for traffic to this workload. A rule or service may
    /// have its own. `None` means no requirement.
    pub token: Option<Item<TokenDemand>>,
    /// Authorization policies, in order.
    pub policies: Items<Policy>,
}

impl Model {
    /// Removes all items of the `refused` resources.
    pub fn leave_out(&mut self, refused: &HashSet<Arc<ResourceId>>) {
        keep(&mut self.listeners, refused);
        keep(&mut self.routes, refused);
        keep(&mut self.services, refused);
        keep(&mut self.providers, refused);
        keep(&mut self.policies, refused);
    }
}

fn keep<T>(items: &mut Items<T>, refused: &HashSet<Arc<ResourceId>>) {
    items.retain(|item| item.origin.resource().is_none_or(|id| !refused.contains(id)));
}
