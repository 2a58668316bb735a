//! Opens a connection to the first endpoint that accepts one.
//!
//! The kernel sends a lost SYN again after a second at the earliest, and a dead endpoint may not
//! answer at all. So when connecting takes longer than `connect_hedge`, another endpoint is tried
//! at the same time, as RFC 8305 does with addresses. The first open connection is used.

use std::future::{Future, pending, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;

use super::LocalEndpoint;
use super::attempt::{Attempt, Outcome};
use super::choose::{self, Begun, CONNECT_ATTEMPTS_MAX, Choice, Target};
use super::pool::Upstream;
use crate::error::{Flag, Refusal};
use crate::runtime::io::Io;
use crate::time::{NO_LIMIT, Time};
use crate::wire::Wire;

type Opened<I> = Result<Upstream<Wire<<I as Io>::Stream>>, Refusal>;

/// A connection that is being opened.
struct Racer<'a, I: Io> {
    endpoint: LocalEndpoint<I>,
    attempt: Attempt<I>,
    opening: Pin<Box<dyn Future<Output = Opened<I>> + 'a>>,
}

impl<'a, I: Io> Racer<'a, I> {
    fn new(target: &'a Target<'_, I>, (endpoint, attempt): (LocalEndpoint<I>, Attempt<I>)) -> Self {
        let to = Rc::clone(&endpoint);
        let opening = Box::pin(async move { choose::open_new(target, &to).await });
        Self { endpoint, attempt, opening }
    }
}

/// Opens a connection to the endpoint of `first`, whose attempt has begun. When that fails or takes
/// too long, other endpoints are tried. `begin` begins the attempt at an endpoint.
///
/// # Errors
/// When no endpoint accepts a connection. The refusal is that of the last endpoint that failed.
pub async fn first_to_open<I: Io>(
    target: &Target<'_, I>,
    choice: &mut Choice<I>,
    first: (LocalEndpoint<I>, Attempt<I>),
    begin: impl Fn(&LocalEndpoint<I>) -> Attempt<I>,
) -> Result<Begun<I>, Refusal> {
    let io = &target.core.io;
    let hedge = target.service.config.connect_hedge;
    let alarm = io.alarms().alarm();
    let mut racers = vec![Racer::new(target, first)];
    // An earlier attempt of the request may have failed at these endpoints. They may accept now.
    let before = choice.failed.len();
    let mut begun = 1;
    let mut may_hedge = hedge != NO_LIMIT;
    loop {
        let late = if may_hedge { io.now() + hedge } else { Time::NEVER };
        alarm.set(late.min(target.deadline));
        let mut rings = pin!(alarm.guard(pending::<()>()));
        let opened = poll_fn(|context| {
            for (index, racer) in racers.iter_mut().enumerate() {
                if let Poll::Ready(opened) = racer.opening.as_mut().poll(context) {
                    return Poll::Ready(Some((index, opened)));
                }
            }
            rings.as_mut().poll(context).map(|_| None)
        })
        .await;
        let mut refused = None;
        if let Some((index, opened)) = opened {
            let Racer { endpoint, attempt, .. } = racers.swap_remove(index);
            choice.tried = Some(Rc::clone(&endpoint));
            match opened {
                Ok(upstream) => {
                    overtake(racers, &attempt, io.now());
                    return Ok((upstream, attempt));
                }
                // The proxy lacks a descriptor or memory. The next endpoint would need it too.
                Err(because) if because.flag == Flag::Overload => return Err(because),
                Err(because) => refused = Some(because),
            }
            attempt.finish_at(&endpoint, io.now(), Outcome::Failed);
            choice.failed.push(endpoint);
        }
        if io.now() >= target.deadline {
            return Err(LATE);
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
            racers.push(Racer::new(target, (endpoint, attempt)));
        } else if let (true, Some(refused)) = (racers.is_empty(), refused) {
            return Err(refused);
        } else {
            may_hedge = false;
        }
    }
}

/// Ends the attempts that began before the `winner`. Their endpoints count as slow.
fn overtake<I: Io>(racers: Vec<Racer<'_, I>>, winner: &Attempt<I>, now: Time) {
    for Racer { attempt, opening, .. } in racers {
        drop(opening);
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
