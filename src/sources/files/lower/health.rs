//! Lowers `health_check:` of services to the model.

use super::super::grammar::health::{CheckMethod, HealthCheck, HttpCheckMap};
use super::super::values::Placed;
use super::{Lower, origin, place_or, time};
use crate::model::{self, GrpcProbe, HealthProbe, HttpProbe, Item, Place};

pub(super) fn check(
    lower: &mut Lower<'_>,
    written: Placed<HealthCheck>,
) -> Option<Item<model::HealthCheck>> {
    let value = written.value;
    let probes = [
        value.http.as_ref().map(|http| ("http", http.place)),
        value.grpc.as_ref().map(|grpc| ("grpc", grpc.place)),
        value.tcp.as_ref().map(|tcp| ("tcp", tcp.place)),
    ];
    lower.only_one("a health check", &probes);
    let probe = match (value.http, value.grpc, value.tcp) {
        (Some(http), None, None) => {
            Some(HealthProbe::Http(resource(lower, http.place, http.value.0)))
        }
        (None, Some(grpc), None) => {
            let probe = GrpcProbe {
                service: grpc.value.0.service.map(Into::into),
                authority: grpc.value.0.authority.map(Into::into),
            };
            Some(HealthProbe::Grpc(Item::new(probe, origin(grpc.place))))
        }
        (None, None, Some(tcp)) if tcp.value => Some(HealthProbe::Tcp),
        (None, None, Some(tcp)) => {
            let help = "leave `health_check` out if nothing is to be checked";
            lower.mistake_with_help(tcp.place, "only `tcp: true` can be asked for", help);
            return None;
        }
        _ => None,
    };
    let check = model::HealthCheck {
        probe,
        interval: time(value.interval),
        timeout: time(value.timeout),
        healthy: value.healthy.map(Into::into),
        unhealthy: value.unhealthy.map(Into::into),
        panic_percent: value.panic_threshold.map(|percent| percent.0),
    };
    Some(Item::new(check, origin(written.place)))
}

fn resource(lower: &mut Lower<'_>, around: Place, written: HttpCheckMap) -> HttpProbe {
    let mut statuses = Vec::new();
    for status in &written.status.0 {
        match range(&status.value) {
            Some(range) => statuses.push(range),
            None => {
                let message = format!("{:?} is no status of a final answer", status.value);
                lower.mistake_with_help(status.place, message, "write 200 or 200-299");
            }
        }
    }
    HttpProbe {
        path: Item::new(written.path.value, origin(place_or(written.path.place, around))),
        head: written.method == CheckMethod::Head,
        host: written.host.map(Into::into),
        statuses,
    }
}

/// Parses a range of statuses: `200` or `200-299`. Returns `None` if it is not within 200 to 599.
fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = (first.parse().ok()?, last.parse().ok()?);
    (200 <= range.0 && range.0 <= range.1 && range.1 <= 599).then_some(range)
}
