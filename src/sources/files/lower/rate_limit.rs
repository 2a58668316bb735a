//! Lowers `rate_limit:` of listeners, rules and services to the model.

use super::super::grammar::rate_limit::{self as grammar, EntryValue, RateLimit};
use super::super::values::{OneOrMany, Placed};
use super::{origin, settings};
use crate::model::{self, EntryFact, Item, LimitBy, LimitHeaders};

pub(super) fn rate_limits(written: OneOrMany<Placed<RateLimit>>) -> Vec<Item<model::RateLimit>> {
    written.0.into_iter().map(rate_limit).collect()
}

fn rate_limit(written: Placed<RateLimit>) -> Item<model::RateLimit> {
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
        service: value.service.map(Into::into),
        domain: value.domain.map(Into::into),
        descriptors: value.descriptors.into_iter().map(descriptor).collect(),
        timeout: value.timeout.map(|timeout| Item::new(timeout.value.0, origin(timeout.place))),
        on_failure: value.on_failure.map(|decision| {
            let decided = match decision.value {
                grammar::OnFailure::Allow => model::OnFailure::Allow,
                grammar::OnFailure::Deny => model::OnFailure::Deny,
            };
            Item::new(decided, origin(decision.place))
        }),
    };
    Item::new(limit, origin(place))
}

fn descriptor(
    written: Placed<OneOrMany<Placed<grammar::DescriptorEntry>>>,
) -> Item<Vec<Item<model::DescriptorEntry>>> {
    let entries = written.value.0.into_iter().map(entry).collect();
    Item::new(entries, origin(written.place))
}

fn entry(written: Placed<grammar::DescriptorEntry>) -> Item<model::DescriptorEntry> {
    let entry = model::DescriptorEntry {
        key: written.value.key.map(Into::into),
        fact: written.value.value.map(|value| match value {
            EntryValue::Header(name, default) => EntryFact::Header(name.into(), default),
            EntryValue::Text(text) => EntryFact::Text(text.into()),
            EntryValue::Source => EntryFact::Source,
            EntryValue::Identity => EntryFact::Identity,
            EntryValue::Method => EntryFact::Method,
            EntryValue::Path => EntryFact::Path,
            EntryValue::Rule => EntryFact::Rule,
            EntryValue::Service => EntryFact::Service,
        }),
    };
    Item::new(entry, origin(written.place))
}
