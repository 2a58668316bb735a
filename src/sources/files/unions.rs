//! Values with a short form as text and a long form as a map.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, Visitor};

use super::grammar::health::{GrpcCheck, GrpcCheckMap, HttpCheck, HttpCheckMap};
use super::grammar::jwt::JwtDemand;
use super::grammar::route::{To, ValueMatch};
use super::grammar::service::Endpoint;
use super::grammar::tls::{ClientFiles, ListenerTls, ServerFiles, ServiceTls};
use super::values::{Entries, OneOrMany, Placed};

/// A type that is written as text or as a map.
trait TextOrMap: Sized {
    /// The long form.
    type Map: for<'de> Deserialize<'de>;

    /// The expected form, for messages.
    const EXPECTED: &'static str;

    /// Parses the short form.
    fn from_text(text: &str) -> Result<Self, &'static str>;

    /// Converts the long form.
    fn from_map(map: Self::Map) -> Result<Self, &'static str>;
}

struct TextOrMapVisitor<T>(std::marker::PhantomData<T>);

impl<'de, T: TextOrMap> Visitor<'de> for TextOrMapVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        T::from_text(text).map_err(de::Error::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        let map = T::Map::deserialize(MapAccessDeserializer::new(map))?;
        T::from_map(map).map_err(de::Error::custom)
    }
}

macro_rules! deserialize_text_or_map {
    ($($name:ident),*) => {
        $(impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(TextOrMapVisitor(std::marker::PhantomData))
            }
        })*
    };
}

deserialize_text_or_map!(
    Endpoint,
    GrpcCheck,
    HttpCheck,
    JwtDemand,
    ListenerTls,
    ServiceTls,
    To,
    ValueMatch
);

/// An endpoint in its long form.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct EndpointMap {
    /// `IP:PORT` or `unix:/path`.
    address: String,
    /// The share of traffic relative to the others. Default 1; an endpoint with 0 gets no traffic.
    weight: Option<u32>,
    /// The zone.
    zone: Option<String>,
}

impl TextOrMap for Endpoint {
    type Map = EndpointMap;

    const EXPECTED: &'static str = "an address, or a map with `address`";

    fn from_text(text: &str) -> Result<Self, &'static str> {
        Ok(Self { address: text.to_owned(), weight: 1, zone: None })
    }

    fn from_map(map: EndpointMap) -> Result<Self, &'static str> {
        let EndpointMap { address, weight, zone } = map;
        Ok(Self { address, weight: weight.unwrap_or(1), zone })
    }
}

impl JsonSchema for Endpoint {
    fn schema_name() -> Cow<'static, str> {
        "Endpoint".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let map = generator.subschema_for::<EndpointMap>();
        json_schema!({ "anyOf": [{ "type": "string" }, map] })
    }
}

impl TextOrMap for To {
    type Map = Entries<u32>;

    const EXPECTED: &'static str = "a service, or a map of services to their weights";

    fn from_text(text: &str) -> Result<Self, &'static str> {
        // The place is that of the surrounding value.
        Ok(Self(vec![(Placed { place: Default::default(), value: text.to_owned() }, 1)]))
    }

    fn from_map(map: Entries<u32>) -> Result<Self, &'static str> {
        match map.0.iter().any(|(_, weight)| *weight > 0) {
            true => Ok(Self(map.0)),
            false => Err("no destination has a weight above 0"),
        }
    }
}

impl JsonSchema for To {
    fn schema_name() -> Cow<'static, str> {
        "To".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [
            { "type": "string" },
            { "type": "object", "additionalProperties": { "type": "integer", "minimum": 0 } }
        ] })
    }
}

/// A token requirement in its long form.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct JwtDemandMap {
    /// The accepted providers; one or a list.
    providers: OneOrMany<Placed<String>>,
    /// Requests without a token pass too. Requests with an invalid token do not. Default false.
    #[serde(default)]
    optional: bool,
}

impl TextOrMap for JwtDemand {
    type Map = JwtDemandMap;

    const EXPECTED: &'static str = "a provider of `jwt:`, or a map with `providers`";

    fn from_text(text: &str) -> Result<Self, &'static str> {
        // The place is that of the surrounding value.
        let provider = Placed { place: Default::default(), value: text.to_owned() };
        Ok(Self { providers: vec![provider], optional: false })
    }

    fn from_map(map: JwtDemandMap) -> Result<Self, &'static str> {
        Ok(Self { providers: map.providers.0, optional: map.optional })
    }
}

impl JsonSchema for JwtDemand {
    fn schema_name() -> Cow<'static, str> {
        "JwtDemand".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let map = generator.subschema_for::<JwtDemandMap>();
        json_schema!({ "anyOf": [{ "type": "string" }, map] })
    }
}

impl TextOrMap for HttpCheck {
    type Map = HttpCheckMap;

    const EXPECTED: &'static str = "a path, or a map with `path`";

    fn from_text(text: &str) -> Result<Self, &'static str> {
        // The place is that of the surrounding value.
        let path = Placed { place: Default::default(), value: text.to_owned() };
        Ok(Self(HttpCheckMap { path, ..HttpCheckMap::default() }))
    }

    fn from_map(map: HttpCheckMap) -> Result<Self, &'static str> {
        Ok(Self(map))
    }
}

impl JsonSchema for HttpCheck {
    fn schema_name() -> Cow<'static, str> {
        "HttpCheck".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let map = generator.subschema_for::<HttpCheckMap>();
        json_schema!({ "anyOf": [{ "type": "string", "pattern": "^/" }, map] })
    }
}

impl TextOrMap for GrpcCheck {
    type Map = GrpcCheckMap;

    const EXPECTED: &'static str = "`true`, or a map with `service`";

    fn from_text(text: &str) -> Result<Self, &'static str> {
        match text {
            "true" => Ok(Self::default()),
            _ => Err("expected `true`, or {service: NAME}"),
        }
    }

    fn from_map(map: GrpcCheckMap) -> Result<Self, &'static str> {
        Ok(Self(map))
    }
}

impl JsonSchema for GrpcCheck {
    fn schema_name() -> Cow<'static, str> {
        "GrpcCheck".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let map = generator.subschema_for::<GrpcCheckMap>();
        json_schema!({ "anyOf": [{ "const": true }, map] })
    }
}

/// The condition that a value is present.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PresentMap {
    present: bool,
}

impl TextOrMap for ValueMatch {
    type Map = PresentMap;

    const EXPECTED: &'static str = "a value, ~regex, or {present: true}";

    fn from_text(text: &str) -> Result<Self, &'static str> {
        Ok(Self::Text(text.to_owned()))
    }

    fn from_map(map: PresentMap) -> Result<Self, &'static str> {
        match map.present {
            true => Ok(Self::Present),
            false => Err("only {present: true} can be asked for"),
        }
    }
}

impl JsonSchema for ValueMatch {
    fn schema_name() -> Cow<'static, str> {
        "ValueMatch".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [
            { "type": ["string", "number", "boolean"] },
            { "type": "object", "required": ["present"], "additionalProperties": false,
              "properties": { "present": { "const": true } } }
        ] })
    }
}

/// `mesh`, or a map of files.
macro_rules! mesh_or_files {
    ($name:ident, $files:ident, $expected:literal) => {
        impl TextOrMap for $name {
            type Map = $files;

            const EXPECTED: &'static str = $expected;

            fn from_text(text: &str) -> Result<Self, &'static str> {
                Ok(Self::Word(text.to_owned()))
            }

            fn from_map(map: $files) -> Result<Self, &'static str> {
                Ok(Self::Files(Box::new(map)))
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                let map = generator.subschema_for::<$files>();
                json_schema!({ "anyOf": [{ "const": "mesh" }, map] })
            }
        }
    };
}

mesh_or_files!(ListenerTls, ServerFiles, "`mesh`, or a map with `cert` and `key`");
mesh_or_files!(ServiceTls, ClientFiles, "`mesh`, or a map with `ca`");
