//! Decodes field sections, and the encoder stream of the peer (RFC 9204 4.3, 4.5).

use super::{Form, QpackError, answer, entries_max, instruction, line, static_bit, statics};
use crate::hpack::decode::decoded;
use crate::hpack::string::Literal;
use crate::hpack::table::{ENTRY_BYTES, Name, Table};
use crate::hpack::{DecodeError, Fields, integer};

/// Whether a section was decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All field lines were passed on.
    Done,
    /// The section needs entries that have not arrived. Decode it again when
    /// [`Decoder::next_ready`] returns its stream.
    Blocked,
}

/// Decodes the field sections that a peer sends on a connection.
#[derive(Debug)]
pub struct Decoder {
    pub(super) table: Table,
    /// Our SETTINGS_QPACK_MAX_TABLE_CAPACITY.
    table_bytes_max: usize,
    /// Our SETTINGS_QPACK_BLOCKED_STREAMS.
    blocked_max: usize,
    /// The number of entries that were ever inserted.
    inserted: u64,
    /// The number of entries that the peer's encoder knows to be here.
    acknowledged: u64,
    /// The beginning of an instruction that has not arrived completely.
    unfinished: Vec<u8>,
    /// The blocked streams, each with the number of entries that it needs.
    blocked: Vec<(u64, u64)>,
    /// The number of instructions since the last call of [`Decoder::take_count`].
    count: u64,
    out: Vec<u8>,
}

/// The reason why an instruction is not executed.
enum Stop {
    /// The rest of the instruction has not arrived.
    Unfinished,
    Wrong(&'static str),
}

impl From<DecodeError> for Stop {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::Truncated | DecodeError::StringTooLong => Self::Unfinished,
            error => Self::Wrong(error.what()),
        }
    }
}

/// The prefix of a section (RFC 9204 4.5.1).
#[derive(Clone, Copy)]
struct Section {
    /// The number of entries that the section needs (the Required Insert Count).
    required: u64,
    base: u64,
}

/// A section refers to an entry that is not in the table, or that its prefix does not count.
const UNKNOWN_ENTRY: QpackError =
    QpackError::Section("the field section refers to an entry that no table has");

/// An instruction refers to an entry that is not in the table.
const UNKNOWN_NAME: Stop = Stop::Wrong("an instruction refers to an entry that no table has");

impl Decoder {
    /// Creates a decoder with an empty table. The arguments are our SETTINGS.
    #[must_use]
    pub const fn new(table_bytes_max: usize, blocked_streams_max: usize) -> Self {
        Self {
            // The capacity is 0 until the peer sets it (RFC 9204 3.2.3).
            table: Table::new(0),
            table_bytes_max,
            blocked_max: blocked_streams_max,
            inserted: 0,
            acknowledged: 0,
            unfinished: Vec::new(),
            blocked: Vec::new(),
            count: 0,
            out: Vec::new(),
        }
    }

    /// The memory that the table, unfinished instructions and waiting answers hold, in bytes.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.table.held_bytes() + self.unfinished.capacity() + self.out.capacity()
    }

    /// The bytes for our decoder stream. The caller takes them out.
    pub const fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// Returns the number of instructions that were executed since the last call.
    pub const fn take_count(&mut self) -> u64 {
        std::mem::replace(&mut self.count, 0)
    }

    /// Executes instructions of the peer's encoder stream, and acknowledges inserted entries.
    ///
    /// # Errors
    ///
    /// After an error the decoder must not be used again.
    pub fn instructions(&mut self, bytes: &[u8]) -> Result<(), QpackError> {
        if self.unfinished.is_empty() {
            let read = self.execute(bytes)?;
            self.unfinished.extend_from_slice(bytes.get(read..).unwrap_or_default());
        } else {
            let mut unfinished = std::mem::take(&mut self.unfinished);
            unfinished.extend_from_slice(bytes);
            let read = self.execute(&unfinished)?;
            unfinished.drain(..read);
            // An idle decoder holds no memory for instructions.
            if !unfinished.is_empty() {
                self.unfinished = unfinished;
            }
        }
        // Huffman coding makes a string at most four times longer.
        if self.unfinished.len() > 4 * self.table_bytes_max + 64 {
            return Err(QpackError::EncoderStream("an instruction is larger than the table"));
        }
        self.acknowledge_entries();
        Ok(())
    }

    /// Writes an Insert Count Increment for the entries that no answer has acknowledged.
    fn acknowledge_entries(&mut self) {
        let more = self.inserted - self.acknowledged;
        if more > 0 {
            self.acknowledged = self.inserted;
            self.answer(answer::INSERTED, more);
        }
    }

    fn answer(&mut self, form: Form, number: u64) {
        integer::write_long(&mut self.out, form.0, form.1, number);
    }

    /// Executes the complete instructions in `bytes`. Returns the number of their bytes.
    fn execute(&mut self, bytes: &[u8]) -> Result<usize, QpackError> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let before = rest.len();
            match self.instruction(&mut rest) {
                Ok(()) => self.count += 1,
                Err(Stop::Unfinished) => return Ok(bytes.len() - before),
                Err(Stop::Wrong(why)) => return Err(QpackError::EncoderStream(why)),
            }
        }
        Ok(bytes.len())
    }

    /// Executes the instruction at the front of `rest` (RFC 9204 4.3).
    fn instruction(&mut self, rest: &mut &[u8]) -> Result<(), Stop> {
        let (&first, after) = rest.split_first().ok_or(Stop::Unfinished)?;
        *rest = after;
        match first {
            0x80.. => {
                let index = integer::read(first, instruction::NAMED.1, rest)?;
                let name = match first & static_bit(instruction::NAMED) {
                    0 if index < self.table.len() => Name::Entry(index),
                    0 => return Err(UNKNOWN_NAME),
                    _ => Name::Bytes(statics::LINES.get(index).ok_or(UNKNOWN_NAME)?.0),
                };
                let value = Literal::read(rest)?;
                self.insert(name, false, value)
            }
            0x40.. => {
                let name = Literal::read_from(first, instruction::LITERAL.1, rest)?;
                let value = Literal::read(rest)?;
                self.insert(Name::Bytes(name.bytes), name.is_huffman, value)
            }
            0x20.. => {
                let capacity = integer::read(first, instruction::CAPACITY.1, rest)?;
                if capacity > self.table_bytes_max {
                    let why = "the capacity is above SETTINGS_QPACK_MAX_TABLE_CAPACITY";
                    return Err(Stop::Wrong(why));
                }
                self.table.set_size_max(capacity);
                Ok(())
            }
            _ => {
                let index = integer::read(first, instruction::DUPLICATE.1, rest)?;
                let value = self.table.get(index).ok_or(UNKNOWN_NAME)?.1.to_vec();
                let value = Literal { bytes: &value, is_huffman: false };
                self.insert(Name::Entry(index), false, value)
            }
        }
    }

    fn insert(
        &mut self,
        name: Name<'_>,
        name_is_huffman: bool,
        value: Literal<'_>,
    ) -> Result<(), Stop> {
        if !name_is_huffman && !value.is_huffman {
            return self.insert_plain(name, value.bytes);
        }
        decoded(name, name_is_huffman, value, |name, value| self.insert_plain(name, value))?
    }

    fn insert_plain(&mut self, name: Name<'_>, value: &[u8]) -> Result<(), Stop> {
        let name_bytes = match name {
            Name::Bytes(name) => name.len(),
            Name::Entry(index) => self.table.get(index).map_or(0, |line| line.0.len()),
        };
        if name_bytes + value.len() + ENTRY_BYTES > self.table.size_max() {
            return Err(Stop::Wrong("an entry is larger than the capacity of the table"));
        }
        self.table.insert(name, value, ());
        self.inserted += 1;
        Ok(())
    }

    /// Decodes a complete field section of a stream. Calls `fields` for each field line.
    ///
    /// # Errors
    ///
    /// After an error the decoder must not be used again. `fields` has received the lines before
    /// the error.
    pub fn decode(
        &mut self,
        stream: u64,
        block: &[u8],
        fields: &mut impl Fields,
    ) -> Result<Outcome, QpackError> {
        let mut rest = block;
        let section = self.prefix(&mut rest)?;
        if section.required > self.inserted {
            return self.block(stream, section.required);
        }
        while !rest.is_empty() {
            self.line(section, &mut rest, fields)?;
        }
        if section.required > 0 {
            self.answer(answer::SECTION, stream);
            self.acknowledged = self.acknowledged.max(section.required);
        }
        Ok(Outcome::Done)
    }

    fn block(&mut self, stream: u64, required: u64) -> Result<Outcome, QpackError> {
        if !self.blocked.iter().any(|(blocked, _)| *blocked == stream) {
            if self.blocked.len() >= self.blocked_max {
                let why = "more streams are blocked than SETTINGS_QPACK_BLOCKED_STREAMS";
                return Err(QpackError::Section(why));
            }
            self.blocked.push((stream, required));
        }
        Ok(Outcome::Blocked)
    }

    /// Returns a blocked stream whose entries have arrived. Its section must be decoded again.
    pub fn next_ready(&mut self) -> Option<u64> {
        let at = self.blocked.iter().position(|(_, required)| *required <= self.inserted)?;
        Some(self.blocked.swap_remove(at).0)
    }

    /// Records that a stream ends before all its sections were decoded (RFC 9204 2.2.2.2).
    pub fn cancel(&mut self, stream: u64) {
        self.blocked.retain(|(blocked, _)| *blocked != stream);
        if self.table_bytes_max > 0 {
            self.answer(answer::CANCELLED, stream);
        }
    }

    /// Reads the prefix of a section (RFC 9204 4.5.1).
    fn prefix(&self, rest: &mut &[u8]) -> Result<Section, QpackError> {
        let required = self.required(read_long(0xff, rest)?.1)?;
        let (first, delta) = read_long(0x7f, rest)?;
        let base = match first & 0x80 {
            0 => required.checked_add(delta),
            _ => required.checked_sub(delta).and_then(|base| base.checked_sub(1)),
        };
        let base = base.ok_or(QpackError::Section("the base of the field section is wrong"))?;
        Ok(Section { required, base })
    }

    /// Decodes the Required Insert Count, which is sent modulo a number of entries (RFC 9204
    /// 4.5.1.1).
    fn required(&self, encoded: u64) -> Result<u64, QpackError> {
        const WRONG: QpackError = QpackError::Section("the Required Insert Count is wrong");
        if encoded == 0 {
            return Ok(0);
        }
        let entries = entries_max(self.table_bytes_max);
        let range = 2 * entries;
        if encoded > range {
            return Err(WRONG);
        }
        let most = self.inserted + entries;
        let wrapped = most / range * range;
        let mut required = wrapped + encoded - 1;
        if required > most {
            required = required.checked_sub(range).ok_or(WRONG)?;
        }
        if required == 0 { Err(WRONG) } else { Ok(required) }
    }

    /// Reads a field line (RFC 9204 4.5.2 to 4.5.6).
    fn line(
        &self,
        section: Section,
        rest: &mut &[u8],
        fields: &mut impl Fields,
    ) -> Result<(), QpackError> {
        let (&first, after) = rest.split_first().ok_or(DecodeError::Truncated)?;
        *rest = after;
        match first {
            0x80.. => {
                let (name, value) = self.indexed(section, first, line::INDEXED, rest)?;
                fields.field(name, value, false);
            }
            0x40.. => {
                let (name, _) = self.indexed(section, first, line::NAMED, rest)?;
                let never = first & line::NAMED_NEVER != 0;
                return deliver(name, false, rest, never, fields);
            }
            0x20.. => {
                let name = Literal::read_from(first, line::LITERAL.1, rest)?;
                let never = first & line::LITERAL_NEVER != 0;
                return deliver(name.bytes, name.is_huffman, rest, never, fields);
            }
            0x10.. => {
                let (name, value) = self.post_base(section, first, line::POST_BASE, rest)?;
                fields.field(name, value, false);
            }
            _ => {
                let (name, _) = self.post_base(section, first, line::NAMED_POST_BASE, rest)?;
                let never = first & line::NAMED_POST_BASE_NEVER != 0;
                return deliver(name, false, rest, never, fields);
            }
        }
        Ok(())
    }

    /// The line of the static or dynamic table with the index that begins in `first`.
    #[inline]
    fn indexed(
        &self,
        section: Section,
        first: u8,
        form: Form,
        rest: &mut &[u8],
    ) -> Result<(&[u8], &[u8]), QpackError> {
        let index = integer::read(first, form.1, rest)?;
        if first & static_bit(form) != 0 {
            return statics::LINES.get(index).copied().ok_or(UNKNOWN_ENTRY);
        }
        let number = section.base.checked_sub(index as u64 + 1).ok_or(UNKNOWN_ENTRY)?;
        self.entry(section, number)
    }

    /// The entry that is `index` entries after the base.
    fn post_base(
        &self,
        section: Section,
        first: u8,
        form: Form,
        rest: &mut &[u8],
    ) -> Result<(&[u8], &[u8]), QpackError> {
        let index = integer::read(first, form.1, rest)?;
        self.entry(section, section.base.checked_add(index as u64).ok_or(UNKNOWN_ENTRY)?)
    }

    /// The entry with this number (the absolute index).
    #[inline]
    fn entry(&self, section: Section, number: u64) -> Result<(&[u8], &[u8]), QpackError> {
        if number >= section.required {
            return Err(UNKNOWN_ENTRY);
        }
        // The section is not blocked, so `required` is at most `inserted`.
        self.table.get((self.inserted - 1 - number) as usize).ok_or(UNKNOWN_ENTRY)
    }
}

/// Reads an integer of a prefix. Returns its first byte, too.
fn read_long(mask: u8, rest: &mut &[u8]) -> Result<(u8, u64), DecodeError> {
    let (&first, after) = rest.split_first().ok_or(DecodeError::Truncated)?;
    *rest = after;
    Ok((first, integer::read_long(first, mask, rest)?))
}

/// Reads the value of a literal, and delivers the line.
fn deliver(
    name: &[u8],
    name_is_huffman: bool,
    rest: &mut &[u8],
    never: bool,
    fields: &mut impl Fields,
) -> Result<(), QpackError> {
    let value = Literal::read(rest)?;
    if !name_is_huffman && !value.is_huffman {
        fields.field(name, value.bytes, never);
        return Ok(());
    }
    decoded(Name::Bytes(name), name_is_huffman, value, |name, value| {
        if let Name::Bytes(name) = name {
            fields.field(name, value, never);
        }
    })?;
    Ok(())
}
