//! Endpoints of services in Consul. Each service, and the list of all services, is a blocking query
//! to an agent. While the agent is away, the last endpoints stay in use.

mod follower;
mod http;
mod state;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

use self::follower::{Follower, Shared, Watched};
use super::documents::Documents;
use super::lookup::Lookups;
use crate::compile::ConsulSource;
use crate::model::Endpoint;
use crate::net::Address;
use crate::telemetry::status::{SourceState, Status};

/// The name of this kind of source.
pub const NAME: &str = "consul";

/// The maximum number of queries that wait at the same time. Consul's default limit of connections
/// for each client is 200.
const QUERIES_MAX: usize = 100;

/// A change in Consul.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// The endpoints of a service.
    Endpoints(String, Arc<[Endpoint]>),
    /// The names of all services.
    Names(Vec<String>),
}

/// Follows services in Consul on the control thread.
pub struct Consul {
    status: Status,
    lookups: Lookups,
    running: Option<Running>,
    sender: mpsc::UnboundedSender<Change>,
    changes: mpsc::UnboundedReceiver<Change>,
}

/// The agent that is asked, and the task of each query.
struct Running {
    source: ConsulSource,
    shared: Shared,
    tasks: HashMap<Watched, JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.tasks.values().for_each(JoinHandle::abort);
    }
}

impl Consul {
    /// Creates a source without an agent.
    pub fn new(status: Status, lookups: Lookups) -> Self {
        let (sender, changes) = mpsc::unbounded_channel();
        Self { status, lookups, running: None, sender, changes }
    }

    /// Follows exactly the services of `source` from now on.
    pub fn follow(&mut self, source: Option<&ConsulSource>) {
        let Some(source) = source else {
            self.running = None;
            self.status.known().sources.remove(NAME);
            return;
        };
        if self.running.as_ref().is_none_or(|running| !running.source.is_same_server(source)) {
            self.running = None;
            // The answers of another server have nothing to do with this one.
            (self.sender, self.changes) = mpsc::unbounded_channel();
            let (host, port) = &source.server;
            let state = SourceState {
                name: NAME,
                member: format!("{host}:{port}"),
                ..SourceState::default()
            };
            self.status.known().sources.insert(NAME, state);
            let shared = Shared {
                status: self.status.clone(),
                lookups: self.lookups.clone(),
                source: Arc::new(source.clone()),
                sender: self.sender.clone(),
                queries: Arc::new(Semaphore::new(QUERIES_MAX)),
                failing: Arc::default(),
            };
            let tasks = HashMap::new();
            self.running = Some(Running { source: source.clone(), shared, tasks });
        }
        let Some(running) = &mut self.running else { return };
        let services = source.names.iter().cloned().map(Watched::Service);
        let wanted: Vec<Watched> =
            source.all.then_some(Watched::Catalog).into_iter().chain(services).collect();
        let Running { shared, tasks, .. } = running;
        tasks.retain(|watched, task| {
            let kept = wanted.contains(watched);
            if !kept {
                task.abort();
                shared.forget(watched);
            }
            kept
        });
        let crowd = wanted.len().div_ceil(QUERIES_MAX).max(1) as u32;
        for watched in wanted {
            let begin = || {
                let follower = Follower::new(shared.clone(), watched.clone(), crowd);
                tokio::spawn(follower.run())
            };
            tasks.entry(watched.clone()).or_insert_with(begin);
        }
        if let Some(state) = self.status.known().sources.get_mut(NAME) {
            state.keys = if source.all { "all".to_owned() } else { source.names.join(" ") };
        }
    }

    /// The number of services that are followed.
    pub fn followed(&self) -> usize {
        self.running.as_ref().map_or(0, |running| running.tasks.len())
    }

    /// Waits for a change.
    pub async fn changed(&mut self) -> Change {
        match self.changes.recv().await {
            Some(change) => change,
            None => std::future::pending().await,
        }
    }
}

/// The answers of Consul, for the copy on the disk.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Copy(pub HashMap<String, Arc<[Endpoint]>>);

impl Copy {
    /// The copy as documents: for each service, a list of addresses and weights.
    pub fn documents(&self) -> Documents {
        let text = |(name, endpoints): (&String, &Arc<[Endpoint]>)| {
            let pair = |endpoint: &Endpoint| json!([endpoint.address.to_string(), endpoint.weight]);
            let list: Vec<Value> = endpoints.iter().map(pair).collect();
            (name.as_str().into(), Value::from(list).to_string().into())
        };
        let mut texts: Vec<(Arc<str>, Arc<str>)> = self.0.iter().map(text).collect();
        texts.sort();
        Documents { revision: 1, texts, fault: None }
    }

    /// Reads a copy. Whatever is no endpoint is left out.
    pub fn read(documents: &Documents) -> Self {
        let endpoint = |value: &Value| {
            let address = value.get(0)?.as_str()?.parse().ok()?;
            let weight = u32::try_from(value.get(1)?.as_u64()?).ok()?;
            Some(Endpoint { address: Address::Tcp(address), weight, zone: None, priority: 0 })
        };
        let service = |(name, text): &(Arc<str>, Arc<str>)| {
            let list: Vec<Value> = serde_json::from_str(text).ok()?;
            Some((name.to_string(), list.iter().filter_map(endpoint).collect()))
        };
        Self(documents.texts.iter().filter_map(service).collect())
    }
}

/// The queries that fail now, each with the reason.
type Failing = Arc<Mutex<HashMap<Watched, String>>>;

fn lock(failing: &Failing) -> std::sync::MutexGuard<'_, HashMap<Watched, String>> {
    failing.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_read_as_it_was_written() {
        let endpoint = |port, weight| Endpoint {
            address: Address::Tcp(([10, 0, 0, 1], port).into()),
            weight,
            zone: None,
            priority: 0,
        };
        let services = [("b", vec![endpoint(1, 5), endpoint(2, 1)]), ("a", Vec::new())];
        let copy = Copy(services.map(|(name, list)| (name.to_owned(), list.into())).into());
        let documents = copy.documents();
        assert_eq!(&*documents.texts[0].0, "a");
        assert_eq!(Copy::read(&documents), copy);
        let damaged = Documents { texts: vec![("a".into(), "{}".into())], ..Documents::default() };
        assert_eq!(Copy::read(&damaged), Copy::default());
    }
}
