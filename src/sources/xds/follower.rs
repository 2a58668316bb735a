//! Keeps one stream to the server, and hands the changes to the control thread.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::path::Path;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::kinds::{NAME_BYTES_MAX, Type, short};
use super::state::{Limits, State};
use super::stream::{Accepted, Stream};
use super::{NAME, Update, copy};
use crate::compile::XdsSource;
use crate::grpc::Code;
use crate::grpc::xds::{DELTA, Response, STATE_OF_THE_WORLD};
use crate::sources::dial::{authority, dial};
use crate::sources::documents::Cache;
use crate::sources::lookup::Lookups;
use crate::sources::pause::{self, Pause};
use crate::sources::rpc::{ANSWER, Ended, Messages, RpcClient, Server, within};
use crate::telemetry::status::{ResourceState, Status};

/// The longest wait before a new connection.
const PAUSE_MAX: Duration = Duration::from_secs(15);

/// A server that sends nothing for this time is asked whether it is alive.
const ALIVE: Duration = Duration::from_secs(10);

/// The interval of further questions while it stays silent. gRPC for Go ends a connection that asks
/// more often than every 5 minutes.
const ALIVE_AGAIN: Duration = Duration::from_secs(310);

/// How long the first update waits for everything that the server has, from its first answer on.
const WHOLE: Duration = Duration::from_millis(2500);

/// The same if earlier resources are in use: longer than a name that is not answered.
const WHOLE_REPLACING: Duration = Duration::from_secs(20);

/// The process waits at its start for the first update, so there it comes within this time.
const WHOLE_AT_START: Duration = Duration::from_millis(3200);

/// After this time without an answer at the start, the copy on the disk is used.
const COPY_AFTER: Duration = Duration::from_secs(3);

/// The number of messages that are published together, less one.
const TOGETHER_MAX: usize = 16;

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
    first: First,
    cache: Option<Cache>,
    /// Whether the copy may still be used.
    may_use_copy: bool,
    /// The time of the copy, while it is in use.
    copied: Option<SystemTime>,
    copy_due: Option<Instant>,
    copying: Option<JoinHandle<()>>,
    began: Instant,
    is_away: bool,
    updates: u64,
    /// The refusals that were logged last.
    told: BTreeMap<Type, String>,
}

impl Follower {
    /// `replaces` is whether resources of an earlier follower are in use. They stay until this one
    /// has everything.
    pub(super) fn new(
        (status, lookups): (Status, Lookups),
        source: XdsSource,
        cache: Option<&Path>,
        sender: mpsc::Sender<Update>,
        replaces: bool,
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
            first: First::new(began, replaces),
            may_use_copy: cache.is_some() && !replaces,
            copied: None,
            copy_due: None,
            copying: None,
            began,
            is_away: false,
            updates: 0,
            told: BTreeMap::new(),
        }
    }

    pub(super) async fn run(mut self) {
        let mut pause = Pause::up_to(PAUSE_MAX);
        loop {
            let began = Instant::now();
            let Err(ended) = Box::pin(self.session()).await;
            let was_connected = self.lost(&ended);
            let copy_at = self.began + COPY_AFTER;
            if self.may_use_copy && Instant::now() >= copy_at {
                self.use_copy().await;
            }
            if was_connected && began.elapsed() > pause::FIRST {
                pause.reset();
            }
            let mut wait = pause.take().mul_f64(fastrand::f64());
            if self.may_use_copy {
                wait = wait.min(copy_at.saturating_duration_since(Instant::now()));
            }
            sleep(wait).await;
        }
    }

    /// Notes the end of a stream. Returns whether the server had answered.
    fn lost(&mut self, ended: &Ended) -> bool {
        let (host, port) = &self.source.server;
        let error = format!("{host}:{port}: {}", ended.why);
        let mut known = self.status.known();
        let Some(state) = known.sources.get_mut(NAME) else { return false };
        let was_connected = state.lose(&error);
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
        if state.hear() {
            state.member = format!("{host}:{port}");
            let member = state.member.clone();
            drop(known);
            self.is_away = false;
            tracing::info!(member, "connected to the xDS server");
        }
    }

    async fn connect(&self) -> Result<RpcClient, Ended> {
        let XdsSource { server: (host, port), tls, bytes_max, .. } = self.source.clone();
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
        Ok(RpcClient::begin(connection, server).await?)
    }

    /// Follows the server on one stream.
    async fn session(&mut self) -> Result<Infallible, Ended> {
        let mut client = self.connect().await?;
        let is_delta = self.source.is_delta;
        let path = if is_delta { DELTA } else { STATE_OF_THE_WORLD };
        let mut messages = client.open(path).await?;
        within("window for a request", messages.room()).await?;
        self.supported_again(Instant::now());
        let supported = |kind: &Type| !self.unsupported.contains_key(kind);
        let types: Vec<Type> = Type::ALL.into_iter().filter(supported).collect();
        self.state.drop_unwanted();
        let mut stream = Stream::new(is_delta, self.is_careful, types);
        self.is_careful = false;
        self.first.until = None;
        let mut unsent = Unsent::default();
        let mut ping_at = Instant::now() + ALIVE;
        loop {
            let now = Instant::now();
            for kind in self.supported_again(now) {
                stream.ask_again(kind);
            }
            for (kind, name) in stream.absent(&self.state, now) {
                self.tell_absent(kind, &name);
                self.state.note_absent(kind, &name);
            }
            self.settle(&mut stream, now).await;
            let copy_at = self.may_use_copy.then_some(self.began + COPY_AFTER);
            if copy_at.is_some_and(|at| at <= Instant::now()) {
                return Err(silent().into());
            }
            let node = &self.source.node;
            let now = Instant::now();
            if unsent.may_send(messages.has_room(), now)? {
                for request in stream.requests(&self.state, &self.accepted, node, now) {
                    messages.send(&request, false)?;
                }
            }
            let again = self.unsupported.values().min().copied();
            let due =
                [stream.due(), self.first.until, self.copy_due, copy_at, again, Some(ping_at)];
            let due = unsent.next_look(due.into_iter().flatten().min(), now);
            match timeout_at(due, messages.next()).await {
                Err(_) if ping_at <= Instant::now() => {
                    client.ping().await?;
                    self.heard();
                    ping_at = Instant::now() + ALIVE_AGAIN;
                }
                Err(_) => {}
                Ok(message) => {
                    ping_at = Instant::now() + ALIVE;
                    self.receive(&mut stream, &mut messages, message).await?;
                }
            }
            self.write_copy();
        }
    }

    /// Takes a message, and those that have come with it, so that they are published together.
    async fn receive(
        &mut self,
        stream: &mut Stream,
        messages: &mut Messages,
        first: Result<Vec<u8>, Ended>,
    ) -> Result<(), Ended> {
        let mut next = first;
        for _ in 0..TOGETHER_MAX {
            let message = next.inspect_err(|ended| self.suspect(stream, ended))?;
            self.heard();
            self.take(stream, &message, self.source.is_delta)?;
            let Ok(further) = timeout(Duration::ZERO, messages.next()).await else { return Ok(()) };
            next = further;
        }
        let message = next.inspect_err(|ended| self.suspect(stream, ended))?;
        self.take(stream, &message, self.source.is_delta)
    }

    /// Takes a message of the server.
    fn take(&mut self, stream: &mut Stream, message: &[u8], is_delta: bool) -> Result<(), Ended> {
        // A removed resource is none, but it is known.
        let max = 2 * self.source.resources_max;
        let read = match is_delta {
            true => Response::delta(message, max),
            false => Response::state_of_the_world(message, max),
        };
        let response = read.map_err(|_| "the answer is not one of xDS".to_owned())?;
        let Some(kind) = Type::of(response.type_url) else {
            let url = short(response.type_url, NAME_BYTES_MAX);
            let why = format!("the server has sent the type {url:?} unasked");
            return Err(why.into());
        };
        self.accepted.heard.insert(kind);
        self.first.hear(Instant::now());
        let is_first = !stream.is_heard_for(kind);
        self.copied = None;
        check_lengths(&response)?;
        if !stream.note(kind, response.version, response.nonce, Instant::now()) {
            self.state.begin(kind);
        }
        match self.state.take(kind, &response, is_delta) {
            Ok(()) if is_delta && is_first => self.state.drop_unversioned(kind, &response),
            Ok(()) => {}
            Err(why) => self.state.refuse_all(kind, why),
        }
        Ok(())
    }

    /// A stream that ends with an error may do so because of a type that the server lacks. The next
    /// stream does without it.
    fn suspect(&mut self, stream: &Stream, ended: &Ended) {
        let suspects = stream.suspects(&self.accepted);
        if !blames_type(ended, &suspects) {
            return;
        }
        match (&suspects[..], stream.is_careful) {
            ([], _) => {}
            ([kind], _) | ([.., kind], true) if stream.is_heard() => {
                let until = Instant::now() + UNSUPPORTED_FOR;
                self.unsupported.insert(*kind, until);
                tracing::warn!(
                    why = ended.why,
                    "the xDS server has ended the stream because of the type {}; it is not asked \
                     for again within {UNSUPPORTED_FOR:?}",
                    kind.name()
                );
            }
            _ => self.is_careful = true,
        }
    }

    /// Types that may be supported again by now.
    fn supported_again(&mut self, now: Instant) -> Vec<Type> {
        let all = self.unsupported.extract_if(|_, until| *until <= now);
        all.map(|(kind, _)| kind).collect()
    }

    /// Publishes the changes, and judges the responses that have led to them.
    async fn settle(&mut self, stream: &mut Stream, now: Instant) {
        if !self.first.is_over {
            let is_settled = || stream.is_settled(&self.state, &self.accepted);
            if !self.first.ends(now, is_settled) {
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

    fn tell_absent(&self, kind: Type, name: &str) {
        let of = kind.name();
        if kind == Type::Secret {
            let users = self.state.users_of(kind, name);
            tracing::warn!(
                users,
                "waits for {of} {name}: the xDS server does not have it, so what needs it is not \
                 used"
            );
        } else {
            tracing::warn!(kind = of, name, "the xDS server does not have this");
        }
    }

    fn judge(&mut self, stream: &mut Stream, now: Instant) {
        let Self { state, accepted, .. } = self;
        let refused = stream.judge(accepted, now, |kind| state.refusal(kind));
        self.show(&refused);
    }

    /// Hands the changes to the control thread, and waits for its answer.
    async fn publish(&mut self, copied: Option<SystemTime>) {
        let only_moves = self.state.only_moves();
        let changes = self.state.changes();
        let (answer, answered) = oneshot::channel();
        let is_first = self.updates == 0;
        let update = Update { changes, only_moves, copied, is_first, answer };
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
            waiting: self.state.waiting(kind),
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
        self.first.is_over = true;
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

    /// Begins to write a copy if one is due. The disk may take its time.
    fn write_copy(&mut self) {
        let Some(cache) = self.cache.clone() else { return };
        let now = Instant::now();
        if self.copy_due.is_none_or(|due| due > now) {
            return;
        }
        if self.copying.as_ref().is_some_and(|copying| !copying.is_finished()) {
            self.copy_due = Some(now + COPY_INTERVAL);
            return;
        }
        self.copy_due = None;
        let resources = copy::resources(&self.state);
        self.copying = Some(spawn_blocking(move || {
            if let Err(why) = copy::write(&cache, &resources) {
                tracing::warn!("no copy of the resources of xDS: {why}");
            }
        }));
    }
}

/// Whether the end of a stream means that the server lacks one of the types. Other errors concern
/// the whole stream: no permission, a fault of the server.
pub(super) fn blames_type(ended: &Ended, suspects: &[Type]) -> bool {
    let names_type = || suspects.iter().any(|kind| ended.why.contains(kind.url()));
    match ended.code {
        Some(Code::UNIMPLEMENTED) => true,
        Some(Code::UNKNOWN | Code::INTERNAL | Code::INVALID_ARGUMENT | Code::NOT_FOUND) => {
            names_type()
        }
        _ => false,
    }
}

/// The first update, which waits for everything that the server has.
pub(super) struct First {
    began: Instant,
    replaces: bool,
    /// The time until which it waits, once the server has answered on this stream.
    pub(super) until: Option<Instant>,
    pub(super) is_over: bool,
}

impl First {
    pub(super) fn new(began: Instant, replaces: bool) -> Self {
        Self { began, replaces, until: None, is_over: false }
    }

    /// Notes an answer.
    pub(super) fn hear(&mut self, now: Instant) {
        let start = self.began + WHOLE_AT_START;
        let until = match self.replaces {
            true => now + WHOLE_REPLACING,
            false if now < start => start.min(now + WHOLE),
            false => now + WHOLE,
        };
        if !self.is_over {
            self.until.get_or_insert(until);
        }
    }

    /// Whether the update is published now.
    pub(super) fn ends(&mut self, now: Instant, is_settled: impl FnOnce() -> bool) -> bool {
        if self.until.is_some_and(|until| now >= until || is_settled()) {
            (self.is_over, self.until) = (true, None);
        }
        self.is_over
    }
}

/// Ends a stream with a version or nonce that would have to be kept and sent back.
fn check_lengths(response: &Response<'_>) -> Result<(), String> {
    for (what, text) in [("version", response.version), ("nonce", response.nonce)] {
        let len = text.len();
        if len > NAME_BYTES_MAX {
            return Err(format!("a {what} of {len} bytes; {NAME_BYTES_MAX} are allowed"));
        }
    }
    Ok(())
}

/// Requests that wait in memory, because the server does not read. Only one of each type does.
#[derive(Default)]
pub(super) struct Unsent {
    since: Option<Instant>,
}

impl Unsent {
    /// Whether further requests may be sent. `has_room` is whether all earlier ones were.
    pub(super) fn may_send(&mut self, has_room: bool, now: Instant) -> Result<bool, String> {
        if has_room {
            self.since = None;
        } else if now >= *self.since.get_or_insert(now) + ANSWER {
            return Err(format!("the server has read no request for {ANSWER:?}"));
        }
        Ok(has_room)
    }

    /// The time of the next look, if something is due at `due`.
    pub(super) fn next_look(&self, due: Option<Instant>, now: Instant) -> Instant {
        match self.since {
            // Only then it is known what is due.
            Some(_) => now + Duration::from_millis(50),
            None => due.unwrap_or(now + ALIVE * 2).max(now + Duration::from_millis(1)),
        }
    }
}

fn silent() -> String {
    format!("no answer within {COPY_AFTER:?}")
}
