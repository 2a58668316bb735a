//! Fuzzes our QPACK encoder and decoder. The ordinary tests check the same property.
#![no_main]

#[path = "../properties/qpack_round_trip.rs"]
mod qpack_round_trip;

libfuzzer_sys::fuzz_target!(|input: &[u8]| qpack_round_trip::holds(input));
