//! Conditions on names.

use super::PatternError;

/// A condition on a name: `exact`, `prefix*`, `*suffix`, or `*` for any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// Any name that is not empty.
    Any,
    /// Exactly this name.
    Exact(Box<str>),
    /// Names that begin with this text.
    Prefix(Box<str>),
    /// Names that end with this text.
    Suffix(Box<str>),
}

impl Pattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// When the pattern is empty, or has a `*` in its middle.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let (name, pattern): (&str, fn(Box<str>) -> Self) = match text.strip_prefix('*') {
            Some(rest) => (rest, Self::Suffix),
            None => match text.strip_suffix('*') {
                Some(rest) => (rest, Self::Prefix),
                None => (text, Self::Exact),
            },
        };
        if name.is_empty() || name.contains('*') {
            let help = "write exact, prefix*, *suffix or *";
            return Err(PatternError::new(format!("{text:?} is not a pattern"), help));
        }
        Ok(pattern(name.into()))
    }

    /// The text of the pattern without its `*`. Empty means [`Pattern::Any`].
    pub fn text(&self) -> &str {
        match self {
            Self::Any => "",
            Self::Exact(text) | Self::Prefix(text) | Self::Suffix(text) => text,
        }
    }

    /// Whether `value` matches.
    pub fn fits(&self, value: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(exact) => **exact == *value,
            Self::Prefix(prefix) => value.starts_with(&**prefix),
            Self::Suffix(suffix) => value.ends_with(&**suffix),
        }
    }

    /// Whether `value` matches, compared case-insensitively.
    pub fn fits_in_any_case(&self, value: &[u8]) -> bool {
        let text = self.text().as_bytes();
        let part = match self {
            Self::Any => return true,
            Self::Exact(_) => Some(value),
            Self::Prefix(_) => value.get(..text.len()),
            Self::Suffix(_) => value.len().checked_sub(text.len()).map(|start| &value[start..]),
        };
        part.is_some_and(|part| part.eq_ignore_ascii_case(text))
    }
}
