//! Fetches the public keys of token issuers repeatedly, on the control thread.

use std::collections::HashMap;
use std::io::Read as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::fetch::{self, Fetcher};
use super::lookup::Lookups;
use crate::compile::KeySource;
use crate::error::plain;
use crate::jwt::{KeySet, KeysWanted};
use crate::telemetry::status::Status;

/// The time limit for a whole fetch.
pub const FETCH_TIMEOUT: Duration = Duration::from_secs(10);

/// The maximum size of a key set.
pub const KEY_SET_BYTES_MAX: u64 = 1024 * 1024;

/// The wait before a retry after a failed fetch. Also the shortest interval of fetches that a token
/// with an unknown key causes.
pub const RETRY_AFTER: Duration = Duration::from_secs(10);

/// The interval of checks whether a fetch is due.
const TICK: Duration = Duration::from_millis(250);

/// The URL of a key set, and its new keys.
type Change = (String, Arc<KeySet>);

/// Fetches the key sets of issuers repeatedly, and reports changes.
pub struct KeySets {
    status: Status,
    fetcher: Fetcher,
    followed: HashMap<String, (KeySource, JoinHandle<()>)>,
    sender: mpsc::UnboundedSender<Change>,
    changes: mpsc::UnboundedReceiver<Change>,
}

impl KeySets {
    /// Creates an empty set of sources.
    pub fn new(status: Status, lookups: Lookups) -> Self {
        let (sender, changes) = mpsc::unbounded_channel();
        let fetcher = Fetcher::new(lookups);
        Self { status, fetcher, followed: HashMap::new(), sender, changes }
    }

    /// Fetches exactly these sources from now on. `wanted` returns, for a URL, the signal that a
    /// token with an unknown key was received.
    pub fn follow(&mut self, sources: &[KeySource], mut wanted: impl FnMut(&str) -> KeysWanted) {
        self.followed.retain(|_, (source, task)| {
            let kept = sources.contains(source);
            if !kept {
                task.abort();
            }
            kept
        });
        for source in sources {
            if !self.followed.contains_key(&source.url) {
                let (sender, status) = (self.sender.clone(), self.status.clone());
                let fetcher = self.fetcher.clone();
                let task = follow(source.clone(), fetcher, wanted(&source.url), sender, status);
                let entry = (source.clone(), tokio::spawn(task));
                self.followed.insert(source.url.clone(), entry);
            }
        }
    }

    /// Returns the key sets that arrive within `patience`. Later ones are reported by
    /// [`KeySets::changed`].
    pub async fn first(&mut self, patience: Duration) -> HashMap<String, Arc<KeySet>> {
        let mut found = HashMap::new();
        let deadline = tokio::time::Instant::now() + patience;
        while found.len() < self.followed.len() {
            match tokio::time::timeout_at(deadline, self.changes.recv()).await {
                Ok(Some((url, keys))) => found.insert(url, keys),
                _ => break,
            };
        }
        found
    }

    /// Waits for the next changed key set.
    pub async fn changed(&mut self) -> Change {
        match self.changes.recv().await {
            Some(change) => change,
            None => std::future::pending().await,
        }
    }
}

impl Drop for KeySets {
    fn drop(&mut self) {
        self.followed.values().for_each(|(_, task)| task.abort());
    }
}

/// Fetches a key set repeatedly, and reports changes. After a failed fetch, the previous keys stay
/// in use.
async fn follow(
    source: KeySource,
    fetcher: Fetcher,
    wanted: KeysWanted,
    changes: mpsc::UnboundedSender<Change>,
    status: Status,
) {
    let mut known: Vec<u8> = Vec::new();
    loop {
        let url = source.url.as_str();
        let (asked, fetcher) = (source.clone(), fetcher.clone());
        let fetched = tokio::task::spawn_blocking(move || fetch(&asked, &fetcher)).await;
        let parsed = fetched.unwrap_or_else(|error| Err(error.to_string())).and_then(|bytes| {
            let keys = KeySet::parse(&bytes).map_err(|error| error.to_string())?;
            Ok((bytes, keys))
        });
        let began = Instant::now();
        let pause = match parsed {
            Ok((bytes, keys)) => {
                status.known().key_fetches.0 += 1;
                if bytes != known {
                    tracing::info!(url, keys = keys.len(), "new token keys were fetched");
                    known = bytes;
                    changes.send((source.url.clone(), Arc::new(keys))).ok();
                }
                source.refresh
            }
            Err(error) => {
                status.known().key_fetches.1 += 1;
                let has_previous_keys = !known.is_empty();
                let error = plain(&error);
                tracing::warn!(
                    url, %error, has_previous_keys,
                    "cannot fetch the token keys, will retry; without previous keys no token is \
                     accepted"
                );
                RETRY_AFTER.min(source.refresh)
            }
        };
        while began.elapsed() < pause {
            tokio::time::sleep(TICK.min(pause)).await;
            if began.elapsed() >= RETRY_AFTER.min(pause) && wanted.take() {
                break;
            }
        }
    }
}

/// Fetches the key set from its URL. Blocks the thread.
fn fetch(source: &KeySource, fetcher: &Fetcher) -> Result<Vec<u8>, String> {
    let tls = fetch::tls(&source.url, source.ca_pem.as_deref())?;
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(FETCH_TIMEOUT))
        .user_agent(concat!("ringway/", env!("CARGO_PKG_VERSION")))
        .tls_config(tls)
        .build();
    let agent = fetcher.agent(config);
    let mut answer = agent.get(&source.url).call().map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    let mut body = answer.body_mut().as_reader().take(KEY_SET_BYTES_MAX + 1);
    body.read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    match bytes.len() as u64 {
        ..=KEY_SET_BYTES_MAX => Ok(bytes),
        _ => Err(format!("larger than {KEY_SET_BYTES_MAX} bytes")),
    }
}
