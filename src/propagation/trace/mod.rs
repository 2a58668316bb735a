//! Trace contexts in the fields of requests: W3C Trace Context and B3.

mod b3;
mod w3c;

use crate::message::HeadView;

pub use w3c::{STATE_BYTES_MAX, STATE_MEMBERS_MAX};

/// The id of a trace. It is not zero.
pub type TraceId = [u8; 16];

/// The id of a span. It is not zero.
pub type SpanId = [u8; 8];

/// A form of the context in the fields of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `traceparent` and `tracestate`.
    W3c,
    /// `b3`.
    B3Single,
    /// `x-b3-traceid` and others.
    B3Multi,
}

impl Form {
    /// The fields of the form.
    pub fn fields(self) -> &'static [&'static str] {
        match self {
            Self::W3c => &["traceparent", "tracestate"],
            Self::B3Single => &["b3"],
            Self::B3Multi => &b3::MULTI,
        }
    }
}

/// The span of the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parent {
    /// The trace.
    pub trace: TraceId,
    /// The span.
    pub span: SpanId,
    /// Whether the caller records its span. `None` means that it leaves the decision to others.
    pub sampled: Option<bool>,
    /// The form in which the request has it.
    pub form: Form,
    /// Whether `tracestate` is valid, so that it may be forwarded.
    pub has_state: bool,
}

/// The context of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Context {
    /// The request has none, but a caller may have decided about sampling.
    None(Option<bool>),
    /// The request has a context that is not valid: it begins a new trace.
    Malformed,
    /// The request belongs to a trace.
    Parent(Parent),
}

/// Reads the context of a request: that of W3C, or else that of B3.
pub fn context(request: HeadView<'_>) -> Context {
    match w3c::context(request) {
        Context::None(_) => b3::context(request),
        // A malformed traceparent beside a valid context of B3 belongs to the new trace's caller.
        found => found,
    }
}

/// Writes the fields of `form` for a span of the proxy. `parent` is only in B3.
pub fn write(
    form: Form,
    (trace, span): (&TraceId, &SpanId),
    parent: Option<&SpanId>,
    sampled: bool,
    mut put: impl FnMut(&'static str, Option<Vec<u8>>),
) {
    match form {
        Form::W3c => put("traceparent", Some(w3c::text(trace, span, sampled))),
        Form::B3Single => put("b3", Some(b3::single(trace, span, parent, sampled))),
        Form::B3Multi => b3::multi(trace, span, parent, sampled, put),
    }
}

/// Writes bytes as lower-case hexadecimal digits.
pub fn put_hex(out: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        out.push(DIGITS[usize::from(byte >> 4)]);
        out.push(DIGITS[usize::from(byte & 15)]);
    }
}

/// Reads exactly `N` bytes from lower-case hexadecimal digits. `None` if there are others, or if
/// all bytes are zero.
fn id<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    hex(text, &mut bytes)?;
    (bytes != [0; N]).then_some(bytes)
}

fn hex(text: &[u8], bytes: &mut [u8]) -> Option<()> {
    if text.len() != bytes.len() * 2 {
        return None;
    }
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::propagation::examples::with;

    const W3C: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    const B3: &str = "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-0";

    #[test]
    fn the_context_of_w3c_comes_first() {
        let Context::Parent(parent) = with(&[("b3", B3), ("traceparent", W3C)], context) else {
            panic!("no parent");
        };
        assert_eq!((parent.form, parent.sampled), (Form::W3c, Some(true)));
        let Context::Parent(parent) = with(&[("b3", B3)], context) else { panic!("no parent") };
        assert_eq!((parent.form, parent.sampled), (Form::B3Single, Some(false)));
        assert_eq!(with(&[], context), Context::None(None));
        assert_eq!(with(&[("b3", "0")], context), Context::None(Some(false)));
        assert_eq!(with(&[("traceparent", "x"), ("b3", B3)], context), Context::Malformed);
    }

    #[test]
    fn what_is_written_is_read_again() {
        let (trace, span) = ([7; 16], [9; 8]);
        for form in [Form::W3c, Form::B3Single, Form::B3Multi] {
            for sampled in [true, false] {
                let mut fields = Vec::new();
                write(form, (&trace, &span), Some(&[3; 8]), sampled, |name, value| {
                    fields.extend(value.map(|value| (name, String::from_utf8(value).unwrap())));
                });
                let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, &**value)).collect();
                let Context::Parent(parent) = with(&fields, context) else {
                    panic!("{fields:?}");
                };
                let expected = (trace, span, Some(sampled), form);
                assert_eq!((parent.trace, parent.span, parent.sampled, parent.form), expected);
            }
        }
    }
}
