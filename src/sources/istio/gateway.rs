//! Gateway: listeners for the routes of VirtualServices that name it.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::{Context, at};
use crate::compile::is_slip;
use crate::model::{ClientAuth, Item, Listener, Place, ServerCertificate, ServerTls};
use crate::net::Bind;
use crate::sources::objects::{Fields, Object};
use crate::sources::yaml::node::Node;

/// The TLS of a server of a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Plain,
    Simple,
    /// Clients need a certificate.
    Mutual,
    /// Clients may have a certificate.
    OptionalMutual,
    Mesh,
    Unsupported,
}

/// A protocol of a server.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Plain,
    Tls,
    Unsupported,
}

/// A host of a server.
struct ServerHost {
    /// The namespace whose VirtualServices may have the host. `None` means any.
    namespace: Option<String>,
    name: String,
}

/// A port of a gateway.
pub(super) struct Opened {
    port: u16,
    hosts: Vec<ServerHost>,
    bind: SocketAddr,
    place: Place,
    mode: Mode,
    tls: Vec<Item<ServerTls>>,
    redirects: Option<Place>,
}

/// The TLS settings of a server.
struct Secured {
    mode: Mode,
    tls: Vec<Item<ServerTls>>,
    redirects: Option<Place>,
}

/// All gateways, by `NAMESPACE/NAME`.
#[derive(Default)]
pub(super) struct Gateways(BTreeMap<String, Vec<Opened>>);

impl Gateways {
    /// Reads a Gateway. One whose selector does not select this workload is left out.
    pub(super) fn read(&mut self, cx: &mut Context<'_>, object: &Object) {
        let Some(mut spec) = cx.reader.spec(object) else { return };
        let selector = spec.texts(&mut cx.reader, "selector");
        let nodes = spec.list(&mut cx.reader, "servers");
        let mut ports: Vec<Opened> = Vec::new();
        for node in nodes {
            let Some(server) = server(cx, object, node) else { continue };
            match ports.iter_mut().find(|known| known.port == server.port) {
                None => ports.push(server),
                Some(known) => known.join(cx, server),
            }
        }
        let place = spec.place_of("selector");
        spec.finish(&mut cx.reader);
        let selected = cx.has_labels(&selector);
        if !selected {
            let pair = |(name, value): &(Item<String>, Item<String>)| {
                format!("{}: {}", name.value, value.value)
            };
            let labels = selector.iter().map(pair).collect::<Vec<_>>().join(", ");
            let help = format!(
                "if this proxy is that gateway, write in `sources.istio`: labels: {{{labels}}}"
            );
            let message = "its selector does not select this workload, so it opens no listener";
            cx.reader.warn(place, message, help);
        }
        let name = format!("{}/{}", object.namespace, object.name);
        self.0.insert(name, if selected { ports } else { Vec::new() });
    }

    /// The ports of the gateway `name` that serve `host` of a VirtualService of `namespace`, each
    /// with the more specific of both hosts. `None` if there is no such gateway.
    pub(super) fn ports(
        &self,
        name: &str,
        host: &str,
        namespace: &str,
    ) -> Option<Vec<(u16, String)>> {
        let mut served = Vec::new();
        for opened in self.0.get(name)? {
            let hosts = opened.hosts.iter();
            let of_namespace =
                hosts.filter(|own| own.namespace.as_deref().is_none_or(|it| it == namespace));
            for host in of_namespace.filter_map(|own| common(&own.name, host)) {
                let place = (opened.port, host);
                if !served.contains(&place) {
                    served.push(place);
                }
            }
        }
        Some(served)
    }

    /// The advice for `name`, which no gateway has: one of this name in another namespace, or one
    /// that is alike. Istio once accepted the name of a service, `front.ingress.svc.cluster.local`.
    pub(super) fn advice(&self, name: &str) -> String {
        let (namespace, short) = name.split_once('/').unwrap_or(("", name));
        let parts = || short.split_once('.').map(|(short, rest)| (short, rest.split('.').next()));
        let known = || self.0.keys().filter_map(|known| Some((known, known.split_once('/')?)));
        let slip = known().find(|(_, (other, it))| *other == namespace && is_slip(short, it));
        let elsewhere = || {
            known().find(|(_, (other, it))| {
                *it == short || parts().is_some_and(|parts| parts == (*it, Some(*other)))
            })
        };
        match slip.or_else(elsewhere).map(|(known, _)| known) {
            Some(known) => format!("did you mean {known:?}? the name is NAMESPACE/NAME"),
            None => "write the Gateway into a file of this source".to_owned(),
        }
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

impl Opened {
    /// Joins another server of this port. The port has one listener, so both must agree.
    fn join(&mut self, cx: &mut Context<'_>, other: Self) {
        let differ = [
            ("protocol or `tls.mode`", self.mode != other.mode),
            ("`bind`", self.bind != other.bind),
            ("`httpsRedirect`", self.redirects.is_some() != other.redirects.is_some()),
        ];
        for (field, _) in differ.into_iter().filter(|(_, differs)| *differs) {
            let line = cx.reader.file_line(self.place);
            let message = format!("another server of port {} has another {field}", self.port);
            let help = format!("write what the server at {line} has, or another port");
            cx.reader.at(other.place, message, help);
        }
        self.hosts.extend(other.hosts);
        let clients = self.tls.first().cloned();
        for mut tls in other.tls {
            if let (Some(first), ServerTls::Certificate(own)) = (&clients, &mut tls.value)
                && let ServerTls::Certificate(first) = &first.value
            {
                same_clients(first, own);
            }
            self.tls.push(tls);
        }
    }
}

/// Takes the settings for clients from `own` if they are those of the `first` certificate, which
/// apply to the whole listener. If they differ, the compiler reports them.
fn same_clients(first: &ServerCertificate, own: &mut ServerCertificate) {
    let content =
        |file: &Option<Item<crate::model::Material>>| file.as_ref().map(|file| file.value.clone());
    let is_same = content(&first.client_ca) == content(&own.client_ca)
        && content(&first.crl) == content(&own.crl);
    if is_same {
        (own.client_ca, own.client_auth, own.crl) = (None, None, None);
    }
}

/// The more specific of the host `own` of a server and `host` of a VirtualService. `None` if they
/// have nothing in common.
fn common(own: &str, host: &str) -> Option<String> {
    let below = |host: &str, wildcard: &str| {
        wildcard
            .strip_prefix('*')
            .is_some_and(|suffix| host.len() > suffix.len() && host.ends_with(suffix))
    };
    if own == host || below(host, own) {
        return Some(host.to_owned());
    }
    below(own, host).then(|| own.to_owned())
}

/// A host of a server: `HOST`, or `NAMESPACE/HOST`, where `.` is the namespace of the gateway and
/// `*` is any.
fn server_host(written: &str, gateway_namespace: &str) -> ServerHost {
    let (namespace, name) = written.split_once('/').unwrap_or(("*", written));
    let namespace = match namespace {
        "*" => None,
        "." => Some(gateway_namespace.to_owned()),
        named => Some(named.to_owned()),
    };
    ServerHost { namespace, name: name.to_ascii_lowercase() }
}

fn server(cx: &mut Context<'_>, object: &Object, node: &Node) -> Option<Opened> {
    let r = &mut cx.reader;
    let mut fields = Fields::of(r, node, "a server")?;
    let mut port = fields.map(r, "port")?;
    let number = port.number::<u16>(r, "number");
    let protocols = [
        ("HTTP", Protocol::Plain),
        ("HTTP2", Protocol::Plain),
        ("GRPC", Protocol::Plain),
        ("HTTPS", Protocol::Tls),
        ("TLS", Protocol::Unsupported),
        ("TCP", Protocol::Unsupported),
        ("MONGO", Protocol::Unsupported),
    ];
    let protocol = port.one_of(r, "protocol", &protocols);
    if protocol.is_none() && port.get("protocol").is_none() {
        r.at(port.place, "this port has no protocol", "write `protocol: HTTP` or HTTPS");
    }
    port.ignore("name");
    port.ignore("targetPort");
    port.finish(r);
    let bind = fields.string(r, "bind");
    fields.ignore("name");
    fields.refuse(r, "defaultEndpoint", "leave it out");
    let hosts = fields.strings(r, "hosts");
    if hosts.is_empty() {
        r.at(node.place, "this server has no hosts", "write `hosts: [\"*\"]` for all hosts");
    }
    let secured = match fields.map(r, "tls") {
        Some(tls) => server_tls(cx, object, tls),
        None => Some(Secured { mode: Mode::Plain, tls: Vec::new(), redirects: None }),
    };
    fields.finish(&mut cx.reader);
    if let (Some(protocol), Some(secured)) = (&protocol, &secured) {
        agree(cx, protocol, secured, node.place);
    }
    let Secured { mode, tls, redirects } = secured?;
    let number = number?;
    let address = match &bind {
        None => cx.settings.address,
        Some(bind) => bind.value.parse().unwrap_or_else(|_| {
            cx.reader.item(bind, "this is not an IP address", "write an IP address");
            cx.settings.address
        }),
    };
    let host = |host: Item<String>| server_host(&host.value, &object.namespace);
    Some(Opened {
        port: number.value,
        hosts: hosts.into_iter().map(host).collect(),
        bind: SocketAddr::new(address, number.value),
        place: node.place,
        mode,
        tls,
        redirects,
    })
}

/// Reports a protocol without its TLS, and TLS without its protocol: the port would be open to
/// plain text, or to nobody.
fn agree(cx: &mut Context<'_>, protocol: &Item<Protocol>, secured: &Secured, place: Place) {
    let r = &mut cx.reader;
    match (protocol.value, secured.mode) {
        (Protocol::Unsupported, _) => {
            let help = "write a listener with `protocol: tcp` or `tls` in Ringway's own files";
            r.item(protocol, "this protocol is not supported", help);
        }
        (Protocol::Tls, Mode::Plain) => {
            let help = "write `tls: {mode: SIMPLE, credentialName: NAME}`";
            r.at(place, "a server of HTTPS needs `tls.mode`", help);
        }
        (Protocol::Plain, Mode::Plain) | (_, Mode::Unsupported) => {}
        (Protocol::Plain, _) => {
            let help = "write `protocol: HTTPS`";
            r.item(protocol, "this protocol has no TLS, but the server has `tls.mode`", help);
        }
        (Protocol::Tls, _) => {
            if let Some(redirect) = secured.redirects {
                let help = "write it in the server of HTTP";
                r.at(redirect, "a server of HTTPS has nothing to redirect", help);
            }
        }
    }
}

/// The mode and certificates of a server, and the place of a redirect to https.
fn server_tls(cx: &mut Context<'_>, object: &Object, mut tls: Fields<'_>) -> Option<Secured> {
    let r = &mut cx.reader;
    let modes = [
        ("SIMPLE", Mode::Simple),
        ("MUTUAL", Mode::Mutual),
        ("ISTIO_MUTUAL", Mode::Mesh),
        ("PASSTHROUGH", Mode::Unsupported),
        ("AUTO_PASSTHROUGH", Mode::Unsupported),
        ("OPTIONAL_MUTUAL", Mode::OptionalMutual),
    ];
    let mode = tls.one_of(r, "mode", &modes);
    // An unknown word is reported, and must not become a server without TLS.
    let is_wrong = mode.is_none() && tls.get("mode").is_some();
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
    if is_wrong {
        return None;
    }
    let mode = mode.map_or(Mode::Plain, |mode| mode.value);
    let certificates = match mode {
        Mode::Plain => {
            if let Some(name) = &name {
                let help = "write `mode: SIMPLE` or MUTUAL, and `protocol: HTTPS`";
                r.item(name, "a server without `tls.mode` uses no certificate", help);
            }
            Vec::new()
        }
        Mode::Mesh => vec![Item::new(ServerTls::Mesh, at(place))],
        Mode::Unsupported => {
            let help = "write a listener with `protocol: tls` in Ringway's own files";
            r.at(place, "this mode is not supported", help);
            Vec::new()
        }
        Mode::Simple => certificate(cx, object, name, place),
        Mode::Mutual => asking(cx, object, name, (place, ClientAuth::Require)),
        Mode::OptionalMutual => asking(cx, object, name, (place, ClientAuth::Optional)),
    };
    Some(Secured { mode, tls: certificates, redirects })
}

/// The certificate of a server that asks clients for theirs.
fn asking(
    cx: &mut Context<'_>,
    object: &Object,
    name: Option<Item<String>>,
    (place, auth): (Place, ClientAuth),
) -> Vec<Item<ServerTls>> {
    let title = name.as_ref().map_or_else(String::new, |name| name.value.clone());
    let mut found = certificate(cx, object, name, place);
    for tls in &mut found {
        let ServerTls::Certificate(files) = &mut tls.value else { continue };
        if files.client_ca.is_none() {
            let message = format!(
                "the certificate {title:?} has no CA of clients, and so no client \
                                   could be verified"
            );
            let help = format!(
                "write in `sources.istio`: certificates: {{{title}: {{cert: FILE, key: FILE, \
                 client_ca: FILE}}}}"
            );
            cx.reader.at(place, message, help);
        }
        files.client_auth = Some(Item::new(auth, at(place)));
    }
    found
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
    let named = |wanted: &str| known.iter().find(|(known, _)| known == wanted);
    let found = named(&full).or_else(|| named(&name.value));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_more_specific_host() {
        for (server, service, expected) in [
            ("*", "a.example.com", Some("a.example.com")),
            ("a.example.com", "*", Some("a.example.com")),
            ("*", "*", Some("*")),
            ("a.example.com", "a.example.com", Some("a.example.com")),
            ("a.example.com", "b.example.com", None),
            ("*.example.com", "a.example.com", Some("a.example.com")),
            ("a.example.com", "*.example.com", Some("a.example.com")),
            ("*.example.com", "*.b.example.com", Some("*.b.example.com")),
            ("*.example.com", "example.com", None),
        ] {
            assert_eq!(common(server, service).as_deref(), expected, "{server} {service}");
        }
    }
}
