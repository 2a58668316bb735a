//! The properties that the fuzzer checks (`fuzz/properties`), for its seeds and for mutations of
//! them.

use std::path::Path;

#[path = "../fuzz/properties/authorization.rs"]
mod authorization;
#[path = "../fuzz/properties/config.rs"]
mod config;
#[path = "../fuzz/properties/detect.rs"]
mod detect;
#[path = "../fuzz/properties/hpack_arbitrary.rs"]
mod hpack_arbitrary;
#[path = "../fuzz/properties/hpack_differential.rs"]
mod hpack_differential;
#[path = "../fuzz/properties/hpack_roundtrip.rs"]
pub mod hpack_roundtrip;
#[path = "../fuzz/properties/http1_request.rs"]
mod http1_request;
#[path = "../fuzz/properties/http1_response.rs"]
mod http1_response;
#[path = "../fuzz/properties/http1_roundtrip.rs"]
mod http1_roundtrip;
#[path = "../fuzz/properties/http2_connection.rs"]
mod http2_connection;
#[path = "../fuzz/properties/http2_differential.rs"]
mod http2_differential;
#[path = "../fuzz/properties/http2_frames.rs"]
mod http2_frames;
#[path = "../fuzz/properties/http2_translation.rs"]
mod http2_translation;
#[path = "../fuzz/properties/http3_control.rs"]
mod http3_control;
#[path = "../fuzz/properties/http3_inbound.rs"]
mod http3_inbound;
#[path = "../fuzz/properties/jwt.rs"]
mod jwt;
#[path = "../fuzz/properties/proxy_protocol.rs"]
mod proxy_protocol;
#[path = "../fuzz/properties/qpack_decode.rs"]
mod qpack_decode;
#[path = "../fuzz/properties/qpack_round_trip.rs"]
mod qpack_round_trip;
#[path = "../fuzz/properties/quic_hello.rs"]
mod quic_hello;
#[path = "../fuzz/properties/rate_limit.rs"]
mod rate_limit;
#[path = "../fuzz/properties/xds.rs"]
mod xds;

#[test]
fn frames_never_break_the_proxy() {
    for_many("http2_frames", 1500, http2_frames::holds);
}

#[test]
fn messages_keep_their_boundaries_from_one_version_to_another() {
    for_many("http2_translation", 30_000, http2_translation::holds);
}

#[test]
fn compiled_rules_say_what_a_naive_reading_says() {
    for_many("authorization", 10_000, authorization::holds);
}

#[test]
fn a_configuration_is_a_snapshot_or_mistakes() {
    for_many("config", 300, config::holds);
}

#[test]
fn connections_treat_frames_as_another_implementation_does() {
    for_many("http2_differential", 1000, http2_differential::holds);
    for number in 0..2500 {
        let mut random = fastrand::Rng::with_seed(number);
        let mut script = vec![0; random.usize(..2000)];
        random.fill(&mut script);
        http2_differential::holds(&script);
    }
}

#[test]
fn a_protocol_is_told_once() {
    for_many("detect", 1000, detect::holds);
}

#[test]
fn field_lines_survive_compression() {
    for_many("hpack_roundtrip", 3000, hpack_roundtrip::holds);
}

#[test]
fn header_blocks_are_read_as_another_decoder_reads_them() {
    for_many("hpack_differential", 5000, hpack_differential::holds);
}

#[test]
fn no_header_block_makes_the_decoder_panic_or_grow() {
    for_many("hpack_arbitrary", 10_000, hpack_arbitrary::holds);
}

#[test]
fn heads_read_alike_however_they_come() {
    for_many("http1_request", 10_000, http1_request::holds);
    for_many("http1_response", 10_000, http1_response::holds);
    for_many("http1_roundtrip", 10_000, http1_roundtrip::holds);
}

#[test]
fn a_connection_says_the_same_however_frames_are_cut() {
    for_many("http2_connection", 2000, http2_connection::holds);
}

#[test]
fn field_lines_survive_streams_that_overtake_each_other() {
    for_many("qpack_round_trip", 3000, qpack_round_trip::holds);
    for number in 0..3000 {
        let mut random = fastrand::Rng::with_seed(number);
        let mut script = vec![0; random.usize(..3000)];
        random.fill(&mut script);
        qpack_round_trip::holds(&script);
    }
}

#[test]
fn no_section_or_instruction_makes_the_decoder_panic_or_grow() {
    for_many("qpack_decode", 10_000, qpack_decode::holds);
}

#[test]
fn a_hello_of_quic_is_read_like_one_of_tls() {
    for_many("quic_hello", 5000, quic_hello::holds);
}

#[test]
fn messages_and_streams_of_http3_read_alike_however_they_come() {
    for_many("http3_inbound", 10_000, http3_inbound::holds);
    for_many("http3_control", 10_000, http3_control::holds);
}

#[test]
fn no_token_is_accepted_that_nobody_has_signed() {
    for_many("jwt", 3000, jwt::holds);
}

#[test]
fn a_proxy_header_can_be_sent_again() {
    for_many("proxy_protocol", 10_000, proxy_protocol::holds);
}

#[test]
fn resources_of_an_xds_server_are_read_safely() {
    for_many("xds", 10_000, xds::holds);
}

#[test]
fn answers_of_a_rate_limit_service_are_read_safely() {
    for_many("rate_limit", 10_000, rate_limit::holds);
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

/// Checks that each fuzz target only calls its property, so that the ordinary tests compile all of
/// its code.
#[test]
fn every_target_is_a_property() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut names = Vec::new();
    for entry in std::fs::read_dir(root.join("fuzz/fuzz_targets")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let code: Vec<_> = text.lines().filter(|line| !line.starts_with("//!")).collect();
        let expected = [
            "#![no_main]".to_owned(),
            String::new(),
            format!("#[path = \"../properties/{name}.rs\"]"),
            format!("mod {name};"),
            String::new(),
            format!("libfuzzer_sys::fuzz_target!(|input: &[u8]| {name}::holds(input));"),
        ];
        assert_eq!(code, expected, "{name}");
        let own = include_str!("properties.rs");
        assert!(own.contains(&format!("{name}::holds);")), "no test looks at {name}");
        names.push(name);
    }
    assert!(names.len() >= 14, "{names:?}");
}

/// Mutates the input: replaces, inserts or removes a byte, or inserts a part of another seed.
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
