//! Services, EndpointSlices and objects of Istio and the Gateway API, from an API server of
//! Kubernetes. A list and a watch follow each kind. While the server is away, the last state stays
//! in use.

mod access;
mod client;
mod event;
mod kinds;
mod shared;
mod slices;
mod store;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use self::kinds::{Kind, OBJECTS, SECRETS, SERVICES, SLICES};
use self::shared::Shared;
use self::store::{Port, Store, Watched};
use self::watch::Follower;
use super::documents::Documents;
use super::lookup::Lookups;
use crate::compile::KubernetesSource;
use crate::telemetry::status::{SourceState, Status};

/// The name of this kind of source.
pub const NAME: &str = "kubernetes";

/// How long changed objects are collected before they are applied. Endpoints do not wait.
const QUIET: Duration = Duration::from_millis(100);

/// The shortest time between two copies.
const COPY_INTERVAL: Duration = Duration::from_secs(5);

/// How long the first answers are awaited.
const FIRST: Duration = Duration::from_secs(3);

/// A change in Kubernetes.
#[derive(Debug, Default)]
pub struct Change {
    /// The changed endpoints, each with the name of their port: `NAMESPACE/NAME/PORT`.
    pub ports: Vec<Port>,
    /// All objects, if one of them has changed.
    pub documents: Option<Arc<Documents>>,
    /// Whether this is the first change of this API server, with all endpoints.
    pub is_first: bool,
    /// Everything, if it is time for a copy.
    pub copy: Option<Arc<Documents>>,
}

/// Follows an API server on the control thread.
pub struct Kubernetes {
    status: Status,
    lookups: Lookups,
    running: Option<Running>,
    sender: mpsc::UnboundedSender<Change>,
    changes: mpsc::UnboundedReceiver<Change>,
}

struct Running {
    source: KubernetesSource,
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
        Self { status, lookups, running: None, sender, changes }
    }

    /// Whether exactly this source is followed.
    pub fn follows(&self, source: Option<&KubernetesSource>) -> bool {
        self.running.as_ref().map(|running| &running.source) == source
    }

    /// Follows this source from now on. It begins with the objects of `copy`.
    pub fn follow(&mut self, source: Option<&KubernetesSource>, copy: Option<&Documents>) {
        self.running = None;
        // The objects of another server have nothing to do with this one.
        (self.sender, self.changes) = mpsc::unbounded_channel();
        let Some(source) = source else {
            self.status.known().sources.remove(NAME);
            return;
        };
        let keys = match source.namespaces.is_empty() {
            true => "all namespaces".to_owned(),
            false => source.namespaces.join(" "),
        };
        let state = SourceState { name: NAME, keys, ..SourceState::default() };
        self.status.known().sources.insert(NAME, state);
        let watched = watched(source);
        let seen = copy.map_or(0, |copy| copy.revision);
        let store = copy.map(Store::read).unwrap_or_default();
        let shared = Shared::new(
            self.status.clone(),
            self.lookups.clone(),
            Arc::new(source.clone()),
            store,
            &watched,
            copy.is_some(),
        );
        let publisher = tokio::spawn(publish(shared.clone(), self.sender.clone()));
        let follow = |watched| {
            let follower = Follower::new(shared.clone(), watched, seen);
            tokio::spawn(async move {
                follower.run().await;
            })
        };
        let tasks = std::iter::once(publisher).chain(watched.into_iter().map(follow)).collect();
        self.running = Some(Running { source: source.clone(), tasks });
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

/// Tells changes: the first ones when each kind has been asked for, and later ones as they come.
async fn publish(shared: Shared, sender: mpsc::UnboundedSender<Change>) {
    let deadline = Instant::now() + FIRST;
    let mut revision = 0;
    while !shared.lock().untried.is_empty() && Instant::now() < deadline {
        tokio::select! {
            () = shared.changed.notified() => {}
            () = sleep_until(deadline) => {}
        }
    }
    let (mut due, mut copy_due, mut is_first) = (Some(Instant::now()), None, true);
    loop {
        let mut change = Change { is_first, ..Change::default() };
        is_first = false;
        {
            let mut inner = shared.lock();
            let store = &mut inner.store;
            change.ports = store.take_ports(shared.source.admin);
            let now = Instant::now();
            if store.has_new_texts() && due.is_none() {
                due = Some(now + QUIET);
            }
            if due.is_some_and(|due| due <= now) {
                revision += 1;
                change.documents = Some(Arc::new(store.take_documents(revision)));
                due = None;
            }
            if store.is_uncopied() && copy_due.is_none() {
                copy_due = Some(now + COPY_INTERVAL);
            }
        }
        let is_change = change.documents.is_some() || !change.ports.is_empty();
        if is_change && sender.send(change).is_err() {
            return;
        }
        if copy_due.is_some_and(|due| due <= Instant::now()) {
            copy_due = None;
            let version = shared.version_seen();
            let copy = Some(Arc::new(shared.lock().store.copy(version)));
            sender.send(Change { copy, ..Change::default() }).ok();
        }
        let next = [due, copy_due].into_iter().flatten().min();
        let alarm = async {
            match next {
                Some(next) => sleep_until(next).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shared.changed.notified() => {}
            () = alarm => {}
        }
    }
}
