//! One client connection, from accept to close.

use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::{captured, http2, secure};
use crate::error::{Flag, Refusal};
use crate::http1::parse::{self, Progress};
use crate::http2::PREFACE;
use crate::l4::Arrival;
use crate::l4::{sni, tcp};
use crate::message::Limits;
use crate::proxy_protocol;
use crate::runtime::buffer::Buf;
use crate::runtime::contained::boxed;
use crate::runtime::io::{Io, Quiet, Read, Stream};
use crate::serve::exchange::{After, exchange};
use crate::serve::record::ExchangeRecord;
use crate::serve::registry::{Registered, Registry};
use crate::serve::workspace::Workspace;
use crate::serve::{Downstream, Peer, Worker, reply};
use crate::snapshot::{Listener, Serves};
use crate::upstream::choose;

/// How long a kept-alive connection holds a buffer while it waits for its next request. A request
/// within this time needs only one read. After this time the connection returns the buffer and
/// waits for readiness.
pub const BUFFER_GRACE: Duration = Duration::from_millis(200);

/// Serves a connection until it closes.
///
/// The function is not async, because an async function would keep its arguments in memory. An idle
/// connection would then be larger.
pub fn serve<I: Io>(
    worker: Rc<Worker<I>>,
    stream: I::Stream,
    listener_name: Rc<str>,
    arrival: Arrival,
) -> impl Future<Output = ()> {
    let Arrival { peer, port, original } = arrival;
    let mut downstream = Downstream::new(worker, stream, listener_name, Peer::new(peer, port));
    let state = Rc::clone(&downstream.registered().state);
    Registry::cuttable(&state, async move {
        let local = downstream.local();
        let Some((listener, _)) = downstream.listener(&local) else { return };
        let listener = Arc::clone(listener);
        drop(local);
        if let Some(original) = original {
            return Box::pin(captured::serve(downstream, listener, original)).await;
        }
        let mut first = match listener.proxy_protocol {
            false => None,
            true => match Box::pin(proxy_header(&mut downstream, &listener)).await {
                Ok(first) => first,
                Err(Hopeless) => return,
            },
        };
        if let Err(refusal) = downstream.count_source(&listener) {
            listener.stats.worker(downstream.worker.index).source_overflow.increment();
            return record_refusal(&downstream, &refusal);
        }
        if let Some(tls) = &listener.tls {
            let accept = Box::pin(secure::accept(downstream, &listener, tls, first));
            let Some(opened) = accept.await else { return };
            (downstream, first) = opened;
        }
        match listener.serves {
            Serves::Http(_) => {
                let timeout = listener.timeouts.header;
                let speaks_http2 = listener.http2.is_some();
                let only_http2 = !listener.http1;
                drop(listener);
                let chosen = downstream.stream.tls().map(|tls| tls.session(choose::is_http2));
                if only_http2 || chosen == Some(true) {
                    return Box::pin(http2::serve(downstream, first)).await;
                }
                match serve_http(&downstream, timeout, speaks_http2, first).await {
                    Some(preface) => Box::pin(http2::serve(downstream, Some(preface))).await,
                    None if downstream.peer.secured.is_some() => {
                        Box::pin(secure::close(&downstream)).await;
                    }
                    None => {}
                }
            }
            Serves::Tcp(_) => {
                drop(listener);
                let tunnel = Box::pin(tcp::begin(&downstream, first)).await;
                if let Some(tunnel) = tunnel {
                    Box::pin(tunnel.run(&downstream)).await;
                }
            }
            Serves::Tls(_) => {
                let tunnel = Box::pin(sni::begin(&downstream, &listener, first)).await;
                drop(listener);
                if let Some(tunnel) = tunnel {
                    Box::pin(tunnel.run(&downstream)).await;
                }
            }
            // Captured connections are served above, and QUIC has no connections.
            Serves::Captured(_) | Serves::Quic(_) => {}
        }
    })
}

/// Serves an HTTP connection until it closes.
pub async fn speak_http<I: Io>(
    downstream: Downstream<I>,
    first_timeout: Duration,
    speaks_http2: bool,
    first: Option<Buf>,
) {
    if downstream.stream.tls().is_some_and(|tls| tls.session(choose::is_http2)) {
        return Box::pin(http2::serve(downstream, first)).await;
    }
    match serve_http(&downstream, first_timeout, speaks_http2, first).await {
        Some(preface) => Box::pin(http2::serve(downstream, Some(preface))).await,
        None if downstream.peer.secured.is_some() => Box::pin(secure::close(&downstream)).await,
        None => {}
    }
}

/// The connection must be closed without a response.
struct Hopeless;

/// Reads the PROXY protocol header. Returns the bytes that were read after it.
async fn proxy_header<I: Io>(
    downstream: &mut Downstream<I>,
    listener: &Listener,
) -> Result<Option<Buf>, Hopeless> {
    let io = &downstream.worker.io;
    downstream.alarm.set(io.now() + listener.timeouts.header);
    let mut buf = io.buffers().take();
    let (len, source, tls) = loop {
        match proxy_protocol::parse(buf.data()) {
            Ok(proxy_protocol::Progress::Complete { len, source, tls, .. }) => {
                break (len, source, tls);
            }
            Ok(proxy_protocol::Progress::Partial) if buf.room() > 0 => {}
            Ok(proxy_protocol::Progress::Partial) | Err(_) => {
                refuse(downstream, listener, &NO_PROXY_HEADER);
                return Err(Hopeless);
            }
        }
        let Ok((Ok(Read::Data(_)), back)) =
            downstream.alarm.guard(downstream.stream.read(buf)).await
        else {
            return Err(Hopeless);
        };
        buf = back;
    };
    buf.consume(len);
    downstream.peer_mut().tls_before = tls;
    if let Some(source) = source {
        downstream.peer_mut().set_address(source);
    }
    Ok((!buf.is_empty()).then_some(buf))
}

const NO_PROXY_HEADER: Refusal =
    Refusal::downstream(0, "the connection does not begin with a PROXY header");

/// Counts and records the refusal of a connection before its first request.
fn refuse<I: Io>(downstream: &Downstream<I>, listener: &Listener, refusal: &Refusal) {
    listener.stats.worker(downstream.worker.index).refused.increment();
    record_refusal(downstream, refusal);
}

fn record_refusal<I: Io>(downstream: &Downstream<I>, refusal: &Refusal) {
    let local = downstream.local();
    if let Some((_, terms)) = downstream.listener(&local) {
        ExchangeRecord::open(downstream, terms).set_refusal(refusal);
    }
}

/// Whether the first bytes of a connection are the HTTP/2 preface (prior knowledge). Four bytes are
/// enough.
fn is_preface(begin: &[u8]) -> bool {
    begin.len() >= PREFACE_TELLS && PREFACE.starts_with(&begin[..begin.len().min(PREFACE.len())])
}

/// The number of first bytes that distinguish the preface from an HTTP/1.1 request.
const PREFACE_TELLS: usize = 4;

/// Whether `begin` is too short to recognise the preface. Other methods, such as PROPFIND, begin
/// with the same letters.
fn may_become_preface(begin: &[u8]) -> bool {
    begin.len() < PREFACE_TELLS && PREFACE.starts_with(begin)
}

/// Reads until the preface can be recognised. Returns `None` when the client closes or is too slow.
async fn read_preface<I: Io>(
    downstream: &Downstream<I>,
    mut buf: Buf,
    timeout: Duration,
) -> Option<Buf> {
    downstream.alarm.set(downstream.worker.io.now() + timeout);
    while may_become_preface(buf.data()) {
        buf.make_room(1);
        let read = downstream.alarm.guard(downstream.stream.read(buf)).await;
        let Ok((Ok(Read::Data(_)), back)) = read else { return None };
        buf = back;
    }
    Some(buf)
}

/// Serves exchanges until the connection closes. If the connection is HTTP/2, returns the bytes
/// that were read.
///
/// The function is not async: see [`serve`].
fn serve_http<I: Io>(
    downstream: &Downstream<I>,
    first_timeout: Duration,
    speaks_http2: bool,
    mut pending: Option<Buf>,
) -> impl Future<Output = Option<Buf>> {
    let requests_max = downstream.terms().map_or(u32::MAX, |terms| terms.requests_max);
    let mut waiting = Waiting { timeout: first_timeout, first: true, requests_max };
    async move {
        let mut served = 0_u32;
        loop {
            let mut buf = match pending.take() {
                Some(buf) => buf,
                None => await_bytes(downstream, &waiting).await?,
            };
            if waiting.first && speaks_http2 {
                if may_become_preface(buf.data()) {
                    buf = Box::pin(read_preface(downstream, buf, waiting.timeout)).await?;
                }
                if is_preface(buf.data()) {
                    return Some(buf);
                }
            }
            served = served.saturating_add(1);
            if served >= waiting.requests_max {
                // Draining makes the response announce that the connection closes.
                downstream.state().draining.set(true);
            }
            let mut workspace = downstream.worker.workspaces.take();
            let after = match read_head(downstream, &mut workspace, buf).await {
                // Boxed, because a connection that waits must not be as large as one that serves a
                // request.
                Ok(Some(buf)) => boxed(|| exchange(downstream, &mut workspace, buf)).await,
                Ok(None) => After::Close,
                Err(refusal) => Box::pin(reply::refuse_early(downstream, refusal)).await,
            };
            downstream.worker.workspaces.put(workspace);
            match after {
                After::Next(buf) => pending = buf.filter(|buf| !buf.is_empty()),
                After::Linger => {
                    Box::pin(downstream.linger()).await;
                    return None;
                }
                After::Close => return None,
                After::Tunnel(tunnel) => {
                    Box::pin(tunnel.run(downstream)).await;
                    return None;
                }
            }
            if downstream.draining() && pending.is_none() {
                return None;
            }
            let terms = downstream.terms()?;
            let (timeout, requests_max) = (terms.timeouts.keep_alive, terms.requests_max);
            drop(terms);
            waiting = Waiting { timeout, first: false, requests_max };
        }
    }
}

/// The limits while a connection waits for its next request.
struct Waiting {
    timeout: Duration,
    first: bool,
    /// The number of requests after which the connection closes.
    requests_max: u32,
}

/// Waits for the first bytes of a request. Returns `None` when none arrive.
async fn await_bytes<I: Io>(downstream: &Downstream<I>, waiting: &Waiting) -> Option<Buf> {
    let io = &downstream.worker.io;
    let idle = IdleMark::new(downstream.registered(), !waiting.first);
    // After an exchange the stored time is recent enough.
    let since = if waiting.first { io.now() } else { io.recent() };
    if !io.buffers().is_crowded() {
        downstream.alarm.set(since + waiting.timeout.min(BUFFER_GRACE));
        // Boxed, so that an idle connection holds only the state of the second, long wait.
        let read = || downstream.stream.read_or_woken(io.buffers().take(), &downstream.alarm);
        let (result, buf) = boxed(read).await;
        match result {
            Ok(Read::Data(_)) => return Some(buf),
            Ok(Read::End) | Err(_) => return None,
            Ok(Read::Woken) => drop(buf),
        }
    }
    downstream.alarm.set(since + waiting.timeout);
    // A request that has arrived is served, even when the connection is about to close.
    let has_bytes = || downstream.stream.quiet() != Quiet::Quiet;
    if idle.drained() && !has_bytes() {
        return None;
    }
    match downstream.alarm.guard(downstream.stream.readable()).await {
        Ok(ready) => ready.ok()?,
        Err(_) if has_bytes() => {}
        Err(_) => return None,
    }
    drop(idle);
    // This read may wait although the socket is readable, because a TLS client may have sent only a
    // part of a record.
    downstream.alarm.set(io.now() + downstream.terms()?.timeouts.header);
    let reading = Box::pin(downstream.stream.read(io.buffers().take()));
    let (result, buf) = downstream.alarm.guard(reading).await.ok()?;
    matches!(result, Ok(Read::Data(_))).then_some(buf)
}

/// Marks a connection as idle between two requests. A drain may close it at once.
struct IdleMark<'a>(&'a Registered, bool);

impl<'a> IdleMark<'a> {
    fn new(registered: &'a Registered, between_requests: bool) -> Self {
        registered.state.idle.set(between_requests);
        Self(registered, between_requests)
    }

    fn drained(&self) -> bool {
        self.1 && self.0.state.draining.get()
    }
}

impl Drop for IdleMark<'_> {
    fn drop(&mut self) {
        self.0.state.idle.set(false);
    }
}

/// Parses the head of a request. Reads the rest if the head is incomplete. Returns `None` if the
/// client closes the connection first.
async fn read_head<I: Io>(
    downstream: &Downstream<I>,
    workspace: &mut Workspace,
    buf: Buf,
) -> Result<Option<Buf>, Refusal> {
    let limits = downstream.worker.local().snapshot.limits.message;
    match parse::request(buf.block(), buf.window(), &limits, &mut workspace.request)? {
        Progress::Complete => Ok(Some(buf)),
        // Boxed, because this read is rare and would enlarge every connection.
        Progress::Partial => Box::pin(read_rest(downstream, workspace, buf, limits)).await,
    }
}

/// Reads until the head is complete.
async fn read_rest<I: Io>(
    downstream: &Downstream<I>,
    workspace: &mut Workspace,
    mut buf: Buf,
    limits: Limits,
) -> Result<Option<Buf>, Refusal> {
    let timeout = {
        let Some(terms) = downstream.terms() else { return Ok(None) };
        terms.timeouts.header
    };
    downstream.alarm.set(downstream.worker.io.now() + timeout);
    loop {
        buf.make_room(1);
        if buf.room() == 0 {
            // The parser refuses a head that exceeds the limit, so the buffer grows no further.
            let wanted = (buf.len() * 2).min(limits.header_bytes + 1);
            buf = buf.grown(wanted);
        }
        match downstream.alarm.guard(downstream.stream.read(buf)).await {
            Ok((Ok(Read::Data(_)), back)) => buf = back,
            Ok(_) => return Ok(None),
            Err(_) => {
                let detail = "the request head was not complete within its timeout";
                return Err(Refusal { status: 408, flag: Flag::DownstreamTimeout, detail });
            }
        }
        match parse::request(buf.block(), buf.window(), &limits, &mut workspace.request)? {
            Progress::Complete => return Ok(Some(buf)),
            Progress::Partial => {}
        }
    }
}
