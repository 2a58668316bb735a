//! Fuzzes the streams of an HTTP/3 connection. The ordinary tests check the same property.
#![no_main]

#[path = "../properties/http3_control.rs"]
mod http3_control;

libfuzzer_sys::fuzz_target!(|input: &[u8]| http3_control::holds(input));
