//! Compiles HTTP/3 of listeners and services, and the limits on HTTP/3 frames.

use std::sync::Arc;

use super::{Compiler, http2};
use crate::cluster::Beside;
use crate::http3::FloodLimits;
use crate::model::{self, Http3, Item, ListenerProtocol, Model, Origin, ServiceProtocol};
use crate::net::Bind;
use crate::quic::{ClientQuic, ServerQuic, Transport};
use crate::snapshot::{self, Retry, Timeouts};
use crate::tls::{ClientTls, EarlySessions, ServerTls, terms_of};

/// The default of `max_handshakes`.
const HANDSHAKES_MAX: u32 = 1000;

/// The port of captured inbound traffic, by convention.
const INBOUND_PORT: u16 = 15006;

/// How long a client may use `alt-svc`, in seconds.
const ALT_SVC_AGE_S: u32 = 86_400;

pub(super) fn is_http(protocol: ListenerProtocol) -> bool {
    use ListenerProtocol::{Quic, Tcp, Tls};
    !matches!(protocol, Tcp | Tls | Quic)
}

/// Whether a listener serves HTTP/3.
pub(super) fn is_on(written: &model::Listener) -> bool {
    written.http3.is_some() || written.protocol == ListenerProtocol::Http3
}

/// The binds of a listener with those for QUIC: one for each TCP address. With `protocol: http3`,
/// they replace the TCP addresses.
pub(super) fn binds(written: &model::Listener) -> Vec<Item<Bind>> {
    let mut binds = written.binds.clone();
    if written.protocol == ListenerProtocol::Quic {
        let passed = binds.iter().filter_map(|bind| match bind.value {
            Bind::Tcp(address) => Some(Item::new(Bind::Passed(address), bind.origin.clone())),
            _ => None,
        });
        return passed.collect();
    }
    if !is_on(written) {
        return binds;
    }
    let quic = quic_binds(written);
    if written.protocol == ListenerProtocol::Http3 {
        return quic;
    }
    binds.extend(quic);
    binds
}

/// A QUIC bind for each TCP address of a listener.
pub(super) fn quic_binds(written: &model::Listener) -> Vec<Item<Bind>> {
    let quic = written.binds.iter().filter_map(|bind| match bind.value {
        Bind::Tcp(address) => Some(Item::new(Bind::Quic(address), bind.origin.clone())),
        Bind::Udp(_) | Bind::Quic(_) | Bind::Passed(_) | Bind::Unix(_) | Bind::Systemd(_) => None,
    });
    quic.collect()
}

/// Compiles HTTP/3 of a listener. Returns `None` without HTTP/3, or after an error.
pub(super) fn listener(
    compiler: &mut Compiler<'_>,
    item: &Item<model::Listener>,
    tls: Option<&Arc<ServerTls>>,
    timeouts: &Timeouts,
) -> Option<snapshot::Http3> {
    let written = &item.value;
    if !is_on(written) {
        return None;
    }
    let standard = Http3::default();
    let (settings, origin) = match &written.http3 {
        Some(http3) => (&http3.value, &http3.origin),
        None => (&standard, &item.origin),
    };
    if let Some((message, help)) = fault_of(written) {
        compiler.fault_with_help(origin, message, help);
        return None;
    }
    // Without `tls`, `fault_of` has reported it. Otherwise TLS itself has an error.
    let tls = tls?;
    let tells = settings.alt_svc.unwrap_or(true) && written.protocol != ListenerProtocol::Http3;
    let alt_svc = tells.then(|| alt_svc(&written.binds));
    serving(compiler, &item.value.name.value, settings, origin, (tls, timeouts), alt_svc)
}

/// HTTP/3 with the default settings, for proxies of the mesh.
pub(super) fn of_mesh(
    compiler: &mut Compiler<'_>,
    origin: &Origin,
    tls: &Arc<ServerTls>,
    timeouts: &Timeouts,
) -> Option<snapshot::Http3> {
    serving(compiler, "", &Http3::default(), origin, (tls, timeouts), None)
}

/// Whether other proxies of the mesh use QUIC to a listener with `tls: mesh`.
pub(super) fn is_of_mesh(model: &Model, written: &model::Listener) -> bool {
    let mesh = written.tls.iter().any(|tls| matches!(tls.value, model::ServerTls::Mesh));
    let http = is_http(written.protocol);
    model.mesh.quic.is_some() && mesh && http && written.proxy_protocol.is_none() && !is_on(written)
}

/// The sessions of clients that may send early data. `None` if `early_data` is off.
fn early_sessions(
    compiler: &mut Compiler<'_>,
    listener: &str,
    settings: &Http3,
    (tls, transport): (&ServerTls, &Transport),
) -> Option<EarlySessions> {
    let wanted = settings.early_data.as_ref().filter(|wanted| wanted.value)?;
    if tls.asks_clients() {
        let message = "early data of clients with certificates is not accepted: anyone could send \
                       it again in their names";
        let help =
            "leave `early_data` out; only another listener, without `client_ca`, can have it";
        compiler.fault_with_help(&wanted.origin, message, help);
        return None;
    }
    // The limits that the client remembers must not be lower now (RFC 9000 7.4.1, RFC 9114
    // 7.2.4.2).
    let limits = format!("{transport:?} {:?}", compiler.model.settings.limits.header_bytes);
    let terms = terms_of(&[&tls.terms.to_ne_bytes(), limits.as_bytes()]);
    Some(compiler.registry.early_sessions.of(listener, terms))
}

fn serving(
    compiler: &mut Compiler<'_>,
    listener: &str,
    settings: &Http3,
    origin: &Origin,
    (tls, timeouts): (&Arc<ServerTls>, &Timeouts),
    alt_svc: Option<Box<str>>,
) -> Option<snapshot::Http3> {
    let transport = transport(compiler, settings, timeouts);
    let handshakes_max = settings.max_handshakes.as_ref();
    let handshakes_max = handshakes_max.map_or(HANDSHAKES_MAX, |max| at_least_one(compiler, max));
    let keys = compiler.registry.quic.clone();
    let early = early_sessions(compiler, listener, settings, (tls, &transport));
    let early_data = early.is_some();
    let server = match ServerQuic::new(tls.http3(early), &keys, &transport) {
        Ok(server) => server,
        Err(error) => {
            compiler.fault(origin, format!("HTTP/3 cannot be set up: {error}"));
            return None;
        }
    };
    Some(snapshot::Http3 {
        server,
        keys,
        alt_svc,
        streams_max: transport.streams_max,
        retry: match settings.retry {
            model::Retry::Auto => Retry::Auto,
            model::Retry::Always => Retry::Always,
            model::Retry::Never => Retry::Never,
        },
        handshakes_max,
        early_data,
    })
}

/// The keys that a listener for other bytes than HTTP has, for advice.
pub(super) fn keys_of_bytes(written: &model::Listener) -> &'static str {
    match written.service {
        Some(_) => "`protocol` and `service`",
        None => "`protocol`",
    }
}

/// The reason why a listener cannot serve HTTP/3, and the advice.
fn fault_of(written: &model::Listener) -> Option<(&'static str, String)> {
    let fault = |message, help: &str| Some((message, help.to_owned()));
    let http = is_http(written.protocol);
    let addressed = written.binds.iter().any(|bind| matches!(bind.value, Bind::Tcp(_)));
    match () {
        () if !http => {
            let tls = match written.tls.is_empty() {
                true => ", and add `tls: {cert: FILE, key: FILE}`",
                false => "",
            };
            let keys = keys_of_bytes(written);
            let help = format!("leave `http3` out; for HTTP/3 here, leave {keys} out{tls}");
            Some(("only a listener for HTTP serves HTTP/3", help))
        }
        () if written.tls.is_empty() => {
            fault("HTTP/3 needs TLS", "add `tls: {cert: FILE, key: FILE}`, or `tls: mesh`")
        }
        () if !addressed => fault(
            "HTTP/3 needs an address: QUIC runs over UDP",
            "add a bind such as 0.0.0.0:443, or leave `http3` out",
        ),
        () if written.proxy_protocol.is_some() => fault(
            "there is no PROXY protocol header over QUIC",
            "leave `proxy_protocol` out, or serve HTTP/3 with a listener of its own",
        ),
        () => None,
    }
}

/// The value of `alt-svc` (RFC 7838 3) for the addresses of a listener.
fn alt_svc(binds: &[Item<Bind>]) -> Box<str> {
    let mut ports: Vec<u16> = Vec::new();
    for bind in binds {
        if let Bind::Tcp(address) = bind.value
            && !ports.contains(&address.port())
        {
            ports.push(address.port());
        }
    }
    let each = ports.iter().map(|port| format!("h3=\":{port}\"; ma={ALT_SVC_AGE_S}"));
    each.collect::<Vec<_>>().join(", ").into()
}

fn transport(compiler: &mut Compiler<'_>, settings: &Http3, timeouts: &Timeouts) -> Transport {
    let default = Transport::default();
    let streams = settings.max_concurrent_streams.as_ref();
    let mut window = |written: &Option<Item<usize>>, default: u32| match written {
        None => default,
        Some(size) => match u32::try_from(size.value) {
            Ok(bytes) if bytes > 0 => bytes,
            _ => {
                let message = format!("this must be from 1 to {} bytes", u32::MAX);
                compiler.fault(&size.origin, message);
                default
            }
        },
    };
    let stream_window_bytes = window(&settings.stream_window, default.stream_window_bytes);
    let window_bytes = window(&settings.connection_window, default.window_bytes);
    Transport {
        streams_max: streams.map_or(default.streams_max, |streams| at_least_one(compiler, streams)),
        stream_window_bytes,
        window_bytes,
        // Idle connections are closed by `timeouts.keep_alive` with GOAWAY. QUIC's own timeout only
        // ends connections whose peer is gone.
        idle: default.idle.max(timeouts.keep_alive.min(IDLE_MAX)),
        migration: settings.migration.unwrap_or(default.migration),
        ..default
    }
}

/// The longest idle timeout of QUIC.
const IDLE_MAX: std::time::Duration = std::time::Duration::from_secs(600);

fn at_least_one(compiler: &mut Compiler<'_>, written: &Item<u32>) -> u32 {
    if written.value == 0 {
        let origin: &Origin = &written.origin;
        let help = "write a number from 1, or leave it out for the default";
        compiler.fault_with_help(origin, "a limit of 0 would refuse all clients", help);
    }
    written.value
}

/// Compiles HTTP/3 of a service, and the way over QUIC beside TCP. Without either, or after an
/// error, returns `None`.
pub(super) fn service(
    compiler: &mut Compiler<'_>,
    written: &model::Service,
    tls: Option<&Arc<ClientTls>>,
) -> (Option<ClientQuic>, Option<Beside>) {
    if written.protocol == ServiceProtocol::Http3 {
        return (alone(compiler, written, tls), None);
    }
    let beside = beside(compiler, written);
    if let Some(wanted) = written.alt_svc.as_ref().filter(|it| it.value)
        && beside != Some(Beside::Learned)
    {
        let message = "the endpoints of this service cannot offer HTTP/3 by `alt-svc`";
        let help = "it needs `tls: {ca: FILE}` and `protocol: auto`; else leave `alt_svc` out";
        compiler.fault_with_help(&wanted.origin, message, help);
    }
    let Some(beside) = beside else { return (None, None) };
    let client = tls.and_then(|tls| client(compiler, &written.name.origin, tls));
    let beside = client.is_some().then_some(beside);
    (client, beside)
}

/// The way over QUIC to the endpoints of a service that TCP reaches, too.
fn beside(compiler: &Compiler<'_>, written: &model::Service) -> Option<Beside> {
    let tls = &written.tls.as_ref()?.value;
    if written.send_proxy_protocol != model::SendProxyProtocol::None {
        return None;
    }
    match (written.protocol, tls) {
        (ServiceProtocol::Tcp, _) => None,
        (_, model::ClientTls::Mesh) => {
            compiler.model.mesh.quic.as_ref()?;
            Some(Beside::Mesh { port: mesh_port(compiler.model) })
        }
        // Without verification, anyone who can write a field could have the requests.
        (ServiceProtocol::Auto, model::ClientTls::Files(files)) if !files.unverified => {
            let wanted = written.alt_svc.as_ref().is_none_or(|it| it.value);
            wanted.then_some(Beside::Learned)
        }
        _ => None,
    }
}

/// The UDP port of proxies that capture the traffic of their workload. `None` if no traffic is
/// captured.
pub(super) fn mesh_port(model: &Model) -> Option<u16> {
    let mesh = &model.mesh;
    let own = || mesh.inbound.binds.first().map(|bind| bind.value.port());
    let written = mesh.quic_port.as_ref().map(|port| port.value);
    written.or_else(|| mesh.captures().then(|| own().unwrap_or(INBOUND_PORT)))
}

/// Compiles a service with `protocol: http3`.
fn alone(
    compiler: &mut Compiler<'_>,
    written: &model::Service,
    tls: Option<&Arc<ClientTls>>,
) -> Option<ClientQuic> {
    let check = written.health_check.as_ref();
    let origin = check.map_or(&written.name.origin, |check| &check.origin);
    let (message, help) = match (tls, check, written.send_proxy_protocol) {
        (None, ..) if written.tls.is_none() => {
            ("HTTP/3 needs TLS", "add `tls: {ca: FILE}`, or `tls: mesh`")
        }
        (None, ..) => return None,
        (_, Some(_), _) => (
            "an HTTP/3 service has no health checks",
            "leave `health_check` out; `outlier_detection` ejects endpoints that fail",
        ),
        (_, _, form) if form != model::SendProxyProtocol::None => {
            ("there is no PROXY protocol header over QUIC", "leave `send_proxy_protocol` out")
        }
        (Some(tls), ..) => return client(compiler, origin, tls),
    };
    compiler.fault_with_help(origin, message, help);
    None
}

fn client(compiler: &mut Compiler<'_>, origin: &Origin, tls: &ClientTls) -> Option<ClientQuic> {
    let keys = compiler.registry.quic.clone();
    let transport = Transport { streams_max: 0, ..Transport::default() };
    match ClientQuic::new(tls.http3(), &keys, &transport) {
        Ok(client) => Some(client),
        Err(error) => {
            compiler.fault(origin, format!("HTTP/3 cannot be set up: {error}"));
            None
        }
    }
}

/// Compiles the limits on HTTP/3 frames.
pub(super) fn limits(compiler: &mut Compiler<'_>, written: &model::Http3Limits) -> FloodLimits {
    let default = FloodLimits::default();
    let mut frames =
        |written: &Option<Item<u32>>, default| http2::burst(compiler, written, default);
    FloodLimits {
        window: written.window.unwrap_or(default.window),
        stream_resets: frames(&written.stream_resets, default.stream_resets),
        provoked_resets: frames(&written.provoked_resets, default.provoked_resets),
        empty_frames: frames(&written.empty_frames, default.empty_frames),
        priority_frames: frames(&written.priority_frames, default.priority_frames),
        other_frames: frames(&written.other_frames, default.other_frames),
        table_changes: frames(&written.table_changes, default.table_changes),
    }
}
