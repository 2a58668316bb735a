//! Compiles the admin interface, and those of other proxies.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use super::sources::member;
use super::{Compiler, tls};
use crate::model::{self, AdminBind, Item, Material, Model};
use crate::net::Address;
use crate::tls::{ClientTls, ServerTls};

/// The default address of the admin interface.
const BIND: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9900);

/// The usual port of the admin interface of another proxy.
const PORT: u16 = 9900;

/// The minimum length of a token, in bytes.
const TOKEN_BYTES_MIN: usize = 16;

/// The maximum number of other proxies.
const PEERS_MAX: usize = 64;

/// The admin interface.
#[derive(Clone, Debug, Default)]
pub struct AdminPlan {
    /// Its address. `None` means no admin interface.
    pub address: Option<Address>,
    /// The token that clients must send. `None` means that they need none.
    pub token: Option<Arc<str>>,
    /// Its TLS. `None` means plain text.
    pub tls: Option<AdminTls>,
    /// The admin interfaces of other proxies.
    pub peers: Arc<[AdminPeer]>,
}

/// TLS of the admin interface.
#[derive(Clone, Debug)]
pub struct AdminTls {
    /// The certificate, and the accepted clients.
    pub tls: Arc<ServerTls>,
    /// A number that changes with the certificate, the key, the OCSP response or the accepted
    /// clients.
    pub inputs: u64,
}

impl PartialEq for AdminTls {
    fn eq(&self, other: &Self) -> bool {
        self.inputs == other.inputs
    }
}

/// The admin interface of another proxy.
#[derive(Clone, Debug)]
pub struct AdminPeer {
    /// Its name, for people.
    pub name: Arc<str>,
    /// Its host and its port.
    pub server: (String, u16),
    /// The token that it demands.
    pub token: Option<Arc<str>>,
    /// TLS to it. `None` means plain text.
    pub tls: Option<Arc<ClientTls>>,
}

/// The address of the admin interface. `None` means that there is none.
pub fn address(model: &Model) -> Option<Address> {
    match &model.settings.admin.bind {
        AdminBind::Default => Some(Address::Tcp(BIND)),
        AdminBind::Off => None,
        AdminBind::At(address) => Some(address.clone()),
    }
}

/// The address of the admin interface, if it is not a Unix socket.
pub(super) fn tcp(model: &Model) -> Option<SocketAddr> {
    match address(model)? {
        Address::Tcp(address) => Some(address),
        Address::Unix(_) => None,
    }
}

pub(super) fn plan(compiler: &mut Compiler<'_>) -> AdminPlan {
    let model = compiler.model;
    let written = &model.settings.admin;
    let address = address(model);
    let asks_clients = match written.tls.as_ref().map(|tls| &tls.value) {
        Some(model::ServerTls::Certificate(files)) => files.client_ca.is_some(),
        // It is refused below, for its own reason.
        Some(model::ServerTls::Mesh) => true,
        None => false,
    };
    let by_others = tcp(model).filter(|address| !address.ip().is_loopback());
    if let (Some(address), Some(origin)) = (by_others, &written.origin)
        && written.token.is_none()
        && !asks_clients
    {
        let message = format!(
            "other hosts reach {address}, so the admin interface needs a token or client \
             certificates"
        );
        let help = match &written.tls {
            Some(_) => {
                "add `client_ca: FILE` to `tls`, or `token: FILE`, or write \
                 `bind: 127.0.0.1:9900`"
            }
            None => {
                "add `token: FILE`, or `tls: {cert: FILE, key: FILE, client_ca: FILE}`, or write \
                 `bind: 127.0.0.1:9900`"
            }
        };
        compiler.fault_with_help(origin, message, help);
    }
    if let (Some(Address::Unix(path)), Some(tls)) = (&address, &written.tls) {
        let message = format!("unix:{} needs no TLS: nothing leaves this host", path.display());
        compiler.fault_with_help(&tls.origin, message, "leave `tls` out");
    }
    let tls = written.tls.as_ref().and_then(|tls| tls::admin(compiler, tls));
    if let (Some(token), Some(tls)) = (&written.token, &tls)
        && tls.tls.verifier.as_ref().is_some_and(|verifier| verifier.is_mandatory())
    {
        let message = "clients without a certificate do not get in, so nobody needs this token";
        let help = "leave `token` out, or write `client_auth: optional` in `tls`: then clients \
                    need a certificate or the token";
        compiler.fault_with_help(&token.origin, message, help);
    }
    let token = written.token.as_ref().and_then(|item| token(compiler, item));
    AdminPlan { address, token, tls, peers: peers(compiler) }
}

fn token<'a>(compiler: &mut Compiler<'a>, item: &'a Item<Material>) -> Option<Arc<str>> {
    let bytes = compiler.material(item)?;
    let text = std::str::from_utf8(bytes).unwrap_or_default().trim();
    let printed = text.bytes().all(|byte| byte.is_ascii_graphic());
    if text.len() < TOKEN_BYTES_MIN || !printed {
        let message = format!(
            "this is not a token: write one line of at least {TOKEN_BYTES_MIN} \
            letters and digits"
        );
        let help = "`openssl rand -hex 32` makes one";
        compiler.fault_with_help(&item.origin, message, help);
        return None;
    }
    Some(text.into())
}

/// Whether a host is surely this machine.
fn is_here(host: &str) -> bool {
    let ip = host.parse::<IpAddr>();
    ip.map_or_else(|_| host.eq_ignore_ascii_case("localhost"), |ip| ip.is_loopback())
}

fn peers(compiler: &mut Compiler<'_>) -> Arc<[AdminPeer]> {
    let written = &compiler.model.settings.admin.peers;
    if let Some(last) = written.get(PEERS_MAX) {
        let message = format!("these are {} proxies, the maximum is {PEERS_MAX}", written.len());
        let help = "name fewer here; a page for each part of the mesh can have others";
        compiler.fault_with_help(&last.name.origin, message, help);
    }
    let mut peers = Vec::new();
    for peer in written {
        if let Some((_, rest)) = peer.address.value.split_once("://") {
            let address = rest.split('/').next().unwrap_or(rest);
            let message = format!("{:?} is a URL", peer.address.value);
            let name = &peer.name.value;
            let help = format!("write `{name}: {{address: \"{address}\", tls: {{ca: FILE}}}}`");
            compiler.fault_with_help(&peer.address.origin, message, help);
            continue;
        }
        let Some(server) = member(compiler, &peer.address, Some(PORT)) else { continue };
        let token = peer.token.as_ref().and_then(|item| token(compiler, item));
        let tls = tls::service(compiler, &peer.service);
        if let Some(token) = &peer.token
            && peer.service.tls.is_none()
            && !is_here(&server.0)
        {
            let (name, to) = (&peer.name.value, &peer.address.value);
            let message =
                format!("the token goes to {to} in plain text: who reads the network can use it");
            let help = format!(
                "write `tls: {{ca: FILE}}` beside the token of {name}, with the CA of its \
                 certificate"
            );
            compiler.warn(&token.origin, message, help);
        }
        peers.push(AdminPeer { name: peer.name.value.as_str().into(), server, token, tls });
    }
    peers.into()
}
