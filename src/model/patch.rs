//! Resources of sources other than files, and their merge with the model of the files.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use super::{Fault, Files, Item, Items, Listener, Model, Origin, ResourceId};
use super::{Policy, Routes, Service, TokenProvider};
use crate::net::Bind;

/// The kind of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A listener.
    Listener,
    /// The routes of a host.
    Routes,
    /// A service.
    Service,
    /// A token issuer.
    TokenProvider,
    /// An authorization policy.
    Policy,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Listener => "listener",
            Self::Routes => "routes of",
            Self::Service => "service",
            Self::TokenProvider => "token provider",
            Self::Policy => "policy",
        })
    }
}

/// A resource, always complete: a source never sends only its changed parts. The origin of the item
/// has the name of the resource.
#[derive(Clone, Debug)]
pub enum Resource {
    /// A listener.
    Listener(Arc<Item<Listener>>),
    /// The routes of a host.
    Routes(Arc<Item<Routes>>),
    /// The routes of several hosts, which are refused together.
    Hosts(Arc<ResourceId>, Vec<Arc<Item<Routes>>>),
    /// A service.
    Service(Arc<Item<Service>>),
    /// A token issuer.
    TokenProvider(Arc<Item<TokenProvider>>),
    /// An authorization policy.
    Policy(Arc<Item<Policy>>),
}

impl Resource {
    /// Equal for clones of the same resource, and different for all others.
    fn identity(&self) -> *const () {
        match self {
            Self::Listener(item) => Arc::as_ptr(item).cast(),
            Self::Routes(item) => Arc::as_ptr(item).cast(),
            Self::Hosts(id, _) => Arc::as_ptr(id).cast(),
            Self::Service(item) => Arc::as_ptr(item).cast(),
            Self::TokenProvider(item) => Arc::as_ptr(item).cast(),
            Self::Policy(item) => Arc::as_ptr(item).cast(),
        }
    }

    /// Whether this cannot conflict with more than `old`, which it replaces.
    fn takes_no_more(&self, old: &Self) -> bool {
        match (self, old) {
            (Self::Listener(new), Self::Listener(old)) => {
                let has =
                    |bind: &Item<Bind>| old.value.binds.iter().any(|it| it.value == bind.value);
                new.value.binds.iter().all(has)
            }
            _ => true,
        }
    }

    /// The kind, and the name in the source.
    fn key(&self) -> (Kind, Box<str>) {
        let (kind, origin) = match self {
            Self::Listener(item) => (Kind::Listener, &item.origin),
            Self::Routes(item) => (Kind::Routes, &item.origin),
            Self::Hosts(id, _) => return (Kind::Routes, id.name.clone()),
            Self::Service(item) => (Kind::Service, &item.origin),
            Self::TokenProvider(item) => (Kind::TokenProvider, &item.origin),
            Self::Policy(item) => (Kind::Policy, &item.origin),
        };
        (kind, origin.resource().map_or_else(Box::default, |id| id.name.clone()))
    }
}

/// A change to one resource of a source.
#[derive(Clone, Debug)]
pub enum Change {
    /// Add the resource, or replace the resource of the same kind and name.
    Set(Resource),
    /// Remove the resource.
    Remove(Kind, Box<str>),
}

impl Change {
    /// The kind and the name in the source.
    pub fn key(&self) -> (Kind, Box<str>) {
        match self {
            Self::Set(resource) => resource.key(),
            Self::Remove(kind, name) => (*kind, name.clone()),
        }
    }
}

/// Which of two items with the same name is used: the item of a source, or the item of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Precedence {
    /// The item of the source is used.
    OverFiles,
    /// The item of the file is used.
    #[default]
    UnderFiles,
}

/// Changes from one source. All of them are applied together.
#[derive(Clone, Debug)]
pub struct Patch {
    /// The name of the source.
    pub source: Box<str>,
    /// The precedence of its resources. Sources with the same precedence are ordered by name.
    pub precedence: Precedence,
    /// The changes, in the order in which they are applied.
    pub changes: Vec<Change>,
}

/// All resources of sources other than files.
#[derive(Clone, Debug, Default)]
pub struct Resources {
    by_source: BTreeMap<(Precedence, Box<str>), BySource>,
    /// The number of resources so far.
    count: u64,
}

/// The resources of one source, each with its place in the order. If two of them conflict, the
/// first one in this order is used: so a new one takes nothing away from an earlier one.
type BySource = BTreeMap<(Kind, Box<str>), (u64, Resource)>;

impl Resources {
    /// Records the changes of a source. The next [`Resources::merge`] uses them.
    pub fn apply(&mut self, patch: Patch) {
        let Patch { source, precedence, changes } = patch;
        let known = self.by_source.entry((precedence, source)).or_default();
        for change in changes {
            match change {
                Change::Set(resource) => {
                    let key = resource.key();
                    let before = known.get(&key).filter(|(_, old)| resource.takes_no_more(old));
                    let place = before.map_or(self.count, |(place, _)| *place);
                    self.count += 1;
                    known.insert(key, (place, resource));
                }
                Change::Remove(kind, name) => _ = known.remove(&(kind, name)),
            }
        }
    }

    /// A resource of a source.
    pub fn get(&self, source: &str, key: &(Kind, Box<str>)) -> Option<&Resource> {
        let mut of_source = self.by_source.iter().filter(|((_, known), _)| **known == *source);
        of_source.find_map(|(_, resources)| resources.get(key)).map(|(_, resource)| resource)
    }

    /// The listeners of a source with this address, by their names there.
    pub fn listeners_at(&self, source: &str, bind: &Bind) -> Vec<Box<str>> {
        let of_source = self.by_source.iter().filter(|((_, known), _)| **known == *source);
        let all = of_source.flat_map(|(_, resources)| resources.iter());
        let has = |resource: &Resource| match resource {
            Resource::Listener(item) => item.value.binds.iter().any(|it| it.value == *bind),
            _ => false,
        };
        all.filter(|(_, (_, it))| has(it)).map(|((_, name), _)| name.clone()).collect()
    }

    /// Drops all resources of a source.
    pub fn forget(&mut self, source: &str) {
        self.by_source.retain(|(_, known), _| **known != *source);
    }

    /// Gives a resource back the content that it has in `before`, or removes it if it is not there.
    /// Returns whether this changes something.
    pub fn restore(&mut self, before: &Self, source: &str, key: &(Kind, Box<str>)) -> bool {
        let mut changes = false;
        for ((precedence, of), known) in &mut self.by_source {
            if **of != *source {
                continue;
            }
            let old = before.by_source.get(&(*precedence, of.clone()));
            let old = old.and_then(|old| old.get(key));
            let identity = |(_, resource): &(u64, Resource)| resource.identity();
            if known.get(key).map(identity) == old.map(identity) {
                continue;
            }
            changes = true;
            match old {
                Some(old) => _ = known.insert(key.clone(), old.clone()),
                None => _ = known.remove(key),
            }
        }
        changes
    }

    /// Merges the model of the files with the resources of all sources. If two items have the same
    /// name, only the item with the higher precedence is used.
    pub fn merge(&self, files: &Arc<Model>) -> Merged {
        let mut faults = Vec::new();
        if self.by_source.values().all(BTreeMap::is_empty) {
            return Merged { model: Arc::clone(files), conflicts: faults };
        }
        let names = &files.files;
        let merged = Model {
            files: names.clone(),
            settings: files.settings.clone(),
            mesh: files.mesh.clone(),
            token: files.token.clone(),
            listeners: self.join(names, &mut faults, &files.listeners),
            routes: self.join(names, &mut faults, &files.routes),
            services: self.join(names, &mut faults, &files.services),
            providers: self.join(names, &mut faults, &files.providers),
            policies: self.join(names, &mut faults, &files.policies),
        };
        Merged { model: Arc::new(merged), conflicts: faults }
    }

    fn join<T: Named>(&self, names: &Files, faults: &mut Vec<Fault>, files: &Items<T>) -> Items<T> {
        let of = |precedence| {
            let sources = self.by_source.iter().filter(move |((of, _), _)| *of == precedence);
            sources.flat_map(|(_, resources)| in_order(resources, T::KIND)).flat_map(T::of)
        };
        let layers = of(Precedence::OverFiles).chain(files).chain(of(Precedence::UnderFiles));
        let mut items: Items<T> = Vec::new();
        let mut taken: HashMap<String, Origin> = HashMap::new();
        for item in layers {
            let name = item.value.name();
            let first = name.as_ref().and_then(|name| taken.get(name));
            // A conflict between two items of files is left to `compile`, which reports it.
            let both =
                first.filter(|first| first.resource().or_else(|| item.origin.resource()).is_some());
            if let (Some(first), Some(name)) = (both, &name) {
                let kind = T::KIND;
                let message = format!(
                    "{kind} {name:?} of {} is also in {}, which has precedence",
                    names.column_of(&item.origin),
                    names.column_of(first)
                );
                faults.push(Fault::new(&item.origin, message));
                continue;
            }
            if let Some(name) = name {
                taken.entry(name).or_insert_with(|| item.origin.clone());
            }
            items.push(Arc::clone(item));
        }
        items
    }
}

/// The resources of a kind, in their order.
fn in_order(resources: &BySource, kind: Kind) -> impl Iterator<Item = &Resource> {
    let begin = (kind, Box::default());
    let of_kind = resources.range(begin..).take_while(|((of, _), _)| *of == kind);
    let mut all: Vec<&(u64, Resource)> = of_kind.map(|(_, placed)| placed).collect();
    all.sort_by_key(|(place, _)| *place);
    all.into_iter().map(|(_, resource)| resource)
}

/// The model that results from the files and all other sources.
#[derive(Clone, Debug)]
pub struct Merged {
    /// All items in use.
    pub model: Arc<Model>,
    /// One error for each item that is not used. The error names both items.
    pub conflicts: Vec<Fault>,
}

/// An item of a model that has a name.
trait Named: Sized {
    const KIND: Kind;

    /// The name of the item. Two items with the same name conflict.
    fn name(&self) -> Option<String>;

    /// The items of this kind in `resource`.
    fn of(resource: &Resource) -> &[Arc<Item<Self>>];
}

macro_rules! named {
    ($($type:ident: $name:expr $(, $several:pat => $items:expr)?;)*) => {
        $(impl Named for $type {
            const KIND: Kind = Kind::$type;

            fn name(&self) -> Option<String> {
                let name: fn(&Self) -> Option<String> = $name;
                name(self)
            }

            fn of(resource: &Resource) -> &[Arc<Item<Self>>] {
                match resource {
                    Resource::$type(item) => std::slice::from_ref(item),
                    $($several => $items,)?
                    _ => &[],
                }
            }
        })*
    };
}

named! {
    Listener: |listener| Some(listener.name.value.clone());
    Routes: |routes| {
        let host = routes.host.value.to_ascii_lowercase();
        Some(match &routes.scope {
            Some(scope) => format!("{host} of {scope}"),
            None => host,
        })
    }, Resource::Hosts(_, all) => all;
    Service: |service| Some(service.name.value.clone());
    TokenProvider: |provider| Some(provider.name.value.clone());
    Policy: |policy| policy.name.as_ref().map(|name| name.value.clone());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(name: &str, port: u16) -> Change {
        let id = ResourceId {
            source: "test".into(),
            kind: Kind::Listener,
            name: name.into(),
            version: Box::default(),
        };
        let origin = Origin::Resource(Arc::new(id));
        let bind = Bind::Tcp(([127, 0, 0, 1], port).into());
        let listener = Listener {
            name: Item::new(name.to_owned(), origin.clone()),
            binds: vec![Item::new(bind, origin.clone())],
            ..Listener::default()
        };
        Change::Set(Resource::Listener(Arc::new(Item::new(listener, origin))))
    }

    #[test]
    fn a_new_resource_comes_after_those_that_it_may_conflict_with() {
        let mut resources = Resources::default();
        let mut order_after = |changes: Vec<Change>| -> Vec<String> {
            let precedence = Precedence::UnderFiles;
            resources.apply(Patch { source: "test".into(), precedence, changes });
            let merged = resources.merge(&Arc::default());
            let listeners = merged.model.listeners.iter();
            listeners.map(|item| item.value.name.value.clone()).collect()
        };
        assert_eq!(order_after(vec![listener("m", 1), listener("n", 2)]), ["m", "n"]);
        assert_eq!(order_after(vec![listener("a", 1)]), ["m", "n", "a"]);
        assert_eq!(order_after(vec![listener("m", 1)]), ["m", "n", "a"], "the same address");
        assert_eq!(order_after(vec![listener("m", 2)]), ["n", "a", "m"], "another address");
        assert_eq!(order_after(vec![Change::Remove(Kind::Listener, "n".into())]), ["a", "m"]);
        assert_eq!(order_after(vec![listener("n", 2)]), ["a", "m", "n"]);
    }
}
