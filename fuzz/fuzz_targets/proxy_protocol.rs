//! Fuzzes PROXY headers. The ordinary tests check the same property.
#![no_main]

#[path = "../properties/proxy_protocol.rs"]
mod proxy_protocol;

libfuzzer_sys::fuzz_target!(|input: &[u8]| proxy_protocol::holds(input));
