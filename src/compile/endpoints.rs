//! Compiles the endpoints of a service. An endpoint that earlier snapshots have keeps its counters
//! and its health state.

use std::cell::OnceCell;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::locality;
use super::registry::Registry;
use super::reserved::reaches;
use super::{Compiler, admin_address};
use crate::balance::{Level, Policy, Position};
use crate::cells::PerWorker;
use crate::cluster::{Endpoint, Endpoints, Service, Slices};
use crate::health::{HealthState, OutlierGroup, OutlierState, Warmup};
use crate::model::{self, Endpoints as Written, Item, Origin};
use crate::net::Address;

/// Compiles the endpoints that the model lists for a service. A service in DNS has no endpoints
/// before the first DNS answer.
pub(super) fn of_service(
    compiler: &mut Compiler<'_>,
    item: &Item<model::Service>,
    policy: &Policy,
    position: &Position,
) -> Arc<Endpoints> {
    let written = &item.value;
    let name = written.name.value.as_str();
    let judged = Judged {
        checked: written.health_check.is_some(),
        outliers: written.outlier_detection.as_ref().map(|_| compiler.registry.outlier_group(name)),
        slow_start: written.slow_start.is_some(),
    };
    let admin = admin_address(compiler.model);
    let mut builder = Builder::new(compiler.registry, name, judged);
    builder.is_placed = position.is_used;
    match &written.endpoints {
        Some(Written::List(all)) => builder.add(None, all, position),
        Some(Written::Versions(all)) => {
            for (version, its) in all {
                builder.add(Some(version.value.as_str()), its, position);
            }
        }
        Some(Written::Name(name)) => {
            let known = compiler.resolutions.names.get(&name.value);
            let zone = written.dns_zone.as_deref();
            let level = position.level(zone, 0);
            let addresses = usable(known.map_or(&[], Vec::as_slice), admin.as_ref());
            builder.add_addresses(addresses, zone.map(|zone| (zone, level)));
        }
        Some(Written::Consul(name)) => {
            let known = compiler.resolutions.consul.get(&name.value);
            let level = position.level(None, 0);
            let known = known.map_or(&[][..], |known| known);
            known.iter().for_each(|endpoint| builder.add_one(None, endpoint, level));
        }
        Some(Written::Slices(name)) => {
            let known = compiler.resolutions.slices.get(&*name.value);
            builder.add_found(known.map_or(&[], |known| known), position);
        }
        Some(Written::Awaited) | None => {}
    }
    let endpoints = builder.finish(policy);
    duplicates(compiler, item, &endpoints.list);
    endpoints
}

/// The addresses of a name that are not the admin interface. The owner of a name in DNS could read
/// and change this process through a route to it.
fn usable<'a>(
    addresses: &'a [SocketAddr],
    admin: Option<&'a Address>,
) -> impl Iterator<Item = &'a SocketAddr> {
    addresses.iter().filter(move |address| match admin {
        Some(Address::Tcp(admin)) => !reaches(**address, *admin),
        Some(Address::Unix(_)) | None => true,
    })
}

/// Compiles the endpoints of a service in DNS. They have the addresses `addresses`, without that of
/// the admin interface `admin`.
pub fn found_at(
    service: &Service,
    addresses: &[SocketAddr],
    admin: Option<&Address>,
    registry: &mut Registry,
) -> Arc<Endpoints> {
    let mut builder = Builder::new(registry, &service.name, judged(service));
    let zone = service.dns_zone.as_ref().map(|(zone, level)| (&**zone, *level));
    builder.is_placed = zone.is_some();
    builder.add_addresses(usable(addresses, admin), zone);
    builder.finish(&service.policy)
}

/// Compiles the endpoints of a service in Consul.
pub fn found_in_consul(
    service: &Service,
    found: &[model::Endpoint],
    registry: &mut Registry,
) -> Arc<Endpoints> {
    let mut builder = Builder::new(registry, &service.name, judged(service));
    found.iter().for_each(|endpoint| builder.add_one(None, endpoint, Level::default()));
    builder.finish(&service.policy)
}

/// Compiles the endpoints of a port of a service of Kubernetes.
pub fn found_in_slices(
    service: &Service,
    slices: &Slices,
    found: &[model::Endpoint],
    registry: &mut Registry,
) -> Arc<Endpoints> {
    let mut builder = Builder::new(registry, &service.name, judged(service));
    builder.add_found(found, &slices.position);
    builder.finish(&service.policy)
}

/// Compiles the endpoints that a resource of a server lists. Returns `None` if more of the service
/// depends on them, so that it must be compiled again.
pub fn found_in_resource(
    service: &Service,
    written: &model::Service,
    registry: &mut Registry,
) -> Option<Arc<Endpoints>> {
    let Some(Written::List(all)) = &written.endpoints else { return None };
    let mut builder = Builder::new(registry, &service.name, judged(service));
    builder.is_placed = locality::is_placed(written);
    builder.add(None, all, &Position::default());
    let endpoints = builder.finish(&service.policy);
    (locality::policy(written, &endpoints, &Position::default()) == service.locality)
        .then_some(endpoints)
}

fn judged(service: &Service) -> Judged {
    Judged {
        checked: service.health.is_some(),
        outliers: service.outlier.as_ref().map(|outlier| Arc::clone(&outlier.group)),
        slow_start: service.slow_start.is_some(),
    }
}

/// The settings of a service that need a state for each endpoint.
struct Judged {
    /// Whether the endpoints have health checks.
    checked: bool,
    /// The outlier detection. `None` means no outlier detection.
    outliers: Option<Arc<OutlierGroup>>,
    /// Whether new endpoints have a slow start.
    slow_start: bool,
}

/// Builds the list of endpoints of one service.
struct Builder<'a> {
    registry: &'a mut Registry,
    service: &'a str,
    judged: Judged,
    before: Before,
    list: Vec<Arc<Endpoint>>,
    versions: Vec<(&'a str, Vec<u32>)>,
    /// Whether an endpoint has a zone or a priority.
    is_placed: bool,
}

impl<'a> Builder<'a> {
    fn new(registry: &'a mut Registry, service: &'a str, judged: Judged) -> Self {
        let before = Before { lists: registry.endpoints(service), by_address: OnceCell::new() };
        let (list, versions) = (Vec::new(), Vec::new());
        Self { registry, service, judged, before, list, versions, is_placed: false }
    }

    fn add(
        &mut self,
        version: Option<&'a str>,
        written: &[Item<model::Endpoint>],
        position: &Position,
    ) {
        let first = self.list.len() as u32;
        self.list.reserve_exact(written.len());
        for Item { value: written, .. } in written {
            self.add_one(
                version,
                written,
                position.level(written.zone.as_deref(), written.priority),
            );
        }
        if let Some(version) = version {
            self.versions.push((version, (first..self.list.len() as u32).collect()));
        }
    }

    fn add_found(&mut self, found: &[model::Endpoint], position: &Position) {
        // The zones of later endpoints are not known yet.
        self.is_placed = !position.near.is_empty();
        for endpoint in found {
            self.add_one(None, endpoint, position.level(endpoint.zone.as_deref(), 0));
        }
    }

    fn add_addresses<'s>(
        &mut self,
        addresses: impl Iterator<Item = &'s SocketAddr>,
        zone: Option<(&str, Level)>,
    ) {
        for address in addresses {
            let address = Address::Tcp(*address);
            let (name, level) = zone.unzip();
            let zone = name.map(Into::into);
            let written = model::Endpoint { address, weight: 1, zone, priority: 0 };
            self.add_one(None, &written, level.unwrap_or_default());
        }
    }

    fn add_one(&mut self, version: Option<&str>, written: &model::Endpoint, level: Level) {
        let model::Endpoint { address, weight, zone, .. } = written;
        let before = self.before.find(self.list.len(), address);
        let twin = match self.versions.is_empty() {
            true => None,
            false => self.list.iter().find(|endpoint| endpoint.address == *address),
        };
        // An endpoint that is in several versions has one set of counters and one health state.
        let known = twin.or(before.as_ref());
        let stats = known.map(|known| Arc::clone(&known.stats));
        let health = known.and_then(|known| known.health.clone());
        let new_health = || Arc::new(HealthState::new(self.registry.changes(self.service)));
        let health = self.judged.checked.then(|| health.unwrap_or_else(new_health));
        let outlier = self.outlier_state(address, known);
        let warmup = self.judged.slow_start.then(|| warmup_of(known, outlier.as_ref()));
        let workers = self.registry.workers();
        let zone_stats = self
            .is_placed
            .then(|| self.registry.zone(self.service, zone.as_deref().unwrap_or_default(), level));
        let endpoint = Endpoint {
            address: address.clone(),
            weight: *weight,
            zone: zone.clone(),
            level,
            zone_stats,
            version: version.map(Into::into),
            health,
            outlier,
            warmup,
            stats: stats.unwrap_or_else(|| Arc::new(PerWorker::new(workers))),
        };
        let unchanged = before.filter(|before| is_unchanged(before, &endpoint));
        self.list.push(unchanged.unwrap_or_else(|| Arc::new(endpoint)));
    }

    /// The state of outlier detection of an endpoint. `known` is the same endpoint in an earlier
    /// snapshot.
    fn outlier_state(
        &self,
        address: &Address,
        known: Option<&Arc<Endpoint>>,
    ) -> Option<Arc<OutlierState>> {
        let group = self.judged.outliers.as_ref()?;
        let state = known.and_then(|known| known.outlier.clone());
        Some(state.filter(|state| state.is_of(group)).unwrap_or_else(|| {
            let (warmup, workers) = (warmup_of(known, None), self.registry.workers());
            Arc::new(OutlierState::new(address.to_string(), Arc::clone(group), warmup, workers))
        }))
    }

    fn finish(self, policy: &Policy) -> Arc<Endpoints> {
        let Self { registry, service, before, list, versions, .. } = self;
        let new = before.whole(&list, &versions, policy);
        let endpoints = new.unwrap_or_else(|| Arc::new(Endpoints::new(list, versions, policy)));
        registry.keep_endpoints(service, &endpoints);
        endpoints
    }
}

/// The record of the slow start of an endpoint: the one from before the reload, or a new one.
/// Outlier detection holds the same record, so that it can begin a slow start after an ejection.
fn warmup_of(known: Option<&Arc<Endpoint>>, outlier: Option<&Arc<OutlierState>>) -> Arc<Warmup> {
    let of_outlier = outlier.map(|state| Arc::clone(&state.warmup));
    of_outlier.or_else(|| known.and_then(|known| known.warmup.clone())).unwrap_or_default()
}

/// Whether `before` and `after` are the same endpoint with the same settings and counters.
fn is_unchanged(before: &Endpoint, after: &Endpoint) -> bool {
    let health = |endpoint: &Endpoint| endpoint.health.as_ref().map(Arc::as_ptr);
    let outlier = |endpoint: &Endpoint| endpoint.outlier.as_ref().map(Arc::as_ptr);
    let warmup = |endpoint: &Endpoint| endpoint.warmup.as_ref().map(Arc::as_ptr);
    let zone = |endpoint: &Endpoint| endpoint.zone_stats.as_ref().map(Arc::as_ptr);
    before.is_same(after)
        && before.weight == after.weight
        && before.zone == after.zone
        && before.level == after.level
        && health(before) == health(after)
        && outlier(before) == outlier(after)
        && warmup(before) == warmup(after)
        && zone(before) == zone(after)
        && Arc::ptr_eq(&before.stats, &after.stats)
}

/// The endpoints of a service in all snapshots that are still in use.
struct Before {
    /// The endpoints of each snapshot, the latest first.
    lists: Vec<Arc<Endpoints>>,
    by_address: OnceCell<FxHashMap<Address, Arc<Endpoint>>>,
}

impl Before {
    /// The endpoint at `address`. Looks at `index` first, because most endpoints keep their index.
    fn find(&self, index: usize, address: &Address) -> Option<Arc<Endpoint>> {
        let here = self.lists.first()?.list.get(index);
        if let Some(here) = here.filter(|endpoint| endpoint.address == *address) {
            return Some(Arc::clone(here));
        }
        let by_address = self.by_address.get_or_init(|| {
            let all = self.lists.iter().rev().flat_map(|endpoints| &endpoints.list);
            all.map(|endpoint| (endpoint.address.clone(), Arc::clone(endpoint))).collect()
        });
        by_address.get(address).cloned()
    }

    /// The endpoints of the latest snapshot, if they are equal to the new ones. Then the new list
    /// is not needed.
    fn whole(
        &self,
        list: &[Arc<Endpoint>],
        versions: &[(&str, Vec<u32>)],
        policy: &Policy,
    ) -> Option<Arc<Endpoints>> {
        let latest = self.lists.first()?;
        let same_list = latest.list.len() == list.len()
            && latest.list.iter().zip(list).all(|(one, other)| Arc::ptr_eq(one, other));
        // If the endpoints are equal, their versions are equal. Only a version without endpoints
        // may differ.
        let same_versions = latest.subsets.len() == versions.len() + 1
            && versions.iter().all(|(version, _)| {
                latest.subsets.iter().any(|subset| *subset.version == **version)
            });
        let hashed = matches!(policy, Policy::Hash(_));
        let same_tables = latest.subsets.iter().all(|subset| subset.maglev.is_some() == hashed);
        (same_list && same_versions && same_tables).then(|| Arc::clone(latest))
    }
}

fn duplicates(
    compiler: &mut Compiler<'_>,
    item: &Item<model::Service>,
    endpoints: &[Arc<Endpoint>],
) {
    // For a short list, and most are short, comparing all entries is faster than building a set.
    const COMPARED_MAX: usize = 16;
    let key = |endpoint: &Arc<Endpoint>| (endpoint.address.clone(), endpoint.version.clone());
    let mut seen = HashSet::new();
    for (index, endpoint) in endpoints.iter().enumerate() {
        let twice = match endpoints.len() {
            ..=COMPARED_MAX => endpoints[..index].iter().any(|other| other.is_same(endpoint)),
            _ => !seen.insert(key(endpoint)),
        };
        if twice {
            let message = format!("the endpoint {} is listed twice", endpoint.address);
            let help = format!(
                "keep one; for a larger share write {{address: {}, weight: N}}",
                endpoint.address
            );
            let origin = origin_of(&item.value, index).unwrap_or(&item.origin);
            compiler.fault_with_help(origin, message, help);
        }
    }
}

/// The origin of the endpoint with this index.
fn origin_of(service: &model::Service, index: usize) -> Option<&Origin> {
    match service.endpoints.as_ref()? {
        Written::List(all) => all.get(index).map(|it| &it.origin),
        Written::Versions(all) => {
            all.iter().flat_map(|(_, its)| its).nth(index).map(|it| &it.origin)
        }
        Written::Name(_) | Written::Consul(_) | Written::Slices(_) | Written::Awaited => None,
    }
}
