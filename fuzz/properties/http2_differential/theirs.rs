//! The crate's connection, with the same application.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream, client, server};
use http::{HeaderMap, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    Act, CONNECTION_WINDOW_BYTES, HEADER_BYTES, Line, Role, STREAM_WINDOW_BYTES, STREAMS_MAX, Seen,
    Side,
};

/// The transport in memory: received bytes and written bytes.
#[derive(Clone, Default)]
struct Pipe(Rc<RefCell<(VecDeque<u8>, Vec<u8>)>>);

impl AsyncRead for Pipe {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let received = &mut self.0.borrow_mut().0;
        if received.is_empty() {
            return Poll::Pending;
        }
        let len = received.len().min(buf.remaining());
        buf.put_slice(&received.drain(..len).collect::<Vec<_>>());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().1.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

type Greeting = (client::SendRequest<Bytes>, client::Connection<Pipe, Bytes>);

enum State {
    ServerGreets(Box<server::Handshake<Pipe, Bytes>>),
    Server(Box<server::Connection<Pipe, Bytes>>),
    ClientGreets(Pin<Box<dyn Future<Output = Result<Greeting, h2::Error>>>>),
    Client(client::SendRequest<Bytes>, Box<client::Connection<Pipe, Bytes>>),
    Over,
}

/// The handles of an application to a stream.
#[derive(Default)]
struct Open {
    respond: Option<SendResponse<Bytes>>,
    response: Option<client::ResponseFuture>,
    send: Option<SendStream<Bytes>>,
    body: Option<RecvStream>,
    is_sent: bool,
}

pub struct Theirs {
    pipe: Pipe,
    state: State,
    open: BTreeMap<u32, Open>,
    seen: BTreeMap<u32, Seen>,
    next: u32,
}

const HOUR: Duration = Duration::from_secs(3600);

impl Theirs {
    pub fn new(role: Role) -> Self {
        let pipe = Pipe::default();
        let state = match role {
            Role::Server => {
                let mut builder = server::Builder::new();
                builder
                    .initial_window_size(STREAM_WINDOW_BYTES)
                    .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
                    .max_concurrent_streams(STREAMS_MAX)
                    .max_header_list_size(HEADER_BYTES as u32)
                    .max_concurrent_reset_streams(100_000)
                    .max_pending_accept_reset_streams(100_000)
                    .max_local_error_reset_streams(None)
                    .reset_stream_duration(HOUR)
                    .data_frame_budget(usize::MAX / 2)
                    .enable_connect_protocol();
                State::ServerGreets(builder.handshake(pipe.clone()).into())
            }
            Role::Client => {
                let mut builder = client::Builder::new();
                builder
                    .initial_window_size(STREAM_WINDOW_BYTES)
                    .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
                    .max_header_list_size(HEADER_BYTES as u32)
                    .max_concurrent_reset_streams(100_000)
                    .max_local_error_reset_streams(None)
                    .reset_stream_duration(HOUR)
                    .data_frame_budget(usize::MAX / 2)
                    .enable_push(false);
                let pipe = pipe.clone();
                State::ClientGreets(Box::pin(async move { builder.handshake(pipe).await }))
            }
        };
        Self { pipe, state, open: BTreeMap::new(), seen: BTreeMap::new(), next: 1 }
    }

    /// Lets the connection read and write.
    fn drive(&mut self) {
        let context = &mut Context::from_waker(Waker::noop());
        loop {
            match std::mem::replace(&mut self.state, State::Over) {
                State::ServerGreets(mut greeting) => match Pin::new(&mut greeting).poll(context) {
                    Poll::Ready(Ok(connection)) => self.state = State::Server(connection.into()),
                    Poll::Ready(Err(_)) => return,
                    Poll::Pending => {
                        self.state = State::ServerGreets(greeting);
                        return;
                    }
                },
                State::ClientGreets(mut greeting) => match greeting.as_mut().poll(context) {
                    Poll::Ready(Ok((ask, connection))) => {
                        self.state = State::Client(ask, connection.into());
                    }
                    Poll::Ready(Err(_)) => return,
                    Poll::Pending => {
                        self.state = State::ClientGreets(greeting);
                        return;
                    }
                },
                State::Server(mut connection) => match connection.poll_accept(context) {
                    Poll::Ready(Some(Ok((request, respond)))) => {
                        self.state = State::Server(connection);
                        self.accept(request, respond);
                    }
                    Poll::Ready(_) => return,
                    Poll::Pending => {
                        self.state = State::Server(connection);
                        return;
                    }
                },
                State::Client(ask, mut connection) => {
                    if Pin::new(&mut connection).poll(context).is_pending() {
                        self.state = State::Client(ask, connection);
                    }
                    return;
                }
                State::Over => return,
            }
        }
    }

    fn accept(&mut self, request: Request<RecvStream>, respond: SendResponse<Bytes>) {
        let id = respond.stream_id().as_u32();
        let (parts, body) = request.into_parts();
        let mut lines = vec![(b":method".to_vec(), parts.method.as_str().into())];
        if let Some(path) = parts.uri.path_and_query() {
            lines.push((b":path".to_vec(), path.as_str().into()));
        }
        put_fields(&mut lines, &parts.headers);
        if let Some(authority) = parts.uri.authority() {
            lines.retain(|line| line.0 != b"host");
            lines.push((b"host".to_vec(), authority.as_str().into()));
            lines.sort_by(|one, other| one.0.cmp(&other.0));
        }
        self.seen.entry(id).or_default().heads.push(lines);
        let open = Open { respond: Some(respond), body: Some(body), ..Open::default() };
        self.open.insert(id, open);
    }

    fn read(&mut self) {
        let context = &mut Context::from_waker(Waker::noop());
        for (id, open) in &mut self.open {
            let seen = self.seen.entry(*id).or_default();
            if let Some(response) = &mut open.response {
                while let Poll::Ready(Some(Ok(interim))) = response.poll_informational(context) {
                    put_response(seen, &interim);
                }
                match Pin::new(response).poll(context) {
                    Poll::Ready(Ok(last)) => {
                        put_response(seen, &last);
                        (open.body, open.response) = (Some(last.into_body()), None);
                    }
                    Poll::Ready(Err(_)) => (seen.cut, open.response) = (true, None),
                    Poll::Pending => {}
                }
            }
            if let Some(body) = open.body.as_mut().filter(|_| !seen.ended && !seen.cut) {
                read_body(seen, body, context);
            }
            if open.is_sent {
                continue;
            }
            let reset = match (&mut open.respond, &mut open.send) {
                (_, Some(send)) => send.poll_reset(context),
                (Some(respond), None) => respond.poll_reset(context),
                (None, None) => Poll::Pending,
            };
            seen.cut |= reset.is_ready();
        }
    }
}

impl Side for Theirs {
    fn receive(&mut self, bytes: &[u8]) {
        self.pipe.0.borrow_mut().0.extend(bytes);
    }

    fn can_open(&mut self) -> bool {
        let State::Client(ask, _) = &mut self.state else { return false };
        matches!(ask.poll_ready(&mut Context::from_waker(Waker::noop())), Poll::Ready(Ok(())))
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Open { ends, head } => {
                let State::Client(ask, _) = &mut self.state else { return };
                let method = if head { "HEAD" } else { "POST" };
                let request = Request::builder().method(method).uri("http://a/").body(()).unwrap();
                let (response, send) = ask.send_request(request, ends).expect("a new stream");
                let (response, send) = (Some(response), Some(send));
                let open = Open { response, send, is_sent: ends, ..Open::default() };
                self.open.insert(self.next, open);
                self.seen.entry(self.next).or_default();
                self.next += 2;
            }
            Act::Respond { id, status, ends } => {
                let Some(open) = self.open.get_mut(&id) else { return };
                let Some(respond) = &mut open.respond else { return };
                let response = Response::builder().status(status).body(()).unwrap();
                if status < 200 {
                    respond.send_informational(response).ok();
                    return;
                }
                open.send = respond.send_response(response, ends).ok();
                open.is_sent = ends;
            }
            Act::Data { id, bytes, ends } => {
                let Some(open) = self.open.get_mut(&id) else { return };
                let Some(send) = &mut open.send else { return };
                send.send_data(vec![b'x'; bytes].into(), ends).ok();
                open.is_sent = ends;
            }
            Act::Trailers { id } => {
                let Some(open) = self.open.get_mut(&id) else { return };
                let Some(send) = &mut open.send else { return };
                let mut trailers = HeaderMap::new();
                trailers.insert("x-end", "1".parse().unwrap());
                send.send_trailers(trailers).ok();
                open.is_sent = true;
            }
            Act::Reset { id } => {
                let Some(open) = self.open.remove(&id) else { return };
                // The codes with which our streams end.
                let code = match (&open.respond, open.is_sent) {
                    (None, _) => Reason::CANCEL,
                    (Some(_), true) => Reason::NO_ERROR,
                    (Some(_), false) => Reason::INTERNAL_ERROR,
                };
                match (open.send, open.respond) {
                    (Some(mut send), _) => send.send_reset(code),
                    (None, Some(mut respond)) => respond.send_reset(code),
                    (None, None) => {}
                }
            }
            Act::Drop { id } => drop(self.open.remove(&id)),
        }
    }

    fn settle(&mut self, reads: bool) -> Vec<u8> {
        self.drive();
        if reads {
            self.read();
        }
        for _ in 0..10 {
            self.drive();
        }
        std::mem::take(&mut self.pipe.0.borrow_mut().1)
    }

    fn seen(&self) -> &BTreeMap<u32, Seen> {
        &self.seen
    }

    fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }
}

fn read_body(seen: &mut Seen, body: &mut RecvStream, context: &mut Context<'_>) {
    loop {
        match body.poll_data(context) {
            Poll::Ready(Some(Ok(data))) => {
                seen.body.extend_from_slice(&data);
                body.flow_control().release_capacity(data.len()).ok();
            }
            Poll::Ready(Some(Err(_))) => {
                seen.cut = true;
                return;
            }
            Poll::Ready(None) => break,
            Poll::Pending => return,
        }
    }
    match body.poll_trailers(context) {
        Poll::Ready(Ok(trailers)) => {
            seen.ended = true;
            put_fields(&mut seen.trailers, &trailers.unwrap_or_default());
        }
        Poll::Ready(Err(_)) => seen.cut = true,
        Poll::Pending => {}
    }
}

fn put_response<T>(seen: &mut Seen, response: &Response<T>) {
    let mut lines = vec![(b":status".to_vec(), response.status().as_str().into())];
    put_fields(&mut lines, response.headers());
    seen.heads.push(lines);
}

/// Adds the fields of a message. The cookies of a request are one line.
fn put_fields(lines: &mut Vec<Line>, fields: &HeaderMap) {
    let is_request = lines.first().is_some_and(|line| line.0 == b":method");
    for name in fields.keys() {
        let values: Vec<_> = fields.get_all(name).iter().map(|v| v.as_bytes().to_vec()).collect();
        match name.as_str() {
            "cookie" if is_request => lines.push((b"cookie".to_vec(), values.join(&b"; "[..]))),
            name => lines.extend(values.into_iter().map(|value| (name.into(), value))),
        }
    }
    lines.sort_by(|one, other| one.0.cmp(&other.0));
}
