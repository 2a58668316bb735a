//! Resources of a server that speaks xDS with Envoy's types. Each resource is translated and
//! refused on its own.

mod actions;
mod balancer;
mod cluster;
mod copy;
mod endpoints;
mod follower;
mod health;
mod kinds;
mod listener;
mod matches;
mod outliers;
mod proto;
mod retries;
mod route_schemas;
mod routes;
mod schemas;
mod secrets;
mod state;
mod stream;
#[cfg(test)]
mod stream_tests;
#[cfg(test)]
mod tests;
mod tls;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

use self::follower::Follower;
use self::kinds::Type;
use self::state::{Limits, State};
use super::lookup::Lookups;
use crate::compile::XdsSource;
use crate::grpc::xds::Response;
use crate::model::{Change, Kind};
use crate::telemetry::status::{SourceState, Status};

/// The name of this kind of source.
pub const NAME: &str = "xds";

/// Changes of the model that follow from resources of the server.
pub struct Update {
    /// The changes.
    pub changes: Vec<Change>,
    /// Whether they are services of which only the endpoints have changed.
    pub only_moves: bool,
    /// The time of the copy, if the resources are a copy.
    pub copied: Option<SystemTime>,
    /// Whether they are the first ones of a server, so that earlier resources are gone.
    pub is_first: bool,
    /// Takes the refused items, each with the reason.
    pub answer: oneshot::Sender<Vec<Refused>>,
}

/// The item that goes together with another one: a listener with its own routes. If one of them is
/// refused, both get their previous content back.
pub fn companion(kind: Kind, name: &str) -> Option<(Kind, Box<str>)> {
    match kind {
        Kind::Listener => Some((Kind::Routes, listener::own_routes(name).into())),
        Kind::Routes => listener::owner_of(name).map(|name| (Kind::Listener, name.into())),
        Kind::Service | Kind::TokenProvider | Kind::Policy => None,
    }
}

/// A refused item: its kind, its name in the source, and the reason.
pub type Refused = (Kind, Box<str>, String);

/// Follows the resources of a server on the control thread.
pub struct Xds {
    status: Status,
    lookups: Lookups,
    running: Option<(Followed, JoinHandle<()>)>,
    sender: mpsc::Sender<Update>,
    updates: mpsc::Receiver<Update>,
}

/// A server, and the directory for the copy of its resources.
type Followed = (XdsSource, Option<PathBuf>);

impl Xds {
    /// Creates a source without a server.
    pub fn new(status: Status, lookups: Lookups) -> Self {
        let (sender, updates) = mpsc::channel(1);
        Self { status, lookups, running: None, sender, updates }
    }

    /// Follows exactly this server from now on. Returns whether it is another one than before, so
    /// that the resources of that one are gone.
    pub fn follow(&mut self, source: Option<&XdsSource>, cache: Option<&PathBuf>) -> bool {
        let wanted = source.cloned().map(|source| (source, cache.cloned()));
        if self.running.as_ref().map(|(followed, _)| followed) == wanted.as_ref() {
            return false;
        }
        let replaces = AtomicBool::new(self.running.is_some());
        self.stop();
        // The new server has nothing to do with an update of the old one.
        (self.sender, self.updates) = mpsc::channel(1);
        let Some((source, cache)) = wanted else {
            self.status.known().sources.remove(NAME);
            return true;
        };
        let keys = format!("node {}", source.node.id);
        let state = SourceState { name: NAME, keys, ..SourceState::default() };
        self.status.known().sources.insert(NAME, state);
        let parts = (self.status.clone(), self.lookups.clone(), self.sender.clone());
        let followed = (source, cache);
        let (source, cache) = followed.clone();
        let begin = move || {
            let (status, lookups, sender) = parts.clone();
            // One that begins again after a failure replaces what the first one has published.
            let replaces = replaces.swap(true, Ordering::Relaxed);
            let source = source.clone();
            Follower::new((status, lookups), source, cache.as_deref(), sender, replaces).run()
        };
        let status = self.status.clone();
        let failed = move |why: &str| {
            if let Some(state) = status.known().sources.get_mut(NAME) {
                state.connected = false;
                why.clone_into(&mut state.error);
            }
        };
        let task = tokio::spawn(supervise(failed, begin));
        self.running = Some((followed, task));
        true
    }

    /// Returns the first update if it arrives within `patience`. It has everything that the server
    /// has, if the server is fast enough, and else the copy on the disk.
    pub async fn first(&mut self, patience: Duration) -> Option<Update> {
        timeout(patience, self.updates.recv()).await.ok().flatten()
    }

    /// Waits for an update.
    pub async fn changed(&mut self) -> Update {
        match self.updates.recv().await {
            Some(update) => update,
            None => std::future::pending().await,
        }
    }

    fn stop(&mut self) {
        if let Some((_, task)) = self.running.take() {
            task.abort();
        }
    }
}

/// The wait before a follower that has failed begins again.
const RESTART: Duration = Duration::from_secs(1);

/// Runs what `begin` returns, and again if it fails by a bug of this process. What it has published
/// stays in use meanwhile.
async fn supervise<F>(failed: impl Fn(&str), begin: impl Fn() -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    loop {
        // Dropping the set aborts the task.
        let mut task = JoinSet::new();
        task.spawn(begin());
        let Some(Err(error)) = task.join_next().await else { return };
        let why = "it has failed by a bug, and begins again; the last resources stay in use";
        failed(why);
        tracing::error!(source = NAME, %error, "{why}");
        sleep(RESTART).await;
    }
}

impl Drop for Xds {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The URLs of all types of resources.
pub const TYPES: [&str; 5] =
    [kinds::CLUSTER, kinds::ENDPOINTS, kinds::LISTENER, kinds::ROUTES, kinds::SECRET];

/// Reads `bytes` as a resource of the type `url`, for tests with arbitrary bytes. Returns whether
/// it would be accepted.
pub fn is_readable(url: &str, bytes: &[u8]) -> bool {
    Type::of(url).is_some_and(|kind| kind.read(bytes, "").is_ok())
}

/// Takes `messages` as responses in a row, for tests with arbitrary bytes. Every second change is
/// refused. Returns whether the sizes of what is kept are right.
pub fn replay(messages: &[&[u8]], is_delta: bool) -> bool {
    const LIMITS: Limits = Limits { resources: 50, bytes: 100_000 };
    let mut state = State::new(LIMITS, !is_delta);
    for message in messages {
        let read = match is_delta {
            true => Response::delta(message, LIMITS.resources),
            false => Response::state_of_the_world(message, LIMITS.resources),
        };
        let Ok(response) = read else { continue };
        let Some(kind) = Type::of(response.type_url) else { continue };
        match state.take(kind, &response, is_delta) {
            Ok(()) if is_delta => state.drop_unversioned(kind, &response),
            Ok(()) => {}
            Err(why) => state.refuse_all(kind, why),
        }
        let changes = state.changes();
        let keys = changes.iter().map(Change::key).step_by(2);
        let refused: Vec<Refused> = keys.map(|(kind, name)| (kind, name, String::new())).collect();
        state.settle(&refused);
        let kept = Type::ALL.into_iter().flat_map(|kind| state.entries(kind).values());
        let (count, bytes) =
            kept.fold((0, 0), |(count, bytes), entry| (count + 1, bytes + entry.bytes.len()));
        if state.size() != (count, bytes) || count > LIMITS.resources || bytes > LIMITS.bytes {
            return false;
        }
    }
    true
}

/// A resource as its type, version and name, and its bytes.
type Copied = (Arc<str>, Arc<[u8]>);
