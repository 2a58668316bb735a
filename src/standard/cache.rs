//! The series that one worker has used. Looking one up takes no lock.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::{Fact, Key, Known, Party, RequestFacts, Store, Target, put_facts};

/// One worker's cache of the series of a [`Store`].
#[derive(Debug, Default)]
pub struct Cache {
    generation: Cell<u64>,
    pub(super) known: RefCell<FxHashMap<Key, Arc<Known>>>,
    /// The facts about requests, by their texts.
    facts: RefCell<FxHashMap<Box<[u8]>, Arc<RequestFacts>>>,
    /// The text of the facts of the last request.
    text: RefCell<Vec<u8>>,
}

impl Cache {
    /// The facts about a request. It allocates and locks only for facts that are new.
    pub fn facts(
        &self,
        store: &Store,
        wanted: &[Fact],
        put: impl Fn(Fact, &mut Vec<u8>),
    ) -> Arc<RequestFacts> {
        let (mut text, mut known) = (self.text.borrow_mut(), self.facts.borrow_mut());
        put_facts(&mut text, wanted, put);
        if let Some(facts) = known.get(&**text) {
            return Arc::clone(facts);
        }
        // Facts that this map holds stay in the store. So it forgets them from time to time.
        if known.len() >= store.max().max(1) {
            known.clear();
        }
        let found = store.facts(&text);
        known.insert(text.as_slice().into(), Arc::clone(&found));
        found
    }

    /// Calls `count` with the series of `key`. It allocates and locks only for the first use of a
    /// series after its creation.
    pub fn with<T>(
        &self,
        store: &Store,
        key: Key,
        source: &Arc<Party>,
        target: &Arc<Target>,
        facts: Option<&Arc<RequestFacts>>,
        count: impl FnOnce(&Arc<Known>) -> T,
    ) -> T {
        let mut known = self.known.borrow_mut();
        let generation = store.generation();
        if self.generation.get() != generation {
            known.clear();
            self.facts.borrow_mut().clear();
            self.generation.set(generation);
        }
        if let Some(series) = known.get(&key) {
            return count(series);
        }
        // Keys beyond the limit of the store share a few series. Remember some of these keys, so
        // that their next use takes no lock, but not all of them.
        if known.len() >= 2 * store.max().max(1) {
            known.clear();
        }
        let found = store.find(key, source, target, facts);
        count(known.entry(key).or_insert(found))
    }
}
