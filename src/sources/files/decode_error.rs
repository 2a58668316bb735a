//! The error type of decoding: a mistake, described for an operator.

use std::fmt;

use serde::de;

use super::diagnostic::Place;
use super::node::{Key, Node};
use super::own;
use crate::compile::{habits, key_suggestion, value_suggestion};

/// The message for a list that needs at least one entry.
pub const EMPTY_LIST: &str = "the list is empty";

/// The end of the message for a negative number.
pub const BELOW_ZERO: &str = " is below 0";

/// The shape of the list `services` of Consul. The section `services` is a map.
const CONSUL_SERVICES: &str = "ConsulServices";

/// Limits that are off if their key is left out.
const UNLIMITED: [&str; 3] = ["connections", "connections_per_source", "requests_per_connection"];

/// Numbers that may be 0.
const FROM_ZERO: [&str; 7] = [
    "trusted_hops",
    "weight",
    "priority",
    "max_retries",
    "consecutive_5xx",
    "consecutive_gateway_errors",
    "consecutive_local_failures",
];

/// A mistake that decoding has found.
#[derive(Debug)]
pub struct DecodeError {
    /// The message, which describes the mistake.
    pub text: String,
    /// Advice for the operator. `None` if there is none.
    pub help: Option<String>,
    /// The place in the file. `None` means that it is not known yet.
    pub place: Option<Place>,
    /// Whether the mistake is that a key is missing.
    pub missing: bool,
    /// Whether a key has the indentation of the names of a map, but belongs below one of these
    /// names.
    pub misplaced: bool,
    /// Whether the help is about an unknown key, and has placeholders for the values around it.
    pub of_unknown_key: bool,
    /// Whether the error is about a value as a whole, such as a map without one of two keys.
    pub whole: bool,
    /// The keys of the map that was expected at `place`. `None` if no map was expected.
    pub no_map_with: Option<&'static [&'static str]>,
}

impl DecodeError {
    /// Creates a mistake whose place is not known yet.
    pub fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            help: None,
            place: None,
            missing: false,
            misplaced: false,
            of_unknown_key: false,
            whole: false,
            no_map_with: None,
        }
    }

    /// Adds advice for the operator.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Creates the error for `found`, in the place of a map. `shape` is the name of the expected
    /// struct, and `fields` are its keys.
    pub(super) fn no_map(found: &Node, shape: &str, fields: &'static [&'static str]) -> Self {
        let text = found.text();
        if let Some((name, value)) = lost_space(text, fields) {
            return Self::lost_space(text, name, value);
        }
        Self {
            help: habits::of_shape(shape, text, &|name| own::value(found, name)),
            no_map_with: Some(fields),
            ..Self::new(format!("expected a map, found {}", found.describe()))
        }
    }

    /// The advice for the empty list of the key `name`. The usual advice, to leave out the key,
    /// would be dangerous: most keys without a value accept everything.
    fn empty_list(&self, name: &str) -> Option<String> {
        if self.text != EMPTY_LIST || self.help.is_some() {
            return None;
        }
        let help = match name {
            "hosts" => "name a host; without `hosts`, it is for all hosts",
            "identity" => "name a SPIFFE ID; without it, any ID of a trusted domain is accepted",
            "method" => "name a method; without `method`, the rule takes all but CONNECT",
            "tls" => "write `tls: {cert: FILE, key: FILE}`; without `tls`, it is plain text",
            "status" => "write the statuses of a healthy endpoint; without `status`, it is 200",
            "on" => "name a condition, or write `retries: {attempts: 0}` for no retries",
            "identities" => "name at least one, such as spiffe://...; '*' is for any identity",
            _ if name.starts_with("not_") => "leave it out: without it, nothing is excepted",
            _ => return Some(format!("name at least one; without `{name}`, any is meant")),
        };
        Some(help.to_owned())
    }

    /// Creates the error for a key without a value.
    pub(super) fn no_value(key: &Key) -> Self {
        let help = habits::of_shape(&key.text, "", &|_| None);
        Self { help, ..Self::new(format!("`{}` has no value", key.text)) }.at(key.place)
    }

    fn lost_space(text: &str, name: &str, value: &str) -> Self {
        Self::new(format!("no space after the colon in {text:?}"))
            .help(format!("write `{name}: {value}`"))
    }

    /// Adds the help for `key`, whose value `node` should be a map.
    pub(super) fn of_key(self, key: &Key, node: &Node) -> Self {
        if let Some(help) = self.empty_list(&key.text) {
            return self.help(help);
        }
        if self.text.ends_with(BELOW_ZERO) && self.help.is_none() {
            let help = match key.text.as_str() {
                "attempts" => {
                    "write `attempts: 0` for no retries, or leave it out for the default, 2"
                }
                name if UNLIMITED.contains(&name) => {
                    "write a number from 1, or leave it out for no limit"
                }
                name if FROM_ZERO.contains(&name) => {
                    "write a number from 0, or leave it out for the default"
                }
                _ => "write a positive number, or leave it out for the default",
            };
            return self.help(help);
        }
        let Some(fields) = self.no_map_with else { return self };
        if self.place != Some(node.place) {
            return self;
        }
        let name = match key.text.as_str() {
            "services" if self.text.starts_with("expected text") => CONSUL_SERVICES,
            name => name,
        };
        if fields.contains(&name) {
            let text = format!("{name:?} is in the column of the names, not below one of them");
            let help = Some(format!("indent the line of `{name}` by two more spaces"));
            let place = Some(key.place);
            return Self { text, help, place, misplaced: true, ..self };
        }
        let text = node.text();
        let list = || {
            let one = self.text.starts_with("expected a list") && !text.is_empty();
            one.then(|| format!("write a list: [{text}]"))
        };
        // YAML reads `-value` as text, because the space after the dash is missing.
        let dash = || {
            let item = text.strip_prefix('-').filter(|_| self.text.starts_with("expected a list"));
            item.map(|item| format!("put a space after the dash: `- {}`", item.trim()))
        };
        let any = || {
            let is_condition = self.text.starts_with("expected a value, ~regex");
            let any = own::value(node, "anyof").filter(|_| is_condition)?;
            Some(format!("write `{name}: {any}`, a regex for all of them"))
        };
        let help = dash()
            .or_else(|| self.help.clone())
            .or_else(any)
            .or_else(|| habits::of_shape(name, text, &|name| own::value(node, name)))
            .or_else(list);
        Self { help, ..self }
    }

    pub(super) fn at(mut self, place: Place) -> Self {
        self.place.get_or_insert(place);
        self
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for DecodeError {}

impl de::Error for DecodeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        let text = message.to_string();
        // The error text of a value type has its advice after a line break.
        let error = match text.split_once('\n') {
            Some((text, help)) => Self::new(text).help(help),
            None => Self::new(text),
        };
        Self { whole: true, ..error }
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        if let Some((name, value)) = lost_space(field, expected) {
            return Self::lost_space(field, name, value);
        }
        Self::new(format!("unknown field {field:?}")).help(key_suggestion(field, expected))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::new(format!("unknown value {variant:?}")).help(value_suggestion(variant, expected))
    }

    fn missing_field(field: &'static str) -> Self {
        // Only Consul's `services` must not be missing.
        let shape = if field == "services" { CONSUL_SERVICES } else { field };
        let help = habits::of_shape(shape, "", &|_| None);
        Self { missing: true, help, ..Self::new(format!("{field:?} is missing")) }
    }

    fn invalid_type(found: de::Unexpected<'_>, wanted: &dyn de::Expected) -> Self {
        let text = format!("expected {}, found {}", in_words(wanted), found_words(&found));
        // No keys are known here. [`DecodeError::of_key`] may add an example for the key.
        Self { no_map_with: Some(&[]), ..Self::new(text) }
    }

    fn invalid_value(found: de::Unexpected<'_>, wanted: &dyn de::Expected) -> Self {
        Self::new(format!("expected {}, found {}", in_words(wanted), found_words(&found)))
    }
}

/// The name and the value in a text such as `bind:127.0.0.1:80`, if the name is one of `names`.
fn lost_space<'t>(text: &'t str, names: &[&str]) -> Option<(&'t str, &'t str)> {
    let (name, value) = text.split_once(':')?;
    // The scheme of a URL is no key.
    let is_value = !value.is_empty() && !value.starts_with("//");
    (names.contains(&name) && is_value).then_some((name, value))
}

/// The description of the expected value, without Rust types.
fn in_words(wanted: &dyn de::Expected) -> String {
    match wanted.to_string().as_str() {
        "a sequence" => "a list".to_owned(),
        "a string" => "text".to_owned(),
        "u16" => format!("a number up to {}", u16::MAX),
        "u32" => format!("a number up to {}", u32::MAX),
        other => other.to_owned(),
    }
}

fn found_words(found: &de::Unexpected<'_>) -> String {
    match found {
        de::Unexpected::Unit | de::Unexpected::Option => "nothing".to_owned(),
        de::Unexpected::Map => "a map".to_owned(),
        de::Unexpected::Seq => "a list".to_owned(),
        de::Unexpected::Str(text) => format!("{text:?}"),
        de::Unexpected::Unsigned(number) => number.to_string(),
        other => other.to_string(),
    }
}
