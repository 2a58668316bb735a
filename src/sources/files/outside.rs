//! Files of other grammars: objects of Istio.

use std::path::{Path, PathBuf};

use super::diagnostic::{Diagnostic, SourceMap};
use super::grammar::sources::{Istio, Sources};
use super::materials::path_of;
use super::node::{self, Node};
use super::read::{self, Environment};
use super::values::{OneOrMany, Placed};
use crate::model::Model;
use crate::sources::istio;

/// The files of other grammars, as indices into the [`SourceMap`].
#[derive(Default)]
pub(super) struct Outside {
    istio: Vec<u16>,
    /// The directories of the files, to watch them for changes.
    pub(super) directories: Vec<PathBuf>,
    /// Whether a file could not be read.
    pub(super) unread: bool,
}

impl Outside {
    /// Reads the files that `written` names.
    pub(super) fn read(
        written: &Sources,
        sources: &mut SourceMap,
        mistakes: &mut Vec<Diagnostic>,
        short: &mut bool,
    ) -> Self {
        let mut outside = Self::default();
        if let Some(istio) = &written.istio {
            outside.istio = outside.files(&istio.value.files, sources, mistakes, short);
        }
        outside
    }

    fn files(
        &mut self,
        patterns: &OneOrMany<Placed<String>>,
        sources: &mut SourceMap,
        mistakes: &mut Vec<Diagnostic>,
        short: &mut bool,
    ) -> Vec<u16> {
        let mut files = Vec::new();
        for pattern in &patterns.0 {
            for path in self.found(pattern, sources, mistakes) {
                let before = mistakes.len();
                let text = read::read_file(&path, mistakes, short);
                self.unread |= mistakes.len() > before;
                let Some(text) = text else { continue };
                match sources.add(&path.display().to_string(), text) {
                    Some(file) => files.push(file),
                    None => mistakes.push(Diagnostic::nowhere("more than 65535 files")),
                }
            }
        }
        files
    }

    /// The files that a pattern matches.
    fn found(
        &mut self,
        pattern: &Placed<String>,
        sources: &SourceMap,
        mistakes: &mut Vec<Diagnostic>,
    ) -> Vec<PathBuf> {
        let whole = path_of(sources, pattern);
        self.directories.extend(directories(&whole));
        let mut wrong = |message: String, help: &str| {
            mistakes.push(Diagnostic::at(pattern.place, message).help(help));
            Vec::new()
        };
        let found = match glob::glob(&whole.display().to_string()) {
            Ok(found) => found,
            Err(error) => {
                let help = "write a path such as istio/*.yaml";
                return wrong(format!("{:?} is not a pattern: {}", pattern.value, error.msg), help);
            }
        };
        let hidden = |path: &Path| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'))
        };
        let found: Vec<PathBuf> =
            found.filter_map(Result::ok).filter(|path| path.is_file() && !hidden(path)).collect();
        if found.is_empty() {
            let help = "a relative path begins at the directory of this file";
            return wrong(format!("no file matches {}", whole.display()), help);
        }
        found
    }

    /// Adds the objects of all files to `model`.
    pub(super) fn add(
        &self,
        written: &Sources,
        sources: &SourceMap,
        environment: &dyn Environment,
        model: &mut Model,
        mistakes: &mut Vec<Diagnostic>,
    ) {
        let mut documents = |files: &[u16]| -> Vec<Node> {
            let mut documents = Vec::new();
            for &file in files {
                documents.extend(node::parse_all(file, sources.text(file), mistakes));
            }
            documents.iter_mut().for_each(|node| read::expand(node, environment, mistakes));
            documents
        };
        if let Some(istio) = &written.istio {
            let documents = documents(&self.istio);
            let settings = settings(&istio.value);
            istio::add(&documents, settings, sources, model, mistakes);
        }
    }
}

fn settings(written: &Istio) -> istio::Settings {
    let or = |text: &Option<Placed<String>>, default: &str| {
        text.as_ref().map_or(default, |text| text.value.as_str()).to_owned()
    };
    let label = |(name, value): &(Placed<String>, Placed<String>)| {
        (name.value.clone(), value.value.clone())
    };
    istio::Settings {
        namespace: or(&written.namespace, "default"),
        root_namespace: or(&written.root_namespace, "istio-system"),
        domain: or(&written.domain, "cluster.local"),
        labels: written.labels.0.iter().map(label).collect(),
    }
}

/// The directories in which new files may match `pattern`: that before the first wildcard, and
/// those that the wildcards match.
fn directories(pattern: &Path) -> Vec<PathBuf> {
    let Some(parent) = pattern.parent() else { return Vec::new() };
    let fixed = parent.ancestors().find(|path| !path.to_string_lossy().contains(['*', '?', '[']));
    let matching = glob::glob(&parent.display().to_string()).into_iter().flatten();
    let mut all: Vec<PathBuf> = matching.filter_map(Result::ok).collect();
    all.extend(fixed.map(Path::to_owned));
    all.sort();
    all.dedup();
    all
}
