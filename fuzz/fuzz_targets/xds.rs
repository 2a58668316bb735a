//! Fuzzes resources of an xDS server. The ordinary tests check the same property.
#![no_main]

#[path = "../properties/xds.rs"]
mod xds;

libfuzzer_sys::fuzz_target!(|input: &[u8]| xds::holds(input));
