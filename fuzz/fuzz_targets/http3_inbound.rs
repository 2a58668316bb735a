//! Fuzzes the reader of HTTP/3 messages. The ordinary tests check the same property.
#![no_main]

#[path = "../properties/http3_inbound.rs"]
mod http3_inbound;

libfuzzer_sys::fuzz_target!(|input: &[u8]| http3_inbound::holds(input));
