//! Conditions on paths, which are compared as sent and with all percent-encoding decoded.

use std::cell::OnceCell;

use regex::bytes::Regex;

use super::path::{self, EscapedSlashes, Normal};
use super::pattern::Certainty;
use crate::matching::{PatternError, whole};

/// A condition on a path.
#[derive(Clone, Debug)]
pub enum PathPattern {
    /// `*`: any path.
    Any,
    /// `/exact`.
    Exact(Spelled),
    /// `/prefix/*`: all paths below the prefix, and `/prefix` itself, as in routes. The text ends
    /// with a slash.
    Prefix(Spelled),
    /// `*suffix`.
    Suffix(Box<[u8]>),
    /// `~regex`: the regular expression matches the complete path.
    Regex(Regex),
}

/// The text of a pattern in two forms: as written, and with all percent-encoding decoded.
#[derive(Clone, Debug)]
pub struct Spelled {
    sent: Box<[u8]>,
    plain: Box<[u8]>,
}

impl PathPattern {
    /// Parses `/exact`, `/prefix/*`, `*suffix`, `*` or `~regex`.
    ///
    /// # Errors
    /// When `text` has none of these forms, or when no normalised path can match it.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let wrong = |what: &str| {
            let help = "write /exact, /prefix/*, *suffix, * or ~regex";
            Err(PatternError::new(format!("{text:?}: {what}"), help))
        };
        if let Some(pattern) = text.strip_prefix('~') {
            return whole(pattern).map(Self::Regex);
        }
        if text.contains('?') {
            return wrong("a path is compared without its query");
        }
        if matches!(text, "*" | "/*") {
            return Ok(Self::Any);
        }
        if let Some(suffix) = text.strip_prefix('*') {
            return match suffix.contains('*') {
                true => wrong("only one * is allowed, at the beginning or at the end"),
                false => Ok(Self::Suffix(suffix.as_bytes().into())),
            };
        }
        if !text.starts_with('/') {
            return wrong("a path begins with a slash");
        }
        match text.strip_suffix('*') {
            Some(prefix) if prefix.ends_with('/') && !prefix.contains('*') => {
                normal(prefix, "*").map(Self::Prefix)
            }
            None if !text.contains('*') => normal(text, "").map(Self::Exact),
            _ => wrong("a * at the end must follow a slash"),
        }
    }

    pub(super) fn fits(&self, path: &PathReadings<'_>, certainty: Certainty) -> bool {
        let as_sent = self.fits_sent(path.sent);
        match certainty {
            Certainty::Possible => as_sent || path.plain().is_some_and(|p| self.may_fit(p)),
            // An exact path with a percent-encoded slash matches only itself.
            Certainty::Sure if matches!(self, Self::Exact(_)) => as_sent,
            Certainty::Sure => as_sent && path.plain().is_none_or(|p| self.must_fit(p)),
        }
    }

    fn may_fit(&self, plain: &Plain) -> bool {
        plain.segments == Segments::Hidden || self.fits_plain(&plain.path)
    }

    fn must_fit(&self, plain: &Plain) -> bool {
        match plain.segments {
            Segments::Same => true,
            Segments::Other => self.fits_plain(&plain.path),
            Segments::Hidden => matches!(self, Self::Any),
        }
    }

    fn fits_sent(&self, path: &[u8]) -> bool {
        match self {
            Self::Exact(exact) => *exact.sent == *path,
            Self::Prefix(prefix) => is_below(path, &prefix.sent),
            _ => self.fits_plain(path),
        }
    }

    fn fits_plain(&self, path: &[u8]) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(exact) => *exact.plain == *path,
            Self::Prefix(prefix) => is_below(path, &prefix.plain),
            Self::Suffix(suffix) => path.ends_with(suffix),
            Self::Regex(regex) => regex.is_match(path),
        }
    }
}

fn is_below(path: &[u8], prefix: &[u8]) -> bool {
    path.starts_with(prefix) || Some(path) == prefix.strip_suffix(b"/")
}

/// Returns both forms of a part of a pattern. The part must be normalised.
fn normal(text: &str, rest: &str) -> Result<Spelled, PatternError> {
    let mut out = Vec::new();
    match path::normalise(text.as_bytes(), EscapedSlashes::Keep, &mut out) {
        Ok(Normal::Unchanged) => {}
        Ok(Normal::Changed) => {
            let message = format!("no path fits \"{text}{rest}\": paths are normalised first");
            let help = format!("write {}{rest}", String::from_utf8_lossy(&out));
            return Err(PatternError::new(message, help));
        }
        Err(refusal) => {
            let message = format!("no path fits \"{text}{rest}\": {}", refusal.detail);
            return Err(PatternError::new(message, "a % is written %25, a # is written %23"));
        }
    }
    let sent = text.as_bytes();
    let plain = Plain::of(sent).map_or_else(|| sent.into(), |plain| plain.path.into());
    Ok(Spelled { sent: sent.into(), plain })
}

/// Two forms of a path: as sent, and with all percent-encoding decoded, as some endpoints read it.
pub(super) struct PathReadings<'a> {
    sent: &'a [u8],
    /// The decoded form, computed when a rule first needs it.
    plain: OnceCell<Option<Plain>>,
}

/// A path with all percent-encoding decoded.
struct Plain {
    path: Vec<u8>,
    segments: Segments,
}

/// How decoding changes the segments of a path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Segments {
    /// The segments stay the same.
    Same,
    /// There are more segments, because a percent-encoded slash was decoded.
    Other,
    /// There are percent-encoded dot segments (`/a/..%2Fb`), or segments that some endpoints treat
    /// like dot segments (`/..;/`). Endpoints disagree about such a path, and normal clients do not
    /// use it, so it counts as a possible match of any pattern.
    Hidden,
}

impl<'a> PathReadings<'a> {
    pub(super) fn new(sent: &'a [u8]) -> Self {
        Self { sent, plain: OnceCell::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sent.is_empty()
    }

    /// The decoded form. `None` if there is nothing to decode.
    fn plain(&self) -> Option<&Plain> {
        self.plain.get_or_init(|| Plain::of(self.sent)).as_ref()
    }
}

impl Plain {
    fn of(sent: &[u8]) -> Option<Self> {
        memchr::memchr3(b'%', b'\\', b';', sent)?;
        let mut plain = Self { path: Vec::with_capacity(sent.len()), segments: Segments::Same };
        let mut rest = sent;
        while let [byte, after @ ..] = rest {
            rest = after;
            let mut read = *byte;
            if read == b'%'
                && let Some(escaped) = path::escaped(after)
            {
                rest = &after[2..];
                read = escaped;
            }
            let slash = matches!(read, b'/' | b'\\');
            if slash && *byte != b'/' {
                plain.segments = Segments::Other;
            }
            plain.path.push(if slash { b'/' } else { read });
        }
        let name = |segment: &'_ [u8]| memchr::memchr(b';', segment).unwrap_or(segment.len());
        let mut segments = plain.path.split(|&byte| byte == b'/');
        if segments.any(|segment| matches!(&segment[..name(segment)], b"." | b"..")) {
            plain.segments = Segments::Hidden;
        }
        path::merge_slashes(&mut plain.path);
        Some(plain)
    }
}
