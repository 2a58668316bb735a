//! Hides the values of header edits in the texts of files that an operator may show to others. Such
//! a value may be a password or a key for the service behind the proxy.

use std::sync::Arc;

use super::Loaded;
use crate::model::{FieldEdits, Item, Model, Origin, Place};

/// The text in the place of a hidden value.
const HIDDEN: &str = "***";

/// The names and texts of files.
pub type Texts = Arc<Vec<(Arc<str>, Arc<str>)>>;

impl Loaded {
    /// The names and texts of the files, without the values of header edits. A value that only
    /// names a variable of the environment is kept.
    pub fn shown(&self) -> Texts {
        let texts = self.without_keys();
        let mut hidden: Vec<(u16, Place, String)> = Vec::new();
        for value in edited(&self.model()) {
            if let Origin::File(place) = &value.origin {
                hidden.push((place.file, *place, value.value.clone()));
            }
        }
        if hidden.is_empty() {
            return texts;
        }
        // From the end, so that the places before stay valid.
        hidden.sort_by_key(|(file, place, _)| (*file, place.line, place.column));
        let mut shown: Vec<(Arc<str>, Arc<str>)> = Vec::clone(&texts);
        for (file, place, value) in hidden.into_iter().rev() {
            if let Some((_, text)) = shown.get_mut(usize::from(file)) {
                *text = without(text, place, &value).into();
            }
        }
        Arc::new(shown)
    }
}

impl Loaded {
    /// The names and texts of the files. Private keys in documents of a server are hidden.
    fn without_keys(&self) -> Texts {
        let texts = self.sources.shared();
        let has_key = |(file, (name, text)): (u16, &(Arc<str>, Arc<str>))| {
            self.sources.is_remote(file) && (text.contains(KEY_END) || name.starts_with(SECRETS))
        };
        if !(0..).zip(texts.iter()).any(has_key) {
            return texts;
        }
        let shown = texts.iter().map(|(name, text)| (Arc::clone(name), keyless(name, text).into()));
        Arc::new(shown.collect())
    }
}

/// The ends of the first and the last line of a private key in PEM.
const KEY_END: &str = "PRIVATE KEY-----";

/// The beginning of the names of Secrets. A key there is a line, even one that is no PEM.
const SECRETS: &str = "kubernetes:secrets/";

/// The text without its private keys. Lines keep their numbers.
fn keyless(name: &str, text: &str) -> String {
    let (mut within, is_secret) = (false, name.starts_with(SECRETS));
    let lines = text.split('\n').map(|line| {
        let edges = line.matches(KEY_END).count();
        let is_key = is_secret && line.trim_start().starts_with("\"key\":");
        let hide = within || edges > 0 || is_key;
        within ^= edges % 2 == 1;
        if hide { HIDDEN } else { line }
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The values of all fields that rules set or add.
fn edited(model: &Model) -> Vec<&Item<String>> {
    let rules = model.routes.iter().flat_map(|routes| &routes.value.rules);
    let edits = rules.flat_map(|rule| {
        [&rule.value.request_headers, &rule.value.response_headers].into_iter().flatten()
    });
    edits.flat_map(|edits| values(edits)).collect()
}

fn values(edits: &FieldEdits) -> impl Iterator<Item = &Item<String>> {
    edits.set.iter().chain(&edits.add).map(|(_, value)| value)
}

/// The text without the value at `place`.
fn without(text: &str, place: Place, value: &str) -> String {
    let mut lines: Vec<String> = text.split('\n').map(str::to_owned).collect();
    let Some(line) = lines.get_mut((place.line as usize).saturating_sub(1)) else {
        return text.to_owned();
    };
    let at = |column: usize| line.char_indices().nth(column).map_or(line.len(), |(at, _)| at);
    let first = (place.column as usize).saturating_sub(1);
    let (start, end) = (at(first), at(first + usize::from(place.len)));
    let written = &line[start..end];
    if is_variable(written.trim_matches(['"', '\''])) {
        return text.to_owned();
    }
    if place.len > 1 || value.chars().count() <= 1 {
        line.replace_range(start..end, HIDDEN);
        return lines.join("\n");
    }
    // The value has several lines, so its end is not known. Hide each of its words.
    let mut text = text.to_owned();
    for word in value.split_whitespace() {
        text = text.replace(word, HIDDEN);
    }
    text
}

/// Whether a text is `${NAME}`, without a default.
fn is_variable(text: &str) -> bool {
    let name = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
    name.is_some_and(|name| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use crate::sources::files::load;

    fn shown(text: &str) -> String {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("a.yaml");
        std::fs::write(&file, text).unwrap();
        let environment = HashMap::from([("KEY".to_owned(), "from-environment".to_owned())]);
        load(&[file], &environment).shown()[0].1.to_string()
    }

    #[test]
    fn the_values_of_header_edits_are_hidden_and_nothing_else() {
        for (written, expected) in [
            ("x-key: sesame", "x-key: ***"),
            ("x-key: 'open sesame'", "x-key: ***"),
            ("x-key: \"sesame\\u0041\", y: zz", "x-key: ***, y: ***"),
            ("x-key: \"${KEY}\"", "x-key: \"${KEY}\""),
            ("x-key: \"${KEY:-sesame}\"", "x-key: ***"),
        ] {
            let around = |edits: &str| {
                format!(
                    "routes:\n  a: [{{to: s, headers: {{request: {{set: {{{edits}}}}}}}}}]\n\
                     services: {{s: {{endpoints: []}}}}\n"
                )
            };
            assert_eq!(shown(&around(written)), around(expected));
        }
    }

    #[test]
    fn a_value_of_several_lines_is_hidden_word_by_word() {
        let text = "routes:\n  a:\n    - to: s\n      headers:\n        response:\n          add:\n\
                    \x20           x-key: >-\n              open\n              sesame\n\
                    services: {s: {endpoints: []}}\n";
        let shown = shown(text);
        assert!(!shown.contains("sesame") && !shown.contains("open"), "{shown}");
        assert!(shown.contains("services: {s: {endpoints: []}}"));
    }
}
