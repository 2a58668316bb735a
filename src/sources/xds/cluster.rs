//! Clusters of Envoy's API become services.

use std::sync::Arc;
use std::time::Duration;

use super::endpoints::{Assignment, Found};
use super::outliers;
use super::proto::{Message, Reason, any_of};
use super::schemas::{
    BREAKERS, CLUSTER, COMMON_LB, CONFIG_SOURCE, EDS_CONFIG, EXPLICIT_HTTP, HTTP_OPTIONS,
    HTTP2_OPTIONS, THRESHOLDS, TRANSPORT_SOCKET, UPSTREAM_HTTP,
};
use super::secrets::{Secret, Wanted, fill_service};
use super::state::check_name;
use super::{balancer, health, tls};
use crate::model::{
    CircuitBreaker, Endpoint, Endpoints, Item, Kind, Locality, Origin, Prefer, ResourceId, Service,
    ServiceProtocol,
};
use crate::net::{DnsName, Families};

/// The name of a cluster as that of a service. A slash separates a version there, and a colon a
/// port.
pub(super) fn service_name(cluster: &str) -> String {
    cluster.replace(['/', ':'], "|")
}

/// A cluster.
#[derive(Clone, Debug)]
pub(super) struct Cluster {
    /// The service without its endpoints.
    service: Service,
    /// The endpoints.
    pub(super) targets: Targets,
    pub(super) secrets: Vec<Wanted>,
    /// Whether the weights of localities count.
    by_locality: bool,
    /// The addresses of a name in DNS that count.
    families: Families,
    origin: Origin,
}

/// Where the endpoints of a cluster come from.
#[derive(Clone, Debug)]
pub(super) enum Targets {
    /// The cluster itself has them.
    Own(Assignment),
    /// A resource of this name has them.
    Eds(String),
}

const STATIC: u64 = 0;
const STRICT_DNS: u64 = 1;
const LOGICAL_DNS: u64 = 2;
const EDS: u64 = 3;

/// The key of the settings for HTTP in `typed_extension_protocol_options`.
const HTTP_KEY: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
const HTTP_TYPE: &str =
    "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// A transport without TLS.
const RAW: &str = "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer";

impl Cluster {
    /// Reads a cluster, which came with this version.
    pub(super) fn read(
        bytes: &[u8],
        source: &str,
        version: &str,
    ) -> Result<(String, Self), Reason> {
        let mut message = Message::read(bytes, &CLUSTER)?;
        let name = message.required_text(1)?.to_owned();
        let id = ResourceId {
            source: source.into(),
            kind: Kind::Service,
            name: name.as_str().into(),
            version: version.into(),
        };
        let origin = Origin::Resource(Arc::new(id));
        let mut service = Service {
            name: Item::new(service_name(&name), origin.clone()),
            protocol: ServiceProtocol::Http1,
            connect_timeout: message.duration(4)?.filter(|time| !time.is_zero()),
            ..Service::default()
        };
        let targets = targets(&mut message, &name)?;
        let families = families(&mut message)?;
        let by_locality = balancer::read(&mut message, &mut service, &origin)?;
        breaker(&mut message, &mut service, &origin)?;
        let panic = panic_percent(&mut message)?;
        service.outlier_detection = outliers::read(&mut message, &origin, panic.0)?;
        service.health_check = health::read(&mut message, &origin, panic.0)?;
        http(&mut message, &mut service, &origin)?;
        let mut secrets = Vec::new();
        transport(&mut message, &mut service, &origin, &mut secrets)?;
        message.off(&[31])?; // close_connections_on_host_health_failure
        // Names and limits of counters, buffers, and details of lookups. An endpoint that is gone
        // is always removed at once (32).
        message.ignore(&[5, 16, 25, 28, 30, 32, 39, 44, 47, 49, 54, 58, 60, 61, 20]);
        message.finish()?;
        let by_locality = by_locality || panic.1;
        Ok((name, Self { service, targets, secrets, by_locality, families, origin }))
    }

    /// The service with the endpoints of `eds`, or its own, and with its secrets. A cluster without
    /// an assignment has no endpoints.
    pub(super) fn service<'a>(
        &self,
        eds: Option<&Assignment>,
        find: impl Fn(&str) -> Option<&'a Secret>,
    ) -> Result<Arc<Item<Service>>, Reason> {
        let mut service = self.service.clone();
        fill_service(&mut service, &self.secrets, find)?;
        let assignment = match &self.targets {
            Targets::Own(own) => Some(own),
            Targets::Eds(_) => eds,
        };
        service.endpoints = Some(match (assignment, &self.targets) {
            (None, _) => Endpoints::List(Vec::new()),
            (Some(own), Targets::Own(_)) => match own.found(self.by_locality)? {
                Found::List(list) => Endpoints::List(self.items(list)),
                Found::Name(host, port) => {
                    let address = format!("{host}:{port}").into();
                    let name = DnsName { address, families: self.families };
                    Endpoints::Name(Item::new(name, self.origin.clone()))
                }
            },
            (Some(eds), Targets::Eds(_)) => {
                Endpoints::List(self.items(eds.list(self.by_locality)?))
            }
        });
        let factor = assignment.map_or(1.4, |assignment| assignment.overprovisioning_factor);
        let locality = Locality {
            prefer: Some(Prefer::None),
            overprovisioning_factor: Some(Item::new(factor, self.origin.clone())),
            ..Locality::default()
        };
        service.locality = Some(Item::new(locality, self.origin.clone()));
        Ok(Arc::new(Item::new(service, self.origin.clone())))
    }

    /// The number of its endpoints.
    pub(super) fn number(&self, eds: Option<&Assignment>) -> usize {
        match &self.targets {
            Targets::Own(own) => own.number(),
            Targets::Eds(_) => eds.map_or(0, Assignment::number),
        }
    }

    fn items(&self, list: Vec<Endpoint>) -> Vec<Item<Endpoint>> {
        list.into_iter().map(|endpoint| Item::new(endpoint, self.origin.clone())).collect()
    }
}

fn targets(message: &mut Message<'_>, name: &str) -> Result<Targets, Reason> {
    let kind = message.number(2)?;
    if !matches!(kind, STATIC | STRICT_DNS | LOGICAL_DNS | EDS) || message.has(38) {
        let kinds = "is not supported here; use STATIC, STRICT_DNS, LOGICAL_DNS or EDS";
        return Err(message.about(if message.has(38) { 38 } else { 2 }, kinds));
    }
    if kind != EDS {
        let Some(bytes) = message.bytes(33)? else {
            return Err(message.about(33, "is missing"));
        };
        let (_, own) = Assignment::read(bytes)?;
        own.found(false)?;
        return Ok(Targets::Own(own));
    }
    let Some(mut eds) = message.message(3, &EDS_CONFIG)? else {
        return Err(message.about(3, "is missing"));
    };
    if let Some(source) = eds.message(1, &CONFIG_SOURCE)? {
        check_config_source(source)?;
    }
    let service = eds.text(2)?;
    eds.finish()?;
    check_name(service)?;
    Ok(Targets::Eds(if service.is_empty() { name } else { service }.to_owned()))
}

/// Refuses a source other than the stream itself.
pub(super) fn check_config_source(mut source: Message<'_>) -> Result<(), Reason> {
    for (number, what) in [(1, "a file"), (8, "a file"), (2, "another server")] {
        if source.has(number) {
            return Err(source.about(number, &format!("names {what}; use `ads: {{}}`")));
        }
    }
    source.ignore(&[3, 4, 5, 6]); // ads, initial_fetch_timeout, self, resource_api_version
    source.finish()
}

/// Which addresses of a name in DNS count.
fn families(message: &mut Message<'_>) -> Result<Families, Reason> {
    match message.number(17)? {
        0 | 4 => Ok(Families::Any),
        1 => Ok(Families::Ipv4),
        2 => Ok(Families::Ipv6),
        _ => Err(message.about(17, "is not supported here; use AUTO, V4_ONLY, V6_ONLY or ALL")),
    }
}

/// The panic threshold in percent, and whether the weights of localities count.
fn panic_percent(message: &mut Message<'_>) -> Result<(u8, bool), Reason> {
    /// Envoy's default of `healthy_panic_threshold`.
    const DEFAULT: f64 = 50.0;
    let Some(mut common) = message.message(27, &COMMON_LB)? else { return Ok((50, false)) };
    let percent = common.percent(1)?.unwrap_or(DEFAULT);
    if percent > 100.0 {
        return Err(common.about(1, "is above 100"));
    }
    let by_locality = common.bytes(3)?.is_some();
    // Zone-aware routing needs the cluster of this proxy, which it does not have. The others are
    // about the time at which changes are applied.
    common.ignore(&[2, 4, 5, 6]);
    common.finish()?;
    Ok((percent.round() as u8, by_locality))
}

fn breaker(
    message: &mut Message<'_>,
    service: &mut Service,
    origin: &Origin,
) -> Result<(), Reason> {
    let Some(mut breakers) = message.message(10, &BREAKERS)? else { return Ok(()) };
    for mut threshold in breakers.messages(1, &THRESHOLDS)? {
        // No request has a high priority here.
        if threshold.number(1)? != 0 {
            continue;
        }
        let item = |value: Option<u32>| value.map(|value| Item::new(value, origin.clone()));
        service.circuit_breaker = Some(CircuitBreaker {
            max_connections: item(threshold.wrapped_u32(2)?),
            max_pending_requests: item(threshold.wrapped_u32(3)?),
            max_requests: item(threshold.wrapped_u32(4)?),
            max_retries: threshold.wrapped_u32(5)?,
        });
        threshold.ignore(&[6]); // track_remaining
        threshold.finish()?;
    }
    breakers.finish()
}

fn http(message: &mut Message<'_>, service: &mut Service, origin: &Origin) -> Result<(), Reason> {
    if let Some(options) = message.message(14, &HTTP2_OPTIONS)? {
        http2(options, service, origin)?;
    }
    if let Some(options) = message.message(29, &HTTP_OPTIONS)? {
        service.idle_timeout = idle_timeout(options)?;
    }
    message.ignore(&[13]); // http_protocol_options: details of HTTP/1
    for bytes in message.all(36)? {
        let mut entry = Message::read(bytes, &OPTIONS_ENTRY)?;
        let key = entry.text(1)?;
        if key != HTTP_KEY {
            return Err(message.about(36, &format!("has {key}, which is not supported here")));
        }
        let (url, bytes) = any_of(entry.bytes(2)?.unwrap_or_default())?;
        if url != HTTP_TYPE {
            return Err(message.about(36, &format!("has {url}, which is not supported here")));
        }
        let mut options = Message::read(bytes, &UPSTREAM_HTTP)?;
        if let Some(common) = options.message(1, &HTTP_OPTIONS)? {
            service.idle_timeout = idle_timeout(common)?;
        }
        if let Some(mut explicit) = options.message(3, &EXPLICIT_HTTP)? {
            explicit.ignore(&[1]);
            if let Some(options) = explicit.message(2, &HTTP2_OPTIONS)? {
                http2(options, service, origin)?;
            }
            if explicit.bytes(3)?.is_some() {
                service.protocol = ServiceProtocol::Http3;
            }
            explicit.finish()?;
        } else if options.bytes(5)?.is_some() {
            service.protocol = ServiceProtocol::Auto; // by ALPN
            // Envoy uses HTTP/3 only with settings of it, which are refused here.
            service.alt_svc = Some(Item::new(false, origin.clone()));
        }
        options.finish()?;
    }
    Ok(())
}

/// An entry of `typed_extension_protocol_options`.
const OPTIONS_ENTRY: super::proto::Schema =
    super::proto::Schema("typed_extension_protocol_options", "1 key 2 value");

fn http2(mut options: Message<'_>, service: &mut Service, origin: &Origin) -> Result<(), Reason> {
    service.protocol = ServiceProtocol::Http2;
    let streams = options.wrapped_u32(2)?;
    service.http2.max_concurrent_streams = streams.map(|it| Item::new(it, origin.clone()));
    // Windows, limits on frames and pings have their own settings here.
    options.ignore(&[1, 3, 4, 7, 8, 9, 10, 11, 12, 14, 15, 16, 18]);
    options.finish()
}

fn idle_timeout(mut options: Message<'_>) -> Result<Option<Duration>, Reason> {
    let idle = options.duration(1)?;
    options.finish()?;
    Ok(idle.filter(|idle| !idle.is_zero()))
}

fn transport(
    message: &mut Message<'_>,
    service: &mut Service,
    origin: &Origin,
    secrets: &mut Vec<Wanted>,
) -> Result<(), Reason> {
    let Some(mut socket) = message.message(24, &TRANSPORT_SOCKET)? else { return Ok(()) };
    let name = socket.text(1)?;
    match socket.any(3)? {
        Some((tls::UPSTREAM, bytes)) => {
            service.tls = Some(Item::new(tls::upstream(bytes, origin, secrets)?, origin.clone()));
        }
        Some((RAW, _)) => {}
        None if name == "envoy.transport_sockets.raw_buffer" => {}
        Some((url, _)) => {
            return Err(message.about(24, &format!("has the type {url}, which is not supported")));
        }
        None => return Err(message.about(24, "has no typed_config")),
    }
    socket.finish()
}
