//! Endpoints: `ClusterLoadAssignment` of Envoy's API.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};

use super::proto::{Message, Reason};
use super::schemas::{
    ADDRESS, ASSIGNMENT, ASSIGNMENT_POLICY, ENDPOINT, ENDPOINT_CHECK, LB_ENDPOINT, LOCALITY,
    LOCALITY_ENDPOINTS, SOCKET_ADDRESS,
};
use crate::model::{Endpoint, Zone};
use crate::net::Address;

/// Envoy's default of `overprovisioning_factor`, in percent.
const OVERPROVISIONED_PERCENT: u32 = 140;

/// The share of a locality is split with this precision.
const SHARE_PARTS: f64 = 10_000.0;

/// The `health_status` of an endpoint.
const DEGRADED: u64 = 5;
const UNUSABLE: [u64; 3] = [2, 3, 4]; // UNHEALTHY, DRAINING, TIMEOUT

/// The endpoints of a cluster.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Assignment {
    places: Vec<Place>,
    /// A level gets all requests while its healthy share of endpoints, times this factor, is at
    /// least 1.
    pub(super) overprovisioning_factor: f64,
}

/// The endpoints of one locality.
#[derive(Clone, Debug, PartialEq)]
struct Place {
    zone: Option<Zone>,
    weight: u32,
    priority: u32,
    targets: Vec<Target>,
}

#[derive(Clone, Debug, PartialEq)]
struct Target {
    host: Box<str>,
    port: u16,
    weight: u32,
    is_degraded: bool,
}

/// The endpoints of a service, as the model has them.
pub(super) enum Found {
    /// Addresses.
    List(Vec<Endpoint>),
    /// A name in DNS, with its port.
    Name(String, u16),
}

impl Assignment {
    /// Reads the endpoints and the name of the cluster.
    pub(super) fn read(bytes: &[u8]) -> Result<(String, Self), Reason> {
        let mut message = Message::read(bytes, &ASSIGNMENT)?;
        let name = message.text(1)?.to_owned();
        let factor = f64::from(OVERPROVISIONED_PERCENT) / 100.0;
        let mut assignment = Self { places: Vec::new(), overprovisioning_factor: factor };
        for locality in message.messages(2, &LOCALITY_ENDPOINTS)? {
            assignment.places.push(place(locality)?);
        }
        if let Some(mut policy) = message.message(4, &ASSIGNMENT_POLICY)? {
            if let Some(percent) = policy.wrapped_u32(3)? {
                if percent < 100 {
                    return Err(policy.about(3, "is below 100"));
                }
                assignment.overprovisioning_factor = f64::from(percent) / 100.0;
            }
            policy.finish()?;
        }
        message.finish()?;
        Ok((name, assignment))
    }

    /// The number of endpoints.
    pub(super) fn number(&self) -> usize {
        self.places.iter().map(|place| place.targets.len()).sum()
    }

    /// The endpoints for the model. `by_locality` is whether the weights of localities count.
    pub(super) fn found(&self, by_locality: bool) -> Result<Found, Reason> {
        let mut targets = self.places.iter().flat_map(|place| &place.targets);
        let named = targets.clone().find(|target| target.host.parse::<IpAddr>().is_err());
        if let Some(named) = named {
            return match (targets.next(), targets.next()) {
                (Some(_), None) => Ok(Found::Name(named.host.to_string(), named.port)),
                _ => {
                    Err("the cluster has a name in DNS beside other endpoints; make it a cluster \
                          of one name"
                        .to_owned())
                }
            };
        }
        self.list(by_locality).map(Found::List)
    }

    /// The endpoints if all of them are addresses.
    pub(super) fn list(&self, by_locality: bool) -> Result<Vec<Endpoint>, Reason> {
        let is_degraded = self.places.iter().flat_map(|place| &place.targets);
        let is_degraded = is_degraded.clone().any(|target| target.is_degraded);
        let (mut list, mut seen) = (Vec::new(), HashSet::new());
        // Without any weight, Envoy picks among all endpoints.
        let by_locality = by_locality && self.places.iter().any(|place| place.weight > 0);
        let scale = if by_locality { self.scale() } else { 1.0 };
        for place in &self.places {
            // Envoy gives a locality without a weight no requests.
            if by_locality && place.weight == 0 {
                continue;
            }
            let part = place.part() * scale;
            for target in &place.targets {
                let ip: IpAddr = target.host.parse().map_err(|_| {
                    format!("{:?} is no IP address; use a cluster of STRICT_DNS", target.host)
                })?;
                let address = SocketAddr::new(ip, target.port);
                if !seen.insert(address) {
                    continue;
                }
                let weight = match by_locality {
                    false => target.weight,
                    true => (f64::from(target.weight) * part).round().max(1.0) as u32,
                };
                let level = u32::from(is_degraded) + 1;
                let priority = place.priority * level + u32::from(target.is_degraded);
                list.push(Endpoint {
                    address: Address::Tcp(address),
                    weight,
                    zone: place.zone.clone(),
                    priority,
                });
            }
        }
        Ok(list)
    }

    /// The factor that makes weights of the shares of endpoints.
    fn scale(&self) -> f64 {
        let shares = self.places.iter().map(|place| {
            let most = place.targets.iter().map(|target| target.weight).max();
            most.map_or(0.0, |most| f64::from(most) * place.part())
        });
        let largest = shares.fold(0.0, f64::max);
        SHARE_PARTS.min(f64::from(u32::MAX) / largest)
    }
}

impl Place {
    /// The part of the weight of the locality that a weight of 1 in it has.
    fn part(&self) -> f64 {
        let sum: f64 = self.targets.iter().map(|target| f64::from(target.weight)).sum();
        f64::from(self.weight) / sum
    }
}

/// The largest priority in Envoy's API.
const PRIORITY_MAX: u64 = 128;

fn place(mut message: Message<'_>) -> Result<Place, Reason> {
    let zone = match message.message(1, &LOCALITY)? {
        Some(mut locality) => {
            let parts = [locality.text(1)?, locality.text(2)?, locality.text(3)?];
            locality.finish()?;
            // The region may be empty.
            let joined = parts.join("/");
            let zone = joined.trim_end_matches('/');
            (!zone.is_empty()).then(|| zone.into())
        }
        None => None,
    };
    let weight = message.wrapped_u32(3)?.unwrap_or(0);
    let priority = message.number(5)?;
    if priority > PRIORITY_MAX {
        return Err(message.about(5, "is above 128"));
    }
    let mut targets = Vec::new();
    for endpoint in message.messages(2, &LB_ENDPOINT)? {
        targets.extend(target(endpoint)?);
    }
    message.ignore(&[6, 9]); // proximity, metadata
    message.finish()?;
    Ok(Place { zone, weight, priority: priority as u32, targets })
}

/// The endpoint of an `LbEndpoint`. `None` if it gets no requests.
fn target(mut message: Message<'_>) -> Result<Option<Target>, Reason> {
    let health = message.number(2)?;
    let weight = message.wrapped_u32(4)?.unwrap_or(1);
    if weight == 0 {
        return Err(message.about(4, "is 0"));
    }
    let Some(mut endpoint) = message.message(1, &ENDPOINT)? else {
        return Err(match message.has(5) {
            true => message.unsupported(5),
            false => message.about(1, "is missing"),
        });
    };
    message.ignore(&[3]); // metadata
    message.finish()?;
    let Some(address) = endpoint.message(1, &ADDRESS)? else {
        return Err(endpoint.about(1, "is missing"));
    };
    let (host, port) = socket_address(address)?;
    if let Some(check) = endpoint.message(2, &ENDPOINT_CHECK)? {
        check.finish()?;
    }
    endpoint.ignore(&[3, 5]); // hostname, observability_name
    endpoint.finish()?;
    if UNUSABLE.contains(&health) {
        return Ok(None);
    }
    Ok(Some(Target { host: host.into(), port, weight, is_degraded: health == DEGRADED }))
}

/// The host and the port of an `Address`.
pub(super) fn socket_address(mut address: Message<'_>) -> Result<(String, u16), Reason> {
    if address.has(2) {
        return Err(address.about(2, "would be a socket of this machine; use a socket_address"));
    }
    let Some(mut socket) = address.message(1, &SOCKET_ADDRESS)? else {
        return Err(match address.has(3) {
            true => address.unsupported(3),
            false => address.about(1, "is missing"),
        });
    };
    address.finish()?;
    if socket.number(1)? != 0 {
        return Err(socket.about(1, "is UDP; only TCP is supported"));
    }
    let host = socket.required_text(2)?.to_owned();
    let port = socket.number(3)?;
    let port = u16::try_from(port).ok().filter(|port| *port != 0);
    let port = port.ok_or_else(|| socket.about(3, "is no port"))?;
    socket.off(&[6])?; // ipv4_compat
    socket.finish()?;
    Ok((host, port))
}
