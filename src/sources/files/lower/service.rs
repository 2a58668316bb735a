//! `services:`.

use std::path::PathBuf;

use super::super::grammar::service::{self as grammar, Service};
use super::super::values::Placed;
use super::{Lower, health, http2, jwt, list, origin, time, tls};
use crate::model::{self, Balance, Endpoints, HashBy, Item, SendProxyProtocol, ServiceProtocol};
use crate::net::Address;

pub(super) fn service(
    lower: &mut Lower<'_>,
    name: Item<String>,
    written: Placed<Service>,
) -> model::Service {
    let value = written.value;
    let endpoints = match (value.endpoints, value.versions, value.dns) {
        (Some(list), None, None) => Some(Endpoints::List(endpoints(lower, list))),
        (None, Some(map), None) => {
            let version = |(name, list): (Placed<String>, _)| (name.into(), endpoints(lower, list));
            Some(Endpoints::Versions(map.0.into_iter().map(version).collect()))
        }
        (None, None, Some(dns)) => Some(Endpoints::Name(host_and_port(lower, dns))),
        _ => None,
    };
    model::Service {
        name,
        protocol: match value.protocol {
            grammar::ServiceProtocol::Auto => ServiceProtocol::Auto,
            grammar::ServiceProtocol::Http1 => ServiceProtocol::Http1,
            grammar::ServiceProtocol::Http2 => ServiceProtocol::Http2,
            grammar::ServiceProtocol::Grpc => ServiceProtocol::Grpc,
            grammar::ServiceProtocol::Tcp => ServiceProtocol::Tcp,
        },
        addresses: value
            .addresses
            .0
            .iter()
            .filter_map(|text| virtual_address(lower, text))
            .collect(),
        endpoints,
        tls: value.tls.and_then(|tls| tls::client(lower, tls)),
        identities: list(value.identity.0),
        jwt: value.jwt.map(jwt::demand),
        balance: balance(value.balance),
        connect_timeout: time(value.connect_timeout),
        timeout: value.timeout.and_then(|time| time.0),
        idle_timeout: time(value.idle_timeout),
        max_idle_connections: value.max_idle_connections,
        send_proxy_protocol: match value.send_proxy_protocol {
            grammar::SendProxyProtocol::None => SendProxyProtocol::None,
            grammar::SendProxyProtocol::V1 => SendProxyProtocol::V1,
            grammar::SendProxyProtocol::V2 => SendProxyProtocol::V2,
        },
        http2: http2::http2(value.http2),
        health_check: value.health_check.and_then(|check| health::check(lower, check)),
    }
}

fn endpoints(
    lower: &mut Lower<'_>,
    list: Vec<Placed<grammar::Endpoint>>,
) -> Vec<Item<model::Endpoint>> {
    list.into_iter().filter_map(|written| endpoint(lower, written)).collect()
}

fn endpoint(
    lower: &mut Lower<'_>,
    written: Placed<grammar::Endpoint>,
) -> Option<Item<model::Endpoint>> {
    let Placed { place, value } = written;
    let text = &value.address;
    let address = match text.strip_prefix("unix:") {
        Some(path) if path.starts_with('/') => Some(Address::Unix(PathBuf::from(path))),
        Some(_) => None,
        None => text.parse().ok().map(Address::Tcp),
    };
    let Some(address) = address else {
        let message = format!("{text:?} is not the address of an endpoint");
        let help = "write IP:PORT or unix:/path; a host name goes into `dns: HOST:PORT`";
        lower.mistake_with_help(place, message, help);
        return None;
    };
    let zone = value.zone.map(Into::into);
    Some(Item::new(model::Endpoint { address, weight: value.weight, zone }, origin(place)))
}

fn host_and_port(lower: &mut Lower<'_>, name: Placed<String>) -> Item<String> {
    let valid = name.value.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    if !valid {
        lower.mistake(name.place, format!("{:?} is not HOST:PORT", name.value));
    }
    name.into()
}

fn virtual_address(
    lower: &mut Lower<'_>,
    text: &Placed<String>,
) -> Option<Item<std::net::SocketAddr>> {
    let Ok(parsed) = text.value.parse() else {
        let message = format!("{:?} is not a virtual address", text.value);
        lower.mistake_with_help(text.place, message, "write IP:PORT or [IPv6]:PORT");
        return None;
    };
    Some(Item::new(parsed, origin(text.place)))
}

fn balance(written: grammar::Balance) -> Balance {
    match written {
        grammar::Balance::LeastRequest => Balance::LeastRequest,
        grammar::Balance::RoundRobin => Balance::RoundRobin,
        grammar::Balance::Random => Balance::Random,
        grammar::Balance::PeakEwma => Balance::PeakEwma,
        grammar::Balance::Hash(key) => Balance::Hash(match key {
            grammar::HashBy::Header(name) => HashBy::Header(name),
            grammar::HashBy::Cookie(name) => HashBy::Cookie(name),
            grammar::HashBy::SourceIp => HashBy::SourceIp,
        }),
    }
}
