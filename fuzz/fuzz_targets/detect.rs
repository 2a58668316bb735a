//! Fuzzes the detection of protocols from first bytes. The ordinary tests check the same property.
#![no_main]

#[path = "../properties/detect.rs"]
mod detect;

libfuzzer_sys::fuzz_target!(|input: &[u8]| detect::holds(input));
