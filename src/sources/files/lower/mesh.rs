//! Lowers `mesh:` to the model.

use std::net::SocketAddr;

use super::super::grammar::intercept::{self, Side, WhenDead};
use super::super::grammar::mesh::{self, Inbound, Outbound, PortProtocol, Probe, Udp};
use super::super::grammar::tls::{Mesh, MeshTransport};
use super::super::values::{Entries, OneOrMany, Placed};
use super::{Lower, list, listener, origin, time, tls};
use crate::model::{self, Exclude, InterceptBy, Item};

pub(super) fn mesh(lower: &mut Lower<'_>, written: Mesh) -> model::Mesh {
    let bundles = written.trust_bundles.0.into_iter();
    model::Mesh {
        trust_domain: written.trust_domain.map(Into::into),
        identity: written.identity.map(|identity| tls::identity(lower, identity)),
        trust_bundles: bundles
            .map(|(domain, file)| (domain.into(), lower.material(&file)))
            .collect(),
        crl: lower.materials(&written.crl),
        quic: written.transport.and_then(|transport| {
            (transport.value == MeshTransport::Quic).then(|| origin(transport.place))
        }),
        quic_port: written.quic_port.map(Into::into),
        inbound: inbound(lower, written.inbound),
        outbound: outbound(lower, written.outbound),
        dns: written.dns.and_then(|dns| lower.address(&dns.bind, "write 127.0.0.1:15053")),
        intercept: intercept(written.intercept),
    }
}

fn inbound(lower: &mut Lower<'_>, written: Inbound) -> model::Inbound {
    let mut port_mtls = Vec::new();
    for (port, mtls) in written.ports.0 {
        if let Some(port) = port_number(lower, &port) {
            let demand = Item::new(self::mtls(mtls.value), origin(mtls.place));
            port_mtls.push((port.value, demand));
        }
    }
    model::Inbound {
        binds: binds(lower, &written.bind),
        intercept: intercept_by(written.intercept),
        mtls: written.mtls.map(|mtls| Item::new(self::mtls(mtls.value), origin(mtls.place))),
        port_mtls,
        protocols: protocols(lower, written.protocols),
        application: match written.application {
            mesh::Application::Original => model::Application::Original,
            mesh::Application::Loopback => model::Application::Loopback,
        },
        source: written.source.map(|source| {
            let value = match source.value {
                mesh::PeerSource::Client => model::PeerSource::Client,
                mesh::PeerSource::Proxy => model::PeerSource::Proxy,
            };
            Item::new(value, origin(source.place))
        }),
        probes: written.probes.into_iter().map(probe).collect(),
        forward_client_cert: listener::forward_client_cert(written.forward_client_cert),
        udp: written.udp.map(udp),
        timeouts: listener::timeouts(written.timeouts),
        connections: written.connections.map(Into::into),
    }
}

fn outbound(lower: &mut Lower<'_>, written: Outbound) -> model::Outbound {
    model::Outbound {
        binds: binds(lower, &written.bind),
        intercept: intercept_by(written.intercept),
        hosts: written.hosts.map(|hosts| list(hosts.0)),
        deny_unknown: written.unknown == mesh::Unknown::Deny,
        protocols: protocols(lower, written.ports),
        udp: written.udp.map(udp),
        timeouts: listener::timeouts(written.timeouts),
        connections: written.connections.map(Into::into),
    }
}

fn binds(lower: &mut Lower<'_>, written: &OneOrMany<Placed<String>>) -> Vec<Item<SocketAddr>> {
    let mut binds = Vec::new();
    for text in &written.0 {
        match text.value.parse() {
            Ok(SocketAddr::V4(address)) if address.port() == 0 => lower.no_port(text),
            Ok(SocketAddr::V6(address)) if address.port() == 0 => lower.no_port(text),
            Ok(address) => binds.push(Item::new(address, origin(text.place))),
            Err(_) => {
                let message =
                    format!("{:?} cannot be where captured connections arrive", text.value);
                lower.mistake_with_help(text.place, message, "write IP:PORT or [IPv6]:PORT");
            }
        }
    }
    binds
}

fn port_number(lower: &mut Lower<'_>, port: &Placed<String>) -> Option<Item<u16>> {
    let number = port.value.parse().ok().filter(|&port| port != 0);
    if number.is_none() {
        lower.mistake(port.place, format!("{:?} is not a port", port.value));
    }
    number.map(|number| Item::new(number, origin(port.place)))
}

fn protocols(
    lower: &mut Lower<'_>,
    written: Entries<Placed<PortProtocol>>,
) -> Vec<(Item<u16>, model::PortProtocol)> {
    let mut ports = Vec::new();
    for (port, protocol) in written.0 {
        let protocol = match protocol.value {
            PortProtocol::Auto => model::PortProtocol::Auto,
            PortProtocol::Http => model::PortProtocol::Http,
            PortProtocol::Tcp => model::PortProtocol::Tcp,
        };
        ports.extend(port_number(lower, &port).map(|port| (port, protocol)));
    }
    ports
}

fn probe(written: Placed<Probe>) -> Item<model::Probe> {
    let Probe { port, path } = written.value;
    Item::new(model::Probe { port, path: path.into() }, origin(written.place))
}

pub(super) fn udp(written: Udp) -> model::Udp {
    model::Udp { idle_timeout: time(written.idle_timeout), flows: written.flows }
}

fn mtls(written: mesh::Mtls) -> model::Mtls {
    match written {
        mesh::Mtls::Strict => model::Mtls::Strict,
        mesh::Mtls::Permissive => model::Mtls::Permissive,
        mesh::Mtls::Disable => model::Mtls::Disable,
    }
}

fn intercept_by(written: mesh::InterceptBy) -> InterceptBy {
    match written {
        mesh::InterceptBy::Redirect => InterceptBy::Redirect,
        mesh::InterceptBy::Tproxy => InterceptBy::Tproxy,
        mesh::InterceptBy::None => InterceptBy::None,
    }
}

fn intercept(written: intercept::Intercept) -> model::Intercept {
    model::Intercept {
        mark: written.mark.map(Into::into),
        exclude_inbound: exclude(&written.exclude.inbound),
        exclude_outbound: exclude(&written.exclude.outbound),
        exclude_users: written.exclude.users.0,
        exclude_groups: written.exclude.groups.0,
        udp_ports: written.udp.0.iter().map(|range| range.0.bounds()).collect(),
        user: written.user,
        group: written.group,
        open_when_dead: written.when_dead == WhenDead::Open,
    }
}

fn exclude(side: &Side) -> Exclude {
    Exclude {
        ports: side.ports.0.iter().map(|range| range.0.bounds()).collect(),
        networks: side.cidrs.0.iter().map(|cidr| cidr.0).collect(),
        interfaces: side.interfaces.0.iter().map(|name| name.0.to_string()).collect(),
    }
}
