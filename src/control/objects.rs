//! Applies objects of Kubernetes. One that is refused does not keep the others from being applied.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::time::Instant;

use super::apply::{Applied, Applier};
use super::sockets::BindError;
use crate::sources::Documents;
use crate::sources::files::diagnostic::{Diagnostic, Place};

/// How often everything is compiled again without the objects that are refused.
const ROUNDS_MAX: usize = 32;

/// A refused object: its name, and the reason.
pub type RefusedObject = (Arc<str>, String);

/// The objects of Kubernetes.
#[derive(Default)]
pub struct Objects {
    /// Those in use.
    pub used: Arc<Documents>,
    /// Those with the errors of the last try, each with its first error.
    pub blamed: Vec<RefusedObject>,
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
        let before: BTreeMap<Arc<str>, Arc<str>> =
            self.objects.used.texts.iter().cloned().collect();
        let mut objects = wanted.clone();
        let mut refused: Vec<RefusedObject> = Vec::new();
        for _ in 0..ROUNDS_MAX {
            if self.objects.used.revision > 0 && objects.texts == self.objects.used.texts {
                return (None, refused);
            }
            let loaded = Arc::new(self.loaded.with_documents(&self.documents, &objects));
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
                    self.objects.used = Arc::new(objects);
                    self.note_applied(snapshot, &applied, began);
                    return (Some(applied), refused);
                }
                Err(errors) => errors,
            };
            let found = self.take_out(&mut objects, &before, &mut refused);
            if !found {
                let why = errors.lines().next().unwrap_or_default();
                tracing::error!("the objects are refused; the previous ones stay in use: {why}");
                refused.push(("kubernetes".into(), why.to_owned()));
                return (None, refused);
            }
        }
        refused.push(("kubernetes".into(), "too many wrong objects".to_owned()));
        (None, refused)
    }

    /// Takes the objects with errors out, or back to the text before. Returns whether there were
    /// some.
    fn take_out(
        &mut self,
        objects: &mut Documents,
        before: &BTreeMap<Arc<str>, Arc<str>>,
        refused: &mut Vec<RefusedObject>,
    ) -> bool {
        let mut found = false;
        for (name, why) in std::mem::take(&mut self.objects.blamed) {
            let Ok(index) = objects.texts.binary_search_by(|(its, _)| its.cmp(&name)) else {
                continue;
            };
            found = true;
            match before.get(&name).filter(|text| **text != objects.texts[index].1) {
                Some(text) => objects.texts[index].1 = Arc::clone(text),
                None => _ = objects.texts.remove(index),
            }
            if !refused.iter().any(|(its, _)| *its == name) {
                refused.push((name, why));
            }
        }
        found
    }
}
