//! Relays the response of an endpoint to the client.

use std::future::Future;
use std::pin::{Pin, pin};

use super::body::{BodyTransform, CallBody};
use super::exchange::Exchange;
use super::outgoing::Outgoing;
use super::pace::Pace;
use super::private;
use super::relay::{self, Passed, WaitError};
use super::request_head::attempt_count;
use super::send::Between;
use super::workspace::Drafts;
use crate::error::{Flag, Refusal};
use crate::grpc::{self, Code, Kind};
use crate::http1::encode::{self, Replaced, ResponseEdits};
use crate::http1::framing::{self, Body, ResponseFraming};
use crate::http1::parse::{self, Progress};
use crate::http1::sink::{More, Sink};
use crate::http2::Gone;
use crate::message::{HeadView, Method, Version};
use crate::runtime::buffer::Buf;
use crate::runtime::io::{Io, Read, Stream};
use crate::time::Time;
use crate::upstream::{Upstream, learn};
use crate::wire::Wire;

/// The limit on interim (1xx) responses. In an exchange, an endpoint may send `limits.header_bytes`
/// of them, and this many bytes more for each second. RFC 9110 15.2 has no limit: an endpoint may
/// report the progress of a long upload.
pub const INTERIM_BYTES_PER_SECOND: u64 = 1024;

/// The result of relaying a response.
pub enum Downloaded {
    /// The client has received the whole response.
    Done {
        /// Whether the client's connection may serve another request.
        keep: bool,
        /// Whether the endpoint's connection may carry another exchange.
        reusable: bool,
    },
    /// The connection has become a tunnel (101, or 2xx to CONNECT).
    Switched {
        /// Bytes that the endpoint sent after the head.
        early: Buf,
    },
}

/// The head of a response, or the reason why there is none.
pub enum ResponseHead {
    /// `drafts.response` holds the head, with offsets into `buf`.
    Complete {
        /// The buffer that holds the head and the bytes after it.
        buf: Buf,
        /// The framing of the response.
        framing: ResponseFraming,
        /// The trailer lines of a gRPC call that failed at once: they were received with the head,
        /// and no message before them. Only a retry policy needs them.
        trailers: Vec<u8>,
    },
    /// The endpoint reported that it did not process the request (RFC 9113 8.7).
    Unprocessed,
    /// The endpoint's connection ended before the first byte of a response.
    Silence,
}

/// The reason why the client gets no complete response from the endpoint.
pub enum Failure {
    /// The client gets this refusal.
    Refused(Refusal),
    /// The endpoint stopped in the middle of the response for too long.
    Late,
    /// The client has received a part of the response, or has disconnected. The client's connection
    /// is closed.
    Broken,
}

const NOT_EMPTY: Refusal =
    Refusal::upstream("the response has a body although its head says that it is empty");

/// The timeout of the request has passed.
pub const TIMED_OUT: Refusal = Refusal {
    status: 504,
    flag: Flag::UpstreamTimeout,
    detail: "the endpoint did not answer within the timeout",
};

/// The time limit of one attempt (`per_try_timeout`) has passed.
pub const TRY_TIMED_OUT: Refusal =
    Refusal { detail: "the endpoint did not answer within per_try_timeout", ..TIMED_OUT };

/// No byte has passed for `stream_idle_timeout`.
const IDLE: Refusal = Refusal { status: 504, flag: Flag::StreamIdle, detail: relay::IDLE };

/// Reads the head of the final response. Sends interim (1xx) responses to the client at once.
/// `streamed` is whether the rest of the request is sent at the same time.
pub async fn response_head<I: Io>(
    exchange: &Exchange<'_, I>,
    drafts: &mut Drafts,
    upstream: &Upstream<Wire<I::Stream>>,
    between: &Between,
    streamed: bool,
) -> Result<ResponseHead, Failure> {
    let mut buf = exchange.downstream.worker.io.buffers().take();
    let mut interim_bytes = 0;
    loop {
        let waits = Waits { between, heard: interim_bytes > 0, streamed };
        buf = match read_head(exchange, drafts, upstream, buf, waits).await? {
            HeadRead::Complete(buf) => buf,
            HeadRead::Unprocessed => return Ok(ResponseHead::Unprocessed),
            HeadRead::Silence => return Ok(ResponseHead::Silence),
        };
        let response = drafts.response.view(buf.block());
        let framing = framing::response(response, exchange.method, exchange.framing.upgrade)
            .map_err(Failure::Refused)?;
        let (status, head_end) = (drafts.response.status, head_end(drafts));
        if status >= 200 {
            learn(&exchange.target(), upstream, status, response.fields());
        }
        if framing.body == (Body::Stream { length: Some(0) }) {
            buf = await_end(exchange, upstream, between, buf, head_end).await?;
        }
        if status >= 200 || framing.switches {
            let trailers = match buf.window().end == head_end {
                true => early_trailers(exchange, upstream),
                false => Vec::new(),
            };
            return Ok(ResponseHead::Complete { buf, framing, trailers });
        }
        interim_bytes += drafts.response.len as u64;
        if interim_bytes > interim_bytes_max(exchange) {
            return Err(Failure::Refused(Refusal::upstream("too many interim responses")));
        }
        buf = pass_interim(exchange, drafts, between, buf).await?;
    }
}

/// The trailer lines of a response without a body, if they are already received and a retry policy
/// may need them. Waiting for them could block: the client of a stream may need the head of the
/// response before it sends more.
fn early_trailers<I: Io>(
    exchange: &Exchange<'_, I>,
    upstream: &Upstream<Wire<I::Stream>>,
) -> Vec<u8> {
    let stream = &upstream.stream;
    match exchange.kind.is_some() && exchange.plan.retries().is_some() && stream.ended() {
        true => stream.trailers(),
        false => Vec::new(),
    }
}

/// The maximum size of all interim responses that the endpoint may have sent until now.
fn interim_bytes_max<I: Io>(exchange: &Exchange<'_, I>) -> u64 {
    let elapsed = exchange.downstream.worker.io.now().since(exchange.record.began);
    let limit = exchange.plan.terms.limits.message.header_bytes as u64;
    limit + elapsed.as_secs() * INTERIM_BYTES_PER_SECOND
}

/// Relays the response whose head is in `drafts.response` to the client.
pub async fn relay<I: Io>(
    exchange: &Exchange<'_, I>,
    drafts: &mut Drafts,
    outgoing: &Outgoing<'_, I>,
    upstream: &Upstream<Wire<I::Stream>>,
    between: &Between,
    buf: Buf,
    framing: ResponseFraming,
) -> Result<Downloaded, Failure> {
    let response = drafts.response.view(buf.block());
    let (status, head_end) = (drafts.response.status, head_end(drafts));
    if private::is_demanded(response) {
        upstream.private.set(true);
    }
    let bridge = exchange.kind.filter(|kind| is_bridged(*kind, response));
    let mut replaced = bridge.map(|kind| replaced(kind, response)).unwrap_or_default();
    if exchange.plan.retries().is_some_and(|policy| policy.attempt_count.in_response) {
        replaced.push(attempt_count(between.number));
    }
    if exchange.kind.is_some()
        && let Some(value) = response.value(b"grpc-status")
    {
        exchange.record.set_code(Code::from_value(value));
    }
    // gRPC-Web also sends the status of a response without a body in its head. So only a response
    // with a body is converted.
    let rewritten = bridge.and_then(|kind| Some((kind, framing.with_unknown_length()?)));
    let framing = rewritten.map_or(framing, |(_, framing)| framing);
    let body = BodyTransform::new(framing.body, exchange.framing.version);
    let plain = || exchange.kind.filter(|kind| !kind.is_web());
    let counted = rewritten.map(|(kind, _)| kind).or_else(plain);
    let body = body.of_call(counted.map(CallBody::response));
    let body = body.copied_to(exchange.record.body_copy(1));
    let own = |out: &mut dyn Sink| {
        exchange.record.put_quotas(out);
        exchange.plan.put_cookie(out, exchange.downstream.peer.scheme() == "https");
    };
    let has_own = exchange.record.has_quotas() || exchange.plan.cookie_for.is_some();
    let more = has_own.then_some(&own as More<'_>);
    let edits = response_edits(exchange, between, &framing, &replaced);
    let edits = ResponseEdits { more, ..edits };
    let write = |out: &mut dyn Sink| encode::response(out, response, &framing, &edits);
    exchange.downstream.stream.put_head(&mut drafts.scratch, write);
    exchange.record.copy_response(response);
    exchange.record.answered(status);
    between.answered.set(true);
    if framing.switches {
        return switch(exchange, drafts, buf, head_end).await;
    }
    let keep = !edits.close;
    let limits = &exchange.plan.terms.limits.message;
    let reply = relay::Reply { body, head_end, limits };
    let passed = relay::response(exchange, drafts, outgoing, upstream, buf, reply).await?;
    let Passed { clean } = passed;
    Ok(Downloaded::Done { keep, reusable: clean && framing.keep_alive })
}

/// The state of reading the head of a response.
struct Waits<'a> {
    /// The state of the attempt.
    between: &'a Between,
    /// Whether the endpoint has sent an interim response.
    heard: bool,
    /// Whether the rest of the request is sent at the same time.
    streamed: bool,
}

/// The result of reading the head of a response.
enum HeadRead {
    /// `drafts.response` holds the head.
    Complete(Buf),
    /// See [`ResponseHead::Unprocessed`].
    Unprocessed,
    /// See [`ResponseHead::Silence`].
    Silence,
}

/// Reads until `drafts.response` holds the head of a response. `heard` is whether the endpoint has
/// already sent an interim response.
async fn read_head<I: Io>(
    exchange: &Exchange<'_, I>,
    drafts: &mut Drafts,
    upstream: &Upstream<Wire<I::Stream>>,
    mut buf: Buf,
    Waits { between, mut heard, streamed }: Waits<'_>,
) -> Result<HeadRead, Failure> {
    if upstream.stream.is_endpoint_stream() {
        return read_stream_head(exchange, drafts, upstream, between, buf).await;
    }
    let limits = &exchange.plan.terms.limits.message;
    loop {
        if !buf.is_empty() {
            heard = true;
            let parsed = parse::response(buf.block(), buf.window(), limits, &mut drafts.response);
            if let Progress::Complete = parsed.map_err(Failure::Refused)? {
                return Ok(HeadRead::Complete(buf));
            }
            buf.lift_limit();
            buf.make_room(1);
            if buf.room() == 0 {
                let wanted = (buf.len() * 2).min(limits.header_bytes + 1);
                buf = buf.grown(wanted);
            }
        }
        let pace = Pace::of_head(&exchange.downstream.stream);
        if buf.is_empty() {
            pace.limit(&mut buf);
        }
        // The response to a large request takes longer, so do not hold a buffer while waiting for
        // it.
        let may_be_long = streamed || exchange.downstream.worker.io.buffers().is_crowded();
        let (read, back) = match may_be_long && buf.is_empty() {
            true => {
                let read = pace.read(&exchange.downstream.worker.io, &upstream.stream, buf);
                Box::pin(await_response(exchange, upstream, between, pin!(read))).await?
            }
            false => {
                let read = pin!(upstream.stream.read(buf));
                await_response(exchange, upstream, between, read).await?
            }
        };
        buf = back;
        match read {
            Ok(Read::Data(_)) => {}
            _ if !heard => return Ok(HeadRead::Silence),
            _ => {
                let detail = "the endpoint closed the connection in the head of its response";
                let flag = Flag::UpstreamConnectionTermination;
                return Err(Failure::Refused(Refusal { status: 502, flag, detail }));
            }
        }
    }
}

/// Reads the head of an HTTP/2 response into `drafts.response`.
async fn read_stream_head<I: Io>(
    exchange: &Exchange<'_, I>,
    drafts: &mut Drafts,
    upstream: &Upstream<Wire<I::Stream>>,
    between: &Between,
    buf: Buf,
) -> Result<HeadRead, Failure> {
    debug_assert!(buf.is_empty(), "nothing follows an interim head of HTTP/2");
    let buffers = buf.give_back();
    let take = || {
        let mut buf = buffers.take();
        Pace::of_head(&exchange.downstream.stream).limit(&mut buf);
        buf
    };
    let read = pin!(upstream.stream.response(&mut drafts.response, take));
    match await_response(exchange, upstream, between, read).await? {
        Ok(buf) => Ok(HeadRead::Complete(buf)),
        Err(Gone::Unprocessed) => Ok(HeadRead::Unprocessed),
        Err(Gone::Silent) => Ok(HeadRead::Silence),
        Err(Gone::Refused(refusal)) => Err(Failure::Refused(refusal)),
    }
}

/// Waits until an HTTP/2 response with an empty body has ended. The head alone is a complete
/// response for an HTTP/1.1 client, so a later error could not be reported.
async fn await_end<I: Io>(
    exchange: &Exchange<'_, I>,
    upstream: &Upstream<Wire<I::Stream>>,
    between: &Between,
    mut buf: Buf,
    head_end: usize,
) -> Result<Buf, Failure> {
    while buf.window().end == head_end && !upstream.stream.ended() {
        let reading = pin!(upstream.stream.read(buf));
        let (read, back) = await_response(exchange, upstream, between, reading).await?;
        buf = back;
        match read {
            Ok(_) => {}
            Err(error) if relay::is_breach(&error) => return Err(Failure::Refused(NOT_EMPTY)),
            Err(_) => {
                let flag = Flag::UpstreamConnectionTermination;
                let cut = Refusal { flag, ..Refusal::upstream(relay::TRUNCATED) };
                return Err(Failure::Refused(cut));
            }
        }
    }
    match buf.window().end == head_end {
        true => Ok(buf),
        false => Err(Failure::Refused(NOT_EMPTY)),
    }
}

/// Waits for a part of the response. Ends at the deadline, or when the client disconnects.
async fn await_response<I: Io, T>(
    exchange: &Exchange<'_, I>,
    upstream: &Upstream<Wire<I::Stream>>,
    between: &Between,
    mut read: Pin<&mut impl Future<Output = T>>,
) -> Result<T, Failure> {
    let (record, io) = (exchange.record, &exchange.downstream.worker.io);
    let (began, deadline) = (record.began, exchange.plan.deadline);
    let idle_end = |since: Time| since + exchange.plan.silence.stream;
    let (mut received, mut idle) = (record.received_bytes(), idle_end(io.recent()));
    loop {
        let of_try = between.try_deadline.get();
        let until = deadline.min(of_try).min(idle);
        match relay::await_endpoint(exchange, &upstream.alarm, began, until, read.as_mut()).await {
            Ok(read) => return Ok(read),
            // The proxy itself has delayed the upload, and has moved the deadline.
            Err(WaitError::Late) if of_try < between.try_deadline.get() && until < deadline => {}
            Err(WaitError::Late) if idle < deadline.min(of_try) => {
                if !relay::is_still_fed(exchange, received) {
                    let status = if between.uploaded.get() { 504 } else { 408 };
                    return Err(Failure::Refused(Refusal { status, ..IDLE }));
                }
                (received, idle) = (record.received_bytes(), idle_end(io.now()));
            }
            Err(WaitError::Late) if until < deadline => {
                return Err(Failure::Refused(TRY_TIMED_OUT));
            }
            Err(WaitError::Late) => return Err(Failure::Refused(TIMED_OUT)),
            Err(WaitError::ClientLeft) => {
                let detail = "the client left before the endpoint answered";
                return Err(relay::client_left(exchange, detail));
            }
        }
    }
}

fn head_end(drafts: &Drafts) -> usize {
    drafts.response.start + drafts.response.len
}

/// Whether the response is converted from gRPC to gRPC-Web for a client of this `kind`.
fn is_bridged(kind: Kind, response: HeadView<'_>) -> bool {
    let value = response.value(b"content-type").unwrap_or_default();
    kind.is_web() && value.starts_with(b"application/grpc")
}

/// The fields that are replaced when a gRPC response is converted to gRPC-Web.
fn replaced(kind: Kind, response: HeadView<'_>) -> Vec<Replaced> {
    let value = response.value(b"content-type").unwrap_or_default();
    let web = ("content-type", Some(grpc::content_type_to_web(value, kind)));
    if response.head.ends { vec![web] } else { vec![web, (framing::LENGTH_FIELD, None)] }
}

fn response_edits<'a, I: Io>(
    exchange: &'a Exchange<'_, I>,
    between: &Between,
    framing: &ResponseFraming,
    replaced: &'a [Replaced],
) -> ResponseEdits<'a> {
    let old_client = exchange.framing.version == Version::Http10;
    let dechunk = old_client && framing.body.is_chunked();
    let close = !exchange.framing.keep_alive
        || dechunk
        || (framing.body == Body::UntilClose && !exchange.framing.version.is_multiplexed())
        || !between.uploaded.get()
        || exchange.downstream.draining();
    // Over QUIC, the client knows it. Without TLS, it would not be trusted.
    let is_told =
        exchange.downstream.stream.tls().is_some() || exchange.framing.version == Version::Http2;
    ResponseEdits {
        close,
        keep_alive: old_client && !close,
        dechunk,
        empty: framing.is_empty_for(exchange.framing.version),
        via: exchange.plan.terms.via.as_deref(),
        alt_svc: exchange.plan.terms.alt_svc.as_deref().filter(|_| is_told),
        replaced,
        more: None,
        headers: &exchange.plan.rule.response_headers,
    }
}

/// Sends the response head of a CONNECT or upgrade request. After that, the connection is a tunnel.
async fn switch<I: Io>(
    exchange: &Exchange<'_, I>,
    drafts: &Drafts,
    mut buf: Buf,
    head_end: usize,
) -> Result<Downloaded, Failure> {
    relay::interim_to_client(exchange, &drafts.scratch).await?;
    buf.consume(head_end - buf.window().start);
    Ok(Downloaded::Switched { early: buf })
}

/// Passes a 1xx response to a client that understands it, unless the attempt is a hedge. Removes it
/// from `buf`.
async fn pass_interim<I: Io>(
    exchange: &Exchange<'_, I>,
    drafts: &mut Drafts,
    between: &Between,
    mut buf: Buf,
) -> Result<Buf, Failure> {
    let is_wanted =
        exchange.framing.version != Version::Http10 && exchange.method != Method::Connect;
    if is_wanted && !between.is_hedge {
        between.informed.set(true);
        let response = drafts.response.view(buf.block());
        let write = |out: &mut dyn Sink| encode::informational(out, response);
        exchange.downstream.stream.put_head(&mut drafts.scratch, write);
        relay::interim_to_client(exchange, &drafts.scratch).await?;
    }
    buf.consume(head_end(drafts) - buf.window().start);
    drafts.response.clear();
    Ok(buf)
}
