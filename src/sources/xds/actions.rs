//! The actions of routes in Envoy's API.

use std::time::Duration;

use super::cluster::service_name;
use super::matches::{part_regex, pattern, share};
use super::proto::{Message, Reason};
use super::route_schemas::{
    MIRROR, REGEX, REGEX_REWRITE, STREAM_DURATION, UPGRADE, WEIGHT, WEIGHTED,
};
use super::schemas::DATA_SOURCE;
use super::{retries, tls};
use crate::model::{Action, Item, Mirror, Origin, Redirect, Respond, Rewrite, Rule};
use crate::time::NO_LIMIT;

/// Envoy's default of `timeout`.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Reads a `RouteAction` into `rule`.
pub(super) fn forward(
    mut message: Message<'_>,
    rule: &mut Rule,
    origin: &Origin,
) -> Result<(), Reason> {
    let m = &mut message;
    rule.action = Some(Action::Forward(clusters(m, origin)?));
    let limit = |time: Duration| if time.is_zero() { NO_LIMIT } else { time };
    rule.timeout = Some(m.duration(8)?.map_or(TIMEOUT, limit));
    if let Some(mut stream) = m.message(36, &STREAM_DURATION)? {
        if let Some(max) = stream.duration(1)?.filter(|max| !max.is_zero()) {
            rule.timeout = rule.timeout.map(|timeout| timeout.min(max));
        }
        stream.ignore(&[2, 3]); // limits on the deadline of a gRPC client
        stream.finish()?;
    }
    rule.stream_idle_timeout = m.duration(24)?.map(limit);
    rule.retries = retries::read(m, 9, origin)?.map(Box::new);
    rule.rewrite = rewrite(m, origin)?.map(|it| Box::new(Item::new(it, origin.clone())));
    rule.mirror = mirror(m, origin)?.map(|it| Box::new(Item::new(it, origin.clone())));
    for mut upgrade in m.messages(25, &UPGRADE)? {
        let kind = upgrade.text(1)?;
        if !kind.eq_ignore_ascii_case("websocket") {
            return Err(upgrade.about(1, "is not supported; only websocket is"));
        }
        upgrade.ignore(&[2]);
        upgrade.finish()?;
    }
    m.off(&[7, 11, 26, 38])?; // auto_host_rewrite, priority, internal redirects
    // No cluster is balanced by a hash, so hash_policy has no effect. A cluster that does not exist
    // always leads to 503. A deadline of a gRPC client is always kept.
    m.ignore(&[15, 20, 23, 28, 40, 42]);
    message.finish()
}

fn clusters(m: &mut Message<'_>, origin: &Origin) -> Result<Vec<(Item<String>, u32)>, Reason> {
    let item = |cluster: &str| Item::new(service_name(cluster), origin.clone());
    if m.has(1) {
        return Ok(vec![(item(m.required_text(1)?), 1)]);
    }
    let Some(mut weighted) = m.message(3, &WEIGHTED)? else {
        let other = [2, 37, 39].into_iter().find(|number| m.has(*number));
        return Err(other.map_or_else(|| m.about(1, "is missing"), |it| m.unsupported(it)));
    };
    let mut all = Vec::new();
    for mut cluster in weighted.messages(1, &WEIGHT)? {
        let name = item(cluster.required_text(1)?);
        let weight = cluster.wrapped_u32(2)?.unwrap_or(0);
        cluster.finish()?;
        if weight > 0 {
            all.push((name, weight));
        }
    }
    if all.is_empty() {
        return Err(weighted.about(1, "has no cluster with a weight"));
    }
    weighted.ignore(&[2, 3]); // runtime_key_prefix, total_weight
    weighted.finish()?;
    Ok(all)
}

fn rewrite(m: &mut Message<'_>, origin: &Origin) -> Result<Option<Rewrite>, Reason> {
    let item = |text: &str| Item::new(text.to_owned(), origin.clone());
    let mut rewrite = Rewrite::default();
    let prefix = m.text(5)?;
    if !prefix.is_empty() {
        rewrite.matched = Some(item(prefix));
    }
    let host = m.text(6)?;
    if !host.is_empty() {
        rewrite.host = Some(item(host));
    }
    if let Some(mut regex) = m.message(32, &REGEX_REWRITE)? {
        let Some(written) = regex.message(1, &REGEX)? else {
            return Err(regex.about(1, "is missing"));
        };
        let compiled = part_regex(&pattern(written)?)?;
        let text = regex.text(2)?.to_owned();
        regex.finish()?;
        rewrite.regex = Some((Item::new(compiled, origin.clone()), text));
    }
    let is_some = rewrite.matched.is_some() || rewrite.host.is_some() || rewrite.regex.is_some();
    Ok(is_some.then_some(rewrite))
}

fn mirror(m: &mut Message<'_>, origin: &Origin) -> Result<Option<Mirror>, Reason> {
    let mut all = m.messages(30, &MIRROR)?;
    if all.len() > 1 {
        return Err(m.about(30, "has several mirrors; keep one"));
    }
    let Some(mut written) = all.pop() else { return Ok(None) };
    let to = service_name(written.required_text(1)?);
    let mirror = Mirror {
        to: Some(Item::new(to, origin.clone())),
        share: share(&mut written, 3)?,
        shadow_host: Some(!written.flag(6)?),
        ..Mirror::default()
    };
    written.ignore(&[4]); // trace_sampled
    written.finish()?;
    Ok(Some(mirror))
}

/// The statuses of redirects, in the order of their numbers.
const STATUSES: [u16; 5] = [301, 302, 303, 307, 308];

/// Reads a `RedirectAction`.
pub(super) fn redirect(mut message: Message<'_>, origin: &Origin) -> Result<Action, Reason> {
    let m = &mut message;
    let text = |text: &str| (!text.is_empty()).then(|| Item::new(text.to_owned(), origin.clone()));
    let scheme = if m.flag(4)? { "https" } else { m.text(7)? };
    let number = m.number(3)?;
    let status = usize::try_from(number).ok().and_then(|number| STATUSES.get(number));
    let status = *status.ok_or_else(|| m.about(3, "is not known"))?;
    let port = m.number(8)?;
    let port = u16::try_from(port).map_err(|_| m.about(8, "is no port"))?;
    let redirect = Redirect {
        scheme: text(scheme),
        host: text(m.text(1)?),
        port: (port > 0).then_some(port),
        path: text(m.text(2)?),
        prefix: text(m.text(5)?),
        status: Some(Item::new(status, origin.clone())),
    };
    m.ignore(&[7]);
    m.off(&[6])?; // strip_query
    message.finish()?;
    Ok(Action::Redirect(Box::new(Item::new(redirect, origin.clone()))))
}

/// Reads a `DirectResponseAction`.
pub(super) fn respond(mut message: Message<'_>, origin: &Origin) -> Result<Action, Reason> {
    let status = message.number(1)?;
    let status = u16::try_from(status).ok().filter(|status| (200..600).contains(status));
    let status = status.ok_or_else(|| message.about(1, "is no status from 200 to 599"))?;
    let body = match message.message(2, &DATA_SOURCE)? {
        Some(source) => tls::inline(source)?,
        None => Vec::new(),
    };
    let body = String::from_utf8(body).map_err(|_| message.about(2, "is no text"))?;
    message.finish()?;
    Ok(Action::Respond(Respond { status: Some(Item::new(status, origin.clone())), body }))
}
