//! Resources of sources other than files, and their merge with the model of the files.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use super::{Fault, Files, Item, Items, Listener, Model, Origin, ResourceId};
use super::{Policy, Routes, Service, TokenProvider};

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
pub struct Resources(BTreeMap<(Precedence, Box<str>), BySource>);

/// The resources of one source.
type BySource = BTreeMap<(Kind, Box<str>), Resource>;

impl Resources {
    /// Records the changes of a source. The next [`Resources::merge`] uses them.
    pub fn apply(&mut self, patch: Patch) {
        let Patch { source, precedence, changes } = patch;
        let known = self.0.entry((precedence, source)).or_default();
        for change in changes {
            match change {
                Change::Set(resource) => known.insert(resource.key(), resource),
                Change::Remove(kind, name) => known.remove(&(kind, name)),
            };
        }
    }

    /// Drops all resources of a source.
    pub fn forget(&mut self, source: &str) {
        self.0.retain(|(_, known), _| **known != *source);
    }

    /// Gives a resource back the content that it has in `before`, or removes it if it is not there.
    /// Returns whether this changes something.
    pub fn restore(&mut self, before: &Self, source: &str, key: &(Kind, Box<str>)) -> bool {
        let mut changes = false;
        for ((precedence, of), known) in &mut self.0 {
            if **of != *source {
                continue;
            }
            let old = before.0.get(&(*precedence, of.clone())).and_then(|old| old.get(key));
            let new = known.get(key);
            if new.map(Resource::identity) == old.map(Resource::identity) {
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
        if self.0.values().all(BTreeMap::is_empty) {
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
            let sources = self.0.iter().filter(move |((of, _), _)| *of == precedence);
            sources.flat_map(|(_, resources)| resources.values()).flat_map(T::of)
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
