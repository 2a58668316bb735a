//! Entries of the descriptors of global rate limits.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

use super::TextOrMap;
use crate::compile::value_suggestion;
use crate::sources::files::grammar::rate_limit::{DescriptorEntry, EntryValue};
use crate::sources::files::values::Placed;

/// An entry of a descriptor in its long form.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DescriptorEntryMap {
    /// The key. Default: `remote_address`, `identity`, `method`, `path`, `rule`,
    /// `destination_cluster` for the service, `generic_key` for `value`, and the name of a header.
    key: Option<Placed<String>>,
    /// The name of a header field.
    header: Option<Placed<String>>,
    /// The value for requests without the header. Default: such a request has no such descriptor.
    default: Option<String>,
    /// A fixed value.
    value: Option<Placed<String>>,
    /// Whether the value is the address of the client.
    #[serde(default)]
    source: bool,
    /// Whether the value is the SPIFFE ID of the client.
    #[serde(default)]
    identity: bool,
    /// Whether the value is the method.
    #[serde(default)]
    method: bool,
    /// Whether the value is the path, without the query.
    #[serde(default)]
    path: bool,
    /// Whether the value is the name of the rule.
    #[serde(default)]
    rule: bool,
    /// Whether the value is the name of the service that the request is for.
    #[serde(default)]
    service: bool,
}

/// The entries that need no more than their word.
const ENTRIES: [(&str, EntryValue); 6] = [
    ("source", EntryValue::Source),
    ("identity", EntryValue::Identity),
    ("method", EntryValue::Method),
    ("path", EntryValue::Path),
    ("rule", EntryValue::Rule),
    ("service", EntryValue::Service),
];

impl TextOrMap for DescriptorEntry {
    type Map = DescriptorEntryMap;

    const EXPECTED: &'static str = "`source`, `identity`, `method`, `path`, `rule`, `service`, \
                                    or a map with `header` or `value`";

    fn from_text(text: &str) -> Result<Self, String> {
        let Some((_, value)) = ENTRIES.into_iter().find(|(word, _)| *word == text) else {
            let mut known: Vec<&str> = ENTRIES.iter().map(|(word, _)| *word).collect();
            known.extend(["{header: NAME}", "{value: TEXT}"]);
            let help = match text {
                "remote_address" => "write `source`: its key is remote_address".to_owned(),
                "destination_cluster" => {
                    "write `service`: its key is destination_cluster".to_owned()
                }
                "generic_key" => "write `{value: TEXT}`: its key is generic_key".to_owned(),
                _ => value_suggestion(text, &known),
            };
            return Err(format!("{text:?} is no entry of a descriptor\n{help}"));
        };
        Ok(Self { key: None, value: Some(value) })
    }

    fn from_map(map: DescriptorEntryMap) -> Result<Self, &'static str> {
        let DescriptorEntryMap { key, header, default, value, .. } = map;
        if default.is_some() && header.is_none() {
            return Err("`default` is for {header: NAME, default: TEXT}");
        }
        let words = [map.source, map.identity, map.method, map.path, map.rule, map.service];
        let said = ENTRIES.into_iter().zip(words).filter(|(_, said)| *said);
        let mut found: Vec<EntryValue> = said.map(|((_, value), _)| value).collect();
        found.extend(header.map(|name| EntryValue::Header(name, default)));
        found.extend(value.map(EntryValue::Text));
        // `compile` reports an entry with no value, or with several.
        let value = found.pop().filter(|_| found.is_empty());
        Ok(Self { key, value })
    }

    fn text_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "enum": ENTRIES.each_ref().map(|(word, _)| *word) })
    }
}
