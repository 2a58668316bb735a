//! The plan of an exchange: the values that the snapshot gives for one request, looked up once.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use super::downstream::Downstream;
use crate::error::{Flag, Refusal};
use crate::jwt::Accepted;
use crate::mesh::{Direction, Leads, Unknown};
use crate::message::{HeadView, Method};
use crate::route::Rule;
use crate::runtime::io::Io;
use crate::snapshot::Listener;
use crate::time::Time;
use crate::upstream::passthrough;
use crate::upstream::{Local, LocalRule, LocalService, Terms};

/// The values that the snapshot gives for one request. A plan does not hold the snapshot, so a
/// response that takes hours keeps no old snapshot in memory.
pub struct Plan<I: Io> {
    /// The terms of the listener.
    pub terms: Rc<Terms>,
    /// The rule that matched.
    pub rule: LocalRule,
    /// The service.
    pub service: Rc<LocalService<I>>,
    /// The index of the subset.
    pub subset: usize,
    /// The token of the request.
    pub token: Option<Rc<Accepted>>,
    /// The deadline of the whole exchange.
    pub deadline: Time,
}

impl<I: Io> Plan<I> {
    /// The field that held the token, if the service must not get it.
    pub fn token_field(&self) -> Option<&str> {
        self.token.as_ref().and_then(|token| token.provider.field_to_drop())
    }
}

/// The original destination of a captured connection.
pub struct OriginalDestination<I: Io> {
    /// The address.
    pub address: SocketAddr,
    /// The connection came without TLS to a port that requires mutual TLS. Only probes may pass.
    probes_only: bool,
    /// The service for the original destination, and the versions in which the service was found.
    service: RefCell<Option<Found<I>>>,
}

/// The version of the snapshot, the number of address changes, and the service found then.
type Found<I> = ((u64, u64), Option<Rc<LocalService<I>>>);

impl<I: Io> OriginalDestination<I> {
    /// The destination at `address`.
    pub fn new(address: SocketAddr, probes_only: bool) -> Self {
        Self { address, probes_only, service: RefCell::new(None) }
    }

    /// Whether only probes may pass.
    pub fn probes_only(&self) -> bool {
        self.probes_only
    }
}

/// The service of the original destination of a captured connection. Returns `None` if a service
/// has a virtual address for the destination, or if the traffic is not allowed.
pub fn original_service<I: Io>(
    downstream: &Downstream<I>,
    local: &Local<I>,
    listener: &Listener,
) -> Option<Rc<LocalService<I>>> {
    let captured = downstream.captured.as_ref()?;
    let version = (local.snapshot.version, local.passthrough.changes());
    if let Some((known, service)) = &*captured.service.borrow()
        && *known == version
    {
        return service.clone();
    }
    let client = downstream.peer.address.map(|address| address.ip());
    let (capture, worker) = (listener.capture()?, downstream.worker.index);
    let found = passthrough::find(local, worker, capture, captured.address, client);
    *captured.service.borrow_mut() = Some((version, found.clone()));
    found
}

/// Finds the rule for a request: a route or, for a captured connection, the rule of its original
/// destination. Counts traffic to an unknown destination.
///
/// # Errors
/// When no rule matches, or when traffic to the unknown destination is not allowed.
pub fn rule<'l, I: Io>(
    downstream: &Downstream<I>,
    listener: &'l Listener,
    request: HeadView<'_>,
) -> Result<&'l Arc<Rule>, Refusal> {
    if let Some(rule) = listener.routes().and_then(|routes| routes.find(request)) {
        return Ok(rule);
    }
    let Some((capture, captured)) = listener.capture().zip(downstream.captured.as_ref()) else {
        return Err(NO_ROUTE);
    };
    check_known(downstream, listener)?;
    match capture.addresses.find(captured.address) {
        Some(Leads::Service(_, rule)) if capture.direction == Direction::Outbound => Ok(rule),
        _ => Ok(&capture.onward),
    }
}

/// Counts traffic to an unknown destination.
///
/// # Errors
/// When traffic to unknown destinations is not allowed.
pub fn check_known<I: Io>(downstream: &Downstream<I>, listener: &Listener) -> Result<(), Refusal> {
    let Some((capture, captured)) = listener.capture().zip(downstream.captured.as_ref()) else {
        return Ok(());
    };
    let address = captured.address;
    if capture.direction == Direction::Inbound || capture.addresses.find(address).is_some() {
        return Ok(());
    }
    let allowed = capture.unknown == Unknown::Allow;
    capture.seen.worker(downstream.worker.index).count(address, allowed);
    if allowed { Ok(()) } else { Err(UNKNOWN) }
}

/// Whether a request is a probe, which needs no identity.
///
/// # Errors
/// When only probes may pass and the request is not a probe.
pub fn is_probe<I: Io>(
    downstream: &Downstream<I>,
    listener: &Listener,
    request: HeadView<'_>,
) -> Result<bool, Refusal> {
    let Some((capture, captured)) = listener.capture().zip(downstream.captured.as_ref()) else {
        return Ok(false);
    };
    let reads = matches!(request.head.method, Method::Get | Method::Head);
    if reads && capture.is_probe(captured.address.port(), request.path()) {
        capture.stats.worker(downstream.worker.index).probes.increment();
        return Ok(true);
    }
    if captured.probes_only { Err(MEMBERS_ONLY) } else { Ok(false) }
}

const NO_ROUTE: Refusal = Refusal { status: 404, flag: Flag::NoRoute, detail: "no route matched" };

const UNKNOWN: Refusal = Refusal {
    status: 502,
    flag: Flag::OriginalDestination,
    detail: "no route and no service has this destination, and unknown destinations are denied",
};

const MEMBERS_ONLY: Refusal =
    Refusal { status: 403, flag: Flag::Unauthorized, detail: "this port requires mutual TLS" };
