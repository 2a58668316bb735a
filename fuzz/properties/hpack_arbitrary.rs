//! HPACK: the decoder does not panic, and its memory stays below its limit. Decoded fields can be
//! forwarded.

use ringway::hpack::{Decoder, Encoder, Fields, Indexing, indexing};

/// Encodes the field lines again and counts their bytes.
#[derive(Default)]
struct Onward {
    encoder: Encoder,
    block: Vec<u8>,
    lines: Vec<(Vec<u8>, Vec<u8>, bool)>,
    bytes: usize,
}

impl Fields for Onward {
    fn field(&mut self, name: &[u8], value: &[u8], never_indexed: bool) {
        self.bytes += name.len() + value.len();
        // One byte can refer to a large entry of the table, so limit the output.
        if self.bytes > 100_000 {
            return;
        }
        let way = if never_indexed { Indexing::Never } else { indexing(name) };
        self.encoder.field(&mut self.block, name, value, way);
        self.lines.push((name.to_vec(), value.to_vec(), way == Indexing::Never));
    }
}

/// Checks the property for `input`. The first byte is the size of the table. Blocks follow, each
/// after a byte with its length. A length of zero means the rest of the input.
pub fn holds(input: &[u8]) {
    let Some((size, mut input)) = input.split_first() else { return };
    let size = usize::from(*size) * 32;
    let (mut decoder, mut next) = (Decoder::new(size), Decoder::new(4096));
    let mut onward = Onward::default();
    while let Some((len, rest)) = input.split_first() {
        let len = if *len == 0 { rest.len() } else { usize::from(*len).min(rest.len()) };
        let (block, rest) = rest.split_at(len);
        input = rest;
        onward.block.clear();
        onward.encoder.begin(&mut onward.block);
        let end = decoder.decode(block, &mut onward);
        assert!(onward.bytes <= block.len() * (size + 61 + 2));
        // The bytes may take twice the size of the table. The entries take at most 24 bytes for
        // each 32 bytes of the table.
        let bound = 512 + 2 * size + 2 * size * 24 / 32;
        assert!(decoder.held_bytes() <= bound, "{} of {size}", decoder.held_bytes());
        assert!(onward.encoder.held_bytes() <= 16 * 1024);
        let block = std::mem::take(&mut onward.block);
        let wanted = std::mem::take(&mut onward.lines);
        let mut again = Onward::default();
        assert_eq!(next.decode(&block, &mut again), Ok(()));
        let all = |lines: &[(Vec<u8>, Vec<u8>, bool)]| {
            lines.iter().map(|line| (line.0.clone(), line.1.clone())).collect::<Vec<_>>()
        };
        assert_eq!(all(&again.lines), all(&wanted));
        onward.bytes = 0;
        if end.is_err() {
            return;
        }
    }
}
