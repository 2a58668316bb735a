//! From files to a [`Snapshot`]: read and merged (`source`), taken apart (`node`), decoded with
//! every mistake (`decode`), checked and resolved (`compile`).

mod compile;
mod compile_authorization;
mod compile_health;
mod compile_http2;
mod compile_jwt;
mod compile_mesh;
mod compile_rules;
mod compile_services;
mod compile_tls;
mod decode;
pub mod diagnostic;
pub mod file;
pub mod file_authorization;
pub mod file_health;
pub mod file_http2;
mod file_http2_limits;
pub mod file_intercept;
pub mod file_jwt;
pub mod file_mesh;
pub mod file_tls;
mod later;
mod materials;
mod node;
pub mod source;
mod unions;
pub mod values;

use std::path::PathBuf;

pub use compile::{Compiled, Resolutions, compile};
pub use compile_jwt::KeySource;
pub use diagnostic::Diagnostics;
pub use file::Driver;
pub use materials::Materials;

use crate::snapshot::Snapshot;
use diagnostic::{Diagnostic, SourceMap};
use source::Environment;

/// Files that were read and decoded, mistakes included.
pub struct Loaded {
    /// What could be understood.
    pub config: file::Config,
    /// The files.
    pub sources: SourceMap,
    /// What is in the files that they name.
    pub materials: Materials,
    mistakes: Vec<Diagnostic>,
}

impl Loaded {
    /// Whether it was read from files with the same content.
    pub fn is_same_text(&self, other: &Self) -> bool {
        self.sources.files() == other.sources.files() && self.materials == other.materials
    }
}

/// Reads what the `-c` arguments name. Mistakes are kept for [`compile`], which adds those that
/// only show when everything is put together.
pub fn load(arguments: &[PathBuf], environment: &dyn Environment) -> Loaded {
    let mut sources = SourceMap::default();
    let mut mistakes = Vec::new();
    let tree = source::read(arguments, environment, &mut sources, &mut mistakes);
    let config = decode::decode(tree, &mut mistakes).unwrap_or_default();
    let materials = Materials::read(&config, &sources);
    Loaded { config, sources, materials, mistakes }
}

/// The JSON Schema of the grammar.
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(file::Config).to_value()
}

#[cfg(test)]
mod examples;
#[cfg(test)]
mod tests;
