//! Resources of a server that speaks xDS with Envoy's types. Each resource is translated and
//! refused on its own.

mod actions;
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
mod state;
mod stream;
#[cfg(test)]
mod stream_tests;
#[cfg(test)]
mod tests;
mod tls;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use self::follower::Follower;
use super::lookup::Lookups;
use crate::compile::XdsSource;
use crate::model::{Change, Kind};
use crate::telemetry::status::{SourceState, Status};

/// The name of this kind of source.
pub const NAME: &str = "xds";

/// Changes of the model that follow from resources of the server.
pub struct Update {
    /// The changes.
    pub changes: Vec<Change>,
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
        let follower = Follower::new(
            (self.status.clone(), self.lookups.clone()),
            source.clone(),
            cache.as_deref(),
            self.sender.clone(),
        );
        self.running = Some(((source, cache), tokio::spawn(follower.run())));
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

impl Drop for Xds {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The URLs of all types of resources.
pub const TYPES: [&str; 4] = [kinds::CLUSTER, kinds::ENDPOINTS, kinds::LISTENER, kinds::ROUTES];

/// Reads `bytes` as a resource of the type `url`, for tests with arbitrary bytes. Returns whether
/// it would be accepted.
pub fn is_readable(url: &str, bytes: &[u8]) -> bool {
    kinds::Type::of(url).is_some_and(|kind| kind.read(bytes, "").is_ok())
}

/// A resource as its type, version and name, and its bytes.
type Copied = (Arc<str>, Arc<[u8]>);
