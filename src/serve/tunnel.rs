//! Tunnels: they relay bytes between a client and an endpoint, for TCP listeners, upgraded
//! connections and CONNECT.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use super::downstream::Downstream;
use super::exchange::Switched;
use super::pace::Pace;
use super::plan::Plan;
use super::record::ExchangeRecord;
use super::relay::IDLE;
use crate::error::Flag;
use crate::resilience::{Slot, Way};
use crate::runtime::alarm::Alarm;
use crate::runtime::buffer::Buf;
use crate::runtime::contained::boxed;
use crate::runtime::io::{Io, Read, SpliceError, Spliced, Stream};
use crate::time::Time;
use crate::upstream::{Attempt, LocalService, Outcome, Upstream};
use crate::wire::{Wire, delivered};

/// The number of bytes that a direction must move in consecutive large portions. After that,
/// splice(2) moves its bytes.
pub const BULK_BYTES: usize = 256 * 1024;

/// The minimum size of a portion that counts towards [`BULK_BYTES`]. A smaller portion resets the
/// count.
pub const BULK_PORTION_BYTES: usize = 8 * 1024;

/// The time without bytes after which a direction returns its buffer to the pool.
const BUFFER_GRACE: Duration = Duration::from_millis(200);

/// A tunnel between a client and an endpoint. It may exist for a long time, so it holds only the
/// values that it needs, and no snapshot.
pub struct Tunnel<I: Io> {
    /// The connection to the endpoint.
    pub upstream: Upstream<Wire<I::Stream>>,
    /// The attempt at the endpoint.
    pub attempt: Attempt<I>,
    /// The service of the endpoint.
    pub service: Rc<LocalService<I>>,
    /// The slot of the service's circuit breaker. An HTTP tunnel counts as a request in progress.
    pub slot: Option<Slot>,
    /// The record of the exchange or connection.
    pub record: ExchangeRecord<I>,
    /// The idle timeout: the longest time without bytes in either direction.
    pub idle: Duration,
    /// Whether `idle` is the `stream_idle_timeout` of the rule or service.
    pub has_stream_limit: bool,
    /// Bytes that the client has already sent.
    pub to_endpoint: Option<Buf>,
    /// Bytes that the endpoint has already sent.
    pub to_client: Option<Buf>,
}

/// How one direction has ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// The source has closed its sending side, and the proxy has closed that of the sink.
    Orderly,
    /// The client's connection has failed.
    ClientFailed,
    /// The endpoint's connection has failed.
    EndpointFailed,
    /// The idle timeout has passed.
    Idle,
}

/// The reason why [`Direction::burst`] has returned.
enum Paused {
    /// The source sends nothing.
    Silent,
    /// The source has closed its sending side.
    Closed,
    /// The direction has failed.
    Failed(End),
}

impl<I: Io> Tunnel<I> {
    /// Creates the tunnel after a response that switches protocols.
    pub fn switched(switched: Switched<I>, plan: Plan<I>, record: ExchangeRecord<I>) -> Self {
        let Switched { upstream, attempt, early_request, early_response } = switched;
        record.set_tunnel();
        let of_service = || plan.service.config.stream_idle_timeout;
        let idle = plan.rule.stream_idle_timeout.or_else(of_service);
        Self {
            upstream,
            attempt,
            service: plan.service,
            slot: plan.places.slot,
            record,
            idle: idle.unwrap_or(plan.terms.timeouts.tcp_idle),
            has_stream_limit: idle.is_some(),
            to_endpoint: early_request,
            to_client: early_response,
        }
    }

    /// Relays bytes until both directions have closed, or until one has failed.
    pub async fn run(mut self: Box<Self>, downstream: &Downstream<I>) {
        let io = &downstream.worker.io;
        let (to_endpoint, to_client) = (self.to_endpoint.take(), self.to_client.take());
        let _using = downstream.using(&self.service, &self.upstream, &self.record);
        let active = Cell::new(io.now());
        let (client, endpoint) = (&downstream.stream, &self.upstream.stream);
        let (record, idle) = (&self.record, self.idle);
        let (up_end, down_end) = (Cell::new(None), Cell::new(None));
        let up = Direction {
            io,
            from: client,
            to: endpoint,
            alarm: &downstream.alarm,
            active: &active,
            idle,
            failed: [End::ClientFailed, End::EndpointFailed],
            other_end: &down_end,
            record,
            way: Way::Up,
            streak_bytes: Cell::new(0),
            pace: Pace::to(endpoint),
        };
        let down = Direction {
            io,
            from: endpoint,
            to: client,
            alarm: &self.upstream.alarm,
            active: &active,
            idle,
            failed: [End::EndpointFailed, End::ClientFailed],
            other_end: &up_end,
            record,
            way: Way::Down,
            streak_bytes: Cell::new(0),
            pace: Pace::to(client),
        };
        let mut up = pin!(up.run(to_endpoint));
        let mut down = pin!(down.run(to_client));
        let end = poll_fn(|context| {
            if up_end.get().is_none()
                && let Poll::Ready(end) = up.as_mut().poll(context)
            {
                up_end.set(Some(end));
            }
            if down_end.get().is_none()
                && let Poll::Ready(end) = down.as_mut().poll(context)
            {
                down_end.set(Some(end));
            }
            end_of(up_end.get(), down_end.get()).map_or(Poll::Pending, Poll::Ready)
        })
        .await;
        let outcome = match end {
            End::EndpointFailed => Outcome::Broken,
            End::Orderly | End::ClientFailed | End::Idle => Outcome::Carried,
        };
        self.flag(end);
        self.attempt.finish(io.now(), outcome);
        // If one side has failed, wait until the other side has received the bytes that were sent
        // before.
        match end {
            End::ClientFailed => Box::pin(delivered(io, endpoint, idle)).await,
            End::EndpointFailed => Box::pin(delivered(io, client, idle)).await,
            End::Orderly | End::Idle => {}
        }
        // If one side was reset, reset the other side, too. If the tunnel was idle, reset both
        // sides, because neither has closed its connection.
        if matches!(end, End::EndpointFailed | End::Idle) {
            client.reset_on_close();
        }
        if matches!(end, End::ClientFailed | End::Idle) {
            endpoint.reset_on_close();
        }
    }

    /// Sets the response flag that describes how the tunnel has ended.
    fn flag(&self, end: End) {
        match end {
            End::Orderly => {}
            End::Idle if self.has_stream_limit => self.record.set_flag(Flag::StreamIdle, IDLE),
            End::Idle => {
                self.record.set_flag(Flag::DownstreamTimeout, "no bytes passed for too long");
            }
            End::ClientFailed => {
                let detail = "the client reset the connection";
                self.record.set_flag(Flag::DownstreamConnectionTermination, detail);
            }
            End::EndpointFailed => {
                let detail = "the endpoint reset the connection";
                self.record.set_flag(Flag::UpstreamConnectionTermination, detail);
            }
        }
    }
}

/// How the tunnel has ended, from the ends of its directions. `up` is the direction to the
/// endpoint. Returns `None` if the tunnel continues. If a write to one side fails, that side may
/// have sent bytes before, so the direction from that side continues to its own end.
fn end_of(up: Option<End>, down: Option<End>) -> Option<End> {
    match (up, down) {
        (Some(End::Orderly), Some(End::Orderly)) => Some(End::Orderly),
        (Some(end @ End::EndpointFailed), Some(_)) | (Some(_), Some(end @ End::ClientFailed)) => {
            Some(end)
        }
        (Some(End::EndpointFailed), None) | (None, Some(End::ClientFailed)) => None,
        (Some(end @ (End::ClientFailed | End::Idle)), _) => Some(end),
        (_, Some(end @ (End::EndpointFailed | End::Idle))) => Some(end),
        (Some(End::Orderly) | None, _) => None,
    }
}

/// One direction of a tunnel.
struct Direction<'a, I: Io> {
    io: &'a I,
    from: &'a Wire<I::Stream>,
    to: &'a Wire<I::Stream>,
    alarm: &'a Alarm,
    /// The time at which bytes were last moved in either direction.
    active: &'a Cell<Time>,
    idle: Duration,
    /// How this direction ends after an error of the source (first), or of the sink (second).
    failed: [End; 2],
    /// How the other direction has ended. `None` if it continues.
    other_end: &'a Cell<Option<End>>,
    /// The record, which counts the bytes.
    record: &'a ExchangeRecord<I>,
    way: Way,
    /// The number of bytes that were moved in consecutive large portions. An idle time does not
    /// reset it.
    streak_bytes: Cell<usize>,
    pace: Pace,
}

impl<I: Io> Direction<'_, I> {
    /// Moves bytes until the source closes or one side fails. While the source sends nothing, the
    /// direction holds no buffer, and waits until the source is readable. `first` has bytes that
    /// were already read.
    fn run(&self, first: Option<Buf>) -> impl Future<Output = End> {
        // The future of a burst is boxed: it needs most of the memory of a tunnel, but only while
        // bytes are moved. It is created outside the async block, because the block would reserve
        // memory for `first`.
        let begun = boxed(|| self.burst(first));
        async move {
            let mut burst = begun;
            loop {
                match burst.await {
                    Paused::Silent => {}
                    Paused::Closed => break,
                    Paused::Failed(end) => return end,
                }
                let [source_failed, _] = self.failed;
                if self.await_room().await.is_none() {
                    return End::Idle;
                }
                match self.patiently(pin!(self.from.readable())).await {
                    None => return End::Idle,
                    Some(Err(_)) => return source_failed,
                    Some(Ok(())) => {}
                }
                match Box::pin(self.from.read(self.take_buf())).await {
                    (Ok(Read::Data(_)), buf) => burst = boxed(|| self.burst(Some(buf))),
                    (Ok(_), _) => break,
                    (Err(_), _) => return source_failed,
                }
            }
            // The kernel reports a reset only once. If a write of the other direction has got the
            // error, reads from the source end as if the source had closed normally.
            let [source_failed, _] = self.failed;
            if self.other_end.get() == Some(source_failed) {
                return source_failed;
            }
            match self.patiently(Box::pin(self.to.shutdown_write())).await {
                Some(()) => End::Orderly,
                None => End::Idle,
            }
        }
    }

    /// Moves bytes until the source sends nothing for [`BUFFER_GRACE`].
    async fn burst(&self, first: Option<Buf>) -> Paused {
        let [source_failed, sink_failed] = self.failed;
        let mut pending = first;
        loop {
            let buf = match pending.take() {
                Some(buf) => buf,
                None if self.io.buffers().is_crowded() => return Paused::Silent,
                None => {
                    if self.await_room().await.is_none() {
                        return Paused::Failed(End::Idle);
                    }
                    self.alarm.set(self.io.now() + BUFFER_GRACE.min(self.idle));
                    match self.from.read_or_woken(self.take_buf(), self.alarm).await {
                        (Ok(Read::Data(_)), buf) => buf,
                        (Ok(Read::End), _) => return Paused::Closed,
                        (Ok(Read::Woken), _) => return Paused::Silent,
                        (Err(_), _) => return Paused::Failed(source_failed),
                    }
                }
            };
            let n = buf.len();
            self.pace.passed(n);
            self.active.set(self.io.now());
            self.alarm.set(self.active.get() + self.idle);
            match self.patiently(pin!(self.to.write_all(buf))).await {
                Some((Ok(()), _)) => {
                    self.count(n as u64);
                    if let Some(wait) = self.record.owe(self.way, n as u64) {
                        Box::pin(self.io.sleep_until(self.io.now() + wait)).await;
                        self.active.set(self.io.now());
                    }
                }
                Some((Err(_), _)) => return Paused::Failed(sink_failed),
                None => return Paused::Failed(End::Idle),
            }
            let is_large = n >= BULK_PORTION_BYTES;
            let streak_bytes = if is_large { self.streak_bytes.get() + n } else { 0 };
            self.streak_bytes.set(streak_bytes);
            let bulk = streak_bytes >= BULK_BYTES && !self.record.is_throttled();
            if bulk && self.from.can_splice(self.to) {
                return match Box::pin(self.splice()).await {
                    Some(Ok(_)) => Paused::Closed,
                    Some(Err(SpliceError::Source(_))) => Paused::Failed(source_failed),
                    Some(Err(SpliceError::Sink(_))) => Paused::Failed(sink_failed),
                    None => Paused::Failed(End::Idle),
                };
            }
        }
    }

    fn count(&self, bytes: u64) {
        self.record.relayed(self.way, bytes);
        match self.way {
            Way::Up => self.record.received(bytes),
            Way::Down => self.record.sent(bytes),
        }
    }

    /// Waits until the sink accepts more bytes. Returns `None` if the idle timeout passes first.
    async fn await_room(&self) -> Option<()> {
        let buffers = self.io.buffers();
        match self.pace.is_due(buffers) {
            true => self.patiently(pin!(self.pace.renew(buffers, self.to, || ()))).await,
            false => Some(()),
        }
    }

    /// Takes a buffer that is limited to the bytes that the sink accepts.
    fn take_buf(&self) -> Buf {
        let mut buf = self.io.buffers().take();
        self.pace.limit(&mut buf);
        buf
    }

    async fn splice(&self) -> Option<Result<Spliced, SpliceError>> {
        let moved = |n| {
            self.active.set(self.io.now());
            self.count(n);
        };
        self.patiently(pin!(self.from.splice_to(self.to, u64::MAX, moved))).await
    }

    /// Runs `operation` as long as bytes are moved in either direction. Returns `None` if the idle
    /// timeout passes first.
    async fn patiently<T>(&self, mut operation: impl Future<Output = T> + Unpin) -> Option<T> {
        loop {
            let deadline = self.active.get() + self.idle;
            self.alarm.set(deadline);
            if let Ok(output) = self.alarm.guard(&mut operation).await {
                return Some(output);
            }
            if self.io.now() >= self.active.get() + self.idle {
                return None;
            }
        }
    }
}
