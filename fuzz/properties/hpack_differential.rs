//! HPACK: our decoder and another one read the same field lines from the same blocks, and refuse
//! the same blocks.

use loona_hpack::decoder::DecoderError;
use ringway::hpack::{DecodeError, Decoder, Fields};

#[derive(Default)]
struct Lines(Vec<(Vec<u8>, Vec<u8>)>);

impl Fields for Lines {
    fn field(&mut self, name: &[u8], value: &[u8], _: bool) {
        self.0.push((name.to_vec(), value.to_vec()));
    }
}

/// Checks the property for `input`: blocks of one connection, each after a byte with its length.
pub fn holds(mut input: &[u8]) {
    let mut ours = Decoder::new(4096);
    let mut other = loona_hpack::Decoder::new();
    other.set_max_allowed_table_size(4096);
    while let Some((len, rest)) = input.split_first() {
        let (block, rest) = rest.split_at(usize::from(*len).min(rest.len()));
        input = rest;
        let (mut lines, mut others) = (Lines::default(), Vec::new());
        let our_end = ours.decode(block, &mut lines);
        let other_end = other.decode_with_cb(block, |name, value| {
            others.push((name.into_owned(), value.into_owned()));
        });
        match (our_end, other_end) {
            (Ok(()), Ok(())) => assert_eq!(lines.0, others),
            // The other decoder accepts a size update in the middle of a block, which RFC 7541
            // 4.2 forbids. It refuses one in a block without field lines, which the RFC allows.
            (Err(DecodeError::SizeUpdateLate), _) => {
                assert!(others.starts_with(&lines.0));
                return;
            }
            (Ok(()), Err(DecoderError::SizeUpdateAtEnd)) => assert!(lines.0.is_empty()),
            (Err(_), Err(_)) => {
                assert_eq!(lines.0, others);
                return;
            }
            (ours, other) => panic!("we say {ours:?}, the other one says {other:?}: {block:x?}"),
        }
    }
}
