//! Rewrites the host and path of a request before it is forwarded.

use super::Rule;
use crate::matching::PathMatch;
use crate::message::HeadView;

/// The changes that a rule makes to the host and path of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewrite {
    /// Replaces the matched part of the path: the part before `*`, or the complete exact path. With
    /// a regex or without a path condition, it is added before the path.
    pub prefix: Option<Box<str>>,
    /// Replaces the complete path.
    pub path: Option<Box<str>>,
    /// Replaces the value of Host.
    pub host: Option<Box<str>>,
}

impl Rewrite {
    /// Appends the rewritten path and the query of the request to `out`. Returns false and appends
    /// nothing if this rewrite does not change the path.
    pub fn target(&self, rule: &Rule, request: HeadView<'_>, out: &mut Vec<u8>) -> bool {
        let path = request.path();
        match (&self.path, &self.prefix) {
            (Some(whole), _) => out.extend_from_slice(whole.as_bytes()),
            (None, Some(prefix)) => {
                let matched = match &rule.matcher.path {
                    PathMatch::Prefix(matched) => matched.len().min(path.len()),
                    PathMatch::Exact(_) => path.len(),
                    PathMatch::Any | PathMatch::Regex(_) => usize::from(path.starts_with(b"/")),
                };
                put_joined(out, prefix.as_bytes(), &path[matched..]);
            }
            (None, None) => return false,
        }
        if !request.query().is_empty() {
            out.push(b'?');
            out.extend_from_slice(request.query());
        }
        true
    }
}

/// Joins `prefix` and `rest` with exactly one slash. If `rest` is empty, no slash is added.
fn put_joined(out: &mut Vec<u8>, prefix: &[u8], rest: &[u8]) {
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
