//! The identity of this workload from a SPIFFE Workload API: a stream over a Unix socket. Each
//! message has all identities. While there is none, the last one stays in use.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::pause::Pause;
use super::rpc::{Ended, RpcClient, Server, within};
use crate::compile::{IssuedBy, WorkloadApi};
use crate::error::plain;
use crate::grpc::Code;
use crate::grpc::workload::{FETCH, SECURITY_HEADER, Svid, Svids};
use crate::net::{Address, Egress};
use crate::runtime::socket::start_connect;
use crate::telemetry::status::{SourceState, Status};
use crate::tls::{CertificateInfo, IdentityParts, WorkloadIdentity};

/// The name of this kind of source.
pub const NAME: &str = "spiffe";

/// The time limit for the first message after the request.
const FIRST_MESSAGE: Duration = Duration::from_secs(30);

/// The maximum size of a message. It has a few certificates for each trust domain.
const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The maximum number of identities that a message to the operator names.
const NAMED_MAX: usize = 10;

/// The longest wait after a failure.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// The wait after an identity was refused.
const AGAIN: Duration = Duration::from_secs(30);

/// How many identities wait for the control thread.
const CHANGES_WAITING_MAX: usize = 4;

/// Follows the identity of this workload on the control thread.
pub struct Identities {
    status: Status,
    /// The API of the configuration in use.
    active: Option<Running>,
    /// The API of a configuration that waits for its first identity.
    awaited: Option<Running>,
    sender: mpsc::Sender<IssuedBy>,
    changes: mpsc::Receiver<IssuedBy>,
}

/// The task that follows an API. It ends with this.
struct Running {
    api: WorkloadApi,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Identities {
    /// Creates a source without an API.
    pub fn new(status: Status) -> Self {
        let (sender, changes) = mpsc::channel(CHANGES_WAITING_MAX);
        Self { status, active: None, awaited: None, sender, changes }
    }

    /// Follows exactly this API from now on. `known` is the identity that it has issued already.
    pub fn follow(&mut self, api: Option<&WorkloadApi>, known: Option<Arc<WorkloadIdentity>>) {
        self.awaited = None;
        if self.active.as_ref().map(|running| &running.api) == api {
            return;
        }
        self.active = None;
        match api {
            None => drop(self.status.known().sources.remove(NAME)),
            Some(api) => {
                self.status.known().sources.insert(NAME, state_of(api));
                self.active = Some(self.begin(api, known, Duration::ZERO));
            }
        }
    }

    /// Follows this API, too, until [`Identities::follow`] is called.
    pub fn await_also(&mut self, api: Option<&WorkloadApi>) {
        if self.awaited.as_ref().map(|running| &running.api) == api {
            return;
        }
        if let Some(api) = api {
            // The state of the active API is more important.
            self.status.known().sources.entry(NAME).or_insert_with(|| state_of(api));
        } else if self.active.is_none() {
            self.status.known().sources.remove(NAME);
        }
        self.awaited = api.map(|api| self.begin(api, None, Duration::ZERO));
    }

    fn begin(
        &self,
        api: &WorkloadApi,
        known: Option<Arc<WorkloadIdentity>>,
        pause: Duration,
    ) -> Running {
        let follower = Follower {
            status: self.status.clone(),
            api: api.clone(),
            sender: self.sender.clone(),
            known,
            told: String::new(),
        };
        let task = tokio::spawn(async move {
            sleep(pause).await;
            follower.run().await;
        });
        Running { api: api.clone(), task }
    }

    /// Waits for a changed identity.
    pub async fn changed(&mut self) -> IssuedBy {
        loop {
            let Some(issued) = self.changes.recv().await else {
                return std::future::pending().await;
            };
            // The API may have been replaced after it had sent this one.
            let mut running = self.active.iter().chain(&self.awaited);
            if running.any(|running| running.api == issued.0) {
                return issued;
            }
        }
    }

    /// The reason why there is no identity. Empty if there is one, or if nothing is known yet.
    pub fn error(&self) -> String {
        let known = self.status.known();
        let source = known.sources.get(NAME);
        source.map_or_else(String::new, |it| {
            if it.refusal.is_empty() { it.error.clone() } else { it.refusal.clone() }
        })
    }

    /// Notes that the configuration with the last identity is refused because of `why`. The
    /// identity `before` it stays in use. Asks the API again after `AGAIN`, because the reason may
    /// be gone.
    pub fn refuse(&mut self, why: &str, before: Option<Arc<WorkloadIdentity>>) {
        refuse(&self.status, why, true);
        if let Some(api) = self.active.as_ref().map(|running| running.api.clone()) {
            self.active = Some(self.begin(&api, before, AGAIN));
        }
    }
}

/// The state of an API that has sent nothing yet.
fn state_of(api: &WorkloadApi) -> SourceState {
    let keys = api.id.as_ref().map_or_else(String::new, |id| id.as_str().to_owned());
    let member = format!("unix:{}", api.socket.display());
    SourceState { name: NAME, keys, member, ..SourceState::default() }
}

/// Notes a refused identity. A reason that was logged already is only counted.
fn refuse(status: &Status, why: &str, is_new: bool) {
    if let Some(source) = status.known().sources.get_mut(NAME) {
        source.refused += 1;
        why.clone_into(&mut source.refusal);
    }
    if is_new {
        tracing::error!("an identity is refused; the previous one stays in use: {why}");
    }
}

struct Follower {
    status: Status,
    api: WorkloadApi,
    sender: mpsc::Sender<IssuedBy>,
    /// The last identity. It outlives connections.
    known: Option<Arc<WorkloadIdentity>>,
    /// The last warning, which is not repeated.
    told: String,
}

impl Follower {
    async fn run(mut self) {
        let mut pause = Pause::up_to(PAUSE_MAX);
        loop {
            let began = Instant::now();
            let Err(ended) = Box::pin(self.session()).await;
            let was_connected = self.lost(&ended);
            if was_connected && began.elapsed() > PAUSE_MAX {
                pause.reset();
            }
            sleep(pause.take().mul_f64(fastrand::f64())).await;
        }
    }

    /// Notes the end of a stream. Returns whether it had a message.
    fn lost(&mut self, ended: &Ended) -> bool {
        let mut known = self.status.known();
        let Some(state) = known.sources.get_mut(NAME) else { return false };
        let was_connected = state.lose(&ended.why);
        drop(known);
        let kept = match self.known {
            Some(_) => "the last identity stays in use",
            None => "this workload has no identity yet",
        };
        let message = match ended.code {
            Some(Code::PERMISSION_DENIED) => {
                format!("the SPIFFE Workload API issues no identity; {kept}: {}", ended.why)
            }
            _ => format!("the SPIFFE Workload API does not answer; {kept}: {}", ended.why),
        };
        self.warn(message);
        was_connected
    }

    /// Logs a warning that differs from the last one.
    fn warn(&mut self, message: String) {
        if self.told != message {
            let id = self.known.as_ref().map(|known| known.id.as_str());
            tracing::warn!(socket = %self.api.socket.display(), id, "{message}");
            self.told = message;
        }
    }

    /// Follows one stream as long as it lasts.
    async fn session(&mut self) -> Result<std::convert::Infallible, Ended> {
        let (name, value) = SECURITY_HEADER;
        let server = Server {
            scheme: "http",
            authority: "localhost".to_owned(),
            metadata: vec![(name, value.to_owned())],
            message_bytes_max: MESSAGE_BYTES_MAX,
            setting: "the Workload API",
        };
        let connecting = async {
            let stream = connect(&self.api.socket)
                .map_err(|error| format!("cannot connect to its socket: {}", plain(&error)))?;
            RpcClient::begin(Box::new(stream), server).await
        };
        let mut client = within("connection", Box::pin(connecting)).await?;
        let late = |_| Ended::from(format!("no identity within {FIRST_MESSAGE:?}"));
        let first = async {
            let mut messages = client.begin_call(FETCH, &[], true).await?;
            let message = messages.next().await?;
            Ok::<_, Ended>((messages, message))
        };
        let (mut messages, mut message) = timeout(FIRST_MESSAGE, first).await.map_err(late)??;
        loop {
            self.take(&message).await?;
            message = messages.next().await?;
        }
    }

    /// Takes a message, which has all identities.
    async fn take(&mut self, message: &[u8]) -> Result<(), Ended> {
        let all = Svids::read(message)
            .map_err(|_| "the answer is not one of a Workload API".to_owned())?;
        let offered = all.all.len();
        let chosen = self.choose(&all).and_then(|svid| {
            let parts = IdentityParts {
                id: svid.id,
                chain: svid.chain,
                key: svid.key,
                bundle: svid.bundle,
                federated: &all.federated,
                crls: &all.crls,
            };
            let read = WorkloadIdentity::read(&parts)?;
            match CertificateInfo::read("", &read.own.cert) {
                Some(info) if info.not_after() < SystemTime::now() => {
                    Err(format!("the certificate of {} has expired already", read.id))
                }
                _ => Ok(read),
            }
        });
        self.heard(offered);
        match chosen {
            Ok(identity) => self.publish(identity).await,
            Err(why) => {
                refuse(&self.status, &why, self.told != why);
                self.told = why;
            }
        }
        Ok(())
    }

    /// The identity to use. The order of the identities may change at any time, so an identity that
    /// is in use stays the one.
    fn choose<'a>(&mut self, all: &Svids<'a>) -> Result<Svid<'a>, String> {
        let ids = || {
            let ids = all.all.iter().take(NAMED_MAX).map(|svid| format!("{:?}", svid.id));
            ids.collect::<Vec<_>>().join(", ")
        };
        let find = |id: &str| all.all.iter().find(|svid| svid.id == id).copied();
        if let Some(id) = &self.api.id {
            let missing = || format!("the Workload API does not issue {id}, only: {}", ids());
            return find(id.as_str()).ok_or_else(missing);
        }
        let first = *all.all.first().ok_or("the Workload API has sent no identity")?;
        let chosen = match &self.known {
            None => first,
            Some(known) => find(known.id.as_str()).ok_or_else(|| {
                format!("the Workload API no longer issues {}, only: {}", known.id, ids())
            })?,
        };
        if all.all.len() > 1 {
            self.warn(format!(
                "the Workload API issues several identities, and {} is used; choose one with \
                 `id` in mesh.identity: {}",
                chosen.id,
                ids()
            ));
        }
        Ok(chosen)
    }

    /// Notes a message with this number of identities.
    fn heard(&mut self, offered: usize) {
        let mut known = self.status.known();
        let Some(state) = known.sources.get_mut(NAME) else { return };
        state.documents = offered;
        state.seen_revision += 1;
        if state.hear() {
            drop(known);
            let socket = self.api.socket.display();
            tracing::info!(%socket, "connected to the SPIFFE Workload API");
        }
    }

    /// Hands the identity to the control thread.
    async fn publish(&mut self, identity: WorkloadIdentity) {
        if let Some(source) = self.status.known().sources.get_mut(NAME) {
            source.refusal.clear();
            source.revision = source.seen_revision;
        }
        if self.known.as_deref() == Some(&identity) {
            return;
        }
        let identity = Arc::new(identity);
        self.known = Some(Arc::clone(&identity));
        // The receiver lives as long as this task.
        self.sender.send((self.api.clone(), identity)).await.ok();
    }
}

fn connect(socket: &Path) -> std::io::Result<UnixStream> {
    let socket = start_connect(&Address::Unix(socket.into()), Egress::default())?;
    UnixStream::from_std(std::os::unix::net::UnixStream::from(socket))
}
