//! The body of a response, from the endpoint's socket to the client's.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use super::body::{Passage, Taken};
use super::download::Failure;
use super::exchange::Call;
use crate::error::Flag;
use crate::grpc::Code;
use crate::runtime::buffer::Buf;
use crate::runtime::io::{Io, Read, SpliceError, Spliced, Stream};
use crate::snapshot::Limits;
use crate::tls::Wire;
use crate::upstream::Upstream;

/// A body with at least this much still to come goes through the kernel by splice(2): below, the
/// system calls cost more than the copies that they save.
pub const SPLICE_MIN_BYTES: u64 = 256 * 1024;

/// A response that is about to be sent.
pub struct Reply<'a> {
    /// Its body, of which nothing has been seen yet.
    pub body: Passage,
    /// Where in the buffer's block the received head ends.
    pub head_end: usize,
    /// What the endpoint may send.
    pub limits: &'a Limits,
}

/// What is left after a whole response.
pub struct Passed {
    /// The endpoint has sent nothing beyond it.
    pub clean: bool,
}

/// Sends `head` and the body that begins in `buf` and continues in `upstream`.
pub async fn response<I: Io>(
    call: &Call<'_, '_, I>,
    head: &[u8],
    upstream: &Upstream<Wire<I::Stream>>,
    mut buf: Buf,
    mut reply: Reply<'_>,
) -> Result<Passed, Failure> {
    buf.consume(reply.head_end - buf.window().start);
    let mut portion = take(call, upstream, &mut reply, buf)?;
    buf = head_to_client(call, head, &reply.body, portion.buf).await?;
    while !reply.body.is_done() {
        let bulk = reply.body.opaque_bytes().is_some_and(|left| left >= SPLICE_MIN_BYTES);
        if bulk && upstream.stream.can_splice(&call.connection.stream) {
            Box::pin(splice(call, upstream, &mut reply.body)).await?;
            continue;
        }
        buf.clear();
        buf = match read_body(call, upstream, buf).await? {
            Some(buf) => buf,
            None if reply.body.may_end() => {
                end_to_client(call).await?;
                return Ok(Passed { clean: false });
            }
            None => return Err(truncated(call)),
        };
        portion = take(call, upstream, &mut reply, buf)?;
        buf = body_to_client(call, &reply.body, portion.buf).await?;
    }
    Ok(Passed { clean: portion.clean })
}

/// A portion of a body as the client gets it.
struct Portion {
    buf: Buf,
    /// There was nothing beyond the body in it.
    clean: bool,
}

/// What of `buf` belongs to the body.
fn take<I: Io>(
    call: &Call<'_, '_, I>,
    upstream: &Upstream<Wire<I::Stream>>,
    reply: &mut Reply<'_>,
    buf: Buf,
) -> Result<Portion, Failure> {
    let before = buf.len();
    let ended = upstream.stream.ended().then(|| upstream.stream.take_trailers());
    let code = ended.as_deref().filter(|_| call.kind.is_some()).and_then(Code::from_trailers);
    let taken = reply.body.take(buf, ended, reply.limits);
    let (buf, Taken { consumed, .. }) = taken.map_err(|refusal| {
        call.ledger.set_flag(Flag::UpstreamProtocolError, refusal.detail);
        Failure::Broken
    })?;
    call.ledger.sent(consumed as u64);
    if call.kind.is_some() {
        call.ledger.set_response_messages(reply.body.messages());
        if let Some(code) = code {
            call.ledger.set_code(code);
        }
    }
    Ok(Portion { buf, clean: consumed == before })
}

/// The next portion of the body; `None` when the endpoint has ended.
async fn read_body<I: Io>(
    call: &Call<'_, '_, I>,
    upstream: &Upstream<Wire<I::Stream>>,
    buf: Buf,
) -> Result<Option<Buf>, Failure> {
    let io = &call.connection.worker.io;
    let idle = io.now() + call.listener.timeouts.body_idle;
    upstream.alarm.set(idle.min(call.deadline));
    let client = &call.connection.stream;
    let mut read = pin!(upstream.stream.read(buf));
    // A stream that its client has given up must not keep the endpoint's open until that speaks.
    let read = poll_fn(|context| match client.poll_gone(context) {
        Poll::Ready(()) => Poll::Ready(None),
        Poll::Pending => read.as_mut().poll(context).map(Some),
    });
    match upstream.alarm.guard(read).await {
        Ok(None) => Err(client_left(call)),
        Ok(Some((Ok(Read::Data(_)), buf))) => Ok(Some(buf)),
        Ok(Some((Ok(_), buf))) if upstream.stream.ended() => Ok(Some(buf)),
        Ok(Some((Ok(_), _))) => Ok(None),
        Ok(Some((Err(_), _))) => Err(truncated(call)),
        Err(_) => Err(stalled(call)),
    }
}

/// Moves the rest of a body of known length inside the kernel.
async fn splice<I: Io>(
    call: &Call<'_, '_, I>,
    upstream: &Upstream<Wire<I::Stream>>,
    body: &mut Passage,
) -> Result<(), Failure> {
    let Some(left) = body.opaque_bytes() else { return Ok(()) };
    let io = &call.connection.worker.io;
    let push = || {
        let idle = io.now() + call.listener.timeouts.body_idle;
        upstream.alarm.set(idle.min(call.deadline));
    };
    push();
    let moved = |n| {
        body.passed(n);
        call.ledger.sent(n);
        push();
    };
    let spliced = upstream.stream.splice_to(&call.connection.stream, left, moved);
    match upstream.alarm.guard(spliced).await {
        Ok(Ok(Spliced::Limit)) => Ok(()),
        Ok(Ok(Spliced::End) | Err(SpliceError::Source(_))) => Err(truncated(call)),
        Ok(Err(SpliceError::Sink(_))) => Err(client_left(call)),
        Err(_) => Err(stalled(call)),
    }
}

fn truncated<I: Io>(call: &Call<'_, '_, I>) -> Failure {
    let detail = "the endpoint closed the connection in the middle of its response";
    call.ledger.set_flag(Flag::UpstreamConnectionTermination, detail);
    Failure::Broken
}

fn stalled<I: Io>(call: &Call<'_, '_, I>) -> Failure {
    let detail = "the response stopped in its middle for too long";
    call.ledger.set_flag(Flag::UpstreamTimeout, detail);
    Failure::Broken
}

fn client_left<I: Io>(call: &Call<'_, '_, I>) -> Failure {
    let detail = "the client left before it had the whole response";
    call.ledger.set_flag(Flag::DownstreamConnectionTermination, detail);
    Failure::Broken
}

/// `buf` with `bytes` in it.
pub fn filled(mut buf: Buf, bytes: &[u8]) -> Buf {
    buf.append(bytes);
    buf
}

/// Writes an interim head to the client, or one after which the connection is a tunnel.
pub async fn interim_to_client<I: Io>(call: &Call<'_, '_, I>, head: &[u8]) -> Result<(), Failure> {
    let buf = call.connection.worker.io.buffers().take();
    patiently(call, call.connection.stream.write_message(head, buf, None)).await.map(drop)
}

/// Writes the head of a response and the first portion of its body to the client.
async fn head_to_client<I: Io>(
    call: &Call<'_, '_, I>,
    head: &[u8],
    body: &Passage,
    buf: Buf,
) -> Result<Buf, Failure> {
    let end = body.is_done().then(|| body.trailers());
    patiently(call, call.connection.stream.write_message(head, buf, end)).await
}

/// Writes a portion of the body to the client.
async fn body_to_client<I: Io>(
    call: &Call<'_, '_, I>,
    body: &Passage,
    buf: Buf,
) -> Result<Buf, Failure> {
    let end = body.is_done().then(|| body.trailers());
    patiently(call, call.connection.stream.write_body(buf, end)).await
}

/// Tells the client that a body has ended which had no length. In HTTP/1.1 the end of the
/// connection says so.
async fn end_to_client<I: Io>(call: &Call<'_, '_, I>) -> Result<(), Failure> {
    let buf = call.connection.worker.io.buffers().take();
    patiently(call, call.connection.stream.write_body(buf, Some(b""))).await.map(drop)
}

/// Lets `write` go on for as long as the body timeout.
async fn patiently<I: Io>(
    call: &Call<'_, '_, I>,
    write: impl Future<Output = (std::io::Result<()>, Buf)>,
) -> Result<Buf, Failure> {
    let connection = call.connection;
    connection.alarm.set(connection.worker.io.recent() + call.listener.timeouts.body_idle);
    match connection.alarm.guard(write).await {
        Ok((Ok(()), buf)) => Ok(buf),
        Ok((Err(_), _)) => Err(client_left(call)),
        Err(_) => {
            let detail = "the client read nothing of its response for too long";
            call.ledger.set_flag(Flag::DownstreamTimeout, detail);
            Err(Failure::Broken)
        }
    }
}
