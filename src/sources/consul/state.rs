//! The meaning of an answer of Consul. No I/O.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::Deserialize;
use serde_json::Value;

use crate::model::Endpoint;
use crate::net::Address;

/// The maximum number of instances of a service.
pub(super) const INSTANCES_MAX: usize = 20_000;

/// The maximum number of services in the catalog.
pub(super) const SERVICES_MAX: usize = 10_000;

/// The largest weight of an instance. Consul allows no larger one.
const WEIGHT_MAX: u32 = 65_535;

/// The index for the next query. 0 means that it must not wait: the state may be another one, since
/// the index is missing or went back, as after the loss of the data.
pub(super) fn next_index(known: u64, told: Option<u64>) -> u64 {
    match told {
        Some(told) if told >= known => told,
        _ => 0,
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    node: Node,
    service: Instance,
    #[serde(default)]
    checks: Vec<Check>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    #[serde(default)]
    address: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Instance {
    #[serde(rename = "ID", default)]
    id: String,
    #[serde(default)]
    address: String,
    #[serde(default)]
    port: i64,
    weights: Option<Weights>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Weights {
    #[serde(default)]
    passing: i64,
    #[serde(default)]
    warning: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Check {
    #[serde(default)]
    status: String,
}

/// The endpoints in an answer about the health of a service, and why instances are left out.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Found {
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) left_out: Option<String>,
}

/// Reads an answer about the health of a service. An instance counts as its worst check. `critical`
/// instances get nothing. `warning` ones get their own weight, or nothing with `only_passing`.
///
/// # Errors
/// If it is no such answer.
pub(super) fn endpoints(body: &[u8], only_passing: bool) -> Result<Found, String> {
    let entries: Vec<Entry> = serde_json::from_slice(body)
        .map_err(|error| format!("not an answer of Consul: {error}"))?;
    if entries.len() > INSTANCES_MAX {
        let count = entries.len();
        return Err(format!("{count} instances; at most {INSTANCES_MAX} are used"));
    }
    // The same address may be registered twice. It gets the sum of the weights.
    let (mut all, mut left_out) = (BTreeMap::<SocketAddr, u32>::new(), None);
    for entry in &entries {
        match address(entry) {
            Ok(address) => {
                if let Some(weight) = weight(entry, only_passing) {
                    let sum = all.entry(address).or_default();
                    *sum = sum.saturating_add(weight);
                }
            }
            Err(why) => _ = left_out.get_or_insert(why),
        }
    }
    let endpoint = |(address, weight)| Endpoint {
        address: Address::Tcp(address),
        weight,
        zone: None,
        priority: 0,
    };
    Ok(Found { endpoints: all.into_iter().map(endpoint).collect(), left_out })
}

fn address(entry: &Entry) -> Result<SocketAddr, String> {
    let Instance { id, address, port, .. } = &entry.service;
    let host = if address.is_empty() { &entry.node.address } else { address };
    let ip: IpAddr = host
        .parse()
        .map_err(|_| format!("the instance {id:?} has the address {host:?}, which is no IP"))?;
    match u16::try_from(*port) {
        Ok(port) if port > 0 => Ok(SocketAddr::new(ip, port)),
        _ => Err(format!("the instance {id:?} has the port {port}")),
    }
}

/// The weight of an instance. `None` if it gets no requests.
fn weight(entry: &Entry, only_passing: bool) -> Option<u32> {
    let is = |status: &str| entry.checks.iter().any(|check| check.status == status);
    let all_known = entry.checks.iter().all(|it| ["passing", "warning"].contains(&&*it.status));
    let weights = entry.service.weights.as_ref();
    let weight = match (all_known, is("warning")) {
        // `critical`, also in maintenance, and states that a later Consul may have.
        (false, _) => return None,
        (true, true) if only_passing => return None,
        (true, true) => weights.map_or(1, |weights| weights.warning),
        (true, false) => weights.map_or(1, |weights| weights.passing),
    };
    u32::try_from(weight).ok().filter(|weight| *weight > 0).map(|weight| weight.min(WEIGHT_MAX))
}

/// Reads the names of the services in the catalog, sorted. Consul's own service is none of them.
///
/// # Errors
/// If it is no such answer.
pub(super) fn names(body: &[u8]) -> Result<Vec<String>, String> {
    let catalog: BTreeMap<String, Value> = serde_json::from_slice(body)
        .map_err(|error| format!("not an answer of Consul: {error}"))?;
    // A name with a slash cannot be the name of a service here.
    let is_usable = |name: &String| !name.is_empty() && !name.contains('/') && name != "consul";
    let names: Vec<String> = catalog.into_keys().filter(is_usable).collect();
    match names.len() > SERVICES_MAX {
        true => Err(format!("{} services; at most {SERVICES_MAX} are used", names.len())),
        false => Ok(names),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(address: &str, port: i64, statuses: &[&str], weights: &str) -> String {
        let checks: Vec<String> =
            statuses.iter().map(|status| format!("{{\"Status\":\"{status}\"}}")).collect();
        format!(
            "{{\"Node\":{{\"Address\":\"10.0.0.9\"}},\"Service\":{{\"ID\":\"a\",\"Port\":{port},\
             \"Address\":\"{address}\"{weights}}},\"Checks\":[{}]}}",
            checks.join(",")
        )
    }

    fn shown(entries: &[String], only_passing: bool) -> Vec<(String, u32)> {
        let found = endpoints(format!("[{}]", entries.join(",")).as_bytes(), only_passing).unwrap();
        found.endpoints.iter().map(|it| (it.address.to_string(), it.weight)).collect()
    }

    #[test]
    fn the_worst_check_decides() {
        const WEIGHTS: &str = ",\"Weights\":{\"Passing\":10,\"Warning\":2}";
        for (statuses, weight, strict) in [
            (&[][..], Some(10), Some(10)),
            (&["passing", "passing"], Some(10), Some(10)),
            (&["passing", "warning"], Some(2), None),
            (&["warning", "critical"], None, None),
            (&["critical"], None, None),
            (&["maintenance"], None, None),
            (&["new"], None, None),
        ] {
            let entries = [entry("10.0.0.1", 80, statuses, WEIGHTS)];
            let list = |weight: Option<u32>| {
                weight
                    .map(|weight| ("10.0.0.1:80".to_owned(), weight))
                    .into_iter()
                    .collect::<Vec<_>>()
            };
            assert_eq!(shown(&entries, false), list(weight), "{statuses:?}");
            assert_eq!(shown(&entries, true), list(strict), "{statuses:?}");
        }
    }

    #[test]
    fn addresses_and_weights_are_those_of_the_instance_or_the_node() {
        let entries = [
            entry("", 80, &[], ""),
            entry("::1", 81, &[], ",\"Weights\":{\"Passing\":70000,\"Warning\":1}"),
            entry("10.0.0.1", 80, &[], ",\"Weights\":{\"Passing\":3,\"Warning\":0}"),
            entry("10.0.0.1", 80, &[], ",\"Weights\":{\"Passing\":4,\"Warning\":0}"),
            entry("10.0.0.2", 80, &["warning"], ",\"Weights\":{\"Passing\":4,\"Warning\":0}"),
            entry("10.0.0.3", 80, &[], ",\"Weights\":{\"Passing\":-1,\"Warning\":0}"),
        ];
        let list = [("10.0.0.1:80", 7), ("10.0.0.9:80", 1), ("[::1]:81", 65_535)];
        assert_eq!(shown(&entries, false), list.map(|(address, n)| (address.to_owned(), n)));
    }

    #[test]
    fn an_instance_without_a_usable_address_is_left_out_with_the_reason() {
        for (one, why) in [
            (entry("shop.internal", 80, &[], ""), "the address \"shop.internal\", which is no IP"),
            (entry("10.0.0.1", 0, &[], ""), "the port 0"),
            (entry("10.0.0.1", 70_000, &[], ""), "the port 70000"),
            (entry("10.0.0.1", -1, &[], ""), "the port -1"),
        ] {
            let body = format!("[{one},{}]", entry("10.0.0.2", 80, &[], ""));
            let found = endpoints(body.as_bytes(), false).unwrap();
            assert_eq!(found.endpoints.len(), 1);
            assert!(found.left_out.as_ref().is_some_and(|it| it.contains(why)), "{found:?}");
        }
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        for body in ["", "{}", "[1]", "[{}]", "[{\"Node\":{}}]", "nonsense", "[", "\u{0}"] {
            assert!(endpoints(body.as_bytes(), false).is_err(), "{body}");
        }
        for body in ["", "[]", "1", "{", "{\"a\"}"] {
            assert!(names(body.as_bytes()).is_err(), "{body}");
        }
        let found = names(b"{\"web\":[\"v1\"],\"consul\":[],\"a/b\":[],\"app\":[]}").unwrap();
        assert_eq!(found, ["app", "web"]);
    }

    #[test]
    fn an_index_that_goes_back_or_is_missing_begins_again() {
        for (known, told, next) in [
            (0, Some(7), 7),
            (7, Some(7), 7),
            (7, Some(9), 9),
            (9, Some(7), 0),
            (9, Some(0), 0),
            (9, None, 0),
            (0, None, 0),
        ] {
            assert_eq!(next_index(known, told), next, "{known} {told:?}");
        }
    }
}
