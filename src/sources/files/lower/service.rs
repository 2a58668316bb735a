//! Lowers `services:` to the model.

use std::path::PathBuf;

use super::super::grammar::service::{self as grammar, Service};
use super::super::values::Placed;
use super::{
    Lower, addresses, breaker, health, http2, jwt, list, locality, origin, outlier, rate_limit,
    retry, tcp, time, time_or_none, tls,
};
use crate::model::{self, Balance, Endpoints, HashBy, Item, SendProxyProtocol, ServiceProtocol};
use crate::net::{Address, DnsName, Families};

pub(super) fn service(
    lower: &mut Lower<'_>,
    name: Item<String>,
    written: Placed<Service>,
) -> model::Service {
    let value = written.value;
    let sources = [
        value.endpoints.as_ref().map(|_| ("endpoints", written.place)),
        value.versions.as_ref().map(|_| ("versions", written.place)),
        value.dns.as_ref().map(|dns| ("dns", dns.place)),
    ];
    lower.only_one("a service", &sources);
    let dns_zone = value.dns.as_ref().and_then(|dns| dns.value.zone.clone());
    let dns_zone = dns_zone.and_then(|written| locality::zone(lower, written));
    let endpoints = match (value.endpoints, value.versions, value.dns) {
        (Some(list), None, None) => Some(Endpoints::List(endpoints(lower, list))),
        (None, Some(map), None) => {
            let version = |(name, list): (Placed<String>, _)| (name.into(), endpoints(lower, list));
            Some(Endpoints::Versions(map.0.into_iter().map(version).collect()))
        }
        (None, None, Some(dns)) => Some(Endpoints::Name(dns_name(lower, dns))),
        _ => None,
    };
    model::Service {
        empty_status: None,
        name,
        protocol: match value.protocol {
            grammar::ServiceProtocol::Auto => ServiceProtocol::Auto,
            grammar::ServiceProtocol::Http1 => ServiceProtocol::Http1,
            grammar::ServiceProtocol::Http2 => ServiceProtocol::Http2,
            grammar::ServiceProtocol::Grpc => ServiceProtocol::Grpc,
            grammar::ServiceProtocol::Http3 => ServiceProtocol::Http3,
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
        dns_zone: dns_zone.map(|zone| zone.value),
        locality: value.locality.map(|written| locality::locality(lower, written)),
        connect_timeout: time(value.connect_timeout),
        connect_hedge: time_or_none(value.connect_hedge),
        timeout: value.timeout.and_then(|time| time.0),
        retries: value.retries.map(retry::retries),
        circuit_breaker: value.circuit_breaker.map(breaker::breaker),
        concurrency: value.concurrency.map(breaker::concurrency),
        rate_limits: rate_limit::rate_limits(value.rate_limit),
        stream_idle_timeout: time_or_none(value.stream_idle_timeout),
        idle_timeout: time(value.idle_timeout),
        max_idle_connections: value.max_idle_connections,
        tcp: tcp::tcp(value.tcp),
        send_proxy_protocol: match value.send_proxy_protocol {
            grammar::SendProxyProtocol::None => SendProxyProtocol::None,
            grammar::SendProxyProtocol::V1 => SendProxyProtocol::V1,
            grammar::SendProxyProtocol::V2 => SendProxyProtocol::V2,
        },
        http2: http2::http2(value.http2),
        alt_svc: value.alt_svc.map(Item::from),
        health_check: value.health_check.and_then(|check| health::check(lower, check)),
        outlier_detection: value.outlier_detection.map(outlier::detection),
        slow_start: value.slow_start.map(outlier::slow_start),
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
    if lower.is_local_for_a_server(place, text) {
        return None;
    }
    let address = match text.strip_prefix("unix:") {
        Some(path) if path.starts_with('/') => Some(Address::Unix(PathBuf::from(path))),
        Some(_) => None,
        None => text.parse().ok().map(Address::Tcp),
    };
    let Some(address) = address else {
        let message = format!("{text:?} is not the address of an endpoint");
        lower.mistake_with_help(place, message, addresses::help_for_endpoint(text));
        return None;
    };
    if let Address::Tcp(address) = &address
        && address.port() == 0
    {
        lower.no_port(&Placed { place, value: value.address });
        return None;
    }
    let zone = value.zone.and_then(|written| locality::zone(lower, written));
    let (weight, zone, priority) = (value.weight, zone.map(|zone| zone.value), value.priority);
    Some(Item::new(model::Endpoint { address, weight, zone, priority }, origin(place)))
}

fn dns_name(lower: &mut Lower<'_>, written: Placed<grammar::DnsName>) -> Item<DnsName> {
    let Placed { place, value } = written;
    let valid = value.address.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    if !valid || value.address.contains('/') {
        let message = format!("{:?} is not HOST:PORT", value.address);
        lower.mistake_with_help(place, message, addresses::help_for_name(&value.address));
    }
    let families = match value.family {
        grammar::Family::Any => Families::Any,
        grammar::Family::Ipv4 => Families::Ipv4,
        grammar::Family::Ipv6 => Families::Ipv6,
    };
    Item::new(DnsName { address: value.address.into(), families }, origin(place))
}

fn virtual_address(
    lower: &mut Lower<'_>,
    text: &Placed<String>,
) -> Option<Item<std::net::SocketAddr>> {
    let Ok(parsed) = text.value.parse::<std::net::SocketAddr>() else {
        let message = format!("{:?} is not a virtual address", text.value);
        lower.mistake_with_help(text.place, message, "write IP:PORT or [IPv6]:PORT");
        return None;
    };
    if parsed.port() == 0 {
        lower.no_port(text);
        return None;
    }
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
