//! Fuzzes our QPACK decoder. The ordinary tests check the same property.
#![no_main]

#[path = "../properties/qpack_decode.rs"]
mod qpack_decode;

libfuzzer_sys::fuzz_target!(|input: &[u8]| qpack_decode::holds(input));
