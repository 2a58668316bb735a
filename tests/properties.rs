//! The properties that the fuzzer checks (`fuzz/properties`), for its seeds and for mutations of
//! them.

use std::path::Path;

#[path = "../fuzz/properties/http2_frames.rs"]
mod http2_frames;
#[path = "../fuzz/properties/http2_translation.rs"]
mod http2_translation;

#[test]
fn frames_never_break_the_proxy() {
    for_many("http2_frames", 1500, http2_frames::holds);
}

#[test]
fn messages_keep_their_boundaries_from_one_version_to_another() {
    for_many("http2_translation", 30_000, http2_translation::holds);
}

/// Calls `holds` with each seed of `target`, and with `count` mutated seeds.
fn for_many(target: &str, count: u64, holds: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    let seeds: Vec<Vec<u8>> = files.iter().map(|file| std::fs::read(file).unwrap()).collect();
    seeds.iter().for_each(|seed| holds(seed));
    for number in 0..count {
        let mut random = fastrand::Rng::with_seed(number);
        let mut input = seeds[random.usize(..seeds.len())].clone();
        for _ in 0..random.usize(1..8) {
            change(&mut input, &seeds, &mut random);
        }
        holds(&input);
    }
}

/// A byte becomes another one, comes in, or goes; or a part of another seed comes in.
fn change(input: &mut Vec<u8>, seeds: &[Vec<u8>], random: &mut fastrand::Rng) {
    let at = random.usize(..=input.len());
    let byte = *random.choice(b"\0\x01\x04 \t\r\n:;,/*a1\x7f\xff").unwrap();
    match random.u8(..4) {
        0 if at < input.len() => input[at] = if random.bool() { byte } else { random.u8(..) },
        1 if at < input.len() => drop(input.remove(at)),
        2 => input.insert(at, byte),
        _ => {
            let other = &seeds[random.usize(..seeds.len())];
            let start = random.usize(..=other.len());
            let end = other.len().min(start + random.usize(..30));
            drop(input.splice(at..at, other[start..end].iter().copied()));
        }
    }
}
