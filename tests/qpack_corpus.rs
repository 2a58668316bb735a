//! Connections that ls-qpack has encoded (`tests/qpack/record`). Our decoder reads their lines. Our
//! encoder writes the same lines as the kept files `ours-*.txt`, which ls-qpack has read.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use ringway::hpack::qpack::{Decoder, Encoder, Outcome};
use ringway::hpack::{FieldEncoder as _, Indexing, indexing};

use crate::properties::hpack_roundtrip::Lines;

/// A section of a stream, and its lines.
struct Section {
    stream: u64,
    lines: Vec<(Vec<u8>, Vec<u8>)>,
}

#[test]
fn our_decoder_reads_what_another_encoder_writes() {
    let mut total = 0;
    for file in files("lsqpack-") {
        let text = std::fs::read_to_string(&file).unwrap();
        let parts: Vec<Vec<&str>> = text.lines().map(|line| line.split(' ').collect()).collect();
        let sections = sections(&parts);
        let mut decoder = None;
        let mut blocked: Option<(u64, Vec<u8>)> = None;
        let mut section = sections.iter();
        for part in &parts {
            match part[..] {
                ["settings", capacity, streams] => {
                    let number = |text: &str| text.parse().unwrap();
                    decoder = Some(Decoder::new(number(capacity), number(streams)));
                }
                ["instructions", hex] => {
                    let decoder = decoder.as_mut().unwrap();
                    decoder.instructions(&bytes(hex)).unwrap();
                    assert_eq!(decoder.next_ready(), blocked.as_ref().map(|(stream, _)| *stream));
                    if let Some((stream, block)) = blocked.take() {
                        let wanted = sections.iter().find(|section| section.stream == stream);
                        assert_eq!(
                            decode(decoder, stream, &block),
                            Some(wanted.unwrap().lines.clone())
                        );
                    }
                }
                ["section", stream, hex, ref waits @ ..] => {
                    let (decoder, section) = (decoder.as_mut().unwrap(), section.next().unwrap());
                    let stream = stream.parse().unwrap();
                    let decoded = decode(decoder, stream, &bytes(hex));
                    if waits.is_empty() {
                        assert_eq!(decoded.as_ref(), Some(&section.lines), "{file:?} {stream}");
                    } else {
                        assert_eq!(decoded, None, "{file:?} {stream}");
                        blocked = Some((stream, bytes(hex)));
                    }
                    total += 1;
                }
                _ => {}
            }
        }
        assert!(blocked.is_none());
    }
    assert!(total >= 200, "{total}");
}

#[test]
fn our_encoder_writes_what_another_decoder_has_read() {
    for file in files("lsqpack-") {
        let text = std::fs::read_to_string(&file).unwrap();
        let parts: Vec<Vec<&str>> = text.lines().map(|line| line.split(' ').collect()).collect();
        let [_, capacity, blocked] = parts[0][..] else { panic!("{file:?}") };
        let said = encoded(&sections(&parts), capacity.parse().unwrap(), blocked.parse().unwrap());
        let name = file.file_name().unwrap().to_str().unwrap().replace("lsqpack-", "ours-");
        let kept = file.with_file_name(name);
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&kept, &said).unwrap();
        }
        let kept_text = std::fs::read_to_string(&kept).unwrap_or_default();
        let same = said == kept_text;
        assert!(same, "{kept:?}: UPDATE=1 writes it; then run `tests/qpack/record check`");
    }
}

/// Encodes the sections. Some instructions are late, and the decoder answers with a delay.
fn encoded(sections: &[Section], capacity: usize, blocked_max: usize) -> String {
    let mut random = fastrand::Rng::with_seed(7);
    let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new(capacity, blocked_max));
    encoder.set_peer(capacity as u64, blocked_max as u64);
    let mut said = format!("settings {capacity} {blocked_max}\n");
    let mut blocked: Vec<(u64, Vec<u8>)> = Vec::new();
    for Section { stream, lines } in sections {
        let (mut block, mut encoded) = (Vec::new(), Vec::new());
        encoder.begin(*stream);
        for (name, value) in lines {
            let usual = indexing(name);
            let form = if usual == Indexing::Never { Indexing::Without } else { usual };
            encoder.field(&mut encoded, name, value, form);
        }
        encoder.end(&mut block);
        block.append(&mut encoded);
        if random.u8(..10) < 6 {
            arrive(&mut encoder, &mut decoder, &mut blocked, &mut said);
        }
        let waits = decode(&mut decoder, *stream, &block).is_none();
        let suffix = if waits { " blocked" } else { "" };
        writeln!(said, "section {stream} {}{suffix}", hex(&block)).unwrap();
        for (name, value) in lines {
            writeln!(said, "line {} {}", hex(name), hex(value)).unwrap();
        }
        if waits {
            blocked.push((*stream, block));
        }
        if random.u8(..8) == 0 {
            encoder.acknowledgements(&std::mem::take(decoder.out())).unwrap();
        }
    }
    arrive(&mut encoder, &mut decoder, &mut blocked, &mut said);
    said
}

/// The waiting instructions arrive, and blocked sections are decoded.
fn arrive(
    encoder: &mut Encoder,
    decoder: &mut Decoder,
    blocked: &mut Vec<(u64, Vec<u8>)>,
    said: &mut String,
) {
    let instructions = std::mem::take(encoder.out());
    if instructions.is_empty() {
        return;
    }
    decoder.instructions(&instructions).unwrap();
    writeln!(said, "instructions {}", hex(&instructions)).unwrap();
    while let Some(ready) = decoder.next_ready() {
        let at = blocked.iter().position(|(stream, _)| *stream == ready).unwrap();
        let (stream, block) = blocked.swap_remove(at);
        decode(decoder, stream, &block).unwrap();
    }
    assert!(blocked.is_empty());
}

/// The sections of a file, with their lines.
fn sections(parts: &[Vec<&str>]) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    for part in parts {
        match part[..] {
            ["section", stream, ..] => {
                sections.push(Section { stream: stream.parse().unwrap(), lines: Vec::new() });
            }
            ["line", name, value] => {
                sections.last_mut().unwrap().lines.push((bytes(name), bytes(value)));
            }
            _ => {}
        }
    }
    sections
}

/// Decodes a section. `None` if it is blocked.
fn decode(decoder: &mut Decoder, stream: u64, block: &[u8]) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut lines = Lines::default();
    match decoder.decode(stream, block, &mut lines).unwrap() {
        Outcome::Done => Some(lines.0.into_iter().map(|line| (line.0, line.1)).collect()),
        Outcome::Blocked => None,
    }
}

fn files(prefix: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/qpack");
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let has_prefix =
        |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with(prefix);
    let mut files: Vec<_> = entries.filter(has_prefix).collect();
    files.sort();
    assert!(files.len() >= 6, "{files:?}");
    files
}

fn bytes(hex: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(byte).collect()
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    bytes.iter().for_each(|byte| write!(text, "{byte:02x}").unwrap());
    text
}
