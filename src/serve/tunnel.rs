//! Bytes both ways: TCP listeners, upgraded connections, CONNECT.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use super::choose::{self, Choice, Target};
use super::connection::Connection;
use super::exchange::Call;
use super::guard;
use super::ledger::Ledger;
use super::relay::filled;
use super::worker::{Local, LocalService};
use crate::cluster::Destination;
use crate::error::{Flag, Refusal};
use crate::route::Rule;
use crate::runtime::alarm::Alarm;
use crate::runtime::buffer::Buf;
use crate::runtime::io::{Io, Read, SpliceError, Stream};
use crate::snapshot::Listener;
use crate::time::Time;
use crate::tls::Wire;
use crate::upstream::Upstream;

/// After this many bytes in large portions one after the other, a direction is bulk and goes
/// through the kernel by splice(2).
pub const BULK_BYTES: usize = 256 * 1024;

/// A portion at least this large counts towards [`BULK_BYTES`]; a smaller one starts over.
pub const BULK_PORTION_BYTES: usize = 8 * 1024;

/// How long a silent direction keeps its buffer.
const BUFFER_GRACE: Duration = Duration::from_millis(200);

/// Serves a connection of a TCP listener. `first` is what was read beyond a PROXY header.
pub async fn serve_tcp<I: Io>(
    connection: &Connection<I>,
    listener: &Listener,
    destination: Destination,
    first: Option<Buf>,
) {
    let local = connection.worker.local();
    let Some(service) = local.service(destination, None) else { return };
    let begun = Begun { first, ..Begun::default() };
    carry(
        connection,
        &local,
        listener,
        service,
        By { rule: None, subset: destination.subset },
        begun,
    )
    .await;
}

/// What has led a connection to its service.
#[derive(Clone, Copy, Default)]
pub struct By<'a> {
    /// The rule, if one has.
    pub rule: Option<&'a Arc<Rule>>,
    /// Which subset of the service it is to.
    pub subset: u32,
}

/// How far a connection has come before it is known to be a tunnel.
pub struct Begun<I: Io> {
    /// What the client has said.
    pub first: Option<Buf>,
    /// The connection to the endpoint, where it is open already, or why it cannot be had.
    pub upstream: Option<Result<Upstream<Wire<I::Stream>>, Refusal>>,
    /// What the endpoint has said.
    pub answer: Option<Buf>,
}

impl<I: Io> Default for Begun<I> {
    fn default() -> Self {
        Self { first: None, upstream: None, answer: None }
    }
}

/// Bytes both ways between the client and `service`, if the rules allow it. `by` says
/// what has led there.
pub async fn carry<I: Io>(
    connection: &Connection<I>,
    local: &Local<I>,
    listener: &Listener,
    service: &LocalService<I>,
    by: By<'_>,
    begun: Begun<I>,
) {
    let ledger = Ledger::open(connection, local, listener);
    if let Some(rule) = by.rule {
        ledger.set_rule(rule);
    }
    ledger.set_service(service);
    let verdict = guard::authorize(connection, local, listener, &service.config.name, None, None);
    if !verdict.is_allowed() {
        ledger.set_denial(verdict);
        ledger.set_refusal(&guard::DENIED);
        return ledger.log(None, b"");
    }
    if service.config.jwt.is_some() || by.rule.is_some_and(|rule| rule.jwt.is_some()) {
        ledger.set_refusal(&NO_TOKEN);
        return ledger.log(None, b"");
    }
    let opened = match begun.upstream {
        Some(Ok(upstream)) => {
            ledger.set_endpoint(&upstream.endpoint);
            Ok(upstream)
        }
        Some(Err(refusal)) => Err(refusal),
        None => open(connection, &ledger, service, by.subset).await,
    };
    match opened {
        Ok(upstream) => {
            let tunnel =
                Tunnel { connection, upstream: &upstream, service, ledger: &ledger, listener };
            tunnel.run(begun.first, begun.answer).await;
        }
        Err(refusal) => {
            ledger.set_refusal(&refusal);
            connection.stream.reset_on_close();
        }
    }
    ledger.log(None, b"");
}

/// What is demanded of requests cannot be had of bytes.
const NO_TOKEN: Refusal = Refusal {
    status: 401,
    flag: Flag::Unauthorized,
    detail: "the service demands a token, which bytes do not bear",
};

/// A connection to an endpoint of `subset` of `service` that nobody has used.
pub async fn open<I: Io>(
    connection: &Connection<I>,
    ledger: &Ledger<'_, I>,
    service: &LocalService<I>,
    subset: u32,
) -> Result<Upstream<Wire<I::Stream>>, Refusal> {
    let target = Target { connection, ledger, service, deadline: Time::NEVER, bytes: true };
    let mut choice = Choice::new(&target, subset as usize, None);
    choice.fresh = true;
    choose::connection(&target, &mut choice).await
}

/// Carries on after a response that has switched protocols. `early` is what the endpoint has sent
/// already, `early_request` what the client has.
pub async fn switched<I: Io>(
    call: &Call<'_, '_, I>,
    upstream: Upstream<Wire<I::Stream>>,
    early: Buf,
    early_request: &[u8],
) {
    let Call { connection, ledger, listener, service, .. } = *call;
    let buffers = connection.worker.io.buffers();
    let first = (!early_request.is_empty())
        .then(|| filled(buffers.take_sized(early_request.len()), early_request));
    let tunnel = Tunnel { connection, upstream: &upstream, service, ledger, listener };
    tunnel.run(first, (!early.is_empty()).then_some(early)).await;
}

struct Tunnel<'a, 'l, I: Io> {
    connection: &'a Connection<I>,
    upstream: &'a Upstream<Wire<I::Stream>>,
    service: &'a LocalService<I>,
    ledger: &'a Ledger<'l, I>,
    listener: &'a Listener,
}

/// How one direction ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// Its source ended, and its sink was told.
    Orderly,
    /// An error on the client's side.
    ClientFailed,
    /// An error on the endpoint's side.
    EndpointFailed,
    /// Nothing passed in either direction for too long.
    Idle,
}

impl<I: Io> Tunnel<'_, '_, I> {
    /// Runs until both directions have ended in order, or one has failed.
    async fn run(&self, to_endpoint: Option<Buf>, to_client: Option<Buf>) {
        let io = &self.connection.worker.io;
        let _using = self.connection.using(self.service, self.upstream);
        let active = Cell::new(io.now());
        let (client, endpoint) = (&self.connection.stream, &self.upstream.stream);
        let idle = self.listener.timeouts.tcp_idle;
        let up = Direction {
            io,
            from: client,
            to: endpoint,
            alarm: &self.connection.alarm,
            active: &active,
            idle,
            failed: [End::ClientFailed, End::EndpointFailed],
        };
        let down = Direction {
            io,
            from: endpoint,
            to: client,
            alarm: &self.upstream.alarm,
            active: &active,
            idle,
            failed: [End::EndpointFailed, End::ClientFailed],
        };
        let mut up = pin!(up.run(to_endpoint, |n| self.ledger.received(n)));
        let mut down = pin!(down.run(to_client, |n| self.ledger.sent(n)));
        let (mut up_ended, mut down_ended) = (false, false);
        let end = poll_fn(|context| {
            if !up_ended && let Poll::Ready(end) = up.as_mut().poll(context) {
                up_ended = true;
                if end != End::Orderly {
                    return Poll::Ready(end);
                }
            }
            if !down_ended && let Poll::Ready(end) = down.as_mut().poll(context) {
                down_ended = true;
                if end != End::Orderly {
                    return Poll::Ready(end);
                }
            }
            if up_ended && down_ended { Poll::Ready(End::Orderly) } else { Poll::Pending }
        })
        .await;
        self.close(end);
    }

    /// What one side did wrong the other side gets to feel: a reset stays a reset.
    fn close(&self, end: End) {
        match end {
            End::Orderly => {}
            End::Idle => {
                // Neither stream has ended: to neither side may it look so.
                self.connection.stream.reset_on_close();
                self.upstream.stream.reset_on_close();
                self.ledger.set_flag(Flag::DownstreamTimeout, "nothing passed for too long");
            }
            End::ClientFailed => {
                self.upstream.stream.reset_on_close();
                let detail = "the client reset the connection";
                self.ledger.set_flag(Flag::DownstreamConnectionTermination, detail);
            }
            End::EndpointFailed => {
                self.connection.stream.reset_on_close();
                let detail = "the endpoint reset the connection";
                self.ledger.set_flag(Flag::UpstreamConnectionTermination, detail);
            }
        }
    }
}

/// One direction of a tunnel.
struct Direction<'a, I: Io> {
    io: &'a I,
    from: &'a Wire<I::Stream>,
    to: &'a Wire<I::Stream>,
    alarm: &'a Alarm,
    /// When a byte last passed in either direction.
    active: &'a Cell<Time>,
    idle: Duration,
    /// What an error on the source or on the sink means.
    failed: [End; 2],
}

impl<I: Io> Direction<'_, I> {
    async fn run(&self, first: Option<Buf>, count: impl Fn(u64)) -> End {
        let [source_failed, sink_failed] = self.failed;
        let mut streak_bytes = 0;
        let mut pending = first;
        loop {
            let buf = match pending.take() {
                Some(buf) => buf,
                None => match self.read().await {
                    Ok(Some(buf)) => buf,
                    Ok(None) => break,
                    Err(end) => return end,
                },
            };
            let n = buf.len();
            self.active.set(self.io.now());
            self.alarm.set(self.active.get() + self.idle);
            match self.patiently(pin!(self.to.write_all(buf))).await {
                Some((Ok(()), _)) => count(n as u64),
                Some((Err(_), _)) => return sink_failed,
                None => return End::Idle,
            }
            streak_bytes = if n >= BULK_PORTION_BYTES { streak_bytes + n } else { 0 };
            if streak_bytes >= BULK_BYTES && self.from.can_splice(self.to) {
                match Box::pin(self.splice(&count)).await {
                    Some(Ok(_)) => break,
                    Some(Err(SpliceError::Source(_))) => return source_failed,
                    Some(Err(SpliceError::Sink(_))) => return sink_failed,
                    None => return End::Idle,
                }
            }
        }
        match self.patiently(Box::pin(self.to.shutdown_write())).await {
            Some(()) => End::Orderly,
            None => End::Idle,
        }
    }

    async fn splice(
        &self,
        count: &impl Fn(u64),
    ) -> Option<Result<crate::runtime::io::Spliced, SpliceError>> {
        let moved = |n| {
            self.active.set(self.io.now());
            count(n);
        };
        self.patiently(pin!(self.from.splice_to(self.to, u64::MAX, moved))).await
    }

    /// The next bytes; `None` at the end. A silent source costs no buffer.
    async fn read(&self) -> Result<Option<Buf>, End> {
        let source_failed = self.failed[0];
        if !self.io.buffers().is_crowded() {
            self.alarm.set(self.io.now() + BUFFER_GRACE.min(self.idle));
            let buf = self.io.buffers().take();
            let (read, buf) = self.from.read_or_rang(buf, self.alarm).await;
            match read {
                Ok(Read::Data(_)) => return Ok(Some(buf)),
                Ok(Read::End) => return Ok(None),
                Err(_) => return Err(source_failed),
                Ok(Read::Rang) => drop(buf),
            }
        }
        match self.patiently(pin!(self.from.readable())).await {
            None => return Err(End::Idle),
            Some(Err(_)) => return Err(source_failed),
            Some(Ok(())) => {}
        }
        match self.from.read(self.io.buffers().take()).await {
            (Ok(Read::Data(_)), buf) => Ok(Some(buf)),
            (Ok(_), _) => Ok(None),
            (Err(_), _) => Err(source_failed),
        }
    }

    /// Waits for `operation` as long as bytes pass in either direction; `None` when it became
    /// too quiet.
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
