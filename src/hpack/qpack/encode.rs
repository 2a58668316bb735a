//! Encodes field sections, and writes our encoder stream (RFC 9204 4.3, 4.5).

use std::collections::VecDeque;

use super::{Form, QpackError, answer, entries_max, instruction, line, static_bit, statics};
use crate::hpack::index::{Index, Kind, Link};
use crate::hpack::table::{ENTRY_BYTES, Name, Table};
use crate::hpack::{DecodeError, FieldEncoder, Indexing, hash, integer, string};

/// The largest table that we use, even if the peer allows more.
const TABLE_BYTES_MAX: usize = 4096;

/// The number of sections that may wait for their acknowledgement. Later sections do not refer to
/// the table.
const SECTIONS_MAX: usize = 256;

/// While fewer sections are on their way, entries are removed without care: soon none is in use.
const DRAINING_SECTIONS_MIN: usize = 4;

/// Encodes the field sections that we send on a connection.
#[derive(Debug)]
pub struct Encoder {
    table: Table<Link>,
    index: Index,
    /// The peer's SETTINGS_QPACK_MAX_TABLE_CAPACITY.
    peer_table_bytes_max: usize,
    /// The peer's SETTINGS_QPACK_BLOCKED_STREAMS.
    blocked_max: usize,
    /// The number of entries that were ever inserted.
    inserted: u64,
    /// The number of entries that the peer has acknowledged (the Known Received Count).
    received: u64,
    /// The sections that refer to the table and are not acknowledged, the oldest first.
    sections: VecDeque<Section>,
    /// The section that is written now.
    open: Section,
    /// The number of entries when the open section began.
    base: u64,
    /// Whether the open section may refer to entries that the peer may not have, once this is
    /// known.
    may_block: Option<bool>,
    /// Whether the last new line had no room, because sections use the oldest entries.
    is_crowded: bool,
    /// The beginning of an instruction of the peer's decoder.
    unfinished: Vec<u8>,
    out: Vec<u8>,
}

/// A section with references to the table.
#[derive(Clone, Copy, Debug, Default)]
struct Section {
    stream: u64,
    /// The number of entries that the section needs (the Required Insert Count). Zero if it does
    /// not refer to the table.
    required: u64,
    /// The oldest entry that it refers to.
    oldest: u64,
}

impl Default for Encoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Encoder {
    /// Creates an encoder that does not use a dynamic table until [`Self::set_peer`] is called.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            table: Table::new(0),
            index: Index::new(),
            peer_table_bytes_max: 0,
            blocked_max: 0,
            inserted: 0,
            received: 0,
            sections: VecDeque::new(),
            open: Section { stream: 0, required: 0, oldest: 0 },
            base: 0,
            may_block: None,
            is_crowded: false,
            unfinished: Vec::new(),
            out: Vec::new(),
        }
    }

    /// Applies the peer's SETTINGS. Must be called at most once, and not inside a section.
    pub fn set_peer(&mut self, table_bytes_max: u64, blocked_streams_max: u64) {
        self.peer_table_bytes_max = usize::try_from(table_bytes_max).unwrap_or(usize::MAX);
        self.blocked_max = usize::try_from(blocked_streams_max).unwrap_or(usize::MAX);
        let capacity = self.peer_table_bytes_max.min(TABLE_BYTES_MAX);
        if capacity >= ENTRY_BYTES {
            self.table.set_size_max(capacity);
            self.instruction(instruction::CAPACITY, capacity as u64);
        }
    }

    /// The memory that the table and the waiting instructions hold, in bytes.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.table.held_bytes()
            + self.index.held_bytes()
            + self.sections.capacity() * size_of::<Section>()
            + self.out.capacity()
    }

    /// The bytes for our encoder stream. The caller takes them out. They should be sent before the
    /// section.
    pub const fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// Begins a section of a stream.
    pub fn begin(&mut self, stream: u64) {
        self.open = Section { stream, required: 0, oldest: u64::MAX };
        self.base = self.inserted;
        self.may_block = None;
    }

    /// Ends the section, and appends its prefix to `out`. The prefix is sent before the lines (RFC
    /// 9204 4.5.1).
    pub fn end(&mut self, out: &mut Vec<u8>) {
        let Section { required, .. } = self.open;
        if required == 0 {
            return out.extend_from_slice(&[0, 0]);
        }
        self.sections.push_back(self.open);
        let range = 2 * entries_max(self.peer_table_bytes_max);
        integer::write_long(out, 0, 0xff, required % range + 1);
        match self.base.checked_sub(required) {
            Some(delta) => integer::write_long(out, 0, 0x7f, delta),
            None => integer::write_long(out, 0x80, 0x7f, required - self.base - 1),
        }
    }

    /// Executes instructions of the peer's decoder stream.
    ///
    /// # Errors
    ///
    /// After an error the encoder must not be used again.
    pub fn acknowledgements(&mut self, bytes: &[u8]) -> Result<(), QpackError> {
        if self.unfinished.is_empty() {
            let read = self.execute(bytes)?;
            self.unfinished.extend_from_slice(bytes.get(read..).unwrap_or_default());
        } else {
            // An unfinished instruction has at most ten bytes.
            let mut unfinished = std::mem::take(&mut self.unfinished);
            unfinished.extend_from_slice(bytes);
            let read = self.execute(&unfinished)?;
            unfinished.drain(..read);
            self.unfinished = unfinished;
        }
        Ok(())
    }

    fn execute(&mut self, bytes: &[u8]) -> Result<usize, QpackError> {
        let mut rest = bytes;
        while let Some((&first, after)) = rest.split_first() {
            let before = rest.len();
            rest = after;
            let (form, mask) = match first {
                0x80.. => answer::SECTION,
                0x40.. => answer::CANCELLED,
                _ => answer::INSERTED,
            };
            let number = match integer::read_long(first, mask, &mut rest) {
                Ok(number) => number,
                Err(DecodeError::Truncated) => return Ok(bytes.len() - before),
                Err(error) => return Err(QpackError::DecoderStream(error.what())),
            };
            match form {
                _ if (form, mask) == answer::SECTION => self.acknowledge(number)?,
                _ if (form, mask) == answer::CANCELLED => {
                    self.sections.retain(|section| section.stream != number)
                }
                _ => self.receive(number)?,
            }
        }
        Ok(bytes.len())
    }

    /// The peer has decoded the oldest section of a stream (RFC 9204 4.4.1).
    fn acknowledge(&mut self, stream: u64) -> Result<(), QpackError> {
        let at = self.sections.iter().position(|section| section.stream == stream);
        let section = at
            .and_then(|at| self.sections.remove(at))
            .ok_or(QpackError::DecoderStream("a section is acknowledged that was not sent"))?;
        self.received = self.received.max(section.required);
        Ok(())
    }

    /// The peer has received more entries (RFC 9204 4.4.3).
    fn receive(&mut self, more: u64) -> Result<(), QpackError> {
        let received = self.received.saturating_add(more);
        if more == 0 || received > self.inserted {
            let why = "the peer acknowledges entries that were not inserted";
            return Err(QpackError::DecoderStream(why));
        }
        self.received = received;
        Ok(())
    }

    fn instruction(&mut self, form: Form, number: u64) {
        integer::write_long(&mut self.out, form.0, form.1, number);
    }

    fn with_table(&mut self, out: &mut Vec<u8>, name_hash: u64, name: &[u8], value: &[u8]) {
        let line_hash = hash::short(hash::after(name_hash, value));
        if let Some(index) = statics::find_line(line_hash, name, value) {
            return indexed_static(out, index);
        }
        let is_line = |its_name: &[u8], its_value: &[u8]| its_name == name && its_value == value;
        let at = self.index.find(&self.table, Kind::Line, line_hash, is_line);
        match at {
            Some(at) if !self.is_draining(at) && self.may_refer_to(self.number(at)) => {
                self.indexed(out, self.number(at));
            }
            Some(at) => self.with_copies(out, at, [hash::short(name_hash), line_hash], name, value),
            None => self.insert(out, [hash::short(name_hash), line_hash], name, value),
        }
    }

    /// Writes a line whose newest entry drains, or is not known to have arrived. Refers to an older
    /// copy, if there is one.
    #[inline(never)]
    fn with_copies(
        &mut self,
        out: &mut Vec<u8>,
        mut at: usize,
        hashes: [u32; 2],
        name: &[u8],
        value: &[u8],
    ) {
        if self.is_draining(at) && self.duplicate(at, hashes, name, value) {
            at = 0;
        }
        let is_line = |its_name: &[u8], its_value: &[u8]| its_name == name && its_value == value;
        let hash = hashes[Kind::Line as usize];
        let mut copy = Some(at);
        while let Some(at) = copy {
            if !self.is_in_the_way(at) && self.may_refer_to(self.number(at)) {
                return self.indexed(out, self.number(at));
            }
            copy = self.index.find_older(&self.table, Kind::Line, hash, at, is_line);
        }
        self.literal_by(out, hashes[Kind::Name as usize], name, value, false);
    }

    /// Writes a line that is an entry.
    #[inline]
    fn indexed(&mut self, out: &mut Vec<u8>, number: u64) {
        self.refer_to(number);
        match self.base.checked_sub(number + 1) {
            Some(index) => integer::write_long(out, line::INDEXED.0, line::INDEXED.1, index),
            None => {
                let index = number - self.base;
                integer::write_long(out, line::POST_BASE.0, line::POST_BASE.1, index);
            }
        }
    }

    /// Whether an entry belongs to the older half of a table that is almost full, while sections
    /// are on their way. References would keep it, and after it no entry could be removed (RFC 9204
    /// 2.1.1.1). Without such sections, the oldest entry can always be removed.
    #[inline]
    fn is_draining(&self, at: usize) -> bool {
        at * 2 >= self.table.len()
            && self.sections.len() >= DRAINING_SECTIONS_MIN
            && self.table.size() * 8 > self.table.size_max() * 7
    }

    /// Whether new entries wait until this one, which is among the oldest, can be removed.
    fn is_in_the_way(&self, at: usize) -> bool {
        self.is_crowded && at * 8 >= self.table.len() * 7
    }

    /// Inserts an entry again that drains, if this removes only entries that no section uses.
    #[inline(never)]
    fn duplicate(&mut self, at: usize, hashes: [u32; 2], name: &[u8], value: &[u8]) -> bool {
        let has_room = self.has_room_for(name.len() + value.len() + ENTRY_BYTES);
        if has_room {
            self.instruction(instruction::DUPLICATE, at as u64);
            self.add(hashes, name, value);
        }
        has_room
    }

    /// Writes a line that is in no table. Inserts it if [`Self::has_room_for`] it, so that later
    /// sections can refer to it, and this one if it may block.
    #[inline(never)]
    fn insert(&mut self, out: &mut Vec<u8>, hashes: [u32; 2], name: &[u8], value: &[u8]) {
        let name_hash = hashes[Kind::Name as usize];
        if !self.has_room_for(name.len() + value.len() + ENTRY_BYTES) {
            self.is_crowded = true;
            return self.literal_by(out, name_hash, name, value, false);
        }
        let (pattern, mask) = instruction::NAMED;
        if let Some(index) = statics::find_name(name_hash, name) {
            let pattern = pattern | static_bit(instruction::NAMED);
            integer::write(&mut self.out, pattern, mask, index);
        } else if let Some(at) = self.find_name(name_hash, name) {
            integer::write(&mut self.out, pattern, mask, at);
        } else {
            let (pattern, mask) = instruction::LITERAL;
            string::write_shorter_as(&mut self.out, pattern, mask, name);
        }
        string::write_shorter(&mut self.out, value);
        self.add(hashes, name, value);
        let number = self.inserted - 1;
        if self.may_refer_to(number) {
            self.indexed(out, number);
        } else {
            self.literal_by(out, name_hash, name, value, false);
        }
    }

    /// Adds an entry to the table, after its instruction.
    fn add(&mut self, hashes: [u32; 2], name: &[u8], value: &[u8]) {
        let link = self.index.link(&mut self.table, hashes);
        self.table.insert(Name::Bytes(name), value, link);
        self.inserted += 1;
        self.is_crowded = false;
    }

    /// Whether an entry of this size fits when unused entries are removed. An entry is in use until
    /// the peer has acknowledged it, and all sections that refer to it (RFC 9204 2.1.1). An entry
    /// of more than three quarters of the table would remove most other entries.
    fn has_room_for(&self, size: usize) -> bool {
        let capacity = self.table.size_max();
        if size * 4 > capacity * 3 || self.sections.len() >= SECTIONS_MAX {
            return false;
        }
        let mut free = capacity - self.table.size();
        if size <= free {
            return true;
        }
        let oldest = self.sections.iter().map(|section| section.oldest);
        let in_use = oldest.fold(self.received.min(self.open.oldest), u64::min);
        let mut at = self.table.len();
        while size > free && at > 0 {
            at -= 1;
            if self.number(at) >= in_use {
                return false;
            }
            free += self.table.get(at).map_or(0, |line| line.0.len() + line.1.len() + ENTRY_BYTES);
        }
        size <= free
    }

    /// The number (the absolute index) of an entry. The newest entry has index 0.
    #[inline]
    fn number(&self, at: usize) -> u64 {
        self.inserted - 1 - at as u64
    }

    /// Whether the open section may refer to the entry. It may block the stream if the peer has not
    /// acknowledged the entry.
    #[inline]
    fn may_refer_to(&mut self, number: u64) -> bool {
        if self.sections.len() >= SECTIONS_MAX {
            return false;
        }
        number < self.received || self.may_block()
    }

    #[cold]
    fn may_block(&mut self) -> bool {
        if let Some(may) = self.may_block {
            return may;
        }
        let Section { stream, .. } = self.open;
        let blocking = self.sections.iter().filter(|section| section.required > self.received);
        // A stream with several sections counts once for each, so this is never too many.
        let may = blocking.filter(|section| section.stream != stream).count() < self.blocked_max;
        self.may_block = Some(may);
        may
    }

    #[inline]
    fn refer_to(&mut self, number: u64) {
        self.open.required = self.open.required.max(number + 1);
        self.open.oldest = self.open.oldest.min(number);
    }

    /// The index of an entry with this name.
    #[inline]
    fn find_name(&self, name_hash: u32, name: &[u8]) -> Option<usize> {
        self.index.find(&self.table, Kind::Name, name_hash, |its, _| its == name)
    }

    #[inline]
    fn literal(&mut self, out: &mut Vec<u8>, hash: u64, name: &[u8], value: &[u8], never: bool) {
        self.literal_by(out, hash::short(hash), name, value, never);
    }

    /// Writes a line that is not indexed. Its strings are not Huffman coded, because Huffman coding
    /// costs more CPU time than the saved bytes are worth.
    fn literal_by(
        &mut self,
        out: &mut Vec<u8>,
        name_hash: u32,
        name: &[u8],
        value: &[u8],
        never: bool,
    ) {
        let bit = |bit| if never { bit } else { 0 };
        if let Some(index) = statics::find_name(name_hash, name) {
            let (pattern, mask) = line::NAMED;
            let pattern = pattern | static_bit(line::NAMED) | bit(line::NAMED_NEVER);
            integer::write(out, pattern, mask, index);
            return string::write_plain(out, value);
        }
        let at = self.find_name(name_hash, name).filter(|at| !self.is_in_the_way(*at));
        let number = at.map(|at| self.number(at));
        match number.filter(|number| self.may_refer_to(*number)) {
            Some(number) => {
                self.refer_to(number);
                if let Some(index) = self.base.checked_sub(number + 1) {
                    let (pattern, mask) = line::NAMED;
                    integer::write_long(out, pattern | bit(line::NAMED_NEVER), mask, index);
                } else {
                    let (pattern, mask) = line::NAMED_POST_BASE;
                    let pattern = pattern | bit(line::NAMED_POST_BASE_NEVER);
                    integer::write_long(out, pattern, mask, number - self.base);
                }
            }
            None => {
                let (pattern, mask) = line::LITERAL;
                string::write_plain_as(out, pattern | bit(line::LITERAL_NEVER), mask, name);
            }
        }
        string::write_plain(out, value);
    }
}

impl FieldEncoder for Encoder {
    /// Writes a field line of the open section.
    #[inline]
    fn field(&mut self, out: &mut Vec<u8>, name: &[u8], value: &[u8], indexing: Indexing) {
        let name_hash = hash::of_name(name);
        match indexing {
            Indexing::Table => self.with_table(out, name_hash, name, value),
            Indexing::Never => self.literal(out, name_hash, name, value, true),
            Indexing::Without => {
                let line_hash = hash::short(hash::after(name_hash, value));
                match statics::find_line(line_hash, name, value) {
                    Some(index) => indexed_static(out, index),
                    None => self.literal(out, name_hash, name, value, false),
                }
            }
        }
    }
}

#[inline]
fn indexed_static(out: &mut Vec<u8>, index: usize) {
    let (pattern, mask) = line::INDEXED;
    integer::write(out, pattern | static_bit(line::INDEXED), mask, index);
}
