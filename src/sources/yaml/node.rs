//! A YAML document as a tree. Each node has its place in the file.

use rustc_hash::FxHashMap;
use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use super::diagnostic::{Diagnostic, Place};
use super::syntax;

/// The maximum nesting of maps and lists.
pub const DEPTH_MAX: usize = 32;

/// The maximum number of characters of a text that a message quotes.
const SHOWN_CHARS_MAX: usize = 80;

/// A value of a YAML document and its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The place in the file.
    pub place: Place,
    /// The content.
    pub kind: Kind,
}

/// The content of a [`Node`].
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// No value, as in `key:`.
    Null,
    /// Text. The expected type decides how the text is read, so `on` is never a boolean.
    Scalar {
        /// The text, without quotes.
        text: String,
        /// Whether it was written without quotes.
        plain: bool,
    },
    /// A list.
    List(Vec<Node>),
    /// Keys and values, in the order of the file.
    Map(Vec<(Key, Node)>),
}

/// A key of a map.
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    /// The place in the file.
    pub place: Place,
    /// The key.
    pub text: String,
}

/// Parses the single document of `text`. Adds its mistakes to `mistakes`, and returns the valid
/// part, so that all mistakes of a configuration can be reported at once.
pub fn parse(file: u16, text: &str, mistakes: &mut Vec<Diagnostic>) -> Option<Node> {
    let mut reader = Reader { file, text, events: Parser::new_from_str(text), mistakes };
    match reader.document() {
        Ok(node) => node,
        Err(mistake) => {
            mistakes.push(mistake);
            None
        }
    }
}

/// Parses all documents of `text`. Adds its mistakes to `mistakes`, and returns the documents
/// before the first mistake of YAML.
pub fn parse_all(file: u16, text: &str, mistakes: &mut Vec<Diagnostic>) -> Vec<Node> {
    let mut reader = Reader { file, text, events: Parser::new_from_str(text), mistakes };
    let mut documents = Vec::new();
    loop {
        match reader.next_document() {
            Ok(Some(document)) => documents.push(document),
            Ok(None) => return documents,
            Err(mistake) => {
                mistakes.push(mistake);
                return documents;
            }
        }
    }
}

/// The mistake that there is a second document, `next`. It begins at `place`.
fn second(place: Place, next: &Node) -> Diagnostic {
    let help = match is_object(next) {
        true => {
            "move the objects of Kubernetes to a file of their own, outside of the directory of \
             -c, and name it in `sources`: {istio: {files: FILE}} or {gateway_api: {files: FILE}}"
        }
        false => {
            "take this line out; or name a directory with -c, and put the rest into a file of \
             its own there"
        }
    };
    Diagnostic::at(place, "a second document in one file").help(help)
}

/// Whether a document is an object of Kubernetes.
fn is_object(document: &Node) -> bool {
    let Kind::Map(entries) = &document.kind else { return false };
    let has = |name: &str| entries.iter().any(|(key, _)| key.text == name);
    has("apiVersion") && has("kind")
}

struct Reader<'t, 'm> {
    file: u16,
    text: &'t str,
    events: Parser<'t, saphyr_parser::StrInput<'t>>,
    mistakes: &'m mut Vec<Diagnostic>,
}

impl<'t> Reader<'t, '_> {
    fn document(&mut self) -> Result<Option<Node>, Diagnostic> {
        let mut root = None;
        loop {
            let (event, place) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(root),
                Event::StreamStart | Event::DocumentEnd | Event::Nothing => {}
                // The caller reports an object of Kubernetes, with all that follow it.
                Event::DocumentStart(_) if root.as_ref().is_some_and(is_object) => {
                    return Ok(root);
                }
                Event::DocumentStart(_)
                    if root.as_ref().is_some_and(|root: &Node| root.kind != Kind::Null) =>
                {
                    // An empty document at the end is only a line.
                    let next = self.next_document()?.filter(|next| next.kind != Kind::Null);
                    if let Some(next) = next {
                        return Err(second(place, &next));
                    }
                }
                Event::DocumentStart(_) => {}
                event => root = Some(self.node(event, place, 0)?),
            }
        }
    }

    fn next_document(&mut self) -> Result<Option<Node>, Diagnostic> {
        loop {
            let (event, place) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(None),
                Event::StreamStart
                | Event::DocumentStart(_)
                | Event::DocumentEnd
                | Event::Nothing => {}
                event => return self.node(event, place, 0).map(Some),
            }
        }
    }

    fn next(&mut self) -> Result<(Event<'t>, Place), Diagnostic> {
        match self.events.next() {
            Some(Ok((event, span))) => Ok((event, self.place(span))),
            Some(Err(error)) => {
                let mark = *error.marker();
                let place = self.place(Span::new(mark, mark));
                Err(syntax::mistake(self.text, place, error.info()))
            }
            None => Ok((Event::StreamEnd, Place::default())),
        }
    }

    fn place(&self, span: Span) -> Place {
        let same_line = span.start.line() == span.end.line();
        let len = if same_line { span.end.col().saturating_sub(span.start.col()) } else { 1 };
        Place {
            file: self.file,
            line: span.start.line() as u32,
            column: span.start.col() as u32 + 1,
            len: u16::try_from(len.max(1)).unwrap_or(u16::MAX),
        }
    }

    fn node(&mut self, event: Event<'t>, place: Place, depth: usize) -> Result<Node, Diagnostic> {
        if depth > DEPTH_MAX {
            return Err(Diagnostic::at(place, "nested too deeply"));
        }
        let kind = match event {
            Event::Scalar(text, style, _, tag) => {
                let is_text = tag.is_some_and(|tag| tag.suffix == "str");
                let plain = style == ScalarStyle::Plain && !is_text;
                match &*text {
                    "" | "~" | "null" if plain => Kind::Null,
                    _ => Kind::Scalar { text: text.into_owned(), plain },
                }
            }
            Event::SequenceStart(..) => self.list(depth)?,
            Event::MappingStart(..) => self.map(depth)?,
            _ => {
                return Err(Diagnostic::at(place, "YAML aliases (*name) are not supported")
                    .help("write the value out, or take it from the environment: ${NAME}"));
            }
        };
        Ok(Node { place, kind })
    }

    fn list(&mut self, depth: usize) -> Result<Kind, Diagnostic> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => {
                    items.shrink_to_fit();
                    return Ok(Kind::List(items));
                }
                (event, place) => items.push(self.node(event, place, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Kind, Diagnostic> {
        let mut entries: Vec<(Key, Node)> = Vec::new();
        let mut known = Known::default();
        loop {
            let (event, place) = self.next()?;
            let text = match event {
                Event::MappingEnd => {
                    entries.shrink_to_fit();
                    return Ok(Kind::Map(entries));
                }
                Event::Scalar(text, ..) => text.into_owned(),
                _ => {
                    return Err(syntax::no_name(self.text, place));
                }
            };
            let (event, value_place) = self.next()?;
            let value = self.node(event, value_place, depth + 1)?;
            if let Some(first) = known.index_of(&entries, &text) {
                let line = entries[first].0.place.line;
                let message = format!("{text:?} appears twice, first in line {line}");
                self.mistakes.push(Diagnostic::at(place, message).help("join them, or keep one"));
                continue;
            }
            entries.push((Key { place, text }, value));
        }
    }
}

/// The maximum number of keys of a map that are compared one by one. A larger map gets an index.
const COMPARED_MAX: usize = 32;

/// Finds the entries of a growing map by key.
#[derive(Default)]
pub struct Known {
    by_text: FxHashMap<String, usize>,
    /// The number of entries that are in the index.
    indexed: usize,
}

impl Known {
    /// The index of the entry with the key `text`.
    pub fn index_of(&mut self, entries: &[(Key, Node)], text: &str) -> Option<usize> {
        if entries.len() <= COMPARED_MAX {
            return entries.iter().position(|(key, _)| key.text == text);
        }
        for (index, (key, _)) in entries.iter().enumerate().skip(self.indexed) {
            self.by_text.insert(key.text.clone(), index);
        }
        self.indexed = entries.len();
        self.by_text.get(text).copied()
    }
}

impl Node {
    /// The text of a scalar. Empty for any other node.
    pub fn text(&self) -> &str {
        match &self.kind {
            Kind::Scalar { text, .. } => text,
            Kind::Null | Kind::List(_) | Kind::Map(_) => "",
        }
    }

    /// The description of the node in messages.
    pub fn describe(&self) -> String {
        match &self.kind {
            Kind::Null => "nothing".to_owned(),
            // A key that is given as a configuration must not reach a log.
            Kind::Scalar { text, .. } if text.contains("-----BEGIN") => "a PEM file".to_owned(),
            Kind::Scalar { text, .. } => match text.char_indices().nth(SHOWN_CHARS_MAX) {
                Some((at, _)) => format!("{:?} ...", &text[..at]),
                None => format!("{text:?}"),
            },
            Kind::List(_) => "a list".to_owned(),
            Kind::Map(_) => "a map".to_owned(),
        }
    }
}
