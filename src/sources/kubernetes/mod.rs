//! Services, EndpointSlices and objects of Istio and the Gateway API, from an API server of
//! Kubernetes. A list and a watch follow each kind. While the server is away, the last state stays
//! in use.

mod access;
mod client;
mod event;
mod kinds;
mod publish;
mod shared;
mod slices;
mod store;
mod watch;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use self::kinds::{Kind, OBJECTS, SECRETS, SERVICES, SLICES};
use self::publish::Publisher;
use self::shared::{Beginning, Shared};
use self::store::{Port, Store, Watched};
use self::watch::Follower;
use super::dial::authority;
use super::documents::Documents;
use super::lookup::Lookups;
use crate::compile::KubernetesSource;
use crate::telemetry::status::{SourceState, Status};

/// The name of this kind of source.
pub const NAME: &str = "kubernetes";

/// A change in Kubernetes.
#[derive(Debug, Default)]
pub struct Change {
    /// The changed endpoints, each with the name of their port: `NAMESPACE/NAME/PORT`.
    pub ports: Vec<Port>,
    /// All objects, if one of them has changed.
    pub documents: Option<Arc<Documents>>,
    /// Whether this is the first change of this API server, with all endpoints.
    pub is_first: bool,
    /// The endpoints for the copy, if it is time for one.
    pub copy: Option<Documents>,
}

/// Follows an API server on the control thread.
pub struct Kubernetes {
    status: Status,
    lookups: Lookups,
    running: Option<Running>,
    /// Whether there is a place for copies.
    copies: Arc<AtomicBool>,
    sender: mpsc::UnboundedSender<Change>,
    changes: mpsc::UnboundedReceiver<Change>,
}

struct Running {
    source: KubernetesSource,
    shared: Shared,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Kubernetes {
    /// Creates a source without an API server.
    pub fn new(status: Status, lookups: Lookups) -> Self {
        let (sender, changes) = mpsc::unbounded_channel();
        Self { status, lookups, running: None, copies: Arc::default(), sender, changes }
    }

    /// Whether exactly this source is followed.
    pub fn follows(&self, source: Option<&KubernetesSource>) -> bool {
        self.running.as_ref().map(|running| &running.source) == source
    }

    /// Whether the objects of this source come from the server that is followed.
    pub fn is_same_server(&self, source: &KubernetesSource) -> bool {
        let running = self.running.as_ref().map(|running| &running.source);
        running.is_some_and(|running| running.is_same_server(source))
    }

    /// The address of the server. Empty if it is not known.
    pub fn server(source: &KubernetesSource) -> String {
        let access = access::load(source);
        access.map(|access| authority(&access.host, access.port)).unwrap_or_default()
    }

    /// Begins or ends to tell copies.
    pub fn tell_copies(&self, is_wanted: bool) {
        self.copies.store(is_wanted, Relaxed);
        if let Some(running) = &self.running {
            running.shared.lock().store.set_uncopied();
            running.shared.changed.notify_one();
        }
    }

    /// Follows this source from now on. It begins with the objects of `copy`, else with those that
    /// are in use. Returns whether it begins with the copy.
    pub fn follow(&mut self, source: Option<&KubernetesSource>, copy: Option<&Documents>) -> bool {
        let before = self.running.take();
        // Changes that are not taken yet are told again.
        (self.sender, self.changes) = mpsc::unbounded_channel();
        let Some(source) = source else {
            self.status.known().sources.remove(NAME);
            return false;
        };
        let watched = watched(source);
        let is_same = before.as_ref().is_some_and(|before| before.source.is_same_server(source));
        let all = || watched.iter().cloned().collect();
        let copy = copy.filter(|_| !is_same);
        let beginning = match (&before, copy) {
            (_, Some(copy)) => {
                Beginning { store: Store::read(copy, &watched), known: all(), of_copy: all() }
            }
            (Some(before), None) => before.shared.hand_over(&watched, is_same),
            (None, None) => Beginning::default(),
        };
        drop(before);
        self.show(source, is_same);
        let seen = copy.map_or(0, |copy| copy.revision);
        let shared = Shared::new(
            self.status.clone(),
            self.lookups.clone(),
            Arc::new(source.clone()),
            beginning,
            &watched,
            Arc::clone(&self.copies),
        );
        let publisher = Publisher::new(shared.clone(), self.sender.clone());
        let publisher = tokio::spawn(publisher.run());
        let follow = |watched| {
            let follower = Follower::new(shared.clone(), watched, seen);
            tokio::spawn(async move {
                follower.run().await;
            })
        };
        let tasks = std::iter::once(publisher).chain(watched.into_iter().map(follow)).collect();
        self.running = Some(Running { source: source.clone(), shared, tasks });
        copy.is_some()
    }

    fn show(&self, source: &KubernetesSource, is_same: bool) {
        let keys = match source.namespaces.is_empty() {
            true => "all namespaces".to_owned(),
            false => source.namespaces.join(" "),
        };
        let mut known = self.status.known();
        let state = known.sources.entry(NAME).or_default();
        if !is_same {
            *state = SourceState { name: NAME, ..SourceState::default() };
        }
        state.keys = keys;
    }

    /// Waits for a change.
    pub async fn changed(&mut self) -> Change {
        match self.changes.recv().await {
            Some(change) => change,
            None => std::future::pending().await,
        }
    }
}

/// The kinds and namespaces that are followed.
fn watched(source: &KubernetesSource) -> Vec<Watched> {
    let secrets = source.secrets.then_some(&SECRETS);
    let kinds = [&SLICES, &SERVICES].into_iter().chain(secrets).chain(&OBJECTS);
    let of_kind = |kind: &'static Kind| {
        let all: Vec<Watched> = match source.namespaces.is_empty() || !kind.is_namespaced {
            true => vec![Watched { kind, namespace: None }],
            false => {
                let names = source.namespaces.iter();
                let one = |name: &String| Watched { kind, namespace: Some(name.as_str().into()) };
                names.map(one).collect()
            }
        };
        all
    };
    kinds.flat_map(of_kind).collect()
}
