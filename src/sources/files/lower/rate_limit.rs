//! Lowers `rate_limit:` of listeners, rules and services to the model.

use super::super::grammar::rate_limit::{self as grammar, RateLimit};
use super::super::values::Placed;
use super::{origin, settings};
use crate::model::{self, Item, LimitBy, LimitHeaders};

pub(super) fn rate_limit(written: Placed<RateLimit>) -> Item<model::RateLimit> {
    let Placed { place, value } = written;
    let limit = model::RateLimit {
        requests: value.requests.map(Into::into),
        bytes: settings::size(value.bytes),
        per: value.per.map(|per| Item::new(per.value.0, origin(per.place))),
        burst: value.burst.map(Into::into),
        by: value.by.map(|by| match by.value {
            grammar::LimitBy::Header(name) => LimitBy::Header(name.into()),
            grammar::LimitBy::Identity => LimitBy::Identity,
            grammar::LimitBy::Source => LimitBy::Source,
        }),
        name: value.name.map(|name| name.value),
        headers: match value.headers {
            grammar::LimitHeaders::Ratelimit => LimitHeaders::Standard,
            grammar::LimitHeaders::XRatelimit => LimitHeaders::Envoy,
            grammar::LimitHeaders::Both => LimitHeaders::Both,
            grammar::LimitHeaders::None => LimitHeaders::None,
        },
    };
    Item::new(limit, origin(place))
}
