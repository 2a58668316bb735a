//! Configuration files: no panic. The result is a snapshot, or at least one error that can be
//! printed.

use std::collections::HashMap;

use ringway::compile::Resolutions;
use ringway::compile::registry::Registry;
use ringway::sources::files;

pub fn holds(bytes: &[u8]) {
    let path = std::env::temp_dir().join(format!("ringway-fuzz-{}.yaml", std::process::id()));
    std::fs::write(&path, bytes).expect("a temporary file");
    let loaded = files::load(&[path], &HashMap::new());
    let compiled = files::compile(&loaded, 1, &mut Registry::new(1), &Resolutions::new());
    if let Err(errors) = compiled {
        assert!(!errors.to_string().is_empty());
    }
}
