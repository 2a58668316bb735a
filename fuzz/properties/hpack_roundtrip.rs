//! HPACK: our decoder and another one read the field lines that our encoder wrote, even after
//! evictions and changes of the table's size.

use ringway::hpack::{Decoder, Encoder, Fields, Indexing};

/// A field line: name, value, and whether it is never indexed.
pub type Line = (Vec<u8>, Vec<u8>, bool);

/// The lines of a block.
#[derive(Default)]
pub struct Lines(pub Vec<Line>);

impl Fields for Lines {
    fn field(&mut self, name: &[u8], value: &[u8], never_indexed: bool) {
        self.0.push((name.to_vec(), value.to_vec(), never_indexed));
    }
}

/// Names from the static table and other names. There are few, so that field lines repeat.
const NAMES: [&[u8]; 15] = [
    b":method",
    b":path",
    b":scheme",
    b":status",
    b":authority",
    b"accept-encoding",
    b"content-type",
    b"date",
    b"cookie",
    b"via",
    b"x-a",
    b"x-b",
    b"x-request-id",
    b"grpc-status",
    b"",
];

/// Checks the property for `script`: a list of table sizes, ends of blocks, and field lines.
pub fn holds(mut script: &[u8]) {
    let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new(4096));
    let mut other = loona_hpack::Decoder::new();
    other.set_max_allowed_table_size(4096);
    let (mut block, mut wanted) = (Vec::new(), Vec::new());
    encoder.begin(&mut block);
    while let Some(step) = byte(&mut script) {
        match step >> 5 {
            // The change may come inside a block. Then the next block begins with the update.
            0 => {
                let size = byte(&mut script).unwrap_or_default();
                encoder.set_table_bytes_max(u32::from(size) * 24);
            }
            1 => {
                check(&mut decoder, &mut other, &block, &wanted);
                block.clear();
                wanted.clear();
                encoder.begin(&mut block);
            }
            form => {
                let name = match NAMES.get(usize::from(step & 15)) {
                    Some(name) => name.to_vec(),
                    None => text(&mut script),
                };
                let value = text(&mut script);
                let indexing = match form {
                    2 => Indexing::Never,
                    3 => Indexing::Without,
                    _ => Indexing::Table,
                };
                encoder.field(&mut block, &name, &value, indexing);
                wanted.push((name, value, indexing == Indexing::Never));
            }
        }
    }
    check(&mut decoder, &mut other, &block, &wanted);
    assert!(encoder.held_bytes() <= 16 * 1024, "{}", encoder.held_bytes());
}

fn check(
    decoder: &mut Decoder,
    other: &mut loona_hpack::Decoder<'_>,
    block: &[u8],
    wanted: &[Line],
) {
    let mut lines = Lines::default();
    assert_eq!(decoder.decode(block, &mut lines), Ok(()));
    assert_eq!(lines.0, wanted);
    let mut read = Vec::new();
    let result = other
        .decode_with_cb(block, |name, value| read.push((name.into_owned(), value.into_owned())));
    // The other decoder refuses a block with a size update and without a field line.
    let empty = wanted.is_empty() && !block.is_empty();
    let expected =
        if empty { Err(loona_hpack::decoder::DecoderError::SizeUpdateAtEnd) } else { Ok(()) };
    assert_eq!(result, expected);
    assert!(read.iter().map(|(name, value)| (name, value)).eq(wanted.iter().map(|l| (&l.0, &l.1))));
}

/// A text: some bytes of the script, or one byte many times.
fn text(script: &mut &[u8]) -> Vec<u8> {
    let len = usize::from(byte(script).unwrap_or_default());
    if len >= 0x80 {
        return vec![byte(script).unwrap_or(b'a'); (len & 0x7f) * 32];
    }
    let (text, rest) = script.split_at((len & 31).min(script.len()));
    *script = rest;
    text.to_vec()
}

fn byte(script: &mut &[u8]) -> Option<u8> {
    let (byte, rest) = script.split_first()?;
    *script = rest;
    Some(*byte)
}
