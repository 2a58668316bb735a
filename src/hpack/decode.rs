//! Decodes header blocks (RFC 7541 3 and 6).

use std::cell::Cell;

use super::string::Literal;
use super::table::{Name, Table};
use super::{DecodeError, huffman, integer, statics};

/// Receives the field lines of a block.
pub trait Fields {
    /// Receives a field line. Its name and value are not checked. A `never_indexed` line must be
    /// forwarded as never indexed (RFC 7541 6.2.3).
    ///
    /// One byte of the block can decode to a line as large as the table, so a receiver must limit
    /// the bytes that it keeps.
    fn field(&mut self, name: &[u8], value: &[u8], never_indexed: bool);
}

/// Decodes the header blocks of one direction of a connection.
#[derive(Debug)]
pub struct Decoder {
    table: Table,
    /// Our SETTINGS_HEADER_TABLE_SIZE.
    table_bytes_max: usize,
}

/// Forms of a literal (RFC 7541 6.2).
#[derive(Clone, Copy)]
enum Form {
    Indexed,
    NotIndexed { never: bool },
}

/// The most memory that a thread keeps for decoded Huffman strings.
const SCRATCH_BYTES_MAX: usize = 16 * 1024;

thread_local! {
    /// The decoded Huffman strings of a line. Connections share it, because most of them are idle.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

impl Decoder {
    /// Creates a decoder with an empty table of at most `table_bytes_max` bytes. The default is
    /// 4096. Another value must be sent to the peer in SETTINGS before the first block of the peer.
    #[must_use]
    pub const fn new(table_bytes_max: usize) -> Self {
        Self { table: Table::new(table_bytes_max), table_bytes_max }
    }

    /// The memory that the table holds, in bytes.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.table.held_bytes()
    }

    /// Decodes a complete header block. Calls `fields` for each field line.
    ///
    /// # Errors
    ///
    /// After an error the decoder must not be used again. `fields` has received the lines before
    /// the error.
    pub fn decode(&mut self, block: &[u8], fields: &mut impl Fields) -> Result<(), DecodeError> {
        let mut rest = block;
        self.update_sizes(&mut rest)?;
        while let Some((&first, after)) = rest.split_first() {
            rest = after;
            match first {
                0x80.. => {
                    let index = integer::read(first, 0x7f, &mut rest)?;
                    let (name, value) = self.line(index)?;
                    fields.field(name, value, false);
                }
                0x40.. => self.literal(first, 0x3f, Form::Indexed, &mut rest, fields)?,
                0x20.. => return Err(DecodeError::SizeUpdateLate),
                _ => {
                    let form = Form::NotIndexed { never: first & 0x10 != 0 };
                    self.literal(first, 0x0f, form, &mut rest, fields)?;
                }
            }
        }
        Ok(())
    }

    /// Reads the table size updates at the beginning of a block (RFC 7541 4.2 and 6.3).
    #[inline]
    fn update_sizes(&mut self, rest: &mut &[u8]) -> Result<(), DecodeError> {
        while let Some((&first @ 0x20..0x40, after)) = rest.split_first() {
            *rest = after;
            let size = integer::read(first, 0x1f, rest)?;
            if size > self.table_bytes_max {
                return Err(DecodeError::SizeUpdateTooLarge);
            }
            self.table.set_size_max(size);
        }
        Ok(())
    }

    /// Returns the field line with this index in the static or dynamic table (RFC 7541 2.3.3).
    #[inline]
    fn line(&self, index: usize) -> Result<(&[u8], &[u8]), DecodeError> {
        let at = index.wrapping_sub(1);
        let line = match statics::LINES.get(at) {
            Some(line) => Some(*line),
            None => self.table.get(at.wrapping_sub(statics::LINES.len())),
        };
        line.ok_or(DecodeError::UnknownIndex)
    }

    fn literal(
        &mut self,
        first: u8,
        mask: u8,
        form: Form,
        rest: &mut &[u8],
        fields: &mut impl Fields,
    ) -> Result<(), DecodeError> {
        let index = integer::read(first, mask, rest)?;
        let mut is_huffman = false;
        let name = if index == 0 {
            let name = Literal::read(rest)?;
            is_huffman = name.is_huffman;
            Name::Bytes(name.bytes)
        } else {
            self.name(index)?
        };
        let value = Literal::read(rest)?;
        if !is_huffman && !value.is_huffman {
            self.deliver(name, value.bytes, form, fields);
            return Ok(());
        }
        decoded(name, is_huffman, value, |name, value| self.deliver(name, value, form, fields))
    }

    /// The name with this index in the static or dynamic table.
    #[inline]
    fn name(&self, index: usize) -> Result<Name<'static>, DecodeError> {
        if let Some(line) = statics::LINES.get(index - 1) {
            return Ok(Name::Bytes(line.0));
        }
        let at = index - 1 - statics::LINES.len();
        if at < self.table.len() { Ok(Name::Entry(at)) } else { Err(DecodeError::UnknownIndex) }
    }

    #[inline]
    fn deliver(&mut self, name: Name<'_>, value: &[u8], form: Form, fields: &mut impl Fields) {
        let bytes = match name {
            Name::Bytes(bytes) => bytes,
            Name::Entry(at) => self.table.get(at).map_or(&b""[..], |line| line.0),
        };
        match form {
            Form::NotIndexed { never } => fields.field(bytes, value, never),
            Form::Indexed => {
                fields.field(bytes, value, false);
                self.table.insert(name, value, ());
            }
        }
    }
}

/// Decodes the name and the value with the Huffman code, if they are Huffman strings. Passes them
/// to `then`.
pub(super) fn decoded<R>(
    name: Name<'_>,
    name_is_huffman: bool,
    value: Literal<'_>,
    then: impl FnOnce(Name<'_>, &[u8]) -> R,
) -> Result<R, DecodeError> {
    let mut scratch = SCRATCH.take();
    let pair = decode_pair(name, name_is_huffman, value, &mut scratch);
    let done = pair.map(|(name, value)| then(name, value));
    if scratch.len() <= SCRATCH_BYTES_MAX {
        SCRATCH.set(scratch);
    }
    done
}

fn decode_pair<'a>(
    name: Name<'a>,
    name_is_huffman: bool,
    value: Literal<'a>,
    scratch: &'a mut Vec<u8>,
) -> Result<(Name<'a>, &'a [u8]), DecodeError> {
    let coded = match name {
        Name::Bytes(bytes) if name_is_huffman => bytes,
        _ => b"",
    };
    let coded_value = if value.is_huffman { value.bytes } else { b"" };
    let room = huffman::room(coded.len()) + huffman::room(coded_value.len());
    if scratch.len() < room {
        scratch.resize(room, 0);
    }
    let (for_name, for_value) = scratch.split_at_mut(huffman::room(coded.len()));
    let name = if name_is_huffman {
        let len = huffman::decode(coded, for_name)?;
        Name::Bytes(for_name.get(..len).unwrap_or_default())
    } else {
        name
    };
    if !value.is_huffman {
        return Ok((name, value.bytes));
    }
    let len = huffman::decode(coded_value, for_value)?;
    Ok((name, for_value.get(..len).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hpack::examples::{self, Example, Line, Lines};

    fn decoded(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<Line>, DecodeError> {
        let mut lines = Lines::default();
        decoder.decode(block, &mut lines)?;
        Ok(lines.0)
    }

    fn line(name: &str, value: &str) -> Line {
        (name.into(), value.into(), false)
    }

    fn table_bytes(decoder: &Decoder) -> usize {
        let lines = (0..decoder.table.len()).filter_map(|at| decoder.table.get(at));
        lines.map(|(name, value)| name.len() + value.len() + 32).sum()
    }

    fn check(decoder: &mut Decoder, example: &Example) {
        let never = example.section == "C.2.3";
        let wanted: Vec<Line> = example
            .lines
            .iter()
            .map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec(), never))
            .collect();
        let section = example.section;
        assert_eq!(decoded(decoder, &example.bytes()), Ok(wanted), "{section}");
        assert_eq!(table_bytes(decoder), example.table_bytes, "{section}");
    }

    #[test]
    fn the_examples_of_the_rfc() {
        for example in &examples::SINGLE {
            check(&mut Decoder::new(4096), example);
        }
        for examples in [examples::PLAIN_REQUESTS, examples::HUFFMAN_REQUESTS] {
            let mut decoder = Decoder::new(4096);
            examples.iter().for_each(|example| check(&mut decoder, example));
        }
        for examples in [examples::PLAIN_RESPONSES, examples::HUFFMAN_RESPONSES] {
            let mut decoder = Decoder::new(256);
            examples.iter().for_each(|example| check(&mut decoder, example));
        }
    }

    #[test]
    fn blocks_that_are_refused() {
        use DecodeError::*;
        let cases: [(&[u8], DecodeError); 27] = [
            // Indices without an entry: zero, the first after each table, and a large one.
            (&[0x80], UnknownIndex),
            (&[0x82, 0xbe], UnknownIndex),
            (&[0x40, 1, b'a', 1, b'b', 0xbe, 0xbf], UnknownIndex),
            (&[0xff, 0x80, 0x80, 0x40], UnknownIndex),
            (&[0x7e, 1, b'b'], UnknownIndex),
            (&[0x0f, 0x2f, 1, b'b'], UnknownIndex),
            (&[0x1f, 0x2f, 1, b'b'], UnknownIndex),
            // Blocks that end early.
            (&[0xff], Truncated),
            (&[0xff, 0x80], Truncated),
            (&[0x3f], Truncated),
            (&[0x7f], Truncated),
            (&[0x40], Truncated),
            (&[0x40, 1, b'a'], Truncated),
            (&[0x04], Truncated),
            (&[0x04, 0x7f], Truncated),
            (&[0x40, 2, b'a'], StringTooLong),
            (&[0x04, 3, b'/', b'a'], StringTooLong),
            (&[0x04, 0xff, 0x80, 0x80, 0x80, 0x7f], StringTooLong),
            // Integers without an end.
            (&[0xff, 0x80, 0x80, 0x80, 0x80, 0x01], IntegerTooLarge),
            (&[0x04, 0x7f, 0xff, 0xff, 0xff, 0xff, 0x01], IntegerTooLarge),
            (&[0x3f, 0xff, 0xff, 0xff, 0xff, 0x01], IntegerTooLarge),
            // Huffman strings, as a name and as a value.
            (&[0x00, 0x84, 0xff, 0xff, 0xff, 0xff, 0], EndOfString),
            (&[0x04, 0x82, 0x07, 0xff], PaddingTooLong),
            (&[0x04, 0x81, 0x00], PaddingNotOnes),
            // Table size updates: above our limit, and after a field line.
            (&[0x3f, 0xe2, 0x1f], SizeUpdateTooLarge),
            (&[0x82, 0x20], SizeUpdateLate),
            (&[0x20, 0x04, 1, b'/', 0x20], SizeUpdateLate),
        ];
        for (block, error) in cases {
            assert_eq!(decoded(&mut Decoder::new(4096), block), Err(error), "{block:x?}");
            assert!(!error.what().is_empty());
        }
    }

    #[test]
    fn size_updates_begin_a_block() {
        let mut decoder = Decoder::new(4096);
        let insert = [0x40, 1, b'a', 1, b'b'];
        assert_eq!(decoded(&mut decoder, &insert), Ok(vec![line("a", "b")]));
        assert_eq!(decoded(&mut decoder, &[0xbe]), Ok(vec![line("a", "b")]));
        // The table size goes to zero and back to 4096: the entry is removed, and a new one fits.
        let block = [&[0x20, 0x3f, 0xe1, 0x1f][..], &insert, &[0xbe]].concat();
        assert_eq!(decoded(&mut decoder, &block), Ok(vec![line("a", "b"), line("a", "b")]));
        assert_eq!(decoder.table.len(), 1);
        // A table of size zero keeps nothing.
        assert_eq!(decoded(&mut decoder, &[0x20]), Ok(vec![]));
        assert_eq!(decoded(&mut decoder, &insert), Ok(vec![line("a", "b")]));
        assert_eq!(decoded(&mut decoder, &[0xbe]), Err(DecodeError::UnknownIndex));
    }

    #[test]
    fn a_name_may_be_the_one_of_the_entry_that_it_removes() {
        // Two entries of 34 bytes fill the table of 70.
        let mut decoder = Decoder::new(70);
        decoded(&mut decoder, b"\x40\x01a\x011\x40\x01b\x012").unwrap();
        assert_eq!(decoded(&mut decoder, b"\x7f\x00\x013"), Ok(vec![line("a", "3")]));
        assert_eq!(decoded(&mut decoder, b"\xbe\xbf"), Ok(vec![line("a", "3"), line("b", "2")]));
        // The entry is larger than the table: the line is decoded, and the table is empty.
        let block = [b"\x7e\x3c".as_slice(), &[b'x'; 60]].concat();
        assert_eq!(decoded(&mut decoder, &block), Ok(vec![line("a", &"x".repeat(60))]));
        assert_eq!(decoder.table.len(), 0);
    }

    #[test]
    fn large_huffman_strings_leave_no_memory_behind() {
        // 40 000 times the letter "a", of five bits: 00011.
        let mut block = vec![0x04];
        integer::write(&mut block, 0x80, 0x7f, 25_000);
        block
            .extend([0b0001_1000, 0b1100_0110, 0b0011_0001, 0b1000_1100, 0b0110_0011].repeat(5000));
        let lines = decoded(&mut Decoder::new(4096), &block);
        assert_eq!(lines, Ok(vec![line(":path", &"a".repeat(40_000))]));
        let kept = SCRATCH.take();
        assert!(kept.capacity() <= SCRATCH_BYTES_MAX, "{}", kept.capacity());
    }
}
