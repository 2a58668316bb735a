//! Rate limits: which requests share a bucket, and which fields describe the limit to the client.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::bucket::{Rate, Taken};
use super::buckets::{Buckets, KeyHash};
use super::log_budget::LogBudget;
use crate::cells::{Count, PerWorker};
use crate::error::{Flag, Refusal};
use crate::time::Time;

/// The default of `per`, the period of a rate limit.
pub const RATE_PER: Duration = Duration::from_secs(1);

/// How many times `per` a bucket of bytes may owe before it refuses requests. Each request in
/// progress adds one portion of its body at most, so the debt has a limit.
pub const BYTES_DEBT_MAX: u32 = 60;

/// The property of a request by which the limit counts. Requests with an equal value share a
/// bucket.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LimitBy {
    /// No property: all requests share one bucket.
    All,
    /// The value of this header field. Requests without the field share a bucket.
    Header(Box<str>),
    /// The SPIFFE ID of the client. Clients without one share a bucket.
    Identity,
    /// The address of the client.
    Source,
}

/// The kind of the owner of a rate limit. A request is checked in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// A listener.
    Listener,
    /// A rule of a route.
    Route,
    /// A service.
    Service,
}

impl Scope {
    /// The number of scopes.
    pub const COUNT: usize = 3;

    /// The name of the scope in metrics and logs.
    pub fn word(self) -> &'static str {
        match self {
            Self::Listener => "listener",
            Self::Route => "route",
            Self::Service => "service",
        }
    }

    fn refusal(self) -> Refusal {
        let detail = match self {
            Self::Listener => "too many requests for the rate limit of the listener",
            Self::Route => "too many requests for the rate limit of the route",
            Self::Service => "too many requests for the rate limit of the service",
        };
        Refusal { status: 429, flag: Flag::RateLimited, detail }
    }
}

/// Which fields of responses describe the rate limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LimitFields {
    /// Whether to add `ratelimit` and `ratelimit-policy` (draft-ietf-httpapi-ratelimit-headers-10).
    pub standard: bool,
    /// Whether to add `x-ratelimit-limit`, `x-ratelimit-remaining` and `x-ratelimit-reset`.
    pub envoy: bool,
}

impl LimitFields {
    /// Whether there are no such fields.
    pub fn is_silent(self) -> bool {
        !self.standard && !self.envoy
    }
}

/// A rate limit.
#[derive(Debug)]
pub struct RateLimit {
    /// The kind of its owner.
    pub scope: Scope,
    /// The host of a rule. Empty for other owners.
    pub host: Box<str>,
    /// The name of its owner: a listener, rule or service.
    pub name: Box<str>,
    /// Its name or number among the limits of its owner. Empty if it is the only one.
    pub which: Box<str>,
    /// `file:line` of the definition.
    pub place: Box<str>,
    /// The property of a request by which the limit counts.
    pub by: LimitBy,
    /// The limit on requests. `None` means no such limit.
    pub requests: Option<RequestLimit>,
    /// The limit on the bytes of bodies. `None` means no such limit.
    pub bytes: Option<ByteLimit>,
    /// The name of the limit in responses, as a string of structured fields with its quotes.
    pub label: Box<str>,
    /// Which fields of responses describe the limit.
    pub fields: LimitFields,
    /// The counters. They survive reloads as long as the name stays the same.
    pub stats: Arc<PerWorker<RateLimitCells>>,
}

impl RateLimit {
    /// The limit in words, for logs: its owner, its name or number, and its place.
    pub fn told(&self) -> String {
        let Self { scope, name, which, place, .. } = self;
        match &**which {
            "" => format!("rate limit of {} {name} ({place})", scope.word()),
            which => format!("rate limit {which} of {} {name} ({place})", scope.word()),
        }
    }
}

/// A limit on requests.
#[derive(Debug)]
pub struct RequestLimit {
    /// The rate at which requests pass.
    pub rate: Rate,
    /// The number of requests that may arrive at the same time as the first one.
    pub burst: u64,
    /// The buckets. They survive reloads that do not change the limit.
    pub buckets: Arc<Buckets>,
}

/// A limit on the bytes of bodies. A body beyond the limit is slowed down.
#[derive(Debug)]
pub struct ByteLimit {
    /// The rate in each direction.
    pub rate: Rate,
    /// The buckets of each direction, by [`Way`]. They survive reloads that do not change the
    /// limit.
    pub buckets: [Arc<Buckets>; 2],
}

/// The direction of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the client to the service.
    Up,
    /// From the service to the client.
    Down,
}

/// The counters of a rate limit, for one worker.
#[derive(Debug, Default)]
pub struct RateLimitCells {
    /// The number of requests that passed.
    pub passed: Count,
    /// The number of requests that were refused.
    pub limited: Count,
    /// The number of times that a body had to wait.
    pub delays: Count,
    /// The lines of refused requests.
    pub lines: LogBudget,
}

/// The state of a bucket after a request, for the fields of the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// The index of the limit among those of its owner.
    pub limit: u8,
    /// The number of further requests that would pass now.
    pub left: u32,
    /// Seconds until the bucket is full, rounded up.
    pub full_in_s: u32,
    /// Seconds until a refused request would pass, rounded up. Zero if the request passed.
    pub wait_s: u32,
}

impl RateLimit {
    /// The hash of the key of a request. `key` is the value of the property [`RateLimit::by`].
    pub fn hash(&self, key: &[u8]) -> KeyHash {
        if self.by == LimitBy::All { KeyHash::default() } else { KeyHash::of(key) }
    }

    /// The state of the limit on bytes for a request with `key` that must be refused, because the
    /// bucket of a direction owes too much.
    pub fn indebted(&self, key: KeyHash, now: Time) -> Option<Taken> {
        let ByteLimit { rate, buckets } = self.bytes.as_ref()?;
        let debt = buckets.iter().map(|buckets| buckets.debt(key, *rate, now)).max()?;
        let wait = debt.checked_sub(rate.per().saturating_mul(BYTES_DEBT_MAX))?;
        (!wait.is_zero()).then_some(Taken::refused(wait, debt))
    }

    /// Gives `bytes` back that were counted and not sent.
    pub fn forgive(&self, key: KeyHash, way: Way, bytes: u64, now: Time) {
        if let Some(limit) = &self.bytes {
            limit.buckets[way as usize].forgive(key, limit.rate, bytes, now);
        }
    }

    /// The refusal of a request that would have to wait.
    pub fn refusal(&self) -> Refusal {
        self.scope.refusal()
    }

    /// Takes `bytes` bytes of a body from the bucket of `key`. Returns how long to wait before the
    /// next bytes.
    pub fn owe(&self, key: KeyHash, way: Way, bytes: u64, worker: usize, now: Time) -> Duration {
        let Some(limit) = &self.bytes else { return Duration::ZERO };
        let wait = limit.buckets[way as usize].owe(key, limit.rate, bytes, now);
        if !wait.is_zero() {
            self.stats.worker(worker).delays.increment();
        }
        wait
    }

    /// The number of keys in the tables of this limit.
    pub fn keys(&self) -> u64 {
        self.all_buckets().map(|buckets| buckets.keys()).sum()
    }

    /// The number of keys that were removed before their bucket was full again.
    pub fn evicted(&self) -> u64 {
        self.all_buckets().map(|buckets| buckets.evicted()).sum()
    }

    fn all_buckets(&self) -> impl Iterator<Item = &Arc<Buckets>> {
        let requests = self.requests.iter().map(|limit| &limit.buckets);
        requests.chain(self.bytes.iter().flat_map(|limit| &limit.buckets))
    }
}

impl Quota {
    /// The quota of the limit with this index.
    pub(super) fn of(limit: usize, taken: Taken, rate: Rate) -> Self {
        let left = u32::try_from(taken.left(rate)).unwrap_or(u32::MAX);
        Self { left, ..Self::refused(limit, taken) }
    }

    /// The quota of the limit with this index, which refuses the request.
    pub(super) fn refused(limit: usize, taken: Taken) -> Self {
        Self {
            limit: limit as u8,
            left: 0,
            full_in_s: whole_seconds(taken.full_in()),
            wait_s: whole_seconds(taken.wait()),
        }
    }
}

/// A duration in seconds, rounded up.
fn whole_seconds(time: Duration) -> u32 {
    let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

impl fmt::Display for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(RequestLimit { rate, burst, .. }) = &self.requests {
            write!(f, "{} requests per {:?}, burst {burst}", rate.units(), rate.per())?;
        }
        if let Some(ByteLimit { rate, .. }) = &self.bytes {
            let before = if self.requests.is_some() { ", " } else { "" };
            write!(f, "{before}{} bytes per {:?} in each direction", rate.units(), rate.per())?;
        }
        match &self.by {
            LimitBy::All => Ok(()),
            LimitBy::Header(name) => write!(f, ", by header {name}"),
            LimitBy::Identity => write!(f, ", by identity"),
            LimitBy::Source => write!(f, ", by source"),
        }
    }
}

/// `text` as a string of structured fields (RFC 9651 3.3.3), with its quotes. Each character that
/// is not allowed there becomes `_`.
pub fn quoted(text: &str) -> Box<str> {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            ' '..='~' => out.push(c),
            _ => out.push('_'),
        }
    }
    out.push('"');
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_strings_of_structured_fields() {
        for (text, expected) in [
            ("*#1", "\"*#1\""),
            ("a \"b\" \\", "\"a \\\"b\\\" \\\\\""),
            ("caf\u{e9}\n", "\"caf__\""),
            ("", "\"\""),
        ] {
            assert_eq!(&*quoted(text), expected);
        }
    }
}
