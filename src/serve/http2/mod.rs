//! HTTP/2 with a client: each stream is an exchange of its own, side by side on one connection.

mod adapter;

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::{Builder, SendResponse};
use http::Request;
use pin_project_lite::pin_project;

use super::connection::Connection;
use super::exchange::exchange;
use super::reply;
use super::worker::Worker;
use crate::http1::parse::{self, Progress};
use crate::http2::{ClientStream, RequestBody, ResponseReader, request_head};
use crate::message::Method;
use crate::runtime::buffer::Buf;
use crate::runtime::io::Io;
use crate::snapshot::Limits;
use crate::tls::Wire;
use adapter::Adapter;

/// Streams that a client may have open at once on one connection (RFC 9113 5.1.2 asks for at least
/// 100).
pub const CONCURRENT_STREAMS_MAX: u32 = 100;

/// Bytes that a client may send on one stream, and on all together, before we have read any.
pub const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
/// See [`STREAM_WINDOW_BYTES`].
pub const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;

/// Bytes of a stream's response that are kept while the socket takes no more.
pub const SEND_BUFFER_BYTES: usize = 64 * 1024;

/// How long a connection that has said goodbye may take to go.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Serves a connection that speaks HTTP/2 until it closes. `first` is what was read of it already.
pub async fn serve<I: Io>(connection: Connection<I>, first: Option<Buf>) {
    let Some((connection, wire)) = connection.take_stream() else { return };
    let io = connection.worker.io.clone();
    let (limits, timeouts) = {
        let local = connection.worker.local();
        let Some(listener) = connection.listener(&local) else { return };
        (local.snapshot.limits, listener.timeouts)
    };
    let adapter = Adapter::new(io.clone(), Rc::new(wire), first);
    connection.alarm.set(io.now() + timeouts.header);
    let handshake = builder(&limits).handshake::<_, Bytes>(adapter);
    let Ok(Ok(mut frames)) = connection.alarm.guard(handshake).await else { return };
    let open = Rc::new(Cell::new(0_usize));
    // A drain wakes it whatever it does.
    connection.state().idle.set(true);
    let mut leaving = false;
    loop {
        let wait = if leaving && open.get() == 0 { CLOSE_TIMEOUT } else { timeouts.keep_alive };
        connection.alarm.set(io.now() + wait);
        if !leaving && connection.draining() {
            leaving = true;
            frames.graceful_shutdown();
            continue;
        }
        let accepted = poll_fn(|context| match frames.poll_accept(context) {
            Poll::Ready(accepted) => Poll::Ready(Some(accepted)),
            Poll::Pending => connection.alarm.poll_rang(context).map(|_| None),
        });
        match accepted.await {
            Some(Some(Ok((request, respond)))) => {
                let stream = Open::new(&open);
                let part = connection.beside();
                let task = serve_stream(part, request, respond, limits, stream);
                let worker = Rc::clone(&connection.worker);
                io.spawn(Contained { task, worker });
            }
            Some(Some(Err(error))) => {
                connection.worker.complain(|suppressed| {
                    let peer = connection.peer_text.as_str();
                    tracing::info!(peer, %error, suppressed, "HTTP/2 connection ended");
                });
                return;
            }
            Some(None) => return,
            None if leaving && open.get() == 0 => return,
            None if leaving || open.get() > 0 => {}
            None => {
                leaving = true;
                frames.graceful_shutdown();
            }
        }
    }
}

fn builder(limits: &Limits) -> Builder {
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(CONCURRENT_STREAMS_MAX)
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .max_send_buffer_size(SEND_BUFFER_BYTES);
    builder
}

/// Counts a stream for as long as it is served.
struct Open(Rc<Cell<usize>>);

impl Open {
    fn new(count: &Rc<Cell<usize>>) -> Self {
        count.set(count.get() + 1);
        Self(Rc::clone(count))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// One request and its response.
async fn serve_stream<I: Io>(
    connection: Connection<I>,
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
    limits: Limits,
    open: Open,
) {
    let (parts, frames) = request.into_parts();
    let method = Method::from_bytes(parts.method.as_str().as_bytes());
    let mut text = Vec::with_capacity(512);
    let said = request_head(&mut text, &parts, frames.is_end_stream());
    let form = said.unwrap_or(RequestBody::None);
    let stream = ClientStream::new(frames, form, respond, ResponseReader::new(method), limits);
    let connection = connection.with_stream(|_| Wire::Http2(Box::new(stream)));
    let mut workspace = connection.worker.workspaces.take();
    let mut buf = connection.worker.io.buffers().take_sized(text.len());
    buf.append(&text);
    let parsed = said
        .and_then(|_| parse::request(buf.block(), buf.window(), &limits, &mut workspace.request));
    match parsed {
        Ok(Progress::Complete) => {
            exchange(&connection, &mut workspace, buf).await;
        }
        Ok(Progress::Partial) => {}
        Err(refusal) => {
            reply::refuse_early(&connection, refusal).await;
        }
    }
    connection.worker.workspaces.put(workspace);
    if let Wire::Http2(stream) = &connection.stream {
        stream.finish();
    }
    drop(open);
}

pin_project! {
    /// A stream as a task. A panic in it ends that stream only.
    struct Contained<I: Io, F> {
        #[pin]
        task: F,
        worker: Rc<Worker<I>>,
    }
}

impl<I: Io, F: Future<Output = ()>> Future for Contained<I, F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        let polled = std::panic::catch_unwind(AssertUnwindSafe(|| this.task.poll(context)));
        polled.unwrap_or_else(|_| {
            this.worker.cells().panics.increment();
            Poll::Ready(())
        })
    }
}
