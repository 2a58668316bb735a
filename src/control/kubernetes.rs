//! Applies objects of Kubernetes and their endpoints, and keeps a copy of them on the disk.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
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
    /// The source whose copies are written, and the directory.
    place: Option<(KubernetesSource, PathBuf)>,
    first: Option<Change>,
    /// The refused objects, each with the reason.
    refused: BTreeMap<Arc<str>, String>,
}

impl KubernetesObjects {
    /// Creates a source without an API server.
    pub fn new(status: &Status, lookups: &Lookups) -> Self {
        let kubernetes = Kubernetes::new(status.clone(), lookups.clone());
        let (refused, status) = (BTreeMap::new(), status.clone());
        Self { status, kubernetes, copies: None, place: None, first: None, refused }
    }

    /// Follows the API server of `plan` from now on.
    pub fn follow(&mut self, plan: &SourcePlan) {
        let source = plan.kubernetes.as_deref();
        let place = source.cloned().zip(plan.cache.clone());
        let is_new = !self.kubernetes.follows(source);
        if place != self.place {
            let owner = place.as_ref().map(|(source, place)| (owner(source), place));
            let cache = owner.map(|(owner, place)| Cache::new(place, NAME, owner));
            if self.copies.as_ref().map(|copies| &copies.cache) != cache.as_ref() {
                self.copies = cache.map(Copies::new);
                self.kubernetes.tell_copies(self.copies.is_some());
            }
            self.place = place;
        }
        if is_new {
            let wanted = source.filter(|source| !self.kubernetes.is_same_server(source));
            let copies = wanted.and(self.copies.as_ref());
            let copy = copies.and_then(|copies| read(&copies.cache));
            let texts = copy.as_ref().map(|(copy, _)| copy);
            if self.kubernetes.follow(source, texts)
                && let Some(state) = self.status.known().sources.get_mut(NAME)
            {
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
        if let (Some(mut copy), Some(copies)) = (change.copy, &self.copies) {
            // A text that is refused is not kept, but the one that is in use.
            copy.texts.extend(applier.objects.used.texts.iter().cloned());
            copies.put(Arc::new(copy));
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
    let (name, namespaces) = (source.name(), source.namespaces.join(" "));
    let secrets = if source.secrets { " with secrets" } else { "" };
    format!("{name} {context} {} {namespaces}{secrets}", Kubernetes::server(source))
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
