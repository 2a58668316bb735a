//! Fuzzes our HPACK encoder. The ordinary tests check the same property.
#![no_main]

#[path = "../properties/hpack_roundtrip.rs"]
mod hpack_roundtrip;

libfuzzer_sys::fuzz_target!(|input: &[u8]| hpack_roundtrip::holds(input));
