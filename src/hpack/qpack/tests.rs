//! The examples of RFC 9204 Appendix B, and connections whose streams overtake each other.

use super::*;
use crate::hpack::examples::{Line, Lines};
use crate::hpack::{FieldEncoder, Indexing};

fn bytes(digits: &str) -> Vec<u8> {
    let digits: String = digits.split_whitespace().collect();
    let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    (0..digits.len()).step_by(2).map(byte).collect()
}

fn line(name: &str, value: &str) -> Line {
    (name.into(), value.into(), false)
}

/// Decodes a section. `None` if it is blocked.
fn decoded(decoder: &mut Decoder, stream: u64, block: &[u8]) -> Option<Vec<Line>> {
    let mut lines = Lines::default();
    match decoder.decode(stream, block, &mut lines).unwrap() {
        Outcome::Done => Some(lines.0),
        Outcome::Blocked => None,
    }
}

fn taken(out: &mut Vec<u8>) -> Vec<u8> {
    std::mem::take(out)
}

#[test]
fn the_examples_of_the_rfc_are_decoded() {
    let mut decoder = Decoder::new(220, 16);
    // B.1: a literal with the name of a static line.
    let path = [line(":path", "/index.html")];
    let block = bytes("0000 510b 2f69 6e64 6578 2e68 746d 6c");
    assert_eq!(decoded(&mut decoder, 0, &block).unwrap(), path);
    assert_eq!(taken(decoder.out()), b"");
    // B.2: the section arrives before its entries.
    let section = bytes("0381 10 11");
    assert_eq!(decoded(&mut decoder, 4, &section), None);
    assert_eq!(decoder.next_ready(), None);
    let inserts = bytes(
        "3fbd01 c00f 7777 772e 6578 616d 706c 652e 636f 6d
         c10c 2f73 616d 706c 652f 7061 7468",
    );
    decoder.instructions(&inserts).unwrap();
    assert_eq!((decoder.next_ready(), decoder.next_ready()), (Some(4), None));
    let lines = [line(":authority", "www.example.com"), line(":path", "/sample/path")];
    assert_eq!(decoded(&mut decoder, 4, &section).unwrap(), lines);
    assert_eq!(taken(decoder.out()), bytes("02 84"));
    // B.3: an entry without a section.
    decoder
        .instructions(&bytes("4a63 7573 746f 6d2d 6b65 790c 6375 7374 6f6d 2d76 616c 7565"))
        .unwrap();
    assert_eq!(taken(decoder.out()), bytes("01"));
    // B.4: a duplicate. The peer cancels the stream.
    decoder.instructions(&bytes("02")).unwrap();
    assert_eq!(taken(decoder.out()), bytes("01"));
    let lines = [
        line(":authority", "www.example.com"),
        line(":path", "/"),
        line("custom-key", "custom-value"),
    ];
    assert_eq!(decoded(&mut decoder, 8, &bytes("0500 80 c1 81")).unwrap(), lines);
    assert_eq!(taken(decoder.out()), bytes("88"));
    decoder.cancel(8);
    assert_eq!(taken(decoder.out()), bytes("48"));
    // B.5: the oldest entry is removed.
    decoder.instructions(&bytes("810d 6375 7374 6f6d 2d76 616c 7565 32")).unwrap();
    assert_eq!(decoder.table.size(), 215);
    assert_eq!(taken(decoder.out()), bytes("01"));
    assert_eq!(decoder.table.get(0), Some((&b"custom-key"[..], &b"custom-value2"[..])));
}

/// Encodes a section. Returns its prefix and lines.
fn encoded(encoder: &mut Encoder, stream: u64, lines: &[(&str, &str, Indexing)]) -> Vec<u8> {
    let (mut block, mut section) = (Vec::new(), Vec::new());
    encoder.begin(stream);
    for (name, value, indexing) in lines {
        encoder.field(&mut section, name.as_bytes(), value.as_bytes(), *indexing);
    }
    encoder.end(&mut block);
    block.append(&mut section);
    block
}

#[test]
fn without_a_table_lines_are_static_or_literal() {
    let mut encoder = Encoder::new();
    for (name, value, indexing, expected) in [
        (":method", "GET", Indexing::Table, "d1"),
        (":status", "103", Indexing::Table, "d8"),
        (":status", "500", Indexing::Table, "ff 08"),
        (":path", "/index.html", Indexing::Without, "510b 2f69 6e64 6578 2e68 746d 6c"),
        (":path", "/", Indexing::Without, "c1"),
        ("x", "y", Indexing::Table, "21 78 01 79"),
        ("authorization", "y", Indexing::Never, "7f 45 01 79"),
        ("x-secret1", "y", Indexing::Never, "37 02 78 2d 73 65 63 72 65 74 31 01 79"),
    ] {
        let block = encoded(&mut encoder, 0, &[(name, value, indexing)]);
        assert_eq!(block, bytes(&format!("0000 {expected}")), "{name}: {value}");
        let never = indexing == Indexing::Never;
        let wanted = vec![(name.into(), value.into(), never)];
        assert_eq!(decoded(&mut Decoder::new(0, 0), 0, &block), Some(wanted));
    }
    assert!(encoder.out().is_empty());
}

#[test]
fn a_section_refers_to_new_entries_only_if_it_may_block() {
    for (blocked_max, first) in [(0, "0000 21 78 01 79"), (1, "02 80 10")] {
        let mut encoder = Encoder::new();
        encoder.set_peer(4096, blocked_max);
        assert_eq!(taken(encoder.out()), bytes("3f e1 1f"));
        let lines = [("x", "y", Indexing::Table)];
        assert_eq!(encoded(&mut encoder, 0, &lines), bytes(first));
        assert_eq!(taken(encoder.out()), bytes("41 78 01 79"));
        // Another stream may not block, too. The same stream may, because it is blocked already.
        let literal = bytes("0000 21 78 01 79");
        assert_eq!(encoded(&mut encoder, 4, &lines), literal);
        let again = if blocked_max == 0 { literal } else { bytes("02 00 80") };
        assert_eq!(encoded(&mut encoder, 0, &lines), again);
        // The peer has the entry.
        encoder.acknowledgements(&bytes("01")).unwrap();
        assert_eq!(encoded(&mut encoder, 8, &lines), bytes("02 00 80"));
        // A literal may use its name.
        let never = [("x", "z", Indexing::Never)];
        assert_eq!(encoded(&mut encoder, 8, &never), bytes("02 00 60 01 7a"));
    }
}

#[test]
fn wrong_acknowledgements_are_refused() {
    let sent = || {
        let mut encoder = Encoder::new();
        encoder.set_peer(4096, 1);
        encoded(&mut encoder, 0, &[("x", "y", Indexing::Table)]);
        encoder
    };
    for (answer, fine) in [
        ("80", true),
        ("80 80", false),
        ("84", false),
        ("40", true),
        ("40 80", false),
        ("44", true),
        ("01", true),
        ("00", false),
        ("02", false),
        ("01 01", false),
        ("80 01", false),
        ("ff ff ff ff ff ff ff ff ff ff 01", false),
    ] {
        let answer = bytes(answer);
        let is_refused = |error| matches!(error, QpackError::DecoderStream(_));
        assert_eq!(
            sent().acknowledgements(&answer).map_err(is_refused),
            [Err(true), Ok(())][usize::from(fine)]
        );
        // One byte at a time.
        let mut encoder = sent();
        let parts = answer.chunks(1).map(|part| encoder.acknowledgements(part));
        assert_eq!(parts.collect::<Result<(), _>>().is_ok(), fine, "{answer:x?}");
    }
}

#[test]
fn old_entries_leave_a_table_that_is_always_in_use() {
    let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new(4096, 16));
    encoder.set_peer(4096, 16);
    let hot: Vec<_> = (0..10).map(|n| (format!("x-hot-{n}"), "v".repeat(60))).collect();
    let mut late = std::collections::VecDeque::new();
    let mut bytes = 0;
    for number in 0..40_000_u64 {
        let (mut block, mut lines) = (Vec::new(), Vec::new());
        encoder.begin(4 * number);
        // The date changes every 200 sections.
        let date = format!("Mon, 30 Nov 2026 11:00:{:05}", number / 200);
        encoder.field(&mut lines, b"date", date.as_bytes(), Indexing::Table);
        for (name, value) in &hot {
            encoder.field(&mut lines, name.as_bytes(), value.as_bytes(), Indexing::Table);
        }
        encoder.end(&mut block);
        block.append(&mut lines);
        decoder.instructions(&taken(encoder.out())).unwrap();
        assert_eq!(decoded(&mut decoder, 4 * number, &block).unwrap().len(), 11);
        // 50 sections are always on their way.
        late.push_back(taken(decoder.out()));
        if late.len() > 50 {
            encoder.acknowledgements(&late.pop_front().unwrap()).unwrap();
        }
        if number >= 30_000 {
            bytes += block.len();
        }
    }
    // A prefix of two bytes, and about a byte for each line. A new date is a literal until the peer
    // has its entry.
    assert!(bytes < 20 * 10_000, "{bytes}");
    assert!(encoder.held_bytes() < 16 * 1024, "{}", encoder.held_bytes());
}
