//! Fuzzes request heads. The ordinary tests check the same property.
#![no_main]

#[path = "../properties/http1_request.rs"]
mod http1_request;

libfuzzer_sys::fuzz_target!(|input: &[u8]| http1_request::holds(input));
