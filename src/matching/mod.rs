//! Matching of values, names, paths and authorities. Routes, authorization and filters share it.
//! Pure: no I/O, no clock.

mod authority;
mod path;
mod pattern;
mod value;

use std::borrow::Cow;

use regex::bytes::{Regex, RegexBuilder};

pub use authority::split_authority;
pub use path::PathMatch;
pub use pattern::Pattern;
pub use value::ValueMatch;

/// The reason why a pattern is not valid, and advice on what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatternError {
    /// The mistake in the pattern.
    pub message: Cow<'static, str>,
    /// Advice what to write instead.
    pub help: Cow<'static, str>,
}

impl PatternError {
    /// Creates an error with its advice.
    pub fn new(message: impl Into<Cow<'static, str>>, help: impl Into<Cow<'static, str>>) -> Self {
        Self { message: message.into(), help: help.into() }
    }
}

impl std::fmt::Display for PatternError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

/// Compiles a regex that must match the complete subject. The regex matches bytes, not characters:
/// in a regex of characters, `.` does not match a byte that is not UTF-8, so a request with such a
/// byte would pass a deny rule.
///
/// # Errors
/// When the regex is not valid.
pub fn whole(pattern: &str) -> Result<Regex, PatternError> {
    let built = RegexBuilder::new(&format!("^(?:{pattern})$"))
        .unicode(false)
        .dot_matches_new_line(true)
        .build();
    built.map_err(|error| {
        // The regex engine prints several lines, and only the last line names the mistake.
        let text = error.to_string();
        let last = text.lines().last().unwrap_or_default();
        let message = format!("not a valid regex: {}", last.trim_start_matches("error: "));
        let help = match () {
            () if last.contains("look-around") => {
                "(?=...), (?!...), (?<=...) and (?<!...) do not exist here; \
                 write a rule before this one for what it must not match"
            }
            () if last.contains("backreferences") => "\\1 does not exist here; write it out",
            () => {
                "the syntax is that of Rust's regex and RE2; to match one of . ( [ * + ? | itself, \
                 write \\ before it, in single quotes"
            }
        };
        PatternError::new(message, help)
    })
}
