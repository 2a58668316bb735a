//! Sends local responses: refusals, redirects and fixed responses.

use std::sync::LazyLock;

use super::body::BodyProgress;
use super::downstream::Downstream;
use super::exchange::After;
use super::record::{ExchangeRecord, LateCopy};
use super::workspace::Workspace;
use crate::error::{Flag, Refusal};
use crate::grpc::{Code, Kind, code_of_refusal, percent_encoded};
use crate::http1::framing::RequestFraming;
use crate::http1::local::{self, CallReply, LocalReply};
use crate::http1::sink::Sink;
use crate::message::{HeaderEdits, Method};
use crate::route::{Action, Rule};
use crate::runtime::buffer::{Buf, filled};
use crate::runtime::io::Io;

/// Refuses a request whose head is malformed. Closes the connection, because the start of the next
/// request is not known.
pub async fn refuse_early<I: Io>(downstream: &Downstream<I>, refusal: Refusal) -> After<I> {
    let local = downstream.local();
    let Some((_, terms)) = downstream.listener(&local) else { return After::Close };
    terms.stats.worker(downstream.worker.index).refused.increment();
    let record = ExchangeRecord::open(downstream, terms);
    record.set_http();
    drop(local);
    record.set_refusal(&refusal);
    let reply = refusal_reply(&refusal, None, false, false);
    send(&record, downstream, &reply).await
}

/// Refuses a request whose end is not known. Closes the connection. The record has already copied
/// the request.
pub async fn refuse<I: Io>(
    record: &ExchangeRecord<I>,
    downstream: &Downstream<I>,
    method: Method,
    refusal: Refusal,
) -> After<I> {
    record.set_refusal(&refusal);
    send_refusal(record, downstream, method, refusal, false).await;
    After::Linger
}

/// Refuses a well-formed request. The connection stays open if the whole body was already received.
pub async fn refuse_framed<I: Io>(
    record: &ExchangeRecord<I>,
    downstream: &Downstream<I>,
    workspace: &Workspace,
    framing: RequestFraming,
    mut buf: Buf,
    refusal: Refusal,
) -> After<I> {
    let request = workspace.request.view(buf.block());
    record.keep_request(request);
    let method = request.head.method;
    let consumed = whole_request(record, workspace, framing, &buf);
    record.set_refusal(&refusal);
    let keep = consumed.is_some() && framing.keep_alive;
    let keep = send_refusal(record, downstream, method, refusal, keep).await;
    match consumed {
        Some(consumed) if keep => {
            buf.consume(consumed);
            After::Next(Some(buf))
        }
        _ => After::Linger,
    }
}

/// Sends a redirect or a fixed response.
pub async fn answer<I: Io>(
    record: &ExchangeRecord<I>,
    downstream: &Downstream<I>,
    workspace: &Workspace,
    framing: RequestFraming,
    mut buf: Buf,
    rule: &Rule,
) -> After<I> {
    let request = workspace.request.view(buf.block());
    let consumed = whole_request(record, workspace, framing, &buf);
    let keep = consumed.is_some() && framing.keep_alive && !downstream.draining();
    let is_head = request.head.method == Method::Head;
    let mut location = Vec::new();
    let (status, body) = match &rule.action {
        Action::Forward(_) => return After::Close,
        Action::Redirect(redirect) => {
            let path = &rule.matcher.path;
            redirect.location(path, request, downstream.peer.scheme(), &mut location);
            (redirect.status, &b""[..])
        }
        Action::Respond(respond) => (respond.status, &*respond.body),
    };
    let headers = &rule.response_headers;
    let quotas = |out: &mut dyn Sink| record.put_quotas(out);
    let reply = LocalReply {
        status,
        location: &location,
        body,
        headers,
        more: Some(&quotas),
        call: None,
        keep,
        is_head,
    };
    let copy = LateCopy::of(record, request);
    let sent = send(record, downstream, &reply).await;
    drop(copy);
    match (consumed, sent) {
        (_, After::Close) => After::Close,
        (Some(consumed), _) if keep => {
            buf.consume(consumed);
            After::Next(Some(buf))
        }
        _ => After::Linger,
    }
}

/// Sends a refusal to the client. The record has already copied the request. Returns whether the
/// connection may stay open.
pub async fn send_refusal<I: Io>(
    record: &ExchangeRecord<I>,
    downstream: &Downstream<I>,
    method: Method,
    refusal: Refusal,
    keep: bool,
) -> bool {
    let code = code_of_refusal(&refusal);
    send_refusal_of(record, downstream, method, (refusal, code), keep).await
}

/// Like [`send_refusal`], but with the given gRPC code for a gRPC call.
pub async fn send_refusal_of<I: Io>(
    record: &ExchangeRecord<I>,
    downstream: &Downstream<I>,
    method: Method,
    (refusal, code): (Refusal, Code),
    keep: bool,
) -> bool {
    record.set_refusal(&refusal);
    let keep = keep && !downstream.draining();
    let call = record.kind().map(|kind| (kind, code));
    if call.is_some() {
        record.set_code(code);
    }
    let quotas = |out: &mut dyn Sink| record.put_quotas(out);
    let reply = refusal_reply(&refusal, call, method == Method::Head, keep);
    let reply = LocalReply { more: Some(&quotas), ..reply };
    matches!(send(record, downstream, &reply).await, After::Linger) && keep
}

static NO_EDITS: HeaderEdits = HeaderEdits::none();

/// The challenge to a client without a valid token (RFC 6750 3).
static CHALLENGE: LazyLock<HeaderEdits> = LazyLock::new(|| HeaderEdits {
    set: vec![("www-authenticate".into(), "Bearer".into())],
    ..HeaderEdits::none()
});

/// The methods that a rule without `match.method` accepts (RFC 9110 15.5.6).
static ALLOWED_METHODS: LazyLock<HeaderEdits> = LazyLock::new(|| HeaderEdits {
    set: vec![("allow".into(), "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS".into())],
    ..HeaderEdits::none()
});

/// The fields of a response that a circuit breaker causes. Envoy does not retry such a response.
static OVERLOADED: LazyLock<HeaderEdits> = LazyLock::new(|| HeaderEdits {
    set: vec![
        ("x-ringway-overloaded".into(), "true".into()),
        ("x-envoy-overloaded".into(), "true".into()),
    ],
    ..HeaderEdits::none()
});

/// The value of `retry-after` when the process is overloaded, in seconds.
const OVERLOAD_RETRY_AFTER_S: &str = "1";

/// The header fields of a refusal because the process is overloaded.
static PROCESS_OVERLOADED: LazyLock<HeaderEdits> = LazyLock::new(|| HeaderEdits {
    set: vec![
        ("x-ringway-overloaded".into(), "true".into()),
        ("retry-after".into(), OVERLOAD_RETRY_AFTER_S.into()),
    ],
    ..HeaderEdits::none()
});

/// The additional fields of a refusal. `is_call` is whether the refusal ends a gRPC call.
fn fields_of(refusal: &Refusal, is_call: bool) -> &'static HeaderEdits {
    match (refusal.flag, refusal.status) {
        (Flag::UpstreamOverflow, _) => &OVERLOADED,
        (Flag::Overload, _) => &PROCESS_OVERLOADED,
        _ if is_call => &NO_EDITS,
        (_, 401) => &CHALLENGE,
        (_, 405) => &ALLOWED_METHODS,
        _ => &NO_EDITS,
    }
}

fn refusal_reply(
    refusal: &Refusal,
    call: Option<(Kind, Code)>,
    is_head: bool,
    keep: bool,
) -> LocalReply<'static> {
    let plain = LocalReply {
        status: refusal.status,
        location: b"",
        body: b"",
        headers: fields_of(refusal, call.is_some()),
        more: None,
        call: None,
        keep,
        is_head,
    };
    if let Some((kind, code)) = call {
        let call = CallReply {
            content_type: kind.content_type(),
            status: code.number(),
            message: percent_encoded(refusal.detail),
        };
        return LocalReply { status: 200, call: Some(call), ..plain };
    }

    // The detail names a check, and contains nothing from a peer. So it can be sent to the client.
    let body = refusal.detail.as_bytes();
    LocalReply { body, ..plain }
}

/// The number of bytes of this request in `buf`. Returns `None` if the request is not complete.
fn whole_request<I: Io>(
    record: &ExchangeRecord<I>,
    workspace: &Workspace,
    framing: RequestFraming,
    buf: &Buf,
) -> Option<usize> {
    let head = &workspace.request;
    let head_len = head.start + head.len - buf.window().start;
    let mut body = BodyProgress::new(framing.body);
    let taken = body.take(&buf.data()[head_len..], &record.terms().limits.message).ok()?;
    body.is_done().then_some(head_len + taken)
}

/// Sends a local response. Returns `Close` if the client has disconnected, otherwise `Linger`.
async fn send<I: Io>(
    record: &ExchangeRecord<I>,
    downstream: &Downstream<I>,
    reply: &LocalReply<'_>,
) -> After<I> {
    let mut head = Vec::with_capacity(512);
    downstream.stream.put_head(&mut head, |out| local::local_reply(out, reply));
    let body = reply.sent_body();
    record.set_status(reply.status);
    record.sent_own(body.len() as u64);
    let io = &downstream.worker.io;
    let buf = filled(io.buffers().take_sized(body.len()), body);
    downstream.alarm.set(io.now() + record.terms().timeouts.stalled());
    match downstream.alarm.guard(downstream.stream.write_message(&head, buf, Some(b""))).await {
        Ok((Ok(()), _)) => After::Linger,
        _ => After::Close,
    }
}
