//! The values of an exchange that has ended, for the access log.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::ExchangeRecord;
use crate::grpc::Code;
use crate::observe::{BodyCopy, Record};
use crate::propagation::trace::put_hex;
use crate::propagation::{RequestId, forwarded};
use crate::runtime::io::Io;
use crate::snapshot::LogFilter;
use crate::time::Time;

impl<I: Io> ExchangeRecord<I> {
    /// Calls `then` with the values of the exchange, which has ended at `end`.
    pub(super) fn view<T>(&self, end: Time, then: impl FnOnce(&Record<'_>) -> T) -> T {
        let duration = end.since(self.began);
        let request = self.request.borrow();
        let part = |index| request.as_ref().map(|request| request.part(index)).unwrap_or_default();
        let (rule, service) = (self.rule.borrow(), self.service.borrow());
        let endpoint = self.endpoint.borrow();
        let endpoint = endpoint.as_ref().map(|endpoint| endpoint.config.borrow());
        let denial = self.denial.borrow();
        let limited = self.limited.borrow();
        let limited = limited.as_ref().map(|limit| limit.told());
        let made_id = self.request_id.get();
        let peer = self.peer.address;
        let response = self.response.borrow();
        let mut trace = Vec::new();
        if let Some(known) = self.trace.get() {
            put_hex(&mut trace, &known.id);
        }
        let bodies = self.bodies.as_ref().map(|bodies| bodies.each_ref().map(BodyCopy::bytes));
        then(&Record {
            began_unix_us: unix_now().saturating_sub(duration).as_micros() as u64,
            duration_us: duration.as_micros() as u64,
            endpoint_duration_us: self.attempted.get().map(|attempted| {
                self.answered.get().unwrap_or(end).since(attempted).as_micros() as u64
            }),
            attempts: self.attempts.get(),
            listener: &self.terms.name,
            route: rule.as_ref().map_or("", |rule| &rule.name),
            place: rule.as_ref().map_or("", |rule| &rule.place),
            service: service.as_ref().map_or("", |service| &service.config.name),
            endpoint: endpoint.as_ref().map(|endpoint| &endpoint.address),
            peer,
            client: match request.as_ref() {
                Some(request) => request.client,
                None => forwarded::client(None, 0, peer),
            },
            original: self.original,
            identity: self.peer.identity().unwrap_or_default(),
            policy: denial.as_deref().or(limited.as_deref()).unwrap_or_default(),
            method: part(0),
            authority: part(1),
            target: part(2),
            path: part(6),
            protocol: match request.as_ref() {
                Some(request) => request.protocol,
                None if self.is_http.get() => "HTTP",
                None => "TCP",
            },
            scheme: self.peer.scheme(),
            suppressed: self.suppressed.get().unwrap_or_default(),
            status: self.status.get(),
            tunnel: self.tunnel.get(),
            failed: self.has_failed(),
            grpc_status: self.kind.get().and_then(|_| self.code.get()).map(Code::number),
            delayed: self.delayed.get(),
            flag: self.flag.get(),
            detail: self.detail.get(),
            request_body: bodies.as_ref().map_or(&[], |bodies| bodies[0].as_slice()),
            response_body: bodies.as_ref().map_or(&[], |bodies| bodies[1].as_slice()),
            bodies_ended: self.bodies_ended(),
            received_bytes: self.received_bytes.get(),
            sent_bytes: self.sent_bytes.get(),
            request_id: made_id.as_ref().map_or_else(|| part(5), RequestId::as_bytes),
            user_agent: part(3),
            forwarded_for: part(4),
            trace_id: std::str::from_utf8(&trace).unwrap_or_default(),
            request_headers: request.as_ref().map(|request| &request.headers),
            response_headers: response.as_deref(),
        })
    }

    /// A copy of the body of the request (0) or the response (1) that begins now. `None` if no tap
    /// shows bodies.
    pub fn body_copy(&self, which: usize) -> Option<BodyCopy> {
        self.bodies.as_ref().map(|bodies| bodies[which].again())
    }

    /// Whether the copies of both bodies have ended early.
    fn bodies_ended(&self) -> [bool; 2] {
        let bodies = self.bodies.as_ref();
        bodies.map_or([false; 2], |bodies| bodies.each_ref().map(BodyCopy::has_ended))
    }

    /// Writes the line of the exchange, if the filter of the access log accepts it.
    pub(super) fn write_line(&self, end: Time) {
        let Some(lines) = &self.terms.access_log else { return };
        self.view(end, |record| {
            if let LogFilter::Only(filter) = &lines.filter
                && !filter.accepts(record)
            {
                return;
            }
            self.worker.log.write(&lines.format, record);
        });
    }
}

fn unix_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
