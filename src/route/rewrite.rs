//! Rewrites the host and path of a request before it is forwarded.

use regex::bytes::Regex;

use super::Rule;
use crate::matching::PathMatch;
use crate::message::HeadView;

/// The changes that a rule makes to the host and path of a request.
#[derive(Clone, Debug, Default)]
pub struct Rewrite {
    /// Replaces the matched part of the path: the part before `*`, or the complete exact path. With
    /// a regex or without a path condition, it is added before the path.
    pub prefix: Option<Box<str>>,
    /// Replaces the complete path.
    pub path: Option<Box<str>>,
    /// Replaces the value of Host.
    pub host: Option<Box<str>>,
    /// Replaces the bytes that the condition on the path names, without a change of slashes.
    pub matched: Option<Box<str>>,
    /// Replaces all parts of the path that match the regex. The text has `${1}` for a group.
    pub regex: Option<RegexRewrite>,
}

/// A regex, and the text that replaces its matches.
#[derive(Clone, Debug)]
pub struct RegexRewrite {
    regex: Regex,
    /// The text between groups, and the number of each group.
    parts: Box<[Part]>,
}

#[derive(Clone, Debug)]
enum Part {
    Text(Box<[u8]>),
    Group(usize),
}

impl RegexRewrite {
    /// Parses the text: `\1` is the first group, `\0` the whole match, and `\\` a backslash.
    ///
    /// # Errors
    /// A text for the operator that names the mistake.
    pub fn parse(regex: &Regex, text: &str) -> Result<Self, String> {
        if !text.bytes().all(|byte| (0x21..=0x7e).contains(&byte)) {
            return Err(format!("{text:?} has characters that a URL cannot have"));
        }
        let mut parts = Vec::new();
        let mut plain = Vec::new();
        let mut bytes = text.bytes();
        while let Some(byte) = bytes.next() {
            if byte != b'\\' {
                plain.push(byte);
                continue;
            }
            match bytes.next() {
                Some(b'\\') => plain.push(b'\\'),
                Some(digit @ b'0'..=b'9') => {
                    let group = usize::from(digit - b'0');
                    if group >= regex.captures_len() {
                        return Err(format!("the regex has no group {group}"));
                    }
                    parts.push(Part::Text(std::mem::take(&mut plain).into()));
                    parts.push(Part::Group(group));
                }
                _ => return Err("after a backslash, there is a digit or a backslash".to_owned()),
            }
        }
        parts.push(Part::Text(plain.into()));
        Ok(Self { regex: regex.clone(), parts: parts.into() })
    }

    /// Appends `path` with all matches replaced to `out`.
    fn put(&self, path: &[u8], out: &mut Vec<u8>) {
        let mut end = 0;
        for found in self.regex.captures_iter(path) {
            let Some(whole) = found.get(0) else { continue };
            out.extend_from_slice(&path[end..whole.start()]);
            for part in &self.parts {
                match part {
                    Part::Text(text) => out.extend_from_slice(text),
                    Part::Group(group) => {
                        let bytes = found.get(*group).map_or(&b""[..], |group| group.as_bytes());
                        out.extend_from_slice(bytes);
                    }
                }
            }
            end = whole.end();
        }
        out.extend_from_slice(&path[end..]);
    }
}

impl Rewrite {
    /// Appends the rewritten path and the query of the request to `out`. Returns false and appends
    /// nothing if this rewrite does not change the path.
    pub fn target(&self, rule: &Rule, request: HeadView<'_>, out: &mut Vec<u8>) -> bool {
        let path = request.path();
        if let Some(whole) = &self.path {
            out.extend_from_slice(whole.as_bytes());
        } else if let Some(prefix) = &self.prefix {
            let matched = match &rule.matcher.path {
                PathMatch::Regex(_) => usize::from(path.starts_with(b"/")),
                other => other.matched(path),
            };
            put_joined(out, prefix.as_bytes(), &path[matched..]);
        } else if let Some(new) = &self.matched {
            out.extend_from_slice(new.as_bytes());
            let mut end = rule.matcher.path.matched(path);
            // The slash after a prefix of whole segments is not a part of it.
            if matches!(rule.matcher.path, PathMatch::Prefix(_)) && path[..end].ends_with(b"/") {
                end -= 1;
            }
            out.extend_from_slice(&path[end..]);
        } else if let Some(regex) = &self.regex {
            let begin = out.len();
            regex.put(path, out);
            // Nothing but a path may stand in the request line.
            if path.starts_with(b"/") && !out[begin..].starts_with(b"/") {
                out.insert(begin, b'/');
            }
        } else {
            return false;
        }
        if !request.query().is_empty() {
            out.push(b'?');
            out.extend_from_slice(request.query());
        }
        true
    }
}

/// Joins `prefix` and `rest` with exactly one slash. If `rest` is empty, no slash is added.
pub(super) fn put_joined(out: &mut Vec<u8>, prefix: &[u8], rest: &[u8]) {
    let rest = rest.strip_prefix(b"/").unwrap_or(rest);
    let bare = prefix.strip_suffix(b"/").unwrap_or(prefix);
    if rest.is_empty() {
        out.extend_from_slice(if prefix.is_empty() { b"/" } else { prefix });
        return;
    }
    out.extend_from_slice(bare);
    out.push(b'/');
    out.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_regex_replaces_all_its_matches() {
        for (regex, text, path, new) in [
            (
                "^/service/([^/]+)(/.*)$",
                r"\2/instance/\1",
                "/service/foo/v1/api",
                "/v1/api/instance/foo",
            ),
            ("one", "two", "/xxx/one/yyy/one/zzz", "/xxx/two/yyy/two/zzz"),
            ("(?i)/xxx/", "/yyy/", "/aaa/XxX/bbb", "/aaa/yyy/bbb"),
            ("a", r"\\\0$1", "/a", r"/\a$1"),
            ("x", "y", "/a", "/a"),
        ] {
            let rewrite = RegexRewrite::parse(&Regex::new(regex).unwrap(), text).unwrap();
            let mut out = Vec::new();
            rewrite.put(path.as_bytes(), &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), new, "{regex}");
        }
        let regex = Regex::new("a(b)").unwrap();
        for text in [r"\2", r"\x", "\\", "/a b", "/a\r\nx: y", "/\u{e9}"] {
            assert!(RegexRewrite::parse(&regex, text).is_err(), "{text}");
        }
    }

    #[test]
    fn slashes_are_neither_lost_nor_doubled() {
        for (prefix, rest, joined) in [
            ("/v2/", "a/b", "/v2/a/b"),
            ("/v2", "a/b", "/v2/a/b"),
            ("/v2/", "/a", "/v2/a"),
            ("/v2/", "", "/v2/"),
            ("/v2", "", "/v2"),
            ("/", "a", "/a"),
            ("", "", "/"),
        ] {
            let mut out = Vec::new();
            put_joined(&mut out, prefix.as_bytes(), rest.as_bytes());
            assert_eq!(out, joined.as_bytes(), "{prefix} {rest}");
        }
    }
}
