//! Patterns of names, and lists of values that must and must not fit.

use std::borrow::Cow;

use regex::bytes::{Regex, RegexBuilder};

use crate::route::ValueMatch;

/// How certain a condition must be of what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certainty {
    /// It holds however the request is read, and of values that are known.
    Sure,
    /// It may hold.
    Possible,
}

impl Certainty {
    /// What "does not fit" needs when "fits" needs this: surely not A is not possibly A.
    fn of_opposite(self) -> Self {
        match self {
            Self::Sure => Self::Possible,
            Self::Possible => Self::Sure,
        }
    }
}

/// Why a pattern cannot be used, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatternError {
    /// What is wrong.
    pub message: Cow<'static, str>,
    /// What to write instead.
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
    /// Any name, as long as there is one.
    Any,
    /// This name.
    Exact(Box<str>),
    /// Names that begin so.
    Prefix(Box<str>),
    /// Names that end so.
    Suffix(Box<str>),
}

impl Pattern {
    /// Reads a pattern.
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

    /// What it says without its `*`; empty for [`Pattern::Any`].
    pub fn text(&self) -> &str {
        match self {
            Self::Any => "",
            Self::Exact(text) | Self::Prefix(text) | Self::Suffix(text) => text,
        }
    }

    /// Whether `value` fits.
    pub fn fits(&self, value: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(exact) => **exact == *value,
            Self::Prefix(prefix) => value.starts_with(&**prefix),
            Self::Suffix(suffix) => value.ends_with(&**suffix),
        }
    }

    /// Whether `value` fits, whatever the case of its letters.
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

/// Values of which one must fit, if there are any, and values of which none may.
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
    /// True when it says nothing.
    pub fn is_empty(&self) -> bool {
        self.wanted.is_empty() && self.unwanted.is_empty()
    }

    /// Whether `value` is chosen. One that is not known (`None`) is never among the wanted ones;
    /// that it is none of the unwanted ones is possible and not sure: a peer without an identity
    /// may be anyone.
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

/// Reads the condition on a header field's value: exact, or `~regex` for the whole of it.
///
/// # Errors
/// When the regex is not valid.
pub fn value_pattern(text: &str) -> Result<ValueMatch, PatternError> {
    match text.strip_prefix('~') {
        Some(pattern) => whole(pattern).map(ValueMatch::Regex),
        None => Ok(ValueMatch::Exact(text.as_bytes().into())),
    }
}

/// A regex that has to fit the whole of its subject. It reads bytes and not characters: with
/// characters, one byte that is not UTF-8 would slip through the `.*` of a rule that denies.
pub(super) fn whole(pattern: &str) -> Result<Regex, PatternError> {
    let built = RegexBuilder::new(&format!("^(?:{pattern})$"))
        .unicode(false)
        .dot_matches_new_line(true)
        .build();
    built.map_err(|error| {
        // The engine draws a picture of several lines; the last one says what it is.
        let text = error.to_string();
        let last = text.lines().last().unwrap_or_default();
        let message = format!("not a valid regex: {}", last.trim_start_matches("error: "));
        PatternError::new(message, "the syntax is that of the regex crate, on bytes")
    })
}
