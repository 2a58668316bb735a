//! Services for original destinations that no virtual address has. They are made on demand and kept
//! while they are in use.

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::{EndpointState, PoolTerms};
use super::{Local, LocalService};
use crate::balance::Balancer;
use crate::cluster::{Destination, Endpoint, Service};
use crate::grpc::methods::KnownMethods;
use crate::mesh::{Capture, Direction, Leads, Unknown};
use crate::net::{Address, Egress};
use crate::runtime::io::Io;

/// How many of these services one worker keeps. Further ones work too, but last only as long as
/// their connection.
pub const PASSTHROUGH_MAX: usize = 1024;

/// The kept services.
pub struct PassthroughPool<I: Io>(RefCell<FxHashMap<Key, Rc<LocalService<I>>>>);

/// Whether the traffic is inbound, and the target address.
type Key = (bool, SocketAddr);

impl<I: Io> Default for PassthroughPool<I> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

impl<I: Io> PassthroughPool<I> {
    /// Drops the services that are not in use any more.
    pub fn sweep(&self) {
        self.0.borrow_mut().retain(|_, service| {
            Rc::strong_count(service) > 1 || service.endpoints.iter().any(|e| e.has_idle())
        });
    }

    /// Closes the idle connections to endpoints that the snapshot of `version` does not have.
    pub fn retire_unless_of(&self, version: u64) {
        for state in self.0.borrow().values().flat_map(|service| &service.endpoints) {
            if !state.is_of(version) {
                state.retire();
            }
        }
    }

    fn keep(&self, key: Key, make: impl FnOnce() -> LocalService<I>) -> Rc<LocalService<I>> {
        let mut known = self.0.borrow_mut();
        if let Some(service) = known.get(&key) {
            return Rc::clone(service);
        }
        let service = Rc::new(make());
        if known.len() < PASSTHROUGH_MAX {
            known.insert(key, Rc::clone(&service));
        }
        service
    }
}

/// The service for an original destination that is no virtual address; `None` if the traffic is not
/// allowed. `client` is the address of the client.
pub fn find<I: Io>(
    local: &Local<I>,
    worker: usize,
    capture: &Capture,
    original: SocketAddr,
    client: Option<IpAddr>,
) -> Option<Rc<LocalService<I>>> {
    match capture.direction {
        Direction::Inbound => Some(application(local, worker, capture, original, client)),
        Direction::Outbound => outbound(local, worker, capture, original),
    }
}

/// The workload as a service. It has the name of the configured service with this address, if there
/// is one.
fn application<I: Io>(
    local: &Local<I>,
    worker: usize,
    capture: &Capture,
    original: SocketAddr,
    client: Option<IpAddr>,
) -> Rc<LocalService<I>> {
    let target = capture.application(original);
    let source = client.filter(|ip| capture.keeps_source && ip.is_ipv4() == target.is_ipv4());
    let make = || {
        let endpoint = endpoint(capture, target, Egress { mark: capture.mark, source });
        let named = capture.addresses.find(original).or_else(|| capture.addresses.find(target));
        let config = match named {
            Some(
                Leads::Endpoint { service, .. } | Leads::Service(Destination { service, .. }, _),
            ) => {
                let named = &local.snapshot.services[*service as usize];
                // TLS and PROXY settings of the service are for remote clients of it, not for the
                // local hop.
                Service {
                    tls: None,
                    send_proxy_protocol: None,
                    stats: Arc::clone(&capture.passthrough.stats),
                    ..named.narrowed(endpoint)
                }
            }
            None => capture.passthrough.narrowed(endpoint),
        };
        alone(local, worker, config)
    };
    match source {
        // A connection with one client's source address must not serve another client.
        Some(_) => Rc::new(make()),
        None => local.passthrough.keep((true, target), make),
    }
}

fn outbound<I: Io>(
    local: &Local<I>,
    worker: usize,
    capture: &Capture,
    original: SocketAddr,
) -> Option<Rc<LocalService<I>>> {
    match capture.addresses.find(original) {
        Some(Leads::Service(..)) => None,
        Some(Leads::Endpoint { service, endpoint }) => {
            let whole = &local.services[*service as usize];
            let state = &whole.endpoints[*endpoint as usize];
            let make = || {
                let config = whole.config.narrowed(Arc::clone(&state.config.borrow()));
                let balancers = vec![Balancer::new(&config, 0)];
                LocalService {
                    name: Rc::clone(&whole.name),
                    config: Arc::new(config),
                    endpoints: vec![Rc::clone(state)],
                    balancers,
                    methods: KnownMethods::default(),
                }
            };
            Some(local.passthrough.keep((false, original), make))
        }
        None if capture.unknown == Unknown::Deny => None,
        None => {
            let make = || {
                let egress = Egress { mark: capture.mark, source: None };
                let endpoint = endpoint(capture, original, egress);
                alone(local, worker, capture.passthrough.narrowed(endpoint))
            };
            Some(local.passthrough.keep((false, original), make))
        }
    }
}

fn endpoint(capture: &Capture, address: SocketAddr, egress: Egress) -> Arc<Endpoint> {
    Arc::new(Endpoint {
        address: Address::Tcp(address),
        weight: 1,
        zone: None,
        version: None,
        egress,
        health: None,
        stats: Arc::clone(&capture.endpoint_stats),
    })
}

/// A service with a single endpoint that is not shared with other services.
fn alone<I: Io>(local: &Local<I>, worker: usize, config: Service) -> LocalService<I> {
    let terms = PoolTerms {
        idle_max: config.max_idle_connections as usize,
        idle_timeout: config.idle_timeout,
    };
    let state = |endpoint: &Arc<Endpoint>| {
        EndpointState::new(worker, Arc::clone(endpoint), terms, &local.waiting)
    };
    let endpoints = config.endpoints.iter().map(state).collect();
    let balancers = vec![Balancer::new(&config, 0)];
    let methods = KnownMethods::default();
    let name = Rc::from(&*config.name);
    LocalService { name, config: Arc::new(config), endpoints, balancers, methods }
}
