//! Lowers `retries:` of services and rules to the model.

use std::time::Duration;

use super::super::grammar::retry::{AttemptCount, Retries};
use super::super::values::{Placed, Time};
use super::{list, origin};
use crate::model::{self, Item};

pub(super) fn retries(written: Placed<Retries>) -> Item<model::Retries> {
    let Placed { place, value } = written;
    let counted = value.attempt_count;
    let retries = model::Retries {
        attempts: value.attempts,
        on: value.on.map(|on| list(on.0)),
        per_try_timeout: value.per_try_timeout.map(duration),
        backoff_base: value.backoff.base.map(duration),
        backoff_max: value.backoff.max.map(duration),
        budget_percent: value
            .budget
            .percent
            .map(|percent| Item::new(percent.value.0, origin(percent.place))),
        budget_min: value.budget.min,
        methods: value.methods.map(|methods| list(methods.0)).unwrap_or_default(),
        replay_bytes: value.replay_bytes.map(|bytes| bytes.0),
        attempt_count_in_request: matches!(counted, AttemptCount::Request | AttemptCount::Both),
        attempt_count_in_response: matches!(counted, AttemptCount::Response | AttemptCount::Both),
        hedge_after: value.hedge.map(|hedge| match hedge.value.after {
            Some(after) => Item::new(after.value.0, origin(after.place)),
            None => Item::new(model::HedgeAfter::Percentile(950), origin(hedge.place)),
        }),
    };
    Item::new(retries, origin(place))
}

fn duration(written: Placed<Time>) -> Item<Duration> {
    Item::new(written.value.0, origin(written.place))
}
