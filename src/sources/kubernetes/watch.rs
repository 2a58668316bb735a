//! Follows the objects of one kind: all of them first, and then their changes.

use std::collections::HashMap;
use std::convert::Infallible;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::access;
use super::client::{Answer, ask};
use super::event::{self, Event};
use super::shared::Shared;
use super::store::{Kept, Watched};
use crate::sources::pause::Pause;

/// The longest pause after failures.
const PAUSE_MAX: Duration = Duration::from_secs(15);

/// How long a watch lasts, before jitter. The API server ends it then.
const WATCH: Duration = Duration::from_secs(280);

/// How long the API server may be silent. Its bookmarks come each minute.
const SILENCE: Duration = Duration::from_secs(150);

/// How long it may be silent while it tells all objects at the beginning.
const FIRST_SILENCE: Duration = Duration::from_secs(10);

/// When a kind that does not exist is looked for again.
const ABSENT: Duration = Duration::from_secs(60);

/// A watch that lasts longer than this works.
const STEADY: Duration = Duration::from_secs(2);

/// The shortest time between two requests.
const INTERVAL: Duration = Duration::from_millis(500);

/// The maximum size of a page, and the number of objects that it is asked for.
const PAGE_BYTES_MAX: usize = 64 * 1024 * 1024;
const PAGE_OBJECTS: usize = 500;

/// The maximum number of pages of a list.
const PAGES_MAX: usize = 1_000;

/// The answers of an API server that is busy, or of a proxy in front of one that is away.
const BUSY: [u16; 4] = [429, 502, 503, 504];

/// How long the last objects stay when the API server seems to have lost them all.
const LOST: Duration = Duration::from_secs(60);

/// The maximum number of objects of a kind.
const OBJECTS_MAX: usize = 50_000;

/// Why there is nothing new.
pub(super) struct Failed {
    pub(super) why: String,
    /// Whether there was an answer that cannot be used.
    pub(super) is_refused: bool,
}

impl From<String> for Failed {
    fn from(why: String) -> Self {
        Self { why, is_refused: false }
    }
}

fn refused(why: String) -> Failed {
    Failed { why, is_refused: true }
}

/// How a request has ended, if not with a failure.
#[derive(PartialEq)]
enum End {
    Usual,
    /// The version is too old.
    TooOld,
    /// The kind does not exist.
    Absent,
}

pub(super) struct Follower {
    shared: Shared,
    watched: Watched,
    /// The version up to which everything is known. `None` if all objects must be read again.
    version: Option<String>,
    /// The largest version so far, as a number.
    seen: u64,
    /// Whether the API server can tell all objects at the beginning of a watch.
    can_stream: bool,
    /// Since when all objects seem to be lost.
    lost: Option<Instant>,
    /// How often in a row the API server said that the version is too old.
    too_old: u32,
    /// When it has last told something of this kind.
    told: Instant,
}

impl Follower {
    /// Creates a follower. `seen` is the largest version that is known already.
    pub(super) fn new(shared: Shared, watched: Watched, seen: u64) -> Self {
        let (version, lost, told) = (None, None, Instant::now());
        Self { shared, watched, version, seen, can_stream: true, lost, too_old: 0, told }
    }

    pub(super) async fn run(mut self) -> Infallible {
        let mut pause = Pause::up_to(PAUSE_MAX);
        loop {
            let began = Instant::now();
            let ended = Box::pin(self.session()).await;
            // A kind whose requests end soon after their beginning is asked less and less often.
            if began.elapsed() > STEADY && self.too_old < 2 {
                pause.reset();
            }
            let jitter = 0.5 + fastrand::f64() / 2.0;
            let wait = match ended {
                Ok(End::Usual) => INTERVAL.saturating_sub(began.elapsed()),
                Ok(End::TooOld) => pause.take(),
                Ok(End::Absent) if self.seems_lost() => {
                    let why = format!("the kind is gone; its objects stay in use for {LOST:?}");
                    self.shared.failed(&self.watched, refused(why));
                    pause.take()
                }
                Ok(End::Absent) => {
                    self.shared.absent(&self.watched);
                    ABSENT
                }
                Err(failed) => {
                    self.shared.failed(&self.watched, failed);
                    pause.take()
                }
            };
            sleep(wait.mul_f64(jitter)).await;
        }
    }

    async fn session(&mut self) -> Result<End, Failed> {
        if self.version.is_none() && !self.can_stream {
            return self.list().await;
        }
        let seconds = WATCH.mul_f64(0.85 + fastrand::f64() * 0.3).as_secs();
        let how = match &self.version {
            Some(version) => format!("resourceVersion={version}"),
            None => "sendInitialEvents=true&resourceVersionMatch=NotOlderThan".to_owned(),
        };
        let query = format!("watch=true&allowWatchBookmarks=true&timeoutSeconds={seconds}&{how}");
        let answer = self.ask(&query).await?;
        let begins = self.version.is_none();
        match answer.status {
            200 => self.follow(answer).await,
            404 if self.watched.kind.is_custom => Ok(End::Absent),
            410 => self.too_old(begins),
            // The API server is older than streams of all objects.
            400 | 422 | 500.. if begins => {
                self.can_stream = false;
                Ok(End::Usual)
            }
            // The version may be the reason, so all objects are read again.
            status => {
                if !BUSY.contains(&status) {
                    self.version = None;
                }
                Err(refusal(answer).await)
            }
        }
    }

    /// The API server has forgotten the version. That is usual once, but no answer to a request for
    /// all objects, and not again and again.
    fn too_old(&mut self, begins: bool) -> Result<End, Failed> {
        self.version = None;
        self.too_old += 1;
        match begins || self.too_old > 1 {
            true => Err(refused("status 410 again and again: the version is too old".to_owned())),
            false => Ok(End::TooOld),
        }
    }

    async fn ask(&self, query: &str) -> Result<Answer, Failed> {
        let Watched { kind, namespace } = &self.watched;
        let place = namespace.as_ref().filter(|_| kind.is_namespaced);
        let place = place.map(|namespace| format!("namespaces/{namespace}/")).unwrap_or_default();
        let selector = kind.selector;
        let target = format!("{}/{place}{}?{query}{selector}", kind.path, kind.plural);
        let access = access::load(&self.shared.source)?;
        self.shared.asks(&access);
        Ok(ask(&self.shared.lookups, &access, &target).await?)
    }

    /// Reads a list, page by page.
    async fn list(&mut self) -> Result<End, Failed> {
        let (mut all, mut next) = (HashMap::new(), None::<String>);
        for _ in 0..PAGES_MAX {
            let mut query = format!("limit={PAGE_OBJECTS}");
            if let Some(next) = &next {
                query.push_str(&format!("&continue={}", escaped(next)));
            }
            let answer = self.ask(&query).await?;
            match answer.status {
                200 => {}
                404 if self.watched.kind.is_custom => return Ok(End::Absent),
                // The list has changed too much since its first page.
                410 => return self.too_old(next.is_none()),
                _ => {
                    self.can_stream = true;
                    return Err(refusal(answer).await);
                }
            }
            let body = answer.whole(PAGE_BYTES_MAX, SILENCE).await?;
            let page = event::page(self.watched.kind, &body).map_err(refused)?;
            for event in page.events {
                self.collect(event, &mut all)?;
            }
            next = page.next;
            if next.is_none() {
                let version =
                    page.version.ok_or_else(|| refused("a list without a version".into()));
                self.commit(all, version?)?;
                return Ok(End::Usual);
            }
        }
        Err(refused(format!("a list of more than {PAGES_MAX} pages")))
    }

    /// Follows a watch to its end.
    async fn follow(&mut self, mut answer: Answer) -> Result<End, Failed> {
        let has_version = self.version.is_some();
        let ended = self.events(&mut answer).await;
        // A version that does not exist yet, or that is none, is answered with silence, with
        // errors or with nonsense, and would be for ever. A connection that breaks off says nothing
        // about it.
        let is_wrong = ended.as_ref().is_err_and(|failed| failed.is_refused);
        if has_version && (is_wrong || self.told.elapsed() >= SILENCE) {
            self.version = None;
        }
        ended
    }

    async fn events(&mut self, answer: &mut Answer) -> Result<End, Failed> {
        let mut first = self.version.is_none().then(HashMap::new);
        let mut is_silent = true;
        if first.is_none() && self.too_old < 2 {
            self.shared.heard(&self.watched);
        }
        loop {
            let Some(line) = self.next(answer, first.is_some()).await? else { break };
            let (event, version) = event::line(self.watched.kind, &line).map_err(refused)?;
            drop(line);
            is_silent = false;
            self.told = Instant::now();
            match event {
                Event::TooOld => return self.too_old(first.is_some()),
                // The etcd of the API server is older than streams of all objects.
                Event::Error(_) if first.as_ref().is_some_and(HashMap::is_empty) => {
                    self.can_stream = false;
                    return Ok(End::Usual);
                }
                Event::Error(why) => return Err(refused(why)),
                Event::Bookmark { is_end: true } if first.is_some() => {
                    let version =
                        version.ok_or_else(|| refused("a bookmark without a version".into()));
                    self.commit(first.take().unwrap_or_default(), version?)?;
                    continue;
                }
                event => match &mut first {
                    Some(all) => {
                        self.collect(event, all)?;
                        continue;
                    }
                    None => self.shared.change(&self.watched, event),
                },
            }
            if let Some(version) = version {
                self.note(version);
            }
            self.too_old = 0;
            self.shared.heard(&self.watched);
        }
        if first.is_some() {
            return Err(refused("the watch has ended before all objects were told".to_owned()));
        }
        // A watch from a version that does not exist yet is silent: not even a bookmark comes.
        if is_silent {
            self.version = None;
        }
        Ok(End::Usual)
    }

    /// The next line of a watch. An API server that does not know streams of all objects tells the
    /// objects, but never that they are complete.
    async fn next(
        &mut self,
        answer: &mut Answer,
        is_first: bool,
    ) -> Result<Option<Vec<u8>>, Failed> {
        if self.too_old > 0 && !is_first {
            let began = Instant::now();
            let line = answer.line(STEADY).await;
            if line.is_ok() || began.elapsed() < STEADY {
                return Ok(line?);
            }
            // The version is good after all.
            self.too_old = 0;
            self.shared.heard(&self.watched);
        }
        let (began, patience) = (Instant::now(), if is_first { FIRST_SILENCE } else { SILENCE });
        let line = answer.line(patience).await;
        if is_first && line.is_err() && began.elapsed() >= patience {
            self.can_stream = false;
        }
        Ok(line?)
    }

    /// Adds an object to the first ones.
    fn collect(&self, event: Event, all: &mut HashMap<Box<str>, Kept>) -> Result<(), Failed> {
        match event {
            Event::Put(key, kept) => match *kept {
                Ok(kept) => _ = all.insert(key, kept),
                Err(why) => self.shared.left_out(&self.watched, &key, &why),
            },
            Event::Remove(key) => _ = all.remove(&key),
            Event::Bookmark { .. } | Event::TooOld | Event::Error(_) => {}
        }
        match all.len() > OBJECTS_MAX {
            true => Err(refused(format!("more than {OBJECTS_MAX} objects"))),
            false => Ok(()),
        }
    }

    /// Uses all objects of a kind, which were read at `version`.
    fn commit(&mut self, all: HashMap<Box<str>, Kept>, version: String) -> Result<(), Failed> {
        let number: u64 = version.parse().unwrap_or(u64::MAX);
        if number < self.seen {
            let (kind, seen) = (self.watched.kind.title(), self.seen);
            if all.is_empty() && self.seems_lost() {
                return Err(refused(format!(
                    "the version went back from {seen} to {version}, and nothing is there; the \
                     last objects stay in use for {LOST:?}"
                )));
            }
            tracing::warn!(kind, "the API server went back from version {seen} to {version}");
            self.seen = 0;
        }
        self.lost = None;
        self.told = Instant::now();
        // While each version is too old at once, this is no sign of life.
        self.shared.replace(&self.watched, all, self.too_old < 2);
        self.note(version);
        Ok(())
    }

    /// Whether there were objects, and nobody has said for long enough that they are gone.
    fn seems_lost(&mut self) -> bool {
        let is_lost = self.shared.has(&self.watched);
        is_lost && self.lost.get_or_insert_with(Instant::now).elapsed() < LOST
    }

    fn note(&mut self, version: String) {
        self.seen = self.seen.max(version.parse().unwrap_or_default());
        self.shared.version(self.seen);
        self.version = Some(version);
    }
}

/// The reason in an answer that is no success.
async fn refusal(answer: Answer) -> Failed {
    let status = answer.status;
    let body = answer.whole(PAGE_BYTES_MAX, FIRST_SILENCE).await.unwrap_or_default();
    let value = serde_json::from_slice(&body).unwrap_or_default();
    Failed { why: event::status(&value, status.into()), is_refused: true }
}

/// The text as a part of a URL.
fn escaped(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    let part = |byte: u8| match is_plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    text.bytes().map(part).collect()
}
