//! What is not in files: services that are found by name, resolved on the control thread and
//! followed as they change, and the public keys of issuers of tokens (`keys`).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::telemetry::status::Status;

/// The shortest time for which an answer is believed, whatever its TTL says.
pub const TTL_MIN: Duration = Duration::from_secs(1);

/// The longest time for which an answer is believed.
pub const TTL_MAX: Duration = Duration::from_secs(300);

/// How long after a failed lookup it is tried again. The addresses known before stay in use.
pub const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Follows the addresses of names.
pub struct Names {
    status: Status,
    followed: HashMap<String, JoinHandle<()>>,
    sender: mpsc::UnboundedSender<(String, Vec<SocketAddr>)>,
    changes: mpsc::UnboundedReceiver<(String, Vec<SocketAddr>)>,
}

impl Names {
    /// Follows nothing yet.
    pub fn new(status: Status) -> Self {
        let (sender, changes) = mpsc::unbounded_channel();
        Self { status, followed: HashMap::new(), sender, changes }
    }

    /// Follows exactly these names, given as `HOST:PORT`.
    pub fn follow(&mut self, names: &[String]) {
        self.followed.retain(|name, task| {
            let kept = names.contains(name);
            if !kept {
                task.abort();
            }
            kept
        });
        for name in names {
            if !self.followed.contains_key(name) {
                let task = follow(name.clone(), self.sender.clone(), self.status.clone());
                self.followed.insert(name.clone(), tokio::spawn(task));
            }
        }
    }

    /// What is found within `patience`; names without an answer by then come later.
    pub async fn first(&mut self, patience: Duration) -> HashMap<String, Vec<SocketAddr>> {
        let mut found = HashMap::new();
        let deadline = tokio::time::Instant::now() + patience;
        while found.len() < self.followed.len() {
            match tokio::time::timeout_at(deadline, self.changes.recv()).await {
                Ok(Some((name, addresses))) => found.insert(name, addresses),
                _ => break,
            };
        }
        found
    }

    /// The next name whose addresses have changed.
    pub async fn changed(&mut self) -> (String, Vec<SocketAddr>) {
        match self.changes.recv().await {
            Some(change) => change,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        self.followed.values().for_each(JoinHandle::abort);
    }
}

/// Looks a name up for ever, as often as its TTL says, and reports what is new.
async fn follow(
    name: String,
    changes: mpsc::UnboundedSender<(String, Vec<SocketAddr>)>,
    status: Status,
) {
    let Some((host, port)) = name.rsplit_once(':') else { return };
    let Ok(port) = port.parse() else { return };
    let host = host.trim_matches(['[', ']']);
    if let Ok(ip) = host.parse() {
        changes.send((name.clone(), vec![SocketAddr::new(ip, port)])).ok();
        return;
    }
    let resolver = match TokioResolver::builder_tokio().and_then(|builder| builder.build()) {
        Ok(resolver) => resolver,
        Err(error) => return tracing::error!(%error, "no resolver: names are not looked up"),
    };
    let mut known: Option<Vec<SocketAddr>> = None;
    loop {
        let again = match resolver.lookup_ip(host).await {
            Ok(answer) => {
                status.known().lookups.0 += 1;
                let mut addresses: Vec<_> =
                    answer.iter().map(|ip| SocketAddr::new(ip, port)).collect();
                addresses.sort();
                addresses.dedup();
                if known.as_ref() != Some(&addresses) {
                    known = Some(addresses.clone());
                    changes.send((name.clone(), addresses)).ok();
                }
                let ttl = answer.valid_until().saturating_duration_since(Instant::now());
                ttl.clamp(TTL_MIN, TTL_MAX)
            }
            Err(error) => {
                status.known().lookups.1 += 1;
                let kept = known.as_ref().map_or(0, Vec::len);
                tracing::warn!(%name, %error, kept, "lookup failed; known addresses stay in use");
                RETRY_AFTER
            }
        };
        tokio::time::sleep(again).await;
    }
}
