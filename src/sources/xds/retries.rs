//! Retry policies of Envoy's API.

use super::proto::{Message, Reason};
use super::route_schemas::{BACK_OFF, RETRY};
use crate::model::{Item, Origin, Retries};

/// Envoy retries all methods.
const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"];

/// The conditions that have no effect here: nothing is retried only because of them.
const WITHOUT_EFFECT: [&str; 2] = ["retriable-status-codes", "http3-post-connect-failure"];

/// No retries.
pub(super) fn none() -> Retries {
    Retries { attempts: Some(0), ..Retries::default() }
}

/// Reads the retry policy in the field `number`.
pub(super) fn read(
    message: &mut Message<'_>,
    number: u64,
    origin: &Origin,
) -> Result<Option<Item<Retries>>, Reason> {
    let Some(mut policy) = message.message(number, &RETRY)? else { return Ok(None) };
    let m = &mut policy;
    let item = |text: &str| Item::new(text.to_owned(), origin.clone());
    let on = m.text(1)?.split(',').map(str::trim).filter(|name| !name.is_empty());
    let mut on: Vec<_> = on.filter(|name| !WITHOUT_EFFECT.contains(name)).map(item).collect();
    on.extend(m.numbers(7)?.into_iter().map(|status| item(&status.to_string())));
    let attempts = if on.is_empty() { 0 } else { m.wrapped_u32(2)?.unwrap_or(1) };
    let per_try = m.duration(3)?.filter(|time| !time.is_zero());
    let (mut base, mut max) = (None, None);
    if let Some(mut back_off) = m.message(8, &BACK_OFF)? {
        base = back_off.duration(1)?;
        max = back_off.duration(2)?;
        back_off.finish()?;
    }
    let time = |value| Item::new(value, origin.clone());
    let retries = Retries {
        attempts: Some(attempts),
        on: (!on.is_empty()).then_some(on),
        per_try_timeout: per_try.map(time),
        backoff_base: base.map(time),
        backoff_max: max.map(time),
        methods: METHODS.into_iter().map(item).collect(),
        // Envoy has no budget here.
        budget_percent: Some(Item::new(100, origin.clone())),
        budget_min: Some(u32::MAX),
        ..Retries::default()
    };
    m.ignore(&[2, 5, 6, 14]); // another endpoint is chosen always
    policy.finish()?;
    Ok(Some(Item::new(retries, origin.clone())))
}
