//! Fuzzes response heads and their framing. The ordinary tests check the same property.
#![no_main]

#[path = "../properties/http1_response.rs"]
mod http1_response;

libfuzzer_sys::fuzz_target!(|input: &[u8]| http1_response::holds(input));
