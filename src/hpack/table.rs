//! The dynamic table (RFC 7541 2.3.2 and 4).

use std::collections::VecDeque;

/// The overhead of an entry, besides its bytes (RFC 7541 4.1).
pub const ENTRY_BYTES: usize = 32;

/// The size of the first allocation for the bytes of the entries.
const FIRST_BYTES: usize = 256;

/// A dynamic table. The bytes of all entries are in one allocation, the oldest entry first. A new
/// entry is appended. If it does not fit, the bytes of the live entries move to the front.
///
/// The encoder stores a `T` with each entry, for its index.
#[derive(Debug)]
pub struct Table<T = ()> {
    bytes: Vec<u8>,
    /// The entries, the newest first.
    entries: VecDeque<Entry<T>>,
    /// The number of bytes that have been removed from the front of `bytes`. It wraps.
    removed_bytes: u32,
    /// The size of all entries as defined in RFC 7541 4.1.
    size: usize,
    size_max: usize,
}

/// The position of the bytes of an entry.
#[derive(Clone, Copy, Debug)]
pub struct Entry<T> {
    /// The position of the name in `bytes`, plus the value of `removed_bytes` when the entry was
    /// added. The value follows the name.
    start: u32,
    name_bytes: u32,
    value_bytes: u32,
    /// The data that the owner of the table stores with the entry.
    pub with: T,
}

/// The name of a new entry.
#[derive(Clone, Copy)]
pub enum Name<'a> {
    /// A name that is given as bytes.
    Bytes(&'a [u8]),
    /// The name of an entry of the table; the newest entry has index 0.
    Entry(usize),
}

impl<T> Table<T> {
    /// Creates an empty table. It allocates nothing.
    pub const fn new(size_max: usize) -> Self {
        Self { bytes: Vec::new(), entries: VecDeque::new(), removed_bytes: 0, size: 0, size_max }
    }

    /// The number of entries.
    #[inline]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// The maximum size, as defined in RFC 7541 4.1.
    #[inline]
    pub const fn size_max(&self) -> usize {
        self.size_max
    }

    /// The memory that the table holds, in bytes.
    pub fn held_bytes(&self) -> usize {
        self.bytes.capacity() + self.entries.capacity() * size_of::<Entry<T>>()
    }

    /// The size of all entries, as defined in RFC 7541 4.1.
    #[inline]
    pub const fn size(&self) -> usize {
        self.size
    }

    /// Returns the name and the value of an entry; the newest entry has index 0.
    #[inline]
    pub fn get(&self, index: usize) -> Option<(&[u8], &[u8])> {
        self.line(self.entry(index)?)
    }

    /// Returns an entry; the newest entry has index 0.
    #[inline]
    pub fn entry(&self, index: usize) -> Option<&Entry<T>> {
        self.entries.get(index)
    }

    /// Returns an entry; the newest entry has index 0.
    #[inline]
    pub fn entry_mut(&mut self, index: usize) -> Option<&mut Entry<T>> {
        self.entries.get_mut(index)
    }

    /// Returns the name and the value of an entry of this table.
    #[inline]
    pub fn line(&self, entry: &Entry<T>) -> Option<(&[u8], &[u8])> {
        let start = self.place(entry);
        let (name_bytes, value_bytes) = (entry.name_bytes as usize, entry.value_bytes as usize);
        self.bytes.get(start..start + name_bytes + value_bytes)?.split_at_checked(name_bytes)
    }

    /// Changes the maximum size, and removes the oldest entries until the others fit. A table
    /// without room for any entry frees its memory.
    pub fn set_size_max(&mut self, size_max: usize) {
        if size_max < ENTRY_BYTES {
            *self = Self::new(size_max);
        }
        self.size_max = size_max;
        self.evict(0);
    }

    /// Adds an entry, and removes the oldest ones to make room. An entry that is larger than the
    /// table empties it, and is not added.
    pub fn insert(&mut self, name: Name<'_>, value: &[u8], with: T) {
        let (mut name_at, name_bytes) = match name {
            Name::Bytes(name) => (usize::MAX, name.len()),
            Name::Entry(index) => match self.entries.get(index) {
                Some(entry) => (self.place(entry), entry.name_bytes as usize),
                None => return,
            },
        };
        let size = name_bytes + value.len() + ENTRY_BYTES;
        self.evict(size);
        if size > self.size_max {
            return;
        }
        // The name may belong to an entry that has just been removed.
        let oldest = self.entries.back().map_or(self.bytes.len(), |entry| self.place(entry));
        let kept_from = oldest.min(name_at);
        if self.bytes.len() + name_bytes + value.len() > self.bytes.capacity() {
            self.make_room(kept_from, name_bytes + value.len());
            name_at = name_at.wrapping_sub(kept_from);
        }
        let start = self.removed_bytes.wrapping_add(self.bytes.len() as u32);
        match name {
            Name::Bytes(name) => self.bytes.extend_from_slice(name),
            Name::Entry(_) => self.bytes.extend_from_within(name_at..name_at + name_bytes),
        }
        self.bytes.extend_from_slice(value);
        self.size += size;
        let (name_bytes, value_bytes) = (name_bytes as u32, value.len() as u32);
        self.entries.push_front(Entry { start, name_bytes, value_bytes, with });
    }

    /// Removes the oldest entries until there is room for `size`.
    #[inline]
    fn evict(&mut self, size: usize) {
        while self.size + size > self.size_max {
            let Some(entry) = self.entries.pop_back() else { break };
            self.size -= (entry.name_bytes + entry.value_bytes) as usize + ENTRY_BYTES;
        }
    }

    /// Makes room for `more` bytes. Moves the bytes from `kept_from` on to the front. Grows the
    /// allocation if that does not give enough room.
    #[cold]
    fn make_room(&mut self, kept_from: usize, more: usize) {
        let capacity = self.bytes.capacity();
        self.bytes.drain(..kept_from);
        self.removed_bytes = self.removed_bytes.wrapping_add(kept_from as u32);
        let wanted = self.bytes.len() + more;
        // Growing once costs less than moving the bytes often to gain little room.
        let crowded = wanted + capacity / 4 > capacity && capacity < self.size_max;
        if wanted > capacity || crowded {
            let grown = (capacity * 2).min(self.size_max).max(FIRST_BYTES).max(wanted);
            self.bytes.reserve_exact(grown - self.bytes.len());
        }
    }

    #[inline]
    const fn place(&self, entry: &Entry<T>) -> usize {
        entry.start.wrapping_sub(self.removed_bytes) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A simple table, to compare the results with.
    #[derive(Default)]
    struct Simple {
        entries: VecDeque<(Vec<u8>, Vec<u8>)>,
        size_max: usize,
    }

    impl Simple {
        fn size(&self) -> usize {
            self.entries.iter().map(|(name, value)| name.len() + value.len() + 32).sum()
        }

        fn insert(&mut self, name: &[u8], value: &[u8]) {
            self.entries.push_front((name.to_vec(), value.to_vec()));
            self.shrink();
        }

        fn shrink(&mut self) {
            while self.size() > self.size_max {
                self.entries.pop_back();
            }
        }

        fn agree(&self, table: &Table) {
            assert_eq!(table.len(), self.entries.len());
            assert_eq!(table.size, self.size());
            for (index, (name, value)) in self.entries.iter().enumerate() {
                assert_eq!(table.get(index), Some((&name[..], &value[..])));
            }
            assert_eq!(table.get(self.entries.len()), None);
        }
    }

    #[test]
    fn a_table_agrees_with_a_simple_one() {
        for seed in 0..60 {
            let mut random = fastrand::Rng::with_seed(seed);
            let size_max = *random.choice(&[0, 40, 200, 1000, 4096]).unwrap();
            let value_bytes_max = random.usize(1..200);
            let (mut table, mut simple) = (Table::new(size_max), Simple::default());
            // The counter of removed bytes wraps on the way.
            table.removed_bytes = u32::MAX - 2000;
            simple.size_max = size_max;
            for _ in 0..300 {
                let value = vec![random.u8(..); random.usize(..value_bytes_max)];
                match random.u8(..20) {
                    0 => {
                        simple.size_max = random.usize(..=size_max);
                        table.set_size_max(simple.size_max);
                        simple.shrink();
                    }
                    1..8 if table.len() > 0 => {
                        let index = random.usize(..table.len());
                        let name = simple.entries[index].0.clone();
                        table.insert(Name::Entry(index), &value, ());
                        simple.insert(&name, &value);
                    }
                    _ => {
                        let name = vec![random.u8(..); random.usize(..30)];
                        table.insert(Name::Bytes(&name), &value, ());
                        simple.insert(&name, &value);
                    }
                }
                simple.agree(&table);
                assert!(table.bytes.capacity() <= FIRST_BYTES.max(2 * size_max));
            }
        }
    }

    #[test]
    fn an_entry_takes_its_name_from_the_entry_that_it_removes() {
        let mut table = Table::new(100);
        table.insert(Name::Bytes(b"name-of-14-byt"), &[b'1'; 40], ());
        // Insert the name again and again, so that the bytes move.
        for digit in b'2'..b'9' {
            table.insert(Name::Entry(0), &[digit; 40], ());
            assert_eq!(table.len(), 1);
            assert_eq!(table.get(0), Some((&b"name-of-14-byt"[..], &[digit; 40][..])));
        }
    }

    #[test]
    fn memory_follows_the_entries() {
        let mut table = Table::new(4096);
        assert_eq!((table.bytes.capacity(), table.entries.capacity()), (0, 0));
        table.insert(Name::Bytes(b"name"), b"value", ());
        assert!(table.bytes.capacity() <= FIRST_BYTES && table.entries.capacity() <= 4);
        for number in 0..10_000 {
            table.insert(Name::Bytes(b"name"), format!("{number:050}").as_bytes(), ());
        }
        assert!(table.bytes.capacity() <= 4096 && table.entries.capacity() <= 128);
        table.set_size_max(0);
        assert_eq!((table.bytes.capacity(), table.entries.capacity()), (0, 0));
    }
}
