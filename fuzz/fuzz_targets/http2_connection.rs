//! Fuzzes an HTTP/2 connection. The ordinary tests check the same property.
#![no_main]

#[path = "../properties/http2_connection.rs"]
mod http2_connection;

libfuzzer_sys::fuzz_target!(|input: &[u8]| http2_connection::holds(input));
