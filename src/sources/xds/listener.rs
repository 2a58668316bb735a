//! Listeners of Envoy's API.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::cluster::{check_config_source, service_name};
use super::endpoints::socket_address;
use super::proto::{Message, Reason, Schema};
use super::route_schemas::{
    CHAIN_MATCH, FILTER, FILTER_CHAIN, HTTP_FILTER, LISTENER, LISTENER_FILTER, MANAGER, RDS,
    TCP_PROXY,
};
use super::routes::{RouteConfig, scope};
use super::schemas::{ADDRESS, CONFIG_SOURCE, HTTP_OPTIONS, HTTP2_OPTIONS, TRANSPORT_SOCKET};
use super::secrets::{Secret, Wanted, fill_listener};
use super::tls;
use crate::model::{
    EscapedSlashes, ForwardClientCert, Item, Kind, Listener, ListenerProtocol, Origin, ResourceId,
};
use crate::net::Bind;
use crate::time::NO_LIMIT;

/// An address in addition to that of the listener.
const ADDITIONAL: Schema = Schema("additional_addresses", "1 address 2 socket_options");

/// A listener.
#[derive(Clone, Debug)]
pub(super) struct Listening {
    /// The listener without the secrets that it needs.
    listener: Arc<Item<Listener>>,
    pub(super) routes: RouteSource,
    pub(super) secrets: Vec<Wanted>,
}

/// Where the routes of a listener come from.
#[derive(Clone, Debug)]
pub(super) enum RouteSource {
    /// The listener has none: it passes bytes on.
    None,
    /// The listener itself has them.
    Own(RouteConfig),
    /// A resource of this name has them.
    Rds(String),
}

/// The name of the routes that a listener has itself, among those of resources.
pub(super) fn own_routes(listener: &str) -> String {
    format!("{OWN}{listener}")
}

/// The listener whose own routes have this name.
pub(super) fn owner_of(routes: &str) -> Option<&str> {
    routes.strip_prefix(OWN)
}

const OWN: &str = "of the listener ";

impl Listening {
    /// Reads a listener, which came with this version.
    pub(super) fn read(bytes: &[u8], version: &str) -> Result<(String, Self), Reason> {
        let mut message = Message::read(bytes, &LISTENER)?;
        let m = &mut message;
        let name = m.required_text(1)?.to_owned();
        let id = ResourceId {
            source: super::NAME.into(),
            kind: Kind::Listener,
            name: name.as_str().into(),
            version: version.into(),
        };
        let origin = Origin::Resource(Arc::new(id));
        let mut listener = Listener {
            name: Item::new(name.clone(), origin.clone()),
            binds: binds(m, &origin)?,
            outbound: m.number(16)? == 2,
            ..Listener::default()
        };
        for filter in m.messages(9, &LISTENER_FILTER)? {
            listener_filter(filter, &mut listener)?;
        }
        if m.wrapped(26)? == Some(0) {
            return Err(m.about(26, "is false, which is not supported"));
        }
        m.off(&[4, 10, 11])?; // use_original_dst, transparent, freebind
        let mut chains = m.messages(3, &FILTER_CHAIN)?;
        chains.extend(m.message(25, &FILTER_CHAIN)?);
        let mut secrets = Vec::new();
        let filters = chains_of(m, chains, &mut listener, &mut secrets)?;
        let routes = filter(filters, &mut listener, &name, version)?;
        // Names and counters, buffers, logs, sockets and how connections are spread.
        m.ignore(&[5, 6, 8, 12, 15, 17, 20, 21, 22, 24, 28, 29, 34, 38, 39]);
        message.finish()?;
        let listener = Arc::new(Item::new(listener, origin));
        Ok((name, Self { listener, routes, secrets }))
    }

    /// The listener with its secrets, which `find` returns.
    pub(super) fn item<'a>(
        &self,
        find: impl Fn(&str) -> Option<&'a Secret>,
    ) -> Result<Arc<Item<Listener>>, Reason> {
        if self.secrets.is_empty() {
            return Ok(Arc::clone(&self.listener));
        }
        let mut item = Item::clone(&self.listener);
        fill_listener(&mut item.value, &self.secrets, find)?;
        Ok(Arc::new(item))
    }
}

fn binds(m: &mut Message<'_>, origin: &Origin) -> Result<Vec<Item<Bind>>, Reason> {
    let mut addresses: Vec<_> = m.message(2, &ADDRESS)?.into_iter().collect();
    for mut more in m.messages(33, &ADDITIONAL)? {
        addresses.extend(more.message(1, &ADDRESS)?);
        more.finish()?;
    }
    if addresses.is_empty() {
        return Err(m.about(2, "is missing"));
    }
    let mut binds = Vec::new();
    for address in addresses {
        let (host, port) = socket_address(address)?;
        let ip: IpAddr = host.parse().map_err(|_| format!("{host:?} is no IP address"))?;
        binds.push(Item::new(Bind::Tcp(SocketAddr::new(ip, port)), origin.clone()));
    }
    Ok(binds)
}

fn listener_filter(mut filter: Message<'_>, listener: &mut Listener) -> Result<(), Reason> {
    let name = filter.text(1)?.to_owned();
    let url = filter.any(3)?.map_or(&*name, |(url, _)| url);
    let short = url.rsplit('.').next().unwrap_or_default();
    match short {
        "TlsInspector" | "tls_inspector" | "HttpInspector" | "http_inspector" => {}
        "ProxyProtocol" | "proxy_protocol" => {
            listener.proxy_protocol = Some(listener.name.origin.clone());
        }
        _ => return Err(filter.about(3, &format!("is {short}, which is not supported"))),
    }
    filter.finish()
}

/// Reads the filter chains. They may differ in their certificates. Returns the filter of all.
fn chains_of<'a>(
    m: &Message<'_>,
    chains: Vec<Message<'a>>,
    listener: &mut Listener,
    secrets: &mut Vec<Wanted>,
) -> Result<&'a [u8], Reason> {
    let origin = &listener.name.origin.clone();
    let mut common: Option<&[u8]> = None;
    let count = chains.len();
    for mut chain in chains {
        let filters = chain.all(3)?;
        let [only] = filters[..] else {
            return Err(chain.about(3, "does not have exactly one filter"));
        };
        if common.is_some_and(|first| first != only) {
            return Err(m.about(3, "have different filters; use a listener for each"));
        }
        common = Some(only);
        let mut names = Vec::new();
        if let Some(mut condition) = chain.message(1, &CHAIN_MATCH)? {
            names = condition.texts(11)?.into_iter().map(str::to_owned).collect();
            if !matches!(condition.text(9)?, "" | "tls") {
                return Err(condition.about(9, "is not tls"));
            }
            condition.ignore(&[10]); // application_protocols
            condition.finish()?;
        }
        if let Some(mut socket) = chain.message(6, &TRANSPORT_SOCKET)? {
            socket.ignore(&[1]);
            match socket.any(3)? {
                Some((tls::DOWNSTREAM, bytes)) => {
                    let place = (listener.tls.len(), &mut *secrets);
                    let tls = tls::downstream(bytes, names, origin, place)?;
                    listener.tls.push(Item::new(tls, origin.clone()));
                }
                Some((url, _)) if url.ends_with(".RawBuffer") => {}
                _ => return Err(chain.about(6, "is not supported; use DownstreamTlsContext")),
            }
            socket.finish()?;
        } else if !names.is_empty() {
            return Err(chain.about(6, "is missing, though server_names are there"));
        }
        chain.off(&[4])?; // use_proxy_proto
        chain.ignore(&[5, 7, 9]); // metadata, name, transport_socket_connect_timeout
        chain.finish()?;
    }
    if !listener.tls.is_empty() && listener.tls.len() != count {
        return Err(m.about(3, "are partly without TLS; use a listener for each"));
    }
    common.ok_or_else(|| m.about(3, "is missing"))
}

const MANAGER_TYPE: &str = "type.googleapis.com/envoy.extensions.filters.network.\
                            http_connection_manager.v3.HttpConnectionManager";
const TCP_PROXY_TYPE: &str =
    "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";

/// Reads the filter of a listener.
fn filter(
    bytes: &[u8],
    listener: &mut Listener,
    name: &str,
    version: &str,
) -> Result<RouteSource, Reason> {
    let mut filter = Message::read(bytes, &FILTER)?;
    let Some((url, bytes)) = filter.any(4)? else { return Err(filter.about(4, "is missing")) };
    filter.ignore(&[1]);
    let routes = match url {
        MANAGER_TYPE => manager(bytes, listener, name, version)?,
        TCP_PROXY_TYPE => {
            tcp_proxy(bytes, listener)?;
            RouteSource::None
        }
        _ => return Err(filter.about(4, &format!("is {url}, which is not supported"))),
    };
    filter.finish()?;
    Ok(routes)
}

fn tcp_proxy(bytes: &[u8], listener: &mut Listener) -> Result<(), Reason> {
    let mut proxy = Message::read(bytes, &TCP_PROXY)?;
    listener.protocol = ListenerProtocol::Tcp;
    if !proxy.has(2) {
        return Err(proxy.about(2, "is missing"));
    }
    let cluster = service_name(proxy.required_text(2)?);
    listener.service = Some(Item::new(cluster, listener.name.origin.clone()));
    let limit = |time: std::time::Duration| if time.is_zero() { NO_LIMIT } else { time };
    listener.timeouts.tcp_idle = proxy.duration(8)?.map(limit);
    proxy.ignore(&[1, 5, 7, 15, 16, 17]); // counters, logs, attempts
    proxy.finish()
}

fn manager(
    bytes: &[u8],
    listener: &mut Listener,
    name: &str,
    version: &str,
) -> Result<RouteSource, Reason> {
    let mut message = Message::read(bytes, &MANAGER)?;
    let m = &mut message;
    listener.protocol = match m.number(1)? {
        0 => ListenerProtocol::Auto,
        1 => ListenerProtocol::Http1,
        2 => ListenerProtocol::Http2,
        _ => return Err(m.about(1, "is not supported; use AUTO, HTTP1 or HTTP2")),
    };
    let routes = if let Some(mut rds) = m.message(3, &RDS)? {
        if let Some(source) = rds.message(1, &CONFIG_SOURCE)? {
            check_config_source(source)?;
        }
        let routes = rds.required_text(2)?.to_owned();
        rds.finish()?;
        listener.scope = Some(scope(&routes));
        RouteSource::Rds(routes)
    } else if let Some(bytes) = m.bytes(4)? {
        let own = own_routes(name);
        listener.scope = Some(scope(&own));
        RouteSource::Own(RouteConfig::read(bytes, Some(&own), version)?.1)
    } else {
        return Err(m.about(3, "is missing"));
    };
    for filter in m.messages(5, &HTTP_FILTER)? {
        http_filter(filter)?;
    }
    settings(m, listener)?;
    // Names, spans, logs, details of HTTP/1, drains, addresses of clients and local replies.
    m.ignore(&[2, 6, 7, 8, 10, 12, 13, 14, 17, 18, 20, 21, 26, 32, 34, 36, 37, 40, 54, 55, 56]);
    message.finish()?;
    Ok(routes)
}

fn settings(m: &mut Message<'_>, listener: &mut Listener) -> Result<(), Reason> {
    let origin = listener.name.origin.clone();
    let limit = |time: std::time::Duration| if time.is_zero() { NO_LIMIT } else { time };
    listener.timeouts.stream_idle = m.duration(24)?.map(limit);
    listener.timeouts.header = m.duration(41)?.map(limit);
    if m.duration(28)?.is_some_and(|time| !time.is_zero()) {
        return Err(m.unsupported(28));
    }
    if let Some(mut options) = m.message(35, &HTTP_OPTIONS)? {
        listener.timeouts.keep_alive = options.duration(1)?.map(limit);
        options.ignore(&[5]); // headers_with_underscores_action
        options.finish()?;
    }
    if let Some(mut options) = m.message(9, &HTTP2_OPTIONS)? {
        let streams = options.wrapped_u32(2)?;
        listener.http2.max_concurrent_streams = streams.map(|it| Item::new(it, origin.clone()));
        options.ignore(&[1, 3, 4, 7, 8, 9, 10, 11, 12, 14, 15, 16, 18]);
        options.finish()?;
    }
    let hops = m.number(19)?;
    listener.trusted_hops = u32::try_from(hops).map_err(|_| m.about(19, "is too large"))?;
    listener.request_id = m.wrapped(15)?.map(|on| on != 0);
    listener.forward_client_cert = match m.number(16)? {
        0 => ForwardClientCert::Sanitize,
        2 => ForwardClientCert::Append,
        3 => ForwardClientCert::Set,
        _ => return Err(m.unsupported(16)),
    };
    listener.escaped_slashes = match m.number(45)? {
        0 | 1 => EscapedSlashes::Keep,
        2 => EscapedSlashes::Reject,
        4 => EscapedSlashes::Decode,
        _ => return Err(m.unsupported(45)),
    };
    let via = m.text(22)?;
    listener.via = (!via.is_empty()).then(|| Item::new(via.to_owned(), origin));
    for bytes in m.all(23)? {
        const KIND: Schema = Schema("upgrade_configs", "1 upgrade_type 2 filters 3 enabled");
        let mut upgrade = Message::read(bytes, &KIND)?;
        if !upgrade.text(1)?.eq_ignore_ascii_case("websocket") {
            return Err(upgrade.about(1, "is not supported; only websocket is"));
        }
        upgrade.ignore(&[3]);
        upgrade.finish()?;
    }
    // Paths and hosts are compared and forwarded as they came.
    m.off(&[30, 33, 39, 42, 47])
}

fn http_filter(mut filter: Message<'_>) -> Result<(), Reason> {
    let name = filter.text(1)?.to_owned();
    let is_unused = filter.flag(6)? || filter.flag(7)?; // is_optional, disabled
    let Some((url, _)) = filter.any(4)? else {
        return Err(filter.about(4, &format!("of {name} is missing")));
    };
    match url.ends_with(".Router") || is_unused {
        true => filter.finish(),
        false => Err(filter.about(4, &format!("is {url}, which is not supported; leave it out"))),
    }
}
