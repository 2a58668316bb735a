//! The stories of the last exchanges: the way of each through the proxy, kept for a while.

use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError, TryLockError};

use serde_json::{Value, json};

use super::text::put_time;
use crate::error::Flag;
use crate::net::Address;
use crate::time::Time;

/// The number of exchanges of each worker whose stories are kept.
pub const RECENT_MAX: usize = 1024;

/// The number of failed or slow exchanges of each worker whose stories are kept in addition.
pub const FAILED_MAX: usize = 512;

/// How many stories of exchanges that have not failed and were not slow a worker keeps in a second.
/// Under load, [`RECENT_MAX`] of them would be the last milliseconds only, and cost CPU time.
pub const ORDINARY_PER_S: u64 = 200;

/// How many of them may come at once.
const ORDINARY_BURST: u64 = 100;

/// An exchange that takes longer than this is slow, in microseconds.
pub const SLOW_US: u64 = 1_000_000;

/// The maximum length of a text in a story, in bytes. The rest is cut.
const TEXT_MAX: usize = 512;

/// The texts of a story, in the order of [`Texts`].
const TEXTS: usize = 10;

/// The texts of a story.
#[derive(Clone, Copy, Debug, Default)]
pub struct Texts<'a> {
    /// The value of `x-request-id`.
    pub request_id: &'a [u8],
    /// The method. Empty for an L4 connection.
    pub method: &'a [u8],
    /// The host and port of the request.
    pub authority: &'a [u8],
    /// The target of the request.
    pub target: &'a [u8],
    /// The name of the listener.
    pub listener: &'a str,
    /// The name of the rule.
    pub route: &'a str,
    /// The file and line of the rule.
    pub place: &'a str,
    /// The name of the service.
    pub service: &'a str,
    /// The SPIFFE ID of the client.
    pub identity: &'a str,
    /// The rule or rate limit that denied the exchange.
    pub policy: &'a str,
}

/// The numbers of a story.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The start of the exchange.
    pub began: Time,
    /// The start of the last attempt. `None` if no endpoint was tried.
    pub attempted: Option<Time>,
    /// The time of the head of the response.
    pub answered: Option<Time>,
    /// The end of the exchange.
    pub ended: Time,
    /// `HTTP/2`, `HTTP/1.1`, `HTTP/1.0` or `TCP`.
    pub protocol: &'static str,
    /// The address of the client.
    pub peer: Option<SocketAddr>,
    /// The status that was sent to the client. 0 if none was sent.
    pub status: u16,
    /// The status of a gRPC call.
    pub grpc_status: Option<u8>,
    /// The response flag.
    pub flag: Option<Flag>,
    /// The reason of the flag.
    pub detail: &'static str,
    /// The endpoint of the last attempt.
    pub endpoint: Option<Address>,
    /// The number of attempts.
    pub attempts: u32,
    /// Earlier attempts.
    pub tried: Vec<Tried>,
    /// Body bytes from the client.
    pub received_bytes: u64,
    /// Body bytes to the client.
    pub sent_bytes: u64,
    /// Whether the exchange has failed.
    pub failed: bool,
    /// Whether the exchange became a tunnel.
    pub tunnel: bool,
    /// The effects of policies, besides their refusals.
    pub acted: Acted,
}

/// The effects of policies on an exchange, besides their refusals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Acted {
    /// A fault delayed the exchange.
    pub delayed: bool,
    /// A limit on bytes slowed down a body.
    pub slowed: bool,
    /// The request was sent to a second endpoint, because the first one was slow.
    pub hedged: bool,
    /// A copy of the request was sent to another service.
    pub mirrored: bool,
}

/// An attempt that was not the last one.
#[derive(Clone, Debug)]
pub struct Tried {
    /// The endpoint. `None` if there was none to try.
    pub endpoint: Option<Address>,
    /// The start of the attempt.
    pub began: Time,
    /// Its end.
    pub ended: Time,
    /// The status of its response. 0 if there was none.
    pub status: u16,
    /// Why it was not the last one.
    pub result: &'static str,
}

/// The limit of [`ORDINARY_PER_S`] on one worker.
#[derive(Debug, Default)]
pub struct Ordinary {
    /// The time at which the budget is full again, in microseconds.
    full_at_us: Cell<u64>,
}

impl Ordinary {
    /// Whether the story of an exchange without a failure, which has ended at `now`, is kept.
    pub fn take(&self, now: Time) -> bool {
        let now_us = now.as_micros();
        let full_at_us = self.full_at_us.get().max(now_us);
        let each_us = 1_000_000 / ORDINARY_PER_S;
        let has_room = full_at_us - now_us <= (ORDINARY_BURST - 1) * each_us;
        if has_room {
            self.full_at_us.set(full_at_us + each_us);
        }
        has_room
    }
}

/// The story of one exchange. Its memory is used again.
#[derive(Debug, Default)]
struct Story {
    block: Vec<u8>,
    ends: [u32; TEXTS],
    facts: Facts,
}

/// The stories of one worker.
#[derive(Debug, Default)]
struct Ring {
    recent: Slots,
    failed: Slots,
}

#[derive(Debug, Default)]
struct Slots {
    stories: Vec<Story>,
    next: usize,
}

/// Keeps one ring apart from the cache lines of the others.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Padded(Mutex<Ring>);

/// The stories of all workers.
#[derive(Debug, Default)]
pub struct Stories {
    rings: Box<[Padded]>,
    /// The time 0 of the clocks of the workers, in microseconds since the Unix epoch.
    epoch_unix_us: u64,
}

impl Stories {
    /// Creates rings for `workers`. `epoch_unix_us` is the time 0 of their clocks.
    pub fn new(workers: usize, epoch_unix_us: u64) -> Self {
        Self { rings: (0..workers).map(|_| Padded::default()).collect(), epoch_unix_us }
    }

    /// Whether stories are kept.
    pub fn are_kept(&self) -> bool {
        !self.rings.is_empty()
    }

    /// Keeps the story of an exchange of `worker`. Does not wait: if a reader has the ring, the
    /// story is lost.
    pub fn keep(&self, worker: usize, texts: &Texts<'_>, facts: Facts) {
        let Some(ring) = self.rings.get(worker) else { return };
        let mut ring = match ring.0.try_lock() {
            Ok(ring) => ring,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        if facts.failed || is_slow(&facts) {
            ring.failed.next(FAILED_MAX).fill(texts, facts.clone());
        }
        ring.recent.next(RECENT_MAX).fill(texts, facts);
    }

    /// The stories of the exchanges with the request id `id`, the latest first.
    pub fn with_id(&self, id: &str) -> Vec<Value> {
        let mut found = self.collect(|story| story.text(0) == id.as_bytes(), false);
        found.sort_by_key(|(began, ..)| std::cmp::Reverse(*began));
        // A failed exchange is in both rings.
        found.dedup_by(|one, other| one == other);
        found.into_iter().map(|(_, story)| story).collect()
    }

    /// The stories of the last `count` exchanges, the latest first. `failed` chooses those that
    /// have failed or were slow.
    pub fn last(&self, count: usize, failed: bool) -> Vec<Value> {
        let mut found = self.collect(|_| true, failed);
        found.sort_by_key(|(began, ..)| std::cmp::Reverse(*began));
        found.dedup_by(|one, other| one == other);
        found.truncate(count);
        found.into_iter().map(|(_, story)| story).collect()
    }

    fn collect(&self, wanted: impl Fn(&Story) -> bool, failed: bool) -> Vec<(Time, Value)> {
        let mut found = Vec::new();
        for (worker, ring) in self.rings.iter().enumerate() {
            let ring = ring.0.lock().unwrap_or_else(PoisonError::into_inner);
            let recent = ring.recent.stories.iter().filter(|_| !failed);
            let stories = recent.chain(&ring.failed.stories).filter(|story| wanted(story));
            let value = |story: &Story| (story.facts.began, self.value(worker, story));
            found.extend(stories.map(value));
        }
        found
    }

    fn value(&self, worker: usize, story: &Story) -> Value {
        let facts = &story.facts;
        let text = |index| String::from_utf8_lossy(story.text(index)).into_owned();
        let since = |time: Time| time.since(facts.began).as_micros() as u64;
        let mut time = Vec::new();
        put_time(&mut time, self.epoch_unix_us + facts.began.as_micros());
        let mut attempts: Vec<Value> = facts.tried.iter().map(|tried| tried.value(since)).collect();
        if let Some(attempted) = facts.attempted {
            attempts.push(json!({
                "endpoint": facts.endpoint.as_ref().map(ToString::to_string),
                "began_us": since(attempted),
                "response_us": facts.answered.map(since),
                "ended_us": since(facts.ended),
                "result": facts.last_result(),
            }));
        }
        let flags = facts.flag.map(Flag::letters);
        json!({
            "request_id": text(0),
            "time": String::from_utf8_lossy(&time),
            "worker": worker,
            "listener": text(4),
            "client": facts.peer.map(|peer| peer.to_string()),
            "identity": text(8),
            "protocol": facts.protocol,
            "method": text(1),
            "authority": text(2),
            "target": text(3),
            "rule": { "name": text(5), "place": text(6) },
            "service": text(7),
            "policies": facts.policies(&text(9)),
            "attempts": attempts,
            "status": facts.status,
            "grpc_status": facts.grpc_status,
            "flag": flags,
            "detail": facts.detail,
            "failed": facts.failed,
            "tunnel": facts.tunnel,
            "ended_by": facts.ended_by(),
            "received_bytes": facts.received_bytes,
            "sent_bytes": facts.sent_bytes,
            "duration_us": since(facts.ended),
        })
    }
}

/// Whether an exchange was slow. A tunnel may take its time.
fn is_slow(facts: &Facts) -> bool {
    !facts.tunnel && is_long(facts.began, facts.ended)
}

/// Whether the time between `began` and `ended` is longer than [`SLOW_US`].
pub fn is_long(began: Time, ended: Time) -> bool {
    ended.since(began).as_micros() as u64 > SLOW_US
}

impl Slots {
    /// The memory for the next story: that of the oldest one, if there are `max`.
    fn next(&mut self, max: usize) -> &mut Story {
        if self.stories.len() < max {
            self.stories.push(Story::default());
        }
        let at = self.next;
        self.next = (at + 1) % max;
        &mut self.stories[at]
    }
}

impl Story {
    fn fill(&mut self, texts: &Texts<'_>, facts: Facts) {
        self.block.clear();
        let names = [texts.listener, texts.route, texts.place, texts.service];
        let parts = [texts.request_id, texts.method, texts.authority, texts.target];
        let parts = parts.into_iter().chain(names.into_iter().map(str::as_bytes));
        let mut ends = self.ends.iter_mut();
        for (text, end) in parts.zip(&mut ends) {
            self.block.extend_from_slice(&text[..text.len().min(TEXT_MAX)]);
            *end = self.block.len() as u32;
        }
        // Most exchanges have none of these.
        for (text, end) in [texts.identity, texts.policy].into_iter().zip(ends) {
            if !text.is_empty() {
                self.block.extend_from_slice(&text.as_bytes()[..text.len().min(TEXT_MAX)]);
            }
            *end = self.block.len() as u32;
        }
        self.facts = facts;
    }

    fn text(&self, index: usize) -> &[u8] {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.block[start as usize..self.ends[index] as usize]
    }
}

impl Tried {
    fn value(&self, since: impl Fn(Time) -> u64) -> Value {
        let status = Some(self.status).filter(|status| *status > 0);
        json!({
            "endpoint": self.endpoint.as_ref().map(ToString::to_string),
            "began_us": since(self.began),
            "ended_us": since(self.ended),
            "status": status,
            "result": self.result,
        })
    }
}

impl Facts {
    fn last_result(&self) -> String {
        match (self.flag, self.status) {
            (Some(flag), _) if flag.blames_endpoint() => self.detail.to_owned(),
            (Some(_), _) if self.answered.is_none() => "ended without a response".to_owned(),
            (_, 0) => "no response".to_owned(),
            (_, status) => format!("response {status}"),
        }
    }

    /// The policies that acted, in words.
    fn policies(&self, denied_by: &str) -> Vec<String> {
        let mut policies = Vec::new();
        if !denied_by.is_empty() {
            policies.push(format!("refused by {denied_by}"));
        }
        let retries = self.tried.iter().filter(|tried| tried.result != HEDGED).count();
        let words = [
            (self.acted.delayed, "fault: the request was delayed".to_owned()),
            (self.acted.slowed, "a limit on bytes slowed down a body".to_owned()),
            (self.acted.mirrored, "mirror: a copy was sent".to_owned()),
            (self.acted.hedged, "hedging: a second endpoint was asked".to_owned()),
            (retries > 0, format!("sent again {retries} times")),
        ];
        policies.extend(words.into_iter().filter(|(acted, _)| *acted).map(|(_, words)| words));
        policies
    }

    /// The side that ended the exchange, and how.
    fn ended_by(&self) -> &'static str {
        use Flag::{
            DownstreamConnectionTermination, DownstreamTimeout, StreamIdle, UpstreamConnectFailure,
            UpstreamConnectionTermination, UpstreamProtocolError, UpstreamTimeout,
        };
        match self.flag {
            None if self.tunnel => "one side closed the tunnel",
            None if self.attempted.is_none() => "the proxy answered itself",
            None => "the response was complete",
            Some(DownstreamConnectionTermination) => "the client closed the connection",
            Some(DownstreamTimeout) => "the proxy: the client was too slow",
            Some(UpstreamConnectFailure) => "the proxy: no endpoint accepted a connection",
            Some(UpstreamConnectionTermination) => "the endpoint closed the connection",
            Some(UpstreamProtocolError) => "the proxy: the response of the endpoint was not valid",
            Some(UpstreamTimeout) => "the proxy: the endpoint was too slow",
            Some(StreamIdle) => "the proxy: no byte passed for stream_idle_timeout",
            Some(_) => "the proxy refused the request",
        }
    }
}

/// The result of an attempt that a hedged one has overtaken.
pub const HEDGED: &str = "another endpoint answered first";

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(began: u64, failed: bool) -> Facts {
        let began = Time::from_micros(began);
        Facts { began, ended: Time::from_micros(began.as_micros() + 5), failed, ..Facts::default() }
    }

    #[test]
    fn a_story_is_found_by_its_id_until_others_take_its_place() {
        let stories = Stories::new(2, 1_700_000_000_000_000);
        assert!(Stories::default().with_id("a").is_empty());
        let keep = |worker, id: &str, facts| {
            let texts = Texts { request_id: id.as_bytes(), target: b"/\xff", ..Texts::default() };
            stories.keep(worker, &texts, facts);
        };
        keep(1, "a", facts(100, false));
        keep(0, "a", facts(200, true));
        let found = stories.with_id("a");
        assert_eq!(found.len(), 2);
        assert_eq!((&found[0]["worker"], &found[1]["worker"]), (&0.into(), &1.into()));
        assert_eq!(found[0]["time"], "2023-11-14T22:13:20.000Z");
        assert_eq!(
            (&found[0]["target"], &found[0]["duration_us"]),
            (&"/\u{fffd}".into(), &5.into())
        );
        for number in 0..RECENT_MAX as u64 {
            keep(0, "b", facts(1000 + number, false));
            keep(1, "b", facts(1000 + number, false));
        }
        assert_eq!(stories.with_id("a").len(), 1, "the failed one is kept for longer");
        assert_eq!(stories.with_id("b").len(), 2 * RECENT_MAX);
        assert_eq!(stories.last(3, false).len(), 3);
        assert_eq!(stories.last(3, true).len(), 1);
        let long = "x".repeat(5000);
        keep(0, &long, facts(9000, false));
        assert_eq!(stories.with_id(&long[..TEXT_MAX]).len(), 1);
    }

    #[test]
    fn a_story_says_who_did_what() {
        let stories = Stories::new(1, 0);
        let at = Time::from_micros;
        let tried = Tried {
            endpoint: Some(Address::Tcp("10.0.0.1:80".parse().unwrap())),
            began: at(10),
            ended: at(20),
            status: 503,
            result: "response 503",
        };
        let facts = Facts {
            attempted: Some(at(30)),
            answered: Some(at(40)),
            ended: at(50),
            status: 200,
            endpoint: Some(Address::Tcp("10.0.0.2:80".parse().unwrap())),
            tried: vec![tried],
            acted: Acted { delayed: true, ..Acted::default() },
            ..Facts::default()
        };
        let texts = Texts { request_id: b"r", place: "a.yaml:3", ..Texts::default() };
        stories.keep(0, &texts, facts);
        let story = stories.with_id("r").remove(0);
        assert_eq!(story["rule"]["place"], "a.yaml:3");
        assert_eq!(story["attempts"][0]["result"], "response 503");
        assert_eq!(story["attempts"][0]["endpoint"], "10.0.0.1:80");
        assert_eq!(story["attempts"][1]["result"], "response 200");
        assert_eq!(story["attempts"][1]["response_us"], 40);
        let policies = json!(["fault: the request was delayed", "sent again 1 times"]);
        assert_eq!(story["policies"], policies);
        assert_eq!(story["ended_by"], "the response was complete");
    }
}
