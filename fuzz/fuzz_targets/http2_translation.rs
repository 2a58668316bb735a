//! Fuzzes messages between HTTP/1.1 and HTTP/2. The ordinary tests check the same property.
#![no_main]

#[path = "../properties/http2_translation.rs"]
mod http2_translation;

libfuzzer_sys::fuzz_target!(|input: &[u8]| http2_translation::holds(input));
