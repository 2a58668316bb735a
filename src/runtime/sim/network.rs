//! Simulated connections. Bytes are split at random, delayed, and lost after a reset.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::{SimIo, World};
use crate::net::Address;
use crate::runtime::alarm::Alarm;
use crate::runtime::buffer::Buf;
use crate::runtime::io::{Quiet, Read, SpliceError, Spliced, Stream};
use crate::time::Time;

/// The network conditions of a connection. Probabilities are between 0 and 1.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// The maximum latency of a portion.
    pub latency_max: Duration,
    /// The maximum number of bytes in one portion. The portion may be smaller at random.
    pub portion_bytes_max: usize,
    /// The maximum number of bytes in flight in one direction. When it is reached, the writer
    /// waits.
    pub window_bytes: usize,
    /// The probability that a portion is delayed by `stall`.
    pub stall_chance: f64,
    /// The extra delay of a stalled portion.
    pub stall: Duration,
    /// The probability that a connection will be reset.
    pub reset_chance: f64,
    /// If the connection is reset, the reset happens within this many bytes.
    pub reset_within_bytes: usize,
    /// The probability that connecting is refused.
    pub refuse_chance: f64,
    /// The probability that connecting neither succeeds nor fails.
    pub vanish_chance: f64,
    /// The probability that a datagram is lost.
    pub lost: f64,
    /// The probability that a datagram arrives twice.
    pub repeated: f64,
}

impl Weather {
    /// A fast network without errors.
    pub const CALM: Self = Self {
        latency_max: Duration::from_micros(50),
        portion_bytes_max: 64 * 1024,
        window_bytes: 256 * 1024,
        stall_chance: 0.0,
        stall: Duration::ZERO,
        reset_chance: 0.0,
        reset_within_bytes: 1,
        refuse_chance: 0.0,
        vanish_chance: 0.0,
        lost: 0.0,
        repeated: 0.0,
    };
}

/// Connections that are opened but not yet accepted.
pub(super) struct Backlog(Rc<RefCell<Waiting>>);

#[derive(Default)]
struct Waiting {
    streams: VecDeque<SimStream>,
    acceptors: Vec<Waker>,
    vanishes: bool,
}

/// A listening address.
pub struct SimListener {
    io: SimIo,
    address: Address,
    waiting: Rc<RefCell<Waiting>>,
}

impl SimListener {
    pub(super) fn open(io: &SimIo, address: &Address) -> Self {
        let waiting = Rc::new(RefCell::default());
        let backlog = Backlog(Rc::clone(&waiting));
        io.world.listeners.borrow_mut().insert(address.clone(), backlog);
        Self { io: io.clone(), address: address.clone(), waiting }
    }

    /// While `vanishes` is true, connecting neither succeeds nor fails, as without a network.
    pub fn vanish(&self, vanishes: bool) {
        self.waiting.borrow_mut().vanishes = vanishes;
    }

    /// Waits for the next connection.
    pub async fn accept(&self) -> SimStream {
        poll_fn(|context| {
            let mut waiting = self.waiting.borrow_mut();
            if let Some(stream) = waiting.streams.pop_front() {
                return Poll::Ready(stream);
            }
            waiting.acceptors.push(context.waker().clone());
            Poll::Pending
        })
        .await
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        self.io.world.listeners.borrow_mut().remove(&self.address);
    }
}

/// Opens a connection.
pub(super) async fn connect(io: &SimIo, to: &Address, weather: Weather) -> io::Result<SimStream> {
    let world = &io.world;
    io.sleep(world.up_to(weather.latency_max)).await;
    if world.chance(weather.vanish_chance) {
        std::future::pending::<()>().await;
    }
    let waiting = world.listeners.borrow().get(to).map(|backlog| Rc::clone(&backlog.0));
    let waiting = waiting.filter(|_| !world.chance(weather.refuse_chance));
    let Some(waiting) = waiting else { return Err(io::ErrorKind::ConnectionRefused.into()) };
    if waiting.borrow().vanishes {
        std::future::pending::<()>().await;
    }
    let (here, there) = SimStream::pair(world, weather);
    let mut waiting = waiting.borrow_mut();
    waiting.streams.push_back(there);
    waiting.acceptors.drain(..).for_each(Waker::wake);
    Ok(here)
}

/// One direction of a simulated connection.
struct Pipe {
    portions: VecDeque<Portion>,
    queued_bytes: usize,
    /// The arrival time of the last portion or of the end. Portions keep their order.
    last_arrival: Time,
    end: Option<Time>,
    reset: Option<Time>,
    reader_gone: bool,
    /// The number of bytes that a dropped read may lose, as on the ring.
    lost_bytes: usize,
    /// The tasks to wake at the next change, each with the time of its timer.
    waiting: Vec<(Option<Time>, Waker)>,
}

struct Portion {
    arrives: Time,
    bytes: Vec<u8>,
}

/// The state that both ends of a connection share.
struct Link {
    world: Rc<World>,
    weather: Weather,
    pipes: [RefCell<Pipe>; 2],
    /// The number of bytes after which the network resets the connection.
    resets_after: Cell<usize>,
}

/// One end of a simulated connection.
pub struct SimStream {
    link: Rc<Link>,
    /// The index of the pipe that this end writes to. It reads from the other pipe.
    side: usize,
    reset_on_close: Cell<bool>,
}

impl SimStream {
    /// Sends our FIN.
    fn end(&self) {
        let mut pipe = self.outbound().borrow_mut();
        if pipe.end.is_none() && pipe.reset.is_none() {
            let arrives = self.link.arrival(pipe.last_arrival);
            pipe.last_arrival = arrives;
            pipe.end = Some(arrives);
            pipe.wake();
        }
    }

    fn pair(world: &Rc<World>, weather: Weather) -> (Self, Self) {
        let doomed = world.chance(weather.reset_chance);
        let within = world.random.borrow_mut().usize(..weather.reset_within_bytes);
        let link = Rc::new(Link {
            world: Rc::clone(world),
            weather,
            pipes: [RefCell::new(Pipe::new()), RefCell::new(Pipe::new())],
            resets_after: Cell::new(if doomed { within } else { usize::MAX }),
        });
        let end = |side| Self { link: Rc::clone(&link), side, reset_on_close: Cell::new(false) };
        (end(0), end(1))
    }

    fn inbound(&self) -> &RefCell<Pipe> {
        &self.link.pipes[1 - self.side]
    }

    fn outbound(&self) -> &RefCell<Pipe> {
        &self.link.pipes[self.side]
    }

    fn poll_read(&self, buf: &mut Buf, context: &mut Context<'_>) -> Poll<io::Result<Read>> {
        let now = self.link.world.now.get();
        let mut pipe = self.inbound().borrow_mut();
        pipe.lose(now);
        if pipe.arrived(now) {
            // A read sometimes gets all bytes, sometimes fewer.
            let limit = match self.link.world.chance(0.5) {
                true => buf.room(),
                false => self.link.world.random.borrow_mut().usize(1..=buf.room()),
            };
            let n = pipe.read(now, limit, |bytes| {
                buf.append(bytes);
            });
            pipe.wake();
            return Poll::Ready(Ok(Read::Data(n)));
        }
        match pipe.over(now) {
            Some(result) => Poll::Ready(result.map(|()| Read::End)),
            None => {
                pipe.wait(&self.link.world, context);
                Poll::Pending
            }
        }
    }

    fn poll_readable(&self, context: &mut Context<'_>) -> Poll<()> {
        let now = self.link.world.now.get();
        let mut pipe = self.inbound().borrow_mut();
        pipe.lose(now);
        if pipe.arrived(now) || pipe.over(now).is_some() {
            return Poll::Ready(());
        }
        pipe.wait(&self.link.world, context);
        Poll::Pending
    }

    /// Waits for room. As on the ring, the wait ends when a third of the window is free.
    fn poll_room(&self, enough_bytes: usize, context: &mut Context<'_>) -> Poll<usize> {
        let link = &self.link;
        if self.inbound().borrow().is_reset(link.world.now.get()) {
            return Poll::Ready(usize::MAX);
        }
        let mut pipe = self.outbound().borrow_mut();
        let room = link.weather.window_bytes.saturating_sub(pipe.queued_bytes);
        if room >= enough_bytes || pipe.reader_gone || room > link.weather.window_bytes / 3 {
            return Poll::Ready(room);
        }
        pipe.waiting.push((None, context.waker().clone()));
        drop(pipe);
        // A reset that is in flight must also wake the writer.
        self.inbound().borrow_mut().wait(&link.world, context);
        Poll::Pending
    }

    /// Sends some of `bytes`.
    fn poll_write(&self, bytes: &[u8], context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let link = &self.link;
        let now = link.world.now.get();
        if self.inbound().borrow().is_reset(now) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let mut pipe = self.outbound().borrow_mut();
        let room = link.weather.window_bytes.saturating_sub(pipe.queued_bytes);
        if room == 0 {
            pipe.waiting.push((None, context.waker().clone()));
            drop(pipe);
            // A reset that is in flight must also wake the writer.
            self.inbound().borrow_mut().wait(&link.world, context);
            return Poll::Pending;
        }
        let n = link.portion(bytes.len().min(room));
        if pipe.reader_gone {
            self.inbound().borrow_mut().cut(now + link.latency());
        } else {
            let arrives = link.arrival(pipe.last_arrival);
            pipe.push(arrives, &bytes[..n]);
        }
        drop(pipe);
        link.count(n);
        Poll::Ready(Ok(n))
    }
}

impl Stream for SimStream {
    async fn read(&self, buf: Buf) -> (io::Result<Read>, Buf) {
        Reading { stream: self, buf: Some(buf), waited: false }.await
    }

    async fn read_or_woken(&self, buf: Buf, alarm: &Alarm) -> (io::Result<Read>, Buf) {
        let mut buf = buf;
        let result = poll_fn(|context| match self.poll_read(&mut buf, context) {
            Poll::Ready(read) => Poll::Ready(read),
            Poll::Pending => alarm.poll_woken(context).map(|_| Ok(Read::Woken)),
        })
        .await;
        (result, buf)
    }

    async fn readable(&self) -> io::Result<()> {
        poll_fn(|context| self.poll_readable(context)).await;
        Ok(())
    }

    async fn write_all(&self, mut buf: Buf) -> (io::Result<()>, Buf) {
        let window = buf.window();
        let mut result = Ok(());
        while !buf.is_empty() && result.is_ok() {
            let wrote = poll_fn(|context| self.poll_write(buf.data(), context)).await;
            result = wrote.map(|n| buf.consume(n));
        }
        buf.restore(window);
        (result, buf)
    }

    async fn room(&self, enough_bytes: usize) -> usize {
        poll_fn(|context| self.poll_room(enough_bytes, context)).await
    }

    fn quiet(&self) -> Quiet {
        let now = self.link.world.now.get();
        let pipe = self.inbound().borrow();
        match (pipe.arrived(now), pipe.over(now)) {
            (true, _) => Quiet::Data,
            (false, Some(Ok(()))) => Quiet::Ended,
            (false, Some(Err(_))) => Quiet::Closed,
            (false, None) => Quiet::Quiet,
        }
    }

    async fn shutdown_write(&self) {
        self.end();
    }

    fn reset_on_close(&self) {
        self.reset_on_close.set(true);
    }

    fn unsent_bytes(&self) -> usize {
        let now = self.link.world.now.get();
        if self.inbound().borrow().is_reset(now) {
            return 0;
        }
        let pipe = self.outbound().borrow();
        let waiting = pipe.portions.iter().filter(|portion| portion.arrives > now);
        waiting.map(|portion| portion.bytes.len()).sum()
    }

    async fn splice_to(
        &self,
        to: &Self,
        bytes_max: u64,
        mut moved: impl FnMut(u64),
    ) -> Result<Spliced, SpliceError> {
        let mut left = bytes_max;
        let mut between = Vec::new();
        while left > 0 {
            poll_fn(|context| self.poll_readable(context)).await;
            let now = self.link.world.now.get();
            {
                let mut pipe = self.inbound().borrow_mut();
                if !pipe.arrived(now) {
                    return match pipe.over(now) {
                        Some(Err(error)) => Err(SpliceError::Source(error)),
                        _ => Ok(Spliced::End),
                    };
                }
                let limit = usize::try_from(left).unwrap_or(usize::MAX);
                pipe.read(now, limit, |bytes| between.extend_from_slice(bytes));
                pipe.wake();
            }
            while !between.is_empty() {
                let wrote = poll_fn(|context| to.poll_write(&between, context)).await;
                let n = wrote.map_err(SpliceError::Sink)?;
                between.drain(..n);
                left -= n as u64;
                moved(n as u64);
            }
        }
        Ok(Spliced::Limit)
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        let unread = {
            let mut pipe = self.inbound().borrow_mut();
            pipe.reader_gone = true;
            let unread = !pipe.portions.is_empty();
            pipe.portions.clear();
            pipe.queued_bytes = 0;
            pipe.wake();
            unread
        };
        if unread || self.reset_on_close.get() {
            let at = self.link.world.now.get() + self.link.latency();
            self.outbound().borrow_mut().cut(at);
        } else {
            self.end();
        }
    }
}

/// A read. If the future is dropped while it waits, the next bytes may be lost, as on the ring.
struct Reading<'a> {
    stream: &'a SimStream,
    buf: Option<Buf>,
    waited: bool,
}

impl Future for Reading<'_> {
    type Output = (io::Result<Read>, Buf);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let stream = self.stream;
        let Some(buf) = self.buf.as_mut() else { return Poll::Pending };
        let read = stream.poll_read(buf, context);
        self.waited = read.is_pending();
        match (read, self.buf.take()) {
            (Poll::Ready(result), Some(buf)) => Poll::Ready((result, buf)),
            (_, buf) => {
                self.buf = buf;
                Poll::Pending
            }
        }
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        if self.waited
            && let Some(buf) = &self.buf
            && self.stream.link.world.chance(0.5)
        {
            self.stream.inbound().borrow_mut().lost_bytes = buf.room();
        }
    }
}

impl Link {
    fn latency(&self) -> Duration {
        let stalled = self.world.chance(self.weather.stall_chance);
        let stall = if stalled { self.weather.stall } else { Duration::ZERO };
        self.world.up_to(self.weather.latency_max) + stall
    }

    fn arrival(&self, last: Time) -> Time {
        last.max(self.world.now.get() + self.latency())
    }

    fn portion(&self, bytes: usize) -> usize {
        let max = bytes.min(self.weather.portion_bytes_max);
        match self.world.chance(0.3) {
            true => max,
            false => self.world.random.borrow_mut().usize(1..=max),
        }
    }

    /// Counts sent bytes. Resets the connection when `resets_after` is reached.
    fn count(&self, n: usize) {
        match self.resets_after.get().checked_sub(n) {
            Some(left) => self.resets_after.set(left),
            None => {
                let now = self.world.now.get();
                self.pipes.iter().for_each(|pipe| pipe.borrow_mut().cut(now + self.latency()));
            }
        }
    }
}

impl Pipe {
    fn new() -> Self {
        Self {
            portions: VecDeque::new(),
            queued_bytes: 0,
            last_arrival: Time::default(),
            end: None,
            reset: None,
            reader_gone: false,
            lost_bytes: 0,
            waiting: Vec::new(),
        }
    }

    /// Whether there are bytes to read.
    fn arrived(&self, now: Time) -> bool {
        self.portions.front().is_some_and(|portion| portion.arrives <= now)
    }

    /// Returns the end of the stream: `Ok` for an orderly end, an error for a reset. `None` before
    /// the end, or while arrived bytes are unread.
    fn over(&self, now: Time) -> Option<io::Result<()>> {
        if self.arrived(now) {
            return None;
        }
        if self.is_reset(now) {
            return Some(Err(io::ErrorKind::ConnectionReset.into()));
        }
        (self.portions.is_empty() && self.end.is_some_and(|end| end <= now)).then_some(Ok(()))
    }

    fn is_reset(&self, now: Time) -> bool {
        self.reset.is_some_and(|reset| reset <= now)
    }

    /// Passes up to `limit` arrived bytes to `sink`. Returns their number.
    fn read(&mut self, now: Time, limit: usize, mut sink: impl FnMut(&[u8])) -> usize {
        let mut read = 0;
        while read < limit && self.arrived(now) {
            let Some(portion) = self.portions.front_mut() else { break };
            let n = portion.bytes.len().min(limit - read);
            sink(&portion.bytes[..n]);
            portion.bytes.drain(..n);
            if portion.bytes.is_empty() {
                self.portions.pop_front();
            }
            read += n;
        }
        self.queued_bytes -= read;
        read
    }

    /// Discards arrived bytes, if a dropped read must lose them.
    fn lose(&mut self, now: Time) {
        if self.lost_bytes > 0 && self.arrived(now) {
            let limit = std::mem::take(&mut self.lost_bytes);
            self.read(now, limit, |_| {});
        }
    }

    fn push(&mut self, arrives: Time, bytes: &[u8]) {
        if self.reset.is_some() {
            return; // after a reset no bytes arrive
        }
        self.last_arrival = arrives;
        self.queued_bytes += bytes.len();
        self.portions.push_back(Portion { arrives, bytes: bytes.to_vec() });
        self.wake();
    }

    /// Resets the pipe at the time `at`. Portions that would arrive later are dropped.
    fn cut(&mut self, at: Time) {
        let at = self.reset.map_or(at, |earlier| earlier.min(at));
        self.reset = Some(at);
        self.portions.retain(|portion| portion.arrives <= at);
        self.queued_bytes = self.portions.iter().map(|portion| portion.bytes.len()).sum();
        self.wake();
    }

    /// Wakes the task of `context` at the next event in this pipe.
    fn wait(&mut self, world: &World, context: &Context<'_>) {
        let first = self.portions.front().map(|portion| portion.arrives);
        let next = first.into_iter().chain(self.end).chain(self.reset).min();
        let waiter = (next, context.waker().clone());
        if self.waiting.iter().any(|(at, waker)| *at == next && waker.will_wake(&waiter.1)) {
            return;
        }
        if let Some(at) = next {
            world.wake_at(at, context.waker());
        }
        self.waiting.push(waiter);
    }

    fn wake(&mut self) {
        self.waiting.drain(..).for_each(|(_, waker)| waker.wake());
    }
}
