//! The part of the record of an exchange that counts for Istio's standard metrics.

use std::sync::Arc;
use std::time::Duration;

use super::ExchangeRecord;
use crate::error::Flag;
use crate::grpc::Code;
use crate::matching::split_authority;
use crate::resilience::Way;
use crate::runtime::io::Io;
use crate::standard::{Fact, Key, Known, Party, Reporter, RequestFacts, Spoken, Target};
use crate::upstream::Reports;

impl<I: Io> ExchangeRecord<I> {
    /// Counts a TCP connection as open. Its bytes then count while they are moved, because it may
    /// stay open for days. HTTP tunnels count as requests, when they end.
    pub fn opened(&self) {
        let Some(reports) = self.terms.standard.as_ref().filter(|_| !self.is_http.get()) else {
            return;
        };
        let series = self.with_series(reports, None, Arc::clone);
        let cells = series.tcp.worker(self.worker.index);
        cells.opened.increment();
        cells.active.increment();
        self.series.set(series).ok();
    }

    /// Counts bytes of an open TCP connection.
    pub fn relayed(&self, way: Way, bytes: u64) {
        if let Some(series) = self.series.get() {
            let cells = series.tcp.worker(self.worker.index);
            match way {
                Way::Up => cells.received_bytes.add(bytes),
                Way::Down => cells.sent_bytes.add(bytes),
            }
        }
    }

    /// Counts the exchange at its end. A connection that no service got is not counted.
    pub(super) fn report(&self, reports: &Reports, duration: Duration) {
        let worker = self.worker.index;
        let flag = self.flag.get();
        if self.is_http.get() {
            self.with_series(reports, flag, |series| {
                let cells = series.http.worker(worker);
                cells.duration.observe_us(duration.as_micros() as u64);
                cells.request_bytes.observe_bytes(self.received_bytes.get());
                cells.response_bytes.observe_bytes(self.sent_bytes.get());
                if self.kind.get().is_some() {
                    cells.request_messages.add(self.messages[0].get());
                    cells.response_messages.add(self.messages[1].get());
                }
            });
            return;
        }
        let open = self.series.get();
        if open.is_none() && self.service.borrow().is_none() {
            return;
        }
        self.with_series(reports, flag, |series| {
            let cells = series.tcp.worker(worker);
            match open {
                Some(open) => open.tcp.worker(worker).active.decrement(),
                None => cells.opened.increment(),
            }
            cells.closed.increment();
        });
    }

    fn with_series<T>(
        &self,
        reports: &Reports,
        flag: Option<Flag>,
        count: impl FnOnce(&Arc<Known>) -> T,
    ) -> T {
        let Reports { store, reporter, facts } = reports;
        let service = self.service.borrow();
        let target = service.as_ref().and_then(|service| service.config.target.as_ref());
        let target: &Arc<Target> = target.unwrap_or_else(|| store.unknown_target());
        let is_http = self.is_http.get();
        let (source, mutual) = match reporter {
            // The client is the workload itself.
            Reporter::Source => (store.unknown_party(), false),
            Reporter::Destination => self.party(reports),
        };
        let kind = self.kind.get();
        let facts = (is_http && !facts.is_empty()).then(|| self.facts(reports));
        let key = Key {
            source: source.id,
            target: target.id,
            reporter: *reporter,
            spoken: match (is_http, kind) {
                (false, _) => Spoken::Tcp,
                (true, Some(_)) => Spoken::Grpc,
                (true, None) => Spoken::Http,
            },
            mutual,
            status: self.status.get(),
            flag,
            delayed: self.delayed.get(),
            grpc: kind.and_then(|_| self.code.get()).map(Code::number),
            facts: facts.as_ref().map_or(0, |facts| facts.id),
        };
        self.worker.standard.with(store, key, source, target, facts.as_ref(), count)
    }

    /// The facts about the request that overrides show.
    fn facts(&self, reports: &Reports) -> Arc<RequestFacts> {
        let request = self.request.borrow();
        let part = |index| request.as_ref().map(|request| request.part(index)).unwrap_or_default();
        self.worker.standard.facts(&reports.store, &reports.facts, |fact, out| match fact {
            Fact::Method => out.extend_from_slice(part(0)),
            Fact::Host => {
                let host = split_authority(part(1)).0;
                out.extend(host.iter().map(u8::to_ascii_lowercase));
            }
            Fact::Path => out.extend_from_slice(part(6)),
        })
    }

    /// The client, and whether it has proved its identity.
    fn party<'a>(&'a self, reports: &'a Reports) -> (&'a Arc<Party>, bool) {
        let secured = self.peer.secured.as_ref();
        match secured.and_then(|secured| secured.identity.as_ref()) {
            Some(id) => (self.peer.party.get_or_init(|| reports.store.party(id.as_str())), true),
            None => (reports.store.unknown_party(), false),
        }
    }
}
