//! Decodes the YAML tree into the grammar types, and reports every mistake.
//!
//! serde stops at the first error. So the error is recorded, its node is removed from the tree, and
//! the tree is decoded again, until there are no errors. An error that only follows from a removed
//! node is not reported.

use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeSeed, IntoDeserializer as _, Visitor};

use super::decode_error::{BELOW_ZERO, DecodeError};
use super::diagnostic::{Diagnostic, Place};
use super::grammar::Config;
use super::node::{Key, Kind, Node};
use super::own;
use super::values::AS_LIST;
use crate::compile::habits::{self, Names};

/// The maximum number of mistakes that are reported at once.
pub const MISTAKES_MAX: usize = 100;

/// The name of the newtype struct with which [`super::values::Placed`] requests the place of its
/// value.
pub const WITH_PLACE: &str = "$ringway::Placed";

/// Sections that are decoded in batches, so that a mistake repeats the work of one batch only.
const BATCHED: [&str; 4] = ["listeners", "routes", "services", "jwt"];

/// The number of entries that are decoded together.
const BATCH: usize = 256;

/// Keys of which one is required. If such a key has no value, report that. The error that the key
/// is missing would confuse the author.
const NEVER_NULL: [&str; 2] = ["endpoints", "versions"];

/// The end of the message for a key of an entry whose name is missing.
const NAMELESS: &str = "in the place of a name";

/// Decodes `root`. Returns `None` if there are too many mistakes.
pub fn decode(root: Node, mistakes: &mut Vec<Diagnostic>) -> Option<Config> {
    let mut config = Config::default();
    let mut tries = MISTAKES_MAX;
    let names = own::names(&root);
    let Kind::Map(sections) = root.kind else { return None };
    for (key, section) in sections {
        for part in parts(&key.text, section) {
            let kind = Kind::Map(vec![(key.clone(), part)]);
            let part = Node { place: root.place, kind };
            let decoded = decode_part(part, &names, &mut tries, mistakes)?;
            add(&mut config, &key.text, decoded);
        }
    }
    Some(config)
}

/// Splits a section into parts that are decoded one by one.
fn parts(name: &str, section: Node) -> Vec<Node> {
    let Node { place, kind } = section;
    let mut entries = match kind {
        Kind::Map(entries) if BATCHED.contains(&name) => entries,
        kind => return vec![Node { place, kind }],
    };
    let mut parts = Vec::with_capacity(entries.len() / BATCH + 1);
    while entries.len() > BATCH {
        let rest = entries.split_off(entries.len() - BATCH);
        parts.push(Node { place, kind: Kind::Map(rest) });
    }
    parts.push(Node { place, kind: Kind::Map(entries) });
    parts.reverse();
    parts
}

/// Adds a decoded part of a section to `config`.
fn add(config: &mut Config, section: &str, part: Config) {
    match section {
        "runtime" => config.runtime = part.runtime,
        "zone" => config.zone = part.zone,
        "admin" => config.admin = part.admin,
        "drain" => config.drain = part.drain,
        "dns" => config.dns = part.dns,
        "tcp" => config.tcp = part.tcp,
        "limits" => config.limits = part.limits,
        "overload" => config.overload = part.overload,
        "listeners" => config.listeners.0.extend(part.listeners.0),
        "routes" => config.routes.0.extend(part.routes.0),
        "sources" => config.sources = part.sources,
        "services" => config.services.0.extend(part.services.0),
        "mesh" => config.mesh = part.mesh,
        "jwt" => config.jwt.0.extend(part.jwt.0),
        "authorization" => config.authorization = part.authorization,
        "telemetry" => config.telemetry = part.telemetry,
        // A key with any other name was reported as a mistake before.
        _ => {}
    }
}

/// Decodes `root` in one piece. Returns `None` if there are too many mistakes.
pub fn decode_whole<T: de::DeserializeOwned>(
    root: Node,
    mistakes: &mut Vec<Diagnostic>,
) -> Option<T> {
    decode_part(root, &Names::default(), &mut { MISTAKES_MAX }, mistakes)
}

fn decode_part<T: de::DeserializeOwned>(
    mut root: Node,
    names: &Names,
    tries: &mut usize,
    mistakes: &mut Vec<Diagnostic>,
) -> Option<T> {
    let mut pruned = Vec::new();
    let mut found: Vec<(Option<Place>, Diagnostic)> = Vec::new();
    let mut has_empty = false;
    while *tries > 0 {
        let error = match T::deserialize(&root) {
            Ok(config) => {
                mistakes.extend(found.into_iter().map(|(_, mistake)| mistake));
                return Some(config);
            }
            Err(error) => error,
        };
        *tries -= 1;
        let place = error.place.unwrap_or(root.place);
        let consequence = (error.missing || error.whole) && pruned.contains(&place);
        let mut others = Vec::new();
        let is_empty = |(empty, _): &(Option<Place>, Diagnostic)| empty.is_some();
        has_empty |= found.iter().any(is_empty);
        let (error, place) = of_whole_map(&root, error, place, has_empty);
        if !consequence {
            if error.misplaced {
                // The entry has the wrong indentation: it belongs into the empty map above it. So
                // do not report the keys that this map lacks.
                found.retain(|(empty, _)| empty.is_none());
            }
            let empty = (error.missing && is_null(&root, place)).then_some(place);
            let help = match error.help {
                Some(help) if error.of_unknown_key => {
                    let (help, also) = own::advice(&help, &root, place, names);
                    others = also;
                    Some(help)
                }
                help => help,
            };
            found.push((empty, Diagnostic { help, ..Diagnostic::at(place, error.text) }));
        }
        // The advice includes the values of these keys.
        for other in others {
            prune(&mut root, other, &mut pruned);
        }
        if !prune(&mut root, place, &mut pruned) {
            break;
        }
    }
    mistakes.extend(found.into_iter().map(|(_, mistake)| mistake));
    None
}

/// The error about the whole map around `place`, if that is wrong, with the place of the map.
/// `has_empty` is whether there was an empty map, to which misplaced keys may belong.
fn of_whole_map(
    root: &Node,
    error: DecodeError,
    place: Place,
    has_empty: bool,
) -> (DecodeError, Place) {
    let fields = error.no_map_with.filter(|_| error.misplaced && !has_empty);
    if let Some((map, help)) = fields.and_then(|fields| own::nameless(root, place, fields)) {
        let text =
            error.text.replace("in the column of the names, not below one of them", NAMELESS);
        return (DecodeError { text, misplaced: false, ..error }.help(help), map);
    }
    let is_number = error.text.starts_with("expected a number");
    match own::destination(root, place).filter(|_| is_number) {
        Some((map, help)) => {
            let text = "the keys of `to` are services, and their values are weights".to_owned();
            (DecodeError { text, ..error }.help(help), map)
        }
        None => (error, place),
    }
}

/// Whether the node at `place` is a key without a value.
fn is_null(node: &Node, place: Place) -> bool {
    match &node.kind {
        Kind::Null => node.place == place,
        Kind::Scalar { .. } => false,
        Kind::List(items) => items.iter().any(|item| is_null(item, place)),
        Kind::Map(entries) => entries.iter().any(|(_, value)| is_null(value, place)),
    }
}

/// Removes the node (or the entry with the key) at `place` from the tree below `node`. Adds the
/// places of its parents to `pruned`.
fn prune(node: &mut Node, place: Place, pruned: &mut Vec<Place>) -> bool {
    let above = node.place;
    let done = match &mut node.kind {
        Kind::Map(entries) => {
            let found = entries.iter().position(|(k, v)| k.place == place || v.place == place);
            match found {
                Some(at) => {
                    entries.remove(at);
                    true
                }
                None => entries.iter_mut().any(|(_, value)| prune(value, place, pruned)),
            }
        }
        Kind::List(items) => match items.iter().position(|item| item.place == place) {
            Some(at) => {
                items.remove(at);
                true
            }
            None => items.iter_mut().any(|item| prune(item, place, pruned)),
        },
        Kind::Null | Kind::Scalar { .. } => false,
    };
    if done {
        pruned.push(above);
    }
    done
}

impl<'de> de::Deserializer<'de> for &'de Node {
    type Error = DecodeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match &self.kind {
            Kind::Null => visitor.visit_unit(),
            Kind::Scalar { text, .. } => visitor.visit_borrowed_str(text),
            Kind::List(items) => visitor.visit_seq(Items(items.iter())),
            Kind::Map(entries) => visitor.visit_map(Entries::of(entries)),
        }
        .map_err(|error| error.at(self.place))
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match &self.kind {
            Kind::Scalar { text, .. } if text == "true" => visitor.visit_bool(true),
            Kind::Scalar { text, .. } if text == "false" => visitor.visit_bool(false),
            _ => {
                let message = format!("expected true or false, found {}", self.describe());
                let help = match self.text().to_ascii_lowercase().as_str() {
                    "yes" | "on" | "true" | "1" | "enabled" => Some("write `true`"),
                    "no" | "off" | "false" | "0" | "none" | "disabled" => Some("write `false`"),
                    _ => None,
                };
                Err(DecodeError { help: help.map(Into::into), ..DecodeError::new(message) })
            }
        }
        .map_err(|error| error.at(self.place))
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let number = match &self.kind {
            Kind::Scalar { text, .. } => text.parse().ok(),
            _ => None,
        };
        let wrong = || {
            let error = DecodeError::new(format!("expected a number, found {}", self.describe()));
            match self.text().trim_end_matches('%') {
                "" => error,
                number if number.parse::<i64>().is_ok_and(|number| number < 0) => {
                    DecodeError::new(format!("{number}{BELOW_ZERO}"))
                }
                number if number.parse::<u64>().is_ok() => {
                    error.help(format!("write the number alone: {number}"))
                }
                _ => error,
            }
        };
        number
            .ok_or_else(wrong)
            .and_then(|number| visitor.visit_u64(number))
            .map_err(|error| error.at(self.place))
    }

    fn deserialize_u16<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_u64(visitor)
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_u64(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.kind {
            Kind::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match &self.kind {
            Kind::Null => visitor.visit_map(Entries::of(&[])),
            Kind::Map(entries) => visitor.visit_map(Entries::of(entries)),
            _ => Err(DecodeError::no_map(self, "", &[])),
        }
        .map_err(|error| error.at(self.place))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        match self.kind {
            Kind::Null | Kind::Map(_) => self.deserialize_map(visitor),
            _ => Err(DecodeError::no_map(self, name, fields).at(self.place)),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        match &self.kind {
            Kind::Scalar { text, .. } => visitor.visit_enum(Word(text)),
            Kind::Map(entries) if entries.len() == 1 => visitor.visit_enum(Variant(&entries[0])),
            _ => {
                let message = format!("expected one value, found {}", self.describe());
                let help = format!("write one of: {}", variants.join(", "));
                let missing = matches!(&self.kind, Kind::Map(entries) if entries.is_empty());
                Err(DecodeError { missing, ..DecodeError::new(message).help(help) })
            }
        }
        .map_err(|error| error.at(self.place))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        if name == WITH_PLACE {
            let value = Value::Node(self);
            return visitor.visit_seq(WithPlace { place: self.place, next: 0, value });
        }
        if name == AS_LIST {
            return match &self.kind {
                Kind::List(items) => visitor.visit_seq(Items(items.iter())),
                _ => visitor.visit_seq(Items(std::slice::from_ref(self).iter())),
            };
        }
        visitor.visit_newtype_struct(self).map_err(|error| error.at(self.place))
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        seq tuple tuple_struct identifier ignored_any
    }
}

struct Items<'de>(std::slice::Iter<'de, Node>);

impl<'de> de::SeqAccess<'de> for Items<'de> {
    type Error = DecodeError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, DecodeError> {
        self.0.next().map(|node| seed.deserialize(node).map_err(|e| e.at(node.place))).transpose()
    }
}

struct Entries<'de> {
    rest: std::slice::Iter<'de, (Key, Node)>,
    value: Option<&'de Node>,
    key: Option<&'de Key>,
}

impl<'de> Entries<'de> {
    fn of(entries: &'de [(Key, Node)]) -> Self {
        Self { rest: entries.iter(), value: None, key: None }
    }
}

impl<'de> de::MapAccess<'de> for Entries<'de> {
    type Error = DecodeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, DecodeError> {
        let Some((key, value)) = self.rest.next() else { return Ok(None) };
        self.value = Some(value);
        self.key = Some(key);
        seed.deserialize(key).map(Some).map_err(|error| {
            let of_unknown_key = error.place.is_none();
            DecodeError { of_unknown_key, ..error.at(key.place) }
        })
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(
        &mut self,
        seed: V,
    ) -> Result<V::Value, DecodeError> {
        let node = self.value.take().ok_or_else(|| DecodeError::new("a value before its key"))?;
        if let Some(key) = self.key.filter(|_| node.kind == Kind::Null)
            && NEVER_NULL.contains(&key.text.as_str())
        {
            return Err(DecodeError::no_value(key));
        }
        seed.deserialize(node).map_err(|error| match self.key {
            Some(key) => error.at(node.place).of_key(key, node),
            None => error.at(node.place),
        })
    }
}

/// A word in the place of an enum variant.
struct Word<'de>(&'de str);

impl<'de> de::EnumAccess<'de> for Word<'de> {
    type Error = DecodeError;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(
        self,
        seed: V,
    ) -> Result<(V::Value, Self), DecodeError> {
        let text: StrDeserializer<'_, DecodeError> = self.0.into_deserializer();
        seed.deserialize(text).map(|name| (name, self))
    }
}

impl<'de> de::VariantAccess<'de> for Word<'de> {
    type Error = DecodeError;

    fn unit_variant(self) -> Result<(), DecodeError> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _: T) -> Result<T::Value, DecodeError> {
        Err(self.alone())
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, DecodeError> {
        Err(self.alone())
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, DecodeError> {
        Err(self.alone())
    }
}

impl Word<'_> {
    fn alone(&self) -> DecodeError {
        let Self(word) = self;
        let advice =
            habits::of_shape(word, "", &|_| None).unwrap_or_else(|| format!("{{{word}: VALUE}}"));
        DecodeError::new(format!("{word:?} needs a value")).help(advice)
    }
}

struct Variant<'de>(&'de (Key, Node));

impl<'de> de::EnumAccess<'de> for Variant<'de> {
    type Error = DecodeError;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(
        self,
        seed: V,
    ) -> Result<(V::Value, Self), DecodeError> {
        let (key, _) = self.0;
        seed.deserialize(key).map(|name| (name, self)).map_err(|error| error.at(key.place))
    }
}

impl<'de> de::VariantAccess<'de> for Variant<'de> {
    type Error = DecodeError;

    fn unit_variant(self) -> Result<(), DecodeError> {
        let (key, node) = self.0;
        Err(DecodeError::new(format!("{:?} takes no value", key.text)).at(node.place))
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(
        self,
        seed: T,
    ) -> Result<T::Value, DecodeError> {
        let (_, node) = self.0;
        seed.deserialize(node).map_err(|error| error.at(node.place))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, DecodeError> {
        de::Deserializer::deserialize_seq(&self.0.1, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        de::Deserializer::deserialize_map(&self.0.1, visitor)
    }
}

impl<'de> de::Deserializer<'de> for &'de Key {
    type Error = DecodeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_borrowed_str(&self.text)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        if name == WITH_PLACE {
            return visitor.visit_seq(WithPlace {
                place: self.place,
                next: 0,
                value: Value::Key(self),
            });
        }
        visitor.visit_newtype_struct(self)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
        option unit unit_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

/// The five elements of a [`super::values::Placed`]: the four numbers of the place, and the value.
struct WithPlace<'de> {
    place: Place,
    next: usize,
    value: Value<'de>,
}

enum Value<'de> {
    Node(&'de Node),
    Key(&'de Key),
}

impl<'de> de::SeqAccess<'de> for WithPlace<'de> {
    type Error = DecodeError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, DecodeError> {
        let Place { file, line, column, len } = self.place;
        let number = [file.into(), line, column, len.into()].get(self.next).copied();
        self.next += 1;
        match (number, &self.value) {
            (Some(number), _) => seed.deserialize(number.into_deserializer()),
            (None, Value::Node(node)) => seed.deserialize(*node),
            (None, Value::Key(key)) => seed.deserialize(*key),
        }
        .map(Some)
        .map_err(|error| error.at(self.place))
    }
}
