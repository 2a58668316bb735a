//! The value that keeps a user on the same version.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

use super::TextOrMap;
use crate::compile::value_suggestion;
use crate::sources::files::grammar::route::{Sticky, StickyCookie};
use crate::sources::files::values::Placed;

/// The value that keeps a user on the same version, in its long form.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct StickyMap {
    /// The name of a header field. Requests without it are split by weight alone.
    header: Option<Placed<String>>,
    /// The name of a cookie, which the service sets; or a map, and the proxy sets the cookie.
    /// Requests without it are split by weight alone.
    cookie: Option<Placed<Cookie>>,
    /// The SPIFFE ID of the client. Requests of clients without one are split by weight alone.
    #[serde(default)]
    identity: bool,
    /// The address of the client.
    #[serde(default, alias = "source-ip")]
    source: bool,
}

impl TextOrMap for Sticky {
    type Map = StickyMap;

    const EXPECTED: &'static str = "`identity`, `source-ip`, or a map with `header` or `cookie`";

    fn from_text(text: &str) -> Result<Self, String> {
        match text {
            "identity" => Ok(Self::Identity),
            "source-ip" | "source" => Ok(Self::SourceIp),
            "cookie" => Err("a cookie needs a name\n\
                             write `sticky: {cookie: {name: NAME}}`, and the proxy sets it"
                .to_owned()),
            _ => {
                let words = ["identity", "source-ip", "{header: NAME}", "{cookie: NAME}"];
                let help = value_suggestion(text, &words);
                Err(format!("{text:?} does not tell users apart\n{help}"))
            }
        }
    }

    fn from_map(map: StickyMap) -> Result<Self, &'static str> {
        let StickyMap { header, cookie, identity, source } = map;
        match (header, cookie, identity, source) {
            (Some(name), None, false, false) => Ok(Self::Header(name)),
            (None, Some(Placed { place, value }), false, false) => Ok(match value {
                Cookie::Named(value) => Self::Cookie(Placed { place, value }),
                Cookie::Set(cookie) => Self::Set(cookie),
            }),
            (None, None, true, false) => Ok(Self::Identity),
            (None, None, false, true) => Ok(Self::SourceIp),
            _ => Err("`sticky` has exactly one of header, cookie, identity and source"),
        }
    }

    fn text_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "enum": ["identity", "source-ip", "source"] })
    }
}

/// A cookie: the name of one that the service sets, or one that the proxy sets.
pub(super) enum Cookie {
    Named(String),
    Set(StickyCookie),
}

impl TextOrMap for Cookie {
    type Map = StickyCookie;

    const EXPECTED: &'static str = "the name of a cookie, or a map with `name`";

    fn from_text(text: &str) -> Result<Self, String> {
        Ok(Self::Named(text.to_owned()))
    }

    fn from_map(map: StickyCookie) -> Result<Self, &'static str> {
        Ok(Self::Set(map))
    }
}
