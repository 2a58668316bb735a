//! One blocking query to Consul, again and again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc};
use tokio::time::sleep;

use super::http::{Answer, Client};
use super::{Change, Failing, NAME, lock, state};
use crate::compile::ConsulSource;
use crate::compile::reaches;
use crate::model::Endpoint;
use crate::net::Address;
use crate::sources::lookup::Lookups;
use crate::sources::pause::Pause;
use crate::telemetry::status::Status;

/// How long a query waits for a change, plus or minus a quarter. Consul answers queries without
/// jitter of its own in step.
const WAIT: Duration = Duration::from_secs(60);

/// The shortest wait if more services are followed than queries may wait.
const WAIT_MIN: Duration = Duration::from_secs(1);

/// The time for an answer after its wait. Consul waits up to a sixteenth longer than it was told.
const ANSWER: Duration = Duration::from_secs(10);

/// The longest wait after a failure.
const PAUSE_MAX: Duration = Duration::from_secs(15);

/// The shortest time between two queries of a state that changes all the time.
const INTERVAL: Duration = Duration::from_millis(50);

/// The pause before a query that must not wait, because the index began again.
const AGAIN: Duration = Duration::from_millis(500);

/// How long the last endpoints stay in use after the index went back and the service is gone: the
/// agents may register it again.
const LOST: Duration = Duration::from_secs(60);

/// The subject of a query.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Watched {
    /// The names of all services.
    Catalog,
    /// The instances of a service.
    Service(String),
}

/// The parts that all queries share.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) status: Status,
    pub(super) lookups: Lookups,
    pub(super) source: Arc<ConsulSource>,
    pub(super) sender: mpsc::UnboundedSender<Change>,
    pub(super) queries: Arc<Semaphore>,
    pub(super) failing: Failing,
}

impl Shared {
    /// Forgets a query that is not asked any more.
    pub(super) fn forget(&self, watched: &Watched) {
        lock(&self.failing).remove(watched);
    }

    /// Notes an answer.
    fn heard(&self, watched: &Watched) {
        let is_back = {
            let mut failing = lock(&self.failing);
            failing.remove(watched).is_some() && failing.is_empty()
        };
        let is_connected = lock(&self.failing).is_empty();
        let mut known = self.status.known();
        let Some(state) = known.sources.get_mut(NAME) else { return };
        state.heard = Some(Instant::now());
        if is_connected {
            state.copied = None;
            state.error.clear();
            if !std::mem::replace(&mut state.connected, true) {
                let member = state.member.clone();
                drop(known);
                tracing::info!(member, is_back, "Consul answers");
            }
        }
    }

    /// Notes a failure. `is_refused` is whether there was an answer that cannot be used.
    fn failed(&self, watched: &Watched, why: &str, is_refused: bool) {
        let is_first = {
            let mut failing = lock(&self.failing);
            let is_first = failing.is_empty();
            failing.insert(watched.clone(), why.to_owned());
            is_first
        };
        let about = match watched {
            Watched::Catalog => "the catalog".to_owned(),
            Watched::Service(name) => format!("the service {name:?}"),
        };
        let mut known = self.status.known();
        let Some(state) = known.sources.get_mut(NAME) else { return };
        state.connected = false;
        state.error = format!("{about}: {why}");
        if is_refused {
            state.refused += 1;
            state.refusal = state.error.clone();
        }
        drop(known);
        if is_first {
            tracing::warn!(
                "Consul does not answer; the last endpoints stay in use: {about}: {why}"
            );
        }
    }

    /// Notes that the last answer is used.
    fn used(&self, is_change: bool) {
        if let Some(state) = self.status.known().sources.get_mut(NAME) {
            state.refusal.clear();
            state.revision += u64::from(is_change);
            state.seen_revision = state.revision;
        }
    }
}

pub(super) struct Follower {
    shared: Shared,
    watched: Watched,
    /// How many queries share a place.
    crowd: u32,
    client: Option<Client>,
    index: u64,
    /// The last index above 0 that was told, also on earlier connections.
    seen: u64,
    known: Option<Change>,
    /// Since when the service is gone although the index went back.
    lost: Option<Instant>,
    told: Option<String>,
}

/// Why there is no new state.
struct Failed {
    why: String,
    is_refused: bool,
}

impl From<String> for Failed {
    fn from(why: String) -> Self {
        Self { why, is_refused: false }
    }
}

impl Follower {
    pub(super) fn new(shared: Shared, watched: Watched, crowd: u32) -> Self {
        let (client, known, lost, told) = (None, None, None, None);
        Self { shared, watched, crowd, client, index: 0, seen: 0, known, lost, told }
    }

    pub(super) async fn run(mut self) {
        let mut pause = Pause::up_to(PAUSE_MAX);
        loop {
            let began = Instant::now();
            match Box::pin(self.query()).await {
                Ok(()) => {
                    self.shared.heard(&self.watched);
                    pause.reset();
                    let least = if self.index == 0 { AGAIN } else { INTERVAL };
                    sleep(least.saturating_sub(began.elapsed())).await;
                }
                Err(Failed { why, is_refused }) => {
                    self.shared.failed(&self.watched, &why, is_refused);
                    self.index = 0;
                    sleep(pause.take().mul_f64(0.5 + fastrand::f64() / 2.0)).await;
                }
            }
        }
    }

    /// Asks once, and takes the answer.
    async fn query(&mut self) -> Result<(), Failed> {
        let source = Arc::clone(&self.shared.source);
        let queries = Arc::clone(&self.shared.queries);
        // The semaphore is never closed.
        let _place = queries.acquire().await.map_err(|error| error.to_string())?;
        let mut client = match self.client.take().filter(Client::is_open) {
            Some(client) => client,
            None => {
                let client = Client::connect(&self.shared.lookups, &source).await?;
                if let Some(state) = self.shared.status.known().sources.get_mut(NAME) {
                    state.connections += 1;
                }
                client
            }
        };
        let wait = match self.lost {
            Some(_) => LOST / 4,
            None => (WAIT / self.crowd).max(WAIT_MIN).mul_f64(0.75 + fastrand::f64() / 2.0),
        };
        let target = self.target(&source, wait);
        let answer = client.get(&target, wait + wait / 16 + ANSWER).await?;
        self.client = Some(client);
        self.take(&source, &answer)
    }

    fn target(&self, source: &ConsulSource, wait: Duration) -> String {
        let mut target = match &self.watched {
            Watched::Catalog => "/v1/catalog/services?".to_owned(),
            Watched::Service(name) => format!("/v1/health/service/{}?", escaped(name)),
        };
        if let Some(datacenter) = &source.datacenter {
            target.push_str(&format!("dc={}&", escaped(datacenter)));
        }
        if self.index > 0 {
            target.push_str(&format!("index={}&wait={}ms&", self.index, wait.as_millis()));
        }
        target.pop();
        target
    }

    fn take(&mut self, source: &ConsulSource, answer: &Answer) -> Result<(), Failed> {
        let refused = |why: String| Failed { why, is_refused: true };
        if answer.status != 200 {
            let text = String::from_utf8_lossy(&answer.body);
            let text: String = text.chars().filter(|c| !c.is_control()).take(200).collect();
            return Err(refused(format!("status {}: {text}", answer.status)));
        }
        let next = state::next_index(self.index, answer.index);
        let went_back = answer.index.is_some_and(|told| told < self.seen);
        let change = match &self.watched {
            Watched::Catalog => Change::Names(state::names(&answer.body).map_err(refused)?),
            Watched::Service(name) => {
                let found = state::endpoints(&answer.body, source.only_passing).map_err(refused)?;
                if found.endpoints.is_empty() && answer.is_filtered {
                    return Err(refused("the token may not read it".to_owned()));
                }
                if found.left_out != self.told {
                    self.told = found.left_out;
                    if let Some(why) = &self.told {
                        tracing::warn!(service = name, "an instance in Consul is left out: {why}");
                    }
                }
                let admin = source.admin;
                let is_usable = |endpoint: &Endpoint| match (&endpoint.address, admin) {
                    (Address::Tcp(address), Some(admin)) => !reaches(*address, admin),
                    _ => true,
                };
                let usable = found.endpoints.into_iter().filter(is_usable).collect();
                Change::Endpoints(name.clone(), usable)
            }
        };
        if self.index > 0 && is_empty(&change) && self.had_something() {
            // An answer to a query that has waited does not tell whether the token may read it.
            self.index = 0;
            return Ok(());
        }
        self.index = next;
        // An index of 0, or none, tells nothing about the data.
        if let Some(told) = answer.index.filter(|&told| told > 0) {
            self.seen = told;
        }
        if self.is_lost(&change, went_back) {
            return Ok(());
        }
        self.lost = None;
        let is_change = self.known.as_ref() != Some(&change);
        self.shared.used(is_change);
        if is_change {
            self.known = Some(change.clone());
            self.shared.sender.send(change).ok();
        }
        Ok(())
    }

    fn had_something(&self) -> bool {
        self.known.as_ref().is_some_and(|known| !is_empty(known))
    }

    /// Whether the service is gone only because Consul has lost its data.
    fn is_lost(&mut self, change: &Change, went_back: bool) -> bool {
        if !is_empty(change) || !self.had_something() || !(went_back || self.lost.is_some()) {
            return false;
        }
        if self.lost.is_none() {
            let what = &self.watched;
            tracing::warn!(
                ?what,
                "Consul has lost its data: the index went back, and nothing is there; the last \
                 state stays in use for {LOST:?}"
            );
        }
        self.lost.get_or_insert_with(Instant::now).elapsed() < LOST
    }
}

fn is_empty(change: &Change) -> bool {
    match change {
        Change::Endpoints(_, list) => list.is_empty(),
        Change::Names(names) => names.is_empty(),
    }
}

/// The text as a part of a URL.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                escaped.push(char::from(byte));
            }
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_change_the_query() {
        assert_eq!(escaped("shop-1.a_b~"), "shop-1.a_b~");
        assert_eq!(escaped("a/b?c=d&e f\r\n"), "a%2Fb%3Fc%3Dd%26e%20f%0D%0A");
    }
}
