//! Lowers `circuit_breaker:` to the model.

use super::super::grammar::breaker::CircuitBreaker;
use super::super::values::Placed;
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

fn number(written: Placed<u32>) -> Item<u32> {
    Item::new(written.value, origin(written.place))
}
