//! ServiceEntry and WorkloadEntry: the services and their endpoints.

use std::net::IpAddr;

use super::hosts::{Accounts, Host, Hosts, Port, PortProtocol, Reached};
use super::{Context, has_labels};
use crate::model::{Endpoint, Item, Place};
use crate::net::{Address, DnsName, Families};
use crate::sources::objects::{Fields, Object};

/// An endpoint of a service, with its ports by name.
#[derive(Clone, Debug)]
pub(super) struct Workload {
    namespace: String,
    labels: Vec<(String, String)>,
    address: Item<String>,
    ports: Vec<(String, u16)>,
    weight: u32,
    zone: Option<String>,
    /// The SPIFFE ID of the service account.
    identity: Option<Item<String>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Resolution {
    None,
    Static,
    Dns,
}

/// A port as written.
struct Written {
    number: u16,
    name: String,
    protocol: PortProtocol,
    target: Option<u16>,
}

/// Reads a WorkloadEntry.
pub(super) fn workload(cx: &mut Context<'_>, object: &Object) -> Option<Workload> {
    let mut spec = cx.reader.spec(object)?;
    let mut workload = endpoint(cx, &mut spec, &object.namespace)?;
    spec.finish(&mut cx.reader);
    workload.labels.extend(object.labels.iter().cloned());
    Some(workload)
}

/// Reads the fields that an endpoint of a ServiceEntry and a WorkloadEntry have.
fn endpoint(cx: &mut Context<'_>, fields: &mut Fields<'_>, namespace: &str) -> Option<Workload> {
    let r = &mut cx.reader;
    let address = fields.string(r, "address");
    let labels = fields.texts(r, "labels");
    let mut ports = Vec::new();
    for (name, number) in fields.texts(r, "ports") {
        match number.value.parse() {
            Ok(port) => ports.push((name.value, port)),
            Err(_) => r.item(&number, "a port is a number up to 65535", "write digits only"),
        }
    }
    let weight = fields.number::<u32>(r, "weight");
    let zone = fields.string(r, "locality");
    fields.ignore("network");
    let account = fields.string(r, "serviceAccount");
    let Some(address) = address else {
        r.at(fields.place, "this endpoint has no address", "write `address: IP`");
        return None;
    };
    if address.value.starts_with("unix:") {
        let help = "write a service with `endpoints: [unix:PATH]` in Ringway's own files";
        r.item(&address, "an object cannot name a socket of this host", help);
        return None;
    }
    let domain = &cx.settings.domain;
    let identity = |account: Item<String>| {
        let id = format!("spiffe://{domain}/ns/{namespace}/sa/{}", account.value);
        Item::new(id, account.origin)
    };
    Some(Workload {
        namespace: namespace.to_owned(),
        labels: labels.into_iter().map(|(name, value)| (name.value, value.value)).collect(),
        address,
        ports,
        weight: weight.map_or(1, |weight| weight.value),
        zone: zone.map(|zone| zone.value),
        identity: account.map(identity),
    })
}

/// Reads a ServiceEntry and adds its hosts.
pub(super) fn service_entry(
    cx: &mut Context<'_>,
    object: &Object,
    workloads: &[Workload],
    hosts: &mut Hosts,
) {
    let Some(mut spec) = cx.reader.spec(object) else { return };
    let r = &mut cx.reader;
    let names = spec.strings(r, "hosts");
    let addresses = spec.strings(r, "addresses");
    spec.one_of(r, "location", &[("MESH_EXTERNAL", ()), ("MESH_INTERNAL", ())]);
    let resolutions = [
        ("NONE", Resolution::None),
        ("STATIC", Resolution::Static),
        ("DNS", Resolution::Dns),
        ("DNS_ROUND_ROBIN", Resolution::Dns),
    ];
    let resolution = spec.one_of(r, "resolution", &resolutions);
    let export_to = spec.strings(r, "exportTo");
    let identities = spec.strings(r, "subjectAltNames");
    let ports = ports(cx, &mut spec);
    let endpoints = endpoints(cx, &mut spec, &object.namespace, workloads);
    let (no_hosts, no_ports) = (spec.lacks("hosts"), spec.lacks("ports"));
    spec.finish(&mut cx.reader);
    if no_hosts {
        cx.reader.at(object.place, "there are no `hosts`", "write `hosts: [NAME]`");
    }
    if no_ports {
        let help = "write `ports: [{number: 80, name: http, protocol: HTTP}]`";
        cx.reader.at(object.place, "there are no `ports`", help);
    }
    if !cx.is_exported(&object.namespace, &export_to) {
        return;
    }
    let resolution = resolution.map_or(Resolution::None, |it| it.value);
    if resolution == Resolution::None {
        let help = "write STATIC with `endpoints`, or DNS; without an entry, captured connections \
                    to unknown hosts pass unchanged";
        let place = spec_place(object, "resolution").unwrap_or(object.place);
        cx.reader.at(place, "`resolution: NONE` is not supported", help);
        return;
    }
    let addresses = virtual_addresses(cx, addresses);
    let foreign = identities.iter().find(|it| !it.value.starts_with("spiffe://"));
    if let Some(name) = foreign {
        let help = "write spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT, or leave it out";
        cx.reader.item(name, "only SPIFFE IDs are supported", help);
    }
    for name in names {
        let full = Item::new(hosts.full(&name.value, &object.namespace), name.origin.clone());
        let port = |written: &Written| {
            reached(cx, &full, written, &endpoints, resolution).map(|endpoints| Port {
                number: written.number,
                protocol: written.protocol,
                endpoints,
            })
        };
        let host = Host {
            origin: name.origin.clone(),
            title: object.title(),
            ports: ports.iter().filter_map(port).collect(),
            addresses: addresses.clone(),
            identities: identities.clone(),
            accounts: accounts(&endpoints),
        };
        if host.ports.len() == ports.len() {
            hosts.add(cx, &full, host);
        }
    }
}

/// The identities of endpoints.
fn accounts(endpoints: &[Workload]) -> Accounts {
    let with = endpoints.iter().filter_map(|endpoint| endpoint.identity.clone());
    let mut ids: Vec<Item<String>> = with.collect();
    if ids.is_empty() {
        return Accounts::None;
    }
    if ids.len() < endpoints.len() {
        return Accounts::OfSome(ids.swap_remove(0).origin);
    }
    ids.sort_by(|one, other| one.value.cmp(&other.value));
    ids.dedup_by(|one, other| one.value == other.value);
    Accounts::OfAll(ids)
}

/// The endpoints of a ServiceEntry, and those that its selector chooses.
fn endpoints(
    cx: &mut Context<'_>,
    spec: &mut Fields<'_>,
    namespace: &str,
    workloads: &[Workload],
) -> Vec<Workload> {
    let mut endpoints = Vec::new();
    for node in spec.list(&mut cx.reader, "endpoints") {
        let Some(mut fields) = Fields::of(&mut cx.reader, node, "an endpoint") else { continue };
        endpoints.extend(endpoint(cx, &mut fields, namespace));
        fields.finish(&mut cx.reader);
    }
    if let Some(mut selector) = spec.map(&mut cx.reader, "workloadSelector") {
        let labels = selector.texts(&mut cx.reader, "labels");
        selector.finish(&mut cx.reader);
        let chosen = workloads.iter().filter(|workload| {
            workload.namespace == namespace && has_labels(&workload.labels, &labels)
        });
        endpoints.extend(chosen.cloned());
    }
    endpoints
}

/// The place of the value of a field of `spec`.
fn spec_place(object: &Object, name: &str) -> Option<Place> {
    let crate::sources::yaml::node::Kind::Map(entries) = &object.spec.as_ref()?.kind else {
        return None;
    };
    entries.iter().find(|(key, _)| key.text == name).map(|(_, value)| value.place)
}

fn virtual_addresses(cx: &mut Context<'_>, written: Vec<Item<String>>) -> Vec<Item<IpAddr>> {
    let mut addresses = Vec::new();
    for address in written {
        let bare = address.value.strip_suffix("/32").unwrap_or(&address.value);
        match bare.parse() {
            Ok(ip) => addresses.push(Item::new(ip, address.origin)),
            Err(_) => {
                let help = "write single addresses, such as 10.96.0.10";
                let message = format!("{:?} is not an address", address.value);
                cx.reader.item(&address, message, help);
            }
        }
    }
    addresses
}

fn ports(cx: &mut Context<'_>, spec: &mut Fields<'_>) -> Vec<Written> {
    let mut ports: Vec<Written> = Vec::new();
    for node in spec.list(&mut cx.reader, "ports") {
        let r = &mut cx.reader;
        let Some(mut fields) = Fields::of(r, node, "a port") else { continue };
        let number = fields.number::<u16>(r, "number");
        let name = fields.string(r, "name");
        let written = fields.string(r, "protocol");
        let target = fields.number::<u16>(r, "targetPort");
        fields.finish(r);
        let Some(number) = number.filter(|number| number.value > 0) else {
            r.at(node.place, "this port has no number", "write `number: PORT`");
            continue;
        };
        if ports.iter().any(|port| port.number == number.value) {
            r.item(&number, "this port is here twice", "keep one of them");
            continue;
        }
        let name = name.map(|name| name.value).unwrap_or_default();
        let protocol = protocol(cx, written.as_ref(), &name);
        let port =
            Written { number: number.value, name, protocol, target: target.map(|t| t.value) };
        ports.push(port);
    }
    ports
}

/// The protocol that a port names, or that the beginning of its name says.
fn protocol(cx: &mut Context<'_>, written: Option<&Item<String>>, name: &str) -> PortProtocol {
    let of_name = name.split('-').next().unwrap_or_default();
    let word = written.map_or(of_name, |written| written.value.as_str()).to_ascii_uppercase();
    match word.as_str() {
        "HTTP" => PortProtocol::Http,
        "HTTP2" => PortProtocol::Http2,
        "GRPC" | "GRPC-WEB" => PortProtocol::Grpc,
        "TCP" | "TLS" | "HTTPS" | "MONGO" | "REDIS" | "MYSQL" => PortProtocol::Tcp,
        _ => {
            if let Some(written) = written {
                let known = ["HTTP", "HTTP2", "GRPC", "HTTPS", "TLS", "TCP"];
                let help = crate::sources::objects::spelling(&written.value, &known);
                let message = format!("{:?} is not a protocol", written.value);
                cx.reader.item(written, message, help);
            }
            PortProtocol::Tcp
        }
    }
}

/// The endpoints of a port.
fn reached(
    cx: &mut Context<'_>,
    host: &Item<String>,
    port: &Written,
    endpoints: &[Workload],
    resolution: Resolution,
) -> Option<Reached> {
    let number = |workload: &Workload| {
        let named = workload.ports.iter().find(|(name, _)| *name == port.name);
        let other = || port.target.unwrap_or(port.number);
        named.map_or_else(other, |(_, number)| *number)
    };
    let mut list = Vec::new();
    let mut names = Vec::new();
    for workload in endpoints {
        let text = workload.address.value.as_str();
        let address = match text.parse::<IpAddr>() {
            Ok(ip) => Address::Tcp((ip, number(workload)).into()),
            Err(_) => {
                names.push((workload, format!("{text}:{}", number(workload))));
                continue;
            }
        };
        let endpoint = Endpoint {
            address,
            weight: workload.weight.max(1),
            zone: workload.zone.as_deref().map(Into::into),
            priority: 0,
        };
        let item = Item::new(endpoint, workload.address.origin.clone());
        list.push((item, workload.labels.clone()));
    }
    let name = |address: String, item: &Item<String>| {
        let name = DnsName { address: address.into(), families: Families::Any };
        Reached::Name(Item::new(name, item.origin.clone()))
    };
    match (resolution, &names[..]) {
        (Resolution::Dns, []) if endpoints.is_empty() => {
            if host.value.starts_with('*') {
                let help = "write `endpoints`, or one host without a wildcard";
                cx.reader.item(host, "a wildcard has no addresses in DNS", help);
                return None;
            }
            Some(name(format!("{}:{}", host.value, port.target.unwrap_or(port.number)), host))
        }
        (Resolution::Dns, [(workload, address)]) if list.is_empty() => {
            Some(name(address.clone(), &workload.address))
        }
        (_, []) => Some(Reached::List(list)),
        (_, [(workload, _), ..]) => {
            let (message, help) = match resolution {
                Resolution::Dns => (
                    "only one name is supported, without addresses beside it",
                    "write one ServiceEntry for each name",
                ),
                _ => ("this is not an IP address", "write an IP, or `resolution: DNS`"),
            };
            cx.reader.item(&workload.address, message, help);
            None
        }
    }
}
