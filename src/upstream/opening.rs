//! Opens connections for the requests that wait for an endpoint.

use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};

use super::attempt::{self, Outcome};
use super::choose::{self, Opened, Target};
use super::pool::Upstream;
use super::queue::{Given, Waiter};
use super::{LocalEndpoint, LocalService, hedge, http2, limited};
use crate::error::Refusal;
use crate::runtime::contained::Contained;
use crate::runtime::core::Core;
use crate::runtime::io::{Io, Quiet, Stream};
use crate::snapshot::Limits;
use crate::time::Time;
use crate::wire::Wire;

type OfEndpoint<I> = Wire<<I as Io>::Stream>;

/// The place of a request in the queue of an endpoint. Dropping it leaves the queue, but does not
/// stop a connection that is being opened.
pub struct Place<'a, I: Io> {
    target: &'a Target<'a, I>,
    endpoint: LocalEndpoint<I>,
    waiter: Rc<Waiter<OfEndpoint<I>>>,
}

impl<'a, I: Io> Place<'a, I> {
    /// Enters the queue. If `fresh` is set, the request takes only new connections.
    pub fn new(target: &'a Target<'a, I>, endpoint: &LocalEndpoint<I>, fresh: bool) -> Self {
        let waiter = endpoint.queue.enter(fresh, target.core.io.recent());
        Self { target, endpoint: Rc::clone(endpoint), waiter }
    }

    /// Polls for a connection or stream, or for the reason why there is none.
    pub fn poll(
        &mut self,
        context: &Context<'_>,
    ) -> Poll<Result<Upstream<OfEndpoint<I>>, Refusal>> {
        let Self { target, endpoint, waiter } = self;
        loop {
            match waiter.poll_given(context) {
                Some(Given::Connection(upstream, _)) => {
                    let cells = target.service.config.stats.worker(target.core.index);
                    if !upstream.reused {
                        return Poll::Ready(Ok(upstream));
                    }
                    if upstream.stream.quiet() == Quiet::Quiet {
                        cells.pool_reused.increment();
                        return Poll::Ready(Ok(upstream));
                    }
                    cells.pool_stale.increment();
                    endpoint.queue.enter_again(waiter);
                }
                Some(Given::Stream(slot)) => {
                    return Poll::Ready(Ok(http2::stream(target, endpoint, slot)));
                }
                Some(Given::Refused(refusal)) => return Poll::Ready(Err(refusal)),
                None => {
                    if !begin_missing(target, endpoint, waiter) {
                        return Poll::Pending;
                    }
                }
            }
        }
    }
}

impl<I: Io> Drop for Place<'_, I> {
    fn drop(&mut self) {
        self.endpoint.queue.leave(&self.waiter);
    }
}

/// Begins to open a connection, if fewer are being opened than the waiting requests need. Returns
/// whether requests have got streams instead.
fn begin_missing<I: Io>(
    target: &Target<'_, I>,
    endpoint: &LocalEndpoint<I>,
    waiter: &Rc<Waiter<OfEndpoint<I>>>,
) -> bool {
    if choose::is_multiplexed(target, endpoint) {
        let before = endpoint.queue.len();
        endpoint.serve_streams();
        if endpoint.queue.len() < before {
            return true;
        }
    }
    if endpoint.queue.opening() < needed(target, endpoint) {
        endpoint.queue.opening_began();
        let opening = Opening {
            core: Rc::clone(target.core),
            service: Rc::clone(target.service),
            endpoint: Rc::clone(endpoint),
            for_whom: Rc::downgrade(waiter),
            client: target.client,
            limits: *target.limits,
        };
        let core = Rc::clone(target.core);
        target.core.io.spawn(Contained::new(core, || opening.run()));
    }
    false
}

/// The number of connections that the waiting requests need: one for all of them if they share it,
/// otherwise one for each.
fn needed<I: Io>(target: &Target<'_, I>, endpoint: &LocalEndpoint<I>) -> usize {
    let waiting = endpoint.queue.len();
    if choose::is_multiplexed(target, endpoint) { waiting.min(1) } else { waiting }
}

/// A connection that is being opened. It belongs to no request, so the deadline of a request does
/// not end it.
struct Opening<I: Io> {
    core: Rc<Core<I>>,
    service: Rc<LocalService<I>>,
    endpoint: LocalEndpoint<I>,
    /// The request that has caused it.
    for_whom: Weak<Waiter<OfEndpoint<I>>>,
    /// The client of that request.
    client: Option<SocketAddr>,
    limits: Limits,
}

impl<I: Io> Opening<I> {
    async fn run(self) {
        let Self { core, service, endpoint, for_whom, client, limits } = &self;
        let target = Target {
            core,
            service,
            client: *client,
            trusted_hops: 0,
            limits,
            deadline: Time::NEVER,
            bytes: false,
            old_way: false,
        };
        let counted = Counted::<I>(endpoint);
        let is_needed = || endpoint.queue.opening() <= needed(&target, endpoint);
        let waits_since = || endpoint.queue.oldest().filter(|_| is_needed());
        let Ok(taken) = limited::take(&target, waits_since).await else { return };
        let opened = choose::open_as_chosen(&target, endpoint, taken).await;
        drop(counted);
        match opened {
            Ok(Opened::Alone(upstream)) => upstream.supply(core.io.now()),
            Ok(Opened::Given) => {}
            Ok(Opened::Shared(connection)) => {
                endpoint.queue.give_streams(|| connection.slot());
                endpoint.shared.add(connection);
            }
            Err(refusal) => {
                let is_told = match choose::is_multiplexed(&target, endpoint) {
                    // With HTTP/2, all waiting requests would share this connection, so all of them
                    // fail.
                    true => endpoint.queue.refuse_all(refusal),
                    false => endpoint.queue.refuse_one(for_whom, refusal),
                };
                // A request that gets the refusal also counts the failure. If there is none,
                // because all requests use other endpoints by now, count it here.
                if !is_told && !hedge::is_own_limit(refusal.flag) {
                    attempt::blame::<I>(endpoint, core.io.now(), Outcome::Failed);
                }
            }
        }
        if choose::is_multiplexed(&target, endpoint) {
            endpoint.serve_streams();
        }
        if endpoint.queue.opening() < needed(&target, endpoint) {
            endpoint.queue.wake();
        }
    }
}

/// Counts the connections that are being opened. The count ends when it is dropped, even in a
/// panic.
struct Counted<'a, I: Io>(&'a LocalEndpoint<I>);

impl<I: Io> Drop for Counted<'_, I> {
    fn drop(&mut self) {
        self.0.queue.opening_ended();
        if std::thread::panicking() {
            self.0.queue.wake();
        }
    }
}
