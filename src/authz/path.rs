//! Normalises paths, so that rules compare the path that the endpoint gets.
//!
//! Works like Envoy's `normalize_path` and `merge_slashes` and Istio's path normalisation.
//! Percent-encoding of unreserved characters is decoded; other percent-encoding is written in upper
//! case (RFC 3986 6.2.2.1 and 6.2.2.2). `\` becomes `/`, dot segments are removed (RFC 3986 5.2.4),
//! and then repeated slashes become one. A path that two readers could interpret differently is
//! refused.

use crate::error::Refusal;

/// How to handle `%2F` and `%5C`. Some endpoints treat them as slashes, others do not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EscapedSlashes {
    /// Refuse the request.
    Reject,
    /// Keep them. Rules compare the path both with `%2F` and with a slash, and decide ambiguous
    /// cases against the request.
    #[default]
    Keep,
    /// Replace them by slashes.
    Decode,
}

/// The result of [`normalise`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Normal {
    /// The path was already in normal form.
    Unchanged,
    /// `out` has the normal form.
    Changed,
}

/// Normalises the path of an origin-form target (RFC 9112 3.2.1). If the path changes, `out` is
/// overwritten with the new path and the query. The query, an empty path and `*` do not change. A
/// normalised path does not change again.
///
/// # Errors
/// 400 for invalid percent-encoding (`%zz`), `%00` or `#`, for a path that does not begin with a
/// slash, and for percent-encoded slashes with [`EscapedSlashes::Reject`].
pub fn normalise(
    path_and_query: &[u8],
    escaped_slashes: EscapedSlashes,
    out: &mut Vec<u8>,
) -> Result<Normal, Refusal> {
    let end = memchr::memchr(b'?', path_and_query).unwrap_or(path_and_query.len());
    let (path, query) = path_and_query.split_at(end);
    if is_surely_normal(path) {
        return Ok(Normal::Unchanged);
    }
    match path {
        [] | [b'*'] => return Ok(Normal::Unchanged),
        [b'/', ..] => {}
        _ => return Err(Refusal::downstream(400, "the path does not begin with a slash")),
    }
    out.clear();
    decode(path, escaped_slashes, out)?;
    remove_dot_segments(out);
    merge_slashes(out);
    if out == path {
        return Ok(Normal::Unchanged);
    }
    out.extend_from_slice(query);
    Ok(Normal::Changed)
}

/// Whether `path` certainly needs no change. Checks each byte only once.
fn is_surely_normal(path: &[u8]) -> bool {
    let mut after_slash = false;
    for &byte in path {
        match byte {
            b'%' | b'\\' | b'#' => return false,
            b'/' | b'.' if after_slash => return false,
            _ => after_slash = byte == b'/',
        }
    }
    path.first() == Some(&b'/')
}

fn decode(path: &[u8], slashes: EscapedSlashes, out: &mut Vec<u8>) -> Result<(), Refusal> {
    const REJECTED: Refusal = Refusal::downstream(400, "the path has an escaped slash");
    let mut rest = path;
    while let [byte, after @ ..] = rest {
        rest = after;
        match byte {
            b'#' => return Err(Refusal::downstream(400, "the path has a fragment")),
            b'\\' if slashes == EscapedSlashes::Reject => return Err(REJECTED),
            b'\\' => out.push(b'/'),
            b'%' => {
                let Some(escaped) = escaped(after) else {
                    return Err(Refusal::downstream(400, "the path has a malformed escape"));
                };
                rest = &after[2..];
                match (escaped, slashes) {
                    (0, _) => return Err(Refusal::downstream(400, "the path has an escaped NUL")),
                    (b'/' | b'\\', EscapedSlashes::Reject) => return Err(REJECTED),
                    (b'/' | b'\\', EscapedSlashes::Decode) => out.push(b'/'),
                    _ if is_unreserved(escaped) => out.push(escaped),
                    _ => out.extend([b'%', hex(escaped >> 4), hex(escaped & 15)]),
                }
            }
            byte => out.push(*byte),
        }
    }
    Ok(())
}

/// Returns the byte that the two hexadecimal digits at the start of `digits` encode.
pub(super) fn escaped(digits: &[u8]) -> Option<u8> {
    let digit = |at: usize| char::from(*digits.get(at)?).to_digit(16);
    // Two hexadecimal digits fit into a byte.
    u8::try_from(digit(0)? * 16 + digit(1)?).ok()
}

fn hex(nibble: u8) -> u8 {
    b"0123456789ABCDEF"[usize::from(nibble & 15)]
}

/// Whether the byte is unreserved (RFC 3986 2.3).
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// Removes dot segments (RFC 3986 5.2.4) in place. `path` must begin with a slash.
fn remove_dot_segments(path: &mut Vec<u8>) {
    let (mut read, mut written) = (0, 0);
    while read < path.len() {
        let begin = read + 1;
        let end = memchr::memchr(b'/', &path[begin..]).map_or(path.len(), |at| begin + at);
        let dots = match &path[begin..end] {
            b"." => true,
            b".." => {
                written = memchr::memrchr(b'/', &path[..written]).unwrap_or(0);
                true
            }
            _ => false,
        };
        // After a final dot segment, its slash stays: /a/b/.. is /a/.
        let kept = if !dots {
            read..end
        } else if end == path.len() {
            read..begin
        } else {
            read..read
        };
        let len = kept.len();
        path.copy_within(kept, written);
        written += len;
        read = end;
    }
    path.truncate(written);
}

pub(super) fn merge_slashes(path: &mut Vec<u8>) {
    path.dedup_by(|byte, before| *byte == b'/' && *before == b'/');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(path: &str, slashes: EscapedSlashes) -> Result<String, &'static str> {
        let mut out = b"left over".to_vec();
        let found = normalise(path.as_bytes(), slashes, &mut out).map_err(|error| error.detail)?;
        let text = match found {
            Normal::Unchanged => path.to_owned(),
            Normal::Changed => String::from_utf8(out).unwrap(),
        };
        assert_eq!(found == Normal::Unchanged, text == path, "{path}");
        let mut again = Vec::new();
        let twice = normalise(text.as_bytes(), slashes, &mut again);
        assert_eq!(twice, Ok(Normal::Unchanged), "{path} -> {text}");
        Ok(text)
    }

    #[test]
    fn one_spelling_for_each_path() {
        for (path, expected) in [
            ("/", "/"),
            ("", ""),
            ("*", "*"),
            ("?q=/../", "?q=/../"),
            ("/a/b?c=//%2e%zz#", "/a/b?c=//%2e%zz#"),
            ("/.well-known/x", "/.well-known/x"),
            ("/a/...", "/a/..."),
            ("/a/.b/..c/d.", "/a/.b/..c/d."),
            ("/a/./b", "/a/b"),
            ("/a/.", "/a/"),
            ("/a/b/..", "/a/"),
            ("/a/b/../c?x=1", "/a/c?x=1"),
            ("/..", "/"),
            ("/../../a", "/a"),
            ("/a/../../b", "/b"),
            ("/.", "/"),
            ("//", "/"),
            ("//a///b//", "/a/b/"),
            ("/a//../b", "/a/b"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/.%2e/b", "/b"),
            ("/%61%7e%2D%5f", "/a~-_"),
            ("/a%20%c3%a4%3b", "/a%20%C3%A4%3B"),
            ("/a\\..\\b", "/b"),
            ("/%252e%252E/", "/%252e%252E/"),
            ("/%25%32%65", "/%252e"),
        ] {
            assert_eq!(normal(path, EscapedSlashes::Keep).as_deref(), Ok(expected), "{path}");
        }
    }

    #[test]
    fn escaped_slashes() {
        for (path, kept, decoded) in [
            ("/a%2fb", "/a%2Fb", "/a/b"),
            ("/a/..%2Fb", "/a/..%2Fb", "/b"),
            ("/a/%5c..%5C%2e./b", "/a/%5C..%5C../b", "/b"),
        ] {
            assert_eq!(normal(path, EscapedSlashes::Keep).as_deref(), Ok(kept));
            assert_eq!(normal(path, EscapedSlashes::Decode).as_deref(), Ok(decoded));
            let refused = normal(path, EscapedSlashes::Reject);
            assert_eq!(refused, Err("the path has an escaped slash"));
        }
        assert_eq!(normal("/a\\b", EscapedSlashes::Reject), Err("the path has an escaped slash"));
        assert_eq!(normal("/a%20b", EscapedSlashes::Reject).as_deref(), Ok("/a%20b"));
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for path in ["/%", "/%2", "/%zz", "/%+1", "/%%32%65", "/a%00", "/a#b", "a", "a/../b", "."] {
            assert!(normal(path, EscapedSlashes::Keep).is_err(), "{path}");
        }
    }
}
