//! The record of an exchange. It counts the exchange and writes its log line.

pub mod buffer;
mod line;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::downstream::{Downstream, Peer};
use super::worker::Worker;
use crate::authz::Verdict;
use crate::cluster::ServiceCells;
use crate::error::{Flag, Refusal};
use crate::grpc::methods::Call;
use crate::grpc::{self, Code, Kind};
use crate::message::{HeadView, Version};
use crate::propagation::RequestId;
use crate::runtime::io::Io;
use crate::time::Time;
use crate::upstream::{LocalEndpoint, LocalRule, LocalService, Terms};
use line::Record;

/// The record of one exchange or L4 connection. It owns all its values, so it can outlive the
/// exchange. Dropping the record counts the exchange and writes its line, whatever the end of the
/// exchange.
pub struct ExchangeRecord<I: Io> {
    worker: Rc<Worker<I>>,
    terms: Rc<Terms>,
    peer: Rc<Peer>,
    original: Option<SocketAddr>,
    /// The time when the request head was complete.
    pub began: Time,
    request: RefCell<Option<Box<Request>>>,
    request_id: Cell<Option<RequestId>>,
    rule: RefCell<Option<LocalRule>>,
    service: RefCell<Option<Rc<LocalService<I>>>>,
    endpoint: RefCell<Option<LocalEndpoint<I>>>,
    status: Cell<u16>,
    flag: Cell<Option<Flag>>,
    detail: Cell<&'static str>,
    denial: RefCell<Option<Box<str>>>,
    received_bytes: Cell<u64>,
    sent_bytes: Cell<u64>,
    ended: Cell<Option<Time>>,
    kind: Cell<Option<Kind>>,
    code: Cell<Option<Code>>,
    /// Messages of a gRPC call, from the client and to the client.
    messages: [Cell<u64>; 2],
}

/// The parts of a request that the log line and the gRPC counters need, copied out of its head.
struct Request {
    protocol: &'static str,
    block: Vec<u8>,
    /// The end of each part in the block, in the order of [`PARTS`].
    ends: [usize; PARTS],
}

/// Method, authority, target, `user-agent`, `x-forwarded-for`, `x-request-id`, path.
const PARTS: usize = 7;

impl Request {
    fn of(view: HeadView<'_>) -> Self {
        let field = |name: &'static [u8]| view.value(name).unwrap_or_default();
        let parts: [&[u8]; PARTS] = [
            view.method_name(),
            view.authority(),
            view.target(),
            field(b"user-agent"),
            field(b"x-forwarded-for"),
            field(b"x-request-id"),
            view.path(),
        ];
        let mut block = Vec::with_capacity(parts.iter().map(|part| part.len()).sum());
        let ends = parts.map(|part| {
            block.extend_from_slice(part);
            block.len()
        });
        let protocol = match view.head.version {
            Version::Http10 => "HTTP/1.0",
            Version::Http11 => "HTTP/1.1",
            Version::Http2 => "HTTP/2",
        };
        Self { protocol, block, ends }
    }

    fn part(&self, index: usize) -> &[u8] {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.block[start..self.ends[index]]
    }
}

impl<I: Io> ExchangeRecord<I> {
    /// The record of an exchange that begins now.
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
            request_id: Cell::new(None),
            rule: RefCell::new(None),
            service: RefCell::new(None),
            endpoint: RefCell::new(None),
            status: Cell::new(0),
            flag: Cell::new(None),
            detail: Cell::new(""),
            denial: RefCell::new(None),
            received_bytes: Cell::new(0),
            sent_bytes: Cell::new(0),
            ended: Cell::new(None),
            kind: Cell::new(None),
            code: Cell::new(None),
            messages: Default::default(),
        }
    }

    /// The terms of the listener.
    pub fn terms(&self) -> &Rc<Terms> {
        &self.terms
    }

    /// Sets the request. Its parts are copied only if the log or a counter needs them.
    pub fn set_request(&self, request: HeadView<'_>) {
        self.kind.set(grpc::kind_of(request));
        if self.terms.access_log.is_some() || self.kind.get().is_some() {
            *self.request.borrow_mut() = Some(Box::new(Request::of(request)));
        }
    }

    /// Sets the request id that the proxy made.
    pub fn set_request_id(&self, id: Option<RequestId>) {
        self.request_id.set(id);
    }

    /// Sets the rule that matched.
    pub fn set_rule(&self, rule: &LocalRule) {
        *self.rule.borrow_mut() = Some(Rc::clone(rule));
    }

    /// Sets the service. The request counts as active in the service from now on.
    pub fn set_service(&self, service: &Rc<LocalService<I>>) {
        service.config.stats.worker(self.worker.index).active.increment();
        *self.service.borrow_mut() = Some(Rc::clone(service));
    }

    /// Sets the endpoint that is tried.
    pub fn set_endpoint(&self, endpoint: LocalEndpoint<I>) {
        *self.endpoint.borrow_mut() = Some(endpoint);
    }

    /// The kind of gRPC call. `None` means that the request is no gRPC call.
    pub fn kind(&self) -> Option<Kind> {
        self.kind.get()
    }

    /// Sets the status of a gRPC call.
    pub fn set_code(&self, code: Code) {
        self.code.set(Some(code));
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

    /// The status that was sent to the client; 0 before that.
    pub fn status(&self) -> u16 {
        self.status.get()
    }

    /// Sets the reason of a refusal. The first reason stays.
    pub fn set_refusal(&self, refusal: &Refusal) {
        self.set_flag(refusal.flag, refusal.detail);
    }

    /// Sets the response flag and its detail. The first one stays.
    pub fn set_flag(&self, flag: Flag, detail: &'static str) {
        if self.flag.get().is_none() {
            self.flag.set(Some(flag));
            self.detail.set(detail);
        }
    }

    /// The response flag.
    pub fn flag(&self) -> Option<Flag> {
        self.flag.get()
    }

    /// Sets the authorization rule that denied the exchange.
    pub fn set_denial(&self, verdict: Verdict<'_>) {
        *self.denial.borrow_mut() = Some(verdict.to_string().into());
    }

    /// Counts `n` body bytes from the client.
    pub fn received(&self, n: u64) {
        self.received_bytes.set(self.received_bytes.get() + n);
    }

    /// The body bytes from the client so far.
    pub fn received_bytes(&self) -> u64 {
        self.received_bytes.get()
    }

    /// Counts `n` body bytes to the client.
    pub fn sent(&self, n: u64) {
        self.sent_bytes.set(self.sent_bytes.get() + n);
    }

    /// Sets the end of the exchange. Without it, the exchange ends when the record is dropped.
    pub fn ended(&self, now: Time) {
        self.ended.set(Some(now));
    }

    /// Counts the gRPC call by its method.
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

    fn write_line(&self, duration: Duration) {
        let Some(format) = self.terms.access_log else { return };
        let request = self.request.borrow();
        let part = |index| request.as_ref().map(|request| request.part(index)).unwrap_or_default();
        let (rule, service) = (self.rule.borrow(), self.service.borrow());
        let endpoint = self.endpoint.borrow();
        let endpoint = endpoint.as_ref().map(|endpoint| endpoint.config.borrow());
        let denial = self.denial.borrow();
        let made_id = self.request_id.get();
        let record = Record {
            began_unix_us: unix_now().saturating_sub(duration).as_micros() as u64,
            duration_us: duration.as_micros() as u64,
            listener: &self.terms.name,
            route: rule.as_ref().map_or("", |rule| &rule.name),
            service: service.as_ref().map_or("", |service| &service.config.name),
            endpoint: endpoint.as_ref().map(|endpoint| &endpoint.address),
            peer: self.peer.address,
            original: self.original,
            identity: self.peer.identity().unwrap_or_default(),
            policy: denial.as_deref().unwrap_or_default(),
            method: part(0),
            authority: part(1),
            target: part(2),
            protocol: request.as_ref().map_or("TCP", |request| request.protocol),
            status: self.status.get(),
            grpc_status: self.kind.get().and_then(|_| self.code.get()).map(Code::number),
            flag: self.flag.get(),
            detail: self.detail.get(),
            received_bytes: self.received_bytes.get(),
            sent_bytes: self.sent_bytes.get(),
            request_id: made_id.as_ref().map_or_else(|| part(5), RequestId::as_bytes),
            user_agent: part(3),
            forwarded_for: part(4),
        };
        self.worker.log.write(format, &record);
    }

    fn count_service(&self, cells: &ServiceCells, class: usize, duration: Duration) {
        cells.active.decrement();
        cells.status_class[class].increment();
        if let Some(flag) = self.flag.get() {
            cells.flags[flag.index()].increment();
        }
        cells.duration.observe_us(duration.as_micros() as u64);
        cells.sent_bytes.add(self.received_bytes.get());
        cells.received_bytes.add(self.sent_bytes.get());
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
        self.write_line(duration);
    }
}

fn unix_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
