//! The plan of an exchange: the values that the snapshot gives for one request, looked up once.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::breaker::Places;
use super::downstream::Downstream;
use super::record::ExchangeRecord;
use crate::cluster::Protocol;
use crate::decision::UNKNOWN;
use crate::error::Refusal;
use crate::grpc::{self, Kind};
use crate::jwt::Accepted;
use crate::mesh::OriginalTarget;
use crate::message::HeadView;
use crate::resilience::{Injected, RetryPolicy};
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
    /// The places within the limits of the service.
    pub places: Places,
    /// The faults that are injected.
    pub fault: Option<Injected>,
    /// The service that gets a copy of the request.
    pub mirror: Option<Rc<LocalService<I>>>,
    /// The deadline of the whole exchange.
    pub deadline: Time,
    /// The exchange fails when no byte of a body passes in either direction for this long.
    pub body_idle: Duration,
}

impl<I: Io> Plan<I> {
    /// The retry policy, of the rule or of the service.
    pub fn retries(&self) -> Option<&RetryPolicy> {
        self.rule.retries.as_deref().or(self.service.config.retries.as_deref())
    }

    /// The field that held the token, if the service must not get it.
    pub fn token_field(&self) -> Option<&str> {
        self.token.as_ref().and_then(|token| token.provider.field_to_drop())
    }
}

/// The kind of gRPC call that a request is for `service`. A call by gRPC-Web is an ordinary request
/// for a service that may speak gRPC-Web itself.
pub fn kind_for<I: Io>(record: &ExchangeRecord<I>, service: &LocalService<I>) -> Option<Kind> {
    let is_call = |kind: &Kind| !kind.is_web() || service.config.protocol == Protocol::Grpc;
    record.kind().filter(is_call)
}

/// The time limit that the client asks for. It may only be shorter than the configured one.
/// `x-envoy-upstream-rq-timeout-ms: 0` asks for no limit, and means nothing here.
pub fn asked_timeout(request: HeadView<'_>, kind: Option<Kind>) -> Option<Duration> {
    let call = kind.and_then(|_| request.value(b"grpc-timeout")).and_then(grpc::parse_timeout);
    let ms = request.value(b"x-envoy-upstream-rq-timeout-ms");
    let ms = ms.and_then(|value| std::str::from_utf8(value).ok()?.trim().parse().ok());
    let plain = ms.filter(|&ms| ms > 0).map(Duration::from_millis);
    call.into_iter().chain(plain).min()
}

/// The original destination of a captured connection.
pub struct OriginalDestination<I: Io> {
    /// The address.
    pub address: SocketAddr,
    /// The connection came without TLS to a port that requires mutual TLS. Only probes may pass.
    probes_only: bool,
    /// Whether it was reported that the client must use TLS.
    reported: Cell<bool>,
    /// The service for the original destination, and the versions in which the service was found.
    service: RefCell<Option<Found<I>>>,
}

/// The version of the snapshot, the number of address changes so far, and the service found for
/// both.
type Found<I> = ((u64, u64), Option<Rc<LocalService<I>>>);

impl<I: Io> OriginalDestination<I> {
    /// The destination at `address`.
    pub fn new(address: SocketAddr, probes_only: bool) -> Self {
        Self { address, probes_only, reported: Cell::new(false), service: RefCell::new(None) }
    }

    /// Whether only probes may pass.
    pub fn probes_only(&self) -> bool {
        self.probes_only
    }

    /// Whether this is the first refusal of plain text on the connection.
    pub fn is_first_report(&self) -> bool {
        !self.reported.replace(true)
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

/// Finds the rule for a request. Counts traffic to an unknown destination.
///
/// # Errors
/// When no rule matches, or when traffic to the unknown destination is not allowed.
pub fn rule<'l, I: Io>(
    downstream: &'l Downstream<I>,
    listener: &'l Listener,
    request: HeadView<'_>,
) -> Result<&'l Arc<Rule>, Refusal> {
    let routed = downstream.client(listener).rule(request);
    if routed.is_unknown {
        count_unknown(downstream, listener, routed.rule.is_ok());
    }
    routed.rule
}

fn count_unknown<I: Io>(downstream: &Downstream<I>, listener: &Listener, allowed: bool) {
    if let Some((capture, original)) = downstream.client(listener).captured() {
        capture.seen.worker(downstream.worker.index).count(original, allowed);
    }
}

/// Counts traffic to an unknown destination.
///
/// # Errors
/// When traffic to unknown destinations is not allowed.
pub fn check_known<I: Io>(downstream: &Downstream<I>, listener: &Listener) -> Result<(), Refusal> {
    let client = downstream.client(listener);
    match client.captured().map(|(capture, original)| capture.target(original)) {
        Some(OriginalTarget::Unknown) => count_unknown(downstream, listener, true),
        Some(OriginalTarget::Denied) => {
            count_unknown(downstream, listener, false);
            return Err(UNKNOWN);
        }
        _ => {}
    }
    Ok(())
}

/// Whether a request is a probe, which needs no identity. Counts it.
///
/// # Errors
/// When only probes may pass and the request is not a probe.
pub fn is_probe<I: Io>(
    downstream: &Downstream<I>,
    listener: &Listener,
    request: HeadView<'_>,
) -> Result<bool, Refusal> {
    let is_probe = downstream.client(listener).is_probe(request)?;
    if let (true, Some(capture)) = (is_probe, listener.capture()) {
        capture.stats.worker(downstream.worker.index).probes.increment();
    }
    Ok(is_probe)
}
