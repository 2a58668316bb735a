//! An object: its kind, its name and its namespace.

use std::collections::HashMap;

use super::{Fields, Reader};
use crate::compile::habits;
use crate::model::{Item, Place};
use crate::sources::yaml::node::{Kind, Node};

/// The fields of `metadata` that mean nothing here. Kubernetes and its tools write them.
const UNUSED: [&str; 8] = [
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "finalizers",
    "generateName",
    "generation",
    "managedFields",
    "ownerReferences",
    "resourceVersion",
];

/// An object of Kubernetes.
#[derive(Clone, Debug)]
pub struct Object {
    /// The API group: `networking.istio.io`. Empty for the core group.
    pub group: String,
    /// The kind: `VirtualService`.
    pub kind: String,
    /// The name.
    pub name: String,
    /// The namespace. An object without one belongs to the namespace of the source.
    pub namespace: String,
    /// The labels.
    pub labels: Vec<(String, String)>,
    /// The annotations.
    pub annotations: Vec<(String, String)>,
    /// The time at which the object was made, as RFC 3339 text. Empty if unknown.
    pub created: String,
    /// The place of the name.
    pub place: Place,
    /// The value of `spec`. `None` if there is none.
    pub spec: Option<Node>,
}

impl Object {
    /// The object in messages: `VirtualService shop/reviews`.
    pub fn title(&self) -> String {
        format!("{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// Reads the objects of `documents`. A list of objects (`kind: List`) is read, too. `namespace` is
/// that of objects without one. `kinds` are the known kinds, each with its API group.
pub fn objects(
    reader: &mut Reader<'_>,
    documents: &[Node],
    namespace: &str,
    kinds: &[(&str, &str)],
) -> Vec<Object> {
    let mut found: Vec<Object> = Vec::new();
    for document in documents {
        if matches!(document.kind, Kind::Null) {
            continue;
        }
        read(reader, document, namespace, kinds, &mut found);
    }
    let mut places: HashMap<String, Place> = HashMap::with_capacity(found.len());
    found.retain(|object| {
        let title = object.title();
        let Some(first) = places.get(&title) else {
            places.insert(title, object.place);
            return true;
        };
        let line = reader.file_line(*first);
        reader.object.clone_from(&title);
        reader.at(object.place, format!("it is here twice, first at {line}"), "keep one of them");
        false
    });
    found
}

fn read(
    reader: &mut Reader<'_>,
    node: &Node,
    namespace: &str,
    kinds: &[(&str, &str)],
    found: &mut Vec<Object>,
) {
    reader.object.clear();
    let Some(mut fields) = Fields::of(reader, node, "an object") else { return };
    let version = fields.string(reader, "apiVersion");
    let kind = fields.string(reader, "kind");
    if kind.as_ref().is_some_and(|kind| kind.value == "List") {
        fields.ignore("metadata");
        for item in fields.list(reader, "items") {
            read(reader, item, namespace, kinds, found);
        }
        fields.finish(reader);
        return;
    }
    let spec = fields.get("spec").cloned();
    fields.ignore("status");
    let metadata = fields.map(reader, "metadata");
    let (Some(version), Some(kind)) = (version, kind) else {
        let help = "write `apiVersion`, `kind`, `metadata` and `spec`";
        reader.at(node.place, "this object has no `apiVersion` or no `kind`", help);
        return;
    };
    let Some(mut metadata) = metadata else {
        let message = format!("this {} has no name", kind.value);
        reader.at(node.place, message, "write `metadata: {name: NAME}`");
        return;
    };
    let name = metadata.string(reader, "name");
    let own = metadata.string(reader, "namespace");
    let labels = metadata.texts(reader, "labels");
    let created = metadata.string(reader, "creationTimestamp");
    let annotations = metadata.texts(reader, "annotations");
    UNUSED.iter().chain(&["uid", "selfLink"]).for_each(|name| metadata.ignore(name));
    let Some(name) = name else {
        let message = format!("this {} has no name", kind.value);
        reader.at(node.place, message, "write `metadata: {name: NAME}`");
        return;
    };
    let place = super::fields::place_of(&name.origin);
    let text = |item: Item<String>| item.value;
    let plain = |pairs: Vec<(Item<String>, Item<String>)>| {
        pairs.into_iter().map(|(name, value)| (name.value, value.value)).collect()
    };
    let object = Object {
        group: version.value.split_once('/').map_or("", |(group, _)| group).to_owned(),
        kind: kind.value.clone(),
        name: name.value,
        namespace: own.map_or_else(|| namespace.to_owned(), text),
        labels: plain(labels),
        annotations: plain(annotations),
        created: created.map_or_else(String::new, text),
        place,
        spec,
    };
    reader.object = object.title();
    metadata.finish(reader);
    fields.finish(reader);
    if !known_kind(reader, &object, &version, &kind, kinds) {
        return;
    }
    found.push(object);
}

/// Reports a kind that this source does not read, or that belongs to another API group.
fn known_kind(
    reader: &mut Reader<'_>,
    object: &Object,
    version: &Item<String>,
    kind: &Item<String>,
    kinds: &[(&str, &str)],
) -> bool {
    let names: Vec<&str> = kinds.iter().map(|(kind, _)| *kind).collect();
    let groups: Vec<&str> = kinds.iter().map(|(_, group)| *group).collect();
    let advice = || habits::of_kind(&kind.value, &object.group, &groups).map(str::to_owned);
    match kinds.iter().find(|(name, _)| *name == kind.value) {
        None => {
            let message = format!("this source does not read the kind {:?}", kind.value);
            let help = advice().unwrap_or_else(|| super::spelling(&kind.value, &names));
            reader.item(kind, message, help);
            false
        }
        Some((_, group)) if *group != object.group => {
            let message = format!("{} is not of {:?}", kind.value, version.value);
            let right =
                || format!("write `apiVersion: {}`", habits::version_of(&kind.value, group));
            reader.item(version, message, advice().unwrap_or_else(right));
            false
        }
        Some(_) => true,
    }
}
