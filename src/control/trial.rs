//! Compiles the first configuration once before anything is started.

use std::path::PathBuf;
use std::sync::Arc;

use super::apply::Applied;
use super::run::{FIRST_LOOKUP, RunError};
use crate::compile::registry::Registry;
use crate::compile::{Compiled, Resolutions};
use crate::model::Driver;
use crate::sources::files::{self, Loaded};

/// The parts of the configuration that are needed before the workers start.
pub(super) struct Trial {
    pub(super) workers: Option<usize>,
    pub(super) pin: Option<bool>,
    pub(super) driver: Driver,
    pub(super) state_dir: Option<PathBuf>,
    pub(super) control: Applied,
}

/// Compiles the configuration once before anything is started, to find all its errors. The snapshot
/// is dropped, so that it does not occupy memory.
pub(super) fn trial(loaded: &Loaded) -> Result<Trial, RunError> {
    let compiled = files::compile(loaded, 0, &mut Registry::new(1), &Resolutions::new())
        .map_err(|errors| RunError::Config(errors.to_string()))?;
    let Compiled { workers, pin, driver, state_dir, .. } = compiled;
    let Compiled { names, gone_after, key_sources, admin, dns, .. } = compiled;
    let sources = compiled.sources;
    if !names.is_empty() || !key_sources.is_empty() {
        tracing::info!(
            names = names.len(),
            key_sets = key_sources.len(),
            limit = ?FIRST_LOOKUP,
            "waiting for the addresses of services in DNS and for token keys"
        );
    }
    let files = Arc::default();
    let control = Applied { names, gone_after, key_sources, admin, files, dns, sources };
    Ok(Trial { workers, pin, driver, state_dir, control })
}
