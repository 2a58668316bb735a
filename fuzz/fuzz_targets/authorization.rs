//! Fuzzes authorization. The ordinary tests check the same property.
#![no_main]

#[path = "../properties/authorization.rs"]
mod authorization;

libfuzzer_sys::fuzz_target!(|input: &[u8]| authorization::holds(input));
