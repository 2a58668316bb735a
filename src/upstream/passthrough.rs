//! Services for original destinations that are not virtual addresses of a service. Such a
//! passthrough service is created on demand, and is kept while it is in use.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::{Local, LocalService, PoolTerms};
use crate::balance::Level;
use crate::cluster::{Endpoint, Protocol, Service};
use crate::mesh::{Capture, OriginalTarget, canonical};
use crate::net::{Address, Egress};
use crate::runtime::io::Io;

/// The maximum number of passthrough services that one worker keeps. Further ones also work, but
/// connections do not share them.
pub const PASSTHROUGH_MAX: usize = 1024;

/// The passthrough services that a worker keeps.
pub struct PassthroughPool<I: Io> {
    kept: RefCell<FxHashMap<Key, Kept<I>>>,
    changes: Cell<u64>,
}

/// The key of a passthrough service.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    /// Whether the traffic is inbound.
    inbound: bool,
    /// The original destination.
    at: SocketAddr,
    /// Whether the workload is known to speak HTTP/2.
    http2: bool,
}

/// An original destination.
#[derive(Clone, Copy, Debug)]
pub struct Towards {
    /// The address.
    pub address: SocketAddr,
    /// Whether the client's proxy says that the workload speaks HTTP/2.
    pub http2: bool,
}

struct Kept<I: Io> {
    service: Rc<LocalService<I>>,
    /// Whether no configured service shares the state of the endpoint.
    alone: bool,
}

impl<I: Io> Default for PassthroughPool<I> {
    fn default() -> Self {
        Self { kept: RefCell::default(), changes: Cell::new(0) }
    }
}

impl<I: Io> PassthroughPool<I> {
    /// Drops the services that are not in use.
    pub fn sweep(&self) {
        self.kept
            .borrow_mut()
            .retain(|_, Kept { service, .. }| Rc::strong_count(service) > 1 || service.has_idle());
    }

    /// Drains the connections of the services that do not share the state of their endpoint with a
    /// configured service. Called when a later snapshot replaces this one.
    pub fn end(&self) {
        self.kept.borrow().values().for_each(Kept::end);
    }

    /// Drains the connections to the workload, and those to other original destinations unless the
    /// workload may still connect to them (`outbound`).
    pub fn drain(&self, outbound: bool) {
        let kept = self.kept.borrow();
        let over = kept.iter().filter(|(key, _)| key.inbound || !outbound);
        over.for_each(|(_, kept)| kept.end());
    }

    /// Drops the services for `addresses`, because these addresses may belong to another service
    /// now. For inbound services only the port is compared, because the workload may have another
    /// address.
    pub fn forget(&self, addresses: &[SocketAddr]) {
        self.changes.set(self.changes.get() + 1);
        self.kept.borrow_mut().retain(|key, kept| {
            let is_it = |address: &SocketAddr| match key.inbound {
                true => address.port() == key.at.port(),
                false => canonical(*address) == canonical(key.at),
            };
            let stays = !addresses.iter().any(is_it);
            if !stays {
                kept.end();
            }
            stays
        });
    }

    /// The number of calls of [`PassthroughPool::forget`]. A service that was found before the last
    /// call may be outdated.
    pub fn changes(&self) -> u64 {
        self.changes.get()
    }

    fn keep(
        &self,
        key: Key,
        alone: bool,
        make: impl FnOnce() -> Option<LocalService<I>>,
    ) -> Option<Rc<LocalService<I>>> {
        let mut known = self.kept.borrow_mut();
        if let Some(Kept { service, .. }) = known.get(&key) {
            return Some(Rc::clone(service));
        }
        let service = Rc::new(make()?);
        if known.len() < PASSTHROUGH_MAX {
            known.insert(key, Kept { service: Rc::clone(&service), alone });
        }
        Some(service)
    }
}

impl<I: Io> Kept<I> {
    fn end(&self) {
        if self.alone {
            self.service.end(None);
        }
    }
}

/// The service for an original destination that is not a virtual address. Returns `None` if the
/// traffic is not allowed. `client` is the address of the client.
pub fn find<I: Io>(
    local: &Local<I>,
    worker: usize,
    capture: &Capture,
    towards: Towards,
    client: Option<IpAddr>,
) -> Option<Rc<LocalService<I>>> {
    let original = towards.address;
    match capture.target(original) {
        OriginalTarget::Service(..) | OriginalTarget::Denied => None,
        OriginalTarget::Workload => application(local, worker, capture, towards, client),
        OriginalTarget::Endpoint(service) => endpoint_of(local, worker, capture, original, service),
        OriginalTarget::Unknown => unknown(local, worker, capture, original),
    }
}

/// The service for inbound traffic. Its only endpoint is the workload. If a configured service has
/// this address, the service has its name and settings.
fn application<I: Io>(
    local: &Local<I>,
    worker: usize,
    capture: &Capture,
    Towards { address: original, http2 }: Towards,
    client: Option<IpAddr>,
) -> Option<Rc<LocalService<I>>> {
    let target = capture.application(original);
    let source = client.filter(|ip| capture.keeps_source && ip.is_ipv4() == target.is_ipv4());
    let egress = Egress { mark: capture.mark, source, ..capture.passthrough.egress };
    let make = || {
        let endpoint = endpoint(capture, target);
        let config = match capture.workload(original) {
            Some(service) => {
                let named = &local.snapshot.services[service as usize];
                let named_http2 = matches!(named.protocol, Protocol::Http2 | Protocol::Grpc);
                // The TLS, PROXY protocol, retry and circuit breaker settings are for remote
                // clients of the service, and not for the connection to the local workload. Retries
                // on both sides would multiply.
                Service {
                    protocol: match http2 && !named_http2 {
                        true => Protocol::Http2,
                        false => named.protocol,
                    },
                    tls: None,
                    beside: None,
                    send_proxy_protocol: None,
                    retries: None,
                    retry_budget: None,
                    breaker: None,
                    concurrency: None,
                    egress,
                    stats: Arc::clone(&capture.passthrough.stats),
                    ..named.narrowed(endpoint)
                }
            }
            None => {
                let passed = capture.passthrough.narrowed(endpoint);
                let protocol = if http2 { Protocol::Http2 } else { passed.protocol };
                Service { egress, protocol, ..passed }
            }
        };
        Some(alone(local, worker, config))
    };
    match source {
        // The connection has the source address of one client, so it must not serve another client.
        Some(_) => make().map(Rc::new),
        // One workload may be a different service at each original destination.
        None => {
            let key = Key { inbound: true, at: original, http2 };
            local.passthrough.keep(key, true, make)
        }
    }
}

/// The service for an endpoint of `service` at `original`. It has the settings of `service`.
fn endpoint_of<I: Io>(
    local: &Local<I>,
    worker: usize,
    capture: &Capture,
    original: SocketAddr,
    service: u32,
) -> Option<Rc<LocalService<I>>> {
    let whole = local.service_at(service as usize)?;
    let is_it = |address: &Address| match address {
        Address::Tcp(address) => canonical(*address) == canonical(original),
        Address::Unix(_) => false,
    };
    let make = || LocalService::narrowed(whole, is_it);
    let key = Key { inbound: false, at: original, http2: false };
    let kept = local.passthrough.keep(key, false, make);
    // The endpoint may just have been removed from the service.
    kept.or_else(|| match capture.unknown_target() {
        OriginalTarget::Unknown => unknown(local, worker, capture, original),
        _ => None,
    })
}

/// The service for an original destination that belongs to no service.
fn unknown<I: Io>(
    local: &Local<I>,
    worker: usize,
    capture: &Capture,
    original: SocketAddr,
) -> Option<Rc<LocalService<I>>> {
    let make = || {
        let egress = Egress { mark: capture.mark, ..capture.passthrough.egress };
        let endpoint = endpoint(capture, original);
        let config = Service { egress, ..capture.passthrough.narrowed(endpoint) };
        Some(alone(local, worker, config))
    };
    local.passthrough.keep(Key { inbound: false, at: original, http2: false }, true, make)
}

fn endpoint(capture: &Capture, address: SocketAddr) -> Arc<Endpoint> {
    Arc::new(Endpoint {
        address: Address::Tcp(address),
        weight: 1,
        zone: None,
        level: Level::default(),
        zone_stats: None,
        version: None,
        health: None,
        outlier: None,
        warmup: None,
        stats: Arc::clone(&capture.endpoint_stats),
    })
}

/// Creates a service with one endpoint, which no other service shares.
fn alone<I: Io>(local: &Local<I>, worker: usize, config: Service) -> LocalService<I> {
    let terms = PoolTerms {
        idle_max: config.max_idle_connections as usize,
        idle_timeout: config.idle_timeout,
    };
    LocalService::new(worker, Arc::new(config), terms, &local.waiting, None)
}
