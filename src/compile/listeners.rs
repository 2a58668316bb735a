//! Compiles listeners.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::rate_limits::{self, Owner};
use super::routes::Hosts;
use super::{Compiler, admin, http2, http3, is_token, jwt, mesh, suggestion, tcp, tls};
use crate::authz::EscapedSlashes;
use crate::cluster::{Protocol, Service};
use crate::mesh::{Direction, Passed};
use crate::model::{self, Item, ListenerProtocol, Origin};
use crate::net::{Address, Bind};
use crate::resilience::Scope;
use crate::route::{Action, HostPattern, Redirect, Table};
use crate::snapshot::{ForwardClientCert, Listener, PerSource, Serves, Timeouts};

/// The name of the only rule of a listener with `redirect_https`.
const REDIRECT_RULE: &str = "redirect_https";

/// The name of the admin interface in messages about conflicting addresses.
const ADMIN: &str = "the admin interface";

pub(super) fn listeners(
    compiler: &mut Compiler<'_>,
    services: &[Arc<Service>],
    hosts: &Hosts<'_>,
) -> Vec<Arc<Listener>> {
    let model = compiler.model;
    let all = hosts.all();
    let token = jwt::demand(compiler, model.token.as_ref());
    let mut listeners = Vec::new();
    for item in &model.listeners {
        let written = &item.value;
        let serves = serves(compiler, item, services, hosts, &all);
        let mut binds = binds(compiler, &http3::binds(written));
        let tls = tls::listener(compiler, written, &binds);
        let timeouts = timeouts(&written.timeouts);
        let mut http3 = http3::listener(compiler, item, tls.as_ref(), &timeouts);
        if let Some(tls) = tls.as_ref().filter(|_| http3::is_of_mesh(model, written)) {
            http3 = http3::of_mesh(compiler, &item.origin, tls, &timeouts);
            binds.extend(self::binds(compiler, &http3::quic_binds(written)));
        }
        check(compiler, written);
        let Some(serves) = serves else { continue };
        let http2 = http2::settings(compiler, &written.http2);
        let liveness = tcp::liveness(compiler, &written.tcp, compiler.egress.liveness);
        let name = written.name.value.as_str();
        let not_http = not_http(written.protocol);
        let owner = Owner::named(Scope::Listener, name, not_http);
        let limits = rate_limits::limits(compiler, &owner, &written.rate_limits);
        let per_source =
            at_least_one(compiler, written.connections_per_source.as_ref(), "no limit")
                .map(|max| PerSource { max, sources: compiler.registry.sources(name) });
        let connections_max = at_least_one(compiler, written.connections.as_ref(), "no limit");
        let requests_max =
            at_least_one(compiler, written.requests_per_connection.as_ref(), "no limit");
        let requests_max = requests_max.unwrap_or(u32::MAX);
        listeners.push(Arc::new(Listener {
            name: name.into(),
            binds,
            direction: if written.outbound { Direction::Outbound } else { Direction::Inbound },
            serves,
            tls,
            http1: written.protocol != ListenerProtocol::Http2,
            http2: (written.protocol != ListenerProtocol::Http1).then_some(http2),
            http3,
            proxy_protocol: written.proxy_protocol.is_some(),
            trusted_hops: written.trusted_hops,
            forward_client_cert: forward_client_cert(written.forward_client_cert),
            request_id: written.request_id.unwrap_or(true),
            via: written.via.as_ref().map(|via| via.value.as_str().into()),
            escaped_slashes: match written.escaped_slashes {
                model::EscapedSlashes::Reject => EscapedSlashes::Reject,
                model::EscapedSlashes::Keep => EscapedSlashes::Keep,
                model::EscapedSlashes::Decode => EscapedSlashes::Decode,
            },
            abort_on_close: written.abort_on_close,
            connections_max: connections_max.unwrap_or(u32::MAX),
            per_source,
            requests_max,
            rate_limits: limits.local,
            global_limit: limits.global,
            timeouts,
            liveness,
            jwt: if written.outbound { None } else { token.clone() },
            stats: compiler.registry.listener(name),
        }));
    }
    listeners
}

/// Reports values of a listener that cannot work.
fn check(compiler: &mut Compiler<'_>, written: &model::Listener) {
    if let Some(via) = &written.via
        && !is_token(&via.value)
    {
        compiler.fault(&via.origin, format!("{:?} is not a token", via.value));
    }
    if let Some(udp) = &written.udp
        && written.protocol != ListenerProtocol::Quic
    {
        let help = "leave it out, or write `protocol: quic`";
        compiler.fault_with_help(&udp.origin, "`udp` is for `protocol: quic`", help);
    }
}

/// The reason why a listener has no requests. `None` if it serves HTTP.
fn not_http(protocol: ListenerProtocol) -> Option<&'static str> {
    match protocol {
        ListenerProtocol::Tcp => Some("the listener has `protocol: tcp`"),
        ListenerProtocol::Tls => Some("the listener has `protocol: tls`"),
        ListenerProtocol::Quic => Some("the listener has `protocol: quic`"),
        _ => None,
    }
}

/// Compiles a limit on clients. Reports 0, because it would refuse all clients. `default` describes
/// the limit without the key.
pub(super) fn at_least_one(
    compiler: &mut Compiler<'_>,
    written: Option<&Item<u32>>,
    default: &str,
) -> Option<u32> {
    let written = written?;
    if written.value == 0 {
        let help = format!("write a number from 1, or leave it out for {default}");
        compiler.fault_with_help(&written.origin, "a limit of 0 would refuse all clients", help);
    }
    Some(written.value)
}

/// Compiles the time limits for clients.
pub(super) fn timeouts(written: &model::Timeouts) -> Timeouts {
    let or = |time: Option<Duration>, default| time.unwrap_or_else(|| Duration::from_secs(default));
    Timeouts {
        handshake: or(written.handshake, 10),
        header: or(written.header, 10),
        request_body: or(written.request_body, 60),
        stream_idle: written.stream_idle,
        keep_alive: or(written.keep_alive, 60),
        tcp_idle: or(written.tcp_idle, 3600),
    }
}

pub(super) fn forward_client_cert(written: model::ForwardClientCert) -> ForwardClientCert {
    match written {
        model::ForwardClientCert::Sanitize => ForwardClientCert::Sanitize,
        model::ForwardClientCert::Append => ForwardClientCert::Append,
        model::ForwardClientCert::Set => ForwardClientCert::Set,
    }
}

fn serves(
    compiler: &mut Compiler<'_>,
    item: &Item<model::Listener>,
    services: &[Arc<Service>],
    hosts: &Hosts<'_>,
    all: &Arc<Table>,
) -> Option<Serves> {
    let written = &item.value;
    let scoped;
    let all = match &written.scope {
        None => all,
        Some(scope) => {
            scoped = Arc::new(hosts.scoped(Some(scope)));
            &scoped
        }
    };
    if let Some(origin) = &written.redirect_https {
        return redirecting(compiler, written, origin);
    }
    match (written.protocol, &written.service, &written.hosts) {
        (ListenerProtocol::Tcp, Some(service), _) => {
            if let Some(first) = written.hosts.as_ref().and_then(|hosts| hosts.first()) {
                compiler.fault(&first.origin, "a tcp listener has no hosts");
            }
            compiler.destination(services, service).map(Serves::Tcp)
        }
        (ListenerProtocol::Tcp, None, _) => {
            let message = format!("the tcp listener {:?} has no service", written.name.value);
            compiler.fault_with_help(&item.origin, message, "add `service: SERVICE`");
            None
        }
        (ListenerProtocol::Quic, ..) => passed(compiler, item, services, hosts, all),
        (_, Some(service), _) => {
            let is_tcp = |known: &Arc<Service>| {
                *known.name == *service.value && known.protocol == Protocol::Tcp
            };
            let help = match services.iter().any(is_tcp) {
                true => "add `protocol: tcp`, as in the service",
                false => {
                    "add `protocol: tcp` for bytes that are not HTTP; for HTTP, leave `service` \
                     out: the rules in `routes` name services"
                }
            };
            compiler.fault_with_help(&service.origin, "`service` is for tcp listeners", help);
            None
        }
        (ListenerProtocol::Tls, None, _) if !written.tls.is_empty() => {
            let help = "leave `tls` out; to decrypt here and use the rules, leave `protocol` out";
            let message = "this listener passes TLS through and does not terminate it";
            compiler.fault_with_help(&written.tls[0].origin, message, help);
            None
        }
        (ListenerProtocol::Tls, None, None) => Some(Serves::Tls(Arc::clone(all))),
        (_, None, None) => Some(Serves::Http(Arc::clone(all))),
        (protocol, None, Some(wanted)) => {
            let table = Arc::new(only(compiler, hosts, wanted));
            Some(match protocol {
                ListenerProtocol::Tls => Serves::Tls(table),
                _ => Serves::Http(table),
            })
        }
    }
}

/// The settings of a listener that passes QUIC through. Its routes are selected by the server name.
fn passed(
    compiler: &mut Compiler<'_>,
    item: &Item<model::Listener>,
    services: &[Arc<Service>],
    hosts: &Hosts<'_>,
    all: &Arc<Table>,
) -> Option<Serves> {
    let written = &item.value;
    let fault = match written {
        _ if !written.tls.is_empty() => Some((
            &written.tls[0].origin,
            "this listener passes QUIC through and does not terminate it",
            "leave `tls` out; to serve HTTP/3 here, write `protocol: http3`",
        )),
        _ if written.proxy_protocol.is_some() => Some((
            written.proxy_protocol.as_ref().unwrap_or(&item.origin),
            "there is no PROXY protocol header over QUIC",
            "leave `proxy_protocol` out",
        )),
        _ => {
            written.binds.iter().find(|bind| !matches!(bind.value, Bind::Tcp(_))).map(|bind| {
                (&bind.origin, "QUIC needs an address: it runs over UDP", "write IP:PORT")
            })
        }
    };
    if let Some((origin, message, help)) = fault {
        compiler.fault_with_help(origin, message, help);
        return None;
    }
    let routes = match &written.hosts {
        Some(wanted) => Arc::new(only(compiler, hosts, wanted)),
        None => Arc::clone(all),
    };
    let other = match &written.service {
        Some(service) => Some(compiler.destination(services, service)?),
        None => None,
    };
    let udp = mesh::udp(compiler, written.udp.as_ref().map(|udp| &udp.value));
    let state = compiler.registry.passed(&written.name.value);
    Some(Serves::Quic(Arc::new(Passed { routes, other, udp, state })))
}

/// The route table of a listener that redirects each request to https. It has one rule, and no
/// rules of `routes`.
fn redirecting(
    compiler: &mut Compiler<'_>,
    written: &model::Listener,
    origin: &Origin,
) -> Option<Serves> {
    let plain = !http3::is_http(written.protocol);
    if let Some(host) = written.hosts.as_ref().and_then(|hosts| hosts.first()) {
        let message = "a listener with `redirect_https` redirects every host, and has no `hosts`";
        let port = written.binds.iter().find_map(|bind| match &bind.value {
            Bind::Tcp(address) => Some(address.port().to_string()),
            Bind::Udp(_) | Bind::Quic(_) | Bind::Passed(_) | Bind::Unix(_) | Bind::Systemd(_) => {
                None
            }
        });
        let port = port.as_deref().unwrap_or("PORT");
        let name = host.value.split(':').next().unwrap_or_default();
        let help = format!(
            "leave `hosts` out; to redirect some hosts alone, leave `redirect_https` out, too, and \
             write rules with the port: \
             routes: {{\"{name}:{port}\": [{{redirect: {{scheme: https}}}}]}}; \
             if `hosts` stays, it names \"{name}:{port}\""
        );
        compiler.fault_with_help(&host.origin, message, help);
        return None;
    }
    let for_http = format!(
        "leave `redirect_https` out; for HTTP, leave {} out",
        http3::keys_of_bytes(written)
    );
    let (message, help) = match () {
        () if plain => ("only HTTP can be redirected", for_http.as_str()),
        () if !written.tls.is_empty() => (
            "this listener speaks https already",
            "take it out here, and write it in a listener without `tls`, such as \
             plain: {bind: IP:80, redirect_https: true}",
        ),
        () if written.service.is_some() => {
            ("a listener with `redirect_https` has no service", "leave `service` out")
        }
        () => {
            let redirect =
                Redirect { status: 301, scheme: Some("https".into()), ..Redirect::default() };
            let action = Action::Redirect(redirect);
            let rule = compiler.plain_rule(origin, "*", REDIRECT_RULE, action);
            let any = HostPattern { name: Box::default(), wildcard: true, port: None };
            return Some(Serves::Http(Arc::new(Table::build(vec![(any, vec![rule])]))));
        }
    };
    compiler.fault_with_help(origin, message, help);
    None
}

/// The route table of a listener with `hosts`. Reports each wanted host that has no routes.
pub(super) fn only(
    compiler: &mut Compiler<'_>,
    hosts: &Hosts<'_>,
    wanted: &[Item<String>],
) -> Table {
    let (table, unknown) = hosts.only(wanted);
    for host in unknown {
        let known: Vec<&str> = hosts.names().collect();
        let help = match suggestion(&host.value, &known) {
            near if near.starts_with("did you mean") => near,
            _ => format!(
                "write its rules: routes: {{{:?}: [{{to: SERVICE}}]}}; without `hosts`, the \
                 listener serves all",
                host.value
            ),
        };
        let message = format!("there are no routes for {:?}", host.value);
        compiler.unknown(&host.origin, ("routes", &host.value), message, help);
    }
    table
}

/// Compiles the binds of a listener. Reports a bind that another listener has.
fn binds(compiler: &mut Compiler<'_>, written: &[Item<Bind>]) -> Vec<Bind> {
    written.iter().filter_map(|bind| taken(compiler, bind)).collect()
}

/// A bind that conflicts with `bind`, and its place: an equal bind, or one with the same port for
/// all addresses.
fn overlapping(compiler: &Compiler<'_>, bind: &Bind) -> Option<(Bind, String)> {
    if let Some((other, place)) = compiler.bind_places.get_key_value(bind) {
        return Some((other.clone(), place.clone()));
    }
    let (is_quic, address) = match bind {
        Bind::Tcp(address) => (false, address),
        Bind::Quic(address) | Bind::Passed(address) => (true, address),
        Bind::Unix(path) => {
            let is_admin = admin::address(compiler.model) == Some(Address::Unix(path.clone()));
            return is_admin.then(|| (bind.clone(), ADMIN.to_owned()));
        }
        Bind::Udp(_) | Bind::Systemd(_) => return None,
    };
    for (taken, by) in
        [(admin::tcp(compiler.model), ADMIN), (compiler.model.mesh.dns, "mesh.dns.bind")]
    {
        if let Some(taken) = taken.filter(|taken| !is_quic && in_the_way(taken, address)) {
            return Some((Bind::Tcp(taken), by.to_owned()));
        }
    }
    let others = compiler.bind_places.iter();
    let mut others = others.filter(|(other, _)| match other {
        Bind::Tcp(other) => !is_quic && in_the_way(other, address),
        Bind::Quic(other) | Bind::Passed(other) => is_quic && in_the_way(other, address),
        Bind::Udp(_) | Bind::Unix(_) | Bind::Systemd(_) => false,
    });
    others.next().map(|(other, place)| (other.clone(), place.clone()))
}

/// The address for captured connections that conflicts with `bind`. A resource does not take it
/// from the mesh, which is compiled later.
fn captured(compiler: &Compiler<'_>, bind: &Bind) -> Option<(Bind, String)> {
    let Bind::Tcp(address) = bind else { return None };
    let mesh = &compiler.model.mesh;
    let mut all = mesh.inbound.binds.iter().chain(&mesh.outbound.binds);
    let taken = all.find(|taken| in_the_way(&taken.value, address))?;
    Some((Bind::Tcp(taken.value), compiler.model.files.column_of(&taken.origin)))
}

/// Whether the kernel refuses to bind one of the addresses while the other one is bound.
fn in_the_way(one: &SocketAddr, other: &SocketAddr) -> bool {
    one == other
        || one.port() == other.port()
            && one.is_ipv4() == other.is_ipv4()
            && (one.ip().is_unspecified() || other.ip().is_unspecified())
}

/// Registers the bind of a listener and returns it. Reports an error if another listener has the
/// same bind.
pub(super) fn taken(compiler: &mut Compiler<'_>, bind: &Item<Bind>) -> Option<Bind> {
    let at = compiler.model.files.column_of(&bind.origin);
    let is_of_resource = bind.origin.resource().is_some();
    let captures = || captured(compiler, &bind.value).filter(|_| is_of_resource);
    if let Some((other, first)) = overlapping(compiler, &bind.value).or_else(captures) {
        let all = |bind: &Bind| match bind {
            Bind::Tcp(it) | Bind::Quic(it) | Bind::Passed(it) => it.ip().is_unspecified(),
            _ => false,
        };
        let message = match other.to_string() == bind.value.to_string() {
            true => format!("{other} is taken already ({first})"),
            false if all(&bind.value) => format!("{} includes {other} ({first})", bind.value),
            false => format!("{other} ({first}) includes {}", bind.value),
        };
        let help = match first.as_str() {
            ADMIN if matches!(other, Bind::Unix(_)) => {
                "take another path, or move the admin interface: admin: {bind: \"unix:/path\"}"
            }
            _ if matches!(other, Bind::Unix(_)) => "take another path for one of them, or keep one",
            ADMIN => "take another port, or move the admin interface: admin: {bind: IP:PORT}",
            _ => "take another port for one of them, or keep one",
        };
        compiler.fault_with_help(&bind.origin, message, help);
        return None;
    }
    compiler.bind_places.insert(bind.value.clone(), at);
    Some(bind.value.clone())
}
