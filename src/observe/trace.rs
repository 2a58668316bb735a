//! The settings of tracing, and the trace of one exchange.

use super::{Format, Wanted};
use crate::propagation::trace::{Context, Form, Parent, SpanId, TraceId};

/// The parts of a share.
pub const SAMPLE_PARTS: u32 = 1_000_000;

/// The settings of tracing for exchanges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceTerms {
    /// The share of new traces that are sampled, in millionths.
    pub sample: u32,
    /// Whether a sampled caller makes the proxy sample, and another one does not.
    pub follows_parent: bool,
    /// The forms in which services get the context. They also get it in the form of the request.
    pub forms: Vec<Form>,
    /// Attributes of the spans of exchanges.
    pub tags: Vec<(Box<str>, Format)>,
    /// The header fields that the tags read.
    pub wanted: Wanted,
}

/// Where spans or log lines are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// The URL of the collector, with its path.
    pub url: String,
    /// Whether the collector is asked by gRPC.
    pub is_grpc: bool,
    /// Whether the connection has TLS.
    pub is_tls: bool,
    /// The CAs of the collector's certificate, as PEM. `None` means those of the system.
    pub ca: Option<std::sync::Arc<[u8]>>,
    /// The attributes of the resource.
    pub resource: Vec<(String, String)>,
}

/// The settings of tracing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracing {
    /// The settings for exchanges.
    pub terms: std::sync::Arc<TraceTerms>,
    /// Where spans are sent. `None` means that the context is only passed on.
    pub export: Option<Export>,
}

/// The trace of one exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    /// The trace.
    pub id: TraceId,
    /// The span of the exchange.
    pub span: SpanId,
    /// Whether spans are recorded.
    pub sampled: bool,
    /// The trace context of the request.
    context: Context,
}

impl TraceTerms {
    /// The trace of a request with `context`. `random` returns random numbers.
    pub fn begin(&self, context: Context, mut random: impl FnMut() -> u64) -> Trace {
        let (parent, asked) = match context {
            Context::Parent(parent) => (Some(parent), parent.sampled),
            Context::None(asked) => (None, asked),
            Context::Malformed => (None, None),
        };
        let drawn = random() % u64::from(SAMPLE_PARTS) < u64::from(self.sample);
        let sampled = asked.filter(|_| self.follows_parent).unwrap_or(drawn);
        let mut id = [0; 16];
        id[..8].copy_from_slice(&random().to_be_bytes());
        id[8..].copy_from_slice(&random().max(1).to_be_bytes());
        let id = parent.map_or(id, |parent| parent.trace);
        Trace { id, span: random().max(1).to_be_bytes(), sampled, context }
    }
}

impl Trace {
    /// The span of the caller.
    pub fn parent(&self) -> Option<&Parent> {
        match &self.context {
            Context::Parent(parent) => Some(parent),
            _ => None,
        }
    }

    /// Calls `put` with each field of the context that the request to a service gets, or loses.
    /// `span` is that of the attempt.
    pub fn fields(
        &self,
        terms: &TraceTerms,
        span: &SpanId,
        mut put: impl FnMut(&'static str, Option<Vec<u8>>),
    ) {
        let parent = self.parent();
        if let Some(parent) = parent
            && parent.form == Form::W3c
            && !parent.has_state
        {
            put("tracestate", None);
        }
        let own = parent.map(|parent| parent.form).filter(|form| !terms.forms.contains(form));
        let forms = || terms.forms.iter().copied().chain(own);
        if self.context == Context::Malformed {
            for form in [Form::W3c, Form::B3Single, Form::B3Multi] {
                let is_written = forms().any(|it| it == form);
                // The first field of a form is written, or `x-b3-` fields are.
                let lost = if is_written { &form.fields()[1..] } else { form.fields() };
                if !(is_written && form == Form::B3Multi) {
                    lost.iter().for_each(|name| put(name, None));
                }
            }
        }
        for form in forms() {
            let args = (&self.id, span);
            crate::propagation::trace::write(form, args, Some(&self.span), self.sampled, &mut put);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(sample: u32, follows_parent: bool, forms: Vec<Form>) -> TraceTerms {
        let (tags, wanted) = (Vec::new(), Wanted::default());
        TraceTerms { sample, follows_parent, forms, tags, wanted }
    }

    fn parent(sampled: Option<bool>, form: Form, has_state: bool) -> Context {
        Context::Parent(Parent { trace: [5; 16], span: [6; 8], sampled, form, has_state })
    }

    #[test]
    fn parents_and_rates_decide() {
        let all = SAMPLE_PARTS;
        for (context, sample, follows, sampled) in [
            (Context::None(None), all, true, true),
            (Context::None(None), 0, true, false),
            (Context::None(Some(true)), 0, true, true),
            (Context::Malformed, all, true, true),
            (parent(Some(true), Form::W3c, true), 0, true, true),
            (parent(Some(false), Form::W3c, true), all, true, false),
            (parent(Some(true), Form::W3c, true), 0, false, false),
            (parent(None, Form::B3Multi, true), all, true, true),
        ] {
            let trace = terms(sample, follows, vec![Form::W3c]).begin(context, || 77);
            assert_eq!(trace.sampled, sampled, "{context:?}");
            let known = matches!(context, Context::Parent(_));
            assert_eq!(trace.id == [5; 16], known);
        }
    }

    #[test]
    fn services_get_the_context_in_each_form() {
        let told = |context, forms: &[Form]| {
            let terms = terms(0, true, forms.to_vec());
            let trace = terms.begin(context, || 1 << 60);
            let mut fields = Vec::new();
            trace.fields(&terms, &[8; 8], |name, value| {
                let value = value.map(|value| String::from_utf8(value).unwrap());
                fields.push(format!("{name}={}", value.as_deref().unwrap_or("none")));
            });
            fields.join(" ")
        };
        let trace = "05".repeat(16);
        let span = "08".repeat(8);
        let w3c = format!("traceparent=00-{trace}-{span}-01");
        assert_eq!(told(parent(Some(true), Form::W3c, true), &[Form::W3c]), w3c);
        let without = format!("tracestate=none {w3c}");
        assert_eq!(told(parent(Some(true), Form::W3c, false), &[Form::W3c]), without);
        let both = format!("{w3c} b3={trace}-{span}-1-1000000000000000");
        assert_eq!(told(parent(Some(true), Form::B3Single, false), &[Form::W3c]), both);
        let new = told(Context::Malformed, &[Form::W3c]);
        assert!(new.starts_with("tracestate=none b3=none x-b3-traceid=none "), "{new}");
        assert!(new.ends_with(&format!("-{span}-00")), "{new}");
    }
}
