//! The part of the record about rate limits: the limit that refused, the answers of rate limit
//! services, and the fields for the client.

use std::cell::Cell;
use std::sync::Arc;

use super::ExchangeRecord;
use crate::grpc::rate_limit::Answer;
use crate::http1::sink::Sink;
use crate::resilience::{GlobalLimit, KeyHash, Keys, LIMITS_MAX, LogBudget, RateLimit, Scope, Way};
use crate::runtime::io::Io;
use crate::serve::limits;
use crate::snapshot::LogFilter;

/// The limits of the listener, the rule and the service.
pub(super) type Lists<'a> = [&'a [Arc<RateLimit>]; Scope::COUNT];

/// The keys of the limits on bytes that apply to a request, by scope and limit.
pub(super) type Throttled = [[Cell<Option<KeyHash>>; LIMITS_MAX]; Scope::COUNT];

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

    /// Calls `use_them` with the rate limits of the listener, the rule and the service.
    pub(super) fn with_limits<T>(&self, use_them: impl FnOnce(Lists<'_>) -> T) -> T {
        let (rule, service) = (self.rule.borrow(), self.service.borrow());
        use_them([
            &*self.terms.rate_limits,
            rule.as_ref().map_or(&[], |rule| &*rule.rate_limits),
            service.as_ref().map_or(&[], |service| &*service.config.rate_limits),
        ])
    }

    /// The limits on bytes that apply to the bodies of the request, with their keys.
    pub(super) fn throttling<'a>(
        &'a self,
        lists: Lists<'a>,
    ) -> impl Iterator<Item = (&'a RateLimit, KeyHash)> {
        let keys = self.throttled.get().into_iter().flat_map(|keys| keys.iter());
        lists.into_iter().zip(keys).flat_map(|(list, keys)| {
            list.iter().zip(keys).filter_map(|(limit, key)| Some((&**limit, key.get()?)))
        })
    }

    /// Applies those of `limits` that limit bytes to the bodies of the request. `keys` select the
    /// buckets.
    pub fn throttle(&self, limits: &[Arc<RateLimit>], keys: &Keys) {
        for (index, (limit, &key)) in limits.iter().zip(keys).enumerate() {
            if limit.bytes.is_some() {
                let keys = self.throttled.get_or_init(Box::default);
                keys[limit.scope as usize][index].set(Some(key));
            }
        }
    }

    /// Whether a limit on bytes applies to the bodies.
    pub fn is_throttled(&self) -> bool {
        self.throttled.get().is_some()
    }

    /// Gives `bytes` of a body back to the limits on bytes, because they were counted and not sent.
    pub fn forgive(&self, way: Way, bytes: u64) {
        if self.is_throttled() {
            let now = self.worker.io.now();
            self.with_limits(|limits| {
                for (limit, key) in self.throttling(limits) {
                    limit.forgive(key, way, bytes, now);
                }
            });
        }
    }

    /// Writes the response fields that describe the rate limits of the request.
    pub fn put_quotas(&self, out: &mut dyn Sink) {
        // If the limit of the service has refused the request, the record has no service.
        let limited = self.limited.borrow();
        let refused = limited.as_deref().filter(|limit| limit.scope == Scope::Service);
        let quotas = self.quotas.get();
        self.with_limits(|lists| {
            let mut met = [None; Scope::COUNT];
            for ((met, quota), list) in met.iter_mut().zip(quotas).zip(lists) {
                *met = quota
                    .and_then(|quota| list.get(usize::from(quota.limit)))
                    .map(|limit| &**limit);
            }
            let [listener, rule, service] = met;
            limits::put_fields(out, [listener, rule, refused.or(service)], quotas);
        });
        for (limit, answer) in &*self.answers.borrow() {
            limits::put_answer(out, limit, answer);
        }
    }
}
