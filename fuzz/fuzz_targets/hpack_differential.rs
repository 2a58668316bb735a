//! Fuzzes our HPACK decoder and another one. The ordinary tests check the same property.
#![no_main]

#[path = "../properties/hpack_differential.rs"]
mod hpack_differential;

libfuzzer_sys::fuzz_target!(|input: &[u8]| hpack_differential::holds(input));
