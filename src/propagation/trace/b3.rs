//! B3, the context of Zipkin: in one field, or in several.

use super::{Context, Form, Parent, SpanId, TraceId, id, put_hex};
use crate::message::HeadView;

/// The fields of the form with several fields.
pub(super) const MULTI: [&str; 5] =
    ["x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid", "x-b3-sampled", "x-b3-flags"];

/// Reads the context of a request.
pub(super) fn context(request: HeadView<'_>) -> Context {
    if let Some(value) = request.value(b"b3") {
        return of_single(value.trim_ascii());
    }
    let [trace, span, _, sampled, flags] = MULTI.map(|name| request.value(name.as_bytes()));
    let debug = flags.is_some_and(|flags| flags.trim_ascii() == b"1");
    let sampled = match sampled.map(<[u8]>::trim_ascii) {
        _ if debug => Some(true),
        Some(b"1" | b"true") => Some(true),
        Some(b"0" | b"false") => Some(false),
        _ => None,
    };
    match (trace, span) {
        (None, None) => Context::None(sampled),
        (Some(trace), Some(span)) => {
            parent(trace.trim_ascii(), span.trim_ascii(), sampled, Form::B3Multi)
        }
        _ => Context::Malformed,
    }
}

/// Reads `TRACE-SPAN`, `TRACE-SPAN-SAMPLED`, `TRACE-SPAN-SAMPLED-PARENT`, or only `SAMPLED`.
fn of_single(value: &[u8]) -> Context {
    let sampled = |text: &[u8]| match text {
        b"1" | b"d" => Some(true),
        b"0" => Some(false),
        _ => None,
    };
    let parts: Vec<&[u8]> = value.splitn(5, |&byte| byte == b'-').collect();
    match *parts {
        [state] if sampled(state).is_some() => Context::None(sampled(state)),
        [trace, span] => parent(trace, span, None, Form::B3Single),
        [trace, span, state] if sampled(state).is_some() => {
            parent(trace, span, sampled(state), Form::B3Single)
        }
        [trace, span, state, above] if sampled(state).is_some() && id::<8>(above).is_some() => {
            parent(trace, span, sampled(state), Form::B3Single)
        }
        _ => Context::Malformed,
    }
}

fn parent(trace: &[u8], span: &[u8], sampled: Option<bool>, form: Form) -> Context {
    let lower = |text: &[u8]| text.to_ascii_lowercase();
    let trace = match trace.len() {
        // An id of 64 bits is the right half.
        16 => id::<8>(&lower(trace)).map(|half| {
            let mut whole = [0; 16];
            whole[8..].copy_from_slice(&half);
            whole
        }),
        _ => id(&lower(trace)),
    };
    match trace.zip(id(&lower(span))) {
        Some((trace, span)) => {
            Context::Parent(Parent { trace, span, sampled, form, has_state: false })
        }
        None => Context::Malformed,
    }
}

fn hexed(bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes.len() * 2);
    put_hex(&mut text, bytes);
    text
}

/// The field `b3` for a span of the proxy.
pub(super) fn single(
    trace: &TraceId,
    span: &SpanId,
    parent: Option<&SpanId>,
    sampled: bool,
) -> Vec<u8> {
    let mut text = hexed(trace);
    text.push(b'-');
    put_hex(&mut text, span);
    text.extend_from_slice(if sampled { b"-1" } else { b"-0" });
    if let Some(parent) = parent {
        text.push(b'-');
        put_hex(&mut text, parent);
    }
    text
}

/// Writes the fields for a span of the proxy.
pub(super) fn multi(
    trace: &TraceId,
    span: &SpanId,
    parent: Option<&SpanId>,
    sampled: bool,
    mut put: impl FnMut(&'static str, Option<Vec<u8>>),
) {
    put(MULTI[0], Some(hexed(trace)));
    put(MULTI[1], Some(hexed(span)));
    put(MULTI[2], parent.map(|parent| hexed(parent)));
    put(MULTI[3], Some(if sampled { b"1".to_vec() } else { b"0".to_vec() }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::propagation::examples::with;

    const TRACE: &str = "80f198ee56343ba864fe8b2a57d3eff7";
    const HALF: &str = "64fe8b2a57d3eff7";
    const SPAN: &str = "e457b5a2e4d86bd1";

    fn told(context: Context) -> String {
        match context {
            Context::None(sampled) => format!("none {sampled:?}"),
            Context::Malformed => "malformed".into(),
            Context::Parent(parent) => {
                let hex = |bytes: &[u8]| String::from_utf8(hexed(bytes)).unwrap();
                format!("{}-{} {:?}", hex(&parent.trace), hex(&parent.span), parent.sampled)
            }
        }
    }

    #[test]
    fn one_field() {
        let zeros = "0".repeat(16);
        let whole = |state: &str| format!("{TRACE}-{SPAN} {state}");
        for (value, expected) in [
            (format!("{TRACE}-{SPAN}"), whole("None")),
            (format!("{TRACE}-{SPAN}-1"), whole("Some(true)")),
            (format!("{TRACE}-{SPAN}-0"), whole("Some(false)")),
            (format!("{TRACE}-{SPAN}-d-05e3ac9a4f6e3b90"), whole("Some(true)")),
            (format!("{}-{SPAN}-1", TRACE.to_uppercase()), whole("Some(true)")),
            (format!("{HALF}-{SPAN}-1"), format!("{zeros}{HALF}-{SPAN} Some(true)")),
            ("0".into(), "none Some(false)".into()),
            ("1".into(), "none Some(true)".into()),
            ("d".into(), "none Some(true)".into()),
            (String::new(), "malformed".into()),
            ("2".into(), "malformed".into()),
            (TRACE.into(), "malformed".into()),
            (format!("{TRACE}-{SPAN}-x"), "malformed".into()),
            (format!("{TRACE}-{SPAN}-1-short"), "malformed".into()),
            (format!("{TRACE}-{SPAN}-1-{SPAN}-1"), "malformed".into()),
            (format!("{TRACE}-{zeros}-1"), "malformed".into()),
            (format!("{}-{SPAN}-1", &TRACE[1..]), "malformed".into()),
        ] {
            assert_eq!(told(with(&[("b3", &value)], context)), expected, "{value}");
        }
    }

    #[test]
    fn several_fields() {
        let ids = [("X-B3-TraceId", TRACE), ("X-B3-SpanId", SPAN)];
        let whole = |state: &str| format!("{TRACE}-{SPAN} {state}");
        for (more, expected) in [
            (vec![], whole("None")),
            (vec![("x-b3-sampled", "1")], whole("Some(true)")),
            (vec![("x-b3-sampled", "false")], whole("Some(false)")),
            (vec![("x-b3-sampled", "x")], whole("None")),
            (vec![("x-b3-flags", "1"), ("x-b3-sampled", "0")], whole("Some(true)")),
            (vec![("x-b3-parentspanid", "x")], whole("None")),
        ] {
            let fields = [&ids[..], &more].concat();
            assert_eq!(told(with(&fields, context)), expected, "{more:?}");
        }
        assert_eq!(told(with(&ids[..1], context)), "malformed");
        assert_eq!(told(with(&[("x-b3-sampled", "0")], context)), "none Some(false)");
    }
}
