//! One client connection, from accept to close.

use std::cell::Cell;
use std::future::Future;
use std::io::Write as _;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::arrival::Arrival;
use super::captured::{self, Caught};
use super::choose;
use super::exchange::{After, exchange};
use super::http2;
use super::registry::{ConnectionState, Registered, Registry, Using};
use super::reply;
use super::secure::{self, Secured};
use super::sni;
use super::tunnel;
use super::worker::{Local, LocalService, Worker};
use super::workspace::Workspace;
use crate::error::{Flag, Refusal};
use crate::http1::encode::ClientCert;
use crate::http1::parse::{self, Progress};
use crate::http2::PREFACE;
use crate::proxy_protocol;
use crate::runtime::alarm::Alarm;
use crate::runtime::buffer::Buf;
use crate::runtime::io::{Io, Read, Stream};
use crate::snapshot::{ForwardClientCert, Limits, Listener, Serves};
use crate::tls::Wire;
use crate::upstream::Upstream;

/// How long a kept-alive connection holds a buffer while it waits for its next request. A busy
/// client is served by one read; one that stays silent longer gives the buffer back and waits for
/// readiness alone.
pub const BUFFER_GRACE: Duration = Duration::from_millis(200);

/// How long, and for how many bytes, a connection that is being closed is still read, so that the
/// client gets to see the last answer instead of a reset.
pub const LINGER: Duration = Duration::from_secs(2);
/// See [`LINGER`].
pub const LINGER_BYTES_MAX: usize = 1024 * 1024;

/// One client connection.
pub struct Connection<I: Io> {
    /// The worker that owns it.
    pub worker: Rc<Worker<I>>,
    /// The socket.
    pub stream: Wire<I::Stream>,
    /// What is known of the client by TLS; `None` when it came in the clear.
    pub secured: Option<Rc<Secured>>,
    /// Its deadline, for whatever it waits for.
    pub alarm: Alarm,
    /// Who connected: the socket's peer, or whom the PROXY header named.
    pub peer: Option<SocketAddr>,
    /// The port that it came to; 0 where there is none.
    pub local_port: u16,
    /// Where it was meant to go, when it was captured.
    pub caught: Option<Rc<Caught<I>>>,
    /// The address of `peer` as text.
    pub peer_text: PeerText,
    registered: Registered,
    listener_name: Rc<str>,
    /// Version of the snapshot and the listener's index in it.
    listener_index: Cell<(u64, usize)>,
}

/// An IP address as text, formatted once a connection.
#[derive(Clone, Copy)]
pub struct PeerText {
    bytes: [u8; 45],
    len: u8,
}

impl PeerText {
    fn new(peer: Option<SocketAddr>) -> Self {
        let mut text = Self { bytes: [0; 45], len: 0 };
        let Some(peer) = peer else { return text };
        let mut cursor = std::io::Cursor::new(&mut text.bytes[..]);
        // 45 bytes hold the longest IPv6 address.
        write!(cursor, "{}", peer.ip().to_canonical()).ok();
        text.len = cursor.position() as u8;
        text
    }

    /// The text; empty for a Unix-domain socket.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.len as usize]).unwrap_or_default()
    }
}

impl<I: Io> Connection<I> {
    /// The same connection with `change` made of its stream.
    pub fn with_stream(self, change: impl FnOnce(Wire<I::Stream>) -> Wire<I::Stream>) -> Self {
        let Self { stream, .. } = self;
        Self { stream: change(stream), ..self }
    }

    /// The same connection without its stream, and the stream.
    pub fn take_stream(self) -> Option<(Self, Wire<I::Stream>)> {
        let mut taken = None;
        let rest = self.with_stream(|stream| {
            taken = Some(stream);
            Wire::Moved
        });
        Some((rest, taken?))
    }

    /// Another one beside it, of the same client: a stream of HTTP/2.
    pub fn beside(&self) -> Self {
        let alarm = self.worker.io.alarms().alarm();
        let registered = self.worker.registry.enter(Rc::clone(&self.listener_name), alarm.bell());
        Self {
            worker: Rc::clone(&self.worker),
            stream: Wire::Moved,
            secured: self.secured.clone(),
            alarm,
            peer: self.peer,
            local_port: self.local_port,
            caught: self.caught.clone(),
            peer_text: self.peer_text,
            registered,
            listener_name: Rc::clone(&self.listener_name),
            listener_index: self.listener_index.clone(),
        }
    }

    /// `https` or `http`.
    pub fn scheme(&self) -> &'static str {
        if self.secured.is_some() { "https" } else { "http" }
    }

    /// The SPIFFE ID that the client has proven.
    pub fn identity(&self) -> Option<&str> {
        let proven = self.secured.as_ref().and_then(|secured| secured.identity.as_ref());
        Some(proven.or_else(|| self.caught.as_ref()?.identity.as_ref())?.as_str())
    }

    /// What a service is told of the client's certificate.
    pub fn client_cert(&self, listener: &Listener) -> ClientCert<'_> {
        let element = self.secured.as_ref().and_then(|secured| secured.forwarded.as_deref());
        match (listener.forward_client_cert, element) {
            (ForwardClientCert::Set, Some(element)) => ClientCert::Set(element),
            (ForwardClientCert::Append, Some(element)) => ClientCert::Append(element),
            // Without a certificate nobody vouches for what the client says.
            _ => ClientCert::Drop,
        }
    }

    /// Whether it should close after what it does now.
    pub fn draining(&self) -> bool {
        self.registered.state.draining.get() || self.worker.draining()
    }

    /// Notes that it depends on `upstream`, for as long as the result lives.
    pub fn using(
        &self,
        service: &LocalService<I>,
        upstream: &Upstream<Wire<I::Stream>>,
    ) -> Option<Using<'_>> {
        let issued = upstream.stream.issued()?;
        Some(self.registered.state.using(&service.config, issued))
    }

    /// What others know and want of it.
    pub fn state(&self) -> &ConnectionState {
        &self.registered.state
    }

    /// Its listener in `local`'s snapshot; `None` when it has been removed.
    pub fn listener<'l>(&self, local: &'l Local<I>) -> Option<&'l Arc<Listener>> {
        let (version, index) = self.listener_index.get();
        if version != local.snapshot.version {
            let found = local
                .snapshot
                .listeners
                .binary_search_by(|listener| (*listener.name).cmp(&self.listener_name));
            let index = found.unwrap_or(usize::MAX);
            self.listener_index.set((local.snapshot.version, index));
            return local.snapshot.listeners.get(index);
        }
        local.snapshot.listeners.get(index)
    }

    /// How long it may wait for its next request; `None` when its listener has been removed.
    fn keep_alive_timeout(&self) -> Option<Duration> {
        let local = self.worker.local();
        Some(self.listener(&local)?.timeouts.keep_alive)
    }
}

/// Serves a connection until it closes.
///
/// Not an async function: that would keep its arguments beside the connection made of them for as
/// long as it runs, and this is what an idle connection holds.
pub fn serve<I: Io>(
    worker: Rc<Worker<I>>,
    stream: I::Stream,
    listener_name: Rc<str>,
    arrival: Arrival,
) -> impl Future<Output = ()> {
    let Arrival { peer, port, original } = arrival;
    let alarm = worker.io.alarms().alarm();
    let registered = worker.registry.enter(Rc::clone(&listener_name), alarm.bell());
    let state = Rc::clone(&registered.state);
    let mut connection = Connection {
        stream: Wire::Plain(stream),
        secured: None,
        local_port: port,
        caught: None,
        alarm,
        peer,
        peer_text: PeerText::new(peer),
        registered,
        listener_name,
        listener_index: Cell::new((u64::MAX, 0)),
        worker,
    };
    Registry::cuttable(&state, async move {
        let Some(listener) = connection.listener(&connection.worker.local()).cloned() else {
            return;
        };
        if let Some(original) = original {
            return Box::pin(captured::serve(connection, listener, original)).await;
        }
        let mut first = match listener.proxy_protocol {
            false => None,
            true => match Box::pin(proxy_header(&mut connection, &listener)).await {
                Ok(first) => first,
                Err(Hopeless) => return,
            },
        };
        if let Some(tls) = &listener.tls {
            let accept = Box::pin(secure::accept(connection, &listener, tls, first));
            let Some(opened) = accept.await else { return };
            (connection, first) = opened;
        }
        match listener.serves {
            Serves::Http(_) => {
                let timeout = listener.timeouts.header;
                let speaks_http2 = listener.http2.is_some();
                let only_http2 = !listener.http1;
                drop(listener);
                let chosen = connection.stream.tls().map(|tls| tls.session(choose::is_http2));
                if only_http2 || chosen == Some(true) {
                    return Box::pin(http2::serve(connection, first)).await;
                }
                match serve_http(&connection, timeout, speaks_http2, first).await {
                    Some(preface) => Box::pin(http2::serve(connection, Some(preface))).await,
                    None if connection.secured.is_some() => {
                        Box::pin(secure::close(&connection)).await;
                    }
                    None => {}
                }
            }
            Serves::Tcp(destination) => {
                Box::pin(tunnel::serve_tcp(&connection, &listener, destination, first)).await;
            }
            Serves::Tls(_) => Box::pin(sni::serve(&connection, &listener, first)).await,
            Serves::Captured(_) => {} // without an original destination there is nothing to do
        }
    })
}

/// Serves a connection that speaks HTTP, until it closes.
pub async fn speak_http<I: Io>(
    connection: Connection<I>,
    first_timeout: Duration,
    speaks_http2: bool,
    first: Option<Buf>,
) {
    if connection.stream.tls().is_some_and(|tls| tls.session(choose::is_http2)) {
        return Box::pin(http2::serve(connection, first)).await;
    }
    match serve_http(&connection, first_timeout, speaks_http2, first).await {
        Some(preface) => Box::pin(http2::serve(connection, Some(preface))).await,
        None if connection.secured.is_some() => Box::pin(secure::close(&connection)).await,
        None => {}
    }
}

/// The connection is to be closed without another word.
struct Hopeless;

/// Reads the PROXY protocol header. Gives what was read beyond it.
async fn proxy_header<I: Io>(
    connection: &mut Connection<I>,
    listener: &Listener,
) -> Result<Option<Buf>, Hopeless> {
    let io = &connection.worker.io;
    connection.alarm.set(io.now() + listener.timeouts.header);
    let mut buf = io.buffers().take();
    let (len, source) = loop {
        match proxy_protocol::parse(buf.data()) {
            Ok(proxy_protocol::Progress::Complete { len, source, .. }) => break (len, source),
            Ok(proxy_protocol::Progress::Partial) if buf.room() > 0 => {}
            Ok(proxy_protocol::Progress::Partial) | Err(_) => {
                listener.stats.worker(connection.worker.index).refused.increment();
                return Err(Hopeless);
            }
        }
        let Ok((Ok(Read::Data(_)), back)) =
            connection.alarm.guard(connection.stream.read(buf)).await
        else {
            return Err(Hopeless);
        };
        buf = back;
    };
    buf.consume(len);
    if source.is_some() {
        connection.peer = source;
        connection.peer_text = PeerText::new(source);
    }
    Ok((!buf.is_empty()).then_some(buf))
}

/// Whether a connection begins as one of HTTP/2 with prior knowledge. Four bytes tell.
fn is_preface(begin: &[u8]) -> bool {
    begin.len() >= PREFACE_TELLS && PREFACE.starts_with(&begin[..begin.len().min(PREFACE.len())])
}

/// Bytes of the preface that no request of HTTP/1.1 begins with.
const PREFACE_TELLS: usize = 4;

/// Whether it cannot be told yet: there are methods that begin with the same letter.
fn may_become_preface(begin: &[u8]) -> bool {
    begin.len() < PREFACE_TELLS && PREFACE.starts_with(begin)
}

/// Reads until it can be told; `None` when the client leaves before, or takes too long.
async fn read_preface<I: Io>(
    connection: &Connection<I>,
    mut buf: Buf,
    timeout: Duration,
) -> Option<Buf> {
    connection.alarm.set(connection.worker.io.now() + timeout);
    while may_become_preface(buf.data()) {
        buf.make_room(1);
        let read = connection.alarm.guard(connection.stream.read(buf)).await;
        let Ok((Ok(Read::Data(_)), back)) = read else { return None };
        buf = back;
    }
    Some(buf)
}

/// Exchange after exchange, until one says that it was the last. Gives what it has read when that
/// turns out to be HTTP/2.
async fn serve_http<I: Io>(
    connection: &Connection<I>,
    first_timeout: Duration,
    speaks_http2: bool,
    mut pending: Option<Buf>,
) -> Option<Buf> {
    let mut waiting = Waiting { timeout: first_timeout, first: true };
    loop {
        let mut buf = await_bytes(connection, pending, &waiting).await?;
        if waiting.first && speaks_http2 {
            if may_become_preface(buf.data()) {
                buf = Box::pin(read_preface(connection, buf, first_timeout)).await?;
            }
            if is_preface(buf.data()) {
                return Some(buf);
            }
        }
        let mut workspace = connection.worker.workspaces.take();
        let after = match read_head(connection, &mut workspace, buf).await {
            // Boxed, because a connection that waits for its next request must not be as large
            // as one that serves it.
            Ok(Some(buf)) => Box::pin(exchange(connection, &mut workspace, buf)).await,
            Ok(None) => After::Close,
            Err(refusal) => Box::pin(reply::refuse_early(connection, refusal)).await,
        };
        connection.worker.workspaces.put(workspace);
        pending = match after {
            After::Next(buf) => (!buf.is_empty()).then_some(buf),
            After::Linger => {
                let Connection { worker, alarm, stream, .. } = connection;
                Box::pin(linger(&worker.io, alarm, stream)).await;
                return None;
            }
            After::Close => return None,
        };
        if connection.draining() && pending.is_none() {
            return None;
        }
        let timeout = connection.keep_alive_timeout()?;
        waiting = Waiting { timeout, first: false };
    }
}

/// What a connection between two requests waits for.
struct Waiting {
    timeout: Duration,
    first: bool,
}

/// Waits for the first bytes of a request; `None` when none come.
async fn await_bytes<I: Io>(
    connection: &Connection<I>,
    pending: Option<Buf>,
    waiting: &Waiting,
) -> Option<Buf> {
    if pending.is_some() {
        return pending;
    }
    let io = &connection.worker.io;
    let idle = IdleMark::new(&connection.registered, !waiting.first);
    // After an exchange the time was asked for just now.
    let since = if waiting.first { io.now() } else { io.recent() };
    if !io.buffers().is_crowded() {
        connection.alarm.set(since + waiting.timeout.min(BUFFER_GRACE));
        // Boxed for the sake of the second, long wait: it is all that an idle connection holds.
        let read = connection.stream.read_or_rang(io.buffers().take(), &connection.alarm);
        let (result, buf) = Box::pin(read).await;
        match result {
            Ok(Read::Data(_)) => return Some(buf),
            Ok(Read::End) | Err(_) => return None,
            Ok(Read::Rang) => drop(buf),
        }
    }
    connection.alarm.set(since + waiting.timeout);
    if idle.drained() {
        return None;
    }
    connection.alarm.guard(connection.stream.readable()).await.ok()?.ok()?;
    drop(idle);
    let (result, buf) = Box::pin(connection.stream.read(io.buffers().take())).await;
    matches!(result, Ok(Read::Data(_))).then_some(buf)
}

/// Marks a connection as waiting between two requests, which a drain may end at once.
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

/// Takes the head of a request apart, once it is complete. `None` when the client left in the
/// middle of it.
async fn read_head<I: Io>(
    connection: &Connection<I>,
    workspace: &mut Workspace,
    buf: Buf,
) -> Result<Option<Buf>, Refusal> {
    let limits = connection.worker.local().snapshot.limits;
    match parse::request(buf.block(), buf.window(), &limits, &mut workspace.request)? {
        Progress::Complete => Ok(Some(buf)),
        // Boxed: it is rare, and would make every connection larger.
        Progress::Partial => Box::pin(read_rest(connection, workspace, buf, limits)).await,
    }
}

/// Reads until the head is complete.
async fn read_rest<I: Io>(
    connection: &Connection<I>,
    workspace: &mut Workspace,
    mut buf: Buf,
    limits: Limits,
) -> Result<Option<Buf>, Refusal> {
    let timeout = {
        let local = connection.worker.local();
        let Some(listener) = connection.listener(&local) else { return Ok(None) };
        listener.timeouts.header
    };
    connection.alarm.set(connection.worker.io.now() + timeout);
    loop {
        buf.make_room(1);
        if buf.room() == 0 {
            // The parser refuses a head over the limit, so this ends there.
            let wanted = (buf.len() * 2).min(limits.header_bytes + 1);
            buf = buf.grown(wanted);
        }
        match connection.alarm.guard(connection.stream.read(buf)).await {
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

/// Ends our side and reads what the client still sends, for a short while, so that our last words
/// are not lost to a reset.
pub(super) async fn linger<I: Io>(io: &I, alarm: &Alarm, stream: &Wire<I::Stream>) {
    alarm.set(io.now() + LINGER);
    if alarm.guard(stream.shutdown_write()).await.is_err() {
        return;
    }
    let mut buf = io.buffers().take();
    let mut seen_bytes = 0;
    while seen_bytes < LINGER_BYTES_MAX {
        match alarm.guard(stream.read(buf)).await {
            Ok((Ok(Read::Data(n)), back)) => {
                seen_bytes += n;
                buf = back;
                buf.clear();
            }
            _ => return,
        }
    }
}
