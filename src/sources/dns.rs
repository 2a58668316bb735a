//! Finds data that is not in files: resolves service names on the control thread and follows their
//! changes, and fetches token keys (`keys`).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::telemetry::status::Status;

/// The shortest lifetime of a DNS answer, whatever its TTL is.
pub const TTL_MIN: Duration = Duration::from_secs(1);

/// The longest lifetime of a DNS answer.
pub const TTL_MAX: Duration = Duration::from_secs(300);

/// Delay before a retry after a failed lookup. Known addresses stay in use.
pub const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Keeps the addresses of names up to date.
pub struct Names {
    status: Status,
    followed: HashMap<String, JoinHandle<()>>,
    sender: mpsc::UnboundedSender<(String, Vec<SocketAddr>)>,
    changes: mpsc::UnboundedReceiver<(String, Vec<SocketAddr>)>,
}

impl Names {
    /// Creates an empty set.
    pub fn new(status: Status) -> Self {
        let (sender, changes) = mpsc::unbounded_channel();
        Self { status, followed: HashMap::new(), sender, changes }
    }

    /// Resolves exactly these names (`HOST:PORT`) from now on.
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

    /// Returns the addresses found within `patience`; other names follow later.
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

    /// Waits for the next name with changed addresses.
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

/// Resolves a name after each TTL and reports changes.
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
        Err(error) => {
            tracing::error!(%name, %error, "cannot set up DNS lookups; this name is not resolved");
            return;
        }
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
                let previous_addresses = known.as_ref().map_or(0, Vec::len);
                tracing::warn!(%name, %error, previous_addresses, "DNS lookup failed");
                RETRY_AFTER
            }
        };
        tokio::time::sleep(again).await;
    }
}
