//! Chooses an endpoint for a request, and gets a connection to it.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use super::attempt::Attempt;
use super::connect::{ConnectError, connect};
use super::limited::{self, ConnectionSlot};
use super::pool::Upstream;
use super::shared::SharedConnection;
use super::{LocalEndpoint, LocalService, beside, hedge, http2, http3, secure};
use crate::balance::{self, Policy};
use crate::cluster::Protocol;
use crate::error::{Flag, Refusal};
use crate::message::HeadView;
use crate::net::{Address, is_shortage};
use crate::propagation::forwarded;
use crate::proxy_protocol;
use crate::runtime::buffer::filled;
use crate::runtime::core::Core;
use crate::runtime::io::{Io, Stream};
use crate::snapshot::Limits;
use crate::time::Time;
use crate::tls::Session;
use crate::wire::Wire;

/// The maximum number of endpoints that one attempt tries until one of them accepts a connection.
/// No part of the request is sent before.
pub const CONNECT_ATTEMPTS_MAX: usize = 3;

/// The values that are needed to get a connection: the service, the client, the limits and the
/// deadline.
pub struct Target<'a, I: Io> {
    /// The state of the worker.
    pub core: &'a Rc<Core<I>>,
    /// The service to which the request goes.
    pub service: &'a Rc<LocalService<I>>,
    /// The address of the client, for PROXY headers and hashing. `None` for a Unix-domain socket.
    pub client: Option<SocketAddr>,
    /// The number of trusted proxies in front of this one. The client's address for hashing is
    /// taken from `x-forwarded-for` accordingly.
    pub trusted_hops: u32,
    /// The limits on messages of endpoints.
    pub limits: &'a Limits,
    /// The deadline of the exchange.
    pub deadline: Time,
    /// Whether the connection is for opaque bytes, whatever the protocol of the service is.
    pub bytes: bool,
    /// Whether the connection must use TCP, although the service allows QUIC: for a request that
    /// becomes a tunnel.
    pub old_way: bool,
}

/// The state of choosing an endpoint. All attempts of a request share it.
pub struct Choice<I: Io> {
    subset: usize,
    key: Option<u64>,
    /// The endpoints at which the request has failed. They are chosen only if there is no other.
    pub failed: Vec<LocalEndpoint<I>>,
    /// The endpoint that already processes the request. It is never chosen.
    beside: Option<LocalEndpoint<I>>,
    /// Whether pooled HTTP/1 connections must not be used.
    pub fresh: bool,
    /// The endpoint of the last attempt.
    pub tried: Option<LocalEndpoint<I>>,
}

impl<I: Io> Choice<I> {
    /// Creates the state for a request to `subset` of the target's service. `request` is `None` for
    /// an L4 connection.
    pub fn new(target: &Target<'_, I>, subset: usize, request: Option<HeadView<'_>>) -> Self {
        let key = match &target.service.config.policy {
            Policy::Hash(key) => {
                let client = forwarded::client(request, target.trusted_hops, target.client);
                balance::hash_key(key, request, client)
            }
            _ => None,
        };
        Self { subset, key, failed: Vec::new(), beside: None, fresh: false, tried: None }
    }

    /// The state of choosing a second endpoint while `endpoint` processes the request.
    pub fn beside(&self, endpoint: &LocalEndpoint<I>) -> Self {
        let failed = self.failed.clone();
        let beside = Some(Rc::clone(endpoint));
        Self { failed, beside, fresh: false, tried: None, ..*self }
    }

    /// Begins an attempt on a private connection of the client.
    pub fn again(&mut self, core: &Core<I>, upstream: Upstream<Wire<I::Stream>>) -> Begun<I> {
        self.tried = Some(Rc::clone(&upstream.endpoint));
        let attempt = Attempt::begin(&upstream.endpoint, core.io.recent());
        (upstream, attempt)
    }
}

/// An attempt that has begun, and its connection to the endpoint.
pub type Begun<I> = (Upstream<Wire<<I as Io>::Stream>>, Attempt<I>);

/// Gets a connection, or a stream of a shared connection, to the endpoint that the balancer picks.
/// If connecting fails, another endpoint is tried. The attempt in the result has begun.
///
/// # Errors
/// If there is no endpoint, or if no endpoint accepts a connection.
pub fn connection<I: Io>(
    target: &Target<'_, I>,
    choice: &mut Choice<I>,
) -> impl Future<Output = Result<Begun<I>, Refusal>> {
    first_to_accept(target, choice, Attempt::begin)
}

/// Picks an endpoint that neither has failed nor already processes the request. Returns `None` if
/// there is none.
pub fn another<I: Io>(target: &Target<'_, I>, choice: &Choice<I>) -> Option<LocalEndpoint<I>> {
    let endpoint = pick(target, choice, &choice.failed)?;
    let has_failed = choice.failed.iter().any(|failed| Rc::ptr_eq(failed, &endpoint));
    (!has_failed).then_some(endpoint)
}

/// Like [`connection`], but tries `endpoint` first.
///
/// # Errors
/// If no endpoint accepts a connection.
pub async fn connection_to<I: Io>(
    target: &Target<'_, I>,
    choice: &mut Choice<I>,
    endpoint: LocalEndpoint<I>,
) -> Result<Begun<I>, Refusal> {
    to(target, choice, endpoint, Attempt::begin).await
}

/// Opens a connection for opaque bytes that may remain unused. No attempt is counted.
///
/// # Errors
/// As for [`connection`].
pub async fn trial<I: Io>(
    target: &Target<'_, I>,
    subset: usize,
) -> Result<Upstream<Wire<I::Stream>>, Refusal> {
    let mut choice = Choice::new(target, subset, None);
    let opened = first_to_accept(target, &mut choice, |_, _| Attempt::uncounted()).await;
    opened.map(|(upstream, _)| upstream)
}

/// Gets a connection to the endpoint that the balancer picks, or to another one if that endpoint
/// does not accept. `begin` creates the attempt at an endpoint.
async fn first_to_accept<I: Io>(
    target: &Target<'_, I>,
    choice: &mut Choice<I>,
    begin: impl Fn(&LocalEndpoint<I>, Time) -> Attempt<I>,
) -> Result<Begun<I>, Refusal> {
    let Some(endpoint) = pick(target, choice, &choice.failed) else {
        return Err(match target.service.config.is_judged() {
            true => NONE_HEALTHY,
            false => Refusal { status: target.service.config.empty_status, ..NO_ENDPOINT },
        });
    };
    to(target, choice, endpoint, begin).await
}

async fn to<I: Io>(
    target: &Target<'_, I>,
    choice: &mut Choice<I>,
    endpoint: LocalEndpoint<I>,
    begin: impl Fn(&LocalEndpoint<I>, Time) -> Attempt<I>,
) -> Result<Begun<I>, Refusal> {
    choice.tried = Some(Rc::clone(&endpoint));
    let begin = |endpoint: &_| begin(endpoint, target.core.io.recent());
    let attempt = begin(&endpoint);
    match at_hand(target, &endpoint, choice.fresh) {
        Some(upstream) => Ok((upstream, attempt)),
        None => Box::pin(hedge::first_to_open(target, choice, (endpoint, attempt), begin)).await,
    }
}

/// A pooled connection, or a stream of a shared connection. Returns `None` if there is none.
pub(super) fn at_hand<I: Io>(
    target: &Target<'_, I>,
    endpoint: &LocalEndpoint<I>,
    fresh: bool,
) -> Option<Upstream<Wire<I::Stream>>> {
    if target.bytes {
        return None;
    }
    beside::try_again(target, endpoint);
    if is_multiplexed(target, endpoint) {
        // Streams that become free belong to the requests that are already waiting.
        if !endpoint.queue.is_empty() {
            return None;
        }
        let slot = match target.old_way {
            true => endpoint.shared.slot_over_tcp(),
            false => endpoint.shared.slot(),
        };
        return slot.map(|slot| http2::stream(target, endpoint, slot));
    }
    if fresh {
        return None;
    }
    let cells = target.service.config.stats.worker(target.core.index);
    let taken = endpoint.take();
    cells.pool_stale.add(taken.stale);
    taken.upstream.inspect(|_| cells.pool_reused.increment())
}

/// A connection that was just opened.
pub(super) enum Opened<I: Io> {
    /// An HTTP/1 connection, which serves one exchange at a time.
    Alone(Upstream<Wire<I::Stream>>),
    /// An HTTP/2 or HTTP/3 connection, which exchanges share. Its first streams go to the requests
    /// that wait. Then it is added to the connections of the endpoint; if the endpoint was removed
    /// in the meantime, it is closed.
    Shared(SharedConnection),
    /// An HTTP/3 connection. The requests that wait have its first streams already.
    Given,
}

/// Opens a connection that only one request can use: it carries opaque bytes, or it begins with the
/// address of the client (PROXY header).
pub(super) async fn open_own<I: Io>(
    target: &Target<'_, I>,
    endpoint: &LocalEndpoint<I>,
) -> Result<Upstream<Wire<I::Stream>>, Refusal> {
    let began = target.core.io.recent();
    let taken = limited::take(target, || Some(began)).await?;
    if target.bytes {
        return open(target, endpoint, taken).await;
    }
    match open_over_tcp(target, endpoint, taken).await? {
        Opened::Alone(upstream) => Ok(upstream),
        Opened::Given => Err(http2::NOT_HTTP2),
        Opened::Shared(connection) => {
            let slot = connection.slot();
            endpoint.shared.add(connection);
            Ok(http2::stream(target, endpoint, slot.ok_or(http2::NOT_HTTP2)?))
        }
    }
}

/// Opens a connection. Shares it if the endpoint supports HTTP/2 or HTTP/3.
pub(super) async fn open_as_chosen<I: Io>(
    target: &Target<'_, I>,
    endpoint: &LocalEndpoint<I>,
    taken: Option<ConnectionSlot>,
) -> Result<Opened<I>, Refusal> {
    match &target.service.config.beside {
        Some(_) => Box::pin(beside::open(target, endpoint, taken)).await,
        None => open_over_tcp(target, endpoint, taken).await,
    }
}

/// Like [`open_as_chosen`], but over TCP, unless the protocol of the service is HTTP/3.
pub(super) async fn open_over_tcp<I: Io>(
    target: &Target<'_, I>,
    endpoint: &LocalEndpoint<I>,
    taken: Option<ConnectionSlot>,
) -> Result<Opened<I>, Refusal> {
    if target.service.config.protocol == Protocol::Http3 {
        return http3::open(target, endpoint, taken).await.map(Opened::Shared);
    }
    let upstream = open(target, endpoint, taken).await?;
    let chosen = upstream.stream.tls().map(|tls| tls.session(is_http2));
    endpoint.shared.chosen.set(chosen == Some(true));
    if is_multiplexed_over_tcp(target, endpoint) {
        let shared = http2::share(target, endpoint, upstream)?;
        return Ok(Opened::Shared(SharedConnection::Http2(shared)));
    }
    Ok(Opened::Alone(upstream))
}

/// Whether exchanges share the connections to the endpoint, as streams of HTTP/2 or HTTP/3. With
/// `protocol: auto`, this is the result of ALPN in the last TLS handshake; the next handshake may
/// have another result.
pub(super) fn is_multiplexed<I: Io>(target: &Target<'_, I>, endpoint: &LocalEndpoint<I>) -> bool {
    beside::prefers_quic(target, endpoint) || is_multiplexed_over_tcp(target, endpoint)
}

/// Like [`is_multiplexed`], for connections over TCP.
fn is_multiplexed_over_tcp<I: Io>(target: &Target<'_, I>, endpoint: &LocalEndpoint<I>) -> bool {
    let config = &target.service.config;
    match config.protocol {
        Protocol::Http2 | Protocol::Grpc | Protocol::Http3 => true,
        Protocol::Auto => config.tls.is_some() && endpoint.shared.chosen.get(),
        Protocol::Http1 | Protocol::Tcp => false,
    }
}

/// Whether ALPN has selected HTTP/2.
pub fn is_http2(session: &Session) -> bool {
    session.alpn() == Some(b"h2")
}

/// Opens a connection. Sends the PROXY header, and runs the TLS handshake, if the service is
/// configured for them. The time limits are those of the service, because the connection may exist
/// longer than the request. `taken` is the slot of the connection.
pub async fn open<I: Io>(
    target: &Target<'_, I>,
    endpoint: &LocalEndpoint<I>,
    taken: Option<ConnectionSlot>,
) -> Result<Upstream<Wire<I::Stream>>, Refusal> {
    let core = target.core;
    let config = &target.service.config;
    let connecting = connect(&core.io, endpoint, config.egress, config.connect_timeout, taken);
    let hear = |result| {
        let address = &endpoint.config.borrow().address;
        target.service.unreachable.hear(address, result, core.io.now());
    };
    let upstream = match connecting.await {
        Ok(upstream) => {
            hear(Ok(()));
            greet(target, upstream).await?
        }
        Err(ConnectError::Timeout) => return Err(CONNECT_TIMEOUT),
        Err(ConnectError::Failed(error)) => {
            hear(Err(&error));
            return Err(connect_failed(&error));
        }
    };
    match &config.tls {
        None => Ok(upstream),
        Some(tls) => secure::connect(target, tls, upstream).await,
    }
}

/// Picks an endpoint. Prefers endpoints that are not in `avoid`.
pub(super) fn pick<I: Io>(
    target: &Target<'_, I>,
    choice: &Choice<I>,
    avoid: &[LocalEndpoint<I>],
) -> Option<LocalEndpoint<I>> {
    let core = target.core;
    let pick = |avoid: &[LocalEndpoint<I>]| {
        let (now, random) = (core.io.recent(), &mut core.random.borrow_mut());
        target.service.pick(choice.subset, choice.key, avoid, now, random)
    };
    match &choice.beside {
        None => pick(avoid),
        Some(beside) => {
            let avoid: Vec<_> = avoid.iter().chain([beside]).cloned().collect();
            pick(&avoid).filter(|picked| !Rc::ptr_eq(picked, beside))
        }
    }
}

/// Sends the PROXY protocol header if the service is configured for it.
async fn greet<I: Io>(
    target: &Target<'_, I>,
    upstream: Upstream<Wire<I::Stream>>,
) -> Result<Upstream<Wire<I::Stream>>, Refusal> {
    let Some(form) = target.service.config.send_proxy_protocol else { return Ok(upstream) };
    let address = match &upstream.endpoint.config.borrow().address {
        Address::Tcp(address) => Some(*address),
        Address::Unix(_) => None,
    };
    let mut header = Vec::new();
    proxy_protocol::encode(&mut header, form, target.client, address);
    let buf = filled(target.core.io.buffers().take(), &header);
    match upstream.alarm.guard(upstream.stream.write_all(buf)).await {
        Ok((Ok(()), _)) => Ok(upstream),
        Ok((Err(_), _)) => Err(CONNECT_FAILED),
        Err(_) => Err(CONNECT_TIMEOUT),
    }
}

const NO_ENDPOINT: Refusal = Refusal {
    status: 503,
    flag: Flag::NoHealthyUpstream,
    detail: "the service has no endpoint to take the request",
};

const NONE_HEALTHY: Refusal =
    Refusal { detail: "no endpoint of the service is healthy", ..NO_ENDPOINT };

const CONNECT_FAILED: Refusal = Refusal {
    status: 503,
    flag: Flag::UpstreamConnectFailure,
    detail: "the endpoint refused the connection",
};

/// The refusal of a request for which no connection could be opened. Its detail says whether the
/// cause is a limit of this proxy.
pub(super) fn connect_failed(error: &io::Error) -> Refusal {
    let overload = |detail| Refusal { status: 503, flag: Flag::Overload, detail };
    match error.raw_os_error() {
        Some(_) if is_shortage(error) => {
            overload("the proxy has no descriptor or memory left for a connection to the endpoint")
        }
        Some(libc::EADDRNOTAVAIL) => Refusal {
            detail: "no local address or port is left for a connection to the endpoint",
            ..CONNECT_FAILED
        },
        Some(libc::EAGAIN) => {
            Refusal { detail: "the endpoint's queue of connections is full", ..CONNECT_FAILED }
        }
        Some(libc::EHOSTUNREACH | libc::ENETUNREACH | libc::EHOSTDOWN | libc::ENETDOWN) => {
            Refusal { detail: "there is no route to the endpoint", ..CONNECT_FAILED }
        }
        Some(libc::ENOENT) => {
            Refusal { detail: "the endpoint's socket does not exist", ..CONNECT_FAILED }
        }
        Some(libc::EACCES | libc::EPERM) => {
            Refusal { detail: "the system forbids a connection to the endpoint", ..CONNECT_FAILED }
        }
        _ => CONNECT_FAILED,
    }
}

pub(super) const CONNECT_TIMEOUT: Refusal = Refusal {
    status: 503,
    flag: Flag::UpstreamConnectFailure,
    detail: "connecting to the endpoint took too long",
};
