//! Tells the control thread what has changed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until};

use super::Change;
use super::shared::Shared;
use super::store::{Port, documents};

/// How long changed objects are collected before they are applied. Endpoints do not wait.
const QUIET: Duration = Duration::from_millis(100);

/// The shortest time between two copies.
const COPY_INTERVAL: Duration = Duration::from_secs(5);

/// How long the first answers are awaited.
const FIRST: Duration = Duration::from_secs(3);

/// Tells changes: the first ones when each kind has been asked for, and later ones as they come.
pub(super) struct Publisher {
    shared: Shared,
    sender: mpsc::UnboundedSender<Change>,
    revision: u64,
    /// When the objects are told.
    due: Option<Instant>,
    copy_due: Option<Instant>,
    /// The ports without endpoints that are not told yet: a new object may stop to name them.
    empty: BTreeSet<Arc<str>>,
    empty_due: Option<Instant>,
    is_first: bool,
    /// Whether the objects wait for policies.
    waits: bool,
}

impl Publisher {
    pub(super) fn new(shared: Shared, sender: mpsc::UnboundedSender<Change>) -> Self {
        Self {
            shared,
            sender,
            revision: 0,
            due: None,
            copy_due: None,
            empty: BTreeSet::new(),
            empty_due: None,
            is_first: true,
            waits: false,
        }
    }

    pub(super) async fn run(mut self) {
        let deadline = Instant::now() + FIRST;
        while !self.shared.lock().untried.is_empty() && Instant::now() < deadline {
            tokio::select! {
                () = self.shared.changed.notified() => {}
                () = sleep_until(deadline) => {}
            }
        }
        self.due = Some(Instant::now());
        loop {
            let now = Instant::now();
            let change = self.take(now);
            let is_change =
                change.is_first || change.documents.is_some() || !change.ports.is_empty();
            if is_change && self.sender.send(change).is_err() {
                return;
            }
            // They come behind the objects that do not name them any more.
            if self.empty_due.is_some_and(|due| due <= now) && (self.due.is_none() || self.waits) {
                self.empty_due = None;
                let ports = std::mem::take(&mut self.empty).into_iter();
                let ports = ports.map(|port| (port, Arc::default())).collect();
                self.sender.send(Change { ports, ..Change::default() }).ok();
            }
            let due = self.due.filter(|_| !self.waits);
            let empty_due = self.empty_due.filter(|at| *at > now);
            let next = [due, self.copy_due, empty_due].into_iter().flatten().min();
            let alarm = async {
                match next {
                    Some(next) => sleep_until(next).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.shared.changed.notified() => {}
                () = alarm => {}
            }
        }
    }

    /// Takes what is to be told now.
    fn take(&mut self, now: Instant) -> Change {
        let is_first = std::mem::replace(&mut self.is_first, false);
        let mut change = Change { is_first, ..Change::default() };
        let mut inner = self.shared.lock();
        let why = inner.unknown_policies().next().map(|watched| inner.why(watched).to_owned());
        let store = &mut inner.store;
        let ports = store.take_ports(self.shared.source.admin);
        if store.has_new_texts() && self.due.is_none() {
            self.due = Some(now + QUIET);
        }
        if why.is_none() && self.due.is_some_and(|due| due <= now) {
            self.revision += 1;
            change.documents = Some(Arc::new(store.take_documents(self.revision)));
            self.due = None;
        }
        let is_copied = self.shared.copies.load(Relaxed) && why.is_none();
        if is_copied && store.is_uncopied() && self.copy_due.is_none() {
            self.copy_due = Some(now + COPY_INTERVAL);
        }
        let slices = self.copy_due.is_some_and(|due| due <= now).then(|| store.take_copy());
        drop(inner);
        if let Some(slices) = slices {
            self.copy_due = None;
            let (sender, version) = (self.sender.clone(), self.shared.version_seen());
            tokio::spawn(async move {
                let copy = spawn_blocking(move || documents(slices, version)).await.ok();
                sender.send(Change { copy, ..Change::default() }).ok();
            });
        }
        if let Some(why) = &why
            && !self.waits
        {
            tracing::warn!("no object is applied before all policies are known: {why}");
        }
        self.waits = why.is_some();
        change.ports = if is_first { ports } else { self.hold_back(ports, now) };
        change
    }

    /// Holds the ports without endpoints back for a moment, and returns the others.
    fn hold_back(&mut self, ports: Vec<Port>, now: Instant) -> Vec<Port> {
        let (empty, ports): (Vec<Port>, Vec<Port>) =
            ports.into_iter().partition(|(_, endpoints)| endpoints.is_empty());
        for (port, _) in &ports {
            self.empty.remove(port);
        }
        if !empty.is_empty() {
            self.empty_due.get_or_insert(now + QUIET);
            self.empty.extend(empty.into_iter().map(|(port, _)| port));
        }
        ports
    }
}
