//! Fuzzes answers of a rate limit service. The ordinary tests check the same property.
#![no_main]

#[path = "../properties/rate_limit.rs"]
mod rate_limit;

libfuzzer_sys::fuzz_target!(|input: &[u8]| rate_limit::holds(input));
