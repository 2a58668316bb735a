//! What is wrong with a configuration: where, what, and what to write instead.

use std::fmt;

/// A stretch of text in one of the files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Index into [`SourceMap`].
    pub file: u32,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// Characters.
    pub len: u32,
}

/// The files of a configuration, for showing lines of them.
#[derive(Clone, Debug, Default)]
pub struct SourceMap(Vec<(String, String)>);

impl SourceMap {
    /// Adds a file and gives its index.
    pub fn add(&mut self, name: String, text: String) -> u32 {
        self.0.push((name, text));
        (self.0.len() - 1) as u32
    }

    /// `file:line` of a place.
    pub fn file_line(&self, place: Place) -> String {
        format!("{}:{}", self.name(place.file), place.line)
    }

    /// The files as (name, text).
    pub fn files(&self) -> &[(String, String)] {
        &self.0
    }

    fn name(&self, file: u32) -> &str {
        self.0.get(file as usize).map_or("?", |(name, _)| name)
    }

    fn line(&self, place: Place) -> Option<&str> {
        let (_, text) = self.0.get(place.file as usize)?;
        text.lines().nth(place.line.checked_sub(1)? as usize)
    }
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Where it is; `None` when it is in no file.
    pub place: Option<Place>,
    /// What is wrong.
    pub message: String,
    /// What to do instead.
    pub help: Option<String>,
}

impl Diagnostic {
    /// A mistake at `place`.
    pub fn at(place: Place, message: impl Into<String>) -> Self {
        Self { place: Some(place), message: message.into(), help: None }
    }

    /// A mistake that is in no file.
    pub fn nowhere(message: impl Into<String>) -> Self {
        Self { place: None, message: message.into(), help: None }
    }

    /// The same with a hint.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// All mistakes of a configuration, each with its line and a caret.
#[derive(Clone, Debug, Default)]
pub struct Diagnostics {
    /// The mistakes, in the order of their places.
    pub list: Vec<Diagnostic>,
    /// The files they are in.
    pub sources: SourceMap,
}

impl Diagnostics {
    /// Orders `list` by place. Of several mistakes at one place the first is kept: the others
    /// mostly follow from it.
    pub fn new(mut list: Vec<Diagnostic>, sources: SourceMap) -> Self {
        list.sort_by_key(|diagnostic| diagnostic.place);
        list.dedup_by(|later, first| {
            later == first || first.place.is_some() && later.place == first.place
        });
        Self { list, sources }
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for diagnostic in &self.list {
            let Diagnostic { place, message, help } = diagnostic;
            match place {
                None => writeln!(f, "error: {message}")?,
                Some(place) => {
                    let name = self.sources.name(place.file);
                    writeln!(f, "{name}:{}:{}: error: {message}", place.line, place.column)?;
                    if let Some(line) = self.sources.line(*place) {
                        let number = place.line.to_string();
                        let margin = " ".repeat(number.len());
                        let before = place.column.saturating_sub(1) as usize;
                        // Tabs keep their width, so that the caret stands under its text.
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
