//! Opens a connection to the first endpoint that accepts one.
//!
//! The kernel sends a lost SYN again after a second at the earliest, and a dead endpoint may not
//! answer at all. So when connecting takes longer than `connect_hedge`, another endpoint is tried
//! at the same time, as RFC 8305 does with addresses. The first open connection is used.

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

/// A wait for a connection to one endpoint.
struct Racer<'a, I: Io> {
    endpoint: LocalEndpoint<I>,
    attempt: Attempt<I>,
    wait: Wait<'a, I>,
}

/// The ways to wait.
enum Wait<'a, I: Io> {
    /// For a connection of this request alone.
    Own(Pin<Box<dyn Future<Output = Opened<I>> + 'a>>),
    /// For the first connection that is free.
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
        let wait = if target.bytes || names_client {
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

/// Waits for a connection to the endpoint of `first`, whose attempt has begun. When opening it
/// fails or takes too long, other endpoints are tried. `begin` begins the attempt at an endpoint.
///
/// # Errors
/// When no endpoint accepts a connection: the refusal is that of the last endpoint that failed.
/// When the deadline passes, or a limit of the circuit breaker is reached.
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
    // An earlier attempt of the request may have failed at these endpoints. They may accept now.
    let before = choice.failed.len();
    let mut begun = 1;
    loop {
        alarm.set(times.hedge.min(times.give_up).min(target.deadline));
        let mut refused = None;
        if let Some((index, opened)) = first_result(&mut racers, &alarm).await {
            let Racer { endpoint, mut attempt, .. } = racers.swap_remove(index);
            choice.tried = Some(Rc::clone(&endpoint));
            match opened {
                // The endpoints did not make the request wait.
                Ok(upstream) if times.was_limited(target) => {
                    attempt.begin_again(io.now());
                    return Ok((upstream, attempt));
                }
                Ok(upstream) => {
                    overtake(racers, &attempt, io.now());
                    return Ok((upstream, attempt));
                }
                // A limit is reached, or the proxy lacks a descriptor or memory. The next endpoint
                // would meet the same.
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
        // Another endpoint would meet the same limit.
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

/// The first racer whose wait has ended, and its result. Returns `None` if the alarm rings first.
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

/// The times at which a wait changes.
struct Times {
    /// Another endpoint is tried.
    hedge: Time,
    /// The wait ends if the limit on connections is reached then.
    give_up: Time,
    /// The length of the wait until then.
    limit: Duration,
    /// The number of openings of the service that had waited at the limit before, or were waiting.
    limited: u64,
}

impl Times {
    fn of<I: Io>(target: &Target<'_, I>) -> Self {
        let config = &target.service.config;
        // Without a deadline of its own, a request would wait for ever at the limit.
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

    /// Whether the limit on connections was reached since the wait began.
    fn was_limited<I: Io>(&self, target: &Target<'_, I>) -> bool {
        target.service.limited.begun() > self.limited
    }

    /// Ends the wait at its deadline, or at the limit on connections.
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
            // A later opening may meet the limit.
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

/// Ends the attempts that began before the `winner`. Their endpoints count as slow.
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
