//! The body of a response, from the endpoint's socket to the client's.

use super::body::{BodyProgress, Taken};
use super::download::Failure;
use super::exchange::Call;
use crate::error::Flag;
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
    pub body: BodyProgress,
    /// Where in the buffer's block the received head ends.
    pub head_end: usize,
    /// The client wants the body without its chunks.
    pub dechunk: bool,
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
    let mut clean = keep_body(call, &mut reply, &mut buf)?;
    let body_start = buf.window().start;
    if !buf.prepend_at(body_start, head) {
        let out = call.connection.worker.io.buffers().take_sized(head.len());
        to_client(call, filled(out, head)).await?;
    }
    buf = to_client(call, buf).await?;
    while !reply.body.is_done() {
        let bulk = reply.body.opaque_bytes().is_some_and(|left| left >= SPLICE_MIN_BYTES);
        if bulk && upstream.stream.can_splice(&call.connection.stream) {
            Box::pin(splice(call, upstream, &mut reply.body)).await?;
            continue;
        }
        buf.clear();
        buf = match read_body(call, upstream, buf).await? {
            Some(buf) => buf,
            None if reply.body.may_end() => return Ok(Passed { clean: false }),
            None => return Err(truncated(call)),
        };
        clean = keep_body(call, &mut reply, &mut buf)?;
        buf = to_client(call, buf).await?;
    }
    Ok(Passed { clean })
}

/// Cuts `buf` down to what belongs to the body, in the form in which the client gets it. Says
/// whether there was nothing beyond the end of the body.
fn keep_body<I: Io>(
    call: &Call<'_, '_, I>,
    reply: &mut Reply<'_>,
    buf: &mut Buf,
) -> Result<bool, Failure> {
    let before = buf.len();
    let taken = if reply.dechunk {
        reply.body.take_data(buf.data_mut(), reply.limits)
    } else {
        reply.body.take(buf.data(), reply.limits).map(|n| Taken { consumed: n, kept: n })
    };
    let Taken { consumed, kept } = taken.map_err(|refusal| {
        call.ledger.set_flag(Flag::UpstreamProtocolError, refusal.detail);
        Failure::Broken
    })?;
    call.ledger.sent(kept as u64);
    buf.truncate(kept);
    Ok(consumed == before)
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
    match upstream.alarm.guard(upstream.stream.read(buf)).await {
        Ok((Ok(Read::Data(_)), buf)) => Ok(Some(buf)),
        Ok((Ok(_), _)) => Ok(None),
        Ok((Err(_), _)) => Err(truncated(call)),
        Err(_) => Err(stalled(call)),
    }
}

/// Moves the rest of a body of known length inside the kernel.
async fn splice<I: Io>(
    call: &Call<'_, '_, I>,
    upstream: &Upstream<Wire<I::Stream>>,
    body: &mut BodyProgress,
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

/// Writes all of `buf` to the client, within the body timeout.
pub async fn to_client<I: Io>(call: &Call<'_, '_, I>, buf: Buf) -> Result<Buf, Failure> {
    if buf.is_empty() {
        return Ok(buf);
    }
    let connection = call.connection;
    let io = &connection.worker.io;
    connection.alarm.set(io.recent() + call.listener.timeouts.body_idle);
    match connection.alarm.guard(connection.stream.write_all(buf)).await {
        Ok((Ok(()), buf)) => Ok(buf),
        Ok((Err(_), _)) => Err(client_left(call)),
        Err(_) => {
            let detail = "the client read nothing of its response for too long";
            call.ledger.set_flag(Flag::DownstreamTimeout, detail);
            Err(Failure::Broken)
        }
    }
}
