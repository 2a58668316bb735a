//! Types of single values in a configuration. A parse error names the expected form.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::decode::WITH_PLACE;
use super::decode_error::EMPTY_LIST;
use super::diagnostic::Place;
use crate::model;

/// The name of the newtype struct with which [`OneOrMany`] requests a list. A single value then
/// becomes a list of one element.
pub const AS_LIST: &str = "$ringway::OneOrMany";

/// A value with its place in a file.
#[derive(Clone, Debug, Default)]
pub struct Placed<T> {
    /// The place of the value in its file.
    pub place: Place,
    /// The value.
    pub value: T,
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Placed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PlacedVisitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for PlacedVisitor<T> {
            type Value = Placed<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Placed<T>, A::Error> {
                let mut number =
                    || parts.next_element::<u32>().map(|number| number.unwrap_or_default());
                let (file, line, column, len) = (number()?, number()?, number()?, number()?);
                let (file, len) = (file as u16, len as u16);
                let value = parts.next_element()?;
                let value = value.ok_or_else(|| de::Error::custom("a value is missing"))?;
                Ok(Placed { place: Place { file, line, column, len }, value })
            }
        }
        deserializer.deserialize_newtype_struct(WITH_PLACE, PlacedVisitor(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for Placed<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// A map whose entries are in the order of the file.
#[derive(Clone, Debug)]
pub struct Entries<T>(pub Vec<(Placed<String>, T)>);

impl<T> Default for Entries<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Entries<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntriesVisitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for EntriesVisitor<T> {
            type Value = Entries<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries<T>, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(EntriesVisitor(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for Entries<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("MapOf{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let value = generator.subschema_for::<T>();
        json_schema!({ "type": ["object", "null"], "additionalProperties": value })
    }
}

/// One value, or a list of values.
#[derive(Clone, Debug)]
pub struct OneOrMany<T>(pub Vec<T>);

impl<T> Default for OneOrMany<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ListVisitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for ListVisitor<T> {
            type Value = OneOrMany<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value or a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<OneOrMany<T>, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    list.push(item);
                }
                Ok(OneOrMany(list))
            }
        }
        deserializer.deserialize_newtype_struct(AS_LIST, ListVisitor(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for OneOrMany<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("OneOrMany{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let value = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [value, { "type": "array", "items": value }] })
    }
}

/// One value, or a list that is not empty. A missing key means no condition. An empty list is
/// refused, because it would match everything.
#[derive(Clone, Debug)]
pub struct AtLeastOne<T>(pub Vec<T>);

impl<T> Default for AtLeastOne<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for AtLeastOne<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let OneOrMany(list) = OneOrMany::deserialize(deserializer)?;
        match list.is_empty() {
            true => Err(de::Error::custom(EMPTY_LIST)),
            false => Ok(Self(list)),
        }
    }
}

impl<T: JsonSchema> JsonSchema for AtLeastOne<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("AtLeastOne{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let value = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [value, { "type": "array", "items": value, "minItems": 1 }] })
    }
}

/// Defines a type for a value that is written as text: its name, its parser and its schema.
macro_rules! text_value {
    ($(#[$doc:meta])* $name:ident($inner:ty), $read:expr, $schema:tt) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name(pub $inner);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                let read: fn(&str) -> Result<$inner, String> = $read;
                read(&text).map(Self).map_err(de::Error::custom)
            }
        }

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

pub(super) use text_value;

text_value!(
    /// A duration: `500ms`, `2s`, `1m 30s`, `8h`.
    Time(Duration),
    read_time,
    { "type": "string", "pattern": "^[0-9]" }
);

text_value!(
    /// A duration, or `none` for no limit.
    TimeOrNone(Option<Duration>),
    |text| match text {
        "none" => Ok(None),
        "0" | "0s" | "off" => {
            Err(format!("{text:?} is not a length of time\nwrite none for no limit"))
        }
        _ => read_time(text).map(Some),
    },
    { "type": "string", "pattern": "^([0-9]|none$)" }
);

text_value!(
    /// `after`, `with`, or a duration.
    OutboundDrain(model::OutboundDrain),
    |text| match text {
        "after" => Ok(model::OutboundDrain::After),
        "with" => Ok(model::OutboundDrain::With),
        _ => read_time(text).map(model::OutboundDrain::AtLeast).map_err(|_| {
            format!("{text:?} is neither after, with nor a length of time\nwrite after, with or 5s")
        }),
    },
    { "type": "string", "pattern": "^([0-9]|after$|with$)" }
);

text_value!(
    /// A time of the calendar, in milliseconds since 1970: `2026-12-01T09:00:00Z`.
    Moment(u64),
    read_moment,
    { "type": "string", "format": "date-time" }
);

text_value!(
    /// A percentile from `p50` to `p99.9`, or a duration.
    HedgeAfter(model::HedgeAfter),
    |text| {
        let Some(percent) = text.strip_prefix('p') else {
            return read_time(text).map(model::HedgeAfter::Time).map_err(|_| {
                let percent = text.trim_end_matches('%');
                let is_percent = percent.parse::<f64>().is_ok_and(|it| it < 100.0);
                let wanted = if is_percent && percent.len() < text.len() { percent } else { "95" };
                format!("{text:?} is neither a percentile nor a length of time\n\
                    write p{wanted} or 50ms")
            });
        };
        read_share(percent)
            .map(|parts| parts / (model::SHARE_PARTS / 1000))
            .filter(|tenths| (500..1000).contains(tenths))
            .map(|tenths| model::HedgeAfter::Percentile(tenths as u16))
            .ok_or_else(|| {
                format!("{text:?} is not a percentile for hedging\nwrite p50 to p99.9, such as p95")
            })
    },
    { "type": "string", "pattern": "^([0-9]|p[5-9][0-9](\\.[0-9])?$)" }
);

text_value!(
    /// A number of bytes: `8192`, `60KiB`, `16KB`, `1MiB`.
    Size(usize),
    read_size,
    { "type": ["string", "integer"], "pattern": "^[0-9]+ *(B|KB|KiB|MB|MiB)?$" }
);

text_value!(
    /// A percentage: `50%`.
    Percent(u8),
    |text| {
        let number = text.strip_suffix('%').and_then(|number| number.trim_end().parse().ok());
        number
            .filter(|number| *number <= 100)
            .ok_or_else(|| format!("{text:?} is not a part of a whole\nwrite 0% to 100%"))
    },
    { "type": "string", "pattern": "^(100|[0-9]{1,2}) *%$" }
);

text_value!(
    /// A share of requests: `10`, `10%` or `0.5%`. It is stored in millionths.
    Portion(u32),
    |text| {
        let number = text.strip_suffix('%').unwrap_or(text).trim_end();
        read_share(number).ok_or_else(|| {
            format!("{text:?} is not a share of the requests\n\
                write a percentage from 0 to 100, such as 10 or 0.5%")
        })
    },
    {
        "anyOf": [
            { "type": "number", "minimum": 0, "maximum": 100 },
            { "type": "string", "pattern": "^(100|[0-9]{1,2}(\\.[0-9]{1,4})?) *%?$" }
        ]
    }
);

text_value!(
    /// A part of a whole: `99.9%`. It is stored as a number from 0 to 1.
    Share(f64),
    |text| {
        let number = text.strip_suffix('%').and_then(|number| number.trim_end().parse().ok());
        let number = number.filter(|number| (0.0..=100.0).contains(number));
        let share = number.map(|number: f64| number / 100.0);
        share.ok_or_else(|| format!("{text:?} is not a part of a whole\nwrite 0% to 100%"))
    },
    { "type": "string", "pattern": "^[0-9.]+ *%$" }
);

text_value!(
    /// A number above 0: `1.9`.
    Factor(f64),
    |text| {
        let number: Option<f64> = text.parse().ok();
        number
            .filter(|number| number.is_finite() && *number > 0.0)
            .ok_or_else(|| {
                format!("{text:?} is not a number above 0\nwrite a number above 0, such as 1.9")
            })
    },
    { "type": "number", "exclusiveMinimum": 0 }
);

text_value!(
    /// `auto`, `none`, or a number of bytes.
    MemoryLimit(model::Watched),
    |text| watched(text, "or a size such as 512MiB", |text| {
        read_size(text).ok().map(|bytes| bytes as f64)
    }),
    { "type": ["string", "integer"] }
);

text_value!(
    /// `auto`, `none`, or a number.
    DescriptorLimit(model::Watched),
    |text| watched(text, "or a number such as 10000", |text| {
        text.parse::<u32>().ok().map(f64::from)
    }),
    { "type": ["string", "integer"] }
);

text_value!(
    /// `auto`, `none`, or a number of CPUs.
    CpuLimit(model::Watched),
    |text| watched(text, "or a number of CPUs such as 2", |text| text.parse().ok()),
    { "type": ["string", "number"] }
);

/// A limit on a resource of the process. `number` parses a limit that is a number.
fn watched(
    text: &str,
    or: &str,
    number: impl Fn(&str) -> Option<f64>,
) -> Result<model::Watched, String> {
    match text {
        "auto" => Ok(model::Watched::Auto),
        "none" => Ok(model::Watched::Off),
        _ => match number(text).filter(|number| number.is_finite() && *number > 0.0) {
            Some(number) => Ok(model::Watched::At(number)),
            None => Err(format!("{text:?} is not a limit\nwrite auto, none, {or}")),
        },
    }
}

text_value!(
    /// `auto` or a number.
    AutoOrCount(Option<usize>),
    |text| match text {
        "auto" => Ok(None),
        _ => match text.parse() {
            Ok(0) | Err(_) => Err(format!("{text:?} is neither auto nor a number from 1")),
            Ok(count) => Ok(Some(count)),
        },
    },
    { "anyOf": [{ "const": "auto" }, { "type": "integer", "minimum": 1 }] }
);

pub(super) fn read_time(text: &str) -> Result<Duration, String> {
    let hint = "write a number with its unit: 500ms, 2s, 1m, 8h";
    if text.parse::<u64>() == Ok(0) {
        return Err(format!("a length of time cannot be zero\n{hint}"));
    }
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("{text:?} has no unit\nwrite {text}s, or {text}ms"));
    }
    if let Some(number) = text.strip_suffix(['M', 'y']).map(str::trim)
        && number.ends_with(|c: char| c.is_ascii_digit())
    {
        let (what, help) = match text.ends_with('M') {
            true => ("months", format!("write {number}m for minutes")),
            false => ("years", in_hours(number)),
        };
        return Err(format!("{text:?} is in {what}\n{help}"));
    }
    let time = humantime::parse_duration(text)
        .map_err(|_| format!("{text:?} is not a length of time\n{hint}"))?;
    if time.is_zero() {
        return Err(format!("a length of time cannot be zero\n{hint}"));
    }
    Ok(time)
}

/// Reads a time of RFC 3339, in milliseconds since 1970.
fn read_moment(text: &str) -> Result<u64, String> {
    let wrong =
        || format!("{text:?} is not a time of the calendar\nwrite it like 2026-12-01T09:00:00Z");
    let digits =
        |text: &str, at| text.get(at..at + 2).and_then(|two: &str| two.parse::<u64>().ok());
    // `+01:00` at the end is ahead of UTC.
    let offset = text.len().checked_sub(6).filter(|at| text.is_char_boundary(*at));
    let (at, sign) = match offset.map(|at| (at, text.as_bytes()[at])) {
        Some((at, sign @ (b'+' | b'-'))) => (at, sign),
        _ => (text.len(), b'+'),
    };
    let (local, zone) = text.split_at(at);
    let ahead = match zone {
        "" => 0,
        _ if zone.as_bytes().get(3) != Some(&b':') => return Err(wrong()),
        _ => {
            let (hours, minutes) = digits(zone, 1).zip(digits(zone, 4)).ok_or_else(wrong)?;
            (hours * 60 + minutes) * 60_000
        }
    };
    let utc = if zone.is_empty() { local.to_owned() } else { format!("{local}Z") };
    let time = humantime::parse_rfc3339(&utc).map_err(|_| wrong())?;
    let since = time.duration_since(std::time::UNIX_EPOCH).map_err(|_| wrong())?;
    let ms = u64::try_from(since.as_millis()).map_err(|_| wrong())?;
    let ms = if sign == b'+' { ms.checked_sub(ahead) } else { ms.checked_add(ahead) };
    ms.ok_or_else(wrong)
}

/// Parses a percentage with at most four decimals. Returns millionths of a whole.
fn read_share(text: &str) -> Option<u32> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str, len_max| {
        let are_digits = part.bytes().all(|byte| byte.is_ascii_digit());
        (are_digits && (1..=len_max).contains(&part.len())).then_some(())
    };
    digits(whole, 3)?;
    digits(decimals, 4)?;
    let whole: u32 = whole.parse().ok()?;
    let decimals: u32 = format!("{decimals:0<4}").parse().ok()?;
    let parts = whole * (model::SHARE_PARTS / 100) + decimals;
    (parts <= model::SHARE_PARTS).then_some(parts)
}

fn in_hours(years: &str) -> String {
    let hours = years.parse::<u64>().ok().and_then(|years| years.checked_mul(365 * 24));
    format!("write it in hours: {}h", hours.unwrap_or(365 * 24))
}

fn read_size(text: &str) -> Result<usize, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let unit = match text[digits..].trim() {
        "" | "B" => Some(1),
        "KB" => Some(1000),
        "KiB" => Some(1024),
        "MB" => Some(1_000_000),
        "MiB" => Some(1024 * 1024),
        _ => None,
    };
    let number: Option<usize> = text[..digits].parse().ok();
    let size = number.zip(unit).and_then(|(number, unit)| number.checked_mul(unit));
    size.ok_or_else(|| {
        let help = match (number, text[digits..].trim().to_ascii_lowercase().as_str()) {
            (Some(number), "k" | "kb" | "kib" | "ki") => format!("write {number}KiB"),
            (Some(number), "m" | "mb" | "mib" | "mi") => format!("write {number}MiB"),
            _ => "write 8192, 60KiB or 1MiB".to_owned(),
        };
        format!("{text:?} is not a number of bytes\n{help}")
    })
}
