//! Configuration files. `read` reads and merges them, `node` parses them, `decode` decodes them
//! into the grammar, and `lower` lowers the grammar to the model.

mod check;
mod decode;
mod decode_error;
mod follow;
pub mod grammar;
mod log_file;
mod lower;
mod materials;
mod outside;
mod own;
pub mod read;
pub mod redact;
mod reserved;
mod unions;
mod validity;
pub mod values;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::de::DeserializeOwned;

pub use super::yaml::diagnostic;
use super::yaml::node;

pub use check::{Report, check};
pub use diagnostic::Diagnostics;
use diagnostic::{Diagnostic, Severity, SourceMap};
use follow::Around;
pub use materials::Materials;
pub use read::{Environment, ProcessEnvironment};

use super::documents::Documents;
use crate::compile::registry::Registry;
use crate::compile::{self, Compiled, Resolutions, habits};
use crate::model::{Model, Resources};

/// The loaded configuration files, with their mistakes.
pub struct Loaded {
    /// The names and texts of the files.
    pub sources: SourceMap,
    /// The contents of the certificate and key files that the configuration names.
    pub materials: Materials,
    layers: read::Layers,
    /// The documents of a server, as indices into `sources`.
    documents: Vec<u16>,
    mistakes: Vec<Diagnostic>,
    short: bool,
    unread: bool,
    names: habits::Names,
    outside: outside::Outside,
    asks_kubernetes: bool,
    /// The model. `None` after [`Loaded::release`].
    model: Mutex<Option<Arc<Model>>>,
}

impl Loaded {
    /// Whether `other` was loaded from files with the same contents.
    pub fn is_same_text(&self, other: &Self) -> bool {
        self.sources.files() == other.sources.files()
            && self.materials == other.materials
            && self.unread == other.unread
            && self.outside.unread == other.outside.unread
    }

    /// Whether a file or directory could not be read, or the access log cannot be written.
    pub fn is_unread(&self) -> bool {
        self.unread || self.outside.unread || self.materials.is_unread()
    }

    /// Whether a file could not be read because the process had no descriptors or memory left.
    pub fn is_short(&self) -> bool {
        self.short || self.materials.is_short()
    }

    /// Whether the files contain an error. Warnings do not count.
    pub fn is_faulty(&self) -> bool {
        self.mistakes.iter().any(|mistake| mistake.severity == Severity::Error)
    }

    /// The values that contain mistakes, to find the errors that only follow from them. Returns
    /// `None` if the files contain no errors.
    fn around_mistakes(&self) -> Option<Around> {
        if !self.is_faulty() {
            return None;
        }
        let Self { sources, mistakes, .. } = self;
        // Ignore the mistakes: loading has already reported them.
        let tree = self.tree(&mut Vec::new());
        Some(Around::new(&tree, mistakes, read::has_unreadable(sources)))
    }

    /// A text without the directories of the files, for others than the operator.
    pub fn without_paths(&self, text: &str) -> String {
        let names = self.sources.files().iter();
        let directories = names.filter_map(|(name, _)| name.rsplit_once('/'));
        let cut =
            |text: String, (directory, _): (&str, &str)| text.replace(&format!("{directory}/"), "");
        directories.fold(text.to_owned(), cut)
    }

    /// The valid part of the configuration. After [`Loaded::release`], it is made again from the
    /// texts and the environment of the process.
    pub fn model(&self) -> Arc<Model> {
        let mut model = self.model.lock().unwrap_or_else(PoisonError::into_inner);
        let made = model.get_or_insert_with(|| {
            // Ignore the mistakes: loading has already reported them.
            let mut known = Vec::new();
            let tree = self.tree(&mut known);
            let config = decode::decode(tree, &mut known).unwrap_or_default();
            Arc::new(self.parts(&ProcessEnvironment).model(config, &mut known))
        });
        Arc::clone(made)
    }

    fn parts<'a>(&'a self, environment: &'a dyn Environment) -> Parts<'a> {
        let Self { sources, materials, outside, .. } = self;
        Parts { sources, materials, outside, environment }
    }

    /// The merged files and documents. Variables have the values of this process.
    fn tree(&self, mistakes: &mut Vec<Diagnostic>) -> node::Node {
        let Self { layers, documents, sources, .. } = self;
        let mut tree = read::merge(layers, &ProcessEnvironment, sources, mistakes);
        read::add_documents(&mut tree, documents, sources, mistakes);
        tree
    }

    /// The same files, as they were read, with the documents of a server in the place of earlier
    /// ones.
    /// The `objects` are those of Kubernetes.
    pub fn with_documents(&self, documents: &Documents, objects: &Documents) -> Self {
        let mut loaded = Self {
            sources: self.sources.local(),
            materials: self.materials.clone(),
            layers: self.layers.clone(),
            documents: Vec::new(),
            mistakes: Vec::new(),
            short: self.short,
            unread: self.unread,
            names: self.names.clone(),
            outside: self.outside.clone(),
            asks_kubernetes: self.asks_kubernetes,
            model: Mutex::new(None),
        };
        let mut mistakes = Vec::new();
        loaded.documents = loaded.add_remote(documents, &mut mistakes);
        loaded.outside.objects = loaded.add_remote(objects, &mut mistakes);
        let tree = loaded.tree(&mut mistakes);
        loaded.names = own::names(&tree);
        let config = decode::decode(tree, &mut mistakes).unwrap_or_default();
        let model = loaded.parts(&ProcessEnvironment).model(config, &mut mistakes);
        Self { mistakes, model: Mutex::new(Some(Arc::new(model))), ..loaded }
    }

    /// Adds documents to the texts. Returns their indices.
    fn add_remote(&mut self, documents: &Documents, mistakes: &mut Vec<Diagnostic>) -> Vec<u16> {
        let mut indices = Vec::with_capacity(documents.texts.len());
        for (name, text) in &documents.texts {
            match self.sources.add_remote(name, text) {
                Some(file) => indices.push(file),
                None => {
                    mistakes.push(Diagnostic::nowhere("more than 65535 files and documents"));
                    break;
                }
            }
        }
        indices
    }

    /// Whether the files name etcd.
    pub fn asks_etcd(&self) -> bool {
        self.model().settings.sources.etcd.is_some()
    }

    /// Whether the files name an API server of Kubernetes.
    pub fn asks_kubernetes(&self) -> bool {
        self.asks_kubernetes
    }

    /// Whether the files name an xDS server.
    pub fn asks_xds(&self) -> bool {
        self.model().settings.sources.xds.is_some()
    }

    /// Whether the files want all services of Consul.
    pub fn wants_all_of_consul(&self) -> bool {
        self.model().settings.sources.consul.as_ref().is_some_and(|consul| consul.value.all)
    }

    /// The files and directories to watch for changes: the `-c` arguments, and the directories with
    /// files of other grammars.
    pub fn watched(&self, arguments: &[PathBuf]) -> Vec<PathBuf> {
        arguments.iter().chain(&self.outside.directories).cloned().collect()
    }

    /// Drops the model to save memory. It is rarely needed after the configuration was applied.
    pub fn release(&self) {
        *self.model.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Loads the files of the `-c` arguments. The result contains the mistakes; [`compile()`] reports
/// them together with its own errors.
pub fn load(arguments: &[PathBuf], environment: &dyn Environment) -> Loaded {
    load_with(arguments, environment, Materials::read)
}

/// Loads the files for a process that does not write the access log. Such a process often has
/// another user, who may not write to the log file.
pub fn load_without_log(arguments: &[PathBuf], environment: &dyn Environment) -> Loaded {
    load_with(arguments, environment, |config, sources| {
        Materials::read(config, sources).without_log()
    })
}

fn load_with(
    arguments: &[PathBuf],
    environment: &dyn Environment,
    read_materials: impl Fn(&grammar::Config, &SourceMap) -> Materials,
) -> Loaded {
    let mut sources = SourceMap::default();
    let mut mistakes = Vec::new();
    let mut short = false;
    let layers = read::gather(arguments, &mut sources, &mut mistakes, &mut short);
    let unread = !mistakes.is_empty();
    let tree = read::merge(&layers, environment, &sources, &mut mistakes);
    let names = own::names(&tree);
    let config = decode::decode(tree, &mut mistakes).unwrap_or_default();
    let materials = read_materials(&config, &sources);
    let outside = outside::Outside::read(&config.sources, &mut sources, &mut mistakes, &mut short);
    let parts = Parts { sources: &sources, materials: &materials, outside: &outside, environment };
    let model = Arc::new(parts.model(config, &mut mistakes));
    let asks_kubernetes = model.settings.sources.kubernetes.is_some();
    let model = Mutex::new(Some(model));
    let documents = Vec::new();
    Loaded {
        sources,
        materials,
        layers,
        documents,
        mistakes,
        short,
        unread,
        names,
        outside,
        asks_kubernetes,
        model,
    }
}

/// The parts of a configuration that lowering needs beside the grammar.
struct Parts<'a> {
    sources: &'a SourceMap,
    materials: &'a Materials,
    outside: &'a outside::Outside,
    environment: &'a dyn Environment,
}

impl Parts<'_> {
    /// The model of `config` and of the files of other grammars that it names.
    fn model(&self, config: grammar::Config, mistakes: &mut Vec<Diagnostic>) -> Model {
        let written = config.sources.clone();
        let mut model = lower::lower(config, self.sources, self.materials, mistakes);
        self.outside.add(&written, self, &mut model, mistakes);
        reserved::check(&model, self.sources, self.outside, mistakes);
        model
    }
}

/// Puts the names of the author into the helps.
fn with_names(mistakes: &mut [Diagnostic], names: &habits::Names) {
    // The first advice to make a service takes its name.
    let mut names = names.clone();
    for help in mistakes.iter_mut().filter_map(|mistake| mistake.help.as_mut()) {
        *help = habits::with_names(help, &mut names);
    }
}

/// Reads a YAML file of another grammar, such as a scenario of `simulate`. Its errors have places,
/// too.
///
/// # Errors
/// All mistakes in the file.
pub fn document<T: DeserializeOwned + Default>(
    path: &Path,
    environment: &dyn Environment,
) -> Result<(T, SourceMap), Diagnostics> {
    let (mut sources, mut mistakes) = (SourceMap::default(), Vec::new());
    let layers = read::gather(&[path.to_owned()], &mut sources, &mut mistakes, &mut false);
    let tree = read::merge(&layers, environment, &sources, &mut mistakes);
    match decode::decode_whole(tree, &mut mistakes) {
        Some(document) if mistakes.is_empty() => Ok((document, sources)),
        _ => Err(Diagnostics::new(mistakes, sources)),
    }
}

/// Compiles `loaded`, without resources of other sources, into the snapshot number `version`.
///
/// # Errors
/// All mistakes, including those that [`load`] has found.
pub fn compile(
    loaded: &Loaded,
    version: u64,
    registry: &mut Registry,
    resolutions: &Resolutions,
) -> Result<Compiled, Diagnostics> {
    compile_with(loaded, &Resources::default(), version, registry, resolutions)
}

/// Compiles `loaded` and the resources of other sources into the snapshot number `version`.
/// Resources with errors are left out of the snapshot.
///
/// # Errors
/// All mistakes in the files.
pub fn compile_with(
    loaded: &Loaded,
    resources: &Resources,
    version: u64,
    registry: &mut Registry,
    resolutions: &Resolutions,
) -> Result<Compiled, Diagnostics> {
    let merged = resources.merge(&loaded.model());
    let faults = match compile::compile(&merged, version, registry, resolutions) {
        Ok(compiled) if !loaded.is_faulty() => return Ok(compiled),
        Ok(compiled) => compiled.warnings,
        Err(faults) => faults,
    };
    let around = loaded.around_mistakes();
    let shown =
        faults.into_iter().filter(|fault| !around.as_ref().is_some_and(|it| it.explains(fault)));
    let mut mistakes = loaded.mistakes.clone();
    mistakes.extend(shown.map(Diagnostic::from));
    with_names(&mut mistakes, &loaded.names);
    Err(Diagnostics::new(mistakes, loaded.sources.clone()))
}

/// The warnings about `loaded`, which was compiled without errors.
pub fn warnings(loaded: &Loaded, compiled: &Compiled) -> Diagnostics {
    let mut list = loaded.mistakes.clone();
    list.extend(compiled.warnings.iter().cloned().map(Diagnostic::from));
    with_names(&mut list, &loaded.names);
    list.extend(validity::warnings(&compiled.validity));
    Diagnostics::new(list, loaded.sources.clone())
}

/// The JSON Schema of the grammar.
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(grammar::Config).to_value()
}

#[cfg(test)]
mod documents;
#[cfg(test)]
mod examples;
#[cfg(test)]
mod shapes;
#[cfg(test)]
mod tests;
