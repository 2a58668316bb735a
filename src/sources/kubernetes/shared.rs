//! The state that the followers of all kinds share.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

use super::NAME;
use super::access::Access;
use super::event::Event;
use super::store::{Kept, Store, Watched};
use super::watch::Failed;
use crate::compile::KubernetesSource;
use crate::sources::dial::authority;
use crate::sources::lookup::Lookups;
use crate::telemetry::status::Status;

/// The state that the followers of all kinds share. Clones share it, too.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) status: Status,
    pub(super) lookups: Lookups,
    pub(super) source: Arc<KubernetesSource>,
    inner: Arc<Mutex<Inner>>,
    pub(super) changed: Arc<Notify>,
    /// Whether there is a place for copies.
    pub(super) copies: Arc<AtomicBool>,
}

/// The beginning of a source.
#[derive(Default)]
pub(super) struct Beginning {
    pub(super) store: Store,
    /// The kinds that are in the store.
    pub(super) known: HashSet<Watched>,
    /// The kinds that have objects of a copy.
    pub(super) of_copy: HashSet<Watched>,
}

/// The objects, and which followers have what.
pub(super) struct Inner {
    pub(super) store: Store,
    /// The kinds about which nothing is known yet, neither objects nor a failure.
    pub(super) untried: HashSet<Watched>,
    all: HashSet<Watched>,
    /// The kinds that were never listed, nor absent, nor in the copy.
    unknown: HashSet<Watched>,
    /// The kinds that fail now, each with the reason.
    failing: HashMap<Watched, String>,
    /// The kinds that cannot be reached, of those that fail.
    away: HashSet<Watched>,
    /// The last sign of life of each kind that is there.
    heard: HashMap<Watched, Instant>,
    /// The kinds that have objects of a copy.
    of_copy: HashSet<Watched>,
}

impl Inner {
    /// The kinds of policies of which nothing is known.
    pub(super) fn unknown_policies(&self) -> impl Iterator<Item = &Watched> {
        self.unknown.iter().filter(|watched| watched.kind.is_policy())
    }

    /// Why a kind fails.
    pub(super) fn why(&self, watched: &Watched) -> &str {
        self.failing.get(watched).map_or("no answer", String::as_str)
    }
}

impl Shared {
    pub(super) fn new(
        status: Status,
        lookups: Lookups,
        source: Arc<KubernetesSource>,
        beginning: Beginning,
        watched: &[Watched],
        copies: Arc<AtomicBool>,
    ) -> Self {
        let Beginning { store, known, of_copy } = beginning;
        let all: HashSet<Watched> = watched.iter().cloned().collect();
        let (now, untried) = (Instant::now(), all.clone());
        let unknown = all.difference(&known).cloned().collect();
        let heard = all.iter().map(|watched| (watched.clone(), now)).collect();
        let (failing, away) = (HashMap::new(), HashSet::new());
        let inner = Inner { store, untried, all, unknown, failing, away, heard, of_copy };
        let inner = Arc::new(Mutex::new(inner));
        Self { status, lookups, source, inner, changed: Arc::default(), copies }
    }

    /// The state for a source that takes the place of this one. Nothing is known of kinds of
    /// another server, but the last objects stay until it tells its own.
    pub(super) fn hand_over(&self, watched: &[Watched], is_same: bool) -> Beginning {
        let mut inner = self.lock();
        let store = std::mem::take(&mut inner.store).again(watched);
        let covered = |from: &HashSet<Watched>| -> HashSet<Watched> {
            let is_among = |one: &&Watched| from.iter().any(|other| other.covers(one));
            watched.iter().filter(is_among).cloned().collect()
        };
        let listed: HashSet<Watched> = inner.all.difference(&inner.unknown).cloned().collect();
        let known = if is_same { covered(&listed) } else { HashSet::new() };
        Beginning { store, known, of_copy: covered(&inner.of_copy) }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes which server is asked.
    pub(super) fn asks(&self, access: &Access) {
        if let Some(state) = self.status.known().sources.get_mut(NAME) {
            state.member = authority(&access.host, access.port);
        }
    }

    /// Whether there are objects of this kind.
    pub(super) fn has(&self, watched: &Watched) -> bool {
        !self.lock().store.keys(watched).is_empty()
    }

    /// Uses all objects of a kind. They may be a sign of life.
    pub(super) fn replace(&self, watched: &Watched, all: HashMap<Box<str>, Kept>, is_life: bool) {
        {
            let mut inner = self.lock();
            inner.store.replace(watched, all);
            inner.untried.remove(watched);
            inner.unknown.remove(watched);
            inner.of_copy.remove(watched);
        }
        if is_life {
            self.heard(watched);
        }
        self.changed.notify_one();
    }

    /// Uses a change.
    pub(super) fn change(&self, watched: &Watched, event: Event) {
        match event {
            Event::Put(key, kept) => match *kept {
                Ok(kept) => self.lock().store.put(watched.kind, &key, kept),
                Err(why) => self.left_out(watched, &key, &why),
            },
            Event::Remove(key) => self.lock().store.remove(watched.kind, &key),
            Event::Bookmark { .. } | Event::TooOld | Event::Error(_) => return,
        }
        self.changed.notify_one();
    }

    /// Notes that the API server does not have a kind.
    pub(super) fn absent(&self, watched: &Watched) {
        self.replace(watched, HashMap::new(), true);
        // It has no age.
        self.lock().heard.remove(watched);
    }

    /// Notes an object that cannot be used. Its last content stays.
    pub(super) fn left_out(&self, watched: &Watched, key: &str, why: &str) {
        let kind = watched.kind.title();
        tracing::warn!(kind, object = key, "an object of Kubernetes is left out: {why}");
        let refusal = format!("{kind}/{key}: {why}");
        if let Some(state) = self.status.known().sources.get_mut(NAME) {
            state.refused += 1;
            state.refusal = refusal;
        }
    }

    /// Notes the version of a kind.
    pub(super) fn version(&self, version: u64) {
        if let Some(state) = self.status.known().sources.get_mut(NAME) {
            state.seen_revision = state.seen_revision.max(version);
        }
    }

    /// The largest version that any kind has told.
    pub(super) fn version_seen(&self) -> u64 {
        self.status.known().sources.get(NAME).map_or(0, |state| state.seen_revision)
    }

    /// Notes a sign of life.
    pub(super) fn heard(&self, watched: &Watched) {
        let (is_connected, is_of_copy, error, heard) = {
            let mut inner = self.lock();
            inner.failing.remove(watched);
            inner.away.remove(watched);
            inner.heard.insert(watched.clone(), Instant::now());
            let error = inner.failing.values().next().cloned();
            // The state is as old as its oldest kind.
            let heard = inner.heard.values().min().copied();
            (inner.failing.is_empty(), !inner.of_copy.is_empty(), error, heard)
        };
        let mut known = self.status.known();
        let Some(state) = known.sources.get_mut(NAME) else { return };
        state.heard = heard;
        state.error = error.unwrap_or_default();
        if !is_of_copy {
            state.copied = None;
        }
        if is_connected && !std::mem::replace(&mut state.connected, true) {
            state.connections += 1;
            let member = state.member.clone();
            drop(known);
            tracing::info!(member, "the API server of Kubernetes answers");
        }
    }

    /// Notes a failure.
    pub(super) fn failed(&self, watched: &Watched, Failed { why, is_refused }: Failed) {
        let place = watched.namespace.as_ref().map(|it| format!(" in {it}")).unwrap_or_default();
        let is_new = {
            let mut inner = self.lock();
            inner.untried.remove(watched);
            // Each reason of a refusal is told once; a server that is away is told once.
            if is_refused {
                inner.away.remove(watched);
                !inner.failing.values().any(|known| known.ends_with(&why))
            } else {
                let is_first = inner.away.is_empty();
                inner.away.insert(watched.clone()) && is_first
            }
        };
        let why = format!("{}{place}: {why}", watched.kind.title());
        self.lock().failing.insert(watched.clone(), why.clone());
        self.changed.notify_one();
        let mut known = self.status.known();
        let Some(state) = known.sources.get_mut(NAME) else { return };
        state.connected = false;
        state.error.clone_from(&why);
        if is_refused {
            state.refused += 1;
            state.refusal.clone_from(&why);
        }
        drop(known);
        if is_new {
            tracing::warn!(
                "the API server of Kubernetes does not answer as it should; the last state stays \
                 in use: {why}"
            );
        }
    }
}
