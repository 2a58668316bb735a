//! Gateway: listeners for the routes of VirtualServices that name it.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::{Context, at};
use crate::model::{Item, Listener, Place, ServerTls};
use crate::net::Bind;
use crate::sources::objects::{Fields, Object};
use crate::sources::yaml::node::Node;

/// The TLS of a server of a gateway.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Plain,
    Terminate,
    Mesh,
    Unsupported,
}

/// A port of a gateway.
pub(super) struct Opened {
    port: u16,
    hosts: Vec<String>,
    bind: SocketAddr,
    place: Place,
    tls: Vec<Item<ServerTls>>,
    redirects: Option<Place>,
}

/// All gateways, by `NAMESPACE/NAME`.
#[derive(Default)]
pub(super) struct Gateways(BTreeMap<String, Vec<Opened>>);

impl Gateways {
    /// Reads a Gateway. One whose selector does not select this workload is left out.
    pub(super) fn read(&mut self, cx: &mut Context<'_>, object: &Object) {
        let Some(mut spec) = cx.spec(object) else { return };
        let selector = spec.texts(&mut cx.reader, "selector");
        let nodes = spec.list(&mut cx.reader, "servers");
        let mut ports: Vec<Opened> = Vec::new();
        for node in nodes {
            let Some(server) = server(cx, object, node) else { continue };
            match ports.iter_mut().find(|known| known.port == server.port) {
                None => ports.push(server),
                Some(known) => {
                    known.hosts.extend(server.hosts);
                    known.tls.extend(server.tls);
                }
            }
        }
        spec.finish(&mut cx.reader);
        let selected = cx.has_labels(&selector);
        if !selected {
            let help = "write the labels of this workload into `sources.istio.labels`";
            let message = "its selector does not select this workload, so it opens no listener";
            cx.reader.warn(object.place, message, help);
        }
        let name = format!("{}/{}", object.namespace, object.name);
        self.0.insert(name, if selected { ports } else { Vec::new() });
    }

    /// The ports of the gateway `name` that serve `host`. `None` if there is no such gateway.
    pub(super) fn ports(&self, name: &str, host: &str) -> Option<Vec<u16>> {
        let ports = self.0.get(name)?;
        let serves = |opened: &&Opened| opened.hosts.iter().any(|own| fits(own, host));
        Some(ports.iter().filter(serves).map(|opened| opened.port).collect())
    }

    /// A listener for each port.
    pub(super) fn listeners(self) -> Vec<Item<Listener>> {
        let mut all = Vec::new();
        for (name, ports) in self.0 {
            for opened in ports {
                let origin = at(opened.place);
                let title = scope(&name, opened.port);
                let redirects = opened.redirects.map(at);
                let listener = Listener {
                    name: Item::new(title.clone(), origin.clone()),
                    binds: vec![Item::new(Bind::Tcp(opened.bind), origin.clone())],
                    scope: redirects.is_none().then(|| title.into()),
                    redirect_https: redirects,
                    tls: opened.tls,
                    ..Listener::default()
                };
                all.push(Item::new(listener, origin));
            }
        }
        all
    }
}

/// The scope of the routes of a port of a gateway.
pub(super) fn scope(gateway: &str, port: u16) -> String {
    format!("Gateway {gateway}:{port}")
}

/// Whether a server with the host `own` serves routes of `host`.
fn fits(own: &str, host: &str) -> bool {
    let below = |host: &str, wildcard: &str| {
        wildcard.strip_prefix('*').is_some_and(|suffix| host.ends_with(suffix))
    };
    own == "*" || own == host || below(host, own) || below(own, host)
}

fn server(cx: &mut Context<'_>, object: &Object, node: &Node) -> Option<Opened> {
    let r = &mut cx.reader;
    let mut fields = Fields::of(r, node, "a server")?;
    let mut port = fields.map(r, "port")?;
    let number = port.number::<u16>(r, "number");
    let protocols = [
        ("HTTP", true),
        ("HTTP2", true),
        ("GRPC", true),
        ("HTTPS", true),
        ("TLS", false),
        ("TCP", false),
        ("MONGO", false),
    ];
    let protocol = port.one_of(r, "protocol", &protocols);
    port.ignore("name");
    port.ignore("targetPort");
    port.finish(r);
    let bind = fields.string(r, "bind");
    fields.ignore("name");
    fields.refuse(r, "defaultEndpoint", "leave it out");
    let hosts = fields.strings(r, "hosts");
    let (tls, redirects) = match fields.map(r, "tls") {
        Some(tls) => server_tls(cx, object, tls),
        None => (Vec::new(), None),
    };
    fields.finish(&mut cx.reader);
    if let Some(protocol) = protocol.filter(|protocol| !protocol.value) {
        let help = "write a listener with `protocol: tcp` or `tls` in Ringway's own files";
        cx.reader.item(&protocol, "this protocol is not supported", help);
    }
    let number = number?;
    let address = match &bind {
        None => cx.settings.address,
        Some(bind) => bind.value.parse().unwrap_or_else(|_| {
            cx.reader.item(bind, "this is not an IP address", "write an IP address");
            cx.settings.address
        }),
    };
    let host = |host: Item<String>| {
        let bare = host.value.rsplit('/').next().unwrap_or_default();
        bare.to_ascii_lowercase()
    };
    Some(Opened {
        port: number.value,
        hosts: hosts.into_iter().map(host).collect(),
        bind: SocketAddr::new(address, number.value),
        place: node.place,
        tls,
        redirects,
    })
}

/// The certificates of a server, and the place of a redirect to https.
fn server_tls(
    cx: &mut Context<'_>,
    object: &Object,
    mut tls: Fields<'_>,
) -> (Vec<Item<ServerTls>>, Option<Place>) {
    let r = &mut cx.reader;
    let modes = [
        ("SIMPLE", Mode::Terminate),
        ("MUTUAL", Mode::Terminate),
        ("ISTIO_MUTUAL", Mode::Mesh),
        ("PASSTHROUGH", Mode::Unsupported),
        ("AUTO_PASSTHROUGH", Mode::Unsupported),
        ("OPTIONAL_MUTUAL", Mode::Terminate),
    ];
    let mode = tls.one_of(r, "mode", &modes);
    let name = tls.string(r, "credentialName");
    let redirect = tls.boolean(r, "httpsRedirect").is_some_and(|redirect| redirect.value);
    let help = "an object cannot name files of this host: write `credentialName`, and the files in \
                `certificates` of `sources.istio`";
    for name in ["serverCertificate", "privateKey", "caCertificates", "caCrl", "credentialNames"] {
        tls.refuse(r, name, help);
    }
    for name in [
        "subjectAltNames",
        "verifyCertificateSpki",
        "verifyCertificateHash",
        "minProtocolVersion",
        "maxProtocolVersion",
        "cipherSuites",
        "tlsCertificates",
    ] {
        tls.refuse(r, name, "write it in `certificates` of `sources.istio`, if it is there");
    }
    let place = tls.place;
    let redirects = redirect.then(|| tls.place_of("httpsRedirect"));
    tls.finish(r);
    let kind = mode.as_ref().map_or(Mode::Plain, |mode| mode.value);
    match kind {
        Mode::Plain => (Vec::new(), redirects),
        Mode::Mesh => (vec![Item::new(ServerTls::Mesh, at(place))], redirects),
        Mode::Unsupported => {
            let help = "write a listener with `protocol: tls` in Ringway's own files";
            r.at(place, "this mode is not supported", help);
            (Vec::new(), redirects)
        }
        Mode::Terminate => (certificate(cx, object, name, place), redirects),
    }
}

fn certificate(
    cx: &mut Context<'_>,
    object: &Object,
    name: Option<Item<String>>,
    place: Place,
) -> Vec<Item<ServerTls>> {
    let Some(name) = name else {
        cx.reader.at(place, "this server has no certificate", "write `credentialName: NAME`");
        return Vec::new();
    };
    let full = format!("{}/{}", object.namespace, name.value);
    let known = &cx.settings.certificates;
    let found = known.iter().find(|(known, _)| *known == name.value || *known == full);
    if found.is_none() {
        let message = format!("no certificate {:?} is known", name.value);
        let help = format!(
            "write in `sources.istio`: certificates: {{{}: {{cert: FILE, key: FILE}}}}",
            name.value
        );
        cx.reader.item(&name, message, help);
    }
    found.map(|(_, tls)| tls.clone()).into_iter().collect()
}
