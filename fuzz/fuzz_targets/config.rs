//! Configuration files: no panic, and either a snapshot or at least one mistake that can be shown.
#![no_main]

use std::collections::HashMap;

use libfuzzer_sys::fuzz_target;
use ringway::compile::Resolutions;
use ringway::sources::files;
use ringway::compile::registry::Registry;

fuzz_target!(|bytes: &[u8]| {
    let path = std::env::temp_dir().join(format!("ringway-fuzz-{}.yaml", std::process::id()));
    std::fs::write(&path, bytes).expect("a temporary file");
    let loaded = files::load(&[path], &HashMap::new());
    let compiled = files::compile(&loaded, 1, &mut Registry::new(1), &Resolutions::new());
    if let Err(errors) = compiled {
        assert!(!errors.to_string().is_empty());
    }
});
