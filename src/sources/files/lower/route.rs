//! Lowers `routes:` to the model.

use std::sync::Arc;

use super::super::grammar::route::{self as grammar, FieldEdits, Redirect, Rewrite, Rule};
use super::super::values::{Entries, OneOrMany, Placed};
use super::{
    Lower, fault, jwt, list, mirror, origin, overload, pairs, place_or, rate_limit, retry, shift,
    time_or_none,
};
use crate::matching::{PathMatch, PatternError, ValueMatch};
use crate::model::{self, Action, Item, Items, Routes};

pub(super) fn routes(
    lower: &mut Lower<'_>,
    written: Entries<OneOrMany<Placed<Rule>>>,
) -> Items<Routes> {
    let mut routes = Vec::with_capacity(written.0.len());
    for (host, rules) in written.0 {
        let host: Item<String> = host.into();
        let origin = host.origin.clone();
        let rules = rules.0.into_iter().map(|rule| self::rule(lower, rule)).collect();
        routes.push(Arc::new(Item::new(Routes { host, rules, ..Routes::default() }, origin)));
    }
    routes
}

fn rule(lower: &mut Lower<'_>, written: Placed<Rule>) -> Item<model::Rule> {
    let value = written.value;
    let actions = [
        value.to.as_ref().map(|to| ("to", to.place)),
        value.redirect.as_ref().map(|redirect| ("redirect", redirect.place)),
        value.respond.as_ref().map(|respond| ("respond", respond.place)),
    ];
    lower.only_one("a rule", &actions);
    let rule = model::Rule {
        name: value.name.map(Into::into),
        matches: matches(lower, value.matches),
        action: match (value.to, value.redirect, value.respond) {
            (Some(to), None, None) => Some(Action::Forward(destinations(to))),
            (None, Some(redirect), None) => Some(Action::Redirect(Box::new(redirect_of(redirect)))),
            (None, None, Some(respond)) => Some(Action::Respond(model::Respond {
                status: respond.value.status.map(Into::into),
                body: respond.value.body,
            })),
            _ => None,
        },
        sticky: value.sticky.map(|sticky| Box::new(sticky_of(sticky))),
        timeout: time_or_none(value.timeout),
        retries: value.retries.map(|retries| Box::new(retry::retries(retries))),
        fault: value.fault.map(|fault| Box::new(fault::fault(lower, fault))),
        shift: value.shift.map(|shift| Box::new(shift::shift(shift))),
        mirror: value.mirror.map(|mirror| Box::new(mirror::mirror(mirror))),
        rate_limits: rate_limit::rate_limits(value.rate_limit),
        priority: value
            .priority
            .map(|it| Item::new(overload::priority(it.value), origin(it.place))),
        request_body_timeout: time_or_none(value.request_body_timeout),
        stream_idle_timeout: time_or_none(value.stream_idle_timeout),
        jwt: value.jwt.map(jwt::demand),
        rewrite: value.rewrite.map(|rewrite| Box::new(rewrite_of(rewrite))),
        request_headers: edits(value.headers.request),
        response_headers: edits(value.headers.response),
    };
    Item::new(rule, origin(written.place))
}

fn destinations(to: Placed<grammar::To>) -> Vec<(Item<String>, u32)> {
    let around = to.place;
    let share = |(name, weight): (Placed<String>, u32)| {
        (Item::new(name.value, origin(place_or(name.place, around))), weight)
    };
    to.value.0.into_iter().map(share).collect()
}

fn sticky_of(written: Placed<grammar::Sticky>) -> Item<model::Sticky> {
    let sticky = match written.value {
        grammar::Sticky::Header(name) => model::Sticky::Header(name.into()),
        grammar::Sticky::Cookie(name) => model::Sticky::Cookie(name.into()),
        grammar::Sticky::Set(cookie) => model::Sticky::Set(model::StickyCookie {
            name: cookie.name.map(Into::into),
            ttl: cookie.ttl.map(|ttl| Item::new(ttl.value.0, origin(ttl.place))),
            path: cookie.path.map(Into::into),
        }),
        grammar::Sticky::Identity => model::Sticky::Identity,
        grammar::Sticky::SourceIp => model::Sticky::SourceIp,
    };
    Item::new(sticky, origin(written.place))
}

fn redirect_of(written: Placed<Redirect>) -> Item<model::Redirect> {
    let value = written.value;
    let redirect = model::Redirect {
        scheme: value.scheme.map(Into::into),
        host: value.host.map(Into::into),
        port: value.port,
        path: value.path.map(Into::into),
        prefix: None,
        status: value.status.map(Into::into),
    };
    Item::new(redirect, origin(written.place))
}

fn rewrite_of(written: Placed<Rewrite>) -> Item<model::Rewrite> {
    let value = written.value;
    let rewrite = model::Rewrite {
        prefix: value.prefix.map(Into::into),
        path: value.path.map(Into::into),
        host: value.host.map(Into::into),
        ..model::Rewrite::default()
    };
    Item::new(rewrite, origin(written.place))
}

fn matches(lower: &mut Lower<'_>, written: grammar::Match) -> model::Match {
    model::Match {
        path: written.path.map(|text| path(lower, &text)),
        methods: list(written.method.0),
        headers: values(lower, written.headers),
        query: values(lower, written.query),
        ..model::Match::default()
    }
}

/// Parses a path condition: `/exact`, `/prefix/*` or `~regex`.
fn path(lower: &mut Lower<'_>, text: &Placed<String>) -> Item<PathMatch> {
    let path = PathMatch::parse(&text.value).unwrap_or_else(|error| {
        lower.pattern(text.place, error);
        // Keep a condition after the mistake, so that the rule does not match every path.
        PathMatch::Exact(text.value.as_bytes().into())
    });
    Item::new(path, origin(text.place))
}

pub(super) fn values(
    lower: &mut Lower<'_>,
    written: Entries<Placed<grammar::ValueMatch>>,
) -> Vec<(Item<String>, ValueMatch)> {
    let mut values = Vec::with_capacity(written.0.len());
    for (name, value) in written.0 {
        match value_match(&value.value) {
            Ok(parsed) => values.push((name.into(), parsed)),
            Err(error) => lower.pattern(value.place, error),
        }
    }
    values
}

/// Lowers a condition on a value: the value, `~regex`, or `{present: true}`.
pub(super) fn value_match(written: &grammar::ValueMatch) -> Result<ValueMatch, PatternError> {
    match written {
        grammar::ValueMatch::Present => Ok(ValueMatch::Present),
        grammar::ValueMatch::Text(text) => ValueMatch::parse(text),
    }
}

fn edits(written: FieldEdits) -> Option<Box<model::FieldEdits>> {
    let FieldEdits { set, add, remove } = written;
    if set.0.is_empty() && add.0.is_empty() && remove.0.is_empty() {
        return None;
    }
    let (set, add) = (pairs(set), pairs(add));
    Some(Box::new(model::FieldEdits { set, add, remove: list(remove.0) }))
}
