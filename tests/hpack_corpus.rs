//! Header blocks of real clients and servers, which `tests/hpack/record` has recorded. Our decoder
//! and another one read the same lines from them, and from the output of our encoder.

use std::collections::BTreeMap;
use std::path::Path;

use ringway::hpack::{Decoder, Encoder, Indexing};

use crate::properties::hpack_roundtrip::{Line, Lines};

/// A connection with both decoders.
struct Reader {
    ours: Decoder,
    other: loona_hpack::Decoder<'static>,
}

impl Reader {
    fn new() -> Self {
        let mut other = loona_hpack::Decoder::new();
        other.set_max_allowed_table_size(4096);
        Self { ours: Decoder::new(4096), other }
    }

    /// The lines of a block, on which both decoders agree.
    fn read(&mut self, block: &[u8], place: &str) -> Vec<Line> {
        let (mut lines, mut others) = (Lines::default(), Vec::new());
        assert_eq!(self.ours.decode(block, &mut lines), Ok(()), "{place}");
        let end = self.other.decode_with_cb(block, |name, value| {
            others.push((name.into_owned(), value.into_owned()));
        });
        assert_eq!(end, Ok(()), "{place}");
        let ours: Vec<_> = lines.0.iter().map(|line| (line.0.clone(), line.1.clone())).collect();
        assert_eq!(ours, others, "{place}");
        lines.0
    }
}

#[test]
fn blocks_of_real_peers_are_read_as_another_decoder_reads_them() {
    let mut seen = BTreeMap::new();
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "txt") {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let blocks = blocks(&path);
            survives(&name, &blocks);
            seen.insert(name, blocks.len());
        }
    }
    assert!(seen.contains_key("curl"), "{seen:?}");
    for name in
        ["chromium", "go", "grpc-js", "grpcio", "h2load", "haproxy", "nghttp", "nginx", "node"]
    {
        assert!(seen.get(name).is_some_and(|count| *count >= 20), "{name}: {seen:?}");
    }
}

/// Reads the blocks of a connection, and reads them again from our encoder.
fn survives(name: &str, blocks: &[Vec<u8>]) {
    let (mut from_peer, mut from_us) = (Reader::new(), Reader::new());
    let mut encoder = Encoder::new();
    for (number, block) in blocks.iter().enumerate() {
        let place = format!("{name}, block {number}");
        let lines = from_peer.read(block, &place);
        assert!(!lines.is_empty(), "{place}");
        let mut again = Vec::new();
        encoder.begin(&mut again);
        for (line_name, value, never_indexed) in &lines {
            let indexing = if *never_indexed { Indexing::Never } else { Indexing::Table };
            encoder.field(&mut again, line_name, value, indexing);
        }
        assert_eq!(from_us.read(&again, &format!("{place}, again")), lines, "{place}");
    }
}

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hpack")
}

fn blocks(path: &Path) -> Vec<Vec<u8>> {
    let text = std::fs::read_to_string(path).unwrap();
    let byte = |at: &[u8]| u8::from_str_radix(std::str::from_utf8(at).unwrap(), 16).unwrap();
    text.lines().map(|line| line.as_bytes().chunks(2).map(byte).collect()).collect()
}
