//! The state of one worker for a snapshot: its services, rules and listeners.

use std::cell::{Cell, OnceCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use super::needed::Needed;
use super::passthrough::PassthroughPool;
use super::pool::{PoolTerms, Waiting};
use super::service::LocalService;
use crate::cells::PerWorker;
use crate::cluster::{Destination, Service};
use crate::observe::{TraceTerms, Wanted};
use crate::resilience::{GlobalLimit, LimitList};
use crate::route::Rule;
use crate::runtime::core::Core;
use crate::runtime::io::Io;
use crate::snapshot::{
    ForwardClientCert, Limits, Listener, ListenerCells, LogLines, Snapshot, Timeouts,
};
use crate::standard::{Fact, Reporter, Store};
use crate::time::Time;
use crate::tls::ClientTls;
use crate::wire::Wire;

/// A snapshot, and the state that one worker has for it. An exchange copies the few values that it
/// needs.
///
/// The state of a service and the handle of a rule are created when they are first used. In a large
/// configuration, a worker does not use most of them. While it prepares a snapshot, the worker
/// serves no requests, so this must be fast.
pub struct Local<I: Io> {
    /// The configuration that all workers share.
    pub snapshot: Arc<Snapshot>,
    /// The settings of each listener of the snapshot.
    pub listeners: Vec<Rc<Terms>>,
    /// The services for original destinations that are not virtual addresses of a service.
    pub passthrough: PassthroughPool<I>,
    /// The endpoints that have idle connections.
    pub waiting: Waiting<Wire<I::Stream>>,
    /// The state of each service of the snapshot, created at its first use.
    services: Vec<OnceCell<Rc<LocalService<I>>>>,
    /// The handle of each rule of the snapshot, created at its first use.
    rules: Vec<OnceCell<LocalRule>>,
    worker: usize,
    workers: usize,
    /// Whether a later snapshot has replaced this one.
    replaced: Cell<bool>,
}

/// A handle of a rule. Each worker has its own reference count, so that workers do not share it.
pub type LocalRule = Rc<Arc<Rule>>;

/// The settings of a listener that an exchange needs, without its routes.
pub struct Terms {
    /// The name of the listener.
    pub name: Box<str>,
    /// The counters of the listener.
    pub stats: Arc<PerWorker<ListenerCells>>,
    /// Time limits for clients.
    pub timeouts: Timeouts,
    /// The number of trusted proxies in front of this one.
    pub trusted_hops: u32,
    /// How the field `x-forwarded-client-cert` of a request is handled.
    pub forward_client_cert: ForwardClientCert,
    /// Whether requests without `x-request-id` get one.
    pub request_id: bool,
    /// The value of `alt-svc` in responses over TCP. `None` means that it is not added.
    pub alt_svc: Option<Box<str>>,
    /// The name of this proxy in an added `via` field. `None` means that no field is added.
    pub via: Option<Box<str>>,
    /// Whether a client that has closed its sending side counts as disconnected. `None` means that
    /// it counts only if its request asked for a persistent connection.
    pub abort_on_close: Option<bool>,
    /// The maximum number of requests on a connection.
    pub requests_max: u32,
    /// The limit on requests of the listener.
    pub rate_limits: LimitList,
    /// The limit that a rate limit service counts.
    pub global_limit: Option<Arc<GlobalLimit>>,
    /// The limits on messages and frames of peers.
    pub limits: Limits,
    /// The access log lines. `None` means no access log.
    pub access_log: Option<Arc<LogLines>>,
    /// The settings of tracing. `None` means that trace contexts pass unread.
    pub tracing: Option<Arc<TraceTerms>>,
    /// The header fields that the access log and the tags of spans read.
    pub wanted: Wanted,
    /// Where requests count for Istio's standard metrics. `None` means that they are off.
    pub standard: Option<Reports>,
}

/// Where the requests of a listener count for Istio's standard metrics.
#[derive(Clone)]
pub struct Reports {
    /// The series.
    pub store: Arc<Store>,
    /// The side that this listener reports.
    pub reporter: Reporter,
    /// The facts about requests that an override shows.
    pub facts: Arc<[Fact]>,
}

impl Terms {
    fn of(listener: &Listener, snapshot: &Snapshot) -> Rc<Self> {
        let tracing = snapshot.tracing.as_ref().map(|tracing| Arc::clone(&tracing.terms));
        let mut wanted = Wanted::default();
        let logged = snapshot.access_log.iter().map(|log| &log.lines.wanted);
        logged.chain(tracing.iter().map(|terms| &terms.wanted)).for_each(|it| wanted.extend(it));
        Rc::new(Self {
            name: listener.name.clone(),
            stats: Arc::clone(&listener.stats),
            timeouts: listener.timeouts,
            trusted_hops: listener.trusted_hops,
            forward_client_cert: listener.forward_client_cert,
            request_id: listener.request_id,
            alt_svc: listener.http3.as_ref().and_then(|http3| http3.alt_svc.clone()),
            via: listener.via.clone(),
            abort_on_close: listener.abort_on_close,
            requests_max: listener.requests_max,
            rate_limits: listener.rate_limits.clone(),
            global_limit: listener.global_limit.clone(),
            limits: snapshot.limits,
            access_log: snapshot.access_log.as_ref().map(|log| Arc::clone(&log.lines)),
            tracing,
            wanted,
            standard: snapshot.standard.as_ref().map(|standard| Reports {
                store: Arc::clone(&standard.store),
                facts: Arc::clone(&standard.facts),
                reporter: match listener.is_outbound() {
                    true => Reporter::Source,
                    false => Reporter::Destination,
                },
            }),
        })
    }
}

impl<I: Io> Local<I> {
    /// Creates the state before the first snapshot. It serves nothing.
    pub fn empty() -> Self {
        let snapshot = Arc::new(Snapshot::empty());
        Self {
            snapshot,
            listeners: Vec::new(),
            passthrough: PassthroughPool::default(),
            waiting: Waiting::default(),
            services: Vec::new(),
            rules: Vec::new(),
            worker: 0,
            workers: 1,
            replaced: Cell::new(false),
        }
    }

    /// Creates the state for `snapshot`. Endpoints that `old` also has keep their connections,
    /// unless the service opens its connections with other settings now: TLS, PROXY protocol,
    /// protocol, SO_MARK or source address.
    pub fn prepare(core: &Core<I>, old: &Self, snapshot: Arc<Snapshot>) -> Self {
        let terms = |listener: &Arc<Listener>| Terms::of(listener, &snapshot);
        let new = Self {
            listeners: snapshot.listeners.iter().map(terms).collect(),
            passthrough: PassthroughPool::default(),
            waiting: old.waiting.clone(),
            services: snapshot.services.iter().map(|_| OnceCell::new()).collect(),
            rules: snapshot.rules.iter().map(|_| OnceCell::new()).collect(),
            worker: core.index,
            workers: core.workers(),
            replaced: Cell::new(false),
            snapshot,
        };
        for before in old.used_services() {
            new.continued(before);
        }
        new
    }

    /// Replaces `old`. Drains the connections to endpoints that were removed.
    pub fn replace(&self, old: &Self) {
        old.replaced.set(true);
        for before in old.used_services() {
            if let Some(service) = self.continued(before) {
                service.begin(before);
            }
        }
        for service in old.used_services() {
            let next = self.snapshot.service_index(&service.name);
            service.end(next.and_then(|index| self.services[index].get()).map(|next| &**next));
        }
        old.passthrough.end();
    }

    /// Closes the idle connections that no listener in `accepting` needs. Such a service closes its
    /// other connections after their exchanges: no request would use them again.
    pub fn drain_pools(&self, accepting: impl Fn(&Listener) -> bool) {
        let listeners = self.snapshot.listeners.iter().map(|listener| &**listener);
        let needed = Needed::by(&self.snapshot, listeners.filter(|listener| accepting(listener)));
        for (index, service) in self.services.iter().enumerate() {
            if let (Some(service), false) = (service.get(), needed.has(index)) {
                service.end(None);
            }
        }
        self.passthrough.drain(matches!(needed, Needed::All));
    }

    /// Uses the new endpoints of the service at `index`. Drops the passthrough services for
    /// `addresses`, which have changed.
    pub fn endpoints_changed(&self, index: usize, addresses: &[SocketAddr]) {
        if let Some(service) = self.services.get(index).and_then(OnceCell::get)
            && service.is_used()
        {
            service.take_in();
        }
        self.passthrough.forget(addresses);
    }

    fn used_services(&self) -> impl Iterator<Item = &Rc<LocalService<I>>> {
        self.services.iter().filter_map(OnceCell::get)
    }

    /// The service of this snapshot that takes over the connections of `before`, a service of an
    /// older snapshot. It has the same name. Returns `None` if there is none, or if it opens its
    /// connections with other settings.
    fn continued(&self, before: &LocalService<I>) -> Option<&Rc<LocalService<I>>> {
        let index = self.snapshot.service_index(&before.name)?;
        let same = is_opened_alike(&before.config, &self.snapshot.services[index]);
        same.then(|| self.made(index, Some(before)))
    }

    /// The state of the service at `index`. If it does not exist yet, it takes over the state of
    /// `before`.
    fn made(&self, index: usize, before: Option<&LocalService<I>>) -> &Rc<LocalService<I>> {
        self.services[index].get_or_init(|| {
            let config = Arc::clone(&self.snapshot.services[index]);
            let terms = self.pool_terms(&config);
            let service = LocalService::new(self.worker, config, terms, &self.waiting, before);
            if self.replaced.get() {
                // This snapshot was replaced, so only an exchange that began before uses this
                // service. The pool must not keep its connections.
                service.end(None);
            }
            let service = Rc::new(service);
            if before.is_none() {
                service.announce();
            }
            service
        })
    }

    /// The settings for connections to the endpoints of a service, for one worker.
    fn pool_terms(&self, service: &Service) -> PoolTerms {
        PoolTerms {
            idle_max: (service.max_idle_connections as usize).div_ceil(self.workers),
            idle_timeout: service.idle_timeout,
        }
    }

    /// Closes connections that were idle for too long, or that their endpoint has closed.
    pub fn sweep(&self, now: Time) {
        self.waiting.sweep(now);
        self.passthrough.sweep();
    }

    /// The service of the destination `to`. `original` is the service for the original destination.
    pub fn service<'s>(
        &'s self,
        to: Destination,
        original: Option<&'s Rc<LocalService<I>>>,
    ) -> Option<&'s Rc<LocalService<I>>> {
        match to == Destination::ORIGINAL {
            true => original,
            false => self.service_at(to.service as usize),
        }
    }

    /// The service of the snapshot at `index`. Returns `None` if the index is out of range.
    pub fn service_at(&self, index: usize) -> Option<&Rc<LocalService<I>>> {
        (index < self.services.len()).then(|| self.made(index, None))
    }

    /// This worker's handle of the rule `rule` of the snapshot.
    pub fn rule(&self, rule: &Rule) -> &LocalRule {
        let index = rule.index as usize;
        self.rules[index].get_or_init(|| Rc::new(Arc::clone(&self.snapshot.rules[index])))
    }
}

/// Whether two services open their connections with the same settings.
fn is_opened_alike(one: &Service, other: &Service) -> bool {
    tls_terms(&one.tls) == tls_terms(&other.tls)
        && one.send_proxy_protocol == other.send_proxy_protocol
        && one.egress == other.egress
        && one.protocol == other.protocol
        && one.beside == other.beside
}

/// A number that identifies the TLS settings for endpoints. Returns `None` without TLS.
fn tls_terms(tls: &Option<Arc<ClientTls>>) -> Option<u64> {
    tls.as_ref().map(|tls| tls.terms)
}
