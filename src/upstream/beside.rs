//! The way to an endpoint over QUIC, beside the one over TCP.
//!
//! A connection is opened over QUIC first. If that takes half of `connect_hedge`, TCP is tried,
//! too, and the requests use the first connection. If QUIC fails where TCP works, the endpoint is
//! reached over TCP for a time ([`TwoWays`](crate::resilience::TwoWays)).

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use super::choose::{self, Opened, Target};
use super::http3::{self, NotOpened, QuicPeer};
use super::limited::{self, ConnectionSlot};
use super::service::Latest;
use super::{LocalEndpoint, LocalService, Upstream};
use crate::cluster::{Beside, Protocol};
use crate::error::Refusal;
use crate::http3::{AltSvc, alt_svc, seconds};
use crate::mesh::Onward;
use crate::net::Address;
use crate::resilience::Silence;
use crate::runtime::contained::Contained;
use crate::runtime::core::Core;
use crate::runtime::io::Io;
use crate::snapshot::Limits;
use crate::time::{NO_LIMIT, Time};
use crate::wire::Wire;

/// The status of an alternative that does not serve the host of the request (RFC 7838 6).
const MISDIRECTED: u16 = 421;

/// Whether new connections for the request use QUIC.
pub(super) fn prefers_quic<I: Io>(target: &Target<'_, I>, endpoint: &LocalEndpoint<I>) -> bool {
    let Some(beside) = &target.service.config.beside else { return false };
    let untried = match beside {
        Beside::Mesh { .. } => matches!(endpoint.config.borrow().address, Address::Tcp(_)),
        Beside::Learned => false,
    };
    !target.old_way && endpoint.shared.ways().prefers_quic(untried)
}

/// Tries QUIC beside TCP: for the first time after an offer, after a failure a long time ago, or if
/// the connection over QUIC has ended and one over TCP is left. The request does not wait for it.
#[inline]
pub(super) fn try_again<I: Io>(target: &Target<'_, I>, endpoint: &LocalEndpoint<I>) {
    let Some(beside) = &target.service.config.beside else { return };
    let (shared, now) = (&endpoint.shared, target.core.io.recent());
    shared.check_offer(now);
    let is_offered = matches!(beside, Beside::Mesh { .. });
    if shared.begin_trial(now, is_offered) {
        Trial::begin(target, endpoint, None, true);
    }
}

/// Notes whether a final response offers HTTP/3. `fields` are those of its head.
pub fn learn<'a, I: Io>(
    target: &Target<'_, I>,
    upstream: &Upstream<Wire<I::Stream>>,
    status: u16,
    fields: impl Iterator<Item = (&'a [u8], &'a [u8])>,
) {
    // A misdirected request says nothing about its host (RFC 7838 6).
    if target.service.config.beside != Some(Beside::Learned) || status == MISDIRECTED {
        return;
    }
    let (mut said, mut spent): (Option<AltSvc>, _) = (None, 0);
    for (name, value) in fields {
        if name.eq_ignore_ascii_case(b"alt-svc") {
            let line = alt_svc(value);
            said = Some(said.map_or(line, |before| before.and(line)));
        } else if name.eq_ignore_ascii_case(b"age") {
            spent = seconds(value.trim_ascii()).unwrap_or_default();
        }
    }
    let (shared, spent) = (&upstream.endpoint.shared, Duration::from_secs(spent.into()));
    match said {
        Some(AltSvc::Http3 { port, age }) if age > spent => {
            shared.set_offer(port, target.core.io.recent() + (age - spent));
        }
        Some(_) => shared.end_offer(),
        None => {}
    }
}

/// Whether the endpoint has refused a request over HTTP/3 because of its host. It may serve the
/// host over TCP.
pub fn is_misdirected<I: Io>(
    target: &Target<'_, I>,
    upstream: &Upstream<Wire<I::Stream>>,
    status: u16,
) -> bool {
    status == MISDIRECTED
        && target.service.config.beside == Some(Beside::Learned)
        && matches!(upstream.stream, Wire::Endpoint3(_))
}

/// Notes that `endpoint` has served a request over TCP, with `status`, that it had refused over
/// HTTP/3. If it refuses the host over TCP, too, this says nothing about its offer: clients choose
/// the host.
pub fn served<I: Io>(target: &Target<'_, I>, endpoint: &LocalEndpoint<I>, status: u16) {
    let shared = &endpoint.shared;
    if status != MISDIRECTED && shared.offer().is_some() {
        shared.refuse_offer(target.core.io.recent());
        shared.set_quic_error("over HTTP/3 it refuses a host with 421 that it serves over TCP");
        tell(target, endpoint);
    }
}

/// Opens a connection over QUIC, or over TCP if QUIC fails or takes long.
pub(super) async fn open<I: Io>(
    target: &Target<'_, I>,
    endpoint: &LocalEndpoint<I>,
    taken: Option<ConnectionSlot>,
) -> Result<Opened<I>, Refusal> {
    if !prefers_quic(target, endpoint) {
        return over_tcp(target, endpoint, taken).await;
    }
    let trial = Trial::begin(target, endpoint, taken, false);
    let io = &target.core.io;
    let alarm = io.alarms().alarm();
    let hedge = target.service.config.connect_hedge;
    alarm.set(if hedge == NO_LIMIT { Time::NEVER } else { io.now() + hedge / 2 });
    match alarm.guard(trial.end()).await {
        Ok(true) => return Ok(Opened::Given),
        Ok(false) => {}
        Err(_) => endpoint.shared.change_ways(|ways| ways.is_slow()),
    }
    // The other requests need connections of their own now.
    endpoint.queue.wake();
    over_tcp(target, endpoint, trial.taken.take()).await
}

async fn over_tcp<I: Io>(
    target: &Target<'_, I>,
    endpoint: &LocalEndpoint<I>,
    taken: Option<ConnectionSlot>,
) -> Result<Opened<I>, Refusal> {
    let opened = choose::open_over_tcp(target, endpoint, taken).await;
    let now = target.core.io.now();
    match &opened {
        Ok(_) => {
            if endpoint.shared.change_ways(|ways| ways.tcp_opened(now)) {
                tell(target, endpoint);
            }
        }
        Err(_) => endpoint.shared.change_ways(|ways| ways.tcp_failed()),
    }
    opened
}

/// Counts and logs that the endpoint is reached over TCP from now on.
fn tell<I: Io>(target: &Target<'_, I>, endpoint: &LocalEndpoint<I>) {
    let service = &target.service.config;
    service.stats.worker(target.core.index).quic_fallbacks.increment();
    let address = &endpoint.config.borrow().address;
    let reason = endpoint.shared.quic_error().unwrap_or_default();
    target.core.log_limited(|suppressed| {
        let service = &*service.name;
        let message = "the endpoint does not answer over QUIC; its requests go over TCP";
        tracing::warn!(service, endpoint = %address, reason = &*reason, suppressed, "{message}");
    });
}

/// An attempt to open a connection over QUIC. It has a task of its own, which also ends it: a
/// connection that comes late is used by later requests.
#[derive(Default)]
struct Trial {
    /// The slot for the connection. The request takes it back if it uses TCP.
    taken: Cell<Option<ConnectionSlot>>,
    /// Whether a connection was opened. `None` until the attempt has ended.
    opened: Cell<Option<bool>>,
    waker: RefCell<Option<Waker>>,
}

impl Trial {
    fn new(taken: Option<ConnectionSlot>) -> Rc<Self> {
        Rc::new(Self { taken: Cell::new(taken), ..Self::default() })
    }

    fn begin<I: Io>(
        target: &Target<'_, I>,
        endpoint: &LocalEndpoint<I>,
        taken: Option<ConnectionSlot>,
        is_beside: bool,
    ) -> Rc<Self> {
        let trial = Self::new(taken);
        let running = Running {
            trial: Rc::clone(&trial),
            offers_ended: endpoint.shared.offers_ended(),
            is_beside,
            core: Rc::clone(target.core),
            service: Rc::clone(target.service),
            endpoint: Rc::clone(endpoint),
            client: target.client,
            limits: *target.limits,
        };
        let run = || async move { running.run().await };
        target.core.io.spawn(Contained::new(Rc::clone(target.core), run));
        trial
    }

    /// Completes when the attempt has ended: with whether a connection was opened.
    async fn end(&self) -> bool {
        poll_fn(|context| match self.opened.get() {
            Some(opened) => Poll::Ready(opened),
            None => {
                *self.waker.borrow_mut() = Some(context.waker().clone());
                Poll::Pending
            }
        })
        .await
    }
}

/// Watches whether the endpoint of a connection over QUIC still answers.
pub(super) struct Watch<I: Io> {
    pub silence: Silence,
    /// Whether the endpoint does not answer.
    pub is_doubted: bool,
    core: Rc<Core<I>>,
    /// The service in the current snapshot. Its settings may be newer than the connection.
    service: Rc<Latest<I>>,
    limits: Limits,
}

impl<I: Io> Watch<I> {
    pub fn new(target: &Target<'_, I>) -> Self {
        let (core, service) = (Rc::clone(target.core), Rc::clone(&target.service.latest));
        let silence = Silence::default();
        Self { silence, is_doubted: false, core, service, limits: *target.limits }
    }

    /// The endpoint does not answer. Opens a connection over TCP, so that it is known whether
    /// requests can go there. It gets the slot of the connection over QUIC, because all other slots
    /// may be taken.
    pub fn doubt(&mut self, endpoint: &LocalEndpoint<I>, slot: Option<ConnectionSlot>, now: Time) {
        self.is_doubted = true;
        endpoint.shared.set_quic_error("the endpoint does not answer any more");
        endpoint.shared.change_ways(|ways| ways.failed(now));
        endpoint.shared.close_http3();
        let Some(service) = self.service.get() else { return };
        let running = Running {
            trial: Trial::new(slot),
            offers_ended: endpoint.shared.offers_ended(),
            is_beside: false,
            core: Rc::clone(&self.core),
            service,
            endpoint: Rc::clone(endpoint),
            client: None,
            limits: self.limits,
        };
        let run = || async move { running.open_other().await };
        self.core.io.spawn(Contained::new(Rc::clone(&self.core), run));
    }
}

/// The task of an attempt.
struct Running<I: Io> {
    trial: Rc<Trial>,
    /// The number of the endpoint's offers that had ended when the attempt began.
    offers_ended: u32,
    /// Whether QUIC is tried beside TCP, and no request waits for it.
    is_beside: bool,
    core: Rc<Core<I>>,
    service: Rc<LocalService<I>>,
    endpoint: LocalEndpoint<I>,
    client: Option<SocketAddr>,
    limits: Limits,
}

impl<I: Io> Running<I> {
    async fn run(&self) {
        let Self { endpoint, trial, core, .. } = self;
        let target = self.target();
        let opened = match self.peer(&target) {
            Some(peer) => http3::open_beside(&target, &peer).await,
            None => return,
        };
        match opened {
            Ok(ready) if self.is_outdated() || self.peer(&target).is_none() => {
                trial.opened.set(Some(false));
                endpoint.shared.change_ways(|ways| ways.outdated(core.io.recent()));
                ready.close(&core.io).await;
            }
            Ok(ready) => {
                endpoint.shared.change_ways(|ways| ways.opened());
                let Some(slot) = self.slot(&target) else {
                    // QUIC works, but the requests have taken the slot for TCP.
                    trial.opened.set(Some(false));
                    return ready.close(&core.io).await;
                };
                let connection = http3::share(&target, endpoint, ready, slot);
                endpoint.queue.give_streams(|| connection.slot());
                endpoint.shared.add(connection);
                trial.opened.set(Some(true));
            }
            Err(NotOpened { why, refusal }) => {
                endpoint.shared.set_quic_error(why.as_deref().unwrap_or(refusal.detail));
            }
        }
    }

    /// Whether the endpoint has ended its offer meanwhile, and may have made another one.
    fn is_outdated(&self) -> bool {
        self.endpoint.shared.offers_ended() != self.offers_ended
    }

    /// Opens a connection over TCP.
    async fn open_other(&self) {
        let Self { endpoint, trial, .. } = self;
        trial.opened.set(Some(true));
        let target = self.target();
        let Some(taken) = self.slot(&target) else { return };
        match over_tcp(&target, endpoint, taken).await {
            Ok(Opened::Alone(upstream)) => upstream.supply(self.core.io.now()),
            Ok(Opened::Shared(connection)) => {
                endpoint.queue.give_streams(|| connection.slot());
                endpoint.shared.add(connection);
            }
            Ok(Opened::Given) | Err(_) => {}
        }
    }

    /// The slot of the new connection. `Some(None)` means that the service has no limit.
    fn slot(&self, target: &Target<'_, I>) -> Option<Option<ConnectionSlot>> {
        let taken = self.trial.taken.take().map(Some);
        taken.or_else(|| limited::take_free(target))
    }

    fn target(&self) -> Target<'_, I> {
        Target {
            core: &self.core,
            service: &self.service,
            client: self.client,
            trusted_hops: 0,
            limits: &self.limits,
            deadline: Time::NEVER,
            bytes: false,
            old_way: false,
        }
    }

    /// The address and name of the endpoint for QUIC.
    fn peer(&self, target: &Target<'_, I>) -> Option<QuicPeer> {
        let config = &self.service.config;
        let address = self.endpoint.config.borrow().address.clone();
        let peer = QuicPeer::at(target, &address)?;
        match config.beside.as_ref()? {
            Beside::Mesh { port: None } => Some(peer),
            Beside::Learned => {
                let port = self.endpoint.shared.offer()?;
                Some(QuicPeer { to: SocketAddr::new(peer.to.ip(), port), ..peer })
            }
            Beside::Mesh { port: Some(port) } => {
                let http2 = matches!(config.protocol, Protocol::Http2 | Protocol::Grpc);
                let name = Onward { port: peer.to.port(), http2 }.to_string();
                Some(QuicPeer { to: SocketAddr::new(peer.to.ip(), *port), name })
            }
        }
    }
}

impl<I: Io> Drop for Running<I> {
    /// Ends the attempt. It has failed if no connection was opened, also after a panic.
    fn drop(&mut self) {
        let this: &Self = self;
        let Self { trial, core, endpoint, .. } = this;
        if this.is_beside {
            endpoint.shared.trial_ended();
        }
        if trial.opened.get().is_none() {
            trial.opened.set(Some(false));
            if this.is_outdated() {
                endpoint.shared.change_ways(|ways| ways.outdated(core.io.recent()));
            } else if endpoint.shared.change_ways(|ways| ways.failed(core.io.recent())) {
                tell(&this.target(), endpoint);
            }
        }
        if let Some(waker) = trial.waker.take() {
            waker.wake();
        }
    }
}
