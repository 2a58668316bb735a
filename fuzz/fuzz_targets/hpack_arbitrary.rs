//! Fuzzes HPACK blocks. The ordinary tests check the same property.
#![no_main]

#[path = "../properties/hpack_arbitrary.rs"]
mod hpack_arbitrary;

libfuzzer_sys::fuzz_target!(|input: &[u8]| hpack_arbitrary::holds(input));
