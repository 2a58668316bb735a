//! The policies of a route: time limits, retries, faults, mirrors, rewrites and header edits.

use regex::bytes::RegexBuilder;

use super::super::hosts::Hosts;
use super::super::{Context, at};
use super::{RouteOwner, destination_fields};
use crate::model::{
    Abort, Action, Delay, FieldEdits, InjectedFault, Item, Mirror, Origin, Retries, Rewrite, Rule,
};
use crate::sources::objects::Fields;
use crate::time::NO_LIMIT;

/// The conditions for a retry if an object names none. `retriable-status-codes`, which Istio adds,
/// names no status.
const RETRY_ON: [&str; 4] = ["connect-failure", "refused-stream", "unavailable", "cancelled"];

/// The number of retries if an object names none.
const ATTEMPTS: u32 = 2;

/// Istio retries all methods.
const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"];

/// The conditions that have no effect here: nothing is retried only because of them.
const WITHOUT_EFFECT: [&str; 2] = ["retriable-status-codes", "http3-post-connect-failure"];

/// The conditions that Ringway does not have.
const UNSUPPORTED: [&str; 2] = ["retriable-headers", "envoy-ratelimited-headers"];

/// Istio's retries for a route that has none of its own.
pub(in super::super) fn default_retries(origin: &Origin) -> Item<Retries> {
    retries_with(ATTEMPTS, &RETRY_ON, origin)
}

fn retries_with(attempts: u32, on: &[&str], origin: &Origin) -> Item<Retries> {
    let item = |text: &&str| Item::new((*text).to_owned(), origin.clone());
    let retries = Retries {
        attempts: Some(attempts),
        on: Some(on.iter().map(item).collect()),
        methods: METHODS.iter().map(item).collect(),
        // Istio has no budget.
        budget_percent: Some(Item::new(100, origin.clone())),
        budget_min: Some(u32::MAX),
        ..Retries::default()
    };
    Item::new(retries, origin.clone())
}

/// Reads the policies of a route into `rule`.
pub(super) fn policies(
    cx: &mut Context<'_>,
    hosts: &mut Hosts,
    owner: &RouteOwner<'_>,
    fields: &mut Fields<'_>,
    rule: &mut Rule,
) {
    let timeout = fields.duration(&mut cx.reader, "timeout");
    rule.timeout = timeout.map(|time| if time.value.is_zero() { NO_LIMIT } else { time.value });
    let retries = retries(cx, fields);
    fault(cx, fields, rule);
    mirror(cx, hosts, owner, fields, rule);
    rewrite(cx, fields, rule);
    edits(cx, fields, rule);
    if matches!(rule.action, Some(Action::Forward(_))) {
        let place = at(fields.place);
        rule.retries = Some(Box::new(retries.unwrap_or_else(|| default_retries(&place))));
    }
}

fn retries(cx: &mut Context<'_>, fields: &mut Fields<'_>) -> Option<Item<Retries>> {
    let r = &mut cx.reader;
    let mut written = fields.map(r, "retries")?;
    let place = at(written.place);
    let attempts = written.number::<u32>(r, "attempts");
    let per_try = written.duration(r, "perTryTimeout");
    let on = written.string(r, "retryOn");
    let backoff = written.duration(r, "backoff");
    let remote = written.boolean(r, "retryRemoteLocalities");
    if let Some(remote) = remote.filter(|remote| remote.value) {
        r.item(&remote, "`retryRemoteLocalities` is not supported", "leave it out");
    }
    written.boolean(r, "retryIgnorePreviousHosts");
    written.hint("numRetries", "write `attempts: N`");
    written.finish(r);
    let mut retries = retries_with(attempts.map_or(ATTEMPTS, |it| it.value), &RETRY_ON, &place);
    if let Some(on) = on {
        let mut conditions = Vec::new();
        for word in on.value.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            if UNSUPPORTED.contains(&word) {
                r.item(&on, format!("the condition {word:?} is not supported"), "leave it out");
            } else if !WITHOUT_EFFECT.contains(&word) {
                conditions.push(Item::new(word.to_owned(), on.origin.clone()));
            }
        }
        retries.value.on = Some(conditions);
    }
    retries.value.per_try_timeout = per_try.filter(|time| !time.value.is_zero());
    retries.value.backoff_base = backoff;
    Some(retries)
}

fn fault(cx: &mut Context<'_>, fields: &mut Fields<'_>, rule: &mut Rule) {
    let Some(mut written) = fields.map(&mut cx.reader, "fault") else { return };
    let place = at(written.place);
    let mut fault = InjectedFault::default();
    let r = &mut cx.reader;
    if let Some(mut delay) = written.map(r, "delay") {
        let duration = delay.duration(r, "fixedDelay");
        let share = share(cx, &mut delay);
        let r = &mut cx.reader;
        delay.refuse(r, "exponentialDelay", "write `fixedDelay: TIME`");
        let place = at(delay.place);
        delay.finish(r);
        let duration = duration.map(|time| time.value);
        fault.delay = Some(Item::new(Delay { duration, share }, place));
    }
    let r = &mut cx.reader;
    if let Some(mut abort) = written.map(r, "abort") {
        let status = abort.number::<u16>(r, "httpStatus");
        let grpc_status = abort.string(r, "grpcStatus");
        abort.refuse(r, "http2Error", "write `httpStatus` or `grpcStatus`");
        let share = share(cx, &mut abort);
        let place = at(abort.place);
        abort.finish(&mut cx.reader);
        fault.abort = Some(Item::new(Abort { status, grpc_status, share }, place));
    }
    written.finish(&mut cx.reader);
    rule.fault = Some(Box::new(Item::new(fault, place)));
}

/// The share of the requests that get a fault. Without a percentage, all of them get it.
fn share(cx: &mut Context<'_>, fields: &mut Fields<'_>) -> Option<u32> {
    let r = &mut cx.reader;
    let percent = fields.number::<u32>(r, "percent").map(|it| it.value.min(100) * 10_000);
    fields.percentage(r, "percentage").or(percent)
}

fn mirror(
    cx: &mut Context<'_>,
    hosts: &mut Hosts,
    owner: &RouteOwner<'_>,
    fields: &mut Fields<'_>,
    rule: &mut Rule,
) {
    let mut share = fields.percentage(&mut cx.reader, "mirrorPercentage");
    let old = fields.number::<u32>(&mut cx.reader, "mirrorPercent");
    share = share.or_else(|| old.map(|old| old.value.min(100) * 10_000));
    let mut to = None;
    if let Some(node) = fields.get("mirror") {
        to = destination_fields(cx, hosts, owner.object, owner.port, node);
    }
    let several = fields.list(&mut cx.reader, "mirrors");
    for (index, node) in several.iter().enumerate() {
        if index > 0 || to.is_some() {
            cx.reader.at(node.place, "a route has one mirror", "keep one of them");
            continue;
        }
        let owned = "an element of `mirrors`";
        let Some(mut mirror) = Fields::of(&mut cx.reader, node, owned) else { continue };
        share = mirror.percentage(&mut cx.reader, "percentage");
        if let Some(node) = mirror.get("destination") {
            to = destination_fields(cx, hosts, owner.object, owner.port, node);
        }
        mirror.finish(&mut cx.reader);
    }
    let Some(to) = to.filter(|_| share != Some(0)) else { return };
    let origin = to.origin.clone();
    let mirror = Mirror { to: Some(to), share, ..Mirror::default() };
    rule.mirror = Some(Box::new(Item::new(mirror, origin)));
}

fn rewrite(cx: &mut Context<'_>, fields: &mut Fields<'_>, rule: &mut Rule) {
    let r = &mut cx.reader;
    let Some(mut written) = fields.map(r, "rewrite") else { return };
    let place = at(written.place);
    let uri = written.string(r, "uri");
    let host = written.string(r, "authority");
    let mut regex = None;
    if let Some(mut pattern) = written.map(r, "uriRegexRewrite") {
        let wanted = pattern.string(r, "match");
        let new = pattern.string(r, "rewrite");
        pattern.finish(r);
        if let (Some(wanted), Some(new)) = (wanted, new) {
            let built = RegexBuilder::new(&wanted.value).unicode(false).build();
            match built {
                Ok(built) => regex = Some((Item::new(built, wanted.origin), new.value)),
                Err(_) => r.item(&wanted, "not a valid regex", "write a regex of RE2"),
            }
        }
    }
    written.finish(r);
    let rewrite = Rewrite { host, matched: uri, regex, ..Rewrite::default() };
    rule.rewrite = Some(Box::new(Item::new(rewrite, place)));
}

/// Reads `headers` into `rule`. Edits of the route and of its only destination are joined.
pub(super) fn edits(cx: &mut Context<'_>, fields: &mut Fields<'_>, rule: &mut Rule) {
    let r = &mut cx.reader;
    let Some(mut headers) = fields.map(r, "headers") else { return };
    for (name, response) in [("request", false), ("response", true)] {
        let Some(mut written) = headers.map(r, name) else { continue };
        let mut edits = FieldEdits {
            set: written.texts(r, "set"),
            add: written.texts(r, "add"),
            remove: written.strings(r, "remove"),
        };
        written.finish(r);
        if !response {
            host_edit(&mut edits, rule);
        }
        let known = match response {
            true => &mut rule.response_headers,
            false => &mut rule.request_headers,
        };
        let known = known.get_or_insert_default();
        known.set.append(&mut edits.set);
        known.add.append(&mut edits.add);
        known.remove.append(&mut edits.remove);
    }
    headers.hint("set", "write `request: {set: ...}` or `response: {set: ...}`");
    headers.finish(r);
}

/// Makes a rewrite of an edit of the host, which is not an ordinary header field.
fn host_edit(edits: &mut FieldEdits, rule: &mut Rule) {
    let is_host = |name: &str| name.eq_ignore_ascii_case("host") || name == ":authority";
    let Some(at) = edits.set.iter().position(|(name, _)| is_host(&name.value)) else { return };
    let (name, value) = edits.set.remove(at);
    let rewrite =
        rule.rewrite.get_or_insert_with(|| Box::new(Item::new(Rewrite::default(), name.origin)));
    rewrite.value.host.get_or_insert(value);
}
