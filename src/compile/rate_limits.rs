//! Compiles rate limits.

use std::sync::Arc;

use super::registry::{LimitId, Unit};
use super::{Compiler, global_limits};
use crate::model::{self, Item, LimitHeaders};
use crate::resilience::{
    ByteLimit, FILL_TIME_MAX, GlobalLimit, LIMITS_MAX, LimitBy, LimitFields, LimitList,
    RATE_LIMIT_KEYS, RATE_PER, Rate, RateError, RateLimit, RequestLimit, Scope, quoted,
};

/// The listener, service or rule that a limit belongs to.
pub(super) struct Owner<'a> {
    pub(super) scope: Scope,
    /// The host of a rule. Empty for a listener or service.
    pub(super) host: &'a str,
    pub(super) name: &'a str,
    /// The number of earlier rules with the same host and name.
    pub(super) nth: usize,
    /// The reason why it has no requests that a global limit could count.
    pub(super) not_http: Option<&'a str>,
}

impl<'a> Owner<'a> {
    /// Creates the owner for a listener or a service.
    pub(super) fn named(scope: Scope, name: &'a str, not_http: Option<&'a str>) -> Self {
        Self { scope, host: "", name, nth: 0, not_http }
    }
}

/// The limits of a part of the configuration.
#[derive(Default)]
pub(super) struct Limits {
    /// The limits that this proxy counts.
    pub(super) local: LimitList,
    /// The limit that a rate limit service counts.
    pub(super) global: Option<Arc<GlobalLimit>>,
}

/// Compiles the limits of `owner`: at most [`LIMITS_MAX`] that this proxy counts, and one global
/// limit.
pub(super) fn limits(
    compiler: &mut Compiler<'_>,
    owner: &Owner<'_>,
    written: &[Item<model::RateLimit>],
) -> Limits {
    let (global, own): (Vec<_>, Vec<_>) =
        written.iter().partition(|item| item.value.service.is_some());
    if let Some(second) = global.get(1) {
        let message = "this is the second limit with a `service`";
        compiler.fault_with_help(&second.origin, message, second_global(written));
    }
    if let Some(first) = own.get(LIMITS_MAX) {
        let message = format!("these are {} limits that this proxy counts", own.len());
        let help = format!("a listener, a rule and a service may have {LIMITS_MAX} each");
        compiler.fault_with_help(&first.origin, message, help);
    }
    names(compiler, owner, &own);
    let mut limits = Limits::default();
    for item in global {
        if let Some(asked) = &item.value.service {
            limits.global = global_limits::limit(compiler, owner, item, asked);
        }
    }
    let count = own.len().min(LIMITS_MAX);
    let place = |index| Place { owner, index, count };
    let own = own.into_iter().take(count).enumerate();
    let own = own.filter_map(|(index, item)| limit(compiler, &place(index), item));
    limits.local = own.collect();
    limits
}

/// Checks that the limits of a part have different names, because clients and metrics tell them
/// apart by their names. A limit without a name has its number in metrics, and the name of its
/// owner for clients.
fn names(compiler: &mut Compiler<'_>, owner: &Owner<'_>, limits: &[&Item<model::RateLimit>]) {
    let names_of = |(index, item): (usize, &&Item<model::RateLimit>)| {
        let place = Place { owner, index, count: limits.len() };
        let name = item.value.name.as_deref();
        [place.which(name), place.label(name)]
    };
    let all: Vec<_> = limits.iter().enumerate().map(names_of).collect();
    for (index, item) in limits.iter().enumerate() {
        let is_taken = |other: &[Box<str>; 2]| other.iter().zip(&all[index]).any(|(a, b)| a == b);
        let Some(other) = all[..index].iter().position(is_taken) else { continue };
        let written = |index: usize| limits[index].value.name.as_deref();
        let name = written(index).or_else(|| written(other)).unwrap_or_default();
        let message = format!("another limit of this list is called {name:?}, too");
        let unnamed = [other, index].into_iter().find(|index| written(*index).is_none());
        let help = match unnamed {
            Some(unnamed) => called(owner, unnamed, name),
            None => "give it another `name`".to_owned(),
        };
        compiler.fault_with_help(&item.origin, message, help);
    }
}

/// The advice if the limit number `index`, which has no name, is called `name` like another one.
fn called(owner: &Owner<'_>, index: usize, name: &str) -> String {
    let number = index + 1;
    let after = match owner.scope {
        _ if name == number.to_string() => ", its number",
        Scope::Listener => " after its listener",
        Scope::Route => " after its rule",
        Scope::Service => " after its service",
    };
    format!("limit {number} has no `name`, so it is called {name:?}{after}: give it a `name`")
}

/// A limit of `owner`, which has `count` of them.
struct Place<'a> {
    owner: &'a Owner<'a>,
    index: usize,
    count: usize,
}

impl Place<'_> {
    /// The name or number of the limit among those of its owner. Empty if it is the only one.
    fn which(&self, name: Option<&str>) -> Box<str> {
        match name {
            _ if self.count == 1 => "".into(),
            Some(name) => name.into(),
            None => (self.index + 1).to_string().into(),
        }
    }

    /// The name of the limit in responses.
    fn label(&self, name: Option<&str>) -> Box<str> {
        match (name, self.index) {
            (Some(name), _) => quoted(name),
            (None, 0) => quoted(self.owner.name),
            (None, index) => quoted(&format!("{}/{}", self.owner.name, index + 1)),
        }
    }
}

/// The advice for a part with several global limits.
fn second_global(written: &[Item<model::RateLimit>]) -> &'static str {
    let global = written.iter().filter(|item| item.value.service.is_some());
    let asked = |item: &Item<model::RateLimit>| {
        let model::RateLimit { service, domain, .. } = &item.value;
        [service, domain].map(|part| part.as_ref().map(|part| part.value.clone()))
    };
    let mut asked = global.map(asked);
    let first = asked.next();
    match asked.all(|other| Some(&other) == first.as_ref()) {
        true => "add its `descriptors` to those of the first: one question has them all",
        false => {
            "a limit asks in one domain of one service: write this one in the service or the \
             listener, or move its limits into the domain of the first"
        }
    }
}

/// Compiles a limit that this proxy counts. Returns `None` if it has an error.
fn limit(
    compiler: &mut Compiler<'_>,
    place: &Place<'_>,
    written: &Item<model::RateLimit>,
) -> Option<Arc<RateLimit>> {
    let value = &written.value;
    if let Some((origin, key)) = global_limits::global_key(value) {
        let message = format!("`{key}` is for a global limit, which has a `service`");
        let help = "leave it out, and write `by: {header: NAME}`, `by: identity` or `by: source` \
                    if needed; a global limit has `service`, `domain` and `descriptors` in place \
                    of `requests`";
        compiler.fault_with_help(origin, message, help);
        return None;
    }
    if value.requests.is_none() && value.bytes.is_none() {
        let help = "add `requests: N`, or `bytes: SIZE`, which pass in each `per`";
        compiler.missing(&written.origin, "a rate limit needs `requests` or `bytes`", help);
        return None;
    }
    if let (None, Some(burst)) = (&value.requests, &value.burst) {
        let help = "leave it out: as many bytes as pass in `per` may come at once";
        compiler.fault_with_help(&burst.origin, "`burst` is a number of requests", help);
    }
    let by = by(compiler, value);
    let &Owner { scope, host, name, nth, .. } = place.owner;
    let (limit, unit) = (place.index, Unit::Requests);
    let id =
        LimitId { scope, host: host.into(), name: name.into(), nth, limit, which: "".into(), unit };
    let keys_max = compiler.model.settings.limits.rate_limit_keys.as_ref();
    let keys_max = keys_max.map_or(RATE_LIMIT_KEYS, |keys| keys.value as usize);
    let buckets = |compiler: &mut Compiler<'_>, unit, rate| {
        compiler.registry.buckets((&id, unit), rate, &by, keys_max)
    };
    let requests = match &value.requests {
        None => None,
        Some(requests) => {
            let (rate, burst) = of_requests(compiler, value, requests)?;
            let buckets = buckets(compiler, Unit::Requests, rate);
            Some(RequestLimit { rate, burst, buckets })
        }
    };
    let bytes = match &value.bytes {
        None => None,
        Some(bytes) => {
            let rate = of_bytes(compiler, value, bytes)?;
            let units = [Unit::BytesUp, Unit::BytesDown];
            Some(ByteLimit { rate, buckets: units.map(|unit| buckets(compiler, unit, rate)) })
        }
    };
    let which = place.which(value.name.as_deref());
    // The place in the list may change, the counters belong to the name.
    let counted = LimitId { limit: 0, which: which.clone(), ..id };
    let stats = compiler.registry.rate_limit(&counted);
    let limit = Arc::new(RateLimit {
        scope,
        host: host.into(),
        name: name.into(),
        which,
        place: compiler.model.files.line_of(&written.origin).into(),
        by,
        requests,
        bytes,
        label: place.label(value.name.as_deref()),
        fields: fields(value.headers),
        stats,
    });
    compiler.rate_limits.local.push(Arc::clone(&limit));
    Some(limit)
}

/// The fields of responses.
pub(super) fn fields(headers: LimitHeaders) -> LimitFields {
    LimitFields {
        standard: matches!(headers, LimitHeaders::Standard | LimitHeaders::Both),
        envoy: matches!(headers, LimitHeaders::Envoy | LimitHeaders::Both),
    }
}

fn of_bytes(
    compiler: &mut Compiler<'_>,
    value: &model::RateLimit,
    bytes: &Item<usize>,
) -> Option<Rate> {
    let per = value.per.as_ref().map_or(RATE_PER, |per| per.value);
    let units = bytes.value as u64;
    let (origin, message, help) = match Rate::of_bytes(units, per, units) {
        Ok(rate) => return Some(rate),
        Err(RateError::Zero | RateError::TooFast) => (
            &bytes.origin,
            "a limit of 0 bytes would stop all bodies",
            "write a size, such as 10MiB",
        ),
        Err(RateError::TooSlow) => {
            let origin = value.per.as_ref().map_or(&bytes.origin, |per| &per.origin);
            (origin, "this is too long for a limit", "write a time of days, or shorter")
        }
    };
    compiler.fault_with_help(origin, message, help);
    None
}

fn of_requests(
    compiler: &mut Compiler<'_>,
    value: &model::RateLimit,
    requests: &Item<u32>,
) -> Option<(Rate, u64)> {
    let per = value.per.as_ref().map_or(RATE_PER, |per| per.value);
    let default = requests.value.saturating_sub(1);
    let burst = value.burst.as_ref().map_or(default, |burst| burst.value);
    let error = match Rate::new(requests.value.into(), per, burst.into()) {
        Ok(rate) => return Some((rate, burst.into())),
        Err(error) => error,
    };
    let (origin, message, help) = match error {
        RateError::Zero => (
            &requests.origin,
            "a limit of 0 requests would refuse all of them".to_owned(),
            "write a number from 1; to refuse every request: respond: {status: 429}",
        ),
        RateError::TooFast => (
            &requests.origin,
            format!("{} requests in {per:?} are more than one in a nanosecond", requests.value),
            "leave `rate_limit` out: nothing reaches this limit",
        ),
        RateError::TooSlow => {
            let origin = value.burst.as_ref().map(|burst| &burst.origin);
            let origin = origin.or_else(|| value.per.as_ref().map(|per| &per.origin));
            let days = FILL_TIME_MAX.as_secs() / (24 * 3600);
            (
                origin.unwrap_or(&requests.origin),
                format!(
                    "after this burst, it would take more than {days} days until {} requests \
                     may come at once again",
                    u64::from(burst) + 1
                ),
                "write a smaller burst, or a higher rate",
            )
        }
    };
    compiler.fault_with_help(origin, message, help);
    None
}

fn by(compiler: &mut Compiler<'_>, written: &model::RateLimit) -> LimitBy {
    match &written.by {
        None => LimitBy::All,
        Some(model::LimitBy::Header(name)) => {
            compiler.field_name(name);
            LimitBy::Header(name.value.as_str().into())
        }
        Some(model::LimitBy::Identity) => LimitBy::Identity,
        Some(model::LimitBy::Source) => LimitBy::Source,
    }
}
