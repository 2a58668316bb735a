//! The connections of the webhook: their number, and how long they may take.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::error::plain;

/// The maximum number of connections, with those in their handshake. A further one ends the one
/// that matters least, so that silent clients cannot keep the API server out.
const CONNECTIONS_MAX: usize = 256;

/// How long a handshake may take.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);

/// How long the head and the body of a request may take.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);

/// How long a connection may be silent after an answer. The API server keeps connections for its
/// next reviews.
const SILENCE_LIMIT: Duration = Duration::from_secs(120);

/// The pause after a connection could not be accepted, for example for want of descriptors.
const PAUSE: Duration = Duration::from_millis(500);

/// The state of a connection. The first one in this order makes room for a further one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    /// It has had no answer.
    New,
    /// It has had an answer, and says nothing.
    Idle,
    /// It had an answer, and says more.
    Busy,
}

/// The connections.
#[derive(Default)]
struct Room {
    seats: BTreeMap<u64, Seat>,
    next: u64,
}

struct Seat {
    state: State,
    since: Instant,
    /// The connection ends when this is dropped.
    _end: oneshot::Sender<Infallible>,
}

/// The place of a connection in the room.
struct Place {
    room: Arc<Mutex<Room>>,
    number: u64,
    ended: oneshot::Receiver<Infallible>,
}

impl Place {
    /// Takes a place. If there is none, another connection ends.
    fn take(room: &Arc<Mutex<Room>>, now: Instant) -> Self {
        let mut locked = lock(room);
        if locked.seats.len() >= CONNECTIONS_MAX {
            let least = locked.seats.iter().min_by_key(|(_, seat)| (seat.state, seat.since));
            if let Some(number) = least.map(|(number, _)| *number) {
                locked.seats.remove(&number);
            }
        }
        let (end, ended) = oneshot::channel();
        let number = locked.next;
        locked.next += 1;
        locked.seats.insert(number, Seat { state: State::New, since: now, _end: end });
        drop(locked);
        Self { room: Arc::clone(room), number, ended }
    }

    fn is_now(&self, state: State, now: Instant) {
        if let Some(seat) = lock(&self.room).seats.get_mut(&self.number) {
            (seat.state, seat.since) = (state, now);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.room).seats.remove(&self.number);
    }
}

fn lock(room: &Mutex<Room>) -> MutexGuard<'_, Room> {
    room.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Accepts the connections of the webhook, and returns them after their handshakes.
pub(super) struct Incoming {
    socket: TcpListener,
    config: Arc<RwLock<Arc<ServerConfig>>>,
    room: Arc<Mutex<Room>>,
    handshakes: JoinSet<io::Result<Connection>>,
}

impl Incoming {
    pub(super) fn new(socket: TcpListener, config: Arc<RwLock<Arc<ServerConfig>>>) -> Self {
        Self { socket, config, room: Arc::default(), handshakes: JoinSet::new() }
    }
}

impl axum::serve::Listener for Incoming {
    type Io = Connection;
    type Addr = ();

    async fn accept(&mut self) -> (Connection, ()) {
        loop {
            tokio::select! {
                accepted = self.socket.accept() => match accepted {
                    Ok((stream, _)) => {
                        let config = self.config.read().unwrap_or_else(PoisonError::into_inner);
                        let tls = TlsAcceptor::from(Arc::clone(&config));
                        drop(config);
                        let place = Place::take(&self.room, Instant::now());
                        self.handshakes.spawn(handshake(tls, stream, place));
                    }
                    Err(error) => {
                        let error = plain(&error);
                        tracing::warn!(%error, "the webhook cannot accept a connection");
                        tokio::time::sleep(PAUSE).await;
                    }
                },
                // A failed handshake must not hide the next one that ends.
                Some(ended) = self.handshakes.join_next() => {
                    if let Ok(Ok(connection)) = ended {
                        return (connection, ());
                    }
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}

async fn handshake(
    tls: TlsAcceptor,
    stream: TcpStream,
    mut place: Place,
) -> io::Result<Connection> {
    stream.set_nodelay(true).ok();
    let late = || io::Error::from(io::ErrorKind::TimedOut);
    let done = tokio::select! {
        done = tokio::time::timeout(HANDSHAKE_LIMIT, tls.accept(stream)) => done,
        _ = &mut place.ended => return Err(late()),
    };
    let stream = done.map_err(|_| late())??;
    let limit = Box::pin(tokio::time::sleep(REQUEST_LIMIT));
    Ok(Connection { stream, limit, state: State::New, place, is_over: false })
}

/// A connection that ends when its client is too slow, or when another one needs its place.
pub(super) struct Connection {
    stream: TlsStream<TcpStream>,
    /// The end of the request, or of the silence after an answer.
    limit: Pin<Box<Sleep>>,
    state: State,
    place: Place,
    /// Another connection has its place.
    is_over: bool,
}

impl Connection {
    fn is_now(&mut self, state: State, limit: Duration) {
        let now = Instant::now();
        self.state = state;
        self.place.is_now(state, now);
        self.limit.as_mut().reset(now + limit);
    }

    /// Ready when the connection must end.
    fn end(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        // The channel must not be asked again after its end.
        self.is_over = self.is_over || Pin::new(&mut self.place.ended).poll(context).is_ready();
        if self.is_over {
            return Poll::Ready(io::ErrorKind::ConnectionAborted.into());
        }
        self.limit.as_mut().poll(context).map(|()| io::ErrorKind::TimedOut.into())
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // The limit comes first: a client may always have a further byte.
        if let Poll::Ready(error) = self.end(context) {
            return Poll::Ready(Err(error));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if self.state == State::Idle && buffer.filled().len() > before {
            self.is_now(State::Busy, REQUEST_LIMIT);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        match written {
            Poll::Ready(Ok(_)) => self.is_now(State::Idle, SILENCE_LIMIT),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => return self.end(context).map(Err),
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_flush(context) {
            Poll::Pending => self.end(context).map(Err),
            flushed => flushed,
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_shutdown(context) {
            Poll::Pending => self.end(context).map(Err),
            shut => shut,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has_ended(place: &mut Place) -> bool {
        place.ended.try_recv() == Err(oneshot::error::TryRecvError::Closed)
    }

    #[test]
    fn the_one_that_matters_least_makes_room() {
        let room = Arc::default();
        let begin = Instant::now();
        let at = |number: usize| begin + Duration::from_millis(number as u64);
        let take = |number| Place::take(&room, at(number));
        let mut places: Vec<Place> = (0..CONNECTIONS_MAX).map(take).collect();
        // The first two had answers, and one of them says more.
        places[0].is_now(State::Busy, at(300));
        places[1].is_now(State::Idle, at(301));
        let mut next = take(400);
        assert_eq!(lock(&room).seats.len(), CONNECTIONS_MAX);
        let ended = |places: &mut [Place]| {
            let ended = places
                .iter_mut()
                .enumerate()
                .filter_map(|(number, it)| has_ended(it).then_some(number));
            ended.collect::<Vec<_>>()
        };
        assert_eq!(ended(&mut places), [2]);
        for place in &places[2..] {
            place.is_now(State::Busy, at(500));
        }
        next.is_now(State::Busy, at(500));
        // Only an idle one is left to choose, and then the oldest of the busy ones.
        let more = take(600);
        more.is_now(State::Busy, at(600));
        assert!(has_ended(&mut places[1]) && !has_ended(&mut next));
        let _last = take(700);
        assert!(has_ended(&mut places[0]));
        drop(places);
        assert_eq!(lock(&room).seats.len(), 3);
    }
}
