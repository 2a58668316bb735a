//! Applies objects of Kubernetes and their endpoints, and keeps a copy of them on the disk.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::apply::{Applied, Applier};
use super::sources::Copies;
use crate::compile::{KubernetesSource, SourcePlan};
use crate::sources::kubernetes::{Change, NAME};
use crate::sources::lookup::Lookups;
use crate::sources::{Cache, Documents, Kubernetes};
use crate::telemetry::status::Status;

/// The maximum number of refused objects that the admin interface shows.
const SHOWN_MAX: usize = 20;

/// The objects of Kubernetes.
pub struct KubernetesObjects {
    status: Status,
    kubernetes: Kubernetes,
    copies: Option<Copies>,
    first: Option<Change>,
    /// The refused objects, each with the reason.
    refused: BTreeMap<Arc<str>, String>,
}

impl KubernetesObjects {
    /// Creates a source without an API server.
    pub fn new(status: &Status, lookups: &Lookups) -> Self {
        let kubernetes = Kubernetes::new(status.clone(), lookups.clone());
        let refused = BTreeMap::new();
        Self { status: status.clone(), kubernetes, copies: None, first: None, refused }
    }

    /// Follows the API server of `plan` from now on.
    pub fn follow(&mut self, plan: &SourcePlan) {
        let source = plan.kubernetes.as_deref();
        let cache = source.zip(plan.cache.as_ref());
        let cache = cache.map(|(source, directory)| Cache::new(directory, NAME, owner(source)));
        let is_same_cache = self.copies.as_ref().map(|copies| &copies.cache) == cache.as_ref();
        if !is_same_cache {
            self.copies = cache.map(Copies::new);
        }
        if !self.kubernetes.follows(source) {
            let copy = self.copies.as_ref().and_then(|copies| read(&copies.cache));
            self.kubernetes.follow(source, copy.as_ref().map(|(copy, _)| copy));
            if let Some(state) = self.status.known().sources.get_mut(NAME) {
                state.copied = copy.map(|(_, copied)| copied);
            }
        }
    }

    /// Waits for the first objects: those of the API server, or those of the copy on the disk.
    pub async fn await_first(&mut self) {
        if self.status.known().sources.contains_key(NAME) {
            self.first = Some(self.kubernetes.changed().await);
        }
        let known = self.status.known();
        let Some(state) = known.sources.get(NAME) else { return };
        if let Some(copied) = state.copied {
            let age = Duration::from_secs(copied.elapsed().unwrap_or_default().as_secs());
            tracing::warn!(?age, "Kubernetes does not answer at the start; the copy is used");
        }
    }

    /// Takes the first objects, to apply them.
    pub fn take_first(&mut self) -> Option<Change> {
        self.first.take()
    }

    /// Waits for a change.
    pub async fn changed(&mut self) -> Change {
        self.kubernetes.changed().await
    }

    /// Applies a change. Changed endpoints replace the previous ones, and nothing else.
    pub async fn apply(&mut self, applier: &mut Applier, change: Change) -> Option<Applied> {
        if change.is_first {
            // Another API server may have been followed before.
            let told: HashSet<&Arc<str>> = change.ports.iter().map(|(port, _)| port).collect();
            let known = applier.resolutions.slices.keys();
            let gone: Vec<Arc<str>> = known.filter(|port| !told.contains(port)).cloned().collect();
            gone.iter().for_each(|port| applier.put_slices(port, Arc::default()));
        }
        for (port, endpoints) in change.ports {
            applier.put_slices(&port, endpoints);
        }
        if let (Some(copy), Some(copies)) = (change.copy, &self.copies) {
            copies.put(copy);
        }
        let documents = change.documents?;
        if !applier.loaded.asks_kubernetes() {
            return None;
        }
        let (applied, refused) = applier.apply_objects(&documents).await;
        let before = std::mem::take(&mut self.refused);
        self.refused = refused.into_iter().collect();
        let is_new = |name: &Arc<str>, why: &String| before.get(name) != Some(why);
        let new = self.refused.iter().filter(|(name, why)| is_new(name, why));
        let new: Vec<String> = new.map(|(name, why)| format!("{name}: {why}")).collect();
        for refusal in &new {
            tracing::warn!("an object is refused; the rest is applied: {refusal}");
        }
        let all = self.refused.iter().take(SHOWN_MAX);
        let all: Vec<String> = all.map(|(name, why)| format!("{name}: {why}")).collect();
        let mut known = self.status.known();
        let state = known.sources.get_mut(NAME)?;
        state.refused += new.len() as u64;
        state.refusal = all.join("\n");
        state.revision = documents.revision;
        state.documents = documents.texts.len().saturating_sub(self.refused.len());
        drop(known);
        applied
    }
}

/// The server and the part of it that is read. A copy of another one is not used.
fn owner(source: &KubernetesSource) -> String {
    let context = source.context.as_deref().unwrap_or_default();
    format!("{} {context} {}", source.name(), source.namespaces.join(" "))
}

fn read(cache: &Cache) -> Option<(Documents, std::time::SystemTime)> {
    match cache.read() {
        Ok(found) => found,
        Err(why) => {
            tracing::warn!(%why, "there is no copy of Kubernetes");
            None
        }
    }
}
