//! Applies services in Consul and their endpoints, and keeps a copy of them on the disk.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::apply::{Applied, Applier};
use super::sources::Copies;
use crate::compile::SourcePlan;
use crate::model::{Change as Patch, Endpoint, Endpoints, Item, Kind, Origin, Resource};
use crate::model::{ResourceId, Service};
use crate::sources::consul::{Change, Copy, NAME};
use crate::sources::lookup::Lookups;
use crate::sources::{Cache, Consul};
use crate::telemetry::status::Status;

/// The services in Consul.
pub struct ConsulServices {
    status: Status,
    consul: Consul,
    copies: Option<Copies>,
    /// The last endpoints of each service.
    known: HashMap<String, Arc<[Endpoint]>>,
    /// Changes that arrived before the first configuration.
    early: VecDeque<Change>,
}

impl ConsulServices {
    /// Creates a source without an agent.
    pub fn new(status: &Status, lookups: &Lookups) -> Self {
        let consul = Consul::new(status.clone(), lookups.clone());
        let status = status.clone();
        Self { status, consul, copies: None, known: HashMap::new(), early: VecDeque::new() }
    }

    /// Follows exactly the services of `plan` from now on.
    pub fn follow(&mut self, plan: &SourcePlan) {
        let source = plan.consul.as_deref();
        self.consul.follow(source);
        let cache = source.zip(plan.cache.as_ref()).map(|(source, directory)| {
            let (host, port) = &source.server;
            let datacenter = source.datacenter.as_deref().unwrap_or_default();
            Cache::new(directory, NAME, format!("{host}:{port} {datacenter}"))
        });
        if self.copies.as_ref().map(|copies| &copies.cache) != cache.as_ref() {
            self.copies = cache.map(Copies::new);
        }
        let names: HashSet<&String> = source.iter().flat_map(|source| &source.names).collect();
        // Names of the catalog may come later than the copy of their endpoints.
        let keeps_all = source.is_some_and(|source| source.all);
        self.known.retain(|name, _| keeps_all || names.contains(name));
    }

    /// Waits for the endpoints of all services. After `patience`, the copy on the disk stands for
    /// those that are missing.
    pub async fn await_first(&mut self, patience: Duration) {
        let deadline = Instant::now() + patience;
        let mut answered = 0;
        while answered < self.consul.followed() {
            let Ok(change) = timeout_at(deadline, self.consul.changed()).await else {
                return self.use_copy();
            };
            answered += 1;
            self.note(&change);
            if let Change::Names(_) = change {
                self.early.push_back(change);
            }
        }
    }

    fn use_copy(&mut self) {
        match self.copies.as_ref().map(|copies| copies.cache.read()) {
            Some(Ok(Some((documents, copied)))) => {
                let age = Duration::from_secs(copied.elapsed().unwrap_or_default().as_secs());
                let Copy(services) = Copy::read(&documents);
                let services_known = services.len();
                tracing::warn!(
                    services = services_known,
                    ?age,
                    "no answer of Consul at the start; the copy on the disk is used"
                );
                let mut names: Vec<String> = services.keys().cloned().collect();
                names.sort();
                for (name, endpoints) in services {
                    self.known.entry(name).or_insert(endpoints);
                }
                if !self.early.iter().any(|change| matches!(change, Change::Names(_))) {
                    self.early.push_back(Change::Names(names));
                }
                if let Some(state) = self.status.known().sources.get_mut(NAME) {
                    state.copied = Some(copied);
                    state.documents = services_known;
                }
            }
            Some(Err(why)) => tracing::warn!(%why, "no answer of Consul at the start, and no copy"),
            Some(Ok(None)) | None => {
                tracing::warn!("no answer of Consul at the start; its services have no endpoints");
            }
        }
    }

    /// The last endpoints of each service.
    pub fn known(&self) -> HashMap<String, Arc<[Endpoint]>> {
        self.known.clone()
    }

    /// Waits for a change.
    pub async fn changed(&mut self) -> Change {
        if let Some(change) = self.early.pop_front() {
            return change;
        }
        let change = self.consul.changed().await;
        self.note(&change);
        change
    }

    fn note(&mut self, change: &Change) {
        let (name, endpoints) = match change {
            Change::Endpoints(name, endpoints) => (name, endpoints),
            Change::Names(names) => {
                let names: HashSet<&String> = names.iter().collect();
                return self.known.retain(|name, _| names.contains(name));
            }
        };
        self.known.insert(name.clone(), Arc::clone(endpoints));
        if let Some(copies) = &self.copies {
            copies.put(Arc::new(Copy(self.known.clone()).documents()));
        }
        if let Some(state) = self.status.known().sources.get_mut(NAME) {
            state.documents = self.known.len();
        }
    }

    /// Applies a change. Changed endpoints replace the previous ones, and nothing else.
    pub async fn apply(applier: &mut Applier, change: Change) -> Option<Applied> {
        match change {
            Change::Endpoints(name, endpoints) => {
                applier.put_endpoints(&name, endpoints);
                None
            }
            Change::Names(names) => Self::apply_names(applier, &names).await,
        }
    }

    /// Applies the names of all services. A service of the files comes first.
    async fn apply_names(applier: &mut Applier, names: &[String]) -> Option<Applied> {
        let loaded = Arc::clone(&applier.loaded);
        if !loaded.wants_all_of_consul() {
            return None;
        }
        let model = loaded.model();
        let of_files: HashSet<&str> =
            model.services.iter().map(|service| &*service.value.name.value).collect();
        let others = names.iter().filter(|name| !of_files.contains(name.as_str()));
        let changes: Vec<Patch> = others.map(|name| Patch::Set(resource(name))).collect();
        loaded.release();
        let (applied, _) = applier.apply_changes(NAME, changes, true).await;
        applied
    }
}

/// The service `name`, whose endpoints come from Consul.
fn resource(name: &str) -> Resource {
    let id = ResourceId {
        source: NAME.into(),
        kind: Kind::Service,
        name: name.into(),
        version: Box::default(),
    };
    let origin = Origin::Resource(Arc::new(id));
    let item = Item::new(name.to_owned(), origin.clone());
    let service = Service {
        name: item.clone(),
        endpoints: Some(Endpoints::Consul(item)),
        ..Service::default()
    };
    Resource::Service(Arc::new(Item::new(service, origin)))
}
