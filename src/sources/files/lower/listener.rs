//! Lowers `listeners:` to the model.

use std::path::PathBuf;

use super::super::grammar::listener::{self as grammar, Listener, Timeouts};
use super::super::values::Placed;
use super::{Lower, http2, http3, list, mesh, origin, rate_limit, tcp, time, time_or_none, tls};
use crate::model::{self, EscapedSlashes, ForwardClientCert, Item, ListenerProtocol};
use crate::net::Bind;

pub(super) fn listener(
    lower: &mut Lower<'_>,
    name: Item<String>,
    written: Placed<Listener>,
) -> model::Listener {
    let value = written.value;
    let binds = value.bind.0.iter().filter_map(|text| bind(lower, text)).collect();
    let tls = value.tls.map(|tls| tls.0).unwrap_or_default();
    model::Listener {
        scope: None,
        name,
        binds,
        outbound: value.direction == grammar::Direction::Outbound,
        protocol: match value.protocol {
            grammar::ListenerProtocol::Auto => ListenerProtocol::Auto,
            grammar::ListenerProtocol::Http => ListenerProtocol::Http1,
            grammar::ListenerProtocol::Http2 => ListenerProtocol::Http2,
            grammar::ListenerProtocol::Http3 => ListenerProtocol::Http3,
            grammar::ListenerProtocol::Tcp => ListenerProtocol::Tcp,
            grammar::ListenerProtocol::Tls => ListenerProtocol::Tls,
            grammar::ListenerProtocol::Quic => ListenerProtocol::Quic,
        },
        tls: tls.into_iter().filter_map(|tls| tls::server(lower, tls)).collect(),
        service: value.service.map(Into::into),
        udp: value.udp.map(|udp| Item::new(mesh::udp(udp.value), origin(udp.place))),
        proxy_protocol: value.proxy_protocol.value.then(|| origin(value.proxy_protocol.place)),
        redirect_https: value.redirect_https.value.then(|| origin(value.redirect_https.place)),
        hosts: value.hosts.map(|hosts| list(hosts.0)),
        trusted_hops: value.trusted_hops,
        forward_client_cert: forward_client_cert(value.forward_client_cert),
        http2: http2::http2(value.http2),
        http3: value.http3.and_then(http3::http3),
        timeouts: timeouts(value.timeouts),
        tcp: tcp::tcp(value.tcp),
        connections: value.connections.map(Into::into),
        connections_per_source: value.connections_per_source.map(Into::into),
        requests_per_connection: value.requests_per_connection.map(Into::into),
        rate_limits: rate_limit::rate_limits(value.rate_limit),
        request_id: value.request_id,
        via: value.via.map(Into::into),
        escaped_slashes: match value.escaped_slashes {
            grammar::EscapedSlashes::Reject => EscapedSlashes::Reject,
            grammar::EscapedSlashes::Keep => EscapedSlashes::Keep,
            grammar::EscapedSlashes::Decode => EscapedSlashes::Decode,
        },
        abort_on_close: value.abort_on_close,
    }
}

fn bind(lower: &mut Lower<'_>, text: &Placed<String>) -> Option<Item<Bind>> {
    if lower.is_local_for_a_server(text.place, &text.value) {
        return None;
    }
    let bind = match text.value.split_once(':') {
        Some(("unix", path)) if path.starts_with('/') => Bind::Unix(PathBuf::from(path)),
        Some(("systemd", name)) if !name.is_empty() => Bind::Systemd(name.to_owned()),
        _ => {
            let help = "write IP:PORT, [IPv6]:PORT, unix:/path or systemd:NAME";
            Bind::Tcp(lower.address(text, help)?)
        }
    };
    Some(Item::new(bind, origin(text.place)))
}

pub(super) fn forward_client_cert(written: grammar::ForwardClientCert) -> ForwardClientCert {
    match written {
        grammar::ForwardClientCert::Sanitize => ForwardClientCert::Sanitize,
        grammar::ForwardClientCert::Append => ForwardClientCert::Append,
        grammar::ForwardClientCert::Set => ForwardClientCert::Set,
    }
}

pub(super) fn timeouts(written: Timeouts) -> model::Timeouts {
    model::Timeouts {
        handshake: time(written.handshake),
        header: time(written.header),
        request_body: time_or_none(written.request_body),
        stream_idle: time_or_none(written.stream_idle),
        keep_alive: time(written.keep_alive),
        tcp_idle: time_or_none(written.tcp_idle),
    }
}
