//! One worker's state for a snapshot: its services, rules and listeners.

use std::cell::{Cell, OnceCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use super::passthrough::PassthroughPool;
use super::pool::{PoolTerms, Waiting};
use super::service::LocalService;
use crate::cells::PerWorker;
use crate::cluster::{Destination, Service};
use crate::resilience::{GlobalLimit, RateLimit};
use crate::route::Rule;
use crate::runtime::core::Core;
use crate::runtime::io::Io;
use crate::snapshot::{
    ForwardClientCert, Limits, Listener, ListenerCells, LogLines, Snapshot, Timeouts,
};
use crate::time::Time;
use crate::tls::ClientTls;
use crate::wire::Wire;

/// A snapshot together with this worker's state of its services. An exchange copies the few values
/// that it needs.
///
/// The state of a service and the handle of a rule are made on first use. A worker does not use
/// most of a large configuration, and it serves no request while it prepares a snapshot.
pub struct Local<I: Io> {
    /// The configuration.
    pub snapshot: Arc<Snapshot>,
    /// The terms of each of the snapshot's listeners.
    pub listeners: Vec<Rc<Terms>>,
    /// The services for original destinations that are no virtual address.
    pub passthrough: PassthroughPool<I>,
    /// The endpoints with idle connections.
    pub waiting: Waiting<Wire<I::Stream>>,
    /// The state of each service of the snapshot.
    services: Vec<OnceCell<Rc<LocalService<I>>>>,
    /// The handle of each rule of the snapshot.
    rules: Vec<OnceCell<LocalRule>>,
    worker: usize,
    workers: usize,
    /// A later snapshot has replaced this one.
    replaced: Cell<bool>,
}

/// A rule of the snapshot. Each worker has its own reference count.
pub type LocalRule = Rc<Arc<Rule>>;

/// The terms of a listener: the values that an exchange needs, without the routes.
pub struct Terms {
    /// The listener's name.
    pub name: Box<str>,
    /// The counters.
    pub stats: Arc<PerWorker<ListenerCells>>,
    /// Time limits for clients.
    pub timeouts: Timeouts,
    /// The number of proxies in front of this one whose forwarded fields are trusted.
    pub trusted_hops: u32,
    /// The details of client certificates that services get.
    pub forward_client_cert: ForwardClientCert,
    /// Whether requests without `x-request-id` get one.
    pub request_id: bool,
    /// The pseudonym to add to `via`.
    pub via: Option<Box<str>>,
    /// Whether a client that has closed its sending side counts as disconnected. `None` means: only
    /// if its request asked for a persistent connection.
    pub abort_on_close: Option<bool>,
    /// The number of requests after which a connection closes.
    pub requests_max: u32,
    /// The limit on requests.
    pub rate_limit: Option<Arc<RateLimit>>,
    /// The limit that a rate limit service counts.
    pub global_limit: Option<Arc<GlobalLimit>>,
    /// Limits on what peers may do.
    pub limits: Limits,
    /// The access log lines. `None` means no access log.
    pub access_log: Option<LogLines>,
}

impl Terms {
    fn of(listener: &Listener, snapshot: &Snapshot) -> Rc<Self> {
        Rc::new(Self {
            name: listener.name.clone(),
            stats: Arc::clone(&listener.stats),
            timeouts: listener.timeouts,
            trusted_hops: listener.trusted_hops,
            forward_client_cert: listener.forward_client_cert,
            request_id: listener.request_id,
            via: listener.via.clone(),
            abort_on_close: listener.abort_on_close,
            requests_max: listener.requests_max,
            rate_limit: listener.rate_limit.clone(),
            global_limit: listener.global_limit.clone(),
            limits: snapshot.limits,
            access_log: snapshot.access_log.as_ref().map(|log| log.lines),
        })
    }
}

impl<I: Io> Local<I> {
    /// The state of a worker that serves nothing.
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

    /// Makes the state for `snapshot`. Endpoints that `old` has too keep their connections, unless
    /// the service now opens connections with other settings: TLS, PROXY protocol, protocol, or
    /// egress.
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

    /// Replaces `old`: connections to removed endpoints are drained.
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

    /// Uses the new endpoints of the service at `index`, and drops the passthrough services for the
    /// changed `addresses`.
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

    /// The service of this snapshot that has the name of `before`, a service of an older snapshot.
    /// Returns `None` if there is no such service, or if it opens connections with other settings:
    /// it takes over the connections of `before`.
    fn continued(&self, before: &LocalService<I>) -> Option<&Rc<LocalService<I>>> {
        let index = self.snapshot.service_index(&before.name)?;
        let same = is_opened_alike(&before.config, &self.snapshot.services[index]);
        same.then(|| self.made(index, Some(before)))
    }

    /// The state of the service at `index`. It is made from `before` if there is none yet.
    fn made(&self, index: usize, before: Option<&LocalService<I>>) -> &Rc<LocalService<I>> {
        self.services[index].get_or_init(|| {
            let config = Arc::clone(&self.snapshot.services[index]);
            let terms = self.pool_terms(&config);
            let service = LocalService::new(self.worker, config, terms, &self.waiting, before);
            if self.replaced.get() {
                // Only an exchange that began before the reload asks for this service. So the pool
                // must not keep its connections.
                service.end(None);
            }
            Rc::new(service)
        })
    }

    /// The settings for connections to the endpoints of a service, on one worker.
    fn pool_terms(&self, service: &Service) -> PoolTerms {
        PoolTerms {
            idle_max: (service.max_idle_connections as usize).div_ceil(self.workers),
            idle_timeout: service.idle_timeout,
        }
    }

    /// Closes idle connections that have been idle for too long or that the endpoint has closed.
    pub fn sweep(&self, now: Time) {
        self.waiting.sweep(now);
        self.passthrough.sweep();
    }

    /// The service of the destination `to`. `original` is the service of the original destination.
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

    /// The service of the snapshot at `index`.
    pub fn service_at(&self, index: usize) -> Option<&Rc<LocalService<I>>> {
        (index < self.services.len()).then(|| self.made(index, None))
    }

    /// This worker's handle of a rule of the snapshot.
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
}

/// The number of the TLS settings for endpoints. Returns `None` without TLS.
fn tls_terms(tls: &Option<Arc<ClientTls>>) -> Option<u64> {
    tls.as_ref().map(|tls| tls.terms)
}
