//! Fuzzes tokens and key sets. The ordinary tests check the same property.
#![no_main]

#[path = "../properties/jwt.rs"]
mod jwt;

libfuzzer_sys::fuzz_target!(|input: &[u8]| jwt::holds(input));
