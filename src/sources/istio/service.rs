//! Services of Kubernetes. EndpointSlices have their endpoints, which change without the service.

use super::hosts::{Accounts, Host, Hosts, Port, PortProtocol, Reached};
use super::{Context, at};
use crate::model::Item;
use crate::net::{DnsName, Families};
use crate::sources::objects::{Fields, Object};

/// Reads a Service and adds its host. A ServiceEntry in a file for the same host comes first.
pub(super) fn service(cx: &mut Context<'_>, object: &Object, hosts: &mut Hosts) {
    let Some(mut spec) = cx.reader.spec(object) else { return };
    let origin = at(object.place);
    let full = hosts.full(&object.name, &object.namespace);
    if hosts.has(&full) {
        return;
    }
    let r = &mut cx.reader;
    let address = spec.string(r, "clusterIP").filter(|address| !address.value.is_empty());
    // A service without an address of its own has the address `None`.
    let address = address.and_then(|item| {
        let ip = item.value.parse().ok()?;
        Some(Item::new(ip, item.origin))
    });
    let external = spec.string(r, "externalName").filter(|name| !name.value.is_empty());
    let mut ports: Vec<Port> = Vec::new();
    for node in spec.list(r, "ports") {
        let r = &mut cx.reader;
        let Some(mut fields) = Fields::of(r, node, "a port") else { continue };
        let number = fields.number::<u16>(r, "port");
        let name = fields.string(r, "name").map(|name| name.value).unwrap_or_default();
        let protocol = fields.string(r, "protocol").map(|protocol| protocol.value);
        let app = fields.string(r, "appProtocol").map(|app| app.value);
        let Some(number) = number.filter(|number| number.value > 0) else { continue };
        let is_known = ports.iter().any(|port| port.number == number.value);
        if is_known || protocol.is_some_and(|protocol| protocol != "TCP") {
            continue;
        }
        let endpoints = match &external {
            Some(target) => {
                let address = format!("{}:{}", target.value, number.value).into();
                let name = DnsName { address, families: Families::Any };
                Reached::Name(Item::new(name, origin.clone()))
            }
            None => {
                let port = format!("{}/{}/{name}", object.namespace, object.name);
                Reached::Slices(Item::new(port, origin.clone()))
            }
        };
        let protocol = protocol_of(app.as_deref(), &name, number.value);
        ports.push(Port { number: number.value, protocol, endpoints });
    }
    if ports.is_empty() {
        return;
    }
    let host = Host {
        origin: origin.clone(),
        title: object.title(),
        ports,
        addresses: address.into_iter().collect(),
        identities: Vec::new(),
        accounts: Accounts::None,
    };
    hosts.add(cx, &Item::new(full, origin), host);
}

/// The protocol of a port: that of `appProtocol`, else the beginning of its name, as in Istio. The
/// usual ports of HTTP are enough, because this proxy does not look at the first bytes of outbound
/// connections to tell HTTP from others.
fn protocol_of(app: Option<&str>, name: &str, number: u16) -> PortProtocol {
    let of_name = name.split('-').next().unwrap_or_default();
    match app.unwrap_or(of_name).to_ascii_lowercase().as_str() {
        "http" | "kubernetes.io/ws" => PortProtocol::Http,
        "http2" | "kubernetes.io/h2c" => PortProtocol::Http2,
        "grpc" | "grpc-web" => PortProtocol::Grpc,
        "" if matches!(number, 80 | 8080 | 8000) => PortProtocol::Http,
        _ => PortProtocol::Tcp,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_protocol_of_a_port() {
        for (app, name, number, protocol) in [
            (None, "http", 9000, PortProtocol::Http),
            (None, "http-web", 9000, PortProtocol::Http),
            (None, "https", 443, PortProtocol::Tcp),
            (None, "grpc-api", 9000, PortProtocol::Grpc),
            (None, "", 80, PortProtocol::Http),
            (None, "", 5432, PortProtocol::Tcp),
            (None, "web", 9000, PortProtocol::Tcp),
            (Some("kubernetes.io/h2c"), "web", 9000, PortProtocol::Http2),
            (Some("tcp"), "http", 80, PortProtocol::Tcp),
        ] {
            assert_eq!(protocol_of(app, name, number), protocol, "{app:?} {name:?} {number}");
        }
    }
}
