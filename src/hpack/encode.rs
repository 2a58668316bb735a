//! Encodes header blocks (RFC 7541 6).

use super::index::{Index, Kind, Link};
use super::table::{ENTRY_BYTES, Name, Table};
use super::{Indexing, hash, integer, statics, string};

/// The largest table that we use, even if the peer allows more. It is the default of
/// SETTINGS_HEADER_TABLE_SIZE.
const TABLE_BYTES_MAX: usize = 4096;

/// Writes the field lines of a message: HPACK for HTTP/2, QPACK for HTTP/3.
pub trait FieldEncoder {
    /// Writes a field line. `name` must be in lower case.
    fn field(&mut self, out: &mut Vec<u8>, name: &[u8], value: &[u8], indexing: Indexing);
}

/// Encodes the header blocks of one direction of a connection.
#[derive(Debug)]
pub struct Encoder {
    table: Table<Link>,
    index: Index,
    /// `wanted` is the table size for the next block. `lowest` is the lowest size that was wanted
    /// since the last block (RFC 7541 4.2).
    wanted: usize,
    lowest: usize,
}

impl Default for Encoder {
    fn default() -> Self {
        Self::new()
    }
}

/// The first byte of each form of a field line, and the mask of its prefix (RFC 7541 6).
const INDEXED: (u8, u8) = (0x80, 0x7f);
const INSERTED: (u8, u8) = (0x40, 0x3f);
const SIZE_UPDATE: (u8, u8) = (0x20, 0x1f);
const NEVER: (u8, u8) = (0x10, 0x0f);
const WITHOUT: (u8, u8) = (0x00, 0x0f);

impl Encoder {
    /// Creates an encoder with an empty table of at most 4096 bytes.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            table: Table::new(TABLE_BYTES_MAX),
            index: Index::new(),
            wanted: TABLE_BYTES_MAX,
            lowest: TABLE_BYTES_MAX,
        }
    }

    /// Applies the peer's SETTINGS_HEADER_TABLE_SIZE. The next block begins with size updates: the
    /// smallest size since the last block, then the current size (RFC 7541 4.2).
    pub fn set_table_bytes_max(&mut self, bytes: u32) {
        self.wanted = TABLE_BYTES_MAX.min(bytes as usize);
        self.lowest = self.lowest.min(self.wanted);
    }

    /// The memory that the table holds, in bytes.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.table.held_bytes() + self.index.held_bytes()
    }

    /// Begins a block. Must be called before the first field line of each block.
    #[inline]
    pub fn begin(&mut self, out: &mut Vec<u8>) {
        if self.lowest != self.table.size_max() || self.wanted != self.lowest {
            self.update_size(out);
        }
    }

    #[cold]
    fn update_size(&mut self, out: &mut Vec<u8>) {
        let sizes = [self.lowest, self.wanted];
        for size in sizes {
            if size != self.table.size_max() {
                integer::write(out, SIZE_UPDATE.0, SIZE_UPDATE.1, size);
                self.table.set_size_max(size);
            }
        }
        if self.table.len() == 0 {
            self.index.clear();
        }
        self.lowest = self.wanted;
    }

    /// Writes a field line. `name` must be in lower case.
    #[inline]
    pub fn field(&mut self, out: &mut Vec<u8>, name: &[u8], value: &[u8], indexing: Indexing) {
        let name_hash = hash::of_name(name);
        let form = match indexing {
            Indexing::Table => return self.with_table(out, name_hash, name, value),
            Indexing::Without => WITHOUT,
            Indexing::Never => NEVER,
        };
        let mut index = statics::find_name(hash::short(name_hash), name);
        if index == 0 {
            index = self.name_in_table(hash::short(name_hash), name);
        } else if indexing == Indexing::Without {
            let line = statics::find_value(index, value);
            if line > 0 {
                return indexed(out, line);
            }
        }
        literal(out, form, index, name, value);
    }

    fn with_table(&mut self, out: &mut Vec<u8>, name_hash: u64, name: &[u8], value: &[u8]) {
        let line_hash = hash::short(hash::after(name_hash, value));
        // Most pseudo-header fields are in the static table, and most others are not. So the static
        // table is searched first or last.
        let is_pseudo = name.first() == Some(&b':');
        let mut index = 0;
        if is_pseudo {
            index = statics::find_line(line_hash, name, value);
        }
        if index == 0 {
            let is_line =
                |its_name: &[u8], its_value: &[u8]| its_name == name && its_value == value;
            let at = self.index.find(&self.table, Kind::Line, line_hash, is_line);
            index = at.map_or(0, |at| statics::LINES.len() + 1 + at);
        }
        if index == 0 && !is_pseudo {
            index = statics::find_line(line_hash, name, value);
        }
        match index {
            0 => self.insert(out, [hash::short(name_hash), line_hash], name, value),
            index => indexed(out, index),
        }
    }

    /// Writes a line that is in no table, and inserts it if [`Self::is_worth_an_entry`].
    #[inline(never)]
    fn insert(&mut self, out: &mut Vec<u8>, hashes: [u32; 2], name: &[u8], value: &[u8]) {
        let mut index = statics::find_name(hashes[Kind::Name as usize], name);
        if index == 0 {
            index = self.name_in_table(hashes[Kind::Name as usize], name);
        }
        if !self.is_worth_an_entry(name, value) {
            return literal(out, WITHOUT, index, name, value);
        }
        integer::write(out, INSERTED.0, INSERTED.1, index);
        if index == 0 {
            string::write_shorter(out, name);
        }
        string::write_shorter(out, value);
        let link = self.index.link(&mut self.table, hashes);
        self.table.insert(Name::Bytes(name), value, link);
    }

    /// Whether the entry takes at most three quarters of the table. A larger entry would remove
    /// most other entries, and the next block would insert these again.
    const fn is_worth_an_entry(&self, name: &[u8], value: &[u8]) -> bool {
        (name.len() + value.len() + ENTRY_BYTES) * 4 <= self.table.size_max() * 3
    }

    /// The index of a dynamic table entry with this name, or zero.
    #[inline]
    fn name_in_table(&self, name_hash: u32, name: &[u8]) -> usize {
        let at = self.index.find(&self.table, Kind::Name, name_hash, |its, _| its == name);
        at.map_or(0, |at| statics::LINES.len() + 1 + at)
    }
}

impl FieldEncoder for Encoder {
    #[inline]
    fn field(&mut self, out: &mut Vec<u8>, name: &[u8], value: &[u8], indexing: Indexing) {
        Self::field(self, out, name, value, indexing);
    }
}

#[inline]
fn indexed(out: &mut Vec<u8>, index: usize) {
    integer::write(out, INDEXED.0, INDEXED.1, index);
}

/// Writes a line that is not inserted. Its strings are not Huffman coded, because Huffman coding
/// costs more CPU time than the saved bytes are worth.
#[inline]
fn literal(out: &mut Vec<u8>, form: (u8, u8), index: usize, name: &[u8], value: &[u8]) {
    integer::write(out, form.0, form.1, index);
    if index == 0 {
        string::write_plain(out, name);
    }
    string::write_plain(out, value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hpack::Decoder;
    use crate::hpack::examples::{self, Lines};

    fn block(encoder: &mut Encoder, lines: &[(&str, &str)], indexing: Indexing) -> Vec<u8> {
        let mut out = Vec::new();
        encoder.begin(&mut out);
        for (name, value) in lines {
            encoder.field(&mut out, name.as_bytes(), value.as_bytes(), indexing);
        }
        out
    }

    #[test]
    fn the_examples_of_the_rfc() {
        let mut encoder = Encoder::new();
        for example in &examples::HUFFMAN_REQUESTS {
            let out = block(&mut encoder, example.lines, Indexing::Table);
            assert_eq!(out, example.bytes(), "{}", example.section);
        }
        let mut encoder = Encoder::new();
        encoder.set_table_bytes_max(256);
        for (number, example) in examples::HUFFMAN_RESPONSES.iter().enumerate() {
            let mut out = block(&mut encoder, example.lines, Indexing::Table);
            if number == 0 {
                assert_eq!(out.drain(..3).as_slice(), [0x3f, 0xe1, 0x01]);
            }
            let mut wanted = example.bytes();
            if example.section == "C.6.2" {
                // "307" is not shorter as a Huffman string.
                wanted.splice(1..5, *b"\x03307");
            }
            assert_eq!(out, wanted, "{}", example.section);
        }
    }

    #[test]
    fn forms_of_a_line() {
        use Indexing::{Never, Table, Without};
        /// A line, its first encoding, and its encoding in the next block.
        type Case = (&'static str, &'static str, Indexing, &'static [u8], &'static [u8]);
        let cases: [Case; 10] = [
            (":method", "GET", Table, b"\x82", b"\x82"),
            (":method", "GET", Without, b"\x82", b"\x82"),
            (":method", "GET", Never, b"\x12\x03GET", b"\x12\x03GET"),
            (":path", "/a", Without, b"\x04\x02/a", b"\x04\x02/a"),
            ("x-y", "aaaa", Without, b"\0\x03x-y\x04aaaa", b"\0\x03x-y\x04aaaa"),
            ("x-y", "aaaa", Never, b"\x10\x03x-y\x04aaaa", b"\x10\x03x-y\x04aaaa"),
            ("x-y", "aaaa", Table, b"\x40\x03x-y\x83\x18\xc6\x3f", b"\xbe"),
            ("content-length", "12", Without, b"\x0f\x0d\x0212", b"\x0f\x0d\x0212"),
            ("cookie", "a=b", Never, b"\x1f\x11\x03a=b", b"\x1f\x11\x03a=b"),
            ("accept", "", Table, b"\x93", b"\x93"),
        ];
        for (name, value, indexing, first, second) in cases {
            let mut encoder = Encoder::new();
            for wanted in [first, second] {
                let out = block(&mut encoder, &[(name, value)], indexing);
                assert_eq!(out, wanted, "{name}: {value} {indexing:?}");
            }
        }
        // A never-indexed line takes only its name from the table.
        let mut encoder = Encoder::new();
        block(&mut encoder, &[("x-y", "aaaa")], Table);
        assert_eq!(block(&mut encoder, &[("x-y", "aaaa")], Never), b"\x1f\x2f\x04aaaa");
        assert_eq!(block(&mut encoder, &[("x-y", "b")], Without), b"\x0f\x2f\x01b");
        assert_eq!(block(&mut encoder, &[("x-y", "&&&")], Table), b"\x7e\x03&&&");
    }

    #[test]
    fn the_size_update_tells_the_smallest_size_and_the_last() {
        // The table sizes that the peer sets before a block, and the size updates in the block.
        let cases: [(&[u32], &[u8]); 9] = [
            (&[], b""),
            (&[4096], b""),
            (&[u32::MAX], b""),
            (&[0], b"\x20"),
            (&[30], b"\x3e"),
            (&[31], b"\x3f\0"),
            (&[0, 4096], b"\x20\x3f\xe1\x1f"),
            (&[100, 50, 70], b"\x3f\x13\x3f\x27"),
            (&[65536, 100, 100], b"\x3f\x45"),
        ];
        for (sizes, update) in cases {
            let mut encoder = Encoder::new();
            block(&mut encoder, &[("a", "b")], Indexing::Table);
            sizes.iter().for_each(|size| encoder.set_table_bytes_max(*size));
            assert_eq!(block(&mut encoder, &[], Indexing::Table), update, "{sizes:?}");
            assert_eq!(block(&mut encoder, &[], Indexing::Table), b"", "{sizes:?}");
            // Set the table size back to the maximum.
            let growth: &[u8] = if encoder.table.size_max() < 4096 { b"\x3f\xe1\x1f" } else { b"" };
            encoder.set_table_bytes_max(5000);
            assert_eq!(block(&mut encoder, &[], Indexing::Table), growth, "{sizes:?}");
        }
    }

    #[test]
    fn a_line_that_has_no_room_is_sent_without_the_table() {
        let mut encoder = Encoder::new();
        let large = "&".repeat(3072 - 32);
        let out = block(&mut encoder, &[("a", &large)], Indexing::Table);
        assert_eq!((out[0], encoder.table.len()), (0x00, 0));
        let out = block(&mut encoder, &[("a", &large[1..])], Indexing::Table);
        assert_eq!((out[0], encoder.table.len()), (0x40, 1));
        encoder.set_table_bytes_max(0);
        block(&mut encoder, &[], Indexing::Table);
        assert_eq!(block(&mut encoder, &[("a", "b")], Indexing::Table), b"\0\x01a\x01b");
    }

    #[test]
    fn lines_with_the_same_hash_are_not_the_same() {
        // Pairs with the same hash: lines with two values, lines with two names, and two names.
        let line_hash = |name: &str, value: &str| {
            hash::short(hash::after(hash::of_name(name.as_bytes()), value.as_bytes()))
        };
        let values = collision(|text| line_hash("x-a", text));
        let names = collision(|text| line_hash(text, "value"));
        let own = collision(|text| hash::short(hash::of_name(text.as_bytes())));
        let cases = [
            [("x-a", &*values.0), ("x-a", &*values.1)],
            [(&*names.0, "value"), (&*names.1, "value")],
            [(&*own.0, "first"), (&*own.1, "second")],
        ];
        for lines in cases {
            let out = block(&mut Encoder::new(), &lines, Indexing::Table);
            let mut read = Lines::default();
            assert_eq!(Decoder::new(4096).decode(&out, &mut read), Ok(()));
            let wanted = lines.map(|(name, value)| (name.into(), value.into(), false));
            assert_eq!(read.0, wanted);
        }
    }

    /// Two texts with the same hash.
    fn collision(hash: impl Fn(&str) -> u32) -> (String, String) {
        let mut seen = std::collections::HashMap::new();
        for number in 0_u64.. {
            let text = format!("{:016x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            if let Some(other) = seen.insert(hash(&text), text.clone()) {
                return (other, text);
            }
        }
        unreachable!("numbers end after hashes")
    }

    #[test]
    fn a_decoder_follows_through_evictions_and_size_updates() {
        for seed in 0..40 {
            let mut random = fastrand::Rng::with_seed(seed);
            let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new(4096));
            let values = random.usize(1..300);
            for _ in 0..150 {
                if random.u8(..20) == 0 {
                    for _ in 0..random.usize(1..4) {
                        encoder.set_table_bytes_max(random.u32(..6000));
                    }
                }
                let (mut out, mut wanted) = (Vec::new(), Vec::new());
                encoder.begin(&mut out);
                for _ in 0..random.usize(..15) {
                    let name = *random.choice(&[":path", "x-a", "via", "x-b", ":status"]).unwrap();
                    let value = "v".repeat(random.usize(..values));
                    let all = [Indexing::Table, Indexing::Without, Indexing::Never];
                    let indexing = *random.choice(&all).unwrap();
                    encoder.field(&mut out, name.as_bytes(), value.as_bytes(), indexing);
                    wanted.push((name.into(), value.into(), indexing == Indexing::Never));
                }
                let mut lines = Lines::default();
                assert_eq!(decoder.decode(&out, &mut lines), Ok(()));
                assert_eq!(lines.0, wanted);
            }
        }
    }
}
