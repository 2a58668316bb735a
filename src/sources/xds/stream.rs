//! The requests of one stream: which types are asked for, which responses are accepted or refused,
//! and when. No I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::kinds::Type;
use super::state::State;
use crate::grpc::xds::{Node, Request};

/// The longest wait before a response is refused, and its maximum. A server may answer a refusal at
/// once with the same resources again. Each refusal in a row doubles it.
const REFUSE_AFTER: Duration = Duration::from_secs(1);
const REFUSE_AFTER_MAX: Duration = Duration::from_secs(60);

/// The time after which a name that is not answered does not exist.
const ABSENT_AFTER: Duration = Duration::from_secs(15);

/// If types are asked for one after the other, the longest wait for an answer.
const ONE_BY_ONE: Duration = Duration::from_millis(500);

/// The versions that were accepted. They outlive a stream.
#[derive(Debug, Default)]
pub(super) struct Accepted {
    pub(super) versions: BTreeMap<Type, String>,
    /// How often responses of a type were refused in a row.
    refusals: BTreeMap<Type, u32>,
    /// The types that were answered at least once.
    pub(super) heard: BTreeSet<Type>,
}

/// A stream.
#[derive(Debug)]
pub(super) struct Stream {
    is_delta: bool,
    /// Whether a type is asked for only after the answer for the one before.
    pub(super) is_careful: bool,
    types: Vec<Type>,
    begun: bool,
    asked: BTreeMap<Type, Asked>,
}

/// A type that was asked for.
#[derive(Debug)]
struct Asked {
    at: Instant,
    heard: bool,
    nonce: String,
    /// The names that were asked for.
    names: BTreeSet<String>,
    /// The generation of the names that are wanted.
    generation: u64,
    /// Names without an answer, each with the time at which it does not exist.
    until: BTreeMap<String, Instant>,
    /// The time at which names without an answer are asked for again: a server may forget them if
    /// it had no answer for one of them. `None` if all are known.
    again: Option<Instant>,
    answer: Option<Answer>,
}

/// The answer to a response that is not sent yet.
#[derive(Debug)]
struct Answer {
    version: String,
    is_judged: bool,
    refusal: Option<String>,
    due: Instant,
    /// The time at which an earlier refusal was to be sent, which this one includes.
    latest: Option<Instant>,
}

impl Stream {
    pub(super) fn new(is_delta: bool, is_careful: bool, types: Vec<Type>) -> Self {
        Self { is_delta, is_careful, types, begun: false, asked: BTreeMap::new() }
    }

    /// Notes a response. It is answered when it is judged. Returns whether the answer to an earlier
    /// response of changes is still to be sent: then the answer is about both.
    pub(super) fn note(&mut self, kind: Type, version: &str, nonce: &str, now: Instant) -> bool {
        for (other, asked) in &mut self.asked {
            if *other != kind && asked.again.is_some() {
                asked.again = Some(now);
            }
        }
        let Some(asked) = self.asked.get_mut(&kind) else { return false };
        asked.heard = true;
        nonce.clone_into(&mut asked.nonce);
        let version = version.to_owned();
        let earlier = asked.answer.take().filter(|_| self.is_delta);
        let is_pending = earlier.is_some();
        // Further responses do not put off a refusal.
        let latest = earlier.and_then(|it| it.latest.or_else(|| it.refusal.map(|_| it.due)));
        let answer = Answer { version, is_judged: false, refusal: None, due: now, latest };
        asked.answer = Some(answer);
        is_pending
    }

    /// Whether the server has answered for this type on this stream.
    pub(super) fn is_heard_for(&self, kind: Type) -> bool {
        self.asked.get(&kind).is_some_and(|asked| asked.heard)
    }

    /// Judges all responses without an answer: `refusal` has the reason against a type. Returns the
    /// types that are refused.
    pub(super) fn judge(
        &mut self,
        accepted: &mut Accepted,
        now: Instant,
        refusal: impl Fn(Type) -> Option<String>,
    ) -> Vec<(Type, String)> {
        let mut refused = Vec::new();
        for (kind, asked) in &mut self.asked {
            let Some(answer) = asked.answer.as_mut().filter(|answer| !answer.is_judged) else {
                continue;
            };
            answer.is_judged = true;
            answer.refusal = refusal(*kind);
            match &answer.refusal {
                None => {
                    accepted.refusals.remove(kind);
                    accepted.versions.insert(*kind, answer.version.clone());
                }
                Some(why) => {
                    let before = accepted.refusals.entry(*kind).or_default();
                    let longest = REFUSE_AFTER.saturating_mul(1 << (*before).min(10));
                    let longest = longest.min(REFUSE_AFTER_MAX);
                    answer.due = match answer.latest {
                        Some(latest) => latest,
                        None => {
                            *before += 1;
                            now + longest.mul_f64(0.5 + fastrand::f64() / 2.0)
                        }
                    };
                    refused.push((*kind, why.clone()));
                }
            }
        }
        refused
    }

    /// The requests that are due now, each as its bytes.
    pub(super) fn requests(
        &mut self,
        state: &State,
        accepted: &Accepted,
        node: &Node,
        now: Instant,
    ) -> Vec<Vec<u8>> {
        let mut requests = Vec::new();
        for kind in self.types.clone() {
            let is_waiting = self.is_careful && self.is_waiting(now);
            let request = match self.asked.get_mut(&kind) {
                Some(asked) => asked.next(kind, state, accepted, (self.is_delta, now)),
                None if !kind.is_whole() && !state.is_any_wanted(kind) => None,
                None if is_waiting => break,
                None => {
                    let (asked, request) =
                        Asked::first(kind, state, accepted, (self.is_delta, now));
                    self.asked.insert(kind, asked);
                    Some(request)
                }
            };
            if let Some(request) = request {
                let first = !std::mem::replace(&mut self.begun, true);
                requests.push(request.encode(kind, first.then_some(node), self.is_delta));
            }
        }
        requests
    }

    fn is_waiting(&self, now: Instant) -> bool {
        self.asked.values().any(|asked| !asked.heard && now < asked.at + ONE_BY_ONE)
    }

    /// The names that do not exist, because the server has not answered for too long.
    pub(super) fn absent(&mut self, state: &State, now: Instant) -> Vec<(Type, String)> {
        let mut absent = Vec::new();
        for (kind, asked) in &mut self.asked {
            asked.until.retain(|name, until| {
                if state.is_known(*kind, name) {
                    return false;
                }
                let is_over = *until <= now;
                if is_over {
                    absent.push((*kind, name.clone()));
                }
                !is_over
            });
        }
        absent
    }

    /// Whether everything that was asked for is known.
    pub(super) fn is_settled(&self, state: &State, accepted: &Accepted) -> bool {
        let known = |(kind, asked): (&Type, &Asked)| {
            (asked.heard || accepted.versions.contains_key(kind))
                && asked.names.iter().all(|name| state.is_known(*kind, name))
        };
        let asked = |kind: &Type| {
            self.asked.contains_key(kind) || (!kind.is_whole() && !state.is_any_wanted(*kind))
        };
        self.types.iter().all(asked) && self.asked.iter().all(known)
    }

    /// The time of the next request or decision.
    pub(super) fn due(&self) -> Option<Instant> {
        let answers = self.asked.values().filter_map(|asked| asked.answer.as_ref());
        let answers = answers.filter(|answer| answer.is_judged).map(|answer| answer.due);
        let names = self.asked.values().flat_map(|asked| asked.until.values()).copied();
        let waiting = self.is_careful && self.asked.len() < self.types.len();
        let waiting = self.asked.values().filter(|asked| waiting && !asked.heard);
        let again = self.asked.values().filter_map(|asked| asked.again);
        answers.chain(names).chain(again).chain(waiting.map(|asked| asked.at + ONE_BY_ONE)).min()
    }

    /// The types that were asked for last and never answered. A server may end a stream because of
    /// one of them. All servers know clusters: without them, there is nothing to serve.
    pub(super) fn suspects(&self, accepted: &Accepted) -> Vec<Type> {
        let unheard = self.asked.iter().filter(|(_, asked)| !asked.heard);
        let unheard = unheard.filter(|(kind, _)| **kind != Type::Cluster);
        let mut unheard: Vec<_> =
            unheard.filter(|(kind, _)| !accepted.heard.contains(kind)).collect();
        unheard.sort_by_key(|(_, asked)| asked.at);
        unheard.into_iter().map(|(kind, _)| *kind).collect()
    }

    /// Whether the server has answered for a type on this stream.
    pub(super) fn is_heard(&self) -> bool {
        self.asked.values().any(|asked| asked.heard)
    }

    /// Asks for a type that was left out so far.
    pub(super) fn ask_again(&mut self, kind: Type) {
        if !self.types.contains(&kind) {
            self.types.push(kind);
            self.types.sort();
        }
    }
}

/// A request before it is encoded.
struct Wanted<'a> {
    version: &'a str,
    names: Vec<String>,
    unsubscribed: Vec<String>,
    known: Vec<(&'a str, &'a str)>,
    nonce: String,
    refusal: Option<String>,
}

impl Wanted<'_> {
    fn encode(&self, kind: Type, node: Option<&Node>, is_delta: bool) -> Vec<u8> {
        let request = Request {
            node,
            type_url: kind.url(),
            version: self.version,
            names: self.names.iter().map(String::as_str).collect(),
            unsubscribed: self.unsubscribed.iter().map(String::as_str).collect(),
            known: self.known.clone(),
            nonce: &self.nonce,
            refusal: self.refusal.as_deref(),
        };
        if is_delta { request.delta() } else { request.state_of_the_world() }
    }
}

impl Asked {
    /// The first request for a type on a stream.
    fn first<'a>(
        kind: Type,
        state: &'a State,
        accepted: &'a Accepted,
        (is_delta, now): (bool, Instant),
    ) -> (Self, Wanted<'a>) {
        let (names, generation) = (state.wanted(kind), state.generation(kind));
        let unknown = names.iter().filter(|name| !state.is_known(kind, name));
        let mut asked = Self {
            at: now,
            heard: false,
            nonce: String::new(),
            until: unknown.map(|name| (name.clone(), now + ABSENT_AFTER)).collect(),
            names,
            generation,
            again: None,
            answer: None,
        };
        asked.await_names(kind, state, now);
        let known = state.entries(kind).iter().filter(|(_, entry)| !entry.version.is_empty());
        let known = known.map(|(name, entry)| (&**name, &*entry.version));
        let request = Wanted {
            version: accepted.versions.get(&kind).map_or("", |version| version),
            names: asked.names.iter().cloned().collect(),
            unsubscribed: Vec::new(),
            known: if is_delta { known.collect() } else { Vec::new() },
            nonce: String::new(),
            refusal: None,
        };
        (asked, request)
    }

    /// The names without a resource.
    fn unanswered<'a>(&'a self, kind: Type, state: &'a State) -> impl Iterator<Item = &'a String> {
        self.names.iter().filter(move |name| !state.has(kind, name))
    }

    /// Sets the time at which names without an answer are asked for again.
    fn await_names(&mut self, kind: Type, state: &State, now: Instant) {
        let is_waiting = self.unanswered(kind, state).next().is_some();
        let kept = self.again.filter(|at| *at > now);
        self.again = is_waiting.then(|| kept.unwrap_or(now + ABSENT_AFTER));
    }

    /// The next request, if one is due: an answer to a response, or a change of the names.
    fn next<'a>(
        &mut self,
        kind: Type,
        state: &State,
        accepted: &'a Accepted,
        (is_delta, now): (bool, Instant),
    ) -> Option<Wanted<'a>> {
        let (mut unsubscribed, mut added, mut is_empty) = (Vec::new(), Vec::new(), false);
        if self.generation != state.generation(kind) {
            let wanted = state.wanted(kind);
            unsubscribed.extend(self.names.difference(&wanted).cloned());
            added.extend(wanted.difference(&self.names).cloned());
            is_empty = wanted.is_empty();
        }
        // In the state of the world, no names would mean all.
        let renames = !unsubscribed.is_empty() || !added.is_empty();
        let renames = renames && (is_delta || !is_empty);
        if renames || !is_empty {
            self.generation = state.generation(kind);
        }
        if renames {
            for name in &unsubscribed {
                self.names.remove(name);
                self.until.remove(name);
            }
            for name in &added {
                if !state.is_known(kind, name) {
                    self.until.insert(name.clone(), now + ABSENT_AFTER);
                }
                self.names.insert(name.clone());
            }
        }
        let is_again = self.again.is_some_and(|at| at <= now);
        let again: Vec<String> = match is_again {
            true => self.unanswered(kind, state).cloned().collect(),
            false => Vec::new(),
        };
        if renames || is_again || self.again.is_some() {
            self.await_names(kind, state, now);
        }
        let is_due = |answer: &&mut Answer| answer.is_judged && answer.due <= now;
        let answered = self.answer.as_mut().filter(is_due).is_some();
        if !renames && !answered && again.is_empty() {
            return None;
        }
        let answer = if answered { self.answer.take() } else { None };
        let mut request = Wanted {
            version: accepted.versions.get(&kind).map_or("", |version| version),
            names: match is_delta {
                true => added.into_iter().chain(again).collect(),
                false => self.names.iter().cloned().collect(),
            },
            unsubscribed: if is_delta { unsubscribed } else { Vec::new() },
            known: Vec::new(),
            nonce: self.nonce.clone(),
            refusal: answer.and_then(|answer| answer.refusal),
        };
        if is_delta && !answered {
            request.nonce.clear();
        }
        Some(request)
    }
}
