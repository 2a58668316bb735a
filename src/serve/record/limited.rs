//! The part of the record about rate limits: the limit that refused, the answers of rate limit
//! services, and the fields for the client.

use std::sync::Arc;

use super::ExchangeRecord;
use crate::grpc::rate_limit::Answer;
use crate::http1::sink::Sink;
use crate::resilience::{GlobalLimit, LogBudget, RateLimit, Scope, Way};
use crate::runtime::io::Io;
use crate::serve::limits;
use crate::snapshot::LogFilter;

impl<I: Io> ExchangeRecord<I> {
    /// Sets the rate limit that refused the request.
    pub fn set_limit(&self, limit: &Arc<RateLimit>) {
        *self.limited.borrow_mut() = Some(Arc::clone(limit));
        self.limit_line(&limit.stats.worker(self.worker.index).lines);
    }

    /// Sets the global rate limit that refused the request.
    pub fn set_global_limit(&self, limit: &GlobalLimit) {
        let GlobalLimit { scope, name, place, .. } = limit;
        let policy = format!("global rate limit of {} {name} ({place})", scope.word());
        *self.denial.borrow_mut() = Some(policy.into());
        self.limit_line(&limit.stats.worker(self.worker.index).lines);
    }

    /// Limits the lines of failures to those that `budget` allows. A log of all requests has all.
    fn limit_line(&self, budget: &LogBudget) {
        if self.terms.access_log.as_ref().is_some_and(|lines| lines.filter == LogFilter::Failed) {
            self.suppressed.set(budget.take(self.began));
        }
    }

    /// Keeps the answer of a rate limit service, for the client.
    pub fn set_answer(&self, limit: Arc<GlobalLimit>, answer: Answer) {
        self.answers.borrow_mut().push((limit, answer));
    }

    /// Gives `bytes` of a body back to the limits on bytes, because they were counted and not sent.
    pub fn forgive(&self, way: Way, bytes: u64) {
        if self.is_throttled() {
            let now = self.worker.io.now();
            self.with_limits(|limits| {
                for (limit, key) in limits.into_iter().zip(self.throttled.get()) {
                    if let (Some(limit), Some(key)) = (limit, key) {
                        limit.forgive(key, way, bytes, now);
                    }
                }
            });
        }
    }

    /// Writes the response fields that describe the rate limits of the request.
    pub fn put_quotas(&self, out: &mut dyn Sink) {
        // If the limit of the service has refused the request, the record has no service.
        let limited = self.limited.borrow();
        let refused = limited.as_deref().filter(|limit| limit.scope == Scope::Service);
        self.with_limits(|[listener, rule, service]| {
            limits::put_fields(out, [listener, rule, service.or(refused)], self.quotas.get());
        });
        for (limit, answer) in &*self.answers.borrow() {
            limits::put_answer(out, limit, answer);
        }
    }
}
