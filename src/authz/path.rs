//! One spelling for each path, so that what a rule compares is what the endpoint gets.
//!
//! As Envoy's `normalize_path` and `merge_slashes`, and Istio's path normalisation: escapes of
//! characters that need none are undone and the others written in capitals (RFC 3986 6.2.2.1 and
//! 6.2.2.2), `\` is `/`, dot segments are removed (RFC 3986 5.2.4), and then runs of slashes are
//! one. What no two readers are sure to understand alike is refused.

use crate::error::Refusal;

/// What becomes of `%2F` and `%5C`, which some endpoints take for slashes and others do not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EscapedSlashes {
    /// The request is refused.
    Reject,
    /// They stay. The rules then read the path in both ways, and decide doubt against the request.
    #[default]
    Keep,
    /// They become slashes.
    Decode,
}

/// What [`normalise`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Normal {
    /// The path was normal.
    Unchanged,
    /// `out` has the normal form.
    Changed,
}

/// Brings the path of an origin-form target (RFC 9112 3.2.1) into its normal form. `out` is
/// overwritten with path and query when that is another one. The query stays as it is; so do an
/// empty path and `*`. The normal form of a normal form is itself.
///
/// # Errors
/// 400 for an escape that is none (`%zz`) or is NUL, for a `#`, for a path that does not begin
/// with a slash, and for escaped slashes when they are to be rejected.
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

/// Whether nothing in `path` can need a change; one look at each byte.
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

/// The byte that the two hexadecimal digits at the beginning of `digits` stand for.
pub(super) fn escaped(digits: &[u8]) -> Option<u8> {
    let digit = |at: usize| char::from(*digits.get(at)?).to_digit(16);
    // Two hexadecimal digits fit into a byte.
    u8::try_from(digit(0)? * 16 + digit(1)?).ok()
}

fn hex(nibble: u8) -> u8 {
    b"0123456789ABCDEF"[usize::from(nibble & 15)]
}

/// RFC 3986 2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// RFC 3986 5.2.4, in place, for a path that begins with a slash.
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
        // Behind a last segment of dots its slash stays: /a/b/.. is /a/.
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
