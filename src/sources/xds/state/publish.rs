//! The changes of the model that follow from resources, and their result.

use std::collections::HashSet;

use super::super::cluster::Targets;
use super::super::endpoints::Assignment;
use super::super::kinds::{Content, Type};
use super::super::listener::{RouteSource, own_routes, owner_of};
use super::super::proto::Reason;
use super::super::secrets::Secret;
use super::{Entry, State};
use crate::model::{Change, Kind, Resource};

/// The number of endpoints for each resource that the limit allows, on average: a few clusters may
/// name the same endpoints many times.
const ENDPOINTS_EACH: usize = 10;

impl State {
    /// The changes of the model that follow. A cluster and a listener wait for everything that they
    /// need.
    pub(in super::super) fn changes(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        let moved = std::mem::take(&mut self.moved);
        self.dirty.extend(moved.into_iter().map(|name| (Type::Cluster, name)));
        for (kind, name) in std::mem::take(&mut self.dirty) {
            match kind {
                Type::Cluster => self.change_service(&name, &mut changes),
                Type::Listener => self.change_listener(&name, &mut changes),
                Type::Routes => {
                    let entry = self.entries(kind).get(&name);
                    let entry = entry.filter(|_| self.is_wanted(kind, &name));
                    let routes = match entry.map(|it| &it.content) {
                        Some(Content::Routes(routes)) => Some(routes.resource()),
                        _ => None,
                    };
                    self.change(Kind::Routes, &name, routes, &mut changes);
                }
                Type::Endpoints | Type::Secret => {}
            }
        }
        changes
    }

    /// Publishes an item, or removes it.
    fn change(&mut self, kind: Kind, name: &str, item: Option<Resource>, to: &mut Vec<Change>) {
        let key = (kind, name.to_owned());
        match item {
            Some(item) => {
                self.published.insert(key);
                to.push(Change::Set(item));
            }
            None if self.published.remove(&key) => to.push(Change::Remove(kind, name.into())),
            None => {}
        }
    }

    fn change_service(&mut self, name: &str, to: &mut Vec<Change>) {
        let key = (Type::Cluster, name.to_owned());
        if !self.entries(Type::Cluster).contains_key(name) {
            self.waiting.remove(&key);
            self.unfit.remove(&key);
            self.count(name, 0);
            return self.change(Kind::Service, name, None, to);
        }
        self.note_waiting(&key);
        let Some(Content::Cluster(cluster)) = self.usable(&key) else { return };
        let endpoints = match &cluster.targets {
            Targets::Own(_) => None,
            Targets::Eds(wanted) => self.assignment(wanted),
        };
        let number = cluster.number(endpoints);
        let max = self.limits.resources.saturating_mul(ENDPOINTS_EACH);
        let others = self.counts.1 - self.counts.0.get(name).copied().unwrap_or_default();
        if others + number > max {
            let all = others + number;
            let why = format!(
                "{all} endpoints in all clusters; max_resources allows {max}, {ENDPOINTS_EACH} \
                 for each resource"
            );
            return self.refuse_for_now(key, why);
        }
        match cluster.service(endpoints, |name| self.secret(name)) {
            Ok(service) => {
                self.note_fit(&key);
                self.count(name, number);
                self.change(Kind::Service, name, Some(Resource::Service(service)), to);
            }
            Err(why) => self.refuse_for_now(key, why),
        }
    }

    fn change_listener(&mut self, name: &str, to: &mut Vec<Change>) {
        let key = (Type::Listener, name.to_owned());
        let own = own_routes(name);
        self.note_waiting(&key);
        let (listener, routes) = match self.usable(&key) {
            Some(Content::Listener(listener)) => {
                let routes = match &listener.routes {
                    RouteSource::Own(routes) => Some(routes.resource()),
                    RouteSource::Rds(_) | RouteSource::None => None,
                };
                match listener.item(|name| self.secret(name)) {
                    Ok(item) => (Some(Resource::Listener(item)), routes),
                    Err(why) => return self.refuse_for_now(key, why),
                }
            }
            _ if self.waiting.contains(&key) => return,
            _ => (None, None),
        };
        self.note_fit(&key);
        self.change(Kind::Routes, &own, routes, to);
        self.change(Kind::Listener, name, listener, to);
    }

    fn note_waiting(&mut self, key: &(Type, String)) {
        match self.missing(key).is_some() {
            true => _ = self.waiting.insert(key.clone()),
            false => _ = self.waiting.remove(key),
        }
    }

    /// The content to publish: the latest with everything that it needs. While a resource that the
    /// latest needs has not come, this is the one before, whose endpoints and secrets may change.
    fn usable(&self, key: &(Type, String)) -> Option<&Content> {
        let is_whole = |entry: &&Entry| self.lacks(entry).is_none();
        let latest = Some(self.entries(key.0).get(&key.1)?);
        let before = || self.undo.get(key)?.as_ref();
        let found = latest.filter(is_whole).or_else(|| before().filter(is_whole));
        found.map(|entry| &entry.content)
    }

    /// Refuses a resource because of one that it needs.
    fn refuse_for_now(&mut self, key: (Type, String), why: Reason) {
        self.refuse(key.0, key.1.clone(), why);
        self.unfit.insert(key);
    }

    /// Forgets that a resource was refused because of one that it needs.
    fn note_fit(&mut self, key: &(Type, String)) {
        if self.unfit.remove(key) {
            self.refused[key.0.index()].remove(&key.1);
        }
    }

    fn count(&mut self, name: &str, number: usize) {
        let (counts, all) = &mut self.counts;
        *all += number;
        *all -= match number {
            0 => counts.remove(name),
            number => counts.insert(name.to_owned(), number),
        }
        .unwrap_or_default();
    }

    fn assignment(&self, name: &str) -> Option<&Assignment> {
        match self.entries(Type::Endpoints).get(name).map(|entry| &entry.content) {
            Some(Content::Endpoints(assignment)) => Some(assignment),
            _ => None,
        }
    }

    fn secret(&self, name: &str) -> Option<&Secret> {
        match self.entries(Type::Secret).get(name).map(|entry| &entry.content) {
            Some(Content::Secret(secret)) => Some(secret),
            _ => None,
        }
    }

    /// Notes the result of the changes: the services that are refused, each with the reason. Their
    /// resources get back their previous content.
    pub(in super::super) fn settle(&mut self, refused: &[(Kind, Box<str>, Reason)]) {
        for (kind, name, why) in refused {
            let Some(key) = self.culprit(*kind, name) else { continue };
            self.refuse(key.0, key.1.clone(), why.clone());
            if let Some(before) = self.undo.remove(&key) {
                self.note_published(*kind, name, before.is_some());
                if before.is_none() && key.0 == Type::Cluster {
                    self.count(&key.1, 0);
                }
                if key.0 == Type::Listener {
                    let content = before.as_ref().map(|entry| &entry.content);
                    let has_routes = matches!(content, Some(Content::Listener(listener))
                        if matches!(listener.routes, RouteSource::Own(_)));
                    let is_there = before.is_some();
                    self.note_published(Kind::Listener, &key.1, is_there);
                    self.note_published(Kind::Routes, &own_routes(&key.1), has_routes);
                }
                let dropped: Vec<_> =
                    before.iter().flat_map(|entry| entry.content.needs()).map(owned).collect();
                self.set(key.0, key.1, before);
                dropped.into_iter().for_each(|key| self.restore_needed(key));
            }
        }
        if !refused.is_empty() {
            self.follow(Type::Cluster);
            self.follow(Type::Listener);
            // The model has the previous content already.
            self.dirty.clear();
            self.moved.clear();
        }
        // A cluster that waits is not applied yet: it may still have to be taken back.
        let before = self.waiting.iter().filter_map(|key| self.undo.get(key)?.as_ref());
        let kept: HashSet<(Type, String)> =
            before.flat_map(|entry| entry.content.needs()).map(owned).collect();
        let (entries, waiting) = (&self.entries, &self.waiting);
        self.undo.retain(|key, _| match key.0 {
            Type::Cluster | Type::Listener => waiting.contains(key),
            Type::Endpoints | Type::Routes | Type::Secret => {
                kept.contains(key) && !entries[key.0.index()].contains_key(&key.1)
            }
        });
    }

    /// Endpoints that were dropped with a cluster come back with it, and so on.
    fn restore_needed(&mut self, key: (Type, String)) {
        if !self.entries(key.0).contains_key(&key.1)
            && let Some(Some(before)) = self.undo.remove(&key)
        {
            self.set(key.0, key.1, Some(before));
        }
    }

    fn note_published(&mut self, kind: Kind, name: &str, is_published: bool) {
        let key = (kind, name.to_owned());
        if is_published {
            self.published.insert(key);
        } else {
            self.published.remove(&key);
        }
    }

    /// The resource because of which an item is refused.
    fn culprit(&self, kind: Kind, name: &str) -> Option<(Type, String)> {
        let key = match kind {
            Kind::Service => (Type::Cluster, name.to_owned()),
            Kind::Listener => (Type::Listener, name.to_owned()),
            Kind::Routes => match owner_of(name) {
                Some(listener) => (Type::Listener, listener.to_owned()),
                None => (Type::Routes, name.to_owned()),
            },
            Kind::TokenProvider | Kind::Policy => return None,
        };
        if self.undo.contains_key(&key) {
            return Some(key);
        }
        // Only the endpoints of a cluster or a secret may have changed.
        let entry = self.entries(key.0).get(&key.1);
        let needs = entry.into_iter().flat_map(|entry| entry.content.needs());
        let needs = needs.filter(|(kind, _)| *kind != Type::Routes).map(owned);
        Some(needs.into_iter().find(|needed| self.undo.contains_key(needed)).unwrap_or(key))
    }
}

fn owned((kind, name): (Type, &str)) -> (Type, String) {
    (kind, name.to_owned())
}
