//! Describes mistakes in YAML. The parser only reports the token that it expected. This module
//! infers the intention of the author from the lines around the place.

use super::diagnostic::{Diagnostic, Place};

/// Describes the mistake in `text` that the parser found at `place`. `info` is the message of the
/// parser.
pub(super) fn mistake(text: &str, place: Place, info: &str) -> Diagnostic {
    let lines: Vec<&str> = text.lines().collect();
    let at = (place.line as usize).saturating_sub(1).min(lines.len().saturating_sub(1));
    let seen = Seen { lines: &lines, at, place, info };
    let found = seen
        .tab()
        .or_else(|| seen.alias())
        .or_else(|| seen.variable())
        .or_else(|| seen.lost_space())
        .or_else(|| seen.quote())
        .or_else(|| seen.brackets())
        .or_else(|| seen.reserved())
        .or_else(|| seen.missing_colon())
        .or_else(|| seen.too_deep())
        .or_else(|| seen.second_colon())
        .or_else(|| seen.missing_comma())
        .or_else(|| seen.column());
    found.unwrap_or_else(|| Diagnostic::at(place, format!("not valid YAML: {info}")))
}

/// The mistake at `place`, where a map or a list is in the place of a name.
pub(super) fn no_name(text: &str, place: Place) -> Diagnostic {
    let lines: Vec<&str> = text.lines().collect();
    let at = (place.line as usize).saturating_sub(1);
    let seen = Seen { lines: &lines, at, place, info: "" };
    let rest = seen.rest();
    let begin = rest.chars().next().unwrap_or_default();
    let template = rest.strip_prefix("{{").or_else(|| {
        let inner = rest.strip_prefix('{')?;
        seen.head().ends_with('{').then_some(inner)
    });
    if let Some((name, _)) = template.and_then(|inner| inner.split_once("}}")) {
        let name = name.trim();
        let variable = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if !name.is_empty() && name.chars().all(|c| variable(c) || c == '.') {
            let name = name.trim_start_matches('.').replace('.', "_");
            let help = format!("write \"${{{name}}}\", a variable of the environment");
            return Diagnostic::at(place, "a template in {{ }} is not filled in").help(help);
        }
    }
    let close = if begin == '[' { ']' } else { '}' };
    let inner = rest.find(close).map_or("{...}", |end| &rest[..=end]);
    let head = seen.head();
    let of_fields = ["headers: {", "query: {"].into_iter().find(|it| head.ends_with(it));
    if let (Some(key), Some(value)) = (of_fields, inner.strip_prefix("{exact:")) {
        let value = value.trim_end_matches('}').trim();
        let help = format!("write `{key}NAME: {value}}}`");
        return Diagnostic::at(place, "the name to match is missing before this {").help(help);
    }
    let help = format!("write `NAME: {inner}`, or take one pair of {{ }} out");
    Diagnostic::at(place, format!("a name is missing before this {begin}")).help(help)
}

/// The place of a mistake, and the lines around it.
struct Seen<'t> {
    lines: &'t [&'t str],
    /// The index of the line with the mistake.
    at: usize,
    place: Place,
    info: &'t str,
}

impl<'t> Seen<'t> {
    fn line(&self) -> &'t str {
        self.lines.get(self.at).copied().unwrap_or_default()
    }

    /// The text of the line, from the place on.
    fn rest(&self) -> &'t str {
        let line = self.line();
        let column = self.place.column.saturating_sub(1) as usize;
        line.char_indices().nth(column).map_or("", |(start, _)| &line[start..])
    }

    /// The text of the line, before the place.
    fn head(&self) -> &'t str {
        let line = self.line();
        &line[..line.len() - self.rest().len()]
    }

    /// The last line above the mistake that is not empty, with its index.
    fn above(&self) -> Option<(usize, &'t str)> {
        (0..self.at).rev().map(|at| (at, self.lines[at])).find(|(_, line)| has_text(line))
    }

    fn place_in(&self, line: usize, column: usize, len: usize) -> Place {
        let len = u16::try_from(len.max(1)).unwrap_or(u16::MAX);
        Place { line: line as u32 + 1, column: column as u32 + 1, len, ..self.place }
    }

    fn here(&self, message: impl Into<String>) -> Diagnostic {
        Diagnostic::at(self.place, message)
    }

    fn tab(&self) -> Option<Diagnostic> {
        let near = self.at..(self.at + 2).min(self.lines.len());
        let column = |at: usize| {
            let line = self.lines[at];
            let indent = line.len() - line.trim_start().len();
            line[..indent].find('\t').map(|column| (at, column))
        };
        let (line, column) = near.into_iter().find_map(column)?;
        let place = self.place_in(line, column, 1);
        let message = "a tab: YAML is indented with spaces only";
        Some(Diagnostic::at(place, message).help("write two spaces for each level"))
    }

    /// Describes a text that begins with `*`, which YAML reads as an alias.
    fn alias(&self) -> Option<Diagnostic> {
        let rest = self.rest();
        if !rest.starts_with('*') {
            return None;
        }
        let end = rest.find([' ', ',', '}', ']']).unwrap_or(rest.len());
        let word = rest[..end].trim_end_matches(':');
        let message = "in YAML, a * at the beginning is a reference to another value";
        Some(self.here(message).help(format!("write it in quotes: \"{word}\"")))
    }

    /// Describes an unquoted `${NAME}` between braces.
    fn variable(&self) -> Option<Diagnostic> {
        let (head, rest) = (self.head(), self.rest());
        if !head.ends_with('$') || !rest.starts_with('{') {
            return None;
        }
        let end = rest.find('}').map_or(rest.len(), |end| end + 1);
        let variable = &rest[..end];
        let message = "a variable between { } or [ ] needs quotes";
        Some(self.here(message).help(format!("write \"${variable}\"")))
    }

    /// Describes a missing space, as in `bind:127.0.0.1:80`, in this line or in the line above.
    /// Without the space, YAML joins the two lines to one text.
    fn lost_space(&self) -> Option<Diagnostic> {
        let above = self.above().map(|(at, _)| at);
        for at in [Some(self.at), above].into_iter().flatten() {
            let line = self.lines[at];
            let text = line.trim_start().trim_start_matches("- ").trim_start();
            let Some((name, value)) = text.split_once(':') else { continue };
            let is_key = !name.is_empty()
                && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
            // A list item such as `- app:8080` is a name with its port, and is correct.
            let port = text != line.trim_start() && value.bytes().all(|it| it.is_ascii_digit());
            if is_key && !port && !value.is_empty() && !value.starts_with([' ', '/', ':']) {
                let place = self.place_in(at, line.len() - text.len(), text.chars().count());
                let message = format!("no space after the colon of `{name}`");
                return Some(
                    Diagnostic::at(place, message).help(format!("write `{name}: {value}`")),
                );
            }
        }
        None
    }

    fn quote(&self) -> Option<Diagnostic> {
        let rest = self.rest();
        if !self.info.contains("quoted scalar") || !rest.starts_with(['"', '\'']) {
            return None;
        }
        Some(self.here("this quote has no end").help("close it in the same line"))
    }

    /// Describes a bracket that is not closed, or not opened.
    fn brackets(&self) -> Option<Diagnostic> {
        if self.info.contains("misplaced bracket") {
            let help = "take it out, or open it before";
            return Some(self.here("nothing is open that this closes").help(help));
        }
        let expected = ["',' or '}'", "',' or ']'", "node content"];
        let expected = expected.iter().any(|it| self.info.contains(it));
        let ended = self.place.line as usize > self.lines.len();
        let new_line = self.head().trim().bytes().all(|byte| byte.is_ascii_alphanumeric());
        if !expected || !(ended || new_line) {
            return None;
        }
        let end = if ended { self.lines.len() } else { self.at };
        // If all brackets are closed at the end, the missing character is a comma.
        if !ended && open_bracket(self.lines).is_none() {
            return None;
        }
        let (line, column, bracket) = open_bracket(&self.lines[..end])?;
        let place = self.place_in(line, column, 1);
        let message = format!("this {bracket} is not closed");
        let close = if bracket == '{' { '}' } else { ']' };
        let help = format!("write the {close} that belongs to it, or a comma if more follows");
        Some(Diagnostic::at(place, message).help(help))
    }

    fn reserved(&self) -> Option<Diagnostic> {
        if !self.info.contains("unexpected character") {
            return None;
        }
        let character = self.rest().chars().next()?;
        let message = format!("in YAML, no text begins with {character}");
        let rest = self.rest();
        let quoted = rest.strip_prefix('`').and_then(|rest| rest.split_once('`'));
        let number =
            rest.strip_prefix('%').filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
        let help = match (quoted, number) {
            (Some((text, _)), _) => format!("write \"{text}\", with other quotes"),
            (_, Some(rest)) => {
                let digits = rest.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
                format!("a percentage is {digits}%, and a weight is {digits}")
            }
            _ => {
                if self.head().contains("endpoints:") {
                    return Some(self.here(message).help("an endpoint is IP:PORT or unix:/path"));
                }
                let end = rest.find([' ', ',', '}', ']']).unwrap_or(rest.len());
                format!("write the text in quotes: {:?}", &rest[..end])
            }
        };
        Some(self.here(message).help(help))
    }

    /// Describes `web` in place of `web:`, with lines below it that have a deeper indent.
    fn missing_colon(&self) -> Option<Diagnostic> {
        let (at, above) = self.above()?;
        let word = above.trim();
        let deeper = indent(self.line()) > indent(above) && self.head().trim() != "";
        if !deeper || word.contains([':', '{', '[', '"']) {
            return None;
        }
        let place = self.place_in(at, indent(above), word.chars().count());
        let message = format!("no colon after {word:?}");
        Some(Diagnostic::at(place, message).help(format!("write `{word}:`")))
    }

    /// Describes a line below `key: value` that has a deeper indent than this key.
    fn too_deep(&self) -> Option<Diagnostic> {
        let (_, above) = self.above()?;
        let text = above.trim();
        let (name, value) = text.split_once(": ")?;
        let complete = !value.trim().is_empty() && !value.starts_with(['|', '>', '{', '[', '#']);
        if !complete || indent(self.line()) <= indent(above) || !self.info.contains("mapping") {
            return None;
        }
        let own = self.line().trim().split(':').next().unwrap_or_default();
        let name = name.trim_start_matches("- ");
        let message =
            format!("this line is deeper than the one above, where {name:?} has its value");
        let place = self.place_in(self.at, indent(self.line()), own.chars().count());
        let help = format!("begin `{own}` in the column of `{name}`");
        Some(Diagnostic::at(place, message).help(help))
    }

    /// Describes a second `: ` in one line.
    fn second_colon(&self) -> Option<Diagnostic> {
        let head = self.head();
        if !self.rest().starts_with(':') || !head.contains(": ") {
            return None;
        }
        let between = head.rsplit(": ").next().unwrap_or_default();
        if between.trim().contains(' ') && self.info.contains("','") {
            let word = between.rsplit(' ').next().unwrap_or_default();
            let help = format!("write a comma before `{word}`; a text with a colon needs quotes");
            let column = head[..head.len() - word.len()].chars().count();
            let place = self.place_in(self.at, column, word.chars().count());
            return Some(Diagnostic::at(place, "a comma is missing before this").help(help));
        }
        let forms = self.text_or_map();
        let help = forms.as_deref().unwrap_or("a text with a colon needs quotes; a map needs { }");
        Some(self.here("a second `: ` after one key").help(help))
    }

    /// The entry around the place as a text and as a map.
    fn text_or_map(&self) -> Option<String> {
        let (before, text) = self.head().rsplit_once(": ")?;
        let name = before.rsplit([' ', '{', ',', '[']).next().filter(|name| !name.is_empty())?;
        let in_braces = before.contains(['{', '[']);
        let rest = self.rest();
        let end = if in_braces { rest.find(['}', ']', ','])? } else { rest.len() };
        let text = format!("{}{}", text.trim_start(), rest[..end].trim_end());
        let quotes = text.contains(['"', '\\']);
        (!quotes).then(|| {
            format!("write {name}: \"{text}\" for a text, or {name}: {{{text}}} for a map")
        })
    }

    fn missing_comma(&self) -> Option<Diagnostic> {
        let expected = ["',' or '}'", "',' or ']'"].iter().any(|it| self.info.contains(it));
        let message = "a comma is missing before this";
        expected.then(|| self.here(message).help("write a comma between two entries"))
    }

    /// Describes a line whose indent differs from that of the lines above.
    fn column(&self) -> Option<Diagnostic> {
        let block = ["expected key", "'-' indicator", "expected ':'", "expect ':'"];
        if !block.iter().any(|it| self.info.contains(it)) {
            return None;
        }
        let message = "this line begins in a column where nothing else does";
        let help = "entries of one map or list begin in the same column";
        Some(self.here(message).help(help))
    }
}

fn has_text(line: &str) -> bool {
    let text = line.trim();
    !text.is_empty() && !text.starts_with('#')
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// The last bracket that is still open at the end of `lines`, as (line, column, bracket).
fn open_bracket(lines: &[&str]) -> Option<(usize, usize, char)> {
    let mut open = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        let mut quote = None;
        for (column, character) in line.chars().enumerate() {
            match (quote, character) {
                (Some(end), _) if end == character => quote = None,
                (Some(_), _) => {}
                (None, '"' | '\'') => quote = Some(character),
                (None, '#') => break,
                (None, '{' | '[') => open.push((number, column, character)),
                (None, '}' | ']') => drop(open.pop()),
                (None, _) => {}
            }
        }
    }
    open.pop()
}
