//! Conditions on the values of header fields, query parameters and claims.

use regex::bytes::Regex;

use super::{PatternError, whole};

/// A condition on a value.
#[derive(Clone, Debug)]
pub enum ValueMatch {
    /// The value is present, whatever it is.
    Present,
    /// Exactly this value.
    Exact(Box<[u8]>),
    /// The value begins with this text.
    Prefix(Box<[u8]>),
    /// The value ends with this text.
    Suffix(Box<[u8]>),
    /// The regex matches the complete value.
    Regex(Regex),
}

impl ValueMatch {
    /// Parses an exact value or `~regex`.
    ///
    /// # Errors
    /// When the regex is not valid.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        match text.strip_prefix('~') {
            Some(pattern) => whole(pattern).map(Self::Regex),
            None => Ok(Self::Exact(text.as_bytes().into())),
        }
    }

    /// Whether `value` matches.
    pub fn fits(&self, value: &[u8]) -> bool {
        match self {
            Self::Present => true,
            Self::Exact(exact) => **exact == *value,
            Self::Prefix(prefix) => value.starts_with(prefix),
            Self::Suffix(suffix) => value.ends_with(suffix),
            Self::Regex(regex) => regex.is_match(value),
        }
    }
}
