//! The story of an exchange: its attempts, and what policies did.

use super::ExchangeRecord;
use super::request::protocol;
use crate::grpc::Code;
use crate::message::HeadView;
use crate::observe::story::{Acted, Facts, Texts, Tried, is_long};
use crate::propagation::RequestId;
use crate::runtime::io::Io;
use crate::time::Time;
use crate::upstream::Outcome;

impl<I: Io> ExchangeRecord<I> {
    /// Copies the parts of the request that its story has.
    pub(super) fn keep_briefly(&self, request: HeadView<'_>) {
        let mut copy = self.request.borrow_mut();
        if copy.is_none() && self.worker.observers.stories.are_kept() {
            let made = self.request_id.get().is_some();
            let id = if made { None } else { request.value(b"x-request-id") };
            copy.insert(self.worker.requests.take()).fill_briefly(request, id.unwrap_or_default());
        }
    }

    /// Records an attempt that ends at `now` with `outcome`, and after which there is another one.
    pub fn tried(&self, now: Time, outcome: Option<Outcome>) {
        let (status, result) = match outcome {
            Some(Outcome::Answered(status, _)) => (status, "its response was not used"),
            Some(Outcome::Stale) => (0, "the endpoint had closed the idle connection"),
            Some(Outcome::Outrun | Outcome::Overtaken) => (0, crate::observe::story::HEDGED),
            Some(_) => (0, "it failed before a response"),
            None => (0, "no connection"),
        };
        let endpoint = self.endpoint.borrow();
        let endpoint = endpoint.as_ref().map(|it| it.config.borrow().address.clone());
        let began = self.attempted.get().unwrap_or(self.began);
        self.tried.borrow_mut().push(Tried { endpoint, began, ended: now, status, result });
    }

    /// Records that a copy of the request was sent to another service.
    pub fn mirrored(&self) {
        self.acted.set(Acted { mirrored: true, ..self.acted.get() });
    }

    /// Whether the story of the exchange, which has ended at `end`, is to be kept now. A story that
    /// is left out for the limit of ordinary ones counts as told.
    fn is_worth_telling(&self, end: Time) -> bool {
        if self.told.get() || !self.worker.observers.stories.are_kept() {
            return false;
        }
        self.told.set(true);
        is_long(self.began, end) || self.has_failed() || self.worker.ordinary.take(end)
    }

    /// Keeps the story of the exchange, which has ended at `end`, unless it was kept before.
    pub(super) fn keep_story(&self, end: Time) {
        if !self.is_worth_telling(end) {
            return;
        }
        let request = self.request.borrow();
        let part = |index| request.as_ref().map(|request| request.part(index)).unwrap_or_default();
        let protocol = match request.as_ref() {
            Some(request) => request.protocol,
            None if self.is_http.get() => "HTTP",
            None => "TCP",
        };
        self.tell(end, protocol, [part(0), part(1), part(2), part(5)]);
    }

    /// Keeps the story of an exchange that has ended without a failure, while the head of its
    /// request is still there. So nothing is copied twice.
    pub(super) fn keep_story_of(&self, request: HeadView<'_>, end: Time) {
        if !self.is_worth_telling(end) {
            return;
        }
        let id = match self.request_id.get() {
            Some(_) => b"",
            None => request.value(b"x-request-id").unwrap_or_default(),
        };
        let parts = [request.method_name(), request.authority(), request.target(), id];
        self.tell(end, protocol(request), parts);
    }

    /// Keeps the story. `parts` are the method, the authority, the target and the id that the
    /// client has sent.
    fn tell(&self, end: Time, protocol: &'static str, parts: [&[u8]; 4]) {
        let (rule, service) = (self.rule.borrow(), self.service.borrow());
        let rule = rule.as_ref();
        let endpoint = self.endpoint.borrow();
        let endpoint = endpoint.as_ref().map(|it| it.config.borrow().address.clone());
        let denial = self.denial.borrow();
        let limited = self.limited.borrow();
        let limited = limited.as_ref().map(|limit| limit.told());
        let made_id = self.request_id.get();
        let texts = Texts {
            request_id: made_id.as_ref().map_or(parts[3], RequestId::as_bytes),
            method: parts[0],
            authority: parts[1],
            target: parts[2],
            listener: &self.terms.name,
            route: rule.map_or("", |rule| &rule.name),
            place: rule.map_or("", |rule| &rule.place),
            service: service.as_ref().map_or("", |service| &service.config.name),
            identity: self.peer.identity().unwrap_or_default(),
            policy: denial.as_deref().or(limited.as_deref()).unwrap_or_default(),
        };
        let (delayed, slowed) = (self.delayed.get(), self.slowed.get());
        let facts = Facts {
            began: self.began,
            attempted: self.attempted.get(),
            answered: self.answered.get(),
            ended: end,
            protocol,
            peer: self.peer.address,
            status: self.status.get(),
            grpc_status: self.kind.get().and_then(|_| self.code.get()).map(Code::number),
            flag: self.flag.get(),
            detail: self.detail.get(),
            endpoint,
            attempts: self.attempts.get(),
            tried: match self.trace.get() {
                // The spans need them, too.
                Some(trace) if trace.sampled => self.tried.borrow().clone(),
                _ => self.tried.take(),
            },
            received_bytes: self.received_bytes.get(),
            sent_bytes: self.sent_bytes.get(),
            failed: self.has_failed(),
            tunnel: self.tunnel.get(),
            acted: Acted { delayed, slowed, ..self.acted.get() },
        };
        self.worker.observers.stories.keep(self.worker.index, &texts, facts);
    }
}
