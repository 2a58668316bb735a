//! Lowers `circuit_breaker:` and `concurrency:` to the model.

use super::super::grammar::breaker::{CircuitBreaker, Concurrency};
use super::super::values::{Placed, Time};
use super::origin;
use crate::model::{self, Item};

pub(super) fn breaker(written: CircuitBreaker) -> model::CircuitBreaker {
    model::CircuitBreaker {
        max_connections: written.max_connections.map(number),
        max_pending_requests: written.max_pending_requests.map(number),
        max_requests: written.max_requests.map(number),
        max_retries: written.max_retries,
    }
}

pub(super) fn concurrency(written: Placed<Concurrency>) -> Item<model::Concurrency> {
    let Placed { place, value: Concurrency(map) } = written;
    let time = |written: Placed<Time>| Item::new(written.value.0, origin(written.place));
    let concurrency = model::Concurrency {
        min: map.min.map(number),
        max: map.max.map(number),
        percentile: map.percentile.map(number),
        interval: map.interval.map(time),
        probe_interval: map.probe_interval.map(time),
        probe_requests: map.probe_requests.map(number),
    };
    Item::new(concurrency, origin(place))
}

fn number(written: Placed<u32>) -> Item<u32> {
    Item::new(written.value, origin(written.place))
}
