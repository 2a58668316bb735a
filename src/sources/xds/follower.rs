//! Keeps one stream to the server, and hands the changes to the control thread.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::path::Path;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout_at};

use super::kinds::Type;
use super::state::{Limits, State};
use super::stream::{Accepted, Stream};
use super::{NAME, Update, copy};
use crate::compile::XdsSource;
use crate::grpc::Code;
use crate::grpc::xds::{DELTA, Response, STATE_OF_THE_WORLD};
use crate::sources::dial::{authority, dial};
use crate::sources::documents::Cache;
use crate::sources::lookup::Lookups;
use crate::sources::rpc::{Ended, RpcClient, Server, within};
use crate::telemetry::status::{ResourceState, Status};

/// The longest wait before the first new connection, and the maximum. Each one doubles it.
const PAUSE: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(15);

/// A server that sends nothing for this time is asked whether it is alive.
const ALIVE: Duration = Duration::from_secs(10);

/// The interval of further questions while it sends nothing. gRPC for Go ends a connection if it is
/// asked more often than every 5 minutes.
const ALIVE_AGAIN: Duration = Duration::from_secs(310);

/// How long the first update waits for everything that the server has.
const WHOLE: Duration = Duration::from_millis(2500);

/// After this time without an answer at the start, the copy on the disk is used.
const COPY_AFTER: Duration = Duration::from_secs(3);

/// The shortest time between two copies.
const COPY_INTERVAL: Duration = Duration::from_secs(1);

/// How long a type is not asked for if the server has ended a stream because of it.
const UNSUPPORTED_FOR: Duration = Duration::from_secs(300);

/// A message may be larger than its resources by this number of bytes.
const MESSAGE_OVERHEAD: usize = 1024 * 1024;

pub(super) struct Follower {
    status: Status,
    lookups: Lookups,
    source: XdsSource,
    sender: mpsc::Sender<Update>,
    state: State,
    accepted: Accepted,
    /// Types that the server does not support, each with the time at which it is asked again.
    unsupported: HashMap<Type, Instant>,
    is_careful: bool,
    /// The time until which the first update waits.
    whole_until: Option<Instant>,
    cache: Option<Cache>,
    /// Whether the copy may still be used.
    may_use_copy: bool,
    /// The time of the copy, while it is in use.
    copied: Option<SystemTime>,
    copy_due: Option<Instant>,
    began: Instant,
    is_away: bool,
    updates: u64,
    /// The refusals that were logged last.
    told: BTreeMap<Type, String>,
}

impl Follower {
    pub(super) fn new(
        (status, lookups): (Status, Lookups),
        source: XdsSource,
        cache: Option<&Path>,
        sender: mpsc::Sender<Update>,
    ) -> Self {
        let limits = Limits { resources: source.resources_max, bytes: source.bytes_max };
        let (began, is_delta) = (Instant::now(), source.is_delta);
        Self {
            status,
            lookups,
            cache: cache.map(|directory| copy::cache(&source, directory)),
            source,
            sender,
            state: State::new(limits, !is_delta),
            accepted: Accepted::default(),
            unsupported: HashMap::new(),
            is_careful: false,
            whole_until: Some(began + WHOLE),
            may_use_copy: cache.is_some(),
            copied: None,
            copy_due: None,
            began,
            is_away: false,
            updates: 0,
            told: BTreeMap::new(),
        }
    }

    pub(super) async fn run(mut self) {
        let mut pause = PAUSE;
        loop {
            let began = Instant::now();
            let Err(ended) = Box::pin(self.session()).await;
            let was_connected = self.lost(&ended);
            let copy_at = self.began + COPY_AFTER;
            if self.may_use_copy && Instant::now() >= copy_at {
                self.use_copy().await;
            }
            if was_connected && began.elapsed() > PAUSE {
                pause = PAUSE;
            }
            let mut wait = pause.mul_f64(fastrand::f64());
            if self.may_use_copy {
                wait = wait.min(copy_at.saturating_duration_since(Instant::now()));
            }
            sleep(wait).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Notes the end of a stream. Returns whether the server had answered.
    fn lost(&mut self, ended: &Ended) -> bool {
        let (host, port) = &self.source.server;
        let error = format!("{host}:{port}: {}", ended.why);
        let mut known = self.status.known();
        let Some(state) = known.sources.get_mut(NAME) else { return false };
        let was_connected = std::mem::take(&mut state.connected);
        error.clone_into(&mut state.error);
        drop(known);
        if was_connected {
            self.is_away = true;
            tracing::warn!(error, "the stream of xDS has ended; what it has sent stays in use");
        } else if !std::mem::replace(&mut self.is_away, true) {
            tracing::warn!(error, "the xDS server does not answer; the last resources stay in use");
        }
        was_connected
    }

    /// Notes that the server has answered.
    fn heard(&mut self) {
        let (host, port) = &self.source.server;
        let mut known = self.status.known();
        let Some(state) = known.sources.get_mut(NAME) else { return };
        state.heard = Some(std::time::Instant::now());
        if !std::mem::replace(&mut state.connected, true) {
            state.member = format!("{host}:{port}");
            state.error.clear();
            state.connections += 1;
            let member = state.member.clone();
            drop(known);
            self.is_away = false;
            tracing::info!(member, "connected to the xDS server");
        }
    }

    /// Follows the server on one stream.
    async fn session(&mut self) -> Result<Infallible, Ended> {
        let XdsSource { server: (host, port), tls, bytes_max, is_delta, .. } = self.source.clone();
        let dialling = dial(&self.lookups, tls.as_ref(), (&host, port));
        let dialling = Box::pin(within("connection", Box::pin(dialling)));
        let connection = match self.may_use_copy {
            // The copy is used at its time, also if the server only drops our packets.
            true => timeout_at(self.began + COPY_AFTER, dialling).await.map_err(|_| silent())??,
            false => dialling.await?,
        };
        let server = Server {
            scheme: if tls.is_some() { "https" } else { "http" },
            authority: authority(&host, port),
            metadata: Vec::new(),
            message_bytes_max: bytes_max + MESSAGE_OVERHEAD,
            setting: "max_bytes",
        };
        let mut client = RpcClient::begin(connection, server).await?;
        let path = if is_delta { DELTA } else { STATE_OF_THE_WORLD };
        let mut messages = client.open(path).await?;
        let now = Instant::now();
        self.unsupported.retain(|_, until| *until > now);
        let supported = |kind: &Type| !self.unsupported.contains_key(kind);
        let types: Vec<Type> = Type::ALL.into_iter().filter(supported).collect();
        self.state.drop_unwanted();
        let mut stream = Stream::new(is_delta, self.is_careful, types);
        self.is_careful = false;
        let mut ask_at = Instant::now() + ALIVE;
        loop {
            let now = Instant::now();
            for (kind, name) in stream.absent(&self.state, now) {
                tracing::warn!(kind = kind.name(), name, "the xDS server does not have this");
                self.state.note_absent(kind, &name);
            }
            self.settle(&mut stream, now).await;
            let copy_at = self.may_use_copy.then_some(self.began + COPY_AFTER);
            if copy_at.is_some_and(|at| at <= Instant::now()) {
                return Err(silent().into());
            }
            let node = &self.source.node;
            let now = Instant::now();
            for request in stream.requests(&self.state, &self.accepted, node, now) {
                messages.send(&request, false)?;
            }
            let due = [stream.due(), self.whole_until, self.copy_due, copy_at]
                .into_iter()
                .flatten()
                .min();
            let due = due.unwrap_or(ask_at).min(ask_at).max(now + Duration::from_millis(1));
            match timeout_at(due, messages.next()).await {
                Err(_) if ask_at <= Instant::now() => {
                    client.ping().await?;
                    self.heard();
                    ask_at = Instant::now() + ALIVE_AGAIN;
                }
                Err(_) => {}
                Ok(Err(ended)) => {
                    self.suspect(&stream, &ended);
                    return Err(ended);
                }
                Ok(Ok(message)) => {
                    self.heard();
                    ask_at = Instant::now() + ALIVE;
                    self.take(&mut stream, &message, is_delta)?;
                }
            }
            self.write_copy().await;
        }
    }

    /// Takes a message of the server.
    fn take(&mut self, stream: &mut Stream, message: &[u8], is_delta: bool) -> Result<(), Ended> {
        let read = match is_delta {
            true => Response::delta(message),
            false => Response::state_of_the_world(message),
        };
        let response = read.map_err(|_| "the answer is not one of xDS".to_owned())?;
        let Some(kind) = Type::of(response.type_url) else {
            let why = format!("the server has sent the type {:?} unasked", response.type_url);
            return Err(why.into());
        };
        self.accepted.heard.insert(kind);
        self.copied = None;
        stream.note(kind, response.version, response.nonce, Instant::now());
        if let Err(why) = self.state.take(kind, &response, is_delta) {
            self.state.refuse_all(kind, why);
        }
        Ok(())
    }

    /// A stream that ends with an error may do so because of a type that the server lacks. The next
    /// stream does without it.
    fn suspect(&mut self, stream: &Stream, ended: &Ended) {
        let passing = [Code::OK, Code::CANCELLED, Code::UNAVAILABLE, Code::RESOURCE_EXHAUSTED];
        if ended.code.is_none_or(|code| passing.contains(&code)) {
            return;
        }
        match (&stream.suspects(&self.accepted)[..], stream.is_careful) {
            ([], _) => {}
            ([kind], _) | ([.., kind], true) => {
                let until = Instant::now() + UNSUPPORTED_FOR;
                self.unsupported.insert(*kind, until);
                tracing::warn!(
                    why = ended.why,
                    "the xDS server has ended the stream because of the type {}; it is not asked \
                     for again within {UNSUPPORTED_FOR:?}",
                    kind.name()
                );
                if self.unsupported.len() == Type::ALL.len() {
                    self.unsupported.clear();
                }
            }
            _ => self.is_careful = true,
        }
    }

    /// Publishes the changes, and judges the responses that have led to them.
    async fn settle(&mut self, stream: &mut Stream, now: Instant) {
        if let Some(until) = self.whole_until {
            let heard = !self.accepted.heard.is_empty();
            let is_whole = heard && stream.is_settled(&self.state, &self.accepted);
            // The responses are judged meanwhile, but nothing is published.
            if !is_whole && now < until {
                return;
            }
            self.whole_until = None;
            if !heard {
                return;
            }
            self.may_use_copy = false;
            self.publish(None).await;
        } else if self.state.is_dirty() {
            self.may_use_copy = false;
            self.publish(None).await;
        }
        self.judge(stream, now);
    }

    fn judge(&mut self, stream: &mut Stream, now: Instant) {
        let Self { state, accepted, .. } = self;
        let refused = stream.judge(accepted, now, |kind| state.refusal(kind));
        self.show(&refused);
    }

    /// Hands the changes to the control thread, and waits for its answer.
    async fn publish(&mut self, copied: Option<SystemTime>) {
        let changes = self.state.changes();
        let (answer, answered) = oneshot::channel();
        let is_first = self.updates == 0;
        let update = Update { changes, copied, is_first, answer };
        if self.sender.send(update).await.is_err() {
            return;
        }
        // Without an answer, the configuration has another server now.
        let Ok(refused) = answered.await else { return std::future::pending().await };
        self.state.settle(&refused);
        self.updates += 1;
        if copied.is_none() && self.cache.is_some() {
            self.copy_due.get_or_insert_with(|| Instant::now() + COPY_INTERVAL);
        }
    }

    /// Shows the state to the operator, and logs refusals.
    fn show(&mut self, refused: &[(Type, String)]) {
        let mut known = self.status.known();
        let Some(shown) = known.sources.get_mut(NAME) else { return };
        (shown.documents, shown.bytes) = self.state.size();
        shown.copied = self.copied;
        shown.revision = self.updates;
        shown.seen_revision = self.updates;
        let of_kind = |kind: Type| ResourceState {
            kind: kind.name(),
            version: self.accepted.versions.get(&kind).cloned().unwrap_or_default(),
            count: self.state.entries(kind).len(),
            refused: self.state.refused[kind.index()].clone().into_iter().collect(),
        };
        shown.resources = Type::ALL.into_iter().map(of_kind).collect();
        let mut lines = Vec::new();
        for kind in Type::ALL {
            let why = self.state.refusal(kind).unwrap_or_default();
            // A server that sends the same again and again does not fill the log.
            let last = self.told.insert(kind, why.clone()).unwrap_or_default();
            let is_new = !why.is_empty() && last != why;
            if is_new || refused.iter().any(|(of, _)| *of == kind) {
                shown.refused += 1;
            }
            if is_new {
                lines.push(why);
            }
        }
        let current: Vec<&str> = self.told.values().map(|why| &**why).collect();
        let current = current.into_iter().filter(|why| !why.is_empty()).collect::<Vec<_>>();
        shown.refusal = current.join("; ");
        drop(known);
        for why in lines {
            tracing::error!(
                source = NAME,
                "resources are refused; their previous content stays in use: {why}"
            );
        }
    }

    /// Uses the copy on the disk, because the server does not answer.
    async fn use_copy(&mut self) {
        self.may_use_copy = false;
        self.whole_until = None;
        let Some(cache) = &self.cache else { return };
        match copy::read(cache, &mut self.state) {
            Ok(Some(copied)) => {
                let age = Duration::from_secs(copied.elapsed().unwrap_or_default().as_secs());
                let (resources, _) = self.state.size();
                tracing::warn!(
                    resources,
                    ?age,
                    "the xDS server does not answer at the start; the copy on the disk is used"
                );
                self.copied = Some(copied);
                self.publish(Some(copied)).await;
                self.show(&[]);
            }
            Ok(None) => tracing::warn!(
                "the xDS server does not answer at the start, and there is no copy; only the files \
                 are used"
            ),
            Err(why) => {
                tracing::warn!(%why, "the xDS server does not answer at the start, and no copy");
            }
        }
    }

    /// Writes a copy if one is due.
    async fn write_copy(&mut self) {
        let Some(cache) = self.cache.clone() else { return };
        if self.copy_due.is_none_or(|due| due > Instant::now()) {
            return;
        }
        self.copy_due = None;
        let resources = copy::resources(&self.state);
        let written = spawn_blocking(move || copy::write(&cache, &resources)).await;
        if let Ok(Err(why)) = written {
            tracing::warn!("no copy of the resources of xDS: {why}");
        }
    }
}

fn silent() -> String {
    format!("no answer within {COPY_AFTER:?}")
}
