//! Balancers of Envoy's API.

use super::proto::{Message, Reason};
use super::schemas::{
    EXTENSION, LB_POLICY, LB_POLICY_ENTRY, LEAST_REQUEST, LEAST_REQUEST_FIELD, LOCALITY_LB, RANDOM,
    ROUND_ROBIN, ROUND_ROBIN_FIELD, SLOW_START,
};
use crate::model::{Balance, Item, Origin, Service, SlowStart};

/// The types of the balancers as extensions.
const ROUND_ROBIN_TYPE: &str =
    "type.googleapis.com/envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin";
const LEAST_REQUEST_TYPE: &str =
    "type.googleapis.com/envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest";
const RANDOM_TYPE: &str =
    "type.googleapis.com/envoy.extensions.load_balancing_policies.random.v3.Random";

/// The number of endpoints that the balancer of the fewest requests compares.
const CHOICES: u32 = 2;

/// Reads the balancer of a cluster. Returns whether the weights of localities count.
pub(super) fn read(
    message: &mut Message<'_>,
    service: &mut Service,
    origin: &Origin,
) -> Result<bool, Reason> {
    const HASHED: &str = "needs the key of a hash, which a cluster does not have; use \
                          LEAST_REQUEST, ROUND_ROBIN or RANDOM";
    let number = message.number(6)?;
    service.balance = match number {
        0 => Balance::RoundRobin,
        1 => Balance::LeastRequest,
        3 => Balance::Random,
        2 | 5 => return Err(message.about(6, HASHED)),
        7 if message.has(41) => Balance::RoundRobin,
        _ => return Err(message.unsupported(6)),
    };
    // The settings of a balancer that the cluster does not use have no effect.
    let least = message.message(37, &LEAST_REQUEST_FIELD)?;
    let round = message.message(56, &ROUND_ROBIN_FIELD)?;
    if let Some(mut policy) = message.message(41, &LB_POLICY)? {
        return extension(message, &mut policy, service, origin);
    }
    match (&service.balance, least, round) {
        (Balance::LeastRequest, Some(least), _) => least_request(least, service, origin),
        (Balance::RoundRobin, _, Some(round)) => round_robin(round, service, origin),
        _ => Ok(false),
    }
}

/// Reads the first balancer of a `load_balancing_policy` that is known here.
fn extension(
    cluster: &Message<'_>,
    policy: &mut Message<'_>,
    service: &mut Service,
    origin: &Origin,
) -> Result<bool, Reason> {
    let mut last = "has no policy".to_owned();
    for mut entry in policy.messages(1, &LB_POLICY_ENTRY)? {
        let Some(mut extension) = entry.message(4, &EXTENSION)? else { continue };
        let Some((url, bytes)) = extension.any(2)? else { continue };
        match url {
            ROUND_ROBIN_TYPE => {
                service.balance = Balance::RoundRobin;
                return round_robin(Message::read(bytes, &ROUND_ROBIN)?, service, origin);
            }
            LEAST_REQUEST_TYPE => {
                service.balance = Balance::LeastRequest;
                return least_request(Message::read(bytes, &LEAST_REQUEST)?, service, origin);
            }
            RANDOM_TYPE => {
                service.balance = Balance::Random;
                let mut random = Message::read(bytes, &RANDOM)?;
                let by_locality = by_locality(&mut random, 1)?;
                return random.finish().map(|()| by_locality);
            }
            _ => {
                let name = url.rsplit('.').next().unwrap_or_default();
                last = format!(
                    "has {name}, which is not supported here; use RoundRobin, LeastRequest or \
                     Random"
                );
            }
        }
    }
    Err(cluster.about(41, &last))
}

fn round_robin(
    mut message: Message<'_>,
    service: &mut Service,
    origin: &Origin,
) -> Result<bool, Reason> {
    service.slow_start = slow_start(&mut message, 1, origin)?;
    let by_locality = by_locality(&mut message, 2)?;
    message.finish().map(|()| by_locality)
}

fn least_request(
    mut message: Message<'_>,
    service: &mut Service,
    origin: &Origin,
) -> Result<bool, Reason> {
    if message.wrapped_u32(1)?.is_some_and(|choices| choices != CHOICES) {
        return Err(message.about(1, "is not 2; leave it out"));
    }
    service.slow_start = slow_start(&mut message, 3, origin)?;
    message.off(&[4, 6])?; // enable_full_scan, selection_method
    let by_locality = by_locality(&mut message, 5)?;
    message.finish().map(|()| by_locality)
}

/// Whether the weights of localities count.
fn by_locality(message: &mut Message<'_>, number: u64) -> Result<bool, Reason> {
    let Some(mut config) = message.message(number, &LOCALITY_LB)? else { return Ok(false) };
    // Zone-aware routing needs the cluster of this proxy, which it does not have.
    config.ignore(&[1]);
    let by_locality = config.bytes(2)?.is_some();
    config.finish().map(|()| by_locality)
}

fn slow_start(
    message: &mut Message<'_>,
    number: u64,
    origin: &Origin,
) -> Result<Option<Item<SlowStart>>, Reason> {
    let Some(mut config) = message.message(number, &SLOW_START)? else { return Ok(None) };
    let window = config.duration(1)?.filter(|window| !window.is_zero());
    let aggression = config.percent(2)?; // in the place of a percentage, a `RuntimeDouble`
    let percent = config.percent(3)?;
    if percent.is_some_and(|percent| percent > 100.0) {
        return Err(config.about(3, "is above 100"));
    }
    config.finish()?;
    let min_percent = percent.map(|percent| percent.round() as u8);
    Ok(window
        .map(|window| Item::new(SlowStart { window, aggression, min_percent }, origin.clone())))
}
