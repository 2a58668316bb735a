//! Compiles the preference of a service for near endpoints.

use super::Compiler;
use crate::balance::{Locality, OVERPROVISIONING_FACTOR, Position, is_within};
use crate::cluster::Endpoints;
use crate::model::{self, Item, Prefer};

/// The maximum overprovisioning factor: with it, one healthy endpoint of 100 carries the whole
/// load. A larger number was probably meant as a percentage.
const FACTOR_MAX: f64 = 100.0;

/// Determines the position of this proxy for a service. Reports invalid settings.
pub(super) fn position(compiler: &mut Compiler<'_>, service: &model::Service) -> Position {
    let written = service.locality.as_ref();
    if let Some(written) = written {
        faults(compiler, service, written);
    }
    let is_used = is_placed(service);
    let prefer = written.and_then(|written| written.value.prefer);
    let parts = match prefer {
        Some(Prefer::None) => 0,
        Some(Prefer::Region) => 1,
        Some(Prefer::Zone) => 2,
        Some(Prefer::SubZone) | None => usize::MAX,
    };
    let Some(own) = compiler.model.settings.zone.as_ref().filter(|_| is_used) else {
        return Position { is_used, ..Position::default() };
    };
    let near = own.value.split('/').take(parts).map(Into::into).collect();
    let chains = written.map_or(&[][..], |written| &written.value.failover);
    let of_own = chains.iter().filter(|(from, _)| is_within(&own.value, &from.value));
    let nearest = of_own.max_by_key(|(from, _)| from.value.len());
    let failover = nearest.map(|(_, to)| to.iter().map(|zone| zone.value.clone()).collect());
    Position { near, failover: failover.unwrap_or_default(), is_used }
}

/// Compiles the locality policy for `endpoints`. Returns `None` if all have the same level, and no
/// other endpoints may replace them alone.
pub(super) fn policy(
    service: &model::Service,
    endpoints: &Endpoints,
    position: &Position,
) -> Option<Locality> {
    let mut levels = endpoints.list.iter().map(|endpoint| endpoint.level);
    let first = levels.next();
    let may_change = matches!(service.endpoints, Some(model::Endpoints::Slices(_)));
    let may_differ = may_change && !position.near.is_empty();
    if !may_differ && levels.all(|level| Some(level) == first) {
        return None;
    }
    let written = service.locality.as_ref().map(|item| &item.value);
    let factor = written.and_then(|written| written.overprovisioning_factor.as_ref());
    let local = written.and_then(|written| written.local_percent.as_ref());
    Some(Locality {
        overprovisioning_factor: factor.map_or(OVERPROVISIONING_FACTOR, |factor| factor.value),
        local_percent: local.map(|percent| percent.value),
    })
}

/// Whether only the priorities of endpoints count, and not the zone of this proxy.
pub(super) fn ignores_zones(service: &model::Service) -> bool {
    let prefer = service.locality.as_ref().and_then(|locality| locality.value.prefer);
    prefer == Some(Prefer::None)
}

fn faults(compiler: &mut Compiler<'_>, service: &model::Service, item: &Item<model::Locality>) {
    let model::Locality { prefer, local_percent, failover, overprovisioning_factor } = &item.value;
    if let Some(factor) = overprovisioning_factor.as_ref().filter(|it| it.value > FACTOR_MAX) {
        let help = format!("write {}, if it is a percentage", factor.value / 100.0);
        compiler.fault_with_help(&factor.origin, "this is a factor, at most 100", help);
    }
    if let Some(factor) = overprovisioning_factor.as_ref().filter(|factor| factor.value < 1.0) {
        let message = "below 1, a level would not get all requests although all of it is healthy";
        compiler.fault_with_help(&factor.origin, message, "write 1 or more; the default is 1.4");
    }
    if let (Some(percent), [_, ..]) = (local_percent, &failover[..]) {
        let message = "`local_share` sends the rest to all other zones, so `failover` has no order";
        compiler.fault_with_help(&percent.origin, message, "keep one of them");
    }
    let uses_zones = prefer.is_some_and(|prefer| prefer != Prefer::None)
        || local_percent.is_some()
        || !failover.is_empty();
    if *prefer == Some(Prefer::None) && (local_percent.is_some() || !failover.is_empty()) {
        let message = "`prefer: none` ignores zones, so no zone has a share or an order";
        let help = "leave `prefer` out, or leave out the others";
        compiler.fault_with_help(&item.origin, message, help);
    } else if uses_zones && compiler.model.settings.zone.is_none() {
        let message = "this proxy has no zone, so no endpoint is nearer than another";
        let help = "write `zone: NAME` at the top of the file, with its own zone, or \
            `zone: \"${ZONE:-}\"`";
        compiler.warn(&item.origin, message, help);
    } else if uses_zones && !is_placed(service) {
        let message = format!("no endpoint of {:?} has a zone", service.name.value);
        let help = "write `endpoints: [{address: IP:PORT, zone: eu/a}]`";
        compiler.warn(&item.origin, message, help);
    }
}

/// Whether any endpoint of the service has a zone or a priority.
pub(super) fn is_placed(service: &model::Service) -> bool {
    let is_placed =
        |item: &Item<model::Endpoint>| item.value.zone.is_some() || item.value.priority > 0;
    match &service.endpoints {
        Some(model::Endpoints::List(all)) => all.iter().any(is_placed),
        Some(model::Endpoints::Versions(all)) => {
            all.iter().any(|(_, all)| all.iter().any(is_placed))
        }
        Some(model::Endpoints::Name(_)) => service.dns_zone.is_some(),
        Some(model::Endpoints::Consul(_) | model::Endpoints::Awaited) => false,
        // Kubernetes tells the zone of each endpoint that has one.
        Some(model::Endpoints::Slices(_)) => true,
        // The missing list is an error of its own.
        None => true,
    }
}
