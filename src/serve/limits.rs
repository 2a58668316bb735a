//! The rate limits that apply to a request: those of its listener, its rule and its service.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::downstream::Downstream;
use super::record::ExchangeRecord;
use crate::cluster::Service;
use crate::error::Refusal;
use crate::grpc::rate_limit::{Answer, Decision};
use crate::http1::framing;
use crate::http1::sink::Sink;
use crate::message::{HeadView, is_token};
use crate::propagation::forwarded;
use crate::resilience::{
    self, GlobalLimit, KeyHash, Keys, LimitBy, Quota, Rate, RateLimit, Scope, quoted,
};
use crate::route::Rule;
use crate::runtime::io::Io;

/// Takes one unit from each bucket of `limits` for a request. `request` is `None` for a connection
/// of opaque bytes, which counts as one request.
///
/// # Errors
/// 429 if one of the buckets is empty. Then nothing is taken from the others.
pub fn check<I: Io>(
    downstream: &Downstream<I>,
    record: &ExchangeRecord<I>,
    limits: &[Arc<RateLimit>],
    request: Option<HeadView<'_>>,
) -> Result<(), Refusal> {
    if limits.is_empty() { Ok(()) } else { check_limits(downstream, record, limits, request) }
}

/// Takes one unit from the buckets of the listener, rule and service, for a connection of opaque
/// bytes.
///
/// # Errors
/// If one of the buckets is empty.
pub fn check_bytes<I: Io>(
    downstream: &Downstream<I>,
    record: &ExchangeRecord<I>,
    rule: Option<&Rule>,
    service: &Service,
) -> Result<(), Refusal> {
    let of_rule = rule.map_or(&[][..], |rule| &rule.rate_limits);
    let limits = [&*record.terms().rate_limits, of_rule, &*service.rate_limits];
    limits.into_iter().try_for_each(|limits| check(downstream, record, limits, None))
}

fn check_limits<I: Io>(
    downstream: &Downstream<I>,
    record: &ExchangeRecord<I>,
    limits: &[Arc<RateLimit>],
    request: Option<HeadView<'_>>,
) -> Result<(), Refusal> {
    let mut keys = Keys::default();
    for (key, limit) in keys.iter_mut().zip(limits) {
        *key = key_of(downstream, record, limit, request);
    }
    let (worker, began) = (&downstream.worker, record.began);
    let quota = resilience::admit(limits, &keys, worker.index, began, || worker.io.now());
    let Some(quota) = quota else {
        record.throttle(limits, &keys);
        return Ok(());
    };
    let Some(limit) = limits.get(usize::from(quota.limit)) else { return Ok(()) };
    record.set_quota(limit.scope, quota);
    if quota.wait_s == 0 {
        record.throttle(limits, &keys);
        return Ok(());
    }
    record.set_limit(limit);
    Err(limit.refusal())
}

/// The key of a request for `limit`.
fn key_of<I: Io>(
    downstream: &Downstream<I>,
    record: &ExchangeRecord<I>,
    limit: &RateLimit,
    request: Option<HeadView<'_>>,
) -> KeyHash {
    let (peer, hops) = (&downstream.peer, record.terms().trusted_hops);
    let mut octets = [0; 16];
    limit.hash(match &limit.by {
        LimitBy::All => &b""[..],
        LimitBy::Header(name) => {
            request.and_then(|request| request.value(name.as_bytes())).unwrap_or_default()
        }
        LimitBy::Identity => peer.identity().unwrap_or_default().as_bytes(),
        LimitBy::Source => source(forwarded::client(request, hops, peer.address), &mut octets),
    })
}

fn source(client: Option<IpAddr>, octets: &mut [u8; 16]) -> &[u8] {
    match client {
        None => &[],
        Some(IpAddr::V4(ip)) => {
            octets[..4].copy_from_slice(&ip.octets());
            &octets[..4]
        }
        Some(IpAddr::V6(ip)) => {
            *octets = ip.octets();
            octets
        }
    }
}

/// The states of the rate limits after a request, by scope.
pub type Quotas = [Option<Quota>; Scope::COUNT];

/// Writes the response fields that describe the rate limits of a request. Adds the wait
/// (`retry-after`) if the request is refused.
pub fn put_fields(out: &mut dyn Sink, limits: [Option<&RateLimit>; Scope::COUNT], quotas: Quotas) {
    let met = || limits.into_iter().zip(quotas).filter_map(|(limit, quota)| Some((limit?, quota?)));
    for (limit, quota) in met() {
        if let (true, Some(requests)) = (limit.fields.standard, &limit.requests) {
            put_standard(out, &limit.label, requests.rate, quota);
        }
    }
    // The `x-ratelimit` fields describe only one limit. Use the one with the fewest requests left.
    let next = met().filter(|(limit, _)| limit.fields.envoy).min_by_key(|(_, quota)| quota.left);
    if let Some((limit, quota)) = next
        && let Some(requests) = &limit.requests
    {
        put(out, b"x-ratelimit-limit", requests.rate.units());
        put(out, b"x-ratelimit-remaining", quota.left.into());
        put(out, b"x-ratelimit-reset", quota.full_in_s.into());
    }
    if let Some((_, quota)) = met().find(|(_, quota)| quota.wait_s > 0) {
        put(out, b"retry-after", quota.wait_s.into());
    }
}

fn put_standard(out: &mut dyn Sink, label: &str, rate: Rate, quota: Quota) {
    put_policy(out, label, rate.units(), Some(rate.per()));
    put_state(out, label, quota.left, Some(quota.full_in_s));
}

fn put_policy(out: &mut dyn Sink, label: &str, units: u64, window: Option<Duration>) {
    let mut digits = [[0; 20]; 2];
    let [first, second] = &mut digits;
    let units = decimal(first, units);
    // The window is an integer in structured fields, so it is left out unless it is in whole
    // seconds.
    let window: [&[u8]; 2] = match window {
        Some(per) if per.subsec_nanos() == 0 => [b";w=", decimal(second, per.as_secs())],
        _ => [b"", b""],
    };
    out.add(b"ratelimit-policy", &[label.as_bytes(), b";q=", units, window[0], window[1]]);
}

fn put_state(out: &mut dyn Sink, label: &str, left: u32, reset_s: Option<u32>) {
    let mut digits = [[0; 20]; 2];
    let [first, second] = &mut digits;
    let left = decimal(first, left.into());
    let reset: [&[u8]; 2] = match reset_s {
        Some(reset_s) => [b";t=", decimal(second, reset_s.into())],
        None => [b"", b""],
    };
    out.add(b"ratelimit", &[label.as_bytes(), b";r=", left, reset[0], reset[1]]);
}

/// Writes the fields about a global limit, and those that the rate limit service adds.
pub fn put_answer(out: &mut dyn Sink, limit: &GlobalLimit, answer: &Answer) {
    if limit.fields.standard {
        for state in &answer.limits {
            let named = (!state.name.is_empty()).then(|| quoted(&state.name));
            let label = named.as_deref().unwrap_or(&limit.label);
            put_policy(out, label, state.requests.into(), state.window);
            put_state(out, label, state.left, state.reset_s);
        }
    }
    let next = answer.limits.iter().min_by_key(|state| state.left);
    if let Some(state) = next.filter(|_| limit.fields.envoy) {
        put(out, b"x-ratelimit-limit", state.requests.into());
        put(out, b"x-ratelimit-remaining", state.left.into());
        put(out, b"x-ratelimit-reset", state.reset_s.unwrap_or_default().into());
    }
    let fields = || answer.fields.iter().filter(|(name, value)| may_add(name, value));
    fields().for_each(|(name, value)| out.add(name, &[value]));
    if answer.decision == Some(Decision::OverLimit) {
        out.add(b"x-envoy-ratelimited", &[b"true"]);
        let over = answer.limits.iter().filter(|state| state.is_over);
        let wait_s = over.filter_map(|state| state.reset_s).max();
        let has_wait = fields().any(|(name, _)| name.eq_ignore_ascii_case(b"retry-after"));
        if let Some(wait_s) = wait_s.filter(|_| !has_wait) {
            put(out, b"retry-after", wait_s.into());
        }
    }
}

/// Whether a rate limit service may add this field to a response: it must be a valid field, and
/// neither framing nor the status of a gRPC call.
fn may_add(name: &[u8], value: &[u8]) -> bool {
    let is_own =
        framing::FRAMING_FIELDS.iter().any(|own| name.eq_ignore_ascii_case(own.as_bytes()));
    let is_grpc = name.get(..5).is_some_and(|start| start.eq_ignore_ascii_case(b"grpc-"));
    let is_plain = |&byte: &u8| byte == b'\t' || byte >= b' ' && byte != 0x7f;
    is_token(name) && !is_own && !is_grpc && value.iter().all(is_plain)
}

fn put(out: &mut dyn Sink, name: &[u8], value: u64) {
    out.add(name, &[decimal(&mut [0; 20], value)]);
}

/// `n` as decimal digits.
fn decimal(digits: &mut [u8; 20], mut n: u64) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (n % 10) as u8;
        n /= 10;
        if n == 0 {
            return &digits[at..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_decimal() {
        for n in [0, 7, 10, 429, u64::MAX] {
            assert_eq!(decimal(&mut [0; 20], n), n.to_string().as_bytes());
        }
    }

    #[test]
    fn addresses_are_keys() {
        for (ip, expected) in [("10.0.0.1", &[10, 0, 0, 1][..]), ("::1", &1_u128.to_be_bytes())] {
            assert_eq!(source(Some(ip.parse().unwrap()), &mut [0; 16]), expected);
        }
        assert_eq!(source(None, &mut [0; 16]), b"");
    }
}
