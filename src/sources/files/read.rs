//! Reads the files of a configuration, and merges them into one tree.

use std::path::{Path, PathBuf};

use super::diagnostic::{Diagnostic, Place, SourceMap};
use super::node::{self, Kind, Known, Node};
use super::own;
use crate::error::plain;
use crate::file;
use crate::net::is_shortage;

/// The maximum size of a configuration file.
pub const CONFIG_FILE_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// The source of the values that replace `${NAME}` in the files.
pub trait Environment {
    /// The value of the variable `name`. `None` if it is not set.
    fn variable(&self, name: &str) -> Option<String>;
}

/// The environment of the process.
pub struct ProcessEnvironment;

impl Environment for ProcessEnvironment {
    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }
}

impl Environment for std::collections::HashMap<String, String> {
    fn variable(&self, name: &str) -> Option<String> {
        self.get(name).cloned()
    }
}

/// The files of each `-c` argument, as indices into the [`SourceMap`].
pub(super) type Layers = Vec<Vec<u16>>;

/// Reads the files of the `-c` arguments. An argument is a file, or a directory of `*.yaml` and
/// `*.yml`. Sets `short` if a file could not be read because the process had no descriptors or
/// memory left.
pub(super) fn gather(
    arguments: &[PathBuf],
    sources: &mut SourceMap,
    mistakes: &mut Vec<Diagnostic>,
    short: &mut bool,
) -> Layers {
    let mut layers = Vec::new();
    for argument in arguments {
        let mut layer = Vec::new();
        for path in files_of(argument, mistakes, short) {
            let Some(text) = read_file(&path, mistakes, short) else { continue };
            match sources.add(&path.display().to_string(), text) {
                Some(file) => layer.push(file),
                None => mistakes.push(Diagnostic::nowhere("more than 65535 files")),
            }
        }
        layers.push(layer);
    }
    layers
}

/// Parses and merges the files. A key that appears twice in the files of one argument is a mistake.
/// Later arguments override earlier ones key by key.
pub(super) fn merge(
    layers: &Layers,
    environment: &dyn Environment,
    sources: &SourceMap,
    mistakes: &mut Vec<Diagnostic>,
) -> Node {
    let mut merged = Node { place: Default::default(), kind: Kind::Map(Vec::new()) };
    let mut objects = Vec::new();
    for files in layers {
        let mut layer = Node { place: Default::default(), kind: Kind::Map(Vec::new()) };
        for &file in files {
            let text = sources.text(file);
            if text.is_empty() && layers.iter().map(Vec::len).sum::<usize>() > 1 {
                let place = Place { file, line: 1, column: 1, len: 1 };
                let help = "an interrupted copy leaves such a file; remove it if it has no purpose";
                mistakes.push(Diagnostic::at(place, "this file is empty").help(help).warning());
            }
            let Some(mut node) = node::parse(file, text, mistakes) else { continue };
            expand(&mut node, environment, mistakes);
            if !matches!(node.kind, Kind::Map(_) | Kind::Null) {
                let message = format!("a file is a map of sections, not {}", node.describe());
                let help = match node.kind {
                    Kind::List(_) => "leave the dash out: `listeners:` begins a line",
                    _ if node.describe().contains("PEM") => {
                        "name it in `tls: {cert: FILE, key: FILE}`; `-c` is for the configuration"
                    }
                    _ => "write `listeners:`, and its entries below it",
                };
                mistakes.push(Diagnostic::at(node.place, message).help(help));
                continue;
            }
            if own::is_of_kubernetes(&node) {
                objects.push(node);
                continue;
            }
            join(&mut layer, node, sources, mistakes);
        }
        overlay(&mut merged, layer);
    }
    mistakes.extend(objects.iter().filter_map(|object| own::of_kubernetes(object, &merged)));
    let nothing = matches!(&merged.kind, Kind::Map(sections) if sections.is_empty());
    if nothing && mistakes.is_empty() && layers.iter().any(|files| !files.is_empty()) {
        let help = "write at least `listeners: {web: {bind: 127.0.0.1:8080}}`";
        mistakes.push(Diagnostic::nowhere("the configuration is empty").help(help));
    }
    merged
}

/// The sections that a document of a server may have. All others belong to this process and this
/// machine.
const REMOTE_SECTIONS: [&str; 4] = ["listeners", "routes", "services", "authorization"];

/// Adds the documents of a server, as indices into `sources`, to the merged files. An entry of the
/// files comes before the entry of the same name in a document.
pub(super) fn add_documents(
    merged: &mut Node,
    documents: &[u16],
    sources: &SourceMap,
    mistakes: &mut Vec<Diagnostic>,
) {
    let mut all = Node { place: Default::default(), kind: Kind::Map(Vec::new()) };
    for &document in documents {
        let Some(mut node) = node::parse(document, sources.text(document), mistakes) else {
            continue;
        };
        keep_variables(&node, mistakes);
        let Kind::Map(sections) = &mut node.kind else {
            if !matches!(node.kind, Kind::Null) {
                let message = format!("a document is a map of sections, not {}", node.describe());
                mistakes.push(Diagnostic::at(node.place, message));
            }
            continue;
        };
        sections.retain(|(key, _)| {
            let allowed = REMOTE_SECTIONS.contains(&&*key.text);
            if !allowed {
                let message = format!("a document of a server cannot have `{}`", key.text);
                let help = format!(
                    "write it into a file of this machine; a document has {}",
                    REMOTE_SECTIONS.join(", ")
                );
                mistakes.push(Diagnostic::at(key.place, message).help(help));
            }
            allowed
        });
        join(&mut all, node, sources, mistakes);
    }
    under(merged, all, sources, mistakes);
}

/// Adds the sections of `new` below those of `all`: a name that both have keeps the value in `all`.
fn under(all: &mut Node, new: Node, sources: &SourceMap, mistakes: &mut Vec<Diagnostic>) {
    let (Kind::Map(all), Kind::Map(new)) = (&mut all.kind, new.kind) else { return };
    for (section, value) in new {
        let Some((_, known)) = all.iter_mut().find(|(known, _)| known.text == section.text) else {
            all.push((section, value));
            continue;
        };
        match (&mut known.kind, value.kind) {
            (Kind::Map(known), Kind::Map(more)) => {
                let mut index = Known::default();
                for (name, value) in more {
                    let Some(first) = index.index_of(known, &name.text) else {
                        known.push((name, value));
                        continue;
                    };
                    let first = sources.file_line(known[first].0.place);
                    let message = format!("{:?} is not used: {first} comes first", name.text);
                    let help = "a file of this machine comes before a document of a server";
                    mistakes.push(Diagnostic::at(name.place, message).help(help).warning());
                }
            }
            (Kind::List(known), Kind::List(more)) => known.extend(more),
            (Kind::Null, kind) => known.kind = kind,
            _ => {}
        }
    }
}

/// Reports `${NAME}` in a document of a server: it must not read the environment of this process.
fn keep_variables(node: &Node, mistakes: &mut Vec<Diagnostic>) {
    match &node.kind {
        Kind::Null => {}
        Kind::List(items) => items.iter().for_each(|item| keep_variables(item, mistakes)),
        Kind::Map(entries) => entries.iter().for_each(|(_, it)| keep_variables(it, mistakes)),
        Kind::Scalar { text, .. } => {
            if text.contains("${") {
                let message = "a document of a server cannot read variables of this process";
                let help = "write the value itself";
                mistakes.push(Diagnostic::at(node.place, message).help(help));
            }
        }
    }
}

/// Whether one of the files is not valid YAML.
pub(super) fn has_unreadable(sources: &SourceMap) -> bool {
    (0..).zip(sources.files()).any(|(file, (_, text))| {
        let mut mistakes = Vec::new();
        node::parse(file, text, &mut mistakes).is_none() && !mistakes.is_empty()
    })
}

fn files_of(argument: &Path, mistakes: &mut Vec<Diagnostic>, short: &mut bool) -> Vec<PathBuf> {
    if !argument.is_dir() {
        return vec![argument.to_owned()];
    }
    let mut files = Vec::new();
    match std::fs::read_dir(argument) {
        Ok(entries) => {
            for path in entries.filter_map(Result::ok).map(|entry| entry.path()) {
                let hidden = path.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.'));
                let yaml = path.extension().is_some_and(|e| e == "yaml" || e == "yml");
                if yaml && !hidden {
                    files.push(path);
                }
            }
        }
        Err(error) => {
            *short |= is_shortage(&error);
            let message =
                format!("cannot read the directory {}: {}", argument.display(), plain(&error));
            mistakes.push(Diagnostic::nowhere(message));
            return files;
        }
    }
    if files.is_empty() {
        let message = format!("no *.yaml in {}", argument.display());
        mistakes.push(Diagnostic::nowhere(message));
    }
    files.sort();
    files
}

pub(super) fn read_file(
    path: &Path,
    mistakes: &mut Vec<Diagnostic>,
    short: &mut bool,
) -> Option<String> {
    let mut fail = |message: String| {
        mistakes.push(Diagnostic::nowhere(format!("{}: {message}", path.display())));
        None
    };
    let bytes = match file::read(path, CONFIG_FILE_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) => {
            *short |= is_shortage(&error);
            return fail(format!("cannot read it: {}", plain(&error)));
        }
    };
    match String::from_utf8(bytes) {
        Ok(text) if text.contains('\0') => fail("not text: it holds a NUL byte".to_owned()),
        Ok(text) => Some(text),
        Err(error) => {
            let line = error.as_bytes()[..error.utf8_error().valid_up_to()]
                .iter()
                .filter(|&&byte| byte == b'\n')
                .count();
            fail(format!("not UTF-8 text from line {} on", line + 1))
        }
    }
}

/// Replaces `${NAME}` in all values of the tree below `node`.
pub(super) fn expand(
    node: &mut Node,
    environment: &dyn Environment,
    mistakes: &mut Vec<Diagnostic>,
) {
    match &mut node.kind {
        Kind::Null => {}
        Kind::List(items) => items.iter_mut().for_each(|n| expand(n, environment, mistakes)),
        Kind::Map(entries) => {
            entries.iter_mut().for_each(|(_, n)| expand(n, environment, mistakes));
        }
        Kind::Scalar { text, .. } => match expanded(text, environment) {
            Ok(Some(new)) => *text = new,
            Ok(None) => {}
            Err((message, name)) => {
                let help = format!(
                    "set it, or give a default: ${{{name}:-default}}; a plain ${{ is written $${{"
                );
                mistakes.push(Diagnostic::at(node.place, message).help(help));
            }
        },
    }
}

/// The new text, or the message and the name of the variable.
type Expanded<'t> = Result<Option<String>, (String, &'t str)>;

/// The text with `${NAME}` and `${NAME:-default}` replaced. Returns `None` if `text` has no `${`.
fn expanded<'t>(text: &'t str, environment: &dyn Environment) -> Expanded<'t> {
    if !text.contains("${") {
        return Ok(None);
    }
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            out.push_str(&rest[..at - 1]);
            out.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        out.push_str(&rest[..at]);
        let inside = &rest[at + 2..];
        let end = inside.find('}').ok_or_else(|| ("a ${ without its }".to_owned(), "NAME"))?;
        let (name, default) = match inside[..end].split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (&inside[..end], None),
        };
        let value = environment.variable(name).filter(|v| !v.is_empty() || default.is_none());
        match (value, default) {
            (Some(value), _) => out.push_str(&value),
            (None, Some(default)) => out.push_str(default),
            (None, None) => {
                return Err((format!("the environment has no variable {name:?}"), name));
            }
        }
        rest = &inside[end + 1..];
    }
    out.push_str(rest);
    Ok(Some(out))
}

/// Adds the sections of `new` to those of `all`. If both have a section, its maps or lists are
/// joined. A name, or a section with a single value, that appears twice is a mistake. The message
/// names both places.
fn join(all: &mut Node, new: Node, sources: &SourceMap, mistakes: &mut Vec<Diagnostic>) {
    let (Kind::Map(all), Kind::Map(new)) = (&mut all.kind, new.kind) else { return };
    for (key, value) in new {
        let Some((known_key, known)) = all.iter_mut().find(|(known, _)| known.text == key.text)
        else {
            all.push((key, value));
            continue;
        };
        let twice = |text: &str, first| {
            format!("{text:?} appears twice, first at {}", sources.file_line(first))
        };
        match (&mut known.kind, value.kind) {
            (Kind::Map(known), Kind::Map(more)) => {
                let mut index = Known::default();
                for (name, value) in more {
                    match index.index_of(known, &name.text) {
                        None => known.push((name, value)),
                        Some(first) => {
                            let message = twice(&name.text, known[first].0.place);
                            mistakes.push(Diagnostic::at(name.place, message).help(
                                "keep one; to override, put it into a directory of a later -c",
                            ));
                        }
                    }
                }
            }
            (Kind::List(known), Kind::List(more)) => known.extend(more),
            (Kind::Null, kind) => known.kind = kind,
            (_, Kind::Null) => {}
            _ => {
                let message = twice(&key.text, known_key.place);
                mistakes.push(Diagnostic::at(key.place, message).help("join them, or keep one"));
            }
        }
    }
}

/// Merges `over` into `base` key by key. If both have a value, the value of `over` is used.
fn overlay(base: &mut Node, over: Node) {
    let place = over.place;
    match (&mut base.kind, over.kind) {
        (Kind::Map(base), Kind::Map(over)) => {
            let mut index = Known::default();
            for (key, value) in over {
                match index.index_of(base, &key.text) {
                    Some(at) => {
                        let (known, node) = &mut base[at];
                        known.place = key.place;
                        overlay(node, value);
                    }
                    None => base.push((key, value)),
                }
            }
        }
        (base_kind, kind) => {
            *base_kind = kind;
            base.place = place;
        }
    }
}
