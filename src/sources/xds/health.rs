//! Active health checks of Envoy's API.

use super::proto::{Message, Reason, Schema};
use super::schemas::{GRPC_CHECK, HEALTH_CHECK, HTTP_CHECK, TCP_CHECK};
use crate::model::{GrpcProbe, HealthCheck, HealthProbe, HttpProbe, Item, Origin};

/// A range of statuses, without its end.
const RANGE: Schema = Schema("expected_statuses", "1 start 2 end");

/// The `method` of a check.
const GET: u64 = 1;
const HEAD: u64 = 2;

/// Reads the health check of a cluster.
pub(super) fn read(
    cluster: &mut Message<'_>,
    origin: &Origin,
    panic_percent: u8,
) -> Result<Option<Item<HealthCheck>>, Reason> {
    let mut all = cluster.messages(8, &HEALTH_CHECK)?;
    if all.len() > 1 {
        return Err(cluster.about(8, "has several checks; keep one"));
    }
    let Some(mut message) = all.pop() else { return Ok(None) };
    let m = &mut message;
    let item = |value: Option<u32>| value.map(|value| Item::new(value, origin.clone()));
    let text = |text: &str| (!text.is_empty()).then(|| Item::new(text.to_owned(), origin.clone()));
    let check = HealthCheck {
        probe: Some(probe(m, &text, origin)?),
        interval: m.pause(2)?,
        timeout: m.pause(1)?,
        healthy: item(m.wrapped_u32(5)?),
        unhealthy: item(m.wrapped_u32(4)?),
        panic_percent: Some(panic_percent),
    };
    // Jitters, intervals for other states, logs and metadata.
    m.ignore(&[3, 7, 12, 14, 15, 16, 17, 18, 19, 20, 24, 25, 26, 27]);
    message.finish()?;
    Ok(Some(Item::new(check, origin.clone())))
}

fn probe(
    m: &mut Message<'_>,
    text: &dyn Fn(&str) -> Option<Item<String>>,
    origin: &Origin,
) -> Result<HealthProbe, Reason> {
    if let Some(mut http) = m.message(8, &HTTP_CHECK)? {
        let method = http.number(13)?;
        if !matches!(method, 0 | GET | HEAD) {
            return Err(http.about(13, "is neither GET nor HEAD"));
        }
        let path = http.required_text(2)?;
        let path = text(path).ok_or_else(|| http.about(2, "is empty"))?;
        let host = text(http.text(1)?);
        let mut statuses = Vec::new();
        for mut range in http.messages(9, &RANGE)? {
            let (start, end) = (range.number(1)?, range.number(2)?);
            let status = |number: u64| u16::try_from(number).ok();
            match (status(start), end.checked_sub(1).and_then(status)) {
                (Some(first), Some(last)) if first <= last => statuses.push((first, last)),
                _ => return Err(http.about(9, "is no range of statuses")),
            }
        }
        http.finish()?;
        return Ok(HealthProbe::Http(HttpProbe { path, head: method == HEAD, host, statuses }));
    }
    if let Some(tcp) = m.message(9, &TCP_CHECK)? {
        tcp.finish()?;
        return Ok(HealthProbe::Tcp);
    }
    let Some(mut grpc) = m.message(11, &GRPC_CHECK)? else {
        return Err("health_checks has no check that is supported; use HTTP, gRPC or TCP".into());
    };
    let service = text(grpc.text(1)?);
    let authority = text(grpc.text(2)?);
    grpc.finish()?;
    let probe = GrpcProbe { service, authority };
    Ok(HealthProbe::Grpc(Item::new(probe, origin.clone())))
}
