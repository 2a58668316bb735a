//! Values that have a short form, which is text, and a long form, which is a map.

mod descriptor;
mod sticky;

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, IntoDeserializer as _, MapAccess, Visitor};

use self::sticky::Cookie;
use super::grammar::admin::{AdminPeer, AdminPeerMap};
use super::grammar::breaker::{Concurrency, ConcurrencyMap};
use super::grammar::health::{GrpcCheck, GrpcCheckMap, HttpCheck, HttpCheckMap};
use super::grammar::http3::{Http3, Http3Map};
use super::grammar::jwt::JwtDemand;
use super::grammar::locality::{Locality, LocalityMap, Prefer};
use super::grammar::outlier::{SlowStart, SlowStartMap};
use super::grammar::rate_limit::{DescriptorEntry, LimitBy};
use super::grammar::route::{Sticky, To, ValueMatch};
use super::grammar::service::{DnsName, Endpoint, Family};
use super::grammar::settings::{Drain, DrainMap};
use super::grammar::tcp::{Keepalive, KeepaliveMap};
use super::grammar::tls::{ClientFiles, ListenerTls, ServerFiles, ServiceTls};
use super::values::{Entries, OneOrMany, Placed, Time};
use crate::compile::value_suggestion;

/// A type that is written as text or as a map.
trait TextOrMap: Sized {
    /// The long form.
    type Map: for<'de> Deserialize<'de>;

    /// The description of the expected form, for messages.
    const EXPECTED: &'static str;

    /// Parses the short form.
    fn from_text(text: &str) -> Result<Self, String>;

    /// Converts the long form.
    fn from_map(map: Self::Map) -> Result<Self, &'static str>;

    /// The schema of the short form.
    fn text_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
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
    AdminPeer,
    Concurrency,
    Cookie,
    DescriptorEntry,
    DnsName,
    Drain,
    Endpoint,
    GrpcCheck,
    Http3,
    HttpCheck,
    JwtDemand,
    Keepalive,
    LimitBy,
    ListenerTls,
    Locality,
    ServiceTls,
    SlowStart,
    Sticky,
    To,
    ValueMatch
);

/// Implements `JsonSchema`: the schema of the short form, or the schema of the map.
macro_rules! schema_of_text_or_map {
    ($($name:ident),*) => {
        $(impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                let text = Self::text_schema(generator);
                let map = generator.subschema_for::<<Self as TextOrMap>::Map>();
                json_schema!({ "anyOf": [text, map] })
            }
        })*
    };
}

schema_of_text_or_map!(
    AdminPeer,
    Concurrency,
    Cookie,
    DescriptorEntry,
    DnsName,
    Drain,
    Endpoint,
    GrpcCheck,
    Http3,
    HttpCheck,
    JwtDemand,
    Keepalive,
    LimitBy,
    ListenerTls,
    Locality,
    ServiceTls,
    SlowStart,
    Sticky
);

/// An endpoint in its long form.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct EndpointMap {
    /// `IP:PORT` or `unix:/path`.
    address: String,
    /// The weight: the share of traffic relative to that of the other endpoints. Default 1; an
    /// endpoint with 0 gets no traffic.
    weight: Option<u32>,
    /// The zone: region, zone and sub-zone, such as `eu/a/rack1`. Default: unknown, which counts as
    /// the greatest distance.
    zone: Option<Placed<String>>,
    /// The priority. Endpoints with a higher number get requests only if too few with a lower
    /// number are healthy. Default 0.
    priority: Option<u32>,
}

impl TextOrMap for Endpoint {
    type Map = EndpointMap;

    const EXPECTED: &'static str = "an address, or a map with `address`";

    fn from_text(text: &str) -> Result<Self, String> {
        Ok(Self { address: text.to_owned(), weight: 1, zone: None, priority: 0 })
    }

    fn from_map(map: EndpointMap) -> Result<Self, &'static str> {
        let EndpointMap { address, weight, zone, priority } = map;
        let (weight, priority) = (weight.unwrap_or(1), priority.unwrap_or_default());
        Ok(Self { address, weight, zone, priority })
    }
}

/// A name in DNS in its long form.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct DnsNameMap {
    /// `HOST:PORT`.
    address: String,
    /// The address families that are looked up. Default `any`.
    #[serde(default)]
    family: Family,
    /// The zone of all addresses, such as `eu/a`. Default: unknown.
    zone: Option<Placed<String>>,
}

impl TextOrMap for DnsName {
    type Map = DnsNameMap;

    const EXPECTED: &'static str = "HOST:PORT, or a map with `address`";

    fn from_text(text: &str) -> Result<Self, String> {
        Ok(Self { address: text.to_owned(), family: Family::Any, zone: None })
    }

    fn from_map(map: DnsNameMap) -> Result<Self, &'static str> {
        Ok(Self { address: map.address, family: map.family, zone: map.zone })
    }
}

impl TextOrMap for To {
    type Map = Entries<u32>;

    const EXPECTED: &'static str = "a service, or a map of services to their weights";

    fn from_text(text: &str) -> Result<Self, String> {
        // Text has no place of its own. Lowering uses the place of the value that contains it.
        Ok(Self(vec![(Placed { place: Default::default(), value: text.to_owned() }, 1)]))
    }

    fn from_map(map: Entries<u32>) -> Result<Self, &'static str> {
        Ok(Self(map.0))
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

impl TextOrMap for AdminPeer {
    type Map = AdminPeerMap;

    const EXPECTED: &'static str = "HOST:PORT, or a map with `address`";

    fn from_text(text: &str) -> Result<Self, String> {
        Ok(Self::Address(text.to_owned()))
    }

    fn from_map(map: AdminPeerMap) -> Result<Self, &'static str> {
        Ok(Self::Settings(Box::new(map)))
    }
}

impl TextOrMap for Drain {
    type Map = DrainMap;

    const EXPECTED: &'static str = "a length of time, or a map with `inbound` and `outbound`";

    fn from_text(text: &str) -> Result<Self, String> {
        let inbound = Time::deserialize(text.into_deserializer());
        let inbound = inbound.map_err(|error: de::value::Error| error.to_string())?;
        Ok(Self(DrainMap { inbound: Some(inbound), outbound: None }))
    }

    fn from_map(map: DrainMap) -> Result<Self, &'static str> {
        Ok(Self(map))
    }

    fn text_schema(generator: &mut SchemaGenerator) -> Schema {
        Time::json_schema(generator)
    }
}

impl TextOrMap for Keepalive {
    type Map = KeepaliveMap;

    const EXPECTED: &'static str = "`none`, or a map with `time`, `interval` and `probes`";

    fn from_text(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self(None)),
            _ => Err("expected `none`, or {time: 60s, interval: 10s, probes: 6}".to_owned()),
        }
    }

    fn from_map(map: KeepaliveMap) -> Result<Self, &'static str> {
        Ok(Self(Some(map)))
    }

    fn text_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "const": "none" })
    }
}

/// A token requirement in its long form.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct JwtDemandMap {
    /// The accepted providers; one or a list.
    providers: OneOrMany<Placed<String>>,
    /// Whether requests without a token are accepted, too. A request with an invalid token is
    /// always refused. Default false.
    #[serde(default)]
    optional: bool,
}

impl TextOrMap for JwtDemand {
    type Map = JwtDemandMap;

    const EXPECTED: &'static str = "a provider of `jwt:`, or a map with `providers`";

    fn from_text(text: &str) -> Result<Self, String> {
        // Text has no place of its own. Lowering uses the place of the value that contains it.
        let provider = Placed { place: Default::default(), value: text.to_owned() };
        Ok(Self { providers: vec![provider], optional: false })
    }

    fn from_map(map: JwtDemandMap) -> Result<Self, &'static str> {
        Ok(Self { providers: map.providers.0, optional: map.optional })
    }
}

/// The property by which limits are counted separately, in its long form. Set exactly one key.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LimitByMap {
    /// The name of a header field. Requests without this field share one limit.
    header: Option<Placed<String>>,
    /// The SPIFFE ID of the client. Clients without an ID share one limit.
    #[serde(default)]
    identity: bool,
    /// The address of the client.
    #[serde(default)]
    source: bool,
}

impl TextOrMap for LimitBy {
    type Map = LimitByMap;

    const EXPECTED: &'static str = "`identity`, `source`, or a map with `header`";

    fn from_text(text: &str) -> Result<Self, String> {
        match text {
            "identity" => Ok(Self::Identity),
            "source" => Ok(Self::Source),
            _ => Err(format!(
                "{text:?} is no key of a rate limit\n{}",
                value_suggestion(text, &["identity", "source", "{header: NAME}"])
            )),
        }
    }

    fn from_map(map: LimitByMap) -> Result<Self, &'static str> {
        match map {
            LimitByMap { header: Some(name), identity: false, source: false } => {
                Ok(Self::Header(name))
            }
            LimitByMap { header: None, identity: true, source: false } => Ok(Self::Identity),
            LimitByMap { header: None, identity: false, source: true } => Ok(Self::Source),
            _ => Err("`by` has exactly one of {header: NAME}, {identity: true}, {source: true}"),
        }
    }

    fn text_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "enum": ["identity", "source"] })
    }
}

impl TextOrMap for Http3 {
    type Map = Http3Map;

    const EXPECTED: &'static str = "`true`, `false`, or a map with HTTP/3 settings";

    fn from_text(text: &str) -> Result<Self, String> {
        match text {
            "true" => Ok(Self::Switch(true)),
            "false" => Ok(Self::Switch(false)),
            _ => Err(format!("{text:?} is neither true nor false\nwrite `http3: true`")),
        }
    }

    fn from_map(map: Http3Map) -> Result<Self, &'static str> {
        Ok(Self::Settings(map))
    }

    fn text_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "boolean" })
    }
}

impl TextOrMap for HttpCheck {
    type Map = HttpCheckMap;

    const EXPECTED: &'static str = "a path, or a map with `path`";

    fn from_text(text: &str) -> Result<Self, String> {
        // Text has no place of its own. Lowering uses the place of the value that contains it.
        let path = Placed { place: Default::default(), value: text.to_owned() };
        Ok(Self(HttpCheckMap { path, ..HttpCheckMap::default() }))
    }

    fn from_map(map: HttpCheckMap) -> Result<Self, &'static str> {
        Ok(Self(map))
    }

    fn text_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^/" })
    }
}

impl TextOrMap for GrpcCheck {
    type Map = GrpcCheckMap;

    const EXPECTED: &'static str = "`true`, or a map with `service`";

    fn from_text(text: &str) -> Result<Self, String> {
        match text {
            "true" => Ok(Self::default()),
            _ => Err("expected `true`, or {service: NAME}".to_owned()),
        }
    }

    fn from_map(map: GrpcCheckMap) -> Result<Self, &'static str> {
        Ok(Self(map))
    }

    fn text_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "const": true })
    }
}

impl TextOrMap for Concurrency {
    type Map = ConcurrencyMap;

    const EXPECTED: &'static str = "`adaptive`, or a map";

    fn from_text(text: &str) -> Result<Self, String> {
        match text {
            "adaptive" => Ok(Self(ConcurrencyMap::default())),
            _ => match text.parse::<u32>() {
                Ok(number) => Err(format!(
                    "{text} is a fixed limit\nwrite `adaptive`, or \
                     `circuit_breaker: {{max_requests: {number}}}` in place of `concurrency`"
                )),
                Err(_) => Err(format!("{text:?} is not `adaptive`\nwrite `concurrency: adaptive`")),
            },
        }
    }

    fn from_map(map: ConcurrencyMap) -> Result<Self, &'static str> {
        Ok(Self(map))
    }

    fn text_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "const": "adaptive" })
    }
}

impl TextOrMap for SlowStart {
    type Map = SlowStartMap;

    const EXPECTED: &'static str = "a length of time, or a map with `window`";

    fn from_text(text: &str) -> Result<Self, String> {
        let window = Time(super::values::read_time(text)?);
        Ok(Self(SlowStartMap { window, aggression: None, min_weight_percent: None }))
    }

    fn from_map(map: SlowStartMap) -> Result<Self, &'static str> {
        Ok(Self(map))
    }

    fn text_schema(generator: &mut SchemaGenerator) -> Schema {
        Time::json_schema(generator)
    }
}

impl TextOrMap for Locality {
    type Map = LocalityMap;

    const EXPECTED: &'static str = "`none`, `region`, `zone`, `sub_zone`, or a map with `prefer`";

    fn from_text(text: &str) -> Result<Self, String> {
        let value = match text {
            "none" => Prefer::None,
            "region" => Prefer::Region,
            "zone" => Prefer::Zone,
            "sub_zone" => Prefer::SubZone,
            _ => {
                let words = ["none", "region", "zone", "sub_zone"];
                let help = value_suggestion(text, &words);
                return Err(format!("{text:?} is no part of a zone\n{help}"));
            }
        };
        // The place is that of the surrounding value.
        let prefer = Some(Placed { place: Default::default(), value });
        Ok(Self(LocalityMap { prefer, ..LocalityMap::default() }))
    }

    fn from_map(map: LocalityMap) -> Result<Self, &'static str> {
        Ok(Self(map))
    }

    fn text_schema(generator: &mut SchemaGenerator) -> Schema {
        Prefer::json_schema(generator)
    }
}

/// The long form of a condition that only requires a value to be present.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PresentMap {
    present: bool,
}

impl TextOrMap for ValueMatch {
    type Map = PresentMap;

    const EXPECTED: &'static str = "a value, ~regex, or {present: true}";

    fn from_text(text: &str) -> Result<Self, String> {
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

/// Decodes TLS settings: the text `mesh`, or a map of files.
macro_rules! mesh_or_files {
    ($name:ident, $files:ident, $expected:literal) => {
        impl TextOrMap for $name {
            type Map = $files;

            const EXPECTED: &'static str = $expected;

            fn from_text(text: &str) -> Result<Self, String> {
                Ok(Self::Word(text.to_owned()))
            }

            fn from_map(map: $files) -> Result<Self, &'static str> {
                Ok(Self::Files(Box::new(map)))
            }

            fn text_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "const": "mesh" })
            }
        }
    };
}

mesh_or_files!(ListenerTls, ServerFiles, "`mesh`, or a map with `cert` and `key`");
mesh_or_files!(ServiceTls, ClientFiles, "`mesh`, or a map with `ca`");
