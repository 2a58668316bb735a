//! Documents of the grammar in etcd. The value of each key below a prefix is a document. All keys
//! are read once, and then a watch reports their changes.

mod client;
mod state;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use self::client::{ALIVE, Client};
use self::state::{State, Step};
use super::documents::Documents;
use super::lookup::Lookups;
use super::pause::{self, Pause};
use crate::compile::EtcdSource;
use crate::grpc::etcd::{Range, WatchMessage};
use crate::telemetry::status::{SourceState, Status};

/// The name of this kind of source.
pub const NAME: &str = "etcd";

/// The longest wait after a round of members that do not answer.
const PAUSE_MAX: Duration = Duration::from_secs(15);

/// Follows the documents in etcd on the control thread.
pub struct Etcd {
    status: Status,
    lookups: Lookups,
    running: Option<(EtcdSource, JoinHandle<()>)>,
    sender: watch::Sender<Arc<Documents>>,
    changes: watch::Receiver<Arc<Documents>>,
}

impl Etcd {
    /// Creates a source without a cluster.
    pub fn new(status: Status, lookups: Lookups) -> Self {
        let (sender, changes) = watch::channel(Arc::default());
        Self { status, lookups, running: None, sender, changes }
    }

    /// Follows exactly this cluster from now on.
    pub fn follow(&mut self, source: Option<&EtcdSource>) {
        if self.running.as_ref().map(|(source, _)| source) == source {
            return;
        }
        if let Some((_, task)) = self.running.take() {
            task.abort();
        }
        let Some(source) = source.cloned() else {
            self.status.known().sources.remove(NAME);
            return;
        };
        let keys = source.prefix.clone();
        let state = SourceState { name: NAME, keys, ..SourceState::default() };
        self.status.known().sources.insert(NAME, state);
        let follower = Follower {
            status: self.status.clone(),
            lookups: self.lookups.clone(),
            source: source.clone(),
            sender: self.sender.clone(),
            state: None,
            is_away: false,
        };
        self.running = Some((source, tokio::spawn(follower.run())));
    }

    /// Returns the documents if they arrive within `patience`. Later ones are reported by
    /// [`Etcd::changed`].
    pub async fn first(&mut self, patience: Duration) -> Option<Arc<Documents>> {
        timeout(patience, self.changed()).await.ok()
    }

    /// Waits for changed documents. If they change often, only the newest ones are returned.
    pub async fn changed(&mut self) -> Arc<Documents> {
        match self.changes.changed().await {
            Ok(()) => Arc::clone(&self.changes.borrow_and_update()),
            Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        if let Some((_, task)) = self.running.take() {
            task.abort();
        }
    }
}

struct Follower {
    status: Status,
    lookups: Lookups,
    source: EtcdSource,
    sender: watch::Sender<Arc<Documents>>,
    /// The keys as they were last known. They outlive connections.
    state: Option<State>,
    /// Whether it was logged that no member answers.
    is_away: bool,
}

impl Follower {
    async fn run(mut self) {
        let mut pause = Pause::up_to(PAUSE_MAX);
        loop {
            let members = self.source.members.clone();
            let (mut last, mut connected) = (String::new(), false);
            for (host, port) in &members {
                let began = Instant::now();
                let Err(why) = Box::pin(self.session(host, *port)).await;
                last = format!("{host}:{port}: {why}");
                connected |= self.lost(&last);
                // A member that ends each connection at once must not be asked without a pause.
                if connected && began.elapsed() > pause::FIRST {
                    pause.reset();
                }
            }
            if !connected && !std::mem::replace(&mut self.is_away, true) {
                tracing::warn!(
                    error = %last,
                    "etcd does not answer; the last configuration stays in use"
                );
            }
            sleep(pause.take().mul_f64(fastrand::f64())).await;
        }
    }

    /// Notes the end of a connection. Returns whether the member had answered.
    fn lost(&self, error: &str) -> bool {
        let mut known = self.status.known();
        let Some(state) = known.sources.get_mut(NAME) else { return false };
        let was_connected = state.lose(error);
        drop(known);
        if was_connected {
            tracing::warn!(error, "the connection to etcd has ended; the next member is asked");
        }
        was_connected
    }

    /// Notes that the member has answered.
    fn heard(&mut self, member: &str) {
        let mut known = self.status.known();
        let Some(state) = known.sources.get_mut(NAME) else { return };
        if state.hear() {
            state.member = member.to_owned();
            drop(known);
            self.is_away = false;
            tracing::info!(member, "connected to etcd");
        }
    }

    /// Follows one member as long as it answers.
    async fn session(&mut self, host: &str, port: u16) -> Result<Infallible, String> {
        let member = format!("{host}:{port}");
        let mut client = Client::connect(&self.lookups, &self.source, (host, port)).await?;
        if let Some((user, password)) = &self.source.user {
            client.authenticate(user, password).await?;
        }
        let bytes_max = self.source.bytes_max;
        loop {
            if self.state.is_none() {
                let answer = client.range(&self.source.prefix).await?;
                let range = Range::read(&answer).map_err(|_| NO_ETCD.to_owned())?;
                let state = State::of_range(&range, bytes_max)?;
                self.heard(&member);
                self.publish(&state);
                self.state = Some(state);
            }
            let Some(state) = &mut self.state else { continue };
            let mut changes = client.watch(&self.source.prefix, state.revision() + 1).await?;
            loop {
                let Ok(message) = timeout(ALIVE, changes.next()).await else {
                    client.ping().await?;
                    self.heard(&member);
                    continue;
                };
                let message = message?;
                let message = WatchMessage::read(&message).map_err(|_| NO_ETCD.to_owned())?;
                let Some(state) = &mut self.state else { break };
                let step = state.take(&message, bytes_max);
                if step.is_err() {
                    self.state = None;
                }
                match step? {
                    Step::Same => self.heard(&member),
                    Step::Changed => {
                        self.heard(&member);
                        self.state.iter().for_each(|state| self.publish(state));
                    }
                    Step::ReadAgain(why) => {
                        tracing::info!(member, %why, "reading all keys of etcd again");
                        self.state = None;
                        break;
                    }
                    Step::Ended(why) => return Err(why),
                }
            }
        }
    }

    /// Hands the documents to the control thread.
    fn publish(&self, state: &State) {
        let documents = state.documents();
        if let Some(source) = self.status.known().sources.get_mut(NAME) {
            source.seen_revision = documents.revision;
        }
        self.sender.send_replace(Arc::new(documents));
    }
}

const NO_ETCD: &str = "the answer is not one of etcd";
