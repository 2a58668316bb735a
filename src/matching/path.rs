//! Conditions on paths, in the syntax of routes.

use regex::bytes::Regex;

use super::{PatternError, whole};

const RELATIVE: &str = "a path begins with / (or with ~ for a regex)";

const WILDCARD: &str = "* may only be the last segment: /prefix/*";

const PATHS: &str = "write /exact, /prefix/* or ~regex";

const NEVER: &str = "this regex never matches: it is for the whole path, which begins with /";

/// A condition on the path of a request.
#[derive(Clone, Debug, Default)]
pub enum PathMatch {
    /// Any path.
    #[default]
    Any,
    /// `/exact`: only this path.
    Exact(Box<[u8]>),
    /// `/prefix/*`: `/prefix` itself and all paths below it. The bytes end in `/`.
    Prefix(Box<[u8]>),
    /// All paths that begin with these bytes: `/foo` and `/foobar` begin with `/foo`.
    Starts(Box<[u8]>),
    /// Only this path, whatever the case of its letters.
    ExactAnyCase(Box<[u8]>),
    /// All paths that begin with these bytes, whatever the case of the letters.
    StartsAnyCase(Box<[u8]>),
    /// `~regex`: the regex matches the complete path.
    Regex(Regex),
}

impl PathMatch {
    /// Parses `/exact`, `/prefix/*` or `~regex`.
    ///
    /// # Errors
    /// When the text has none of these forms.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if let Some(pattern) = text.strip_prefix('~') {
            return path_regex(pattern);
        }
        if !text.starts_with('/') {
            return Err(PatternError::new(RELATIVE, absolute(text)));
        }
        match text.strip_suffix('*') {
            Some("/") => Ok(Self::Any),
            Some(prefix) if prefix.ends_with('/') && !prefix.contains('*') => {
                Ok(Self::Prefix(prefix.as_bytes().into()))
            }
            None if !text.contains('*') => Ok(Self::Exact(text.as_bytes().into())),
            Some(part) if !part.contains('*') && part.ends_with('.') => {
                let below = part.trim_end_matches('.').trim_end_matches('/');
                let help = format!(
                    "write '~{text}' for a regex, or {below}/* for {below} and all paths below it"
                );
                Err(PatternError::new(WILDCARD, help))
            }
            Some(part) if !part.contains('*') => {
                let all = regex::escape(part);
                let help = format!(
                    "write {part}/* for {part} and all paths below it, \
                     or '~{all}.*' for all that begin with it"
                );
                Err(PatternError::new(WILDCARD, help))
            }
            _ => Err(match text.strip_suffix("/**").filter(|begin| !begin.contains('*')) {
                Some(begin) => PatternError::new(WILDCARD, format!("write {begin}/*")),
                None => PatternError::new(WILDCARD, PATHS),
            }),
        }
    }

    /// Whether `path` matches.
    pub fn fits(&self, path: &[u8]) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(exact) => **exact == *path,
            Self::Prefix(prefix) => {
                path.starts_with(prefix) || Some(path) == prefix.strip_suffix(b"/")
            }
            Self::Starts(start) => path.starts_with(start),
            Self::ExactAnyCase(exact) => exact.eq_ignore_ascii_case(path),
            Self::StartsAnyCase(start) => {
                path.get(..start.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(start))
            }
            Self::Regex(regex) => regex.is_match(path),
        }
    }

    /// The length of the part of `path` that this condition names, if the condition matches.
    pub fn matched(&self, path: &[u8]) -> usize {
        match self {
            Self::Any => usize::from(path.starts_with(b"/")),
            Self::Exact(_) | Self::ExactAnyCase(_) | Self::Regex(_) => path.len(),
            Self::Prefix(start) | Self::Starts(start) | Self::StartsAnyCase(start) => {
                start.len().min(path.len())
            }
        }
    }

    /// Whether this condition certainly matches every path that `other` matches.
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, _) => true,
            (Self::Exact(one), Self::Exact(other)) => one == other,
            (Self::Prefix(_), Self::Exact(path)) => self.fits(path),
            (Self::Prefix(one), Self::Prefix(other)) => other.starts_with(one),
            (Self::Starts(_), Self::Exact(path)) => self.fits(path),
            (Self::Starts(one), Self::Starts(other)) => other.starts_with(one),
            // `/a/*` also has the path `/a`.
            (Self::Starts(one), Self::Prefix(other)) => {
                other.strip_suffix(b"/").is_some_and(|other| other.starts_with(one))
            }
            (
                Self::StartsAnyCase(one),
                Self::Starts(path)
                | Self::StartsAnyCase(path)
                | Self::Exact(path)
                | Self::ExactAnyCase(path),
            ) => path.get(..one.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(one)),
            (Self::ExactAnyCase(_), Self::Exact(path) | Self::ExactAnyCase(path)) => {
                self.fits(path)
            }
            (Self::Regex(one), Self::Regex(other)) => one.as_str() == other.as_str(),
            _ => false,
        }
    }
}

/// The advice for a path that does not begin with a slash.
fn absolute(text: &str) -> String {
    // The signs of nginx before a path.
    if let Some(below) = text.strip_prefix("^~ ") {
        return format!("write {}/*", below.trim().trim_end_matches('/'));
    }
    if let Some(path) = text.strip_prefix("= ").filter(|path| path.trim().starts_with('/')) {
        return format!("write {}", path.trim());
    }
    if let Some(regex) = text.strip_prefix('^').filter(|regex| regex.starts_with('/')) {
        let literal = |text: &str| regex::escape(text) == *text;
        return match regex.strip_suffix('$') {
            Some(path) if literal(path) => format!("write {path}"),
            Some(regex) => format!("write '~{regex}'"),
            None if regex.ends_with(".*") => format!("write '~{regex}'"),
            // A regex of other proxies is for a part of the path.
            None => format!("write '~{regex}.*'"),
        };
    }
    if let Some(end) = text.strip_prefix('*').filter(|end| !end.is_empty() && !end.contains('*')) {
        return format!("write '~.*{}' for all that end with {end}", regex::escape(end));
    }
    let plain = !text.is_empty() && !text.starts_with('*') && !text.contains("://");
    let whole = format!("/{text}");
    match plain && PathMatch::parse(&whole).is_ok() {
        true => format!("write {whole}"),
        false => PATHS.to_owned(),
    }
}

/// Compiles a regex for paths. A path begins with a slash, so a regex that begins with another
/// literal character would never match. Common mistakes of this kind are refused.
fn path_regex(pattern: &str) -> Result<PathMatch, PatternError> {
    if let Some(rest) = pattern.strip_prefix("* ") {
        let help = format!("write ~(?i)REGEX for letters of any case: '~(?i).*{rest}'");
        return Err(PatternError::new("`~*` is not known here: a regex begins with ~ alone", help));
    }
    let text = pattern.trim_start_matches(' ');
    let first = text.strip_prefix('\\').unwrap_or(text).chars().next();
    let literal = first.is_some_and(|first| first.is_ascii_alphanumeric() || first == '.');
    let escaped_letter = text.starts_with('\\') && first.is_some_and(char::is_alphanumeric);
    let any = text.starts_with('.') || escaped_letter;
    if text != pattern || literal && !any && !text.contains('|') {
        let help = format!("write '~/.*{text}', or with another beginning");
        return Err(PatternError::new(NEVER, help));
    }
    whole(pattern).map(PathMatch::Regex)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_begin_with_bytes_or_have_any_case() {
        let bytes = |text: &str| Box::from(text.as_bytes());
        let starts = PathMatch::Starts(bytes("/foo"));
        let exact = PathMatch::ExactAnyCase(bytes("/Foo"));
        let any_case = PathMatch::StartsAnyCase(bytes("/Foo"));
        for (path, begins, same, begins_any_case) in [
            ("/foo", true, true, true),
            ("/foobar", true, false, true),
            ("/foo/", true, false, true),
            ("/FOO/x", false, false, true),
            ("/FOO", false, true, true),
            ("/fo", false, false, false),
        ] {
            let path = path.as_bytes();
            let fits = (starts.fits(path), exact.fits(path), any_case.fits(path));
            assert_eq!(fits, (begins, same, begins_any_case));
        }
        let parse = |text| PathMatch::parse(text).unwrap();
        for (one, other, covers) in [
            (&starts, parse("/foo/*"), true),
            (&starts, parse("/fo/*"), false),
            (&starts, parse("/foobar"), true),
            (&any_case, starts.clone(), true),
            (&starts, any_case.clone(), false),
            (&exact, parse("/foo"), true),
        ] {
            assert_eq!(one.covers(&other), covers, "{one:?} {other:?}");
        }
    }

    #[test]
    fn advice_for_paths_of_other_proxies() {
        for (text, advice) in [
            ("^/a", "write '~/a.*'"),
            ("^/a$", "write /a"),
            ("^/a/[0-9]+$", "write '~/a/[0-9]+'"),
            ("^/a/.*", "write '~/a/.*'"),
            ("^~ /a/", "write /a/*"),
            ("= /a", "write /a"),
            ("a", "write /a"),
            ("/a/.*", "write '~/a/.*' for a regex, or /a/* for /a and all paths below it"),
            ("*.php", "write '~.*\\.php' for all that end with .php"),
            ("/a/**", "write /a/*"),
            ("**", PATHS),
        ] {
            assert_eq!(PathMatch::parse(text).unwrap_err().help, advice, "{text}");
        }
    }

    #[test]
    fn paths() {
        for (pattern, path, fits) in [
            ("/*", "/", true),
            ("/*", "/a", true),
            ("/a", "/a", true),
            ("/a", "/a/", false),
            ("/a/*", "/a", true),
            ("/a/*", "/a/", true),
            ("/a/*", "/a/b/c", true),
            ("/a/*", "/ab", false),
            ("~/v[0-9]+/.*", "/v12/x", true),
            ("~/v[0-9]+", "/v1/x", false),
            ("~/a|/b", "/b", true),
            ("~/a|/b", "/bc", false),
            ("~.*[.]php", "/a.php", true),
            ("~\\S+", "/a", true),
            ("~a|/b", "/b", true),
        ] {
            assert_eq!(PathMatch::parse(pattern).unwrap().fits(path.as_bytes()), fits, "{pattern}");
        }
        for pattern in ["a", "", "/a*", "/*/b", "/a/*/*", "~\\.php", "~ /a", "~api/.*", "~* \\.php"]
        {
            assert!(PathMatch::parse(pattern).is_err(), "{pattern}");
        }
        assert!(PathMatch::parse("~(").is_err());
    }
}
