//! Applies objects of Kubernetes. One that is refused does not keep the others from being applied.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::time::Instant;

use super::apply::{Applied, Applier};
use super::moves::PortIndex;
use super::sockets::BindError;
use crate::sources::Documents;
use crate::sources::files::diagnostic::{Diagnostic, Place};
use crate::sources::in_place_of_refused;

/// How often everything is compiled again without the objects that are refused. After that, all
/// new texts are refused.
const ROUNDS_MAX: usize = 32;

/// How often a refused object gets its text before. Objects that change their hosts in a chain
/// would need a round each.
const ROUNDS_BACK: usize = 4;

/// The maximum number of objects. The files of this machine and etcd need some indices, too.
const OBJECTS_MAX: usize = 65_000;

/// The kinds that restrict traffic.
const POLICIES: [&str; 3] = [
    "kubernetes:authorizationpolicies.",
    "kubernetes:peerauthentications.",
    "kubernetes:requestauthentications.",
];

/// A refused object: its name, and the reason.
pub type RefusedObject = (Arc<str>, String);

/// Texts by name.
type Texts = BTreeMap<Arc<str>, Arc<str>>;

/// The objects of Kubernetes.
#[derive(Default)]
pub struct Objects {
    /// Those in use.
    pub used: Arc<Documents>,
    /// Those in use, the earlier of two in conflict first.
    pub in_order: Arc<Documents>,
    /// Those with the errors of the last try, each with its first error.
    pub blamed: Vec<RefusedObject>,
    /// The services with endpoints of Kubernetes.
    pub ports: PortIndex,
}

impl Objects {
    /// Blames the object at `place` for a listener that cannot be opened.
    pub fn blame(&mut self, place: Option<&String>, error: &BindError) {
        // A line and a column come after the name.
        if let Some(name) = place.and_then(|place| place.rsplitn(3, ':').nth(2)) {
            self.blamed.push((name.into(), error.to_string()));
        }
    }
}

impl Applier {
    /// Applies the files in use with the objects of `wanted` in the place of the previous ones. A
    /// refused object keeps its previous text, or is left out.
    pub async fn apply_objects(
        &mut self,
        wanted: &Documents,
    ) -> (Option<Applied>, Vec<RefusedObject>) {
        let began = Instant::now();
        let mut tried = Tried::new(wanted, &self.objects.used, OBJECTS_MAX);
        for round in 0..=ROUNDS_MAX {
            if self.objects.used.revision > 0 && tried.objects.texts == self.objects.used.texts {
                return (None, tried.refused);
            }
            let ordered = Arc::new(tried.in_order());
            let loaded = Arc::new(self.loaded.with_documents(&self.documents, &ordered));
            self.version += 1;
            self.objects.blamed.clear();
            let of_document = |place: Place| loaded.sources.is_remote(place.file);
            let warns = |warning: &Diagnostic| warning.place.is_some_and(of_document);
            let result = self.try_apply(&loaded, warns, None).await;
            loaded.release();
            let errors = match result {
                Ok((snapshot, applied)) => {
                    if Arc::ptr_eq(&self.tried, &self.loaded) {
                        self.tried = Arc::clone(&loaded);
                    }
                    self.loaded = loaded;
                    self.objects.used = Arc::new(tried.objects);
                    self.objects.in_order = ordered;
                    self.note_applied(snapshot, &applied, began);
                    return (Some(applied), tried.refused);
                }
                Err(errors) => errors,
            };
            if !tried.blame(std::mem::take(&mut self.objects.blamed), round) {
                let why = errors.lines().next().unwrap_or_default();
                tracing::error!("the objects are refused; the previous ones stay in use: {why}");
                tried.refused.push(("kubernetes".into(), why.to_owned()));
                return (None, tried.refused);
            }
        }
        tried.refused.push(("kubernetes".into(), "too many wrong objects".to_owned()));
        (None, tried.refused)
    }
}

/// The objects that are tried, and those that are refused.
struct Tried {
    objects: Documents,
    /// The texts in use.
    before: Texts,
    refused: Vec<RefusedObject>,
    /// Whether the texts in use come first.
    prefers_used: bool,
}

impl Tried {
    fn new(wanted: &Documents, used: &Documents, max: usize) -> Self {
        let before = used.texts.iter().cloned().collect();
        let mut objects = wanted.clone();
        let refused = leave_out(&mut objects, max);
        Self { objects, before, refused, prefers_used: false }
    }

    /// The objects, the earlier of two in conflict first: the later one is refused. The older one
    /// is the earlier, as in Istio.
    fn in_order(&self) -> Documents {
        let mut ordered = self.objects.clone();
        ordered.texts.sort_by_cached_key(|(name, text)| {
            let is_new = self.prefers_used && self.before.get(name) != Some(text);
            (is_new, created(text).to_owned(), Arc::clone(name))
        });
        ordered
    }

    /// Takes the blamed objects out, or back to the text before. Returns whether another try may
    /// help.
    fn blame(&mut self, blamed: Vec<RefusedObject>, round: usize) -> bool {
        let texts = &self.objects.texts;
        let index = |name: &Arc<str>| texts.binary_search_by(|(its, _)| its.cmp(name)).ok();
        let is_used = |name: &Arc<str>| {
            index(name).is_some_and(|index| self.before.get(name) == Some(&texts[index].1))
        };
        let mut blamed: Vec<RefusedObject> =
            blamed.into_iter().filter(|(name, _)| index(name).is_some()).collect();
        if blamed.is_empty() {
            return false;
        }
        // An object that is in use and was right may be in conflict with a new one.
        if blamed.iter().any(|(name, _)| !is_used(name)) {
            blamed.retain(|(name, _)| !is_used(name));
        } else if !std::mem::replace(&mut self.prefers_used, true) {
            return true;
        }
        self.prefers_used = false;
        if round + 1 >= ROUNDS_MAX {
            self.take_all_back();
        }
        for (name, why) in blamed {
            self.take_out(name, why, round);
        }
        true
    }

    fn take_out(&mut self, name: Arc<str>, mut why: String, round: usize) {
        let texts = &mut self.objects.texts;
        let Ok(index) = texts.binary_search_by(|(its, _)| its.cmp(&name)) else { return };
        let is_policy = POLICIES.iter().any(|kind| name.starts_with(kind));
        let text = Arc::clone(&texts[index].1);
        let before = self.before.get(&name).filter(|before| **before != text);
        if let Some(before) = before.filter(|_| is_policy || round < ROUNDS_BACK) {
            texts[index].1 = Arc::clone(before);
        } else if let Some(closed) = in_place_of_refused(&text).filter(|closed| **closed != *text) {
            texts[index].1 = closed.into();
            why.push_str("; until then, what it selects is denied");
        } else {
            texts.remove(index);
            if is_policy {
                why.push_str("; ATTENTION: it restricts no traffic until it is mended");
            }
        }
        match self.refused.iter_mut().find(|(its, _)| *its == name) {
            Some((_, known)) if is_policy => *known = why,
            Some(_) => {}
            None => self.refused.push((name, why)),
        }
    }

    /// Takes all new texts out, or back to those before.
    fn take_all_back(&mut self) {
        let why = "too many wrong objects: new ones wait until others are mended";
        let Self { objects, before, refused, .. } = self;
        objects.texts.retain_mut(|(name, text)| {
            let its = before.get(name);
            if its != Some(text) && !refused.iter().any(|(known, _)| known == name) {
                refused.push((Arc::clone(name), why.to_owned()));
            }
            if let Some(its) = its {
                *text = Arc::clone(its);
            }
            its.is_some()
        });
    }
}

/// Leaves out the surplus over `max`, of the namespaces with the most objects.
fn leave_out(objects: &mut Documents, max: usize) -> Vec<RefusedObject> {
    let mut refused: Vec<RefusedObject> = Vec::new();
    while objects.texts.len() > max {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for (name, _) in &objects.texts {
            *counts.entry(namespace(name)).or_default() += 1;
        }
        let Some((largest, count)) = counts.into_iter().max_by_key(|(_, count)| *count) else {
            break;
        };
        let surplus = (objects.texts.len() - max).min(count);
        let largest = largest.to_owned();
        let names = objects.texts.iter().rev().map(|(name, _)| name);
        let names = names.filter(|name| namespace(name) == largest).take(surplus);
        let names: BTreeSet<Arc<str>> = names.cloned().collect();
        objects.texts.retain(|(name, _)| !names.contains(name));
        let why = format!(
            "{surplus} of its {count} objects are left out: more than {max} are not read, and this \
             namespace has the most"
        );
        refused.push((format!("kubernetes:{largest}").into(), why));
    }
    refused
}

/// The namespace in `kubernetes:KIND/NAMESPACE/NAME`.
fn namespace(name: &str) -> &str {
    let mut parts = name.split('/').skip(1);
    let first = parts.next().unwrap_or_default();
    parts.next().map_or("", |_| first)
}

/// The time when an object was made, in the format of Kubernetes. Only a field of `metadata` is
/// indented like this, and a label of this name more.
fn created(text: &str) -> &str {
    let rest = text.split_once("\n    \"creationTimestamp\": \"").map_or("", |(_, rest)| rest);
    rest.split('"').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn documents(texts: &[(&str, &str)]) -> Documents {
        let texts = texts.iter().map(|(name, text)| ((*name).into(), (*text).into())).collect();
        Documents { revision: 1, texts, fault: None }
    }

    fn shown(documents: &Documents) -> Vec<(&str, &str)> {
        documents.texts.iter().map(|(name, text)| (&**name, &**text)).collect()
    }

    fn blamed(names: &[&str]) -> Vec<RefusedObject> {
        names.iter().map(|name| ((*name).into(), "why".to_owned())).collect()
    }

    #[test]
    fn a_new_object_does_not_replace_one_in_use() {
        let used = documents(&[("b", "old")]);
        let wanted = documents(&[("a", "new"), ("b", "old")]);
        let mut tried = Tried::new(&wanted, &used, 10);
        assert_eq!(shown(&tried.in_order()), [("a", "new"), ("b", "old")]);
        assert!(tried.blame(blamed(&["b"]), 0));
        assert_eq!(shown(&tried.objects), [("a", "new"), ("b", "old")], "nothing is taken out");
        assert_eq!(shown(&tried.in_order()), [("b", "old"), ("a", "new")]);
        assert!(tried.blame(blamed(&["a"]), 1));
        assert_eq!(shown(&tried.objects), [("b", "old")]);
        assert_eq!(tried.refused, blamed(&["a"]));
        // One that is wrong in any order is taken out.
        assert!(tried.blame(blamed(&["b"]), 2) && tried.blame(blamed(&["b"]), 3));
        assert!(tried.objects.texts.is_empty());
        assert!(!tried.blame(blamed(&["b"]), 4), "nobody is left");
    }

    #[test]
    fn a_changed_object_gets_its_text_back_and_a_chain_ends() {
        let used = documents(&[("a", "1"), ("b", "1"), ("c", "1")]);
        let wanted = documents(&[("a", "2"), ("b", "2"), ("c", "1")]);
        let mut tried = Tried::new(&wanted, &used, 10);
        assert!(tried.blame(blamed(&["a", "c"]), 0));
        assert_eq!(shown(&tried.objects), [("a", "1"), ("b", "2"), ("c", "1")]);
        assert!(tried.blame(blamed(&["b"]), ROUNDS_BACK));
        assert_eq!(shown(&tried.objects), [("a", "1"), ("c", "1")]);
        let mut tried = Tried::new(&documents(&[("a", "2"), ("d", "2")]), &used, 10);
        assert!(tried.blame(blamed(&["d"]), ROUNDS_MAX - 1));
        assert_eq!(shown(&tried.objects), [("a", "1")], "all new texts wait");
        assert_eq!(tried.refused.len(), 2);
    }

    #[test]
    fn the_older_object_is_the_earlier_one() {
        let text = |year: u16, label: &str| {
            let time = format!("{year}-01-01T00:00:00Z");
            let metadata = serde_json::json!({"creationTimestamp": time,
                "a": {"creationTimestamp": label}});
            format!("{:#}", serde_json::json!({ "metadata": metadata }))
        };
        let (young, old) = (text(2025, "1970"), text(2020, "9"));
        assert_eq!(created(&young), "2025-01-01T00:00:00Z");
        let wanted = documents(&[("a", &young), ("b", &old), ("c", &old)]);
        let ordered = Tried::new(&wanted, &Documents::default(), 10).in_order();
        let names: Vec<&str> = ordered.texts.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names, ["b", "c", "a"]);
    }

    #[test]
    fn a_refused_policy_leaves_nothing_open() {
        const NAME: &str = "kubernetes:authorizationpolicies.security.istio.io/shop/a";
        let text = r#"{"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
            "metadata": {"name": "a", "namespace": "shop"},
            "spec": {"action": "ALLOW", "rules": [{"x": 1}]}}"#;
        let mut tried = Tried::new(&documents(&[(NAME, text)]), &Documents::default(), 10);
        assert!(tried.blame(blamed(&[NAME]), 0));
        assert!(shown(&tried.objects)[0].1.contains("\"spec\""));
        assert!(tried.refused[0].1.ends_with("what it selects is denied"));
        assert!(tried.blame(blamed(&[NAME]), 1), "its selector is wrong, too");
        assert!(tried.objects.texts.is_empty());
        assert!(tried.refused[0].1.contains("restricts no traffic"), "{:?}", tried.refused);
    }

    #[test]
    fn the_surplus_is_that_of_the_largest_namespace() {
        let names = ["k:a/big/1", "k:a/big/2", "k:a/big/3", "k:a/x/1", "k:b"];
        let texts: Vec<(&str, &str)> = names.iter().map(|name| (*name, "")).collect();
        let tried = Tried::new(&documents(&texts), &Documents::default(), 4);
        let left: Vec<&str> = shown(&tried.objects).into_iter().map(|(name, _)| name).collect();
        assert_eq!(left, ["k:a/big/1", "k:a/big/2", "k:a/x/1", "k:b"]);
        assert_eq!(&*tried.refused[0].0, "kubernetes:big");
    }
}
