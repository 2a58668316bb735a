//! Fuzzes HTTP/2 frames of any kind in any order, from a client or an endpoint. The ordinary tests
//! check the same property.
#![no_main]

#[path = "../properties/http2_frames.rs"]
mod http2_frames;

libfuzzer_sys::fuzz_target!(|input: &[u8]| http2_frames::holds(input));
