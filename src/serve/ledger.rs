//! What an exchange amounts to: one place that counts it and writes its log line.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::connection::Connection;
use super::worker::{Local, LocalEndpoint, LocalService};
use crate::authz::Verdict;
use crate::error::{Flag, Refusal};
use crate::grpc::{self, Code, Kind};
use crate::message::{HeadView, Version};
use crate::route::Rule;
use crate::runtime::io::Io;
use crate::snapshot::Listener;
use crate::telemetry::access::Record;
use crate::telemetry::grpc::Call;
use crate::time::Time;

/// The account of one exchange. Dropping it books it, however the exchange ended.
pub struct Ledger<'a, I: Io> {
    connection: &'a Connection<I>,
    local: &'a Local<I>,
    listener: &'a Listener,
    /// When the request head was complete.
    pub began: Time,
    rule: Cell<Option<&'a Arc<Rule>>>,
    service: Cell<Option<&'a LocalService<I>>>,
    endpoint: RefCell<Option<LocalEndpoint<I>>>,
    status: Cell<u16>,
    flag: Cell<Option<Flag>>,
    detail: Cell<&'static str>,
    denial: Cell<Option<Verdict<'a>>>,
    received_bytes: Cell<u64>,
    sent_bytes: Cell<u64>,
    ended: Cell<Option<Time>>,
    /// The kind of call that it is, how that ended, and its messages in either direction.
    call: Cell<Option<Kind>>,
    code: Cell<Option<Code>>,
    messages: [Cell<u64>; 2],
    /// Nothing of it is counted: it may turn out to be another exchange.
    trial: bool,
}

impl<'a, I: Io> Ledger<'a, I> {
    /// Opens the account of an exchange that begins now.
    pub fn open(
        connection: &'a Connection<I>,
        local: &'a Local<I>,
        listener: &'a Listener,
    ) -> Self {
        connection.worker.cells().requests.increment();
        let mut ledger = Self::trial(connection, local, listener);
        ledger.trial = false;
        ledger
    }

    /// An account of which nothing is ever booked: of a connection to an endpoint that is opened
    /// before it is known for what.
    pub fn trial(
        connection: &'a Connection<I>,
        local: &'a Local<I>,
        listener: &'a Listener,
    ) -> Self {
        Self {
            connection,
            local,
            listener,
            began: connection.worker.io.now(),
            rule: Cell::new(None),
            service: Cell::new(None),
            endpoint: RefCell::new(None),
            status: Cell::new(0),
            flag: Cell::new(None),
            detail: Cell::new(""),
            denial: Cell::new(None),
            received_bytes: Cell::new(0),
            sent_bytes: Cell::new(0),
            ended: Cell::new(None),
            call: Cell::new(None),
            code: Cell::new(None),
            messages: Default::default(),
            trial: true,
        }
    }

    /// The rule that matched.
    pub fn set_rule(&self, rule: &'a Arc<Rule>) {
        self.rule.set(Some(rule));
    }

    /// See [`Ledger::set_rule`].
    pub fn rule(&self) -> Option<&'a Rule> {
        self.rule.get().map(|rule| &**rule)
    }

    /// The listener that the exchange came by.
    pub fn listener(&self) -> &'a Listener {
        self.listener
    }

    /// The service that was chosen; its requests under way count from here.
    pub fn set_service(&self, service: &'a LocalService<I>) {
        self.service.set(Some(service));
        service.config.stats.worker(self.connection.worker.index).active.increment();
    }

    /// The endpoint that is tried; its load counts from here, until another is set.
    pub fn set_endpoint(&self, endpoint: &LocalEndpoint<I>) {
        if self.trial {
            return;
        }
        self.close_endpoint(true);
        endpoint.cells().requests.increment();
        endpoint.load.started();
        *self.endpoint.borrow_mut() = Some(Rc::clone(endpoint));
    }

    /// It is a call of gRPC.
    pub fn set_call(&self, kind: Option<Kind>) {
        self.call.set(kind);
    }

    /// See [`Ledger::set_call`].
    pub fn call(&self) -> Option<Kind> {
        self.call.get()
    }

    /// How the call has ended.
    pub fn set_code(&self, code: Code) {
        self.code.set(Some(code));
    }

    /// So many messages has the client sent.
    pub fn set_request_messages(&self, count: u64) {
        self.messages[0].set(count);
    }

    /// So many messages has the client got.
    pub fn set_response_messages(&self, count: u64) {
        self.messages[1].set(count);
    }

    /// Counts the call by its method.
    fn count_call(&self, request: HeadView<'_>) {
        let (Some(_), Some(service)) = (self.call.get(), self.service.get()) else { return };
        let unknown = || match self.flag.get() {
            Some(Flag::DownstreamConnectionTermination) => Code::CANCELLED,
            Some(Flag::UpstreamTimeout) => Code::DEADLINE_EXCEEDED,
            Some(_) => Code::UNAVAILABLE,
            None => Code::UNKNOWN,
        };
        let call = Call {
            method: grpc::method_of(request.path()),
            code: self.code.get().unwrap_or_else(unknown),
            request_messages: self.messages[0].get(),
            response_messages: self.messages[1].get(),
        };
        self.code.set(Some(call.code));
        service.methods.count(&service.config.methods, self.connection.worker.index, &call);
    }

    /// The status that is sent to the client.
    pub fn set_status(&self, status: u16) {
        self.status.set(status);
    }

    /// Why it does not go the ordinary way. The first reason stands.
    pub fn set_refusal(&self, refusal: &Refusal) {
        self.set_flag(refusal.flag, refusal.detail);
    }

    /// See [`Ledger::set_refusal`].
    pub fn set_flag(&self, flag: Flag, detail: &'static str) {
        if self.flag.get().is_none() {
            self.flag.set(Some(flag));
            self.detail.set(detail);
        }
    }

    /// The rules said no; the log names the one.
    pub fn set_denial(&self, verdict: Verdict<'a>) {
        self.denial.set(Some(verdict));
    }

    /// `n` bytes of the request's body have come.
    pub fn received(&self, n: u64) {
        self.received_bytes.set(self.received_bytes.get() + n);
    }

    /// `n` bytes of the response's body have gone.
    pub fn sent(&self, n: u64) {
        self.sent_bytes.set(self.sent_bytes.get() + n);
    }

    /// The exchange was over at `now`; without this, it is over when it is booked.
    pub fn ended(&self, now: Time) {
        self.ended.set(Some(now));
    }

    fn end(&self) -> Time {
        self.ended.get().unwrap_or_else(|| self.connection.worker.io.now())
    }

    /// Counts a call, and writes the line of the access log, if there is one. `request` is `None`
    /// for an L4 connection.
    pub fn log(&self, request: Option<HeadView<'_>>, request_id: &[u8]) {
        if let Some(request) = request {
            self.count_call(request);
        }
        let Some(log) = &self.local.snapshot.access_log else { return };
        let duration = self.end().since(self.began);
        let endpoint = self.endpoint.borrow();
        let endpoint = endpoint.as_ref().map(|endpoint| endpoint.config.borrow());
        let field = |name: &'static [u8]| request.and_then(|r| r.value(name)).unwrap_or_default();
        let policy = self.denial.get().map(|denial| denial.to_string()).unwrap_or_default();
        let record = Record {
            began_unix_us: unix_now().saturating_sub(duration).as_micros() as u64,
            duration_us: duration.as_micros() as u64,
            listener: &self.listener.name,
            route: self.rule.get().map_or("", |rule| &rule.name),
            service: self.service.get().map_or("", |service| &service.config.name),
            endpoint: endpoint.as_ref().map(|endpoint| &endpoint.address),
            peer: self.connection.peer,
            original: self.connection.caught.as_ref().map(|caught| caught.original),
            identity: self.connection.identity().unwrap_or_default(),
            policy: &policy,
            method: request.map(|r| r.method_name()).unwrap_or_default(),
            authority: request.map(|r| r.authority()).unwrap_or_default(),
            target: request.map(|r| r.target()).unwrap_or_default(),
            protocol: match request.map(|r| r.head.version) {
                None => "TCP",
                Some(Version::Http10) => "HTTP/1.0",
                Some(Version::Http11) => "HTTP/1.1",
                Some(Version::Http2) => "HTTP/2",
            },
            status: self.status.get(),
            grpc_status: self.call.get().and_then(|_| self.code.get()).map(Code::number),
            flag: self.flag.get(),
            detail: self.detail.get(),
            received_bytes: self.received_bytes.get(),
            sent_bytes: self.sent_bytes.get(),
            request_id: if request_id.is_empty() { field(b"x-request-id") } else { request_id },
            user_agent: field(b"user-agent"),
            forwarded_for: field(b"x-forwarded-for"),
        };
        self.connection.worker.log.write(log.format, &record);
    }

    fn close_endpoint(&self, failed: bool) {
        let Some(endpoint) = self.endpoint.borrow_mut().take() else { return };
        let now = self.end();
        endpoint.load.finished(now, now.since(self.began));
        if failed {
            endpoint.cells().failures.increment();
        }
    }
}

impl<I: Io> Drop for Ledger<'_, I> {
    fn drop(&mut self) {
        if self.trial {
            return;
        }
        let worker = self.connection.worker.index;
        let status = self.status.get();
        let class = match status {
            100..=599 => usize::from(status / 100) - 1,
            _ => 5,
        };
        if let Some(rule) = self.rule.get() {
            rule.stats.worker(worker).status_class[class].increment();
        }
        let listener = self.listener.stats.worker(worker);
        listener.received_bytes.add(self.received_bytes.get());
        listener.sent_bytes.add(self.sent_bytes.get());
        self.close_endpoint(class >= 4 && self.flag.get().is_none_or(is_upstream));
        let Some(service) = self.service.get() else {
            if let Some(flag) = self.flag.get() {
                self.connection.worker.cells().flags[flag.index()].increment();
            }
            return;
        };
        let cells = service.config.stats.worker(worker);
        cells.active.decrement();
        cells.status_class[class].increment();
        if let Some(flag) = self.flag.get() {
            cells.flags[flag.index()].increment();
        }
        let duration = self.end().since(self.began);
        cells.duration.observe_us(duration.as_micros() as u64);
        cells.sent_bytes.add(self.received_bytes.get());
        cells.received_bytes.add(self.sent_bytes.get());
    }
}

/// Whether a flag blames the endpoint.
fn is_upstream(flag: Flag) -> bool {
    matches!(
        flag,
        Flag::UpstreamConnectFailure
            | Flag::UpstreamConnectionTermination
            | Flag::UpstreamTimeout
            | Flag::UpstreamProtocolError
    )
}

fn unix_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
