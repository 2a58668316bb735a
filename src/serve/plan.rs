//! The plan of an exchange: the values of the snapshot for one request, which are looked up once.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::breaker::Places;
use super::downstream::Downstream;
use super::global_limit::Limiters;
use super::record::ExchangeRecord;
use crate::cluster::{Destination, Protocol, Service};
use crate::decision::UNKNOWN;
use crate::error::Refusal;
use crate::grpc::{self, Kind};
use crate::http1::sink::Sink;
use crate::jwt::Accepted;
use crate::mesh::OriginalTarget;
use crate::message::HeadView;
use crate::resilience::{Injected, RetryPolicy};
use crate::route::{Rule, Split, Sticky};
use crate::runtime::io::Io;
use crate::snapshot::{Listener, STREAM_IDLE};
use crate::time::{NO_LIMIT, Time};
use crate::upstream::passthrough;
use crate::upstream::{Local, LocalRule, LocalService, Terms};

/// The values of the snapshot for one request. A plan does not hold the snapshot, so a response
/// that takes hours does not keep an old snapshot in memory.
pub struct Plan<I: Io> {
    /// The settings of the listener.
    pub terms: Rc<Terms>,
    /// The rule that matched.
    pub rule: LocalRule,
    /// The service that gets the request.
    pub service: Rc<LocalService<I>>,
    /// The index of the subset: the version of the service that gets the request.
    pub subset: usize,
    /// The version that a cookie must name. `None`: the client does not need a cookie.
    pub cookie_for: Option<Destination>,
    /// The verified token of the request. `None` if no token is required.
    pub token: Option<Rc<Accepted>>,
    /// The slots of the request in the limits of the service.
    pub places: Places,
    /// The faults to inject.
    pub fault: Option<Injected>,
    /// The service that gets a copy of the request. `None` if it is not mirrored.
    pub mirror: Option<Rc<LocalService<I>>>,
    /// The rate limit services to ask about the request.
    pub limiters: Option<Box<Limiters<I>>>,
    /// The deadline of the whole exchange, including retries.
    pub deadline: Time,
    /// Whether the client has asked for a timeout. Then the endpoint learns how much of it is left.
    pub is_timeout_asked: bool,
    /// The time limits on silence.
    pub silence: Silence,
}

/// The time limits on silence in an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Silence {
    /// The maximum time in which no byte passes, in either direction.
    pub stream: Duration,
    /// The maximum time for which a peer reads nothing, although bytes wait for it. It also holds
    /// for gRPC streams: without it, a client that does not read could keep its streams for ever.
    pub stalled: Duration,
    /// The maximum pause within the body of the request, until the response begins.
    pub request_body: Duration,
}

impl Silence {
    /// The limits for a request of `rule` to `service`. `kind` is the kind of its gRPC call.
    pub fn new(rule: &Rule, service: &Service, terms: &Terms, kind: Option<Kind>) -> Self {
        // A service of HTTP/1.1 has no gRPC streams, whatever the content type of a request says.
        let kind = kind.filter(|_| service.protocol != Protocol::Http1);
        let timeouts = &terms.timeouts;
        let set = rule.stream_idle_timeout.or(service.stream_idle_timeout);
        let set = set.or(timeouts.stream_idle);
        // The request of gRPC-Web is always a single message.
        let sends_stream = kind.is_some_and(|kind| !kind.is_web());
        let default_body = if sends_stream { NO_LIMIT } else { timeouts.request_body };
        let default_stream = if kind.is_some() { NO_LIMIT } else { STREAM_IDLE };
        Self {
            stream: set.unwrap_or(default_stream),
            stalled: set.unwrap_or(STREAM_IDLE),
            request_body: rule.request_body_timeout.unwrap_or(default_body),
        }
    }
}

impl<I: Io> Plan<I> {
    /// The retry policy: that of the rule, or else that of the service.
    pub fn retries(&self) -> Option<&RetryPolicy> {
        self.rule.retries.as_deref().or(self.service.config.retries.as_deref())
    }

    /// Writes the cookie that names the version of the client, if it needs one.
    pub fn put_cookie(&self, out: &mut dyn Sink, is_secure: bool) {
        if let (Some(Sticky::Set(cookie)), Some(to)) =
            (self.rule.sticky.as_deref(), self.cookie_for)
            && let Some(parts) = cookie.field(to, is_secure)
        {
            out.add(b"set-cookie", &parts);
        }
    }

    /// The name of the field with the token, if the field must not be forwarded.
    pub fn token_field(&self) -> Option<&str> {
        self.token.as_ref().and_then(|token| token.provider.field_to_drop())
    }
}

/// The kind of gRPC call of a request to `service`. A gRPC-Web call to a service that may support
/// gRPC-Web itself is treated as an ordinary request.
pub fn kind_for<I: Io>(record: &ExchangeRecord<I>, service: &LocalService<I>) -> Option<Kind> {
    let is_call = |kind: &Kind| !kind.is_web() || service.config.protocol == Protocol::Grpc;
    record.kind().filter(is_call)
}

/// The field in which a client asks for a timeout, in milliseconds.
pub const ASKED_TIMEOUT: &str = "x-envoy-upstream-rq-timeout-ms";

/// The timeout that the client requests. It cannot make the configured timeout longer, so
/// `x-envoy-upstream-rq-timeout-ms: 0`, which requests no timeout, is ignored.
pub fn asked_timeout(request: HeadView<'_>, kind: Option<Kind>) -> Option<Duration> {
    let call = kind.and_then(|_| request.value(b"grpc-timeout")).and_then(grpc::parse_timeout);
    let ms = request.value(ASKED_TIMEOUT.as_bytes());
    let ms = ms.and_then(|value| std::str::from_utf8(value).ok()?.trim().parse().ok());
    let plain = ms.filter(|&ms| ms > 0).map(Duration::from_millis);
    call.into_iter().chain(plain).min()
}

/// A healthy endpoint answers in this time. A client that gives less time cannot blame an endpoint.
const HURRY: Duration = Duration::from_secs(1);

/// The deadline of an exchange. `own` is the timeout of the configuration, and `asked` is that of
/// the client.
pub fn deadline<I: Io>(
    record: &ExchangeRecord<I>,
    own: Option<Duration>,
    asked: Option<Duration>,
) -> Time {
    let timeout = own.into_iter().chain(asked).min();
    let deadline = timeout.map_or(Time::NEVER, |timeout| record.began + timeout);
    if asked.is_some_and(|asked| asked < HURRY && own.is_none_or(|own| asked < own)) {
        record.set_hurry(deadline);
    }
    deadline
}

/// The original destination of a captured connection, and its state.
pub struct OriginalDestination<I: Io> {
    /// The address and port.
    pub address: SocketAddr,
    /// Whether only probes may pass: the connection has no TLS, but its port requires mutual TLS.
    probes_only: bool,
    /// Whether the workload speaks HTTP/2, as the proxy of the client says.
    http2: bool,
    /// Whether the refusal of plain text was already reported.
    reported: Cell<bool>,
    /// The cached service for the original destination, with the versions for which it is valid.
    service: RefCell<Option<Found<I>>>,
}

/// A cached service. It is valid for one version of the snapshot and one count of address changes.
type Found<I> = ((u64, u64), Option<Rc<LocalService<I>>>);

impl<I: Io> OriginalDestination<I> {
    /// The destination `address`, without a cached service.
    pub fn new(address: SocketAddr, probes_only: bool) -> Self {
        let (reported, service) = (Cell::new(false), RefCell::new(None));
        Self { address, probes_only, http2: false, reported, service }
    }

    /// The destination of a QUIC connection of another proxy. `http2`: whether the workload speaks
    /// HTTP/2.
    pub fn over_quic(address: SocketAddr, http2: bool) -> Self {
        Self { http2, ..Self::new(address, false) }
    }

    /// Whether only probes may pass, because the connection should have used TLS.
    pub fn probes_only(&self) -> bool {
        self.probes_only
    }

    /// Whether plain text on this connection is refused for the first time. Later calls return
    /// false.
    pub fn is_first_report(&self) -> bool {
        !self.reported.replace(true)
    }
}

/// The service for the original destination of a captured connection. Returns `None` if the
/// destination is a virtual address of a service, or if the traffic is not allowed.
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
    let onward = passthrough::Towards { address: captured.address, http2: captured.http2 };
    let found = passthrough::find(local, worker, capture, onward, client);
    *captured.service.borrow_mut() = Some((version, found.clone()));
    found
}

/// Finds the rule for a request. Counts the request if its destination is unknown.
///
/// # Errors
/// If no rule matches, or if traffic to the unknown destination is not allowed.
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

/// The version that gets a request.
pub struct Chosen {
    /// The version.
    pub to: Destination,
    /// Whether the request itself does not say where it belongs.
    pub is_new: bool,
}

/// The destination of a request, or of an L4 connection if there is no request.
pub fn destination<I: Io>(
    downstream: &Downstream<I>,
    listener: &Listener,
    (rule, split): (&Rule, &Split),
    request: Option<HeadView<'_>>,
) -> Chosen {
    // The weights may change at any time, so they are read for each request.
    let kept = match &rule.sticky {
        Some(_) => downstream.client(listener).kept(rule, split, request),
        None => None,
    };
    let to = kept.unwrap_or_else(|| split.next(downstream.worker.index));
    Chosen { to, is_new: kept.is_none() }
}

fn count_unknown<I: Io>(downstream: &Downstream<I>, listener: &Listener, allowed: bool) {
    if let Some((capture, original)) = downstream.client(listener).captured() {
        capture.seen.worker(downstream.worker.index).count(original, allowed);
    }
}

/// Counts traffic to an unknown destination. Does nothing for other destinations.
///
/// # Errors
/// If traffic to unknown destinations is not allowed.
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

/// Whether a request is a health check of an orchestrator, which needs no identity. Counts it.
///
/// # Errors
/// If only probes may pass, and the request is not a probe.
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
