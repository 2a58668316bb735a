//! Detects the protocol of a captured connection. Either side may send the first bytes.
//!
//! If the client sends first, its first bytes determine the protocol. If the client sends nothing
//! for a short time, it may wait for the server. Then the connection to the destination is opened,
//! and the side that sends first decides. A timeout ends the detection only if both sides send
//! nothing.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use super::tcp::{self, Begun};
use crate::cluster::{Destination, Protocol as Speaks};
use crate::decision;
use crate::detect::{self, Answer, Protocol};
use crate::error::{Flag, Refusal};
use crate::runtime::buffer::Buf;
use crate::runtime::io::{Io, Read, Stream};
use crate::serve::{Downstream, guard};
use crate::snapshot::Listener;
use crate::time::Time;
use crate::upstream::{Local, LocalService, Upstream, choose};
use crate::wire::Wire;

/// How long to wait for the client's first bytes before the connection to the destination is
/// opened. Most clients that send first have sent bytes by then.
pub const SPEAKS_FIRST_GRACE: Duration = Duration::from_millis(1);

/// How long to wait for bytes before a read buffer returns to the pool.
const BUFFER_GRACE: Duration = Duration::from_millis(200);

/// In a drain, a connection without any bytes is closed only after it has been open for this long.
/// A client that has just connected is about to send.
const DRAIN_GRACE: Duration = Duration::from_secs(1);

/// The target of a connection that no route matches.
pub enum Way<I: Io> {
    /// Any endpoint of a service.
    Service(Destination),
    /// The original destination.
    Original(Rc<LocalService<I>>),
}

impl<I: Io> Way<I> {
    /// Returns the service of the target. `None` if it does not exist.
    pub fn service<'s>(&'s self, local: &'s Local<I>) -> Option<&'s Rc<LocalService<I>>> {
        match self {
            Self::Service(destination) => local.service(*destination, None),
            Self::Original(service) => Some(service),
        }
    }
}

/// The result of detection.
pub struct Sniffed<I: Io> {
    /// The protocol of the client's first bytes. `None` if the server sent first.
    pub protocol: Option<Protocol>,
    /// The bytes that were read, and the connection to the destination if it is open.
    pub begun: Begun<I>,
    /// Whether the proxy began to connect to the destination before the client had sent bytes.
    pub dialed: bool,
}

/// The reason why the detection has no result.
pub enum Over {
    /// The client closed the connection and had sent nothing.
    Gone,
    /// The connection must be closed.
    Refused(Refusal),
}

/// The refusal of a client that closed the connection before its bytes were enough for detection.
pub const LEFT: Refusal = Refusal {
    status: 0,
    flag: Flag::DownstreamConnectionTermination,
    detail: "the client left before its protocol was known",
};

/// Detects the protocol of a connection. `first` has the bytes that were read already. `way` is the
/// target if the connection carries opaque bytes.
pub async fn run<I: Io>(
    downstream: &Downstream<I>,
    local: &Local<I>,
    listener: &Listener,
    way: Option<Way<I>>,
    first: Option<Buf>,
) -> Result<Sniffed<I>, Over> {
    let first = match first {
        Some(first) => Some(first),
        None => speaks_first(downstream).await?,
    };
    if let Some(buf) = &first
        && let Answer::Known(protocol) = detect::protocol(buf.data())
    {
        let begun = Begun { first, ..Begun::default() };
        return Ok(Sniffed { protocol: Some(protocol), begun, dialed: false });
    }
    let answers = way.as_ref().is_some_and(|way| only_answers(local, way));
    let dial = way
        .filter(|way| !answers && may_dial(downstream, local, listener, way))
        .map(|way| dial(downstream, local, way));
    let (began, dialable) = (downstream.worker.io.now(), dial.is_some());
    let sniffer = Sniffer { downstream, listener, began, dialable, answers };
    Box::pin(sniffer.both(first, dial.map(|dial| Box::pin(dial) as Dialing<'_, I>))).await
}

type Opened<I> = Result<Upstream<Wire<<I as Io>::Stream>>, Refusal>;

type Dialing<'a, I> = Pin<Box<dyn Future<Output = Opened<I>> + 'a>>;

/// Returns the first bytes of the client. `None` if it sends none within [`SPEAKS_FIRST_GRACE`].
async fn speaks_first<I: Io>(downstream: &Downstream<I>) -> Result<Option<Buf>, Over> {
    let io = &downstream.worker.io;
    downstream.alarm.set(Time::NEVER);
    let mut grace = pin!(io.sleep_until(io.now() + SPEAKS_FIRST_GRACE));
    let wake = downstream.alarm.wake();
    let buf = io.buffers().take();
    let mut read = pin!(downstream.stream.read_or_woken(buf, &downstream.alarm));
    let mut over = false;
    let (result, buf) = poll_fn(|context| {
        if let Poll::Ready(done) = read.as_mut().poll(context) {
            return Poll::Ready(done);
        }
        if !over && grace.as_mut().poll(context).is_ready() {
            over = true;
            wake.ring();
            return read.as_mut().poll(context);
        }
        Poll::Pending
    })
    .await;
    match result {
        Ok(Read::Data(_)) => Ok(Some(buf)),
        Ok(Read::Woken) => Ok(None),
        Ok(Read::End) | Err(_) => Err(Over::Gone),
    }
}

/// Whether the service uses HTTP/2, where the client must send first. An HTTP/2 server may send its
/// SETTINGS before it has received anything, so its first bytes do not show that the client waits
/// for the server.
fn only_answers<I: Io>(local: &Local<I>, way: &Way<I>) -> bool {
    let service = way.service(local);
    service.is_some_and(|s| matches!(s.config.protocol, Speaks::Http2 | Speaks::Grpc))
}

/// Whether the connection to the destination may be opened before the client has sent bytes.
fn may_dial<I: Io>(
    downstream: &Downstream<I>,
    local: &Local<I>,
    listener: &Listener,
    way: &Way<I>,
) -> bool {
    way.service(local).is_some_and(|service| {
        let name = &service.config.name;
        decision::check_bytes(None, &service.config).is_ok()
            && guard::would_carry(downstream, local, listener, name)
    })
}

async fn dial<I: Io>(downstream: &Downstream<I>, local: &Local<I>, way: Way<I>) -> Opened<I> {
    let gone = Refusal { status: 503, flag: Flag::NoHealthyUpstream, detail: "no service" };
    let service = way.service(local).ok_or(gone)?;
    let target = tcp::target(downstream, service, &local.snapshot.limits);
    choose::trial(&target, 0).await
}

struct Sniffer<'a, I: Io> {
    downstream: &'a Downstream<I>,
    listener: &'a Listener,
    began: Time,
    /// Whether the connection to the destination may be opened, so that a server may send first.
    dialable: bool,
    /// Whether the client must send first: see [`only_answers`].
    answers: bool,
}

/// The events of both sides in one round.
struct Round<I: Io> {
    client: std::io::Result<Read>,
    seen: Buf,
    server: Option<(std::io::Result<Read>, Buf)>,
    dialed: Option<Opened<I>>,
}

impl<I: Io> Sniffer<'_, I> {
    /// Reads from both sides until the protocol is known.
    async fn both(
        &self,
        first: Option<Buf>,
        mut dialing: Option<Dialing<'_, I>>,
    ) -> Result<Sniffed<I>, Over> {
        let io = &self.downstream.worker.io;
        let dialed = dialing.is_some();
        let mut upstream: Option<Upstream<Wire<I::Stream>>> = None;
        let mut seen = first.unwrap_or_else(|| io.buffers().take());
        loop {
            let round = self.round(seen, upstream.as_ref(), &mut dialing).await;
            let known = match detect::protocol(round.seen.data()) {
                Answer::Known(protocol) => Some(protocol),
                Answer::NeedMore => None,
            };
            let first = |seen: Buf| (!seen.is_empty()).then_some(seen);
            match round.dialed {
                Some(Ok(opened)) => upstream = Some(opened),
                // The connection to the destination failed. It would fail after the client's first
                // bytes, too.
                Some(Err(refusal)) if known.is_none() => return Err(Over::Refused(refusal)),
                Some(Err(_)) | None => {}
            }
            if known.is_some() {
                let answer = round.server.and_then(|(read, buf)| answer(read, buf));
                let begun = Begun { first: first(round.seen), upstream: upstream.map(Ok), answer };
                // A protocol in which the server sends first is neither HTTP nor TLS.
                let protocol = if begun.answer.is_some() { None } else { known };
                return Ok(Sniffed { protocol, begun, dialed });
            }
            if let Some((read, buf)) = round.server
                && !matches!(read, Ok(Read::Woken))
            {
                let begun = Begun {
                    first: first(round.seen),
                    upstream: upstream.map(Ok),
                    answer: answer(read, buf),
                };
                return Ok(Sniffed { protocol: None, begun, dialed });
            }
            seen = round.seen;
            let waited = io.now().since(self.began);
            let silent = seen.is_empty() && waited >= DRAIN_GRACE;
            match round.client {
                Ok(Read::Data(_) | Read::Woken) if !(silent && self.downstream.draining()) => {}
                _ if seen.is_empty() => return Err(Over::Gone),
                _ => return Err(Over::Refused(LEFT)),
            }
            let late = waited >= self.patience(!seen.is_empty());
            if late && !self.dialable && !self.answers {
                // The connection to the destination must not be opened here. Continue as with
                // opaque bytes: `tcp::open` refuses the connection and records the reason.
                let begun = Begun { first: first(seen), ..Begun::default() };
                return Ok(Sniffed { protocol: None, begun, dialed: false });
            }
            if late {
                let detail = "neither side sent enough bytes to detect the protocol";
                let flag = Flag::DownstreamTimeout;
                return Err(Over::Refused(Refusal { status: 408, flag, detail }));
            }
            if waited >= BUFFER_GRACE && seen.is_empty() && dialing.is_none() {
                self.watch(upstream.as_ref()).await;
            }
        }
    }

    /// Returns the time limit of the detection: the header timeout if the client has sent bytes or
    /// must send first, else the idle timeout.
    fn patience(&self, spoken: bool) -> Duration {
        match spoken || !self.dialable {
            true => self.listener.timeouts.header,
            false => self.listener.timeouts.tcp_idle,
        }
    }

    /// Reads from both sides and opens the connection to the destination, until one of these
    /// operations completes.
    async fn round(
        &self,
        seen: Buf,
        upstream: Option<&Upstream<Wire<I::Stream>>>,
        dialing: &mut Option<Dialing<'_, I>>,
    ) -> Round<I> {
        let Self { downstream, .. } = self;
        let io = &downstream.worker.io;
        let left = self.patience(!seen.is_empty()).min(BUFFER_GRACE);
        downstream.alarm.set(io.now() + left);
        let ring = downstream.alarm.wake();
        let mut client = pin!(downstream.stream.read_or_woken(seen, &downstream.alarm));
        let mut server = pin!(async {
            match upstream {
                Some(upstream) => {
                    upstream.alarm.set(Time::NEVER);
                    let buf = io.buffers().take();
                    Some(upstream.stream.read_or_woken(buf, &upstream.alarm).await)
                }
                None => std::future::pending().await,
            }
        });
        let (mut from_client, mut from_server, mut dialed) = (None, None, None);
        poll_fn(|context| {
            if let Poll::Ready(done) = client.as_mut().poll(context) {
                from_client = Some(done);
            }
            if upstream.is_some()
                && let Poll::Ready(done) = server.as_mut().poll(context)
            {
                from_server = done;
            }
            if let Some(future) = dialing
                && let Poll::Ready(done) = future.as_mut().poll(context)
            {
                dialed = Some(done);
            }
            let done = from_client.is_some() || from_server.is_some() || dialed.is_some();
            if done { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        if dialed.is_some() {
            *dialing = None;
        }
        // Cancel the operations that still wait. No bytes are lost.
        let (read, seen) = match from_client {
            Some(done) => done,
            None => {
                ring.ring();
                client.await
            }
        };
        if let (Some(upstream), None) = (upstream, &from_server) {
            upstream.alarm.wake().ring();
            from_server = server.await;
        }
        Round { client: read, seen, server: from_server, dialed }
    }

    /// Waits without a buffer until one side has sent bytes, or until the time limit.
    async fn watch(&self, upstream: Option<&Upstream<Wire<I::Stream>>>) {
        let Self { downstream, began, .. } = self;
        let patience = self.patience(false);
        let patience = if downstream.draining() { patience.min(DRAIN_GRACE) } else { patience };
        downstream.alarm.set(*began + patience);
        let mut client = pin!(downstream.stream.readable());
        let mut server = pin!(async {
            match upstream {
                Some(upstream) => upstream.stream.readable().await,
                None => std::future::pending().await,
            }
        });
        let mut either = pin!(poll_fn(|context| {
            let ready = client.as_mut().poll(context).is_ready()
                || server.as_mut().poll(context).is_ready();
            if ready { Poll::Ready(()) } else { Poll::Pending }
        }));
        downstream.alarm.guard(&mut either).await.ok();
    }
}

/// Returns the first bytes of the server. `None` if there are none.
fn answer(read: std::io::Result<Read>, buf: Buf) -> Option<Buf> {
    matches!(read, Ok(Read::Data(_))).then_some(buf)
}
