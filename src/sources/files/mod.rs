//! Configuration files. They are read and merged (`read`), parsed (`node`), decoded into the
//! grammar (`decode`), and lowered to the model (`lower`).

mod decode;
pub mod diagnostic;
pub mod grammar;
mod later;
mod lower;
mod materials;
mod node;
pub mod read;
mod unions;
pub mod values;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

pub use diagnostic::Diagnostics;
use diagnostic::{Diagnostic, SourceMap};
pub use materials::Materials;
pub use read::{Environment, ProcessEnvironment};

use crate::compile::registry::Registry;
use crate::compile::{self, Compiled, Resolutions};
use crate::model::{Model, Resources};

/// The loaded files, with their mistakes.
pub struct Loaded {
    /// The files.
    pub sources: SourceMap,
    /// The certificate and key files that the configuration names.
    pub materials: Materials,
    layers: read::Layers,
    mistakes: Vec<Diagnostic>,
    /// `None` after [`Loaded::release`].
    model: Mutex<Option<Arc<Model>>>,
}

impl Loaded {
    /// Whether both were loaded from files with the same content.
    pub fn is_same_text(&self, other: &Self) -> bool {
        self.sources.files() == other.sources.files() && self.materials == other.materials
    }

    /// The valid part of the configuration. After [`Loaded::release`] it is made again from the
    /// texts and the environment of the process.
    pub fn model(&self) -> Arc<Model> {
        let mut model = self.model.lock().unwrap_or_else(PoisonError::into_inner);
        let made = model.get_or_insert_with(|| {
            let Self { layers, sources, materials, .. } = self;
            // The mistakes were reported the first time.
            let mut known = Vec::new();
            let tree = read::merge(layers, &ProcessEnvironment, sources, &mut known);
            let config = decode::decode(tree, &mut known).unwrap_or_default();
            Arc::new(lower::lower(config, sources, materials, &mut known))
        });
        Arc::clone(made)
    }

    /// Drops the model to save memory. It is rarely needed after a configuration is applied.
    pub fn release(&self) {
        *self.model.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Loads the files of the `-c` arguments. [`compile`] reports the errors in the files, together
/// with the errors that it finds itself.
pub fn load(arguments: &[PathBuf], environment: &dyn Environment) -> Loaded {
    let mut sources = SourceMap::default();
    let mut mistakes = Vec::new();
    let layers = read::gather(arguments, &mut sources, &mut mistakes);
    let tree = read::merge(&layers, environment, &sources, &mut mistakes);
    let config = decode::decode(tree, &mut mistakes).unwrap_or_default();
    let materials = Materials::read(&config, &sources);
    let model = Arc::new(lower::lower(config, &sources, &materials, &mut mistakes));
    Loaded { sources, materials, layers, mistakes, model: Mutex::new(Some(model)) }
}

/// Compiles `loaded` alone into the snapshot number `version`.
///
/// # Errors
/// Every mistake, including those of [`load`].
pub fn compile(
    loaded: &Loaded,
    version: u64,
    registry: &mut Registry,
    resolutions: &Resolutions,
) -> Result<Compiled, Diagnostics> {
    compile_with(loaded, &Resources::default(), version, registry, resolutions)
}

/// Compiles `loaded` and the resources of other sources into the snapshot number `version`.
/// Resources with errors are left out.
///
/// # Errors
/// Every mistake in the files.
pub fn compile_with(
    loaded: &Loaded,
    resources: &Resources,
    version: u64,
    registry: &mut Registry,
    resolutions: &Resolutions,
) -> Result<Compiled, Diagnostics> {
    let merged = resources.merge(&loaded.model());
    let faults = match compile::compile(&merged, version, registry, resolutions) {
        Ok(compiled) if loaded.mistakes.is_empty() => return Ok(compiled),
        Ok(_) => Vec::new(),
        Err(faults) => faults,
    };
    let mut mistakes = loaded.mistakes.clone();
    let unreadable = !mistakes.is_empty();
    let shown = faults.into_iter().filter(|fault| !(unreadable && fault.secondary));
    mistakes.extend(shown.map(Diagnostic::from));
    Err(Diagnostics::new(mistakes, loaded.sources.clone()))
}

/// The JSON Schema of the grammar.
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(grammar::Config).to_value()
}

#[cfg(test)]
mod examples;
#[cfg(test)]
mod tests;
