//! Mistakes in a configuration: the place, the message, and advice.

use std::fmt;
use std::sync::Arc;

use crate::model::{Fault, Files, Origin};
pub use crate::model::{Place, Severity};

/// The files of a configuration, each as (name, text). Documents of a server come after the files
/// of this machine. Clones share the texts.
#[derive(Clone, Debug, Default)]
pub struct SourceMap {
    files: Arc<Vec<(Arc<str>, Arc<str>)>>,
    /// The number of documents of a server.
    remote: usize,
}

impl SourceMap {
    /// Adds a file and returns its index. Returns `None` if there are too many files.
    pub fn add(&mut self, name: &str, text: String) -> Option<u16> {
        let files = Arc::make_mut(&mut self.files);
        let index = u16::try_from(files.len()).ok()?;
        files.push((name.into(), text.into()));
        Some(index)
    }

    /// Adds a document of a server, and returns its index. Returns `None` if there are too many.
    pub fn add_remote(&mut self, name: &Arc<str>, text: &Arc<str>) -> Option<u16> {
        let files = Arc::make_mut(&mut self.files);
        let index = u16::try_from(files.len()).ok()?;
        files.push((Arc::clone(name), Arc::clone(text)));
        self.remote += 1;
        Some(index)
    }

    /// Whether the file with this index is a document of a server.
    pub fn is_remote(&self, file: u16) -> bool {
        usize::from(file) >= self.files.len() - self.remote
    }

    /// The files of this machine alone.
    pub fn local(&self) -> Self {
        let mut files = Arc::clone(&self.files);
        if self.remote > 0 {
            Arc::make_mut(&mut files).truncate(self.files.len() - self.remote);
        }
        Self { files, remote: 0 }
    }

    /// The text of the file with this index. Empty if there is no such file.
    pub fn text(&self, file: u16) -> &str {
        self.files.get(usize::from(file)).map_or("", |(_, text)| text)
    }

    /// `file:line` of a place.
    pub fn file_line(&self, place: Place) -> String {
        format!("{}:{}", self.name(place.file), place.line)
    }

    /// The files as (name, text).
    pub fn files(&self) -> &[(Arc<str>, Arc<str>)] {
        &self.files
    }

    /// The files as (name, text), shared with this map.
    pub fn shared(&self) -> Arc<Vec<(Arc<str>, Arc<str>)>> {
        Arc::clone(&self.files)
    }

    /// The names of the files.
    pub fn names(&self) -> Files {
        Files::new(self.files.iter().map(|(name, _)| Arc::clone(name)).collect())
    }

    fn name(&self, file: u16) -> &str {
        self.files.get(usize::from(file)).map_or("?", |(name, _)| name)
    }

    fn line(&self, place: Place) -> Option<&str> {
        let (_, text) = self.files.get(usize::from(place.file))?;
        text.lines().nth(place.line.checked_sub(1)? as usize)
    }
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Whether the configuration is refused because of the mistake.
    pub severity: Severity,
    /// The place. `None` if the mistake belongs to no file.
    pub place: Option<Place>,
    /// The message, which describes the mistake.
    pub message: String,
    /// Advice for the operator. `None` if there is none.
    pub help: Option<String>,
}

impl From<Fault> for Diagnostic {
    fn from(fault: Fault) -> Self {
        let (place, message) = match &fault.origin {
            Origin::File(place) => (Some(*place), fault.message),
            Origin::BuiltIn => (None, fault.message),
            Origin::Resource(id) => (None, format!("{id}: {}", fault.message)),
        };
        Self { severity: fault.severity, place, message, help: fault.help }
    }
}

impl Diagnostic {
    /// Creates an error at `place`.
    pub fn at(place: Place, message: impl Into<String>) -> Self {
        let severity = Severity::Error;
        Self { severity, place: Some(place), message: message.into(), help: None }
    }

    /// Creates an error that belongs to no file.
    pub fn nowhere(message: impl Into<String>) -> Self {
        let severity = Severity::Error;
        Self { severity, place: None, message: message.into(), help: None }
    }

    /// Makes the mistake a warning.
    pub fn warning(self) -> Self {
        Self { severity: Severity::Warning, ..self }
    }

    /// Adds advice for the operator.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// All mistakes of a configuration. `Display` shows each with its line and a caret.
#[derive(Clone, Debug, Default)]
pub struct Diagnostics {
    /// The mistakes, in the order of their places.
    pub list: Vec<Diagnostic>,
    /// The files, for the lines that are shown.
    pub sources: SourceMap,
}

impl Diagnostics {
    /// Sorts `list` by place. Keeps only the first of several mistakes at one place, because the
    /// others usually follow from it.
    pub fn new(mut list: Vec<Diagnostic>, sources: SourceMap) -> Self {
        list.sort_by_key(|diagnostic| (diagnostic.place, diagnostic.severity));
        list.dedup_by(|later, first| {
            later == first || first.place.is_some() && later.place == first.place
        });
        Self { list, sources }
    }

    /// The documents of servers with errors: the name of each one, and its first error.
    pub fn of_documents(&self) -> Vec<(Arc<str>, String)> {
        let mut found: Vec<(Arc<str>, String)> = Vec::new();
        for mistake in self.list.iter().filter(|it| it.severity == Severity::Error) {
            let Some(place) = mistake.place.filter(|it| self.sources.is_remote(it.file)) else {
                continue;
            };
            let Some((name, _)) = self.sources.files().get(usize::from(place.file)) else {
                continue;
            };
            if found.iter().any(|(known, _)| known == name) {
                continue;
            }
            let help = mistake.help.iter().map(|help| format!("; {help}"));
            let help: String = help.collect();
            found.push((
                Arc::clone(name),
                format!("line {}: {}{help}", place.line, mistake.message),
            ));
        }
        found
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for diagnostic in &self.list {
            let Diagnostic { severity, place, message, help } = diagnostic;
            let severity = match severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
            };
            match place {
                None => writeln!(f, "{severity}: {message}")?,
                Some(place) => {
                    let name = self.sources.name(place.file);
                    writeln!(f, "{name}:{}:{}: {severity}: {message}", place.line, place.column)?;
                    if let Some(line) = self.sources.line(*place) {
                        let number = place.line.to_string();
                        let margin = " ".repeat(number.len());
                        let before = place.column.saturating_sub(1) as usize;
                        // Keep tabs in the indent, so that the caret is below its text.
                        let indent: String = line
                            .chars()
                            .take(before)
                            .map(|c| if c == '\t' { '\t' } else { ' ' })
                            .collect();
                        let rest = line.chars().count().saturating_sub(before).max(1);
                        let carets = "^".repeat((place.len as usize).clamp(1, rest));
                        writeln!(f, " {number} | {line}")?;
                        writeln!(f, " {margin} | {indent}{carets}")?;
                    }
                }
            }
            if let Some(help) = help {
                writeln!(f, "   = help: {help}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}
