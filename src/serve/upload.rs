//! Sends the body of a request to the endpoint.

use super::body::BodyTransform;
use super::download::Failure;
use super::exchange::{Between, Exchange};
use crate::error::{Flag, Refusal};
use crate::runtime::buffer::Buf;
use crate::runtime::io::{Io, Read, Stream};
use crate::upstream::Upstream;
use crate::wire::Wire;

/// The result of sending the body.
pub enum UploadEnd {
    /// The whole body was sent. The buffer holds the bytes after it.
    Done(Buf),
    /// The endpoint reads no more. It may still send a response.
    EndpointClosed,
    /// Sending cannot continue, mostly because of the client.
    Failed(Failure),
}

/// Reads the rest of the request body and forwards it as it arrives.
pub async fn run<I: Io>(
    exchange: &Exchange<'_, I>,
    body: &mut BodyTransform,
    upstream: &Upstream<Wire<I::Stream>>,
    between: &Between,
) -> UploadEnd {
    let connection = exchange.downstream;
    let io = &connection.worker.io;
    let limits = &exchange.plan.terms.limits.message;
    let idle = exchange.plan.terms.timeouts.body_idle;
    let mut buf = io.buffers().take();
    loop {
        connection.alarm.set(io.now() + idle);
        let read = connection.alarm.guard(connection.stream.read(buf)).await;
        let ended = connection.stream.ended();
        let portion = match read {
            Ok((Ok(Read::Data(_)), back)) => back,
            Ok((Ok(Read::End), back)) if ended => back,
            Ok(_) => return failed(exchange, between, CLIENT_LEFT),
            Err(_) => return failed(exchange, between, CLIENT_SLOW),
        };
        let window = portion.window();
        let trailers = ended.then(|| connection.stream.take_trailers());
        let (portion, taken) = match body.take(portion, trailers, limits) {
            Ok(taken) => taken,
            Err(refusal) => return failed(exchange, between, refusal),
        };
        exchange.record.received(taken.consumed as u64);
        exchange.record.set_request_messages(body.messages());
        connection.alarm.set(io.now() + idle);
        let end = taken.last.then(|| body.trailers());
        buf = match connection.alarm.guard(upstream.stream.write_body(portion, end)).await {
            Ok((Ok(()), back)) => back,
            Ok((Err(_), _)) => return UploadEnd::EndpointClosed,
            Err(_) => return failed(exchange, between, ENDPOINT_SLOW),
        };
        buf.clear();
        if taken.last {
            // The bytes after the body are still in the received window; the transform does not
            // change them.
            if taken.consumed < window.len() {
                buf.restore(window.start + taken.consumed..window.end);
            }
            between.uploaded.set(true);
            return UploadEnd::Done(buf);
        }
    }
}

/// Ends the exchange. The client gets an answer if no response has begun.
fn failed<I: Io>(exchange: &Exchange<'_, I>, between: &Between, refusal: Refusal) -> UploadEnd {
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

const ENDPOINT_SLOW: Refusal = Refusal {
    status: 504,
    flag: Flag::UpstreamTimeout,
    detail: "the endpoint stopped reading the request body for too long",
};
