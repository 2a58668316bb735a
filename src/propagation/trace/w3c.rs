//! W3C Trace Context: `traceparent` and `tracestate`.

use super::{Context, Form, Parent, SpanId, TraceId, hex, id, put_hex};
use crate::message::HeadView;

/// The maximum number of members of a `tracestate`.
pub const STATE_MEMBERS_MAX: usize = 32;

/// The maximum length of a `tracestate` that is forwarded, over all its lines, in bytes. The
/// recommendation asks for at least 512.
pub const STATE_BYTES_MAX: usize = 8192;

/// The length of a `traceparent` of version 00.
const LEN: usize = 55;

/// Reads `traceparent` and `tracestate`.
pub(super) fn context(request: HeadView<'_>) -> Context {
    let mut values = request.values(b"traceparent");
    let Some(value) = values.next() else { return Context::None(None) };
    if values.next().is_some() {
        return Context::Malformed;
    }
    let Some((trace, span, sampled)) = parse(value.trim_ascii()) else {
        return Context::Malformed;
    };
    let has_state = is_valid(request);
    Context::Parent(Parent { trace, span, sampled: Some(sampled), form: Form::W3c, has_state })
}

/// Reads a `traceparent`. A version after 00 may have more fields, which are ignored.
fn parse(text: &[u8]) -> Option<(TraceId, SpanId, bool)> {
    let mut version = [0];
    hex(text.get(..2)?, &mut version)?;
    let is_long = match version[0] {
        0xff => return None,
        0 => text.len() != LEN,
        _ => text.len() > LEN && text[LEN] != b'-' || text.len() < LEN,
    };
    if is_long || [2, 35, 52].iter().any(|at| text[*at] != b'-') {
        return None;
    }
    let mut flags = [0];
    hex(&text[53..LEN], &mut flags)?;
    Some((id(&text[3..35])?, id(&text[36..52])?, flags[0] & 1 != 0))
}

/// The `traceparent` for a span of the proxy.
pub(super) fn text(trace: &TraceId, span: &SpanId, sampled: bool) -> Vec<u8> {
    let mut text = Vec::with_capacity(LEN);
    text.extend_from_slice(b"00-");
    put_hex(&mut text, trace);
    text.push(b'-');
    put_hex(&mut text, span);
    text.extend_from_slice(if sampled { b"-01" } else { b"-00" });
    text
}

/// Whether the `tracestate` of a request is valid. Several lines are one list. One wrong member
/// makes the whole list invalid.
fn is_valid(request: HeadView<'_>) -> bool {
    let lines = || request.values(b"tracestate");
    if lines().map(<[u8]>::len).sum::<usize>() > STATE_BYTES_MAX {
        return false;
    }
    let mut keys: Vec<&[u8]> = Vec::new();
    for line in lines() {
        for member in line.split(|&byte| byte == b',') {
            let member = trim(member);
            if member.is_empty() {
                continue;
            }
            let Some(at) = memchr::memchr(b'=', member) else { return false };
            let (key, value) = (&member[..at], &member[at + 1..]);
            if !is_key(key) || !is_value(value) || keys.contains(&key) {
                return false;
            }
            keys.push(key);
        }
    }
    keys.len() <= STATE_MEMBERS_MAX
}

fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

/// Whether `key` is a simple key, or one with a tenant: `tenant@system`.
fn is_key(key: &[u8]) -> bool {
    let is_char = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/');
    let is_part = |part: &[u8], max, digit: bool| {
        let first = part
            .first()
            .is_some_and(|first| first.is_ascii_lowercase() || digit && first.is_ascii_digit());
        first && part.len() <= max && part.iter().all(is_char)
    };
    match memchr::memchr(b'@', key) {
        Some(at) => is_part(&key[..at], 241, true) && is_part(&key[at + 1..], 14, false),
        None => is_part(key, 256, true),
    }
}

/// Whether `value` has 1 to 256 printable characters without `,` and `=`, and no space at its end.
fn is_value(value: &[u8]) -> bool {
    let is_char = |byte: &u8| matches!(byte, 0x20..=0x7e) && !matches!(byte, b',' | b'=');
    (1..=256).contains(&value.len()) && value.iter().all(is_char) && !value.ends_with(b" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::propagation::examples::with;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    fn parent(text: &str) -> Option<bool> {
        match with(&[("traceparent", text)], context) {
            Context::Parent(parent) => parent.sampled,
            _ => None,
        }
    }

    #[test]
    fn parents_case_by_case() {
        let zeros = "0".repeat(32);
        for (text, sampled) in [
            (format!("00-{TRACE}-{SPAN}-01"), Some(true)),
            (format!("00-{TRACE}-{SPAN}-00"), Some(false)),
            (format!("00-{TRACE}-{SPAN}-03"), Some(true)),
            (format!("00-{TRACE}-{SPAN}-ff"), Some(true)),
            (format!("00-{TRACE}-{SPAN}-fe"), Some(false)),
            (format!(" 00-{TRACE}-{SPAN}-01 "), Some(true)),
            // Version 00 has exactly these parts.
            (format!("00-{TRACE}-{SPAN}-01-"), None),
            (format!("00-{TRACE}-{SPAN}-01-what"), None),
            (format!("00-{TRACE}-{SPAN}-01."), None),
            (format!("00-{TRACE}-{SPAN}"), None),
            (format!("00-{TRACE}-{SPAN}-0"), None),
            (format!("00-{TRACE}-{SPAN}-1"), None),
            (format!("00-{TRACE}-{SPAN}-001"), None),
            // Later versions may have more parts, after a dash.
            (format!("cc-{TRACE}-{SPAN}-01"), Some(true)),
            (format!("cc-{TRACE}-{SPAN}-01-what-the-future-brings"), Some(true)),
            (format!("cc-{TRACE}-{SPAN}-00-"), Some(false)),
            (format!("cc-{TRACE}-{SPAN}-01.what"), None),
            (format!("01-{TRACE}-{SPAN}"), None),
            (format!("ff-{TRACE}-{SPAN}-01"), None),
            // Ids are lower-case hexadecimal digits, and not zero.
            (format!("00-{zeros}-{SPAN}-01"), None),
            (format!("00-{TRACE}-0000000000000000-01"), None),
            (format!("00-{}-{SPAN}-01", TRACE.to_uppercase()), None),
            (format!("00-{TRACE}-{}-01", SPAN.to_uppercase()), None),
            (format!("00-{TRACE}-{SPAN}-0A"), None),
            (format!("0A-{TRACE}-{SPAN}-01"), None),
            (format!(".0-{TRACE}-{SPAN}-01"), None),
            (format!("0-{TRACE}-{SPAN}-01"), None),
            (format!("000-{TRACE}-{SPAN}-01"), None),
            (format!("00-.{}-{SPAN}-01", &TRACE[1..]), None),
            (format!("00-{TRACE}-{SPAN}0-01"), None),
            (format!("00-{TRACE}_{SPAN}-01"), None),
            (format!("00--{TRACE}{SPAN}-01"), None),
            (String::new(), None),
            ("\u{e9}".repeat(40), None),
        ] {
            assert_eq!(parent(&text), sampled, "{text}");
        }
        let text = format!("00-{TRACE}-{SPAN}-01");
        let twice = [("traceparent", &*text), ("TraceParent", &*text)];
        assert_eq!(with(&twice, context), Context::Malformed);
        assert_eq!(with(&[("tracestate", "a=1")], context), Context::None(None));
    }

    #[test]
    fn states_case_by_case() {
        let long = |count: usize| "z".repeat(count);
        let members =
            |count: usize| (0..count).map(|n| format!("k{n}=1")).collect::<Vec<_>>().join(",");
        let text = format!("00-{TRACE}-{SPAN}-01");
        for (lines, valid) in [
            (vec!["foo=1".to_owned()], true),
            (vec![String::new()], true),
            (vec!["foo=1".into(), String::new(), "bar=2".into()], true),
            (vec!["foo=1 \t , \t bar=2, \t baz=3".into()], true),
            (vec!["foo=1,,,bar=2".into()], true),
            (vec!["foo=1,foo=2".into()], false),
            (vec!["foo=1".into(), "foo=2".into()], false),
            (vec!["foo".into()], false),
            (vec!["foo=".into()], false),
            (vec!["=1".into()], false),
            (vec!["foo=bar=baz".into()], false),
            (vec!["foo =1".into()], false),
            (vec!["FOO=1".into()], false),
            (vec!["foo.bar=1".into()], false),
            (vec!["a-_*/9=1".into()], true),
            (vec!["9a=1".into()], true),
            (vec!["-a=1".into()], false),
            (vec!["t9@v=1".into()], true),
            (vec!["foo@=1".into()], false),
            (vec!["@foo=1".into()], false),
            (vec!["foo@@bar=1".into()], false),
            (vec!["foo@bar@baz=1".into()], false),
            (vec!["foo@9bar=1".into()], false),
            (vec![format!("{}=1", long(256))], true),
            (vec![format!("{}=1", long(257))], false),
            (vec![format!("{}@{}=1", long(241), long(14))], true),
            (vec![format!("{}@v=1", long(242))], false),
            (vec![format!("t@{}=1", long(15))], false),
            (vec![format!("foo={}", long(256))], true),
            (vec![format!("foo={}", long(257))], false),
            (vec!["foo=a b!~".into()], true),
            (vec!["foo=\u{7f}".into()], false),
            (vec!["foo=\u{e9}".into()], false),
            (vec![members(32)], true),
            (vec![members(33)], false),
            (vec![members(20), members(33)[members(20).len() + 1..].to_owned()], false),
            (vec![(0..32).map(|n| format!("k{n}={},", long(256))).collect()], false),
        ] {
            let mut fields = vec![("traceparent", &*text)];
            fields.extend(lines.iter().map(|line| ("tracestate", &**line)));
            let Context::Parent(parent) = with(&fields, context) else { panic!("no parent") };
            assert_eq!(parent.has_state, valid, "{lines:?}");
        }
    }
}
