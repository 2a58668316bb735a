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

/// The endpoints of a port: `NAMESPACE/NAME/PORT`.
pub(super) type Port = (Arc<str>, Arc<[Endpoint]>);

/// All objects.
#[derive(Default)]
pub(super) struct Store {
    /// The slices, by `NAMESPACE/NAME`.
    slices: HashMap<Box<str>, Slice>,
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
                if self.slices.get(key) == Some(&slice) {
                    return;
                }
                self.uncopied = true;
                let service = service_of(key, &slice);
                let before = self.slices.insert(key.into(), slice);
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

    /// Everything, for the copy on the disk.
    pub(super) fn copy(&mut self, revision: u64) -> Documents {
        self.uncopied = false;
        let mut texts: Vec<_> =
            self.texts.iter().map(|(n, text)| (n.clone(), text.clone())).collect();
        for (key, slice) in &self.slices {
            // A slice has only names and addresses, so it can be written.
            let text = serde_json::to_string(slice).unwrap_or_default();
            texts.push((document(&SLICES, key).into(), text.into()));
        }
        Documents { revision, texts, fault: None }
    }

    /// Begins with a copy.
    pub(super) fn read(copy: &Documents) -> Self {
        let mut store = Self::default();
        let prefix = document(&SLICES, "");
        for (name, text) in &copy.texts {
            match name.strip_prefix(&prefix) {
                None => _ = store.texts.insert(name.clone(), text.clone()),
                Some(key) => {
                    if let Ok(slice) = serde_json::from_str(text) {
                        store.put(&SLICES, key, Kept::Slice(slice));
                    }
                }
            }
        }
        (store.texts_changed, store.uncopied) = (true, false);
        store
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::kinds::{OBJECTS, SERVICES};
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

    #[test]
    fn a_copy_is_read_as_it_was_written() {
        let mut store = Store::default();
        store.put(&SLICES, "a/x-1", slice("x", "http", &["10.0.0.1", "fd00::1"]));
        store.put(&SERVICES, "a/x", Kept::Text("{}".into()));
        let copy = store.copy(7);
        assert!(!store.is_uncopied());
        let mut read = Store::read(&copy);
        assert_eq!(ports(&mut read), ["a/x/http=10.0.0.1:80"]);
        assert_eq!(read.take_documents(7), store.take_documents(7));
        assert!(!read.is_uncopied());
    }
}
