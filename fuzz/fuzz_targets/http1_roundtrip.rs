//! Fuzzes the forwarding of HTTP/1 requests. The ordinary tests check the same property.
#![no_main]

#[path = "../properties/http1_roundtrip.rs"]
mod http1_roundtrip;

libfuzzer_sys::fuzz_target!(|input: &[u8]| http1_roundtrip::holds(input));
