//! Everything that is known of the API server: EndpointSlices, and the texts of objects. No I/O.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

use super::kinds::{Kind, SLICES};
use super::slices::{self, Slice};
use crate::model::Endpoint;
use crate::sources::documents::Documents;

/// The objects of one kind, of one namespace or of all.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Watched {
    pub(super) kind: &'static Kind,
    /// `None` means all namespaces.
    pub(super) namespace: Option<Arc<str>>,
}

/// An object, as far as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kept {
    /// An EndpointSlice.
    Slice(Slice),
    /// The text of another object.
    Text(Arc<str>),
}

impl Watched {
    /// Whether all objects of `other` are among these.
    pub(super) fn covers(&self, other: &Self) -> bool {
        let is_all = self.namespace.is_none();
        self.kind == other.kind && (is_all || self.namespace == other.namespace)
    }
}

/// The kinds that are watched, by their names, each with its namespaces.
struct Scope<'a>(HashMap<String, Vec<Option<&'a str>>>);

impl<'a> Scope<'a> {
    fn new(watched: &'a [Watched]) -> Self {
        let mut scope: HashMap<_, Vec<_>> = HashMap::new();
        for Watched { kind, namespace } in watched {
            scope.entry(kind.title()).or_default().push(namespace.as_deref());
        }
        Self(scope)
    }

    /// Whether the document `name` is the text of a watched object.
    fn has(&self, name: &str) -> bool {
        let parts = name.strip_prefix("kubernetes:").and_then(|name| name.split_once('/'));
        let Some((kind, key)) = parts else { return false };
        let its = key.split('/').next();
        let namespaces = self.0.get(kind).into_iter().flatten();
        namespaces.into_iter().any(|namespace| namespace.is_none() || *namespace == its)
    }
}

/// The endpoints of a port: `NAMESPACE/NAME/PORT`.
pub(super) type Port = (Arc<str>, Arc<[Endpoint]>);

/// All objects.
#[derive(Default)]
pub(super) struct Store {
    /// The slices, by `NAMESPACE/NAME`.
    slices: HashMap<Box<str>, Arc<Slice>>,
    /// The slices of each service, by `NAMESPACE/NAME`.
    of_service: HashMap<Box<str>, BTreeSet<Box<str>>>,
    /// The last endpoints of each port, by service.
    ports: HashMap<Box<str>, Vec<Port>>,
    texts: BTreeMap<Arc<str>, Arc<str>>,
    /// The services whose slices have changed.
    changed: HashSet<Box<str>>,
    /// Whether a text has changed.
    texts_changed: bool,
    /// Whether anything has changed since the last copy.
    uncopied: bool,
}

/// The name of an object among the documents.
fn document(kind: &Kind, key: &str) -> String {
    format!("kubernetes:{}/{key}", kind.title())
}

/// The service of a slice: its namespace is that of the slice.
fn service_of(key: &str, slice: &Slice) -> Box<str> {
    let namespace = key.split('/').next().unwrap_or_default();
    format!("{namespace}/{}", slice.service).into()
}

impl Store {
    /// Adds or changes an object. `key` is `NAMESPACE/NAME`, or `NAME` without a namespace.
    pub(super) fn put(&mut self, kind: &Kind, key: &str, kept: Kept) {
        match kept {
            Kept::Slice(slice) => {
                if self.slices.get(key).is_some_and(|known| **known == slice) {
                    return;
                }
                self.uncopied = true;
                let service = service_of(key, &slice);
                let before = self.slices.insert(key.into(), Arc::new(slice));
                let before = before.map(|before| service_of(key, &before));
                if let Some(before) = before.filter(|before| *before != service) {
                    self.leave(key, before);
                }
                self.of_service.entry(service.clone()).or_default().insert(key.into());
                self.changed.insert(service);
            }
            Kept::Text(text) => {
                let name = document(kind, key);
                let before = self.texts.get(name.as_str());
                if before != Some(&text) {
                    self.texts.insert(name.into(), text);
                    (self.texts_changed, self.uncopied) = (true, true);
                }
            }
        }
    }

    /// Removes an object.
    pub(super) fn remove(&mut self, kind: &Kind, key: &str) {
        if *kind != SLICES {
            let removed = self.texts.remove(document(kind, key).as_str()).is_some();
            self.texts_changed |= removed;
            self.uncopied |= removed;
            return;
        }
        if let Some(slice) = self.slices.remove(key) {
            self.uncopied = true;
            self.leave(key, service_of(key, &slice));
        }
    }

    fn leave(&mut self, key: &str, service: Box<str>) {
        if let Some(all) = self.of_service.get_mut(&service) {
            all.remove(key);
            if all.is_empty() {
                self.of_service.remove(&service);
            }
        }
        self.changed.insert(service);
    }

    /// The keys of the objects that are watched together.
    pub(super) fn keys(&self, watched: &Watched) -> Vec<Box<str>> {
        let scope = watched.namespace.as_ref().map(|namespace| format!("{namespace}/"));
        let scope = scope.unwrap_or_default();
        if *watched.kind == SLICES {
            return self.slices.keys().filter(|key| key.starts_with(&scope)).cloned().collect();
        }
        let prefix = document(watched.kind, "");
        let from = format!("{prefix}{scope}");
        let names = self.texts.range(Arc::from(from.as_str())..).map(|(name, _)| name);
        let own = names.take_while(|name| name.starts_with(&from));
        own.filter_map(|name| name.strip_prefix(&prefix)).map(Into::into).collect()
    }

    /// Puts `all` in the place of all objects that are watched together.
    pub(super) fn replace(&mut self, watched: &Watched, all: HashMap<Box<str>, Kept>) {
        for key in self.keys(watched) {
            if !all.contains_key(&key) {
                self.remove(watched.kind, &key);
            }
        }
        for (key, kept) in all {
            self.put(watched.kind, &key, kept);
        }
    }

    /// Takes the ports whose endpoints have changed. No endpoint reaches `admin`.
    pub(super) fn take_ports(&mut self, admin: Option<SocketAddr>) -> Vec<Port> {
        let mut found = Vec::new();
        for service in std::mem::take(&mut self.changed) {
            let keys = self.of_service.get(&service);
            let its = keys.into_iter().flatten().filter_map(|key| self.slices.get(key));
            let its = its.map(|slice| &**slice);
            let names: BTreeSet<&str> = its.clone().flat_map(Slice::ports).collect();
            let before = self.ports.remove(&service).unwrap_or_default();
            let mut now = Vec::with_capacity(names.len());
            for name in names {
                let key = format!("{service}/{name}");
                let endpoints = slices::endpoints(its.clone(), name, admin);
                match before.iter().find(|(known, _)| **known == *key) {
                    Some((known, same)) if *same == endpoints => {
                        now.push((known.clone(), same.clone()));
                    }
                    _ => {
                        let port: Port = (key.into(), endpoints);
                        found.push(port.clone());
                        now.push(port);
                    }
                }
            }
            let gone = before.into_iter().filter(|(key, _)| !now.iter().any(|(it, _)| it == key));
            found.extend(gone.map(|(key, _)| (key, Arc::default())));
            if !now.is_empty() {
                self.ports.insert(service, now);
            }
        }
        found
    }

    /// Whether a text has changed since [`Store::take_documents`].
    pub(super) fn has_new_texts(&self) -> bool {
        self.texts_changed
    }

    /// Whether anything has changed since [`Store::copy`].
    pub(super) fn is_uncopied(&self) -> bool {
        self.uncopied
    }

    /// Takes all texts.
    pub(super) fn take_documents(&mut self, revision: u64) -> Documents {
        self.texts_changed = false;
        let texts = self.texts.iter().map(|(name, text)| (name.clone(), text.clone()));
        Documents { revision, texts: texts.collect(), fault: None }
    }

    /// All slices, for the copy on the disk.
    pub(super) fn take_copy(&mut self) -> Slices {
        self.uncopied = false;
        self.slices.iter().map(|(key, slice)| (key.clone(), Arc::clone(slice))).collect()
    }

    /// Notes that there is no copy.
    pub(super) fn set_uncopied(&mut self) {
        self.uncopied = true;
    }

    /// Begins with the watched objects of a copy.
    pub(super) fn read(copy: &Documents, watched: &[Watched]) -> Self {
        let (mut store, scope) = (Self::default(), Scope::new(watched));
        let prefix = document(&SLICES, "");
        let mut is_whole = true;
        for (name, text) in &copy.texts {
            if !scope.has(name) {
                is_whole = false;
                continue;
            }
            match name.strip_prefix(&prefix) {
                None => _ = store.texts.insert(name.clone(), text.clone()),
                Some(key) => {
                    if let Ok(slice) = serde_json::from_str(text) {
                        store.put(&SLICES, key, Kept::Slice(slice));
                    }
                }
            }
        }
        (store.texts_changed, store.uncopied) = (true, !is_whole);
        store
    }

    /// Keeps the watched objects, and tells all of them once more.
    pub(super) fn again(mut self, watched: &[Watched]) -> Self {
        let scope = Scope::new(watched);
        let mut store = Self::default();
        self.texts.retain(|name, _| scope.has(name));
        store.texts = self.texts;
        for (key, slice) in self.slices {
            if scope.has(&document(&SLICES, &key)) {
                let service = service_of(&key, &slice);
                store.of_service.entry(service.clone()).or_default().insert(key.clone());
                store.changed.insert(service);
                store.slices.insert(key, slice);
            }
        }
        (store.texts_changed, store.uncopied) = (true, true);
        store
    }
}

/// Slices with their names.
pub(super) type Slices = Vec<(Box<str>, Arc<Slice>)>;

/// The slices as documents. They have only names and addresses, so they can be written.
pub(super) fn documents(slices: Slices, revision: u64) -> Documents {
    let text = |slice: &Slice| serde_json::to_string(slice).unwrap_or_default().into();
    let texts = slices.iter().map(|(key, slice)| (document(&SLICES, key).into(), text(slice)));
    Documents { revision, texts: texts.collect(), fault: None }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::kinds::{OBJECTS, SECRETS, SERVICES};
    use super::*;

    fn slice(service: &str, port: &str, ips: &[&str]) -> Kept {
        let endpoints: Vec<_> = ips.iter().map(|ip| json!({ "addresses": [ip] })).collect();
        let written = json!({ "endpoints": endpoints, "ports": [{ "name": port, "port": 80 }] });
        Kept::Slice(Slice::new(service, serde_json::from_value(written).unwrap()))
    }

    fn ports(store: &mut Store) -> Vec<String> {
        let mut found: Vec<String> = store
            .take_ports(None)
            .into_iter()
            .map(|(key, all)| {
                let list: Vec<_> = all.iter().map(|it| it.address.to_string()).collect();
                format!("{key}={}", list.join(","))
            })
            .collect();
        found.sort();
        found
    }

    #[test]
    fn a_changed_slice_changes_its_service_alone() {
        let mut store = Store::default();
        store.put(&SLICES, "shop/web-1", slice("web", "http", &["10.0.0.1"]));
        store.put(&SLICES, "shop/web-2", slice("web", "http", &["10.0.0.2"]));
        store.put(&SLICES, "shop/db-1", slice("db", "", &["10.0.0.3"]));
        let all = ["shop/db/=10.0.0.3:80", "shop/web/http=10.0.0.1:80,10.0.0.2:80"];
        assert_eq!(ports(&mut store), all);
        assert!(ports(&mut store).is_empty());
        store.put(&SLICES, "shop/db-1", slice("db", "", &["10.0.0.3"]));
        assert!(ports(&mut store).is_empty(), "nothing has changed");
        store.remove(&SLICES, "shop/web-1");
        assert_eq!(ports(&mut store), ["shop/web/http=10.0.0.2:80"]);
        store.put(&SLICES, "shop/web-2", slice("web", "https", &["10.0.0.2"]));
        assert_eq!(ports(&mut store), ["shop/web/http=", "shop/web/https=10.0.0.2:80"]);
        store.put(&SLICES, "shop/web-2", slice("other", "https", &["10.0.0.2"]));
        assert_eq!(ports(&mut store), ["shop/other/https=10.0.0.2:80", "shop/web/https="]);
    }

    #[test]
    fn a_list_replaces_only_its_own_kind_and_namespace() {
        let mut store = Store::default();
        let of =
            |namespace: Option<&str>, kind| Watched { kind, namespace: namespace.map(Into::into) };
        let text = |text: &str| Kept::Text(text.into());
        for (kind, key) in [(&SERVICES, "a/x"), (&SERVICES, "b/x"), (&OBJECTS[0], "a/x")] {
            store.put(kind, key, text("1"));
        }
        store.put(&SLICES, "a/x-1", slice("x", "", &["10.0.0.1"]));
        store.put(&SLICES, "b/x-1", slice("x", "", &["10.0.0.2"]));
        ports(&mut store);
        store.replace(&of(Some("a"), &SERVICES), [("a/y".into(), text("2"))].into());
        let names = |store: &mut Store| {
            let all = store.take_documents(1).texts;
            all.into_iter().map(|(name, _)| name.to_string()).collect::<Vec<_>>()
        };
        let wanted = [
            "kubernetes:destinationrules.networking.istio.io/a/x",
            "kubernetes:services/a/y",
            "kubernetes:services/b/x",
        ];
        assert_eq!(names(&mut store), wanted);
        assert!(!store.has_new_texts());
        store.replace(&of(Some("a"), &SLICES), HashMap::new());
        assert_eq!(ports(&mut store), ["a/x/="]);
        store.replace(&of(None, &SLICES), HashMap::new());
        assert_eq!(ports(&mut store), ["b/x/="]);
    }

    fn watched(kind: &'static Kind, namespace: Option<&str>) -> Watched {
        Watched { kind, namespace: namespace.map(Into::into) }
    }

    /// The copy of a store whose texts are all in use.
    fn copy(store: &mut Store) -> Documents {
        let mut copy = documents(store.take_copy(), 7);
        copy.texts.extend(store.texts.iter().map(|(name, text)| (name.clone(), text.clone())));
        copy
    }

    #[test]
    fn a_copy_is_read_as_it_was_written() {
        let mut store = Store::default();
        store.put(&SLICES, "a/x-1", slice("x", "http", &["10.0.0.1", "fd00::1"]));
        store.put(&SERVICES, "a/x", Kept::Text("{}".into()));
        let copy = copy(&mut store);
        assert!(!store.is_uncopied());
        let all = [watched(&SLICES, None), watched(&SERVICES, Some("a"))];
        let mut read = Store::read(&copy, &all);
        assert_eq!(ports(&mut read), ["a/x/http=10.0.0.1:80"]);
        assert_eq!(read.take_documents(7), store.take_documents(7));
        assert!(!read.is_uncopied());
    }

    #[test]
    fn only_watched_objects_of_a_copy_or_of_the_state_before_are_used() {
        let mut store = Store::default();
        for (kind, key) in [(&SERVICES, "a/x"), (&SERVICES, "b/x"), (&SECRETS, "a/key")] {
            store.put(kind, key, Kept::Text("{}".into()));
        }
        store.put(&SLICES, "a/x-1", slice("x", "", &["10.0.0.1"]));
        store.put(&SLICES, "b/x-1", slice("x", "", &["10.0.0.2"]));
        ports(&mut store);
        let all = [watched(&SLICES, Some("a")), watched(&SERVICES, Some("a"))];
        let copy = copy(&mut store);
        for mut found in [Store::read(&copy, &all), store.again(&all)] {
            assert!(found.is_uncopied() && found.has_new_texts());
            assert_eq!(ports(&mut found), ["a/x/=10.0.0.1:80"]);
            let texts = found.take_documents(1).texts;
            let names: Vec<_> = texts.iter().map(|(name, _)| &**name).collect();
            assert_eq!(names, ["kubernetes:services/a/x"]);
        }
    }
}
