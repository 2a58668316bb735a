//! Relays the body of a response from the endpoint to the client.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use super::body::{BodyTransform, Taken};
use super::download::Failure;
use super::exchange::Exchange;
use super::fault::Throttle;
use super::outgoing::Outgoing;
use super::pace::{Pace, noticed};
use super::retry;
use super::workspace::Drafts;
use crate::error::{Flag, Refusal};
use crate::grpc::Code;
use crate::message::Limits;
use crate::resilience::Way;
use crate::runtime::alarm::Alarm;
use crate::runtime::buffer::Buf;
use crate::runtime::io::{Io, Quiet, Read, SpliceError, Spliced, Stream};
use crate::time::Time;
use crate::upstream::Upstream;
use crate::wire::Wire;

/// The minimum number of remaining bytes for which splice(2) moves a body inside the kernel. For
/// shorter bodies, its system calls cost more than copying.
pub const SPLICE_MIN_BYTES: u64 = 256 * 1024;

/// The interval of checks whether the client has disconnected, while the endpoint sends nothing.
pub const CLIENT_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// A response that is relayed to the client.
pub struct Reply<'a> {
    /// The transform of the body. It has processed no byte yet.
    pub body: BodyTransform,
    /// The end of the received head in the block of the buffer.
    pub head_end: usize,
    /// The limits on messages of the endpoint.
    pub limits: &'a Limits,
}

/// The result of relaying a complete response.
pub struct Passed {
    /// Whether the endpoint sent no bytes after the response.
    pub clean: bool,
}

/// Sends the head, which is in `drafts.scratch`, and the body. The body begins in `buf` and
/// continues in `upstream`. If the response may take long, the request is not kept in memory.
pub async fn response<I: Io>(
    exchange: &Exchange<'_, I>,
    drafts: &mut Drafts,
    outgoing: &Outgoing<'_, I>,
    upstream: &Upstream<Wire<I::Stream>>,
    mut buf: Buf,
    mut reply: Reply<'_>,
) -> Result<Passed, Failure> {
    buf.consume(reply.head_end - buf.window().start);
    let pace = Pace::to(&exchange.downstream.stream);
    let mut portion = take(exchange, upstream, &mut reply, buf)?;
    pace.passed(portion.buf.len());
    let slow = Throttle::of(exchange);
    if slow.is_some() || may_wait(exchange, &portion.buf, &reply.body) {
        outgoing.release();
    }
    // The first portion may be the whole response, so wait for its bytes before it is sent. For all
    // other portions, wait after they are sent, without a buffer.
    let first_bytes = portion.buf.len() as u64;
    let mut wait = exchange.record.owe(Way::Down, first_bytes);
    throttle(exchange, upstream, wait.take()).await.map_err(|failure| {
        exchange.record.forgive(Way::Down, first_bytes);
        before_head(failure)
    })?;
    let slow = slow.as_ref();
    buf = match slow.filter(|_| !portion.buf.is_empty()) {
        None => head_to_client(exchange, &drafts.scratch, &reply.body, portion.buf).await?,
        Some(slow) => {
            interim_to_client(exchange, &drafts.scratch).await?;
            slowly_to_client(exchange, slow, &reply.body, portion.buf).await?
        }
    };
    while !reply.body.is_done() {
        let bulk = reply.body.opaque_bytes().is_some_and(|left| left >= SPLICE_MIN_BYTES);
        let bulk = bulk && slow.is_none() && !exchange.record.is_throttled();
        if bulk && upstream.stream.can_splice(&exchange.downstream.stream) {
            drop(buf);
            free(drafts, outgoing);
            Box::pin(splice(exchange, upstream, &mut reply.body)).await?;
            buf = exchange.downstream.worker.io.buffers().take();
            continue;
        }
        let buffers = exchange.downstream.worker.io.buffers();
        if pace.is_due(buffers) {
            drop(buf);
            let free = || free(drafts, outgoing);
            let renewed = pace.renew(buffers, &exchange.downstream.stream, free);
            patiently(exchange, pin!(renewed)).await?;
            buf = buffers.take();
        }
        buf = match read_after(exchange, outgoing, upstream, &pace, (wait, buf)).await {
            Ok(Some(buf)) => buf,
            Ok(None) if reply.body.may_end() => {
                end_to_client(exchange).await?;
                return Ok(Passed { clean: false });
            }
            Ok(None) => return Err(truncated(exchange)),
            Err(Failure::Late) if reply.body.ends_a_message() => {
                end_call(exchange, &mut reply).await?;
                return Ok(Passed { clean: false });
            }
            Err(failure) => return Err(failure),
        };
        portion = take(exchange, upstream, &mut reply, buf)?;
        pace.passed(portion.buf.len());
        wait = exchange.record.owe(Way::Down, portion.buf.len() as u64);
        buf = match slow {
            None => body_to_client(exchange, &reply.body, portion.buf).await?,
            Some(slow) => slowly_to_client(exchange, slow, &reply.body, portion.buf).await?,
        };
    }
    Ok(Passed { clean: portion.clean })
}

/// Waits for `wait`, because of a limit on bytes. Returns at once if it is `None`.
///
/// # Errors
/// If the client disconnects, or if the deadline of the exchange passes.
async fn throttle<I: Io>(
    exchange: &Exchange<'_, I>,
    upstream: &Upstream<Wire<I::Stream>>,
    wait: Option<Duration>,
) -> Result<(), Failure> {
    let Some(wait) = wait else { return Ok(()) };
    let (now, deadline) = (exchange.downstream.worker.io.now(), exchange.plan.deadline);
    let waiting = async {
        let paused = pin!(retry::pause(exchange, wait));
        await_endpoint(exchange, &upstream.alarm, now, deadline, paused).await
    };
    match Box::pin(waiting).await {
        Ok(()) => Ok(()),
        Err(WaitError::Late) => Err(stalled(exchange)),
        Err(WaitError::ClientLeft) => Err(client_left(exchange, LEFT_EARLY)),
    }
}

/// Converts a failure that occurs before the head of the response was sent.
fn before_head(failure: Failure) -> Failure {
    match failure {
        Failure::Late => Failure::Refused(LIMITED_TOO_LONG),
        other => other,
    }
}

/// Waits for the limit on bytes without a buffer, and then reads the next portion of the body.
async fn read_after<I: Io>(
    exchange: &Exchange<'_, I>,
    outgoing: &Outgoing<'_, I>,
    upstream: &Upstream<Wire<I::Stream>>,
    pace: &Pace,
    (wait, mut buf): (Option<Duration>, Buf),
) -> Result<Option<Buf>, Failure> {
    if wait.is_some() {
        drop(buf);
        throttle(exchange, upstream, wait).await?;
        buf = exchange.downstream.worker.io.buffers().take();
    }
    buf.clear();
    read_body(exchange, outgoing, upstream, pace, buf).await
}

/// Whether the first write to the client may block. An HTTP/2 stream has this information. For
/// other connections, a system call would be needed, so it is assumed to block if the response
/// continues after `portion`.
fn may_wait<I: Io>(exchange: &Exchange<'_, I>, portion: &Buf, body: &BodyTransform) -> bool {
    match &exchange.downstream.stream {
        Wire::Client(stream) => !stream.takes(portion.len()),
        Wire::Client3(stream) => !stream.takes(portion.len()),
        _ => !body.is_done(),
    }
}

/// Frees the memory of both heads, which a long body does not need.
fn free<I: Io>(drafts: &mut Drafts, outgoing: &Outgoing<'_, I>) {
    *drafts = Drafts::default();
    outgoing.free();
}

/// A portion of a body in the framing for the client.
struct Portion {
    buf: Buf,
    /// Whether there were no bytes after the end of the body.
    clean: bool,
}

/// Takes the part of `buf` that belongs to the body, and converts it for the client.
fn take<I: Io>(
    exchange: &Exchange<'_, I>,
    upstream: &Upstream<Wire<I::Stream>>,
    reply: &mut Reply<'_>,
    buf: Buf,
) -> Result<Portion, Failure> {
    let before = buf.len();
    let ended = upstream.stream.ended().then(|| upstream.stream.take_trailers());
    let code = ended.as_deref().filter(|_| exchange.kind.is_some()).and_then(Code::from_trailers);
    let taken = reply.body.take(buf, ended, reply.limits);
    let (buf, Taken { consumed, .. }) = taken.map_err(|refusal| {
        exchange.record.set_flag(Flag::UpstreamProtocolError, refusal.detail);
        Failure::Broken
    })?;
    exchange.record.sent(consumed as u64);
    if exchange.kind.is_some() {
        exchange.record.set_response_messages(reply.body.messages());
        if let Some(code) = code {
            exchange.record.set_code(code);
        }
    }
    Ok(Portion { buf, clean: consumed == before })
}

/// Reads the next portion of the body. Returns `None` if the endpoint has closed the connection.
/// While the endpoint sends nothing, the request is not kept in memory.
async fn read_body<I: Io>(
    exchange: &Exchange<'_, I>,
    outgoing: &Outgoing<'_, I>,
    upstream: &Upstream<Wire<I::Stream>>,
    pace: &Pace,
    buf: Buf,
) -> Result<Option<Buf>, Failure> {
    let (record, io) = (exchange.record, &exchange.downstream.worker.io);
    let read = pin!(pace.read(io, &upstream.stream, buf));
    let mut read = pin!(noticed(read, || outgoing.release()));
    let read = loop {
        let (now, received) = (io.now(), record.received_bytes());
        let deadline = exchange.plan.deadline.min(now + exchange.plan.silence.stream);
        let wait = await_endpoint(exchange, &upstream.alarm, now, deadline, read.as_mut());
        match wait.await {
            Err(WaitError::Late) if is_still_fed(exchange, received) => {}
            done => break done,
        }
    };
    match read {
        Err(WaitError::ClientLeft) => Err(client_left(exchange, LEFT_EARLY)),
        Err(WaitError::Late) => Err(stalled(exchange)),
        Ok((Ok(Read::Data(_)), buf)) => Ok(Some(buf)),
        Ok((Ok(_), buf)) if upstream.stream.ended() => Ok(Some(buf)),
        Ok((Ok(_), _)) => Ok(None),
        Ok((Err(error), _)) if is_breach(&error) => Err(breach(exchange)),
        Ok((Err(_), _)) => Err(truncated(exchange)),
    }
}

/// The reason why a wait for an endpoint has ended early.
pub enum WaitError {
    /// The deadline has passed.
    Late,
    /// The client has disconnected.
    ClientLeft,
}

/// Waits for `read`, which reads from an endpoint. `since` is the time at which the wait began, and
/// `alarm` is a timer that is not in use. Fails at `deadline`, or when the client disconnects or
/// resets its stream. Otherwise the stream to the endpoint would stay open until the endpoint sends
/// something.
pub async fn await_endpoint<I: Io, T>(
    exchange: &Exchange<'_, I>,
    alarm: &Alarm,
    since: Time,
    deadline: Time,
    mut read: Pin<&mut impl Future<Output = T>>,
) -> Result<T, WaitError> {
    let client = &exchange.downstream.stream;
    let mut check = since + CLIENT_CHECK_INTERVAL;
    loop {
        alarm.set(check.min(deadline));
        let mut gone = false;
        let waited = alarm.guard(poll_fn(|context| {
            gone = client.poll_gone(context).is_ready();
            if gone { Poll::Ready(None) } else { read.as_mut().poll(context).map(Some) }
        }));
        if let Ok(Some(read)) = waited.await {
            return Ok(read);
        }
        let now = exchange.downstream.worker.io.now();
        if now >= deadline {
            return Err(WaitError::Late);
        }
        if gone || has_left(exchange) {
            return Err(WaitError::ClientLeft);
        }
        check = now + CLIENT_CHECK_INTERVAL;
    }
}

/// Waits until `end`, or until the deadline of the request if that is earlier. Returns whether
/// `end` was reached. The wait uses a timer of its own, so it does not affect other time limits.
/// `left` is the detail for the record if the client disconnects.
///
/// # Errors
/// If the client disconnects.
pub async fn wait_until<I: Io>(
    exchange: &Exchange<'_, I>,
    end: Time,
    left: &'static str,
) -> Result<bool, Failure> {
    let deadline = exchange.plan.deadline;
    let until = end.min(deadline);
    let (io, client) = (&exchange.downstream.worker.io, &exchange.downstream.stream);
    let alarm = io.alarms().alarm();
    loop {
        let now = io.now();
        if now >= until {
            return Ok(end < deadline);
        }
        alarm.set(until.min(now + CLIENT_CHECK_INTERVAL));
        let gone = poll_fn(|context| match client.poll_gone(context) {
            Poll::Ready(()) => Poll::Ready(true),
            Poll::Pending => alarm.poll_woken(context).map(|_| false),
        });
        if gone.await || has_left(exchange) {
            return Err(client_left(exchange, left));
        }
    }
}

/// Waits if a limit on bytes applies: `first_bytes` of the body were received together with the
/// head.
///
/// # Errors
/// If the client disconnects, or if the deadline of the request passes.
pub async fn throttle_first<I: Io>(
    exchange: &Exchange<'_, I>,
    first_bytes: u64,
) -> Result<(), Failure> {
    let Some(wait) = exchange.record.owe(Way::Up, first_bytes) else { return Ok(()) };
    let end = exchange.downstream.worker.io.now() + wait;
    let left = "the client left while its request waited at a limit on bytes";
    let waited = match Box::pin(wait_until(exchange, end, left)).await {
        Ok(true) => return Ok(()),
        Ok(false) => Failure::Refused(LIMITED_TOO_LONG),
        Err(failure) => failure,
    };
    exchange.record.forgive(Way::Up, first_bytes);
    Err(waited)
}

/// The deadline of a request has passed while its first bytes waited at a limit on bytes.
const LIMITED_TOO_LONG: Refusal = Refusal {
    status: 504,
    flag: Flag::UpstreamTimeout,
    detail: "the timeout of the request passed while its body waited at a limit on bytes",
};

/// Whether the client has disconnected. A client that has closed only its sending side may still
/// read the response if its request has `connection: close`. Otherwise it counts as disconnected.
/// The listener's `abort_on_close` overrides this rule.
pub fn has_left<I: Io>(exchange: &Exchange<'_, I>) -> bool {
    match exchange.downstream.stream.quiet() {
        Quiet::Closed => true,
        Quiet::Ended => exchange.plan.terms.abort_on_close.unwrap_or(exchange.framing.keep_alive),
        Quiet::Quiet | Quiet::Data => false,
    }
}

/// Whether the client has sent more than `received` body bytes before the deadline of the exchange.
/// Then the exchange is not idle, although the endpoint sends nothing.
pub fn is_still_fed<I: Io>(exchange: &Exchange<'_, I>, received: u64) -> bool {
    !is_overdue(exchange) && exchange.record.received_bytes() > received
}

/// Whether a read failed because the peer violated the protocol, and not because it disconnected.
pub fn is_breach(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::InvalidData
}

/// Moves the rest of a body of known length inside the kernel, with splice(2).
async fn splice<I: Io>(
    exchange: &Exchange<'_, I>,
    upstream: &Upstream<Wire<I::Stream>>,
    body: &mut BodyTransform,
) -> Result<(), Failure> {
    let Some(left) = body.opaque_bytes() else { return Ok(()) };
    let (record, io) = (exchange.record, &exchange.downstream.worker.io);
    let push = || {
        let idle = io.now() + exchange.plan.silence.stalled;
        upstream.alarm.set(idle.min(exchange.plan.deadline));
        // This timer belongs to the upload. Bytes of the response show that the exchange is not
        // idle.
        exchange.downstream.alarm.set(idle);
    };
    push();
    let moved = |n| {
        body.passed(n);
        exchange.record.sent(n);
        push();
    };
    let mut spliced = pin!(upstream.stream.splice_to(&exchange.downstream.stream, left, moved));
    let spliced = loop {
        let received = record.received_bytes();
        match upstream.alarm.guard(spliced.as_mut()).await {
            Err(_) if is_still_fed(exchange, received) => push(),
            done => break done,
        }
    };
    match spliced {
        Ok(Ok(Spliced::Limit)) => Ok(()),
        Ok(Ok(Spliced::End) | Err(SpliceError::Source(_))) => Err(truncated(exchange)),
        Ok(Err(SpliceError::Sink(_))) => Err(client_left(exchange, LEFT_EARLY)),
        Err(_) => Err(stalled(exchange)),
    }
}

fn truncated<I: Io>(exchange: &Exchange<'_, I>) -> Failure {
    exchange.record.set_flag(Flag::UpstreamConnectionTermination, TRUNCATED);
    Failure::Broken
}

fn breach<I: Io>(exchange: &Exchange<'_, I>) -> Failure {
    let detail = "the endpoint violated its protocol in the middle of its response";
    exchange.record.set_flag(Flag::UpstreamProtocolError, detail);
    Failure::Broken
}

/// Records that the endpoint has not sent the response in time, or that no byte has passed for too
/// long. Returns the failure.
pub fn stalled<I: Io>(exchange: &Exchange<'_, I>) -> Failure {
    let (flag, detail) = match is_overdue(exchange) {
        true if exchange.record.is_slowed() => (Flag::UpstreamTimeout, SLOWED_TOO_LONG),
        true => (Flag::UpstreamTimeout, OUT_OF_TIME),
        false => (Flag::StreamIdle, IDLE),
    };
    exchange.record.set_flag(flag, detail);
    Failure::Late
}

/// Whether the deadline of the exchange has passed.
fn is_overdue<I: Io>(exchange: &Exchange<'_, I>) -> bool {
    exchange.downstream.worker.io.now() >= exchange.plan.deadline
}

/// Whether the deadline of the exchange has passed, and the proxy itself has slowed down a body.
/// Then it is not a failure of the endpoint.
pub fn is_late_by_itself<I: Io>(exchange: &Exchange<'_, I>) -> bool {
    exchange.record.is_slowed() && is_overdue(exchange)
}

/// The detail if an endpoint closes the connection too early.
pub const TRUNCATED: &str = "the endpoint closed the connection in the middle of its response";

const OUT_OF_TIME: &str = "the timeout of the request passed before its response was complete";

/// The detail if an exchange was silent for too long.
pub const IDLE: &str = "no byte passed in either direction for stream_idle_timeout";

const SLOWED_TOO_LONG: &str =
    "the timeout of the request passed while the proxy slowed its body to a limit";

/// Records that the client has disconnected. `detail` says at what point of the exchange.
pub fn client_left<I: Io>(exchange: &Exchange<'_, I>, detail: &'static str) -> Failure {
    exchange.record.set_flag(Flag::DownstreamConnectionTermination, detail);
    Failure::Broken
}

const LEFT_EARLY: &str = "the client left before it had the whole response";

/// Writes the head of an interim response, or the head that begins a tunnel, to the client.
pub async fn interim_to_client<I: Io>(
    exchange: &Exchange<'_, I>,
    head: &[u8],
) -> Result<(), Failure> {
    let buf = exchange.downstream.worker.io.buffers().take();
    let write = pin!(exchange.downstream.stream.write_message(head, buf, None));
    written(exchange, write).await.map(drop)
}

/// Writes the head of a response and the first portion of its body to the client.
async fn head_to_client<I: Io>(
    exchange: &Exchange<'_, I>,
    head: &[u8],
    body: &BodyTransform,
    buf: Buf,
) -> Result<Buf, Failure> {
    let end = body.is_done().then(|| body.trailers());
    let write = pin!(exchange.downstream.stream.write_message(head, buf, end));
    written(exchange, write).await
}

/// Writes a portion of the body to the client.
async fn body_to_client<I: Io>(
    exchange: &Exchange<'_, I>,
    body: &BodyTransform,
    buf: Buf,
) -> Result<Buf, Failure> {
    let end = body.is_done().then(|| body.trailers());
    let write = pin!(exchange.downstream.stream.write_body(buf, end));
    written(exchange, write).await
}

/// Like [`body_to_client`], but limited to the bandwidth of an injected fault.
async fn slowly_to_client<I: Io>(
    exchange: &Exchange<'_, I>,
    slow: &Throttle,
    body: &BodyTransform,
    buf: Buf,
) -> Result<Buf, Failure> {
    let last = Box::pin(slow.send(exchange, buf)).await?;
    body_to_client(exchange, body, last).await
}

/// Writes a portion of the body to the client. It is not the last portion.
pub async fn portion_to_client<I: Io>(exchange: &Exchange<'_, I>, buf: Buf) -> Result<(), Failure> {
    let write = pin!(exchange.downstream.stream.write_body(buf, None));
    written(exchange, write).await.map(drop)
}

/// Ends a body without a length. HTTP/1.1 does this by closing the connection.
async fn end_to_client<I: Io>(exchange: &Exchange<'_, I>) -> Result<(), Failure> {
    let buf = exchange.downstream.worker.io.buffers().take();
    let write = pin!(exchange.downstream.stream.write_body(buf, Some(b"")));
    written(exchange, write).await.map(drop)
}

/// Ends a gRPC call after a complete message, because its deadline has passed, or because no byte
/// has passed for too long. The client gets the gRPC status in the trailers.
async fn end_call<I: Io>(exchange: &Exchange<'_, I>, reply: &mut Reply<'_>) -> Result<(), Failure> {
    let (code, detail) = match exchange.record.flag() {
        Some(Flag::StreamIdle) => (Code::UNAVAILABLE, IDLE),
        _ => (Code::DEADLINE_EXCEEDED, OUT_OF_TIME),
    };
    exchange.record.set_code(code);
    let lines = format!("grpc-status: {}\r\ngrpc-message: {detail}\r\n", code.number());
    let buf = exchange.downstream.worker.io.buffers().take();
    let taken = reply.body.take(buf, Some(lines.into_bytes()), reply.limits);
    let (buf, _) = taken.map_err(Failure::Refused)?;
    body_to_client(exchange, &reply.body, buf).await.map(drop)
}

/// Waits for a write to the client, while the client reads.
async fn written<I: Io>(
    exchange: &Exchange<'_, I>,
    write: Pin<&mut impl Future<Output = (std::io::Result<()>, Buf)>>,
) -> Result<Buf, Failure> {
    match patiently(exchange, write).await? {
        (Ok(()), buf) => Ok(buf),
        (Err(_), _) => Err(client_left(exchange, LEFT_EARLY)),
    }
}

/// Waits for an operation of the client, while the client reads. Takes a pinned reference, because
/// the future is large and is not moved.
async fn patiently<I: Io, T>(
    exchange: &Exchange<'_, I>,
    operation: Pin<&mut impl Future<Output = T>>,
) -> Result<T, Failure> {
    let connection = exchange.downstream;
    connection.alarm.set(connection.worker.io.recent() + exchange.plan.silence.stalled);
    connection.alarm.guard(operation).await.map_err(|_| {
        let detail = "the client read nothing of the response for stream_idle_timeout";
        exchange.record.set_flag(Flag::StreamIdle, detail);
        Failure::Broken
    })
}
