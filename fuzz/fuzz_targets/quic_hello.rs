//! Fuzzes the reader of QUIC Initial packets. The ordinary tests check the same property.
#![no_main]

#[path = "../properties/quic_hello.rs"]
mod quic_hello;

libfuzzer_sys::fuzz_target!(|input: &[u8]| quic_hello::holds(input));
