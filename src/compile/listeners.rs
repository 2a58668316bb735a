//! Listeners.

use std::sync::Arc;
use std::time::Duration;

use super::routes::Hosts;
use super::{Compiler, http2, is_token, suggestion, tls};
use crate::authz::EscapedSlashes;
use crate::cluster::Service;
use crate::model::{self, Item, ListenerProtocol};
use crate::net::Bind;
use crate::route::Table;
use crate::snapshot::{ForwardClientCert, Listener, Serves, Timeouts};

pub(super) fn listeners(
    compiler: &mut Compiler<'_>,
    services: &[Arc<Service>],
    hosts: &Hosts<'_>,
) -> Vec<Arc<Listener>> {
    let model = compiler.model;
    let all = hosts.all();
    let mut listeners = Vec::new();
    for item in &model.listeners {
        let written = &item.value;
        let serves = serves(compiler, item, services, hosts, &all);
        let binds = binds(compiler, &written.binds);
        let tls = tls::listener(compiler, written, &binds);
        let Some(serves) = serves else { continue };
        let http2 = http2::settings(compiler, &written.http2);
        if let Some(via) = &written.via
            && !is_token(&via.value)
        {
            compiler.fault(&via.origin, format!("{:?} is not a token", via.value));
        }
        let name = written.name.value.as_str();
        listeners.push(Arc::new(Listener {
            name: name.into(),
            binds,
            serves,
            tls,
            http1: written.protocol != ListenerProtocol::Http2,
            http2: (written.protocol != ListenerProtocol::Http1).then_some(http2),
            proxy_protocol: written.proxy_protocol,
            trusted_hops: written.trusted_hops,
            forward_client_cert: forward_client_cert(written.forward_client_cert),
            request_id: written.request_id.unwrap_or(true),
            via: written.via.as_ref().map(|via| via.value.as_str().into()),
            escaped_slashes: match written.escaped_slashes {
                model::EscapedSlashes::Reject => EscapedSlashes::Reject,
                model::EscapedSlashes::Keep => EscapedSlashes::Keep,
                model::EscapedSlashes::Decode => EscapedSlashes::Decode,
            },
            connections_max: written.connections.unwrap_or(u32::MAX),
            timeouts: timeouts(&written.timeouts),
            stats: compiler.registry.listener(name),
        }));
    }
    listeners
}

/// The time limits for clients.
pub(super) fn timeouts(written: &model::Timeouts) -> Timeouts {
    let or = |time: Option<Duration>, default| time.unwrap_or_else(|| Duration::from_secs(default));
    Timeouts {
        handshake: or(written.handshake, 10),
        header: or(written.header, 10),
        body_idle: or(written.body_idle, 60),
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
    match (written.protocol, &written.service, &written.hosts) {
        (ListenerProtocol::Tcp, Some(service), _) => {
            if let Some(first) = written.hosts.as_ref().and_then(|hosts| hosts.first()) {
                compiler.fault(&first.origin, "a tcp listener has no hosts");
            }
            compiler.destination(services, service).map(Serves::Tcp)
        }
        (ListenerProtocol::Tcp, None, _) => {
            let message = format!("the tcp listener {:?} has no service", written.name.value);
            compiler.fault_with_help(&item.origin, message, "add `service: NAME`");
            None
        }
        (_, Some(service), _) => {
            let help = "add `protocol: tcp`, or name the service in `routes`";
            compiler.fault_with_help(&service.origin, "`service` is for tcp listeners", help);
            None
        }
        (ListenerProtocol::Tls, None, _) if !written.tls.is_empty() => {
            let help = "leave `tls` out, or write `protocol: tcp` or `auto` to terminate it";
            let message = "this listener passes TLS through and does not terminate it";
            compiler.fault_with_help(&item.origin, message, help);
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

/// The route table of the `wanted` hosts. Reports each host that has no routes.
pub(super) fn only(
    compiler: &mut Compiler<'_>,
    hosts: &Hosts<'_>,
    wanted: &[Item<String>],
) -> Table {
    let (table, unknown) = hosts.only(wanted);
    for host in unknown {
        let known: Vec<&str> = hosts.names().collect();
        let help = suggestion(&host.value, &known);
        let message = format!("there are no routes for {:?}", host.value);
        compiler.fault_with_help(&host.origin, message, help);
    }
    table
}

/// The binds of a listener. Each bind belongs to one listener.
fn binds(compiler: &mut Compiler<'_>, written: &[Item<Bind>]) -> Vec<Bind> {
    written.iter().filter_map(|bind| taken(compiler, bind)).collect()
}

/// Returns the bind, and registers it. Reports an error if another listener has the same bind.
pub(super) fn taken(compiler: &mut Compiler<'_>, bind: &Item<Bind>) -> Option<Bind> {
    let at = compiler.model.files.column_of(&bind.origin);
    if let Some(first) = compiler.bind_places.insert(bind.value.clone(), at) {
        let message = format!("{} is taken by another listener, at {first}", bind.value);
        compiler.fault(&bind.origin, message);
        return None;
    }
    Some(bind.value.clone())
}
