//! Reads the fields of an object one by one. A field that nobody asks for is a mistake.

use std::time::Duration;

use super::Object;
use crate::compile::value_suggestion;
use crate::model::{Item, Origin, Place};
use crate::sources::yaml::diagnostic::{Diagnostic, SourceMap};
use crate::sources::yaml::node::{Key, Kind, Node};

/// The mistakes that reading finds.
pub struct Reader<'m> {
    /// The object that is read, for messages. Empty outside of objects.
    pub object: String,
    sources: &'m SourceMap,
    mistakes: &'m mut Vec<Diagnostic>,
}

impl<'m> Reader<'m> {
    /// Creates a reader that adds its mistakes to `mistakes`.
    pub fn new(sources: &'m SourceMap, mistakes: &'m mut Vec<Diagnostic>) -> Self {
        Self { object: String::new(), sources, mistakes }
    }

    /// The fields of the `spec` of `object`, whose mistakes follow. An object without one has no
    /// fields.
    pub fn spec<'n>(&mut self, object: &'n Object) -> Option<Fields<'n>> {
        self.object = object.title();
        match &object.spec {
            Some(node) => Fields::of(self, node, "`spec`"),
            None => {
                self.at(object.place, "there is no `spec`", "write `spec:` and its fields");
                None
            }
        }
    }

    /// Reports a mistake at `place`, with advice.
    pub fn at(&mut self, place: Place, message: impl AsRef<str>, help: impl Into<String>) {
        let mistake = Diagnostic::at(place, self.titled(message.as_ref())).help(help);
        self.mistakes.push(mistake);
    }

    /// Reports a mistake in a value, with advice.
    pub fn item<T>(&mut self, item: &Item<T>, message: impl AsRef<str>, help: impl Into<String>) {
        self.at(place_of(&item.origin), message, help);
    }

    /// Warns about the value at `place`.
    pub fn warn(&mut self, place: Place, message: impl AsRef<str>, help: impl Into<String>) {
        let mistake = Diagnostic::at(place, self.titled(message.as_ref())).help(help);
        self.mistakes.push(mistake.warning());
    }

    /// Warns about a value.
    pub fn warn_item<T>(
        &mut self,
        item: &Item<T>,
        message: impl AsRef<str>,
        help: impl Into<String>,
    ) {
        self.warn(place_of(&item.origin), message, help);
    }

    /// The number of mistakes so far.
    pub fn count(&self) -> usize {
        self.mistakes.len()
    }

    /// `file:line` of a place.
    pub fn file_line(&self, place: Place) -> String {
        self.sources.file_line(place)
    }

    /// `file:line` of an origin.
    pub fn origin_line(&self, origin: &Origin) -> String {
        self.file_line(place_of(origin))
    }

    fn titled(&self, message: &str) -> String {
        match self.object.as_str() {
            "" => message.to_owned(),
            object => format!("{object}: {message}"),
        }
    }
}

/// The place of an origin in a file.
pub(super) fn place_of(origin: &Origin) -> Place {
    match origin {
        Origin::File(place) => *place,
        Origin::BuiltIn | Origin::Resource(_) => Place::default(),
    }
}

/// Advice for the unknown `word`: the known word that it probably is, or all of them.
pub fn spelling(word: &str, known: &[&str]) -> String {
    let same = known.iter().find(|candidate| is_same(candidate, word));
    // `ISTIO_REQUEST_COUNT` is REQUEST_COUNT with a prefix of its author.
    let with_prefix =
        |known: &&&str| word.strip_suffix(**known).is_some_and(|it| it.ends_with('_'));
    match same.or_else(|| known.iter().find(with_prefix)) {
        Some(right) => format!("write `{right}`"),
        None => value_suggestion(word, known),
    }
}

/// `the version v1`, or `the versions v1, v2 and v3`. `what` is the word for one of them.
pub fn listed(what: &str, names: &[&str]) -> String {
    match names {
        [] => format!("no {what}s"),
        [one] => format!("the {what} {one}"),
        [first @ .., last] => format!("the {what}s {} and {last}", first.join(", ")),
    }
}

/// Whether two words differ only in their notation, such as `per_try_timeout` and `perTryTimeout`.
fn is_same(one: &str, other: &str) -> bool {
    let letters = |word: &str| -> String {
        word.chars().filter(|c| c.is_alphanumeric()).map(|c| c.to_ascii_lowercase()).collect()
    };
    letters(one) == letters(other)
}

/// The fields of a map.
pub struct Fields<'n> {
    /// The place of the map.
    pub place: Place,
    entries: &'n [(Key, Node)],
    known: Vec<&'static str>,
    hints: Vec<(&'static str, &'static str)>,
}

impl<'n> Fields<'n> {
    /// The fields of `node`. Reports a node that is not a map; `owner` names it.
    pub fn of(reader: &mut Reader<'_>, node: &'n Node, owner: &str) -> Option<Self> {
        let entries = match &node.kind {
            Kind::Map(entries) => entries.as_slice(),
            Kind::Null => &[],
            Kind::Scalar { .. } | Kind::List(_) => {
                let message = format!("{owner} is a map of fields, not {}", node.describe());
                reader.at(node.place, message, "write `NAME: VALUE`, one line for each field");
                return None;
            }
        };
        Some(Self { place: node.place, entries, known: Vec::new(), hints: Vec::new() })
    }

    /// The value of the field `name`. `None` if it is missing or null.
    pub fn get(&mut self, name: &'static str) -> Option<&'n Node> {
        self.known.push(name);
        let (_, node) = self.entries.iter().find(|(key, _)| key.text == name)?;
        (node.kind != Kind::Null).then_some(node)
    }

    /// Whether there are no fields.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether the field `name` is here without a value.
    pub fn is_null(&self, name: &str) -> bool {
        self.entries.iter().any(|(key, node)| key.text == name && node.kind == Kind::Null)
    }

    /// Whether the list `name` is missing or empty. A value of another kind has its own mistake.
    pub fn lacks(&self, name: &str) -> bool {
        let found = self.entries.iter().find(|(key, _)| key.text == name);
        found.is_none_or(|(_, node)| match &node.kind {
            Kind::Null => true,
            Kind::List(items) => items.is_empty(),
            Kind::Map(_) | Kind::Scalar { .. } => false,
        })
    }

    /// Reports each field whose value is null, an empty list or an empty map. Returns whether there
    /// is one. In a policy, such a field could mean everything as well as nothing.
    pub fn refuse_empty(&self, reader: &mut Reader<'_>) -> bool {
        let mut found = false;
        for (key, node) in self.entries {
            let is_empty = match &node.kind {
                Kind::Null => true,
                Kind::List(items) => items.is_empty(),
                Kind::Map(entries) => entries.is_empty(),
                Kind::Scalar { .. } => false,
            };
            if is_empty {
                let help = "leave it out, or write its values";
                reader.at(key.place, format!("`{}` is empty", key.text), help);
            }
            found |= is_empty;
        }
        found
    }

    /// The place of the name of a field.
    pub fn place_of(&self, name: &str) -> Place {
        let key = self.entries.iter().find(|(key, _)| key.text == name);
        key.map_or(self.place, |(key, _)| key.place)
    }

    /// Accepts a field that means nothing here.
    pub fn ignore(&mut self, name: &'static str) {
        self.known.push(name);
    }

    /// Accepts the name of a field that Ringway does not support, and refuses the field itself.
    pub fn refuse(&mut self, reader: &mut Reader<'_>, name: &'static str, help: &str) {
        if self.get(name).is_some() {
            let message = format!("`{name}` is not supported");
            reader.at(self.place_of(name), message, help);
        }
    }

    /// Advice for an unknown field that people often write.
    pub fn hint(&mut self, name: &'static str, help: &'static str) {
        self.hints.push((name, help));
    }

    /// Reports each field that nobody has asked for.
    pub fn finish(self, reader: &mut Reader<'_>) {
        for (key, _) in self.entries {
            if self.known.contains(&key.text.as_str()) {
                continue;
            }
            let hint = self.hints.iter().find(|(name, _)| *name == key.text);
            let help = match hint {
                Some((_, help)) => (*help).to_owned(),
                None => spelling(&key.text, &self.known),
            };
            reader.at(key.place, format!("unknown field `{}`", key.text), help);
        }
    }

    /// A map.
    pub fn map(&mut self, reader: &mut Reader<'_>, name: &'static str) -> Option<Self> {
        let node = self.get(name)?;
        Self::of(reader, node, &format!("`{name}`"))
    }

    /// The elements of a list.
    pub fn list(&mut self, reader: &mut Reader<'_>, name: &'static str) -> &'n [Node] {
        let Some(node) = self.get(name) else { return &[] };
        match &node.kind {
            Kind::List(items) => items,
            _ => {
                let message = format!("`{name}` is a list, not {}", node.describe());
                let help = match node.text() {
                    "" => "begin each element with `- `".to_owned(),
                    text => format!("write `{name}: [{text}]`"),
                };
                reader.at(node.place, message, help);
                &[]
            }
        }
    }

    /// A text.
    pub fn string(&mut self, reader: &mut Reader<'_>, name: &'static str) -> Option<Item<String>> {
        let node = self.get(name)?;
        text(reader, node, name)
    }

    /// A list of texts.
    pub fn strings(&mut self, reader: &mut Reader<'_>, name: &'static str) -> Vec<Item<String>> {
        let nodes = self.list(reader, name);
        nodes.iter().filter_map(|node| text(reader, node, name)).collect()
    }

    /// A map from texts to texts, such as labels.
    pub fn texts(
        &mut self,
        reader: &mut Reader<'_>,
        name: &'static str,
    ) -> Vec<(Item<String>, Item<String>)> {
        let Some(node) = self.get(name) else { return Vec::new() };
        let mut pairs = Vec::new();
        for (key, value) in items(reader, node, name) {
            let value = match value.kind {
                Kind::Null => Some(Item::new(String::new(), Origin::File(value.place))),
                _ => text(reader, value, &key.value),
            };
            pairs.extend(value.map(|value| (key, value)));
        }
        pairs
    }

    /// `true` or `false`.
    pub fn boolean(&mut self, reader: &mut Reader<'_>, name: &'static str) -> Option<Item<bool>> {
        let node = self.get(name)?;
        match node.text() {
            "true" => Some(Item::new(true, Origin::File(node.place))),
            "false" => Some(Item::new(false, Origin::File(node.place))),
            _ => {
                let message = format!("`{name}` is true or false, not {}", node.describe());
                reader.at(node.place, message, "write true or false");
                None
            }
        }
    }

    /// A number that is not negative.
    pub fn number<T: std::str::FromStr>(
        &mut self,
        reader: &mut Reader<'_>,
        name: &'static str,
    ) -> Option<Item<T>> {
        let node = self.get(name)?;
        match node.text().parse() {
            Ok(number) => Some(Item::new(number, Origin::File(node.place))),
            Err(_) => {
                let message = format!("`{name}` is a number from 0, not {}", node.describe());
                reader.at(node.place, message, "write digits only");
                None
            }
        }
    }

    /// A length of time, such as `1h30m`, `2.5s` or `100ms`.
    pub fn duration(
        &mut self,
        reader: &mut Reader<'_>,
        name: &'static str,
    ) -> Option<Item<Duration>> {
        let node = self.get(name)?;
        let parsed = duration(node.text());
        if parsed.is_none() {
            let message = format!("`{name}` is a length of time, not {}", node.describe());
            reader.at(node.place, message, "write a number with its unit: 1h, 2m, 3.5s or 400ms");
        }
        parsed.map(|time| Item::new(time, Origin::File(node.place)))
    }

    /// One of the words of `choices`.
    pub fn one_of<T: Copy>(
        &mut self,
        reader: &mut Reader<'_>,
        name: &'static str,
        choices: &[(&str, T)],
    ) -> Option<Item<T>> {
        let node = self.get(name)?;
        if let Some((_, value)) = choices.iter().find(|(word, _)| *word == node.text()) {
            return Some(Item::new(*value, Origin::File(node.place)));
        }
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let message = format!("{} is not a value of `{name}`", node.describe());
        reader.at(node.place, message, spelling(node.text(), &words));
        None
    }

    /// A percentage as Istio writes it, `{value: 12.5}`, in millionths.
    pub fn percentage(&mut self, reader: &mut Reader<'_>, name: &'static str) -> Option<u32> {
        let mut fields = self.map(reader, name)?;
        let value = fields.number::<f64>(reader, "value");
        fields.finish(reader);
        let value = value?;
        if !(0.0..=100.0).contains(&value.value) {
            reader.item(&value, "a percentage is from 0 to 100", "write a number from 0 to 100");
            return None;
        }
        Some((value.value * 10_000.0).round() as u32)
    }
}

/// The entries of the map `node`, each with its key as text. `name` is its field.
pub fn items<'n>(
    reader: &mut Reader<'_>,
    node: &'n Node,
    name: &str,
) -> Vec<(Item<String>, &'n Node)> {
    let Kind::Map(entries) = &node.kind else {
        if node.kind != Kind::Null {
            let message = format!("`{name}` is a map, not {}", node.describe());
            reader.at(node.place, message, "write `NAME: VALUE`, one line for each entry");
        }
        return Vec::new();
    };
    let item = |(key, value): &'n (Key, Node)| {
        (Item::new(key.text.clone(), Origin::File(key.place)), value)
    };
    entries.iter().map(item).collect()
}

fn text(reader: &mut Reader<'_>, node: &Node, name: &str) -> Option<Item<String>> {
    match &node.kind {
        Kind::Scalar { text, .. } => Some(Item::new(text.clone(), Origin::File(node.place))),
        Kind::Null | Kind::List(_) | Kind::Map(_) => {
            let message = format!("`{name}` is a text, not {}", node.describe());
            reader.at(node.place, message, "write one value");
            None
        }
    }
}

/// Parses `1h30m`, `2.5s` or `100ms`.
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let unit = &rest[digits..];
        let end = unit.find(|c: char| c.is_ascii_digit()).unwrap_or(unit.len());
        let seconds = match &unit[..end] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        total = total.checked_add(Duration::try_from_secs_f64(number * seconds).ok()?)?;
        rest = &unit[end..];
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time() {
        for (text, expected) in [
            ("0s", Some(0)),
            ("5s", Some(5000)),
            ("1.5s", Some(1500)),
            ("1h30m", Some(5_400_000)),
            ("250ms", Some(250)),
            ("5", None),
            ("", None),
            ("s", None),
            ("-1s", None),
            ("1d", None),
            ("5000000000000000h5000000000000000h", None),
        ] {
            assert_eq!(duration(text), expected.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn spellings() {
        for (word, advice) in [
            ("per_try_timeout", "write `perTryTimeout`"),
            ("pertrytimeout", "write `perTryTimeout`"),
            ("perTryTimout", "did you mean \"perTryTimeout\"?"),
            ("MY_attempts", "write `attempts`"),
            ("x", "expected one of: perTryTimeout, attempts"),
        ] {
            assert_eq!(spelling(word, &["perTryTimeout", "attempts"]), advice);
        }
    }
}
