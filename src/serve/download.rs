//! Relays a response to the client.

use std::future::Future;
use std::pin::{Pin, pin};

use super::body::{BodyTransform, CallBody};
use super::exchange::{Between, Exchange};
use super::private;
use super::relay::{self, Passed, WaitError};
use super::workspace::Workspace;
use crate::error::{Flag, Refusal};
use crate::grpc::{self, Code, Kind};
use crate::http1::encode::{self, Replaced, ResponseEdits};
use crate::http1::framing::{self, Body, ResponseFraming};
use crate::http1::parse::{self, Progress};
use crate::http1::sink::Sink;
use crate::http2::{EndpointStream, Gone};
use crate::message::{HeadView, Method, Version};
use crate::runtime::buffer::Buf;
use crate::runtime::io::{Io, Read, Stream};
use crate::upstream::Upstream;
use crate::wire::Wire;

/// How many bytes of interim (1xx) responses an endpoint may send in each second, beside
/// `limits.header_bytes` for the whole exchange. RFC 9110 15.2 sets no number of them: an endpoint
/// may tell the progress of a long upload.
pub const INTERIM_BYTES_PER_SECOND: u64 = 1024;

/// The result of relaying a response.
pub enum Downloaded {
    /// The client has the whole response.
    Done {
        /// Whether the client's connection may serve another request.
        keep: bool,
        /// Whether the endpoint's connection may carry another exchange.
        reusable: bool,
    },
    /// 101, or 2xx to CONNECT: the connection becomes a tunnel.
    Switched {
        /// Bytes that the endpoint sent after the head.
        early: Buf,
    },
}

/// The head of a response, or the reason for its absence.
pub enum ResponseHead {
    /// `workspace.response` holds the head, with offsets into `buf`.
    Complete {
        /// The buffer that holds the head and the bytes after it.
        buf: Buf,
        /// The framing of the response.
        framing: ResponseFraming,
    },
    /// The endpoint did not process the request.
    Unprocessed,
    /// The endpoint's connection ended before the first byte of a response.
    Silence,
}

/// The reason why the client gets no complete response from the endpoint.
pub enum Failure {
    /// The client gets this refusal.
    Refused(Refusal),
    /// The endpoint stalled in the middle of the response.
    Late,
    /// The client has received a part of the response, or has disconnected. The connection closes.
    Broken,
}

const NOT_EMPTY: Refusal =
    Refusal::upstream("the response has a body although its head says that it is empty");

/// The exchange's timeout has passed.
pub const TIMED_OUT: Refusal = Refusal {
    status: 504,
    flag: Flag::UpstreamTimeout,
    detail: "the endpoint did not answer within the timeout",
};
/// Reads the head of the final response. Interim responses are sent to the client at once.
pub async fn response_head<I: Io>(
    exchange: &Exchange<'_, I>,
    workspace: &mut Workspace,
    upstream: &Upstream<Wire<I::Stream>>,
) -> Result<ResponseHead, Failure> {
    let mut buf = exchange.downstream.worker.io.buffers().take();
    let mut interim_bytes = 0;
    loop {
        buf = match read_head(exchange, workspace, upstream, buf, interim_bytes > 0).await? {
            HeadRead::Complete(buf) => buf,
            HeadRead::Unprocessed => return Ok(ResponseHead::Unprocessed),
            HeadRead::Silence => return Ok(ResponseHead::Silence),
        };
        let response = workspace.response.view(buf.block());
        let framing = framing::response(response, exchange.method, exchange.framing.upgrade)
            .map_err(Failure::Refused)?;
        let (status, head_end) = (workspace.response.status, head_end(workspace));
        if framing.body == (Body::Stream { length: Some(0) }) {
            buf = await_end(exchange, upstream, buf, head_end).await?;
        }
        if status >= 200 || framing.switches {
            return Ok(ResponseHead::Complete { buf, framing });
        }
        interim_bytes += workspace.response.len as u64;
        if interim_bytes > interim_bytes_max(exchange) {
            return Err(Failure::Refused(Refusal::upstream("too many interim responses")));
        }
        buf = pass_interim(exchange, workspace, upstream, buf).await?;
    }
}

/// How many bytes of interim responses the endpoint may have sent by now.
fn interim_bytes_max<I: Io>(exchange: &Exchange<'_, I>) -> u64 {
    let elapsed = exchange.downstream.worker.io.now().since(exchange.record.began);
    let limit = exchange.plan.terms.limits.message.header_bytes as u64;
    limit + elapsed.as_secs() * INTERIM_BYTES_PER_SECOND
}

/// Relays the response whose head is in `workspace.response` to the client.
pub async fn relay<I: Io>(
    exchange: &Exchange<'_, I>,
    workspace: &mut Workspace,
    upstream: &Upstream<Wire<I::Stream>>,
    between: &Between,
    buf: Buf,
    framing: ResponseFraming,
) -> Result<Downloaded, Failure> {
    let response = workspace.response.view(buf.block());
    let (status, head_end) = (workspace.response.status, head_end(workspace));
    if private::is_demanded(response) {
        upstream.private.set(true);
    }
    let bridge = exchange.kind.filter(|kind| is_bridged(*kind, response));
    let replaced = bridge.map(|kind| replaced(kind, response)).unwrap_or_default();
    if exchange.kind.is_some()
        && let Some(value) = response.value(b"grpc-status")
    {
        exchange.record.set_code(Code::from_value(value));
    }
    // Without a body the head has the status; this also holds for gRPC-Web.
    let rewritten = bridge.and_then(|kind| Some((kind, framing.with_unknown_length()?)));
    let framing = rewritten.map_or(framing, |(_, framing)| framing);
    let body = BodyTransform::new(framing.body, exchange.framing.version);
    let plain = || exchange.kind.filter(|kind| !kind.is_web());
    let counted = rewritten.map(|(kind, _)| kind).or_else(plain);
    let body = body.of_call(counted.map(CallBody::response));
    let edits = response_edits(exchange, between, &framing, &replaced);
    let origin = Some((&upstream.stream, response));
    let write = |out: &mut dyn Sink| encode::response(out, response, &framing, &edits);
    exchange.downstream.stream.put_head(&mut workspace.scratch, origin, write);
    exchange.record.set_status(status);
    between.answered.set(true);
    if framing.switches {
        return switch(exchange, workspace, buf, head_end).await;
    }
    let keep = !edits.close;
    let limits = &exchange.plan.terms.limits.message;
    let reply = relay::Reply { body, head_end, limits };
    let passed = relay::response(exchange, &workspace.scratch, upstream, buf, reply).await?;
    let Passed { clean } = passed;
    Ok(Downloaded::Done { keep, reusable: clean && framing.keep_alive })
}

/// The outcome of reading a head.
enum HeadRead {
    /// `workspace.response` holds the head.
    Complete(Buf),
    /// See [`ResponseHead::Unprocessed`].
    Unprocessed,
    /// See [`ResponseHead::Silence`].
    Silence,
}

/// Reads until `workspace.response` holds a head.
async fn read_head<I: Io>(
    exchange: &Exchange<'_, I>,
    workspace: &mut Workspace,
    upstream: &Upstream<Wire<I::Stream>>,
    mut buf: Buf,
    mut heard: bool,
) -> Result<HeadRead, Failure> {
    if let Wire::Endpoint(stream) = &upstream.stream {
        return read_stream_head(exchange, workspace, upstream, stream, buf).await;
    }
    let limits = &exchange.plan.terms.limits.message;
    loop {
        if !buf.is_empty() {
            heard = true;
            let parsed =
                parse::response(buf.block(), buf.window(), limits, &mut workspace.response);
            if let Progress::Complete = parsed.map_err(Failure::Refused)? {
                return Ok(HeadRead::Complete(buf));
            }
            buf.make_room(1);
            if buf.room() == 0 {
                let wanted = (buf.len() * 2).min(limits.header_bytes + 1);
                buf = buf.grown(wanted);
            }
        }
        let reading = pin!(upstream.stream.read(buf));
        let (read, back) = await_response(exchange, upstream, reading).await?;
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

/// Reads an HTTP/2 response head into `workspace.response`.
async fn read_stream_head<I: Io>(
    exchange: &Exchange<'_, I>,
    workspace: &mut Workspace,
    upstream: &Upstream<Wire<I::Stream>>,
    stream: &EndpointStream,
    buf: Buf,
) -> Result<HeadRead, Failure> {
    let Workspace { response, scratch, .. } = workspace;
    let limits = &exchange.plan.terms.limits.message;
    let read = pin!(stream.response(limits, scratch, buf, response));
    let (result, buf) = await_response(exchange, upstream, read).await?;
    match result {
        Ok(()) => Ok(HeadRead::Complete(buf)),
        Err(Gone::Unprocessed) => Ok(HeadRead::Unprocessed),
        Err(Gone::Silent) => Ok(HeadRead::Silence),
        Err(Gone::Refused(refusal)) => Err(Failure::Refused(refusal)),
    }
}

/// Waits for the end of an HTTP/2 response that declares an empty body. An HTTP/1.1 client that has
/// the head has the whole response, so a later error could not be reported.
async fn await_end<I: Io>(
    exchange: &Exchange<'_, I>,
    upstream: &Upstream<Wire<I::Stream>>,
    mut buf: Buf,
    head_end: usize,
) -> Result<Buf, Failure> {
    while buf.window().end == head_end && !upstream.stream.ended() {
        let reading = pin!(upstream.stream.read(buf));
        let (read, back) = await_response(exchange, upstream, reading).await?;
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

/// Waits for a part of the response until the deadline, while the client is connected.
async fn await_response<I: Io, T>(
    exchange: &Exchange<'_, I>,
    upstream: &Upstream<Wire<I::Stream>>,
    read: Pin<&mut impl Future<Output = T>>,
) -> Result<T, Failure> {
    match relay::await_endpoint(
        exchange,
        upstream,
        exchange.record.began,
        exchange.plan.deadline,
        read,
    )
    .await
    {
        Ok(read) => Ok(read),
        Err(WaitError::Late) => Err(Failure::Refused(TIMED_OUT)),
        Err(WaitError::ClientLeft) => {
            exchange.record.set_flag(
                Flag::DownstreamConnectionTermination,
                "the client left before the endpoint answered",
            );
            Err(Failure::Broken)
        }
    }
}

fn head_end(workspace: &Workspace) -> usize {
    workspace.response.start + workspace.response.len
}

/// Whether a response goes back to a client of `kind` in the framing of gRPC-Web.
fn is_bridged(kind: Kind, response: HeadView<'_>) -> bool {
    let value = response.value(b"content-type").unwrap_or_default();
    kind.is_web() && value.starts_with(b"application/grpc")
}

/// The fields that are replaced in a gRPC response.
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
        || (framing.body == Body::UntilClose && exchange.framing.version != Version::Http2)
        || !between.uploaded.get()
        || exchange.downstream.draining();
    ResponseEdits {
        close,
        keep_alive: old_client && !close,
        dechunk,
        empty: framing.is_empty_for(exchange.framing.version),
        via: exchange.plan.terms.via.as_deref(),
        replaced,
        headers: &exchange.plan.rule.response_headers,
    }
}

/// Sends the response head of a CONNECT or upgrade. The connection is then a tunnel.
async fn switch<I: Io>(
    exchange: &Exchange<'_, I>,
    workspace: &Workspace,
    mut buf: Buf,
    head_end: usize,
) -> Result<Downloaded, Failure> {
    relay::interim_to_client(exchange, &workspace.scratch).await?;
    buf.consume(head_end - buf.window().start);
    Ok(Downloaded::Switched { early: buf })
}

/// Passes a 1xx response to a client that understands it, and removes it from `buf`.
async fn pass_interim<I: Io>(
    exchange: &Exchange<'_, I>,
    workspace: &mut Workspace,
    upstream: &Upstream<Wire<I::Stream>>,
    mut buf: Buf,
) -> Result<Buf, Failure> {
    if exchange.framing.version != Version::Http10 && exchange.method != Method::Connect {
        let response = workspace.response.view(buf.block());
        let origin = Some((&upstream.stream, response));
        let write = |out: &mut dyn Sink| encode::informational(out, response);
        exchange.downstream.stream.put_head(&mut workspace.scratch, origin, write);
        relay::interim_to_client(exchange, &workspace.scratch).await?;
    }
    buf.consume(head_end(workspace) - buf.window().start);
    workspace.response.clear();
    Ok(buf)
}
