//! The series that one worker has used. Looking one up takes no lock.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::{Key, Known, Party, Store, Target};

/// One worker's cache of the series of a [`Store`].
#[derive(Debug, Default)]
pub struct Cache {
    generation: Cell<u64>,
    pub(super) known: RefCell<FxHashMap<Key, Arc<Known>>>,
}

impl Cache {
    /// Calls `count` with the series of `key`. It allocates and locks only for the first use of a
    /// series after its creation.
    pub fn with<T>(
        &self,
        store: &Store,
        key: Key,
        source: &Arc<Party>,
        target: &Arc<Target>,
        count: impl FnOnce(&Arc<Known>) -> T,
    ) -> T {
        let mut known = self.known.borrow_mut();
        let generation = store.generation();
        if self.generation.get() != generation {
            known.clear();
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
        let found = store.find(key, source, target);
        count(known.entry(key).or_insert(found))
    }
}
