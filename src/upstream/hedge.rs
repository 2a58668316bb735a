//! Opens a connection to the first endpoint that accepts one.
//!
//! The kernel retransmits a lost SYN only after a second, and a dead endpoint may not answer at
//! all. So if connecting takes longer than `connect_hedge`, another endpoint is tried in parallel,
//! similar to RFC 8305. The first connection that is open is used.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::LocalEndpoint;
use super::attempt::{Attempt, Outcome};
use super::choose::{self, Begun, CONNECT_ATTEMPTS_MAX, Choice, Target};
use super::limited::{NOT_FREED, NOT_FREED_IN_TIME, Pending};
use super::opening::Place;
use super::pool::Upstream;
use crate::error::{Flag, Refusal};
use crate::runtime::alarm::Alarm;
use crate::runtime::io::Io;
use crate::time::{NO_LIMIT, Time};
use crate::wire::Wire;

type Opened<I> = Result<Upstream<Wire<<I as Io>::Stream>>, Refusal>;

/// An endpoint whose connection the request waits for.
struct Racer<'a, I: Io> {
    endpoint: LocalEndpoint<I>,
    attempt: Attempt<I>,
    wait: Wait<'a, I>,
}

/// The connection that a racer waits for.
enum Wait<'a, I: Io> {
    /// A connection that only this request can use.
    Own(Pin<Box<dyn Future<Output = Opened<I>> + 'a>>),
    /// The first connection that becomes available from the queue of the endpoint.
    Queued(Place<'a, I>),
}

impl<'a, I: Io> Racer<'a, I> {
    fn new(
        target: &'a Target<'a, I>,
        (endpoint, attempt): (LocalEndpoint<I>, Attempt<I>),
        fresh: bool,
    ) -> Self {
        let names_client = target.service.config.send_proxy_protocol.is_some()
            && !choose::is_multiplexed(target, &endpoint);
        let wait = if target.bytes || target.old_way || names_client {
            let to = Rc::clone(&endpoint);
            Wait::Own(Box::pin(async move { choose::open_own(target, &to).await }))
        } else {
            Wait::Queued(Place::new(target, &endpoint, fresh))
        };
        Self { endpoint, attempt, wait }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Opened<I>> {
        match &mut self.wait {
            Wait::Own(opening) => opening.as_mut().poll(context),
            Wait::Queued(place) => place.poll(context),
        }
    }
}

/// Waits for a connection to the endpoint of `first`, whose attempt has begun. If opening it fails
/// or takes too long, other endpoints are tried. `begin` creates the attempt at an endpoint.
///
/// # Errors
/// If no endpoint accepts a connection; the refusal is that of the last endpoint that failed. If
/// the deadline passes, or a limit of the circuit breaker is reached.
pub async fn first_to_open<I: Io>(
    target: &Target<'_, I>,
    choice: &mut Choice<I>,
    first: (LocalEndpoint<I>, Attempt<I>),
    begin: impl Fn(&LocalEndpoint<I>) -> Attempt<I>,
) -> Result<Begun<I>, Refusal> {
    let _pending = Pending::begin(target)?;
    let io = &target.core.io;
    let mut times = Times::of(target);
    let alarm = io.alarms().alarm();
    let mut racers = vec![Racer::new(target, first, choice.fresh)];
    // The first `before` endpoints of `choice.failed` failed in an earlier attempt of the request.
    // `another` may pick them again.
    let before = choice.failed.len();
    let mut begun = 1;
    loop {
        alarm.set(times.hedge.min(times.give_up).min(target.deadline));
        let mut refused = None;
        if let Some((index, opened)) = first_result(&mut racers, &alarm).await {
            let Racer { endpoint, mut attempt, .. } = racers.swap_remove(index);
            choice.tried = Some(Rc::clone(&endpoint));
            match opened {
                // The proxy's own limit has caused the wait, and not the endpoint.
                Ok(upstream) if times.was_limited(target) => {
                    attempt.begin_again(io.now());
                    return Ok((upstream, attempt));
                }
                Ok(upstream) => {
                    overtake(racers, &attempt, io.now());
                    return Ok((upstream, attempt));
                }
                // The cause is a limit of the proxy, or a lack of descriptors or memory. Another
                // endpoint would fail for the same reason.
                Err(because) if is_own_limit(because.flag) => return Err(because),
                Err(because) => refused = Some(because),
            }
            attempt.finish_at(&endpoint, io.now(), Outcome::Failed);
            choice.failed.push(endpoint);
        }
        times.check(target)?;
        if refused.is_none() && io.now() < times.hedge {
            continue;
        }
        // Do not try another endpoint: its connection would wait for the same limit.
        if refused.is_none() && target.service.limited.is_any() {
            times.hedge = after(target, target.service.config.connect_hedge);
            continue;
        }
        let another = match begun < CONNECT_ATTEMPTS_MAX {
            true => another(target, choice, &racers, before),
            false => None,
        };
        if let Some(endpoint) = another {
            begun += 1;
            choice.tried = Some(Rc::clone(&endpoint));
            let attempt = begin(&endpoint);
            if let Some(upstream) = choose::at_hand(target, &endpoint, choice.fresh) {
                overtake(racers, &attempt, io.now());
                return Ok((upstream, attempt));
            }
            racers.push(Racer::new(target, (endpoint, attempt), choice.fresh));
            times.hedge = after(target, target.service.config.connect_hedge);
        } else if let (true, Some(refused)) = (racers.is_empty(), refused) {
            return Err(refused);
        } else {
            times.hedge = Time::NEVER;
        }
    }
}

/// The first racer that has a result, and this result. Returns `None` if the alarm expires first.
async fn first_result<I: Io>(
    racers: &mut [Racer<'_, I>],
    alarm: &Alarm,
) -> Option<(usize, Opened<I>)> {
    let result = poll_fn(|context| {
        for (index, racer) in racers.iter_mut().enumerate() {
            if let Poll::Ready(opened) = racer.poll(context) {
                return Poll::Ready((index, opened));
            }
        }
        Poll::Pending
    });
    alarm.guard(result).await.ok()
}

/// The deadlines while a request waits for a connection.
struct Times {
    /// The time at which another endpoint is tried.
    hedge: Time,
    /// The time at which the wait ends if the limit on connections is still reached.
    give_up: Time,
    /// The duration from the beginning of the wait to `give_up`.
    limit: Duration,
    /// The number of connections of the service that had to wait for a slot before this wait began.
    limited: u64,
}

impl Times {
    fn of<I: Io>(target: &Target<'_, I>) -> Self {
        let config = &target.service.config;
        // A request without a deadline would otherwise wait at the limit forever.
        let is_endless = config.breaker.is_some() && target.deadline == Time::NEVER;
        let limit = if is_endless { config.connect_timeout } else { NO_LIMIT };
        let waiting = u64::from(target.service.limited.is_any());
        Self {
            hedge: after(target, config.connect_hedge),
            give_up: after(target, limit),
            limit,
            limited: target.service.limited.begun() - waiting,
        }
    }

    /// Whether a connection had to wait at the limit since this wait began.
    fn was_limited<I: Io>(&self, target: &Target<'_, I>) -> bool {
        target.service.limited.begun() > self.limited
    }

    /// Returns an error at the deadline, or if the wait at the limit on connections was too long.
    fn check<I: Io>(&mut self, target: &Target<'_, I>) -> Result<(), Refusal> {
        let now = target.core.io.now();
        if now >= target.deadline {
            return Err(match target.service.limited.is_any() {
                true => NOT_FREED_IN_TIME,
                false => LATE,
            });
        }
        if now >= self.give_up {
            if target.service.limited.is_any() {
                return Err(NOT_FREED);
            }
            // The limit is not reached now, but it may be reached again. So begin a new wait.
            self.give_up = after(target, self.limit);
        }
        Ok(())
    }
}

fn after<I: Io>(target: &Target<'_, I>, wait: Duration) -> Time {
    if wait == NO_LIMIT { Time::NEVER } else { target.core.io.now() + wait }
}

/// Whether the cause of a refusal is a limit of this proxy, and not the endpoint.
pub(super) fn is_own_limit(flag: Flag) -> bool {
    matches!(flag, Flag::Overload | Flag::UpstreamOverflow)
}

/// Ends the attempts that began before the `winner`. They count as slow.
fn overtake<I: Io>(racers: Vec<Racer<'_, I>>, winner: &Attempt<I>, now: Time) {
    for Racer { attempt, wait, .. } in racers {
        drop(wait);
        if attempt.began() < winner.began() {
            attempt.finish(now, Outcome::Overtaken);
        }
    }
}

const LATE: Refusal = Refusal {
    status: 504,
    flag: Flag::UpstreamTimeout,
    detail: "no endpoint accepted a connection within the timeout",
};

/// Picks an endpoint that was not tried yet. The first `before` entries of `choice.failed` are from
/// earlier attempts, and may be picked again.
fn another<I: Io>(
    target: &Target<'_, I>,
    choice: &Choice<I>,
    racers: &[Racer<'_, I>],
    before: usize,
) -> Option<LocalEndpoint<I>> {
    let racing = racers.iter().map(|racer| &racer.endpoint);
    let avoid: Vec<_> = choice.failed.iter().chain(racing).cloned().collect();
    let endpoint = choose::pick(target, choice, &avoid)?;
    (!avoid[before..].iter().any(|tried| Rc::ptr_eq(tried, &endpoint))).then_some(endpoint)
}
