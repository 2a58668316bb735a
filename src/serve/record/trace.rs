//! The trace of an exchange: its context, and the spans of the exchange and its attempts.

use std::borrow::Cow;

use super::ExchangeRecord;
use crate::error::Flag;
use crate::grpc::Code;
use crate::http1::encode::Replaced;
use crate::message::HeadView;
use crate::net::Address;
use crate::observe::span::{Attribute, Side, Span, of_attempt};
use crate::observe::story::Tried;
use crate::observe::{Record, Trace};
use crate::propagation::trace;
use crate::runtime::io::Io;
use crate::time::Time;

type Attributes = Vec<(Cow<'static, str>, Attribute)>;

/// The maximum length of a text of a client in a span, in bytes. The rest is cut.
const TEXT_MAX: usize = 1024;

impl<I: Io> ExchangeRecord<I> {
    /// Reads the trace context of the request, and decides whether spans are recorded.
    pub fn begin_trace(&self, request: HeadView<'_>) {
        let Some(terms) = &self.terms.tracing else { return };
        let trace = {
            let mut random = self.worker.random.borrow_mut();
            terms.begin(trace::context(request), || random.u64(..))
        };
        self.trace.set(Some(trace));
        if trace.sampled {
            self.copy_request(request);
            if trace.parent().is_some_and(|parent| parent.has_state) {
                let lines: Vec<_> = request.values(b"tracestate").collect();
                *self.state.borrow_mut() =
                    String::from_utf8_lossy(&lines.join(&b',')).chars().take(TEXT_MAX).collect();
            }
        }
    }

    /// The fields with the trace context for attempt `number`.
    pub fn trace_fields(&self, number: u32) -> Vec<Replaced> {
        let mut fields = Vec::new();
        if let (Some(trace), Some(terms)) = (self.trace.get(), &self.terms.tracing) {
            let span = of_attempt(trace.span, number);
            trace.fields(terms, &span, |name, value| fields.push((name, value)));
        }
        fields
    }

    /// Hands over the spans of the exchange, which has ended at `end`, if they are recorded.
    pub(super) fn keep_spans(&self, end: Time) {
        let Some(trace) = self.trace.get().filter(|trace| trace.sampled) else { return };
        let spans = self.view(end, |record| self.spans(trace, record, end));
        self.worker.observers.spans.push(spans);
    }

    fn spans(&self, trace: Trace, record: &Record<'_>, end: Time) -> Vec<Span> {
        let at = |time: Time| {
            let us = record.began_unix_us + time.since(self.began).as_micros() as u64;
            us.saturating_mul(1000)
        };
        let name = self.span_name(record);
        let span = |id, parent, side| Span {
            trace: trace.id,
            id,
            parent,
            parent_is_remote: false,
            state: self.state.borrow().clone(),
            side,
            name: name.clone(),
            began_unix_ns: at(self.began),
            ended_unix_ns: at(end),
            attributes: Vec::new(),
            error: None,
        };
        let parent = trace.parent().map(|parent| parent.span);
        let mut spans = vec![Span {
            parent_is_remote: parent.is_some(),
            attributes: self.server_attributes(record),
            error: record.failed.then(|| record.detail.to_owned()),
            ..span(trace.span, parent, Side::Server)
        }];
        let (mut number, tried) = (0, self.tried.borrow());
        for tried in &*tried {
            number += 1;
            spans.push(Span {
                began_unix_ns: at(tried.began),
                ended_unix_ns: at(tried.ended),
                attributes: self.tried_attributes(record, tried, number),
                error: Some(tried.result.to_owned()),
                ..span(of_attempt(trace.span, number), Some(trace.span), Side::Client)
            });
        }
        if let Some(attempted) = self.attempted.get() {
            let number = self.last_number.get().max(1);
            let attributes = self.client_attributes(record, record.endpoint, number);
            let (attributes, error) = self.with_end(record, attributes);
            spans.push(Span {
                began_unix_ns: at(attempted),
                attributes,
                error,
                ..span(of_attempt(trace.span, number), Some(trace.span), Side::Client)
            });
        }
        spans
    }

    /// The name of the spans: that of a gRPC method, or the method and the rule.
    fn span_name(&self, record: &Record<'_>) -> String {
        match self.kind.get().and_then(|_| rpc(record.path)) {
            Some((service, method)) => format!("{service}/{method}"),
            None if record.route.is_empty() => known(record.method).to_owned(),
            None => format!("{} {}", known(record.method), record.route),
        }
    }

    fn server_attributes(&self, record: &Record<'_>) -> Attributes {
        let mut all = Attributes::new();
        self.put_request(&mut all, record);
        put(&mut all, "url.path", text(record.path));
        if let Some(at) = memchr::memchr(b'?', record.target) {
            put(&mut all, "url.query", text(&record.target[at + 1..]));
        }
        put(&mut all, "url.scheme", record.scheme.into());
        let (host, port) = crate::matching::split_authority(record.authority);
        put(&mut all, "server.address", text(host));
        if let Some(port) = port {
            put(&mut all, "server.port", u64::from(port).into());
        }
        if let Some(client) = record.client {
            put(&mut all, "client.address", text(client.to_string().as_bytes()));
        }
        put_peer(&mut all, record.peer);
        put(&mut all, "user_agent.original", text(record.user_agent));
        for (key, value) in [
            ("ringway.listener", record.listener),
            ("ringway.rule", record.route),
            ("ringway.rule.place", record.place),
            ("ringway.service", record.service),
            ("ringway.identity", record.identity),
            ("ringway.policy", record.policy),
            ("ringway.detail", record.detail),
        ] {
            put(&mut all, key, value.into());
        }
        put(&mut all, "ringway.request_id", text(record.request_id));
        if record.flag.is_some() || record.delayed {
            put(&mut all, "ringway.response_flags", (&*record.flags()).into());
        }
        put_status(&mut all, record);
        if record.failed {
            put(&mut all, "error.type", error_type(record));
        }
        let tags = self.terms.tracing.iter().flat_map(|terms| &terms.tags);
        for (key, format) in tags {
            let mut value = Vec::new();
            format.write(&mut value, record);
            if value != b"-" {
                let value = Attribute::Text(String::from_utf8_lossy(&value).into_owned().into());
                all.push((Cow::Owned(key.to_string()), value));
            }
        }
        all
    }

    /// The attributes of the request, which the spans of both sides have.
    fn put_request(&self, all: &mut Attributes, record: &Record<'_>) {
        let method = known(record.method);
        put(all, "http.request.method", method.into());
        if method == OTHER {
            put(all, "http.request.method_original", text(record.method));
        }
        let version = record.protocol.strip_prefix("HTTP/").unwrap_or_default();
        put(all, "network.protocol.version", version.into());
        if let Some((service, method)) = self.kind.get().and_then(|_| rpc(record.path)) {
            put(all, "rpc.system", "grpc".into());
            put(all, "rpc.service", (&*service).into());
            put(all, "rpc.method", (&*method).into());
        }
    }

    fn client_attributes(
        &self,
        record: &Record<'_>,
        endpoint: Option<&Address>,
        number: u32,
    ) -> Attributes {
        let mut all = Attributes::new();
        self.put_request(&mut all, record);
        let url = [record.scheme.as_bytes(), b"://", record.authority, record.target].concat();
        put(&mut all, "url.full", text(&url));
        match endpoint {
            Some(Address::Tcp(address)) => {
                let ip = address.ip().to_string();
                put(&mut all, "server.address", (&*ip).into());
                put(&mut all, "server.port", u64::from(address.port()).into());
                put_peer(&mut all, Some(*address));
            }
            Some(Address::Unix(path)) => {
                put(&mut all, "server.address", text(path.to_string_lossy().as_bytes()));
            }
            None => {}
        }
        if number > 1 {
            put(&mut all, "http.request.resend_count", u64::from(number - 1).into());
        }
        put(&mut all, "ringway.service", record.service.into());
        all
    }

    fn tried_attributes(&self, record: &Record<'_>, tried: &Tried, number: u32) -> Attributes {
        let mut all = self.client_attributes(record, tried.endpoint.as_ref(), number);
        if tried.status > 0 {
            put(&mut all, "http.response.status_code", u64::from(tried.status).into());
        }
        let error = match tried.status {
            0 => tried.result.into(),
            status => text(status.to_string().as_bytes()),
        };
        put(&mut all, "error.type", error);
        all
    }

    /// Adds how the last attempt has ended.
    fn with_end(&self, record: &Record<'_>, mut all: Attributes) -> (Attributes, Option<String>) {
        let responded = self.answered.get().is_some();
        if responded {
            put_status(&mut all, record);
        }
        let blamed = |flag: Flag| flag.blames_endpoint() || flag == Flag::StreamIdle;
        let blamed = record.flag.is_some_and(blamed);
        let is_error = blamed || responded && record.status >= 400 || record.failed && !responded;
        if is_error {
            put(&mut all, "error.type", error_type(record));
        }
        (all, is_error.then(|| record.detail.to_owned()))
    }
}

/// A method that is not one of those that OpenTelemetry knows.
const OTHER: &str = "_OTHER";

/// The method, if OpenTelemetry knows it. So a client cannot make up names of spans.
fn known(method: &[u8]) -> &'static str {
    const KNOWN: [&str; 9] =
        ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
    KNOWN.into_iter().find(|known| known.as_bytes() == method).unwrap_or(OTHER)
}

/// The service and the method of a gRPC call.
fn rpc(path: &[u8]) -> Option<(String, String)> {
    let path = std::str::from_utf8(path).ok()?;
    let (service, method) = path.strip_prefix('/')?.rsplit_once('/')?;
    let short = |text: &str| text.chars().take(TEXT_MAX).collect();
    Some((short(service), short(method)))
}

fn put_status(all: &mut Attributes, record: &Record<'_>) {
    if record.status > 0 {
        put(all, "http.response.status_code", u64::from(record.status).into());
    }
    if let Some(code) = record.grpc_status {
        put(all, "rpc.grpc.status_code", u64::from(code).into());
    }
}

fn put_peer(all: &mut Attributes, peer: Option<std::net::SocketAddr>) {
    if let Some(peer) = peer {
        put(all, "network.peer.address", text(peer.ip().to_string().as_bytes()));
        put(all, "network.peer.port", u64::from(peer.port()).into());
    }
}

/// The kind of an error: the flag, the name of the gRPC status, or the status.
fn error_type(record: &Record<'_>) -> Attribute {
    let code = record.grpc_status.filter(|code| *code != 0);
    let name = code.and_then(|code| Code::names().nth(usize::from(code)));
    match (record.flag, name) {
        (Some(flag), _) => flag.letters().into(),
        (None, Some(name)) => name.into(),
        (None, None) => text(record.status.to_string().as_bytes()),
    }
}

/// Adds an attribute, unless it is empty.
fn put(all: &mut Attributes, key: &'static str, value: Attribute) {
    if !matches!(&value, Attribute::Text(text) if text.is_empty()) {
        all.push((Cow::Borrowed(key), value));
    }
}

/// Text of a client. Bytes that are not UTF-8 become U+FFFD.
fn text(bytes: &[u8]) -> Attribute {
    let bytes = &bytes[..bytes.len().min(TEXT_MAX)];
    Attribute::Text(String::from_utf8_lossy(bytes).into_owned().into())
}
