//! Answers of our own: refusals, redirects and fixed responses.

use std::sync::LazyLock;

use super::body::BodyProgress;
use super::connection::Connection;
use super::exchange::After;
use super::ledger::Ledger;
use super::relay::filled;
use super::workspace::Workspace;
use crate::error::Refusal;
use crate::grpc::{Kind, code_of_refusal, percent_encoded};
use crate::http1::framing::RequestFraming;
use crate::http1::local::{self, CallReply, LocalReply};
use crate::message::{HeadView, HeaderEdits, Method};
use crate::route::Action;
use crate::runtime::buffer::Buf;
use crate::runtime::io::Io;

/// Refuses a request whose head could not be read at all. The connection ends with it: where the
/// next request would begin is not known.
pub async fn refuse_early<I: Io>(connection: &Connection<I>, refusal: Refusal) -> After {
    let local = connection.worker.local();
    let Some(listener) = connection.listener(&local) else { return After::Close };
    listener.stats.worker(connection.worker.index).refused.increment();
    let ledger = Ledger::open(connection, &local, listener);
    ledger.set_refusal(&refusal);
    let reply = refusal_reply(&refusal, None, false, false);
    let after = send(&ledger, connection, &reply).await;
    ledger.log(None, b"");
    after
}

/// Refuses a request of which only the head can be told from what follows: the connection ends.
pub async fn refuse<I: Io>(
    ledger: &Ledger<'_, I>,
    connection: &Connection<I>,
    request: HeadView<'_>,
    refusal: Refusal,
) -> After {
    ledger.set_refusal(&refusal);
    send_refusal(ledger, connection, request, refusal, false).await;
    ledger.log(Some(request), b"");
    After::Linger
}

/// Refuses a well-formed request; the connection goes on if its body has been read already.
pub async fn refuse_framed<I: Io>(
    ledger: &Ledger<'_, I>,
    connection: &Connection<I>,
    workspace: &Workspace,
    framing: RequestFraming,
    mut buf: Buf,
    refusal: Refusal,
) -> After {
    let request = workspace.request.view(buf.block());
    let consumed = whole_request(connection, workspace, framing, &buf);
    ledger.set_refusal(&refusal);
    let keep = consumed.is_some() && framing.keep_alive;
    let keep = send_refusal(ledger, connection, request, refusal, keep).await;
    ledger.log(Some(request), b"");
    match consumed {
        Some(consumed) if keep => {
            buf.consume(consumed);
            After::Next(buf)
        }
        _ => After::Linger,
    }
}

/// Answers with a redirect or a fixed response.
pub async fn answer<I: Io>(
    ledger: &Ledger<'_, I>,
    connection: &Connection<I>,
    workspace: &Workspace,
    framing: RequestFraming,
    mut buf: Buf,
    action: &Action,
) -> After {
    let request = workspace.request.view(buf.block());
    let consumed = whole_request(connection, workspace, framing, &buf);
    let keep = consumed.is_some() && framing.keep_alive && !connection.draining();
    let is_head = request.head.method == Method::Head;
    let mut location = Vec::new();
    let (status, body) = match action {
        Action::Forward(_) => return After::Close,
        Action::Redirect(redirect) => {
            redirect.location(request, connection.scheme(), &mut location);
            (redirect.status, &b""[..])
        }
        Action::Respond(respond) => (respond.status, &*respond.body),
    };
    let headers = ledger.rule().map_or(&NO_EDITS, |rule| &rule.response_headers);
    let call = None;
    let reply = LocalReply { status, location: &location, body, headers, call, keep, is_head };
    let sent = send(ledger, connection, &reply).await;
    ledger.log(Some(request), b"");
    match (consumed, sent) {
        (_, After::Close) => After::Close,
        (Some(consumed), _) if keep => {
            buf.consume(consumed);
            After::Next(buf)
        }
        _ => After::Linger,
    }
}

/// Sends the answer that tells the client of a refusal. Says whether the connection may go on.
pub async fn send_refusal<I: Io>(
    ledger: &Ledger<'_, I>,
    connection: &Connection<I>,
    request: HeadView<'_>,
    refusal: Refusal,
    keep: bool,
) -> bool {
    ledger.set_refusal(&refusal);
    let keep = keep && !connection.draining();
    let call = ledger.call();
    if call.is_some() {
        ledger.set_code(code_of_refusal(&refusal));
    }
    let reply = refusal_reply(&refusal, call, request.head.method == Method::Head, keep);
    matches!(send(ledger, connection, &reply).await, After::Linger) && keep
}

static NO_EDITS: HeaderEdits = HeaderEdits::none();

/// What a client without a good token is asked for (RFC 6750 3).
static CHALLENGE: LazyLock<HeaderEdits> = LazyLock::new(|| HeaderEdits {
    set: vec![("www-authenticate".into(), "Bearer".into())],
    ..HeaderEdits::none()
});

fn refusal_reply(
    refusal: &Refusal,
    call: Option<Kind>,
    is_head: bool,
    keep: bool,
) -> LocalReply<'static> {
    if let Some(kind) = call {
        let call = CallReply {
            content_type: kind.content_type(),
            status: code_of_refusal(refusal).number(),
            message: percent_encoded(refusal.detail),
        };
        let (headers, call) = (&NO_EDITS, Some(call));
        return LocalReply { status: 200, location: b"", body: b"", headers, call, keep, is_head };
    }

    // The detail names a check, never anything the peer sent: it is safe to show.
    let body = refusal.detail.as_bytes();
    let headers = if refusal.status == 401 { &*CHALLENGE } else { &NO_EDITS };
    let status = refusal.status;
    LocalReply { status, location: b"", body, headers, call: None, keep, is_head }
}

/// Bytes of `buf` that are this request, if all of it is there.
fn whole_request<I: Io>(
    connection: &Connection<I>,
    workspace: &Workspace,
    framing: RequestFraming,
    buf: &Buf,
) -> Option<usize> {
    let head = &workspace.request;
    let head_len = head.start + head.len - buf.window().start;
    let mut body = BodyProgress::new(framing.body);
    let local = connection.worker.local();
    let taken = body.take(&buf.data()[head_len..], &local.snapshot.limits).ok()?;
    body.is_done().then_some(head_len + taken)
}

/// Sends an answer; `Close` when the client is gone, else `Linger`.
async fn send<I: Io>(
    ledger: &Ledger<'_, I>,
    connection: &Connection<I>,
    reply: &LocalReply<'_>,
) -> After {
    let mut head = Vec::with_capacity(512);
    connection.stream.put_head(&mut head, None, |out| local::local_reply(out, reply));
    let body = reply.sent_body();
    ledger.set_status(reply.status);
    ledger.sent(reply.body.len() as u64);
    let io = &connection.worker.io;
    let buf = filled(io.buffers().take_sized(body.len()), body);
    connection.alarm.set(io.now() + ledger.listener().timeouts.body_idle);
    match connection.alarm.guard(connection.stream.write_message(&head, buf, Some(b""))).await {
        Ok((Ok(()), _)) => After::Linger,
        _ => After::Close,
    }
}
