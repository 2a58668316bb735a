//! The record of an exchange. It updates the counters and writes the access log line.

pub mod buffer;
mod limited;
mod request;
mod shift;
mod standard;
mod story;
mod trace;
mod view;

use std::cell::{Cell, OnceCell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::downstream::{Downstream, Peer};
use super::limits::Quotas;
use super::worker::Worker;
use crate::authz::Verdict;
use crate::cluster::ServiceCells;
use crate::error::{Flag, Refusal};
use crate::grpc::methods::Call;
use crate::grpc::rate_limit::Answer;
use crate::grpc::{self, Code, Kind};
use crate::message::HeadView;
use crate::observe::story::{Acted, Tried};
use crate::observe::{BodyCopy, HeaderCopy, Trace};
use crate::propagation::{RequestId, forwarded};
use crate::resilience::{Chance, GlobalLimit, Quota, RateLimit, Scope, ShiftSide, Way};
use crate::runtime::io::Io;
use crate::snapshot::LogFilter;
use crate::standard::Known;
use crate::time::Time;
use crate::upstream::{LocalEndpoint, LocalRule, LocalService, Terms};
use limited::Throttled;
use request::Request;

pub use request::{LateCopy, RequestPool};

/// The record of one exchange or L4 connection. It owns all its values, so it can exist longer than
/// the exchange. Dropping it updates the counters and writes the access log line, however the
/// exchange ends.
pub struct ExchangeRecord<I: Io> {
    worker: Rc<Worker<I>>,
    terms: Rc<Terms>,
    peer: Rc<Peer>,
    original: Option<SocketAddr>,
    /// The time at which the head of the request was complete.
    pub began: Time,
    request: RefCell<Option<Box<Request>>>,
    /// Copies of fields of the response, if the access log reads them.
    response: RefCell<Option<Box<HeaderCopy>>>,
    /// Whether the exchange gets a line even if it does not fail.
    sampled: Cell<bool>,
    /// Whether a tap was open when the exchange began.
    tapped: bool,
    /// Copies of the bodies of the request and the response, for taps that show them.
    bodies: Option<Box<[BodyCopy; 2]>>,
    /// The effects of policies, for the story of the exchange.
    acted: Cell<Acted>,
    /// Whether the story of the exchange was kept.
    told: Cell<bool>,
    /// The attempts before the last one.
    tried: RefCell<Vec<Tried>>,
    /// The number of the last attempt, for the id of its span.
    last_number: Cell<u32>,
    /// The trace of the request. `None` without tracing.
    trace: Cell<Option<Trace>>,
    /// The `tracestate` of a sampled request.
    state: RefCell<String>,
    is_http: Cell<bool>,
    request_id: Cell<Option<RequestId>>,
    rule: RefCell<Option<LocalRule>>,
    /// The version that the shift of the rule has chosen.
    side: Cell<Option<ShiftSide>>,
    /// The deadline that the client itself has chosen, if it is too short to blame an endpoint.
    hurry: Cell<Time>,
    service: RefCell<Option<Rc<LocalService<I>>>>,
    endpoint: RefCell<Option<LocalEndpoint<I>>>,
    status: Cell<u16>,
    flag: Cell<Option<Flag>>,
    /// Whether the exchange began with an injected delay.
    delayed: Cell<bool>,
    detail: Cell<&'static str>,
    denial: RefCell<Option<Box<str>>>,
    /// The rate limit that refused the request. `None` if no limit refused it.
    limited: RefCell<Option<Arc<RateLimit>>>,
    /// The states of the rate limits after this request, by scope.
    quotas: Cell<Quotas>,
    /// How many lines of other requests were left out before the line of this one. `None` means
    /// that it gets no line.
    suppressed: Cell<Option<u64>>,
    /// The answers of rate limit services.
    answers: RefCell<Vec<(Arc<GlobalLimit>, Answer)>>,
    /// The keys of the limits on bytes that apply to the bodies of the request.
    /// Empty if no limit on bytes applies, as for most exchanges.
    throttled: OnceCell<Box<Throttled>>,
    /// Whether a limit on bytes, or an injected fault, has delayed a body of the exchange.
    slowed: Cell<bool>,
    received_bytes: Cell<u64>,
    sent_bytes: Cell<u64>,
    /// The part of `sent_bytes` that the proxy itself has generated.
    own_bytes: Cell<u64>,
    /// Whether at least a part of the request was sent to an endpoint.
    carried: Cell<bool>,
    /// The number of attempts at endpoints.
    attempts: Cell<u32>,
    /// The time at which the last attempt at an endpoint began.
    attempted: Cell<Option<Time>>,
    /// The time at which an endpoint had the whole request. Only a shift needs it.
    handed_over: Cell<Option<Time>>,
    /// The time at which the head of the response was complete.
    answered: Cell<Option<Time>>,
    ended: Cell<Option<Time>>,
    tunnel: Cell<bool>,
    kind: Cell<Option<Kind>>,
    code: Cell<Option<Code>>,
    /// The numbers of messages of a gRPC call, as [from the client, to the client].
    messages: [Cell<u64>; 2],
    /// The series of a TCP connection that is open, for the standard metrics.
    series: OnceCell<Arc<Known>>,
}

impl<I: Io> ExchangeRecord<I> {
    /// Creates the record of an exchange that begins now.
    pub fn open(downstream: &Downstream<I>, terms: &Rc<Terms>) -> Self {
        let worker = &downstream.worker;
        worker.cells().requests.increment();
        Self {
            worker: Rc::clone(worker),
            terms: Rc::clone(terms),
            peer: Rc::clone(&downstream.peer),
            original: downstream.captured.as_ref().map(|captured| captured.address),
            began: worker.io.now(),
            request: RefCell::new(None),
            response: RefCell::new(None),
            sampled: Cell::new(is_sampled(worker, terms)),
            tapped: worker.observers.taps.is_active(),
            bodies: worker.observers.taps.copies(),
            acted: Cell::default(),
            told: Cell::default(),
            tried: RefCell::default(),
            last_number: Cell::default(),
            trace: Cell::default(),
            state: RefCell::default(),
            is_http: Cell::new(false),
            request_id: Cell::new(None),
            rule: RefCell::new(None),
            side: Cell::new(None),
            hurry: Cell::new(Time::NEVER),
            service: RefCell::new(None),
            endpoint: RefCell::new(None),
            status: Cell::new(0),
            flag: Cell::new(None),
            delayed: Cell::new(false),
            detail: Cell::new(""),
            denial: RefCell::new(None),
            limited: RefCell::new(None),
            quotas: Cell::default(),
            suppressed: Cell::new(Some(0)),
            answers: RefCell::default(),
            throttled: OnceCell::new(),
            slowed: Cell::default(),
            received_bytes: Cell::new(0),
            sent_bytes: Cell::new(0),
            own_bytes: Cell::new(0),
            carried: Cell::new(false),
            attempts: Cell::new(0),
            attempted: Cell::new(None),
            handed_over: Cell::new(None),
            answered: Cell::new(None),
            ended: Cell::new(None),
            tunnel: Cell::new(false),
            kind: Cell::new(None),
            code: Cell::new(None),
            messages: Default::default(),
            series: OnceCell::new(),
        }
    }

    /// The settings of the listener.
    pub fn terms(&self) -> &Rc<Terms> {
        &self.terms
    }

    /// Marks the exchange as HTTP. This also applies if the request cannot be parsed.
    pub fn set_http(&self) {
        self.is_http.set(true);
    }

    /// Sets the request. Its parts are copied only if all exchanges get a line or if a counter
    /// needs them. For exchanges that fail, see [`LateCopy`].
    pub fn set_request(&self, request: HeadView<'_>) {
        self.set_http();
        self.kind.set(grpc::kind_of(request));
        let standard = self.terms.standard.as_ref();
        let shows = standard.is_some_and(|reports| !reports.facts.is_empty());
        if self.logs_all() || self.tapped || shows || self.kind.get().is_some() {
            self.copy_request(request);
        }
    }

    /// Copies the parts of the request, unless they were copied before. Used if the request fails,
    /// or if its exchange may take long.
    pub fn keep_request(&self, request: HeadView<'_>) {
        if self.terms.access_log.is_some() || self.worker.observers.stories.are_kept() {
            self.copy_request(request);
        }
    }

    /// Copies the parts of the request at the end of its exchange, if the exchange gets a line.
    /// Otherwise copies only the parts for its story.
    pub fn keep_logged(&self, request: HeadView<'_>) {
        if self.is_logged() {
            self.copy_request(request);
            return;
        }
        match self.ended.get() {
            Some(end) => self.keep_story_of(request, end),
            None => self.keep_briefly(request),
        }
    }

    fn copy_request(&self, request: HeadView<'_>) {
        let mut copy = self.request.borrow_mut();
        if copy.as_ref().is_none_or(|copy| copy.is_brief) {
            let hops = self.terms.trusted_hops;
            let client = forwarded::client(Some(request), hops, self.peer.address);
            let headers = match self.tapped {
                true => HeaderCopy::of_all(request),
                false => HeaderCopy::of(request, &self.terms.wanted.request),
            };
            let pool = &self.worker.requests;
            copy.get_or_insert_with(|| pool.take()).fill(request, client, headers);
        }
    }

    /// Whether the exchange may get a line even if it does not fail.
    fn logs_all(&self) -> bool {
        let lines = self.terms.access_log.as_ref();
        lines.is_some_and(|lines| lines.filter != LogFilter::Failed) && self.sampled.get()
    }

    /// Copies the fields of the endpoint's response that the access log reads.
    pub fn copy_response(&self, response: HeadView<'_>) {
        if self.tapped {
            *self.response.borrow_mut() = Some(Box::new(HeaderCopy::of_all(response)));
            return;
        }
        let wanted = &self.terms.wanted.response;
        if !wanted.is_empty() {
            *self.response.borrow_mut() = Some(Box::new(HeaderCopy::of(response, wanted)));
        }
    }

    /// Whether the exchange gets a line, if a filter accepts it. Before the end of an HTTP
    /// exchange, it may count as failed.
    fn is_logged(&self) -> bool {
        match self.terms.access_log.as_deref().map(|lines| &lines.filter) {
            None => false,
            Some(LogFilter::All | LogFilter::Only(_)) => self.sampled.get() || self.has_failed(),
            Some(LogFilter::Failed) => self.suppressed.get().is_some() && self.has_failed(),
        }
    }

    /// Whether the exchange has failed: it has a response flag, a status of 500 or more, a gRPC
    /// status of a server error, or no complete response.
    fn has_failed(&self) -> bool {
        let code = self.code();
        self.flag.get().is_some()
            || self.status.get() >= 500
            || code.is_some_and(Code::is_server_error)
            || self.is_http.get() && self.is_cut()
    }

    /// Whether an HTTP exchange has ended without a complete response.
    fn is_cut(&self) -> bool {
        let forwarded = self.service.borrow().is_some();
        let is_over = self.ended.get().is_some() || self.tunnel.get();
        self.status.get() == 0 || forwarded && !is_over
    }

    /// Sets the `x-request-id` that the proxy has generated.
    pub fn set_request_id(&self, id: Option<RequestId>) {
        self.request_id.set(id);
    }

    /// Sets the rule that matched.
    pub fn set_rule(&self, rule: &LocalRule) {
        *self.rule.borrow_mut() = Some(Rc::clone(rule));
    }

    /// Sets the service. From now on, the request counts as active in this service.
    pub fn set_service(&self, service: &Rc<LocalService<I>>) {
        service.config.stats.worker(self.worker.index).active.increment();
        *self.service.borrow_mut() = Some(Rc::clone(service));
    }

    /// Sets the endpoint of the current attempt.
    pub fn set_endpoint(&self, endpoint: LocalEndpoint<I>) {
        *self.endpoint.borrow_mut() = Some(endpoint);
    }

    /// The kind of gRPC call. `None` if the request is not a gRPC call.
    pub fn kind(&self) -> Option<Kind> {
        self.kind.get()
    }

    /// Sets the status of a gRPC call.
    pub fn set_code(&self, code: Code) {
        self.code.set(Some(code));
    }

    /// Sets the time at which an attempt at an endpoint begins.
    pub fn attempted(&self, now: Time) {
        self.attempts.set(self.attempts.get() + 1);
        self.overtaken(now);
    }

    /// Counts the second attempt of a hedged request, which runs in parallel.
    pub fn hedged(&self) {
        self.acted.set(Acted { hedged: true, ..self.acted.get() });
        self.attempts.set(self.attempts.get() + 1);
    }

    /// Replaces the start time of the last attempt with that of the attempt whose response is used.
    pub fn overtaken(&self, began: Time) {
        self.last_number.set(self.attempts.get());
        self.attempted.set(Some(began));
        self.answered.set(None);
    }

    /// Sets the status of the endpoint's response, whose head is complete. Reads the clock only if
    /// the access log needs the time.
    pub fn answered(&self, status: u16) {
        self.status.set(status);
        let is_precise = status >= 500 || self.logs_all() || self.side.get().is_some();
        let io = &self.worker.io;
        self.answered.set(Some(if is_precise || self.tapped { io.now() } else { io.recent() }));
    }

    /// Sets the number of gRPC messages from the client.
    pub fn set_request_messages(&self, count: u64) {
        self.messages[0].set(count);
    }

    /// Sets the number of gRPC messages to the client.
    pub fn set_response_messages(&self, count: u64) {
        self.messages[1].set(count);
    }

    /// Sets the status that is sent to the client.
    pub fn set_status(&self, status: u16) {
        self.status.set(status);
    }

    /// The status that was sent to the client. 0 before that.
    pub fn status(&self) -> u16 {
        self.status.get()
    }

    /// The status of the gRPC call. `None` if no response had one so far, or if the exchange is no
    /// gRPC call.
    pub fn code(&self) -> Option<Code> {
        self.code.get().filter(|_| self.kind.get().is_some())
    }

    /// Sets the reason of a refusal, unless a flag was set before.
    pub fn set_refusal(&self, refusal: &Refusal) {
        self.set_flag(refusal.flag, refusal.detail);
    }

    /// Sets the response flag and its detail, unless a flag was set before.
    pub fn set_flag(&self, flag: Flag, detail: &'static str) {
        if self.flag.get().is_none() {
            self.flag.set(Some(flag));
            self.detail.set(detail);
        }
    }

    /// Records that the exchange begins with an injected delay. The exchange may still succeed.
    pub fn delayed(&self) {
        self.delayed.set(true);
    }

    /// The response flag. `None` if there is none.
    pub fn flag(&self) -> Option<Flag> {
        self.flag.get()
    }

    /// Sets the authorization rule that denied the exchange.
    pub fn set_denial(&self, verdict: Verdict<'_>) {
        *self.denial.borrow_mut() = Some(verdict.to_string().into());
    }

    /// Sets the state of the rate limit of `scope`, for the response fields.
    pub fn set_quota(&self, scope: Scope, quota: Quota) {
        let mut quotas = self.quotas.get();
        quotas[scope as usize] = Some(quota);
        self.quotas.set(quotas);
    }

    /// Whether a rate limit applies to the request.
    pub fn has_quotas(&self) -> bool {
        self.quotas.get().iter().any(Option::is_some) || !self.answers.borrow().is_empty()
    }

    /// Takes `bytes` of a body from the buckets of the limits on bytes. Returns how long to wait
    /// before the next bytes, or `None` for no wait.
    pub fn owe(&self, way: Way, bytes: u64) -> Option<Duration> {
        if bytes == 0 || !self.is_throttled() {
            return None;
        }
        let (worker, now) = (self.worker.index, self.worker.io.now());
        let wait = self.with_limits(|limits| {
            let owe = |(limit, key): (&RateLimit, _)| limit.owe(key, way, bytes, worker, now);
            self.throttling(limits).map(owe).filter(|wait| !wait.is_zero()).max()
        });
        if wait.is_some() {
            self.slow_down();
        }
        wait
    }

    /// Records that a limit on bytes, or an injected fault, delays a body.
    pub fn slow_down(&self) {
        self.slowed.set(true);
    }

    /// Whether a limit on bytes, or a fault, has delayed a body. Then the duration of the exchange
    /// is not the latency of the endpoint.
    pub fn is_slowed(&self) -> bool {
        self.slowed.get()
    }

    /// Counts `n` body bytes from the client.
    pub fn received(&self, n: u64) {
        self.received_bytes.set(self.received_bytes.get() + n);
    }

    /// The number of body bytes from the client so far.
    pub fn received_bytes(&self) -> u64 {
        self.received_bytes.get()
    }

    /// Counts `n` body bytes to the client.
    pub fn sent(&self, n: u64) {
        self.sent_bytes.set(self.sent_bytes.get() + n);
    }

    /// Counts `n` body bytes to the client that the proxy itself has generated.
    pub fn sent_own(&self, n: u64) {
        self.sent(n);
        self.own_bytes.set(self.own_bytes.get() + n);
    }

    /// Records that at least a part of the request was sent to an endpoint.
    pub fn carried(&self) {
        self.carried.set(true);
    }

    /// Sets the end of the exchange. Without this call, the exchange ends when the record is
    /// dropped.
    pub fn ended(&self, now: Time) {
        self.ended.set(Some(now));
    }

    /// Marks the exchange as a tunnel. Rules do not apply to requests inside a tunnel.
    pub fn set_tunnel(&self) {
        self.tunnel.set(true);
    }

    /// Counts the gRPC call for its service and method.
    fn count_call(&self, service: &LocalService<I>) {
        let request = self.request.borrow();
        let (Some(_), Some(request)) = (self.kind.get(), request.as_ref()) else { return };
        let unknown = || match self.flag.get() {
            Some(Flag::DownstreamConnectionTermination) => Code::CANCELLED,
            Some(Flag::UpstreamTimeout) => Code::DEADLINE_EXCEEDED,
            Some(_) => Code::UNAVAILABLE,
            None => Code::UNKNOWN,
        };
        let call = Call {
            method: grpc::method_of(request.part(6)),
            code: self.code.get().unwrap_or_else(unknown),
            request_messages: self.messages[0].get(),
            response_messages: self.messages[1].get(),
        };
        self.code.set(Some(call.code));
        service.methods.count(&service.config.methods, self.worker.index, &call);
    }

    fn count_service(&self, cells: &ServiceCells, class: usize, duration: Duration) {
        cells.active.decrement();
        cells.status_class[class].increment();
        let delayed = self.delayed.get().then_some(Flag::DelayInjected);
        for flag in self.flag.get().into_iter().chain(delayed) {
            cells.flags[flag.index()].increment();
        }
        let us = duration.as_micros() as u64;
        cells.duration.observe_us(us);
        cells.latency.observe_us(us);
        if self.carried.get() || !self.is_http.get() {
            cells.sent_bytes.add(self.received_bytes.get());
        }
        cells.received_bytes.add(self.sent_bytes.get() - self.own_bytes.get());
    }
}

impl<I: Io> Drop for ExchangeRecord<I> {
    fn drop(&mut self) {
        let worker = self.worker.index;
        let end = self.ended.get().unwrap_or_else(|| self.worker.io.now());
        let duration = end.since(self.began);
        let class = match self.status.get() {
            status @ 100..=599 => usize::from(status / 100) - 1,
            _ => 5,
        };
        if let Some(rule) = &*self.rule.borrow() {
            rule.stats.worker(worker).status_class[class].increment();
            if let (Some(side), Some(shift)) = (self.side.get(), rule.shift())
                && let Some(ending) = self.shift_ending(end, shift.state.slow_limit())
            {
                shift.state.count(worker, side, ending);
            }
        }
        let listener = self.terms.stats.worker(worker);
        listener.received_bytes.add(self.received_bytes.get());
        listener.sent_bytes.add(self.sent_bytes.get());
        match &*self.service.borrow() {
            Some(service) => {
                self.count_call(service);
                self.count_service(service.config.stats.worker(worker), class, duration);
            }
            None => {
                if let Some(flag) = self.flag.get() {
                    self.worker.cells().flags[flag.index()].increment();
                }
            }
        }
        if let Some(reports) = &self.terms.standard {
            self.report(reports, duration);
        }
        if self.is_logged() {
            self.write_line(end);
        }
        if self.tapped {
            self.view(end, |record| self.worker.observers.taps.show(record));
        }
        self.keep_spans(end);
        self.keep_story(end);
        if let Some(request) = self.request.take() {
            self.worker.requests.give(request);
        }
    }
}

/// Draws whether an exchange gets a line even if it does not fail.
fn is_sampled<I: Io>(worker: &Worker<I>, terms: &Terms) -> bool {
    let share = terms.access_log.as_ref().and_then(|lines| lines.sample);
    share.is_none_or(|share| worker.random.borrow_mut().u32(..Chance::PARTS) < share)
}
