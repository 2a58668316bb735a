//! Filters over exchanges: comparisons of values, joined by `and`, `or` and `not`.

use super::field::{Field, Value};
use super::headers::Wanted;
use super::record::Record;
use super::{TextError, parse};
use crate::net::Network;

/// The maximum length of a filter, in bytes.
pub const FILTER_BYTES_MAX: usize = 4096;

/// A compiled filter.
#[derive(Clone, Debug)]
pub struct Filter {
    text: Box<str>,
    expression: Expression,
}

/// Filters are the same if their texts are.
impl PartialEq for Filter {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Filter {}

/// A part of a filter.
#[derive(Clone, Debug)]
pub(super) enum Expression {
    And(Box<[Self; 2]>),
    Or(Box<[Self; 2]>),
    Not(Box<Self>),
    Is(Field),
    Compare(Field, Order, Literal),
    In(Field, Vec<Literal>),
    Part(Field, Part, Box<[u8]>),
}

/// How a value is compared with a literal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    More,
    MoreOrEqual,
}

/// Where a text is searched in a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Contains,
    StartsWith,
    EndsWith,
}

/// A value that is written in a filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Literal {
    Text(Box<[u8]>),
    Number(u64),
    Micros(u64),
    Bool(bool),
    Network(Network),
    Flag(Box<[u8]>),
}

impl Filter {
    /// Parses a filter, such as `status >= 500 or duration > 250ms`.
    ///
    /// # Errors
    /// If the text is not a filter, or if it compares values of two types.
    pub fn parse(text: &str) -> Result<Self, TextError> {
        if text.len() > FILTER_BYTES_MAX {
            let message = format!("a filter has at most {FILTER_BYTES_MAX} bytes");
            return Err(TextError::new(0, message, "write a shorter filter"));
        }
        Ok(Self { text: text.into(), expression: parse::filter(text)? })
    }

    /// The text of the filter.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether the filter accepts an exchange.
    pub fn accepts(&self, record: &Record<'_>) -> bool {
        self.expression.accepts(record)
    }

    /// The header fields that the filter reads.
    pub fn wanted(&self) -> Wanted {
        let mut wanted = Wanted::default();
        self.expression.want(&mut wanted);
        wanted
    }
}

impl Expression {
    fn accepts(&self, record: &Record<'_>) -> bool {
        match self {
            Self::And(sides) => sides.iter().all(|side| side.accepts(record)),
            Self::Or(sides) => sides.iter().any(|side| side.accepts(record)),
            Self::Not(inner) => !inner.accepts(record),
            Self::Is(field) => field.of(record) == Value::Bool(true),
            Self::Compare(field, Order::Unequal, literal) => {
                !literal.fits(record, &field.of(record), Order::Equal)
            }
            Self::Compare(field, order, literal) => literal.fits(record, &field.of(record), *order),
            Self::In(field, literals) => {
                let value = field.of(record);
                literals.iter().any(|literal| literal.fits(record, &value, Order::Equal))
            }
            Self::Part(field, part, text) => part.fits(record, &field.of(record), text),
        }
    }

    fn want(&self, wanted: &mut Wanted) {
        let mut field = |field: &Field| match field {
            Field::Request(name) => wanted.request.push(name.clone()),
            Field::Response(name) => wanted.response.push(name.clone()),
            Field::Plain(_) => {}
        };
        match self {
            Self::And(sides) | Self::Or(sides) => sides.iter().for_each(|side| side.want(wanted)),
            Self::Not(inner) => inner.want(wanted),
            Self::Is(it) | Self::Compare(it, ..) | Self::In(it, _) | Self::Part(it, ..) => {
                field(it)
            }
        }
    }
}

impl Literal {
    /// Compares `value` with this literal. A missing value fits no literal.
    fn fits(&self, record: &Record<'_>, value: &Value<'_>, order: Order) -> bool {
        match (self, value) {
            (Self::Text(text), Value::Text(value)) => order.holds(&**value, &**text),
            (Self::Number(number), Value::Number(value)) => order.holds(value, number),
            (Self::Micros(us), Value::Micros(value)) => order.holds(value, us),
            (Self::Bool(wanted), Value::Bool(value)) => order.holds(value, wanted),
            (Self::Network(network), Value::Ip(ip)) => network.contains(*ip),
            (Self::Flag(letters), Value::Flags) => has_flag(record, letters),
            _ => false,
        }
    }
}

/// Whether the exchange has the flag `letters`. `-` means that it has none.
fn has_flag(record: &Record<'_>, letters: &[u8]) -> bool {
    match letters {
        b"-" => record.flag.is_none() && !record.delayed,
        letters => record.has_flag(letters),
    }
}

impl Order {
    fn holds<T: Ord + ?Sized>(self, value: &T, literal: &T) -> bool {
        match self {
            Self::Equal => value == literal,
            Self::Unequal => value != literal,
            Self::Less => value < literal,
            Self::LessOrEqual => value <= literal,
            Self::More => value > literal,
            Self::MoreOrEqual => value >= literal,
        }
    }
}

impl Part {
    fn fits(self, record: &Record<'_>, value: &Value<'_>, text: &[u8]) -> bool {
        match (value, self) {
            (Value::Flags, _) => has_flag(record, text),
            (Value::Text(value), Self::Contains) => memchr::memmem::find(value, text).is_some(),
            (Value::Text(value), Self::StartsWith) => value.starts_with(text),
            (Value::Text(value), Self::EndsWith) => value.ends_with(text),
            _ => false,
        }
    }
}

#[cfg(test)]
#[path = "filter_tests.rs"]
mod tests;
