//! The QPACK decoder never panics, and its memory stays within its limit. Instructions mean the
//! same however they are split.

use ringway::hpack::Fields;
use ringway::hpack::qpack::{Decoder, Encoder};

/// Counts the bytes of field lines.
#[derive(Default)]
struct Count(usize);

impl Fields for Count {
    fn field(&mut self, name: &[u8], value: &[u8], _: bool) {
        self.0 = self.0.wrapping_mul(31) + name.len() + value.len();
    }
}

/// Checks the property for `script`: parts of the encoder stream, and field sections. The first
/// byte of each has its kind and length.
pub fn holds(script: &[u8]) {
    assert_eq!(read(script, usize::MAX), read(script, 1));
    // The answers of a decoder are as arbitrary.
    let mut encoder = Encoder::new();
    encoder.set_peer(4096, 16);
    let at_once = encoder.acknowledgements(script);
    let mut encoder = Encoder::new();
    encoder.set_peer(4096, 16);
    let parts = script.chunks(3).try_for_each(|part| encoder.acknowledgements(part));
    assert_eq!(at_once, parts);
}

/// Reads the script, with the encoder stream in portions of this size. Returns the result of each
/// step.
fn read(mut script: &[u8], portion_bytes: usize) -> (Vec<String>, Vec<u8>) {
    // 0x3f 0xe1 0x1f sets the capacity to 4096.
    let mut decoder = Decoder::new(4096, 3);
    decoder.instructions(&[0x3f, 0xe1, 0x1f]).unwrap();
    let mut said = Vec::new();
    while let Some((&first, rest)) = script.split_first() {
        let (part, rest) = rest.split_at(usize::from(first >> 1).min(rest.len()));
        script = rest;
        let failed = if first & 1 == 0 {
            let mut parts = part.chunks(portion_bytes.min(part.len()).max(1));
            let done = parts.try_for_each(|part| decoder.instructions(part));
            said.push(format!("{done:?}"));
            done.is_err()
        } else {
            let mut count = Count::default();
            let stream = u64::from(part.first().copied().unwrap_or_default());
            let done = decoder.decode(stream, part, &mut count);
            said.push(format!("{done:?} {}", count.0));
            done.is_err()
        };
        while let Some(stream) = decoder.next_ready() {
            said.push(format!("{stream}"));
        }
        // Portions acknowledge the same entries with other instructions.
        decoder.out().clear();
        assert!(decoder.held_bytes() <= 64 * 1024, "{}", decoder.held_bytes());
        if failed {
            break;
        }
    }
    (said, decoder.out().clone())
}
