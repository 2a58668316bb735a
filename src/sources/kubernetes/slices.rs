//! The meaning of EndpointSlices. No I/O.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::compile::reaches;
use crate::model::Endpoint;
use crate::net::Address;

/// The label with the name of the service.
pub(super) const SERVICE: &str = "kubernetes.io/service-name";

/// An EndpointSlice as the API server writes it.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Written {
    endpoints: Option<Vec<WrittenEndpoint>>,
    ports: Option<Vec<WrittenPort>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WrittenEndpoint {
    addresses: Option<Vec<String>>,
    conditions: Option<Conditions>,
    zone: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Conditions {
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WrittenPort {
    name: Option<String>,
    port: Option<i64>,
    protocol: Option<String>,
}

/// Whether an endpoint gets requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Use {
    /// It does not.
    Never,
    /// Only if no other one is ready: it ends, but still serves.
    Last,
    /// It does.
    Ready,
}

/// An EndpointSlice: the endpoints of a service, all with the same ports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Slice {
    /// The name of the service.
    pub(super) service: Box<str>,
    ports: Vec<(Box<str>, u16)>,
    endpoints: Vec<(IpAddr, Use, Option<Arc<str>>)>,
}

impl Slice {
    /// Reads a slice of the service with this name. Endpoints without an IP address are left out,
    /// and ports of UDP, too.
    pub(super) fn new(service: &str, written: Written) -> Self {
        let port = |port: WrittenPort| {
            let number = u16::try_from(port.port?).ok().filter(|number| *number > 0)?;
            let is_tcp = port.protocol.as_deref().unwrap_or("TCP") == "TCP";
            is_tcp.then(|| (port.name.unwrap_or_default().into(), number))
        };
        let mut zone: Option<Arc<str>> = None;
        let endpoint = |endpoint: WrittenEndpoint| {
            // All addresses of an endpoint are the same one; only the first counts.
            let ip = endpoint.addresses?.first()?.parse().ok()?;
            // Most endpoints have the zone of the one before.
            if zone.as_deref() != endpoint.zone.as_deref() {
                zone = endpoint.zone.as_deref().map(Into::into);
            }
            Some((ip, use_of(&endpoint.conditions.unwrap_or_default()), zone.clone()))
        };
        Self {
            service: service.into(),
            ports: written.ports.into_iter().flatten().filter_map(port).collect(),
            endpoints: written.endpoints.into_iter().flatten().filter_map(endpoint).collect(),
        }
    }

    /// The names of its ports.
    pub(super) fn ports(&self) -> impl Iterator<Item = &str> {
        self.ports.iter().map(|(name, _)| &**name)
    }
}

/// A condition that is missing means yes for `ready`, and the same as `ready` for `serving`.
fn use_of(conditions: &Conditions) -> Use {
    let ready = conditions.ready.unwrap_or(true);
    let is_last = conditions.terminating.unwrap_or(false) && conditions.serving.unwrap_or(ready);
    match (ready, is_last) {
        (true, _) => Use::Ready,
        (false, true) => Use::Last,
        (false, false) => Use::Never,
    }
}

/// The endpoints of the port `name` of a service with these slices, sorted. With addresses of both
/// families, those of IPv4 are used: both lead to the same pods. No endpoint reaches `admin`.
pub(super) fn endpoints<'a>(
    slices: impl Iterator<Item = &'a Slice> + Clone,
    name: &str,
    admin: Option<SocketAddr>,
) -> Arc<[Endpoint]> {
    // An endpoint may be in two slices while it moves between them.
    let mut all: BTreeMap<SocketAddr, (Use, Option<&Arc<str>>)> = BTreeMap::new();
    let mut has_four = false;
    for slice in slices {
        let Some((_, port)) = slice.ports.iter().find(|(its, _)| **its == *name) else { continue };
        for (ip, its, zone) in &slice.endpoints {
            let address = SocketAddr::new(*ip, *port);
            if admin.is_some_and(|admin| reaches(address, admin)) {
                continue;
            }
            has_four |= ip.is_ipv4();
            let known = all.entry(address).or_insert((*its, zone.as_ref()));
            known.0 = known.0.max(*its);
        }
    }
    all.retain(|address, _| address.is_ipv4() || !has_four);
    let best = all.values().map(|(its, _)| *its).max().filter(|best| *best > Use::Never);
    let chosen = all.into_iter().filter(|(_, (its, _))| Some(*its) == best);
    let endpoint = |(address, (_, zone)): (SocketAddr, (Use, Option<&Arc<str>>))| Endpoint {
        address: Address::Tcp(address),
        weight: 1,
        zone: zone.map(|zone| (&**zone).into()),
        priority: 0,
    };
    chosen.map(endpoint).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn slice(endpoints: &Value, ports: &Value) -> Slice {
        let written = json!({ "endpoints": endpoints, "ports": ports });
        Slice::new("web", serde_json::from_value(written).unwrap())
    }

    fn shown(slices: &[Slice], port: &str) -> Vec<String> {
        let admin = "127.0.0.1:9900".parse().ok();
        let found = endpoints(slices.iter(), port, admin);
        found.iter().map(|endpoint| endpoint.address.to_string()).collect()
    }

    fn endpoint(ip: &str, conditions: &Value) -> Value {
        json!({ "addresses": [ip], "conditions": conditions })
    }

    #[test]
    fn only_ready_endpoints_are_used_and_ending_ones_if_there_is_no_other() {
        let http = json!([{"name": "http", "port": 80}]);
        let (yes, no) = (Some(true), Some(false));
        for (ready, serving, terminating, wanted) in [
            (None, None, None, Use::Ready),
            (yes, yes, no, Use::Ready),
            (yes, yes, yes, Use::Ready),
            (yes, no, no, Use::Ready),
            (no, yes, yes, Use::Last),
            (no, None, yes, Use::Never),
            (no, no, yes, Use::Never),
            (no, no, no, Use::Never),
            (no, yes, no, Use::Never),
            (no, None, None, Use::Never),
        ] {
            let conditions =
                json!({"ready": ready, "serving": serving, "terminating": terminating});
            let one = slice(&json!([endpoint("10.0.0.1", &conditions)]), &http);
            let alone = if wanted == Use::Never { 0 } else { 1 };
            assert_eq!(shown(std::slice::from_ref(&one), "http").len(), alone, "{conditions}");
            let other = slice(&json!([endpoint("10.0.0.2", &json!({}))]), &http);
            let both = if wanted == Use::Ready { 2 } else { 1 };
            assert_eq!(shown(&[one, other], "http").len(), both, "{conditions}");
        }
    }

    #[test]
    fn ports_have_names_and_each_slice_its_own_numbers() {
        let ready = json!({"ready": true});
        let one = slice(
            &json!([endpoint("10.0.0.2", &ready), endpoint("10.0.0.1", &ready)]),
            &json!([{"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}]),
        );
        let two = slice(
            &json!([endpoint("10.0.0.3", &ready), endpoint("10.0.0.1", &json!({"ready": false}))]),
            &json!([{"name": "http", "port": 81}, {"port": 9}, {"name": "x", "port": null}]),
        );
        let slices = [one, two];
        assert_eq!(shown(&slices, "http"), ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:81"]);
        assert_eq!(shown(&slices, ""), ["10.0.0.3:9"]);
        assert!(shown(&slices, "dns").is_empty() && shown(&slices, "x").is_empty());
    }

    #[test]
    fn what_is_no_endpoint_is_left_out() {
        let list = json!([
            endpoint("127.0.0.1", &json!(null)),
            endpoint("shop.internal", &json!({})),
            {"addresses": []}, {"addresses": null}, {},
            endpoint("10.0.0.1", &json!({})), endpoint("fd00::1", &json!({})),
        ]);
        let port = |port: i64| slice(&list, &json!([{"name": "a", "port": port}]));
        assert_eq!(shown(&[port(9900)], "a"), ["10.0.0.1:9900"], "not the admin interface");
        for wrong in [0, -1, 70_000] {
            assert!(shown(&[port(wrong)], "a").is_empty(), "{wrong}");
        }
        let six = slice(&json!([endpoint("fd00::1", &json!({}))]), &json!([{"port": 1}]));
        assert_eq!(shown(&[six], ""), ["[fd00::1]:1"]);
        assert!(shown(&[slice(&json!(null), &json!(null))], "").is_empty());
    }
}
