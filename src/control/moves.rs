//! Changes of the endpoints of resources. They replace the endpoints of a service, and nothing is
//! compiled again.

use std::collections::HashMap;
use std::sync::Arc;

use super::apply::Applier;
use crate::compile::{admin_endpoints, found_in_resource, found_in_slices};
use crate::model::{Change, Endpoint, Patch, Precedence, Resource};
use crate::snapshot::Snapshot;

/// The services of a snapshot by their ports in Kubernetes. Without this, each changed port would
/// look at all services.
#[derive(Default)]
pub struct PortIndex {
    version: u64,
    services: HashMap<Box<str>, Vec<usize>>,
}

impl PortIndex {
    /// The indices of the services with this port.
    fn services(&mut self, snapshot: &Snapshot, port: &str) -> Vec<usize> {
        if self.version != snapshot.version {
            self.version = snapshot.version;
            self.services.clear();
            for (index, service) in snapshot.services.iter().enumerate() {
                if let Some(slices) = &service.slices {
                    self.services.entry((*slices.name).into()).or_default().push(index);
                }
            }
        }
        self.services.get(port).cloned().unwrap_or_default()
    }
}

impl Applier {
    /// Replaces the endpoints of the services in `changes`, which differ in nothing else. Returns
    /// false and changes nothing if everything must be compiled: for a service that the files
    /// replace, for endpoints with other levels than before, and for those that may be refused.
    pub fn move_endpoints(&mut self, source: &'static str, changes: &[Change]) -> bool {
        let Some(snapshot) = self.status.known().snapshot.clone() else { return false };
        let mut found = Vec::with_capacity(changes.len());
        for change in changes {
            let Change::Set(Resource::Service(item)) = change else { return false };
            let Some(index) = snapshot.service_index(&item.value.name.value) else { return false };
            let service = &snapshot.services[index];
            let mut is_reserved = false;
            if let Some(admin) = &self.admin {
                admin_endpoints(&item.value, admin, |_, _| is_reserved = true);
            }
            if is_reserved || service.source.as_deref() != Some(source) {
                return false;
            }
            let endpoints = found_in_resource(service, &item.value, &mut self.registry);
            let Some(endpoints) = endpoints else { return false };
            found.push((index, endpoints));
        }
        let (precedence, changes) = (Precedence::UnderFiles, changes.to_vec());
        self.resources.apply(Patch { source: source.into(), precedence, changes });
        for (index, endpoints) in found {
            self.replace_endpoints(&snapshot, index, endpoints);
        }
        true
    }

    /// Replaces the endpoints of each service with this port of a service of Kubernetes. Nothing
    /// else changes.
    pub fn put_slices(&mut self, port: &Arc<str>, endpoints: Arc<[Endpoint]>) {
        let snapshot = self.status.known().snapshot.clone();
        if let Some(snapshot) = snapshot {
            for index in self.objects.ports.services(&snapshot, port) {
                let service = &snapshot.services[index];
                if let Some(slices) = &service.slices {
                    let found = found_in_slices(service, slices, &endpoints, &mut self.registry);
                    self.replace_endpoints(&snapshot, index, found);
                }
            }
        }
        match endpoints.is_empty() {
            true => _ = self.resolutions.slices.remove(port),
            false => _ = self.resolutions.slices.insert(Arc::clone(port), endpoints),
        }
    }
}
