//! A worker's state of the services of a snapshot.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use super::passthrough::PassthroughPool;
use super::pool::{PoolTerms, Waiting};
use super::service::LocalService;
use crate::cells::PerWorker;
use crate::cluster::{Destination, Service};
use crate::route::Rule;
use crate::runtime::core::Core;
use crate::runtime::io::Io;
use crate::snapshot::{
    ForwardClientCert, Limits, Listener, ListenerCells, LogFormat, Snapshot, Timeouts,
};
use crate::time::Time;
use crate::tls::ClientTls;
use crate::wire::Wire;

/// A snapshot together with this worker's state of its services. An exchange copies the few values
/// that it needs.
pub struct Local<I: Io> {
    /// The configuration.
    pub snapshot: Arc<Snapshot>,
    /// The terms of each of the snapshot's listeners.
    pub listeners: Vec<Rc<Terms>>,
    /// The state of each service of the snapshot.
    pub services: Vec<Rc<LocalService<I>>>,
    /// The services for original destinations that are no virtual address.
    pub passthrough: PassthroughPool<I>,
    /// The endpoints with idle connections.
    pub waiting: Waiting<Wire<I::Stream>>,
    rules: Vec<LocalRule>,
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
    /// The number of proxies before us whose forwarded fields are trusted.
    pub trusted_hops: u32,
    /// The details of client certificates that services get.
    pub forward_client_cert: ForwardClientCert,
    /// Whether requests without `x-request-id` get one.
    pub request_id: bool,
    /// The pseudonym to add to `via`.
    pub via: Option<Box<str>>,
    /// Limits on what peers may do.
    pub limits: Limits,
    /// The format of access log lines. `None` means no access log.
    pub access_log: Option<LogFormat>,
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
            limits: snapshot.limits,
            access_log: snapshot.access_log.as_ref().map(|log| log.format),
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
            services: Vec::new(),
            passthrough: PassthroughPool::default(),
            waiting: Waiting::default(),
            rules: Vec::new(),
        }
    }

    /// Makes the state for `snapshot`. Endpoints that stay keep their connections, unless the TLS
    /// trust settings have changed.
    pub fn prepare(core: &Core<I>, old: &Self, snapshot: Arc<Snapshot>) -> Self {
        let waiting = old.waiting.clone();
        let make = |config: &Arc<Service>| {
            let before = old.find_like(config);
            let terms = pool_terms(core, config);
            let config = Arc::clone(config);
            Rc::new(LocalService::new(core.index, config, terms, &waiting, before))
        };
        let services = snapshot.services.iter().map(make).collect();
        let terms = |listener: &Arc<Listener>| Terms::of(listener, &snapshot);
        let listeners = snapshot.listeners.iter().map(terms).collect();
        let rules = snapshot.rules.iter().map(|rule| Rc::new(Arc::clone(rule))).collect();
        let passthrough = PassthroughPool::default();
        Self { snapshot, listeners, services, passthrough, waiting, rules }
    }

    /// Replaces `old`: connections to removed endpoints are drained.
    pub fn replace(&self, old: &Self) {
        for service in &self.services {
            service.begin(old.find_like(&service.config));
        }
        for service in &old.services {
            service.end(self.find(&service.name).map(|next| &**next));
        }
        old.passthrough.end();
    }

    /// Uses the new endpoints of the service at `index`, and drops the passthrough services for the
    /// changed `addresses`.
    pub fn endpoints_changed(&self, index: usize, addresses: &[SocketAddr]) {
        if let Some(service) = self.services.get(index)
            && service.is_used()
        {
            service.take_in();
        }
        self.passthrough.forget(addresses);
    }

    /// The service called `name`.
    fn find(&self, name: &str) -> Option<&Rc<LocalService<I>>> {
        let found = self.services.binary_search_by(|service| (*service.name).cmp(name));
        found.ok().map(|index| &self.services[index])
    }

    /// The service with the name and the TLS trust settings of `config`. Its connections can be
    /// reused for `config`.
    fn find_like(&self, config: &Service) -> Option<&LocalService<I>> {
        let found = self.find(&config.name)?;
        (tls_terms(&found.config.tls) == tls_terms(&config.tls)).then_some(&**found)
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
            false => self.services.get(to.service as usize),
        }
    }

    /// This worker's handle of a rule of the snapshot.
    pub fn rule(&self, rule: &Rule) -> &LocalRule {
        &self.rules[rule.index as usize]
    }
}

/// The settings for connections to the endpoints of a service, on one worker.
fn pool_terms<I: Io>(core: &Core<I>, service: &Service) -> PoolTerms {
    PoolTerms {
        idle_max: (service.max_idle_connections as usize).div_ceil(core.workers()),
        idle_timeout: service.idle_timeout,
    }
}

/// The number of the trust settings for endpoints. Returns `None` without TLS.
fn tls_terms(tls: &Option<Arc<ClientTls>>) -> Option<u64> {
    tls.as_ref().map(|tls| tls.terms)
}
