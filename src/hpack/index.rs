//! The index of the encoder's table. It finds the entry with a given field line or name.

use super::table::Table;

/// The kinds of searches for an entry.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Search by name.
    Name = 0,
    /// Search by name and value.
    Line = 1,
}

/// The data that the index keeps with an entry of the table, for each [`Kind`].
#[derive(Clone, Copy, Debug)]
pub struct Link {
    hashes: [u32; 2],
    /// The number of the next older entry with the same slot.
    older: [u16; 2],
}

/// The index: chains of entries with the same slot, one chain for names and one for lines. Each
/// chain begins with the newest entry. Links are numbers of entries. The number of a removed entry
/// ends the chain, so a removal does not change the index.
///
/// Numbers wrap, so an old slot may have the number of a newer entry in another chain. The entries
/// of that chain have other hashes, so the search does not find them.
#[derive(Debug)]
pub struct Index {
    /// The number of the newest entry of each slot, for each [`Kind`]. The length is zero or a
    /// power of two.
    heads: Vec<[u16; 2]>,
    /// The number of the next entry.
    next: u16,
}

/// The first and the largest number of slots. A table of 4096 bytes has at most 128 entries.
const SLOTS_MIN: usize = 16;
const SLOTS_MAX: usize = 128;

impl Index {
    /// Creates an empty index. It allocates nothing.
    pub const fn new() -> Self {
        Self { heads: Vec::new(), next: 0 }
    }

    /// Returns the index of the newest entry of `table` that has `hash` and for whose name and
    /// value `is_it` is true. The newest entry of the table has index 0.
    #[inline]
    pub fn find(
        &self,
        table: &Table<Link>,
        kind: Kind,
        hash: u32,
        is_it: impl Fn(&[u8], &[u8]) -> bool,
    ) -> Option<usize> {
        let slot = hash as usize & self.heads.len().wrapping_sub(1);
        let head = self.heads.get(slot)?[kind as usize];
        let index = self.newest_from(table, kind, hash, head, 0)?;
        let entry = table.entry(index)?;
        if table.line(entry).is_some_and(|(name, value)| is_it(name, value)) {
            return Some(index);
        }
        self.find_older(table, kind, hash, index, is_it)
    }

    /// Continues the search after entry `index`, which has the same hash but is not the wanted one.
    #[cold]
    #[inline(never)]
    pub fn find_older(
        &self,
        table: &Table<Link>,
        kind: Kind,
        hash: u32,
        mut index: usize,
        is_it: impl Fn(&[u8], &[u8]) -> bool,
    ) -> Option<usize> {
        loop {
            let older = table.entry(index)?.with.older[kind as usize];
            index = self.newest_from(table, kind, hash, older, index + 1)?;
            let entry = table.entry(index)?;
            if table.line(entry).is_some_and(|(name, value)| is_it(name, value)) {
                return Some(index);
            }
        }
    }

    /// Returns the index of the newest entry with `hash` in the chain that begins with `number`. An
    /// index below `from` ends the chain, because a chain goes from newer to older entries.
    #[inline]
    fn newest_from(
        &self,
        table: &Table<Link>,
        kind: Kind,
        hash: u32,
        mut number: u16,
        mut from: usize,
    ) -> Option<usize> {
        loop {
            let index = usize::from(self.next.wrapping_sub(number).wrapping_sub(1));
            if index < from {
                return None;
            }
            let link = &table.entry(index)?.with;
            if link.hashes[kind as usize] == hash {
                return Some(index);
            }
            number = link.older[kind as usize];
            from = index + 1;
        }
    }

    /// Adds the next entry of `table`, which has these hashes, and returns its link.
    pub fn link(&mut self, table: &mut Table<Link>, hashes: [u32; 2]) -> Link {
        if table.len() >= self.heads.len() && self.heads.len() < SLOTS_MAX {
            self.grow(table);
        }
        let older = self.chain(hashes, self.next);
        self.next = self.next.wrapping_add(1);
        Link { hashes, older }
    }

    /// The memory that the index holds, in bytes.
    pub const fn held_bytes(&self) -> usize {
        self.heads.capacity() * size_of::<[u16; 2]>()
    }

    /// Removes all entries and frees the memory.
    pub fn clear(&mut self) {
        *self = Self::new();
    }

    /// Puts entry `number` at the head of its chains, and returns their former heads.
    fn chain(&mut self, hashes: [u32; 2], number: u16) -> [u16; 2] {
        let mask = self.heads.len() - 1;
        [0, 1].map(|kind| {
            let head = &mut self.heads[hashes[kind] as usize & mask][kind];
            std::mem::replace(head, number)
        })
    }

    #[cold]
    fn grow(&mut self, table: &mut Table<Link>) {
        let slots = (self.heads.len() * 2).max(SLOTS_MIN);
        // No entry has the number `next`, so this number ends a chain.
        self.heads = vec![[self.next; 2]; slots];
        for index in (0..table.len()).rev() {
            let number = self.next.wrapping_sub(index as u16).wrapping_sub(1);
            if let Some(entry) = table.entry_mut(index) {
                entry.with.older = self.chain(entry.with.hashes, number);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::Name;
    use super::*;

    fn insert(index: &mut Index, table: &mut Table<Link>, hashes: [u32; 2], value: &[u8]) {
        let link = index.link(table, hashes);
        table.insert(Name::Bytes(b""), value, link);
    }

    #[test]
    fn the_newest_entry_is_found_while_it_is_there() {
        for seed in 0..20 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut table = Table::new(random.usize(100..4096));
            let mut index = Index { next: random.u16(..), ..Index::new() };
            // Few different hashes make long chains.
            let hashes = random.u32(1..200);
            let mut entries: Vec<[u32; 2]> = Vec::new();
            for number in 0..2000_u32 {
                let new = [random.u32(..hashes), random.u32(..hashes)];
                insert(&mut index, &mut table, new, &number.to_be_bytes());
                entries.insert(0, new);
                entries.truncate(table.len());
                let wanted = random.u32(..hashes);
                for kind in [Kind::Name, Kind::Line] {
                    let has = |at: &usize| entries[*at][kind as usize] == wanted;
                    let newest = (0..entries.len()).find(has);
                    assert_eq!(index.find(&table, kind, wanted, |_, _| true), newest);
                    // Skip the newest entry, and find the next one with the same hash.
                    let Some(newest) = newest else { continue };
                    let value = (number - newest as u32).to_be_bytes();
                    let other = (newest + 1..entries.len()).find(has);
                    assert_eq!(index.find(&table, kind, wanted, |_, had| *had != value), other);
                }
            }
            assert!(index.heads.len() <= SLOTS_MAX);
        }
    }

    #[test]
    fn an_empty_index_has_nothing() {
        let (mut index, mut table) = (Index::new(), Table::new(4096));
        assert_eq!(index.find(&table, Kind::Name, 7, |_, _| true), None);
        insert(&mut index, &mut table, [7, 8], b"");
        assert_eq!(index.find(&table, Kind::Line, 8, |_, _| true), Some(0));
        index.clear();
        assert_eq!(index.find(&table, Kind::Line, 8, |_, _| true), None);
    }

    #[test]
    fn chains_end_after_the_numbers_have_wrapped() {
        let (mut index, mut table) = (Index::new(), Table::new(4096));
        // A slot is used once, and again when a later entry gets the same number (numbers wrap).
        insert(&mut index, &mut table, [1, 1], b"");
        for _ in 0..=u16::MAX {
            insert(&mut index, &mut table, [2, 2], b"");
        }
        insert(&mut index, &mut table, [1, 1], b"");
        for _ in 0..100 {
            insert(&mut index, &mut table, [2, 2], b"");
            assert_eq!(index.find(&table, Kind::Line, 1, |_, _| false), None);
            assert_eq!(index.find(&table, Kind::Line, 2, |_, _| false), None);
        }
    }
}
