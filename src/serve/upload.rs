//! Sends the body of a request to the endpoint.

use std::future::Future;
use std::pin::{Pin, pin};

use super::body::BodyTransform;
use super::download::Failure;
use super::exchange::Exchange;
use super::outgoing::Outgoing;
use super::pace::Pace;
use super::send::Between;
use super::{relay, retry};
use crate::error::{Flag, Refusal};
use crate::resilience::Way;
use crate::runtime::buffer::{Buf, filled};
use crate::runtime::io::{Io, Read};
use crate::time::NO_LIMIT;
use crate::upstream::Upstream;
use crate::wire::Wire;

/// The result of sending the body.
pub enum UploadEnd {
    /// The whole body was sent. The buffer holds the bytes after it.
    Done(Buf),
    /// The endpoint has stopped reading. It may still send a response.
    EndpointClosed,
    /// Sending has failed, usually because of the client.
    Failed(Failure),
}

/// Reads the rest of the request body from the client, and sends it to the endpoint as it arrives.
pub async fn run<I: Io>(
    exchange: &Exchange<'_, I>,
    body: &mut BodyTransform,
    upstream: &Upstream<Wire<I::Stream>>,
    between: &Between,
    outgoing: &Outgoing<'_, I>,
) -> UploadEnd {
    let connection = exchange.downstream;
    let io = &connection.worker.io;
    let limits = &exchange.plan.terms.limits.message;
    let stalled = exchange.plan.silence.stalled;
    let pace = Pace::to(&upstream.stream);
    let mut buf = io.buffers().take();
    loop {
        if pace.is_due(io.buffers()) {
            drop(buf);
            connection.alarm.set(io.now() + stalled);
            let renewed = pin!(pace.renew(io.buffers(), &upstream.stream, || ()));
            if connection.alarm.guard(renewed).await.is_err() {
                return failed(exchange, between, ENDPOINT_STALLED);
            }
            buf = io.buffers().take();
        }
        let read = {
            let reading = pin!(pace.read(io, &connection.stream, buf));
            await_client(exchange, between, reading).await
        };
        let ended = connection.stream.ended();
        let portion = match read {
            Ok((Ok(Read::Data(_)), back)) => back,
            Ok((Ok(Read::End), back)) if ended => back,
            Ok(_) => return failed(exchange, between, CLIENT_LEFT),
            Err(refusal) => return failed(exchange, between, refusal),
        };
        let window = portion.window();
        outgoing.keep(portion.data());
        let trailers = ended.then(|| connection.stream.take_trailers());
        let (portion, taken) = match body.take(portion, trailers.clone(), limits) {
            Ok(taken) => taken,
            Err(refusal) => return failed(exchange, between, refusal),
        };
        // The bytes after the body belong to the next request. The transform has not moved them in
        // the block of the buffer.
        let beyond = (taken.last && taken.consumed < window.len()).then(|| {
            let beyond = &portion.block()[window.start + taken.consumed..window.end];
            filled(io.buffers().take_sized(beyond.len()), beyond)
        });
        if taken.last {
            outgoing.end_body(window.len() - taken.consumed, trailers.as_deref());
        }
        exchange.record.received(taken.consumed as u64);
        exchange.record.set_request_messages(body.messages());
        connection.alarm.set(io.now() + stalled);
        pace.passed(portion.len());
        let end = taken.last.then(|| body.trailers());
        buf = match connection.alarm.guard(upstream.stream.write_body(portion, end)).await {
            Ok((Ok(()), back)) => back,
            Ok((Err(_), _)) => return UploadEnd::EndpointClosed,
            Err(_) => return failed(exchange, between, ENDPOINT_STALLED),
        };
        buf.clear();
        let wait = exchange.record.owe(Way::Up, taken.consumed as u64);
        if taken.last {
            between.uploaded.set(true);
            between.set_sent(exchange.record, io.recent());
            between.replayable.set(outgoing.is_replayable());
            return UploadEnd::Done(beyond.unwrap_or(buf));
        }
        if let Some(wait) = wait {
            drop(buf);
            // This wait is not a delay of the endpoint.
            between.try_deadline.set(between.try_deadline.get() + wait);
            Box::pin(retry::pause(exchange, wait)).await;
            buf = io.buffers().take();
        }
    }
}

/// Waits for the next part of the request body. Until the response begins, the pause is limited.
/// After that, the download watches both directions.
///
/// # Errors
/// If the client sends nothing for too long.
async fn await_client<I: Io, T>(
    exchange: &Exchange<'_, I>,
    between: &Between,
    mut reading: Pin<&mut impl Future<Output = T>>,
) -> Result<T, Refusal> {
    let (connection, silence) = (exchange.downstream, &exchange.plan.silence);
    let limit = silence.request_body.min(silence.stream);
    if between.answered.get() || limit == NO_LIMIT {
        return Ok(reading.await);
    }
    connection.alarm.set(connection.worker.io.now() + limit);
    match connection.alarm.guard(reading.as_mut()).await {
        Ok(read) => Ok(read),
        Err(_) if between.answered.get() => Ok(reading.await),
        Err(_) if silence.request_body <= silence.stream => Err(CLIENT_SLOW),
        Err(_) => Err(IDLE),
    }
}

/// Ends the exchange after a failure. The client gets a refusal if no response has begun.
fn failed<I: Io>(exchange: &Exchange<'_, I>, between: &Between, refusal: Refusal) -> UploadEnd {
    if between.downloaded.get() {
        // The client has the whole response, so the rest of its request is not needed.
        return UploadEnd::Failed(Failure::Broken);
    }
    exchange.record.set_refusal(&refusal);
    let gone = refusal.flag == Flag::DownstreamConnectionTermination;
    if gone || between.answered.get() {
        return UploadEnd::Failed(Failure::Broken);
    }
    UploadEnd::Failed(Failure::Refused(refusal))
}

const CLIENT_LEFT: Refusal = Refusal {
    status: 400,
    flag: Flag::DownstreamConnectionTermination,
    detail: "the client left before its request was complete",
};

const CLIENT_SLOW: Refusal = Refusal {
    status: 408,
    flag: Flag::DownstreamTimeout,
    detail: "the client stopped sending the request body for too long",
};

const IDLE: Refusal = Refusal { status: 408, flag: Flag::StreamIdle, detail: relay::IDLE };

/// The endpoint has not read the request.
pub const ENDPOINT_STALLED: Refusal = Refusal {
    status: 504,
    flag: Flag::StreamIdle,
    detail: "the endpoint read nothing of the request for stream_idle_timeout",
};
