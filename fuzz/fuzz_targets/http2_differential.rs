//! Fuzzes our HTTP/2 connection and another one. The ordinary tests check the same property.
#![no_main]

#[path = "../properties/http2_differential.rs"]
mod http2_differential;

libfuzzer_sys::fuzz_target!(|input: &[u8]| http2_differential::holds(input));
