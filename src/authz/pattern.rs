//! Patterns for names, and lists of values that must or must not match.

use std::borrow::Cow;

use regex::bytes::{Regex, RegexBuilder};

use crate::route::ValueMatch;

/// How certain a match must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certainty {
    /// The condition matches in every reading, and all values are known.
    Sure,
    /// The condition may match.
    Possible,
}

impl Certainty {
    /// The certainty that a negation needs: "certainly not A" means "not possibly A".
    fn of_opposite(self) -> Self {
        match self {
            Self::Sure => Self::Possible,
            Self::Possible => Self::Sure,
        }
    }
}

/// The reason why a pattern is not usable, with advice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatternError {
    /// The problem.
    pub message: Cow<'static, str>,
    /// A correction.
    pub help: Cow<'static, str>,
}

impl PatternError {
    pub(super) fn new(
        message: impl Into<Cow<'static, str>>,
        help: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { message: message.into(), help: help.into() }
    }
}

/// A condition on a name: `exact`, `prefix*`, `*suffix`, or `*` for any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// Any name that exists.
    Any,
    /// This name.
    Exact(Box<str>),
    /// Names with this prefix.
    Prefix(Box<str>),
    /// Names with this suffix.
    Suffix(Box<str>),
}

impl Pattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// When it is empty, or has a `*` in its middle.
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

    /// Its text without `*`; empty for [`Pattern::Any`].
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

    /// Whether `value` matches, in upper or lower case.
    pub(super) fn fits_in_any_case(&self, value: &[u8]) -> bool {
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

/// Values of which one must match, if there are any, and values of which none may match.
#[derive(Clone, Debug)]
pub struct Choice<P> {
    /// One of these; empty for any.
    pub wanted: Vec<P>,
    /// None of these.
    pub unwanted: Vec<P>,
}

impl<P> Default for Choice<P> {
    fn default() -> Self {
        Self { wanted: Vec::new(), unwanted: Vec::new() }
    }
}

impl<P> Choice<P> {
    /// Whether it has no condition.
    pub fn is_empty(&self) -> bool {
        self.wanted.is_empty() && self.unwanted.is_empty()
    }

    /// Whether `value` matches. An unknown value (`None`) never matches a wanted one. For unwanted
    /// values, it possibly passes but not certainly: a peer without an identity may be anyone.
    pub(super) fn holds<V: Copy>(
        &self,
        value: Option<V>,
        certainty: Certainty,
        fits: impl Fn(&P, V, Certainty) -> bool,
    ) -> bool {
        let Some(value) = value else {
            let harmless = self.unwanted.is_empty() || certainty == Certainty::Possible;
            return self.wanted.is_empty() && harmless;
        };
        let opposite = certainty.of_opposite();
        (self.wanted.is_empty() || self.wanted.iter().any(|p| fits(p, value, certainty)))
            && !self.unwanted.iter().any(|p| fits(p, value, opposite))
    }
}

/// Parses the condition on a header's value: exact, or `~regex` for the whole value.
///
/// # Errors
/// When the regex is not valid.
pub fn value_pattern(text: &str) -> Result<ValueMatch, PatternError> {
    match text.strip_prefix('~') {
        Some(pattern) => whole(pattern).map(ValueMatch::Regex),
        None => Ok(ValueMatch::Exact(text.as_bytes().into())),
    }
}

/// A regex that must match the whole value. It matches bytes, not characters. With characters, a
/// byte that is not UTF-8 would not match the `.*` of a deny rule.
pub(super) fn whole(pattern: &str) -> Result<Regex, PatternError> {
    let built = RegexBuilder::new(&format!("^(?:{pattern})$"))
        .unicode(false)
        .dot_matches_new_line(true)
        .build();
    built.map_err(|error| {
        // The error has several lines; the last one has the reason.
        let text = error.to_string();
        let last = text.lines().last().unwrap_or_default();
        let message = format!("not a valid regex: {}", last.trim_start_matches("error: "));
        PatternError::new(message, "the syntax is that of the regex crate, on bytes")
    })
}
