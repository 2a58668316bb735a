//! Our connection, with an application that holds its streams.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use ringway::http1::sink::Sink;
use ringway::http2::{
    ClientStream, Config, Connection, Draft, EndpointStream, Fault, FloodLimits, Gone, Message,
    Peer, Sent, Settings, SharedConnection,
};
use ringway::message::{Head, HeadView, Limits};
use ringway::runtime::alarm::{Alarm, Alarms};
use ringway::runtime::buffer::{Buf, BufferPool};
use ringway::runtime::io::Read;
use ringway::time::Time;

use super::{
    Act, CONNECTION_WINDOW_BYTES, HEADER_BYTES, Line, Role, STREAM_WINDOW_BYTES, STREAMS_MAX, Seen,
    Side,
};

const NOW: Time = Time::from_micros(50_000);

/// The handle of an application to a stream.
enum Handle {
    Client(ClientStream),
    Endpoint(EndpointStream),
}

struct Open {
    handle: Handle,
    /// Data that waits to be sent, and whether the stream ends then, perhaps with trailers.
    waiting: Vec<u8>,
    end: Option<&'static [u8]>,
    is_sent: bool,
}

pub struct Ours {
    role: Role,
    connection: Rc<Connection>,
    shared: Rc<SharedConnection>,
    pool: BufferPool,
    received: Vec<u8>,
    open: BTreeMap<u32, Open>,
    seen: BTreeMap<u32, Seen>,
    next: u32,
    _alarm: Alarm,
}

impl Ours {
    pub fn new(role: Role) -> Self {
        let many = u32::MAX;
        let floods = FloodLimits {
            continuation_frames: many,
            stream_resets: many,
            provoked_resets: many,
            empty_frames: many,
            settings_frames: many,
            ping_frames: many,
            priority_frames: many,
            window_update_frames: many,
            other_frames: many,
            data_overhead_bytes: usize::MAX,
            ..FloodLimits::default()
        };
        let pool = BufferPool::default();
        let settings = Settings {
            streams_max: if role == Role::Server { STREAMS_MAX } else { 100 },
            stream_window_bytes: STREAM_WINDOW_BYTES,
            connection_window_bytes: CONNECTION_WINDOW_BYTES,
            ..Settings::default()
        };
        let config = Config {
            peer: if role == Role::Server { Peer::Client } else { Peer::Endpoint },
            message: &Limits { header_bytes: HEADER_BYTES, ..Limits::default() },
            floods,
            settings: &settings,
            header_timeout: Duration::from_secs(1),
            pool: pool.clone(),
            is_secure: false,
        };
        let connection = Connection::new(config, NOW);
        let alarm = Alarms::default().alarm();
        let wanted = Rc::new(Cell::new(false));
        let shared = SharedConnection::new(Rc::clone(&connection), None, wanted, alarm.wake());
        Self {
            role,
            connection,
            shared,
            pool,
            received: Vec::new(),
            open: BTreeMap::new(),
            seen: BTreeMap::new(),
            next: 1,
            _alarm: alarm,
        }
    }

    fn accept(&mut self) {
        while let Some(accepted) = self.connection.accept() {
            let seen = self.seen.entry(accepted.id).or_default();
            take_head(seen, &accepted.request);
            let handle = ClientStream::new(Rc::clone(&self.connection), accepted.id);
            let waiting = Vec::new();
            let handle = Handle::Client(handle);
            let open = Open { handle, waiting, end: None, is_sent: false };
            self.open.insert(accepted.id, open);
        }
    }

    /// Sends what waits, as far as it can be sent. Returns whether anything was sent.
    fn send(&mut self) -> bool {
        let mut progress = false;
        for open in self.open.values_mut().filter(|open| !open.is_sent) {
            if open.waiting.is_empty() && open.end.is_none() {
                continue;
            }
            let sent = match &open.handle {
                Handle::Client(stream) => stream.send_ready(&open.waiting, open.end),
                Handle::Endpoint(stream) => stream.send_ready(&open.waiting, open.end),
            };
            let bytes = match sent {
                Ok(Sent::All) => {
                    progress = true;
                    open.is_sent = open.end.is_some();
                    open.waiting.len()
                }
                Ok(Sent::Bytes(bytes)) => bytes,
                Err(_) => {
                    open.is_sent = true;
                    0
                }
            };
            progress |= bytes > 0;
            open.waiting.drain(..bytes);
        }
        progress
    }

    fn read(&mut self) {
        for (id, open) in &self.open {
            let seen = self.seen.entry(*id).or_default();
            if seen.cut || seen.refused || seen.ended {
                continue;
            }
            match &open.handle {
                Handle::Client(stream) => read_body(seen, |buf| now(stream.read(buf)), &self.pool),
                Handle::Endpoint(stream) => {
                    while !has_final_head(seen) && !seen.cut && !seen.refused {
                        let mut head = Head::default();
                        match now(stream.response(&mut head, || self.pool.take())) {
                            Poll::Pending => break,
                            Poll::Ready(Ok(buf)) => {
                                put_head(seen, head.view(buf.block()), false);
                                seen.body.extend_from_slice(&buf.data()[head.len..]);
                            }
                            Poll::Ready(Err(Gone::Refused(refusal))) => {
                                // A breach has reset the stream.
                                let breach = refusal.detail.contains("violated the HTTP/2");
                                (seen.cut, seen.refused) = (breach, !breach);
                            }
                            Poll::Ready(Err(_)) => seen.cut = true,
                        }
                    }
                    if has_final_head(seen) {
                        read_body(seen, |buf| now(stream.read(buf)), &self.pool);
                    }
                }
            }
            if seen.ended {
                seen.trailers = lines(&match &open.handle {
                    Handle::Client(stream) => stream.take_trailers(),
                    Handle::Endpoint(stream) => stream.take_trailers(),
                });
            }
        }
        for (id, open) in &self.open {
            if let Handle::Client(stream) = &open.handle
                && stream.poll_gone(&mut Context::from_waker(Waker::noop())).is_ready()
            {
                self.seen.entry(*id).or_default().cut = true;
            }
        }
    }
}

impl Side for Ours {
    fn receive(&mut self, bytes: &[u8]) {
        self.received.extend_from_slice(bytes);
        let read = self.connection.receive(&self.received, NOW);
        self.received.drain(..read);
    }

    fn can_open(&mut self) -> bool {
        !self.shared.is_closed() && self.shared.streams() < self.connection.streams_max()
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Open { ends, head } => {
                let stream = EndpointStream::new(self.shared.slot().expect("a slot"));
                let mut draft = Draft::default();
                draft.request_line(if head { b"HEAD" } else { b"POST" }, &[b"/"]);
                draft.authority(b"a");
                draft.end();
                stream.put_head(draft);
                stream.request(b"", ends.then_some(b"")).expect("a new stream");
                let handle = Handle::Endpoint(stream);
                let open = Open { handle, waiting: Vec::new(), end: None, is_sent: ends };
                self.open.insert(self.next, open);
                self.seen.entry(self.next).or_default();
                self.next += 2;
            }
            Act::Respond { id, status, ends } => {
                let Some(open) = self.open.get_mut(&id) else { return };
                let Handle::Client(stream) = &open.handle else { return };
                let mut draft = Draft::default();
                draft.status_line(status, b"");
                draft.end();
                stream.put_head(draft);
                stream.respond(b"", ends.then_some(b"")).ok();
                open.is_sent = ends;
            }
            Act::Data { id, bytes, ends } => {
                let Some(open) = self.open.get_mut(&id) else { return };
                open.waiting.resize(open.waiting.len() + bytes, b'x');
                open.end = ends.then_some(b"");
            }
            Act::Trailers { id } => {
                let Some(open) = self.open.get_mut(&id) else { return };
                open.end = Some(b"x-end: 1\r\n");
            }
            Act::Reset { id } | Act::Drop { id } => drop(self.open.remove(&id)),
        }
    }

    fn settle(&mut self, reads: bool) -> Vec<u8> {
        let mut said = Vec::new();
        loop {
            if self.role == Role::Server {
                self.accept();
            }
            let sent = self.send();
            if reads {
                self.read();
            }
            let Some(buf) = self.connection.transmit() else {
                if sent {
                    continue;
                }
                for (id, open) in &self.open {
                    self.seen.entry(*id).or_default().sent = open.is_sent;
                }
                return said;
            };
            said.extend_from_slice(buf.data());
            self.connection.written();
        }
    }

    fn seen(&self) -> &BTreeMap<u32, Seen> {
        &self.seen
    }

    fn is_over(&self) -> bool {
        self.connection.end().is_some()
    }
}

/// Polls a future once.
fn now<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

fn read_body(
    seen: &mut Seen,
    read: impl Fn(Buf) -> Poll<(std::io::Result<Read>, Buf)>,
    pool: &BufferPool,
) {
    while !seen.ended {
        match read(pool.take()) {
            Poll::Ready((Ok(Read::Data(_)), buf)) => seen.body.extend_from_slice(buf.data()),
            Poll::Ready((Ok(Read::End), _)) => seen.ended = true,
            Poll::Ready((Ok(Read::Woken) | Err(_), _)) => {
                seen.cut = true;
                return;
            }
            Poll::Pending => return,
        }
    }
}

fn has_final_head(seen: &Seen) -> bool {
    let status = seen.heads.last().and_then(|head| head.iter().find(|line| line.0 == b":status"));
    status.is_some_and(|line| line.1[0] != b'1')
}

fn take_head(seen: &mut Seen, message: &Message) {
    match message.fault {
        None => put_head(seen, message.head.view(&message.text), message.is_websocket()),
        Some(Fault::Refused(_) | Fault::TooLarge | Fault::Malformed(_)) => seen.refused = true,
    }
}

fn put_head(seen: &mut Seen, head: HeadView<'_>, is_websocket: bool) {
    let mut lines: Vec<Line> = Vec::new();
    if head.head.status == 0 {
        let method = if is_websocket { b"CONNECT" } else { head.method_name() };
        lines.push((b":method".to_vec(), method.to_vec()));
        if method != b"CONNECT" || is_websocket {
            lines.push((b":path".to_vec(), head.target().to_vec()));
        }
    } else {
        lines.push((b":status".to_vec(), head.head.status.to_string().into_bytes()));
    }
    lines.extend(head.fields().map(|(name, value)| (name.to_vec(), value.to_vec())));
    lines.sort_by(|one, other| one.0.cmp(&other.0));
    seen.heads.push(lines);
}

fn lines(text: &[u8]) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for line in text.split_inclusive(|&byte| byte == b'\n') {
        let line = line.strip_suffix(b"\r\n").expect("a line");
        let colon = line.iter().position(|&byte| byte == b':').expect("a colon");
        lines.push((line[..colon].to_vec(), line[colon + 2..].to_vec()));
    }
    lines.sort_by(|one, other| one.0.cmp(&other.0));
    lines
}
