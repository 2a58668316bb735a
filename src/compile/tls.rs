//! Compiles TLS: from certificates and keys to handshake settings.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use webpki::EndEntityCert;

mod alone;
mod roots;
pub(super) mod workload;

pub use self::alone::{check_certificate, check_roots};
pub(super) use self::roots::authorities;
use self::roots::{bundle, of_files, revocation_lists};
use super::pem::Pem;
use super::{AdminTls, Compiler, Validity};
use crate::identity::SpiffeId;
use crate::model::{
    self, ClientFiles, Endpoints, Identity, Item, ListenerProtocol, Material, Mtls, Origin,
    ServerCertificate, ServiceProtocol, TlsVersion,
};
use crate::net::Bind;
use crate::tls::{
    CertificateInfo, CertificateTable, ClientAuth, ClientTls, Expected, Mode, PROVIDER,
    PeerVerifier, ServerParameters, ServerTls, Trust, Versions, spiffe_id, terms_of,
};

/// The advice if a setting needs an identity of this workload.
pub(super) const IDENTITY_HELP: &str = "write in `mesh`: identity: {ca: DIR, id: spiffe://...}; \
    with certificates from elsewhere, identity: {cert: FILE, key: FILE, roots: FILE}";

/// The ALPN protocols of HTTP/1.1 listeners and services.
const ALPN_HTTP: &[&[u8]] = &[b"http/1.1"];

/// The ALPN protocols if the client may choose.
const ALPN_AUTO: &[&[u8]] = &[b"h2", b"http/1.1"];

/// The ALPN protocols of captured connections. HTTP/1.1 is preferred: HTTP/2 is forwarded as opaque
/// bytes, unless its service is known to support HTTP/2.
const ALPN_CAPTURED: &[&[u8]] = &[b"http/1.1", b"h2"];
/// The ALPN protocols if only HTTP/2 or HTTP/3 is possible.
const ALPN_HTTP2: &[&[u8]] = &[b"h2"];
const ALPN_HTTP3: &[&[u8]] = &[b"h3"];

/// The default trust domain.
const TRUST_DOMAIN: &str = "cluster.local";

/// The identity of this workload, and the roots that it trusts.
#[derive(Clone)]
pub(super) struct MeshIdentity {
    own: Arc<CertifiedKey>,
    trust: Arc<Trust>,
    accepts: Accepts,
}

impl MeshIdentity {
    /// The SPIFFE ID. `None` if the certificate has none.
    pub(super) fn id(&self) -> Option<SpiffeId> {
        self.own.cert.first().and_then(spiffe_id)
    }
}

/// The inputs of peer verification, as bytes. A reload compares them to detect a change.
#[derive(Clone, Default)]
struct Accepts {
    /// The roots, and whether peers are verified with them.
    trusted: Vec<u8>,
    /// The revocation lists. A changed list closes only the connections whose certificates it
    /// revokes.
    revoked: Vec<u8>,
}

/// The identity in `mesh`. Returns `None` if there is none, or after an error.
pub(super) fn mesh(compiler: &mut Compiler<'_>) -> Option<MeshIdentity> {
    let mesh = &compiler.model.mesh;
    let item = mesh.identity.as_ref()?;
    let (cert, key, roots) = match &item.value {
        Identity::Workload { .. } => return workload::identity(compiler, item),
        Identity::Given { cert, key, roots } | Identity::Issued { cert, key, roots } => {
            (cert, key, roots)
        }
        Identity::Incomplete => {
            let help = "write {ca: DIR, id: spiffe://...}, {cert: FILE, key: FILE, roots: FILE}, \
                        or {spiffe: \"unix:SOCKET\"}";
            let message = "an identity comes from a CA, from three files, or from a SPIFFE \
                           Workload API";
            compiler.fault_with_help(&item.origin, message, help);
            return None;
        }
    };
    let own = certified_key(compiler, "mesh identity", cert, key, None);
    let bytes = compiler.material(roots)?;
    let domain = mesh.trust_domain.as_ref().map_or(TRUST_DOMAIN, |domain| domain.value.as_str());
    let origin = match item.value {
        Identity::Issued { .. } => &item.origin,
        _ => &roots.origin,
    };
    let mut bundles = vec![bundle(compiler, origin, bytes, Some(domain))?];
    let mut accepts = Accepts { trusted: bytes.to_vec(), revoked: Vec::new() };
    let crls = of_files(compiler, &mut bundles, &mut accepts)?;
    let own = own?;
    let proven = own.cert.first().and_then(spiffe_id);
    if proven.as_ref().is_none_or(|id| id.trust_domain() != domain) {
        let found = proven.as_ref().map_or("none", SpiffeId::as_str);
        let message = format!("the certificate has no SPIFFE ID in {domain} (it has: {found})");
        let help = match &proven {
            Some(_) => "set mesh.trust_domain to the domain of the certificate",
            None => "a mesh needs certificates with a SPIFFE ID: `ringway ca issue` makes them",
        };
        compiler.fault_with_help(&item.origin, message, help);
    }
    Some(MeshIdentity { own, trust: Arc::new(Trust { bundles, crls }), accepts })
}

/// Compiles TLS of a listener. Returns `None` for plain text.
pub(super) fn listener<'a>(
    compiler: &mut Compiler<'a>,
    written: &'a model::Listener,
    binds: &[Bind],
) -> Option<Arc<ServerTls>> {
    let name = written.name.value.as_str();
    let first = written.tls.first()?;
    let mut table = CertificateTable::default();
    let (mut clients, mut versions, mut mode) = (ClientAuth::None, Versions::From12, Mode::Strict);
    let mut accepts = Accepts::default();
    for tls in &written.tls {
        match &tls.value {
            model::ServerTls::Certificate(files) => {
                certificate(compiler, &format!("listener {name}"), &mut table, files);
                if std::ptr::eq(tls, first) {
                    clients = client_auth(compiler, files, &mut accepts)?;
                    versions = min_version(files);
                } else {
                    only_first(compiler, files);
                }
            }
            model::ServerTls::Mesh if written.tls.len() == 1 => {
                mode = mesh_mode(compiler, &tls.origin, binds)?;
                let mesh = compiler.mesh_identity(&tls.origin)?;
                table.add(&mesh.own, &[]);
                let expected = Expected::Spiffe(Vec::new());
                let verifier = PeerVerifier::new(mesh.trust, expected, true);
                clients = ClientAuth::Asked(Arc::new(verifier));
                accepts = mesh.accepts;
            }
            model::ServerTls::Mesh => {
                let help = "write {cert: FILE, key: FILE}, a list of those, or `mesh` alone";
                compiler.fault_with_help(
                    &tls.origin,
                    "`mesh` cannot be combined with certificates",
                    help,
                );
            }
        }
    }
    if written.known_names_only {
        table.keep_to_names();
    }
    let alpn = match written.protocol {
        ListenerProtocol::Tcp
        | ListenerProtocol::Tls
        | ListenerProtocol::Quic
        | ListenerProtocol::Http3 => &[],
        ListenerProtocol::Auto => ALPN_AUTO,
        ListenerProtocol::Http1 => ALPN_HTTP,
        ListenerProtocol::Http2 => ALPN_HTTP2,
    };
    let server = Server { certificates: table, clients, versions, alpn, mode, accepts };
    server_tls(compiler, name, &first.origin, server)
}

/// Compiles TLS of the admin interface.
pub(super) fn admin<'a>(
    compiler: &mut Compiler<'a>,
    written: &'a Item<model::ServerTls>,
) -> Option<AdminTls> {
    let name = "the admin interface";
    let model::ServerTls::Certificate(files) = &written.value else {
        let help =
            "write `tls: {cert: FILE, key: FILE, client_ca: FILE}`, with the CA of operators";
        let message = "`mesh` would let every workload of the mesh read these pages";
        compiler.fault_with_help(&written.origin, message, help);
        return None;
    };
    let mut certificates = CertificateTable::default();
    certificate(compiler, name, &mut certificates, files);
    let mut accepts = Accepts::default();
    let clients = client_auth(compiler, files, &mut accepts)?;
    let own = [compiler.material(&files.cert)?, compiler.material(&files.key)?];
    let (versions, mode) = (min_version(files), Mode::Strict);
    let more = format!("{versions:?} {:?}", files.send_ca_names);
    let ocsp = files.ocsp.as_ref().and_then(|file| compiler.material(file));
    let inputs = terms_of(&[
        own[0],
        own[1],
        ocsp.unwrap_or_default(),
        &accepts.trusted,
        &accepts.revoked,
        more.as_bytes(),
    ]);
    let server = Server { certificates, clients, versions, alpn: ALPN_HTTP, mode, accepts };
    let tls = server_tls(compiler, name, &written.origin, server)?;
    Some(AdminTls { tls, inputs })
}

/// Compiles TLS of the listener for captured inbound connections. Its mode is permissive. Returns
/// `None` if the workload has no identity.
pub(super) fn captured(compiler: &mut Compiler<'_>, name: &str) -> Option<Arc<ServerTls>> {
    let origin = &compiler.model.mesh.identity.as_ref()?.origin;
    let mesh = compiler.mesh_identity(origin)?;
    let mut certificates = CertificateTable::default();
    certificates.add(&mesh.own, &[]);
    let verifier = PeerVerifier::new(mesh.trust, Expected::Spiffe(Vec::new()), true);
    let server = Server {
        certificates,
        clients: ClientAuth::Asked(Arc::new(verifier)),
        versions: Versions::From12,
        alpn: ALPN_CAPTURED,
        mode: Mode::Permissive,
        accepts: mesh.accepts,
    };
    server_tls(compiler, name, origin, server)
}

/// The TLS settings of a listener. Session tickets are added later.
struct Server {
    certificates: CertificateTable,
    clients: ClientAuth,
    versions: Versions,
    alpn: &'static [&'static [u8]],
    mode: Mode,
    accepts: Accepts,
}

fn server_tls(
    compiler: &mut Compiler<'_>,
    name: &str,
    origin: &Origin,
    server: Server,
) -> Option<Arc<ServerTls>> {
    let Server { certificates, clients, versions, alpn, mode, accepts } = server;
    let terms = terms_of(&[&accepts.trusted, &[mode as u8]]);
    // A resumed session is not checked against the revocation lists. So changed lists end all
    // sessions.
    let ticket_terms = terms_of(&[&terms.to_ne_bytes(), &accepts.revoked]);
    let tickets = match compiler.registry.tickets.of(name, ticket_terms) {
        Ok(tickets) => tickets,
        Err(error) => {
            compiler.fault(origin, format!("no keys for session tickets: {error}"));
            return None;
        }
    };
    let parameters =
        ServerParameters { certificates, clients, versions, alpn, tickets, terms, mode };
    match ServerTls::new(parameters) {
        Ok(tls) => Some(Arc::new(tls)),
        Err(error) => {
            compiler.fault(origin, format!("TLS cannot be set up: {error}"));
            None
        }
    }
}

/// The mutual TLS mode that `mesh.inbound` requires on the port of a listener. Returns `None` for
/// plain text.
fn mesh_mode(compiler: &mut Compiler<'_>, origin: &Origin, binds: &[Bind]) -> Option<Mode> {
    let inbound = &compiler.model.mesh.inbound;
    let of_port = |port: u16| {
        let named = inbound.port_mtls.iter().find(|(number, _)| *number == port);
        let mtls = named.map(|(_, mtls)| mtls).or(inbound.mtls.as_ref());
        mtls.map_or_else(Mtls::default, |mtls| mtls.value)
    };
    let mut wanted: Vec<Mtls> = binds
        .iter()
        .filter_map(|bind| match bind {
            Bind::Tcp(address) => Some(of_port(address.port())),
            Bind::Udp(_) | Bind::Quic(_) | Bind::Passed(_) | Bind::Unix(_) | Bind::Systemd(_) => {
                None
            }
        })
        .collect();
    wanted.dedup();
    match wanted[..] {
        [] | [Mtls::Permissive] => Some(Mode::Permissive),
        [Mtls::Strict] => Some(Mode::Strict),
        [Mtls::Disable] => None,
        _ => {
            let message = "mesh.inbound.ports has different modes for the binds of this listener";
            compiler.fault_with_help(origin, message, "use one listener for each bind");
            None
        }
    }
}

/// Compiles TLS to the endpoints of a service. Returns `None` for plain text.
pub(super) fn service<'a>(
    compiler: &mut Compiler<'a>,
    written: &'a model::Service,
) -> Option<Arc<ClientTls>> {
    let tls = written.tls.as_ref()?;
    let mesh = matches!(tls.value, model::ClientTls::Mesh);
    if let Some(identity) = written.identities.first()
        && !mesh
    {
        let help = "add `tls: mesh`; a CA file checks the name in `sni`";
        let message = "`identity` is for services of the mesh";
        compiler.fault_with_help(&identity.origin, message, help);
    }
    let alpn = match written.protocol {
        ServiceProtocol::Tcp => &[],
        ServiceProtocol::Auto => ALPN_AUTO,
        ServiceProtocol::Http1 => ALPN_HTTP,
        ServiceProtocol::Http2 | ServiceProtocol::Grpc => ALPN_HTTP2,
        ServiceProtocol::Http3 => ALPN_HTTP3,
    };
    let mut accepts = Vec::new();
    let (verifier, own, server_name) = match &tls.value {
        model::ClientTls::Mesh => {
            let allowed = identities(compiler, &written.identities);
            let mesh = compiler.mesh_identity(&tls.origin)?;
            accepts.extend(allowed.iter().flat_map(|id| id.as_str().bytes()));
            accepts.extend(mesh.accepts.trusted.iter().chain(&mesh.accepts.revoked));
            let verifier = PeerVerifier::new(mesh.trust, Expected::Spiffe(allowed), true);
            (verifier, Some(mesh.own), None)
        }
        model::ClientTls::Files(files) => {
            for file in files.ca.iter().chain(&files.crl) {
                accepts.extend_from_slice(compiler.material(file)?);
            }
            client_files(compiler, &tls.origin, files, written)?
        }
    };
    if let Some(name) = &server_name {
        accepts.extend_from_slice(name.to_str().as_bytes());
    }
    let own_chain = own.iter().flat_map(|own| &own.cert);
    let chain: Vec<u8> = own_chain.flat_map(|der| der.iter().copied()).collect();
    let verified = [u8::from(verifier.accepts_anyone())];
    let inputs = terms_of(&[&accepts, &chain, &verified, &alpn.concat()]);
    // If the settings have not changed, keep their TLS sessions with the endpoints.
    if let Some(known) = compiler.registry.client_tls(&written.name.value, inputs) {
        return Some(known);
    }
    match ClientTls::new(verifier, own, server_name, (terms_of(&[&accepts]), inputs), alpn) {
        Ok(tls) => {
            let tls = Arc::new(tls);
            compiler.registry.keep_client_tls(&written.name.value, &tls);
            Some(tls)
        }
        Err(error) => {
            compiler.fault(&tls.origin, format!("TLS cannot be set up: {error}"));
            None
        }
    }
}

type ClientParts = (PeerVerifier, Option<Arc<CertifiedKey>>, Option<ServerName<'static>>);

fn client_files<'a>(
    compiler: &mut Compiler<'a>,
    origin: &'a Origin,
    files: &'a ClientFiles,
    service: &'a model::Service,
) -> Option<ClientParts> {
    let own = match (&files.cert, &files.key) {
        (Some(cert), Some(key)) => {
            let owner = format!("service {}", service.name.value);
            Some(certified_key(compiler, &owner, cert, key, None)?)
        }
        (None, None) => None,
        (Some(one), None) | (None, Some(one)) => {
            compiler.fault(&one.origin, "`cert` and `key` go together");
            return None;
        }
    };
    let name = match (&files.sni, &service.endpoints) {
        (Some(sni), _) => Some((&sni.origin, sni.value.as_str())),
        (None, Some(Endpoints::Name(name))) => {
            name.value.address.rsplit_once(':').map(|(host, _)| (origin, host))
        }
        _ => None,
    };
    let name = match name.map(|(at, name)| (at, ServerName::try_from(name.to_owned()))) {
        Some((_, Ok(name))) => Some(name),
        Some((at, Err(_))) => {
            compiler.fault(at, "`sni` is neither a DNS name nor an IP address");
            return None;
        }
        None => None,
    };
    let (trust, expected) = match (&files.ca, files.unverified) {
        (None, true) => (Trust::default(), Expected::Unverified),
        (Some(ca), false) => {
            let bundles = authorities(compiler, ca)?;
            let crls = revocation_lists(compiler, files.crl.as_ref());
            (Trust { bundles, crls }, Expected::Name)
        }
        (None, false) => {
            let help = "add `ca: FILE`; for public CAs on Debian, use \
                        /etc/ssl/certs/ca-certificates.crt";
            compiler.fault_with_help(origin, "no CA is set to verify the endpoints", help);
            return None;
        }
        (Some(ca), true) => {
            compiler.fault(&ca.origin, "`ca` means nothing with `verify: none`");
            return None;
        }
    };
    Some((PeerVerifier::new(Arc::new(trust), expected, true), own, name))
}

fn identities(compiler: &mut Compiler<'_>, written: &[Item<String>]) -> Vec<SpiffeId> {
    let mut ids = Vec::new();
    for id in written {
        match SpiffeId::parse(&id.value) {
            Ok(id) => ids.push(id),
            Err(error) => {
                compiler.fault(&id.origin, format!("{:?} is not a SPIFFE ID: {error}", id.value));
            }
        }
    }
    ids
}

/// Adds the certificate in `files` to `table`.
fn certificate<'a>(
    compiler: &mut Compiler<'a>,
    owner: &str,
    table: &mut CertificateTable,
    files: &'a ServerCertificate,
) {
    let ocsp = files.ocsp.as_ref().and_then(|file| Some(compiler.material(file)?.to_vec()));
    let Some(certified) = certified_key(compiler, owner, &files.cert, &files.key, ocsp) else {
        return;
    };
    let mut names: Vec<String> = files.names.clone();
    if names.is_empty()
        && let Some(parsed) = certified.cert.first().map(EndEntityCert::try_from)
        && let Ok(parsed) = parsed
    {
        names = parsed.valid_dns_names().map(ToOwned::to_owned).collect();
    }
    table.add(&certified, &names);
}

fn client_auth<'a>(
    compiler: &mut Compiler<'a>,
    files: &'a ServerCertificate,
    accepts: &mut Accepts,
) -> Option<ClientAuth> {
    let Some(ca) = &files.client_ca else {
        if let Some(auth) = &files.client_auth {
            let help = "add `client_ca: FILE`, with the CAs of the clients";
            compiler.fault_with_help(&auth.origin, "`client_auth` needs `client_ca`", help);
        }
        if let Some(told) = &files.send_ca_names {
            let help = "add `client_ca: FILE`, with the CAs of the clients";
            compiler.fault_with_help(&told.origin, "`send_ca_names` needs `client_ca`", help);
        }
        return Some(ClientAuth::None);
    };
    let bundles = authorities(compiler, ca)?;
    let crls = revocation_lists(compiler, files.crl.as_ref());
    let mandatory =
        files.client_auth.as_ref().is_none_or(|auth| auth.value == model::ClientAuth::Require);
    accepts.trusted.extend_from_slice(compiler.material(ca)?);
    accepts.trusted.push(u8::from(mandatory));
    if let Some(file) = &files.crl {
        accepts.revoked.extend_from_slice(compiler.material(file)?);
    }
    let trust = Arc::new(Trust { bundles, crls });
    let verifier = PeerVerifier::new(trust, Expected::Anyone, mandatory);
    let told = files.send_ca_names.as_ref().is_none_or(|told| told.value);
    let verifier = if told { verifier.naming_cas() } else { verifier };
    Some(ClientAuth::Asked(Arc::new(verifier)))
}

fn min_version(files: &ServerCertificate) -> Versions {
    match files.min_version.as_ref().map(|version| version.value) {
        None | Some(TlsVersion::Tls12) => Versions::From12,
        Some(TlsVersion::Tls13) => Versions::Only13,
    }
}

/// Reports settings of the whole listener on a certificate that is not the first one. TLS needs
/// these settings before it selects a certificate.
fn only_first(compiler: &mut Compiler<'_>, files: &ServerCertificate) {
    let origins = [
        files.client_ca.as_ref().map(|file| &file.origin),
        files.crl.as_ref().map(|file| &file.origin),
        files.client_auth.as_ref().map(|auth| &auth.origin),
        files.min_version.as_ref().map(|version| &version.origin),
        files.send_ca_names.as_ref().map(|told| &told.origin),
    ];
    for origin in origins.into_iter().flatten() {
        let message = "this applies to the whole listener: write it on the first certificate";
        compiler.fault(origin, message);
    }
}

impl<'a> Compiler<'a> {
    fn mesh_identity(&mut self, origin: &Origin) -> Option<MeshIdentity> {
        if self.model.mesh.identity.is_none() {
            self.fault_with_help(origin, "this workload has no identity", IDENTITY_HELP);
        }
        self.mesh.clone()
    }

    /// The certificates of a PEM file, at least one.
    fn certificates(&mut self, file: &'a Item<Material>) -> Option<Vec<CertificateDer<'static>>> {
        let bytes = self.material(file)?;
        self.certificates_in(&file.origin, bytes, false)
    }

    fn certificates_in(
        &mut self,
        origin: &Origin,
        bytes: &[u8],
        roots: bool,
    ) -> Option<Vec<CertificateDer<'static>>> {
        match CertificateDer::pem_slice_iter(bytes).collect::<Result<Vec<_>, _>>() {
            Ok(list) if !list.is_empty() => {
                let each = list.iter().filter_map(validity).collect();
                self.validity.push(Validity { origin: origin.clone(), each, roots });
                return Some(list);
            }
            Ok(_) => {
                let found = Pem::of(bytes);
                self.fault_with_help(origin, found.instead("certificate"), found.help());
            }
            Err(error) => self.fault(origin, format!("this file is not valid PEM: {error}")),
        }
        None
    }
}

/// The validity period of a certificate: its first and last moment, in Unix seconds.
fn validity(certificate: &CertificateDer<'_>) -> Option<(i64, i64)> {
    let info = CertificateInfo::read("", std::slice::from_ref(certificate))?;
    Some((info.not_before_unix_s, info.not_after_unix_s))
}

/// Reads a certificate and its key. Reports an error if they do not match.
fn certified_key<'a>(
    compiler: &mut Compiler<'a>,
    owner: &str,
    cert: &'a Item<Material>,
    key: &'a Item<Material>,
    ocsp: Option<Vec<u8>>,
) -> Option<Arc<CertifiedKey>> {
    if let (Ok(cert_bytes), Ok(key_bytes)) = (cert.value.bytes(), key.value.bytes())
        && (Pem::of(cert_bytes), Pem::of(key_bytes)) == (Pem::Key, Pem::Certificate)
    {
        let message = "the files of `cert` and `key` are swapped";
        compiler.fault_with_help(&cert.origin, message, "`cert` is the one with CERTIFICATE in it");
        return None;
    }
    let chain = compiler.certificates(cert);
    let bytes = compiler.material(key);
    let (chain, bytes, origins) = (chain?, bytes?, [&cert.origin, &key.origin]);
    let Ok(private) = PrivateKeyDer::from_pem_slice(bytes) else {
        let found = Pem::of(bytes);
        compiler.fault_with_help(&key.origin, found.instead("private key"), found.help());
        return None;
    };
    certify(compiler, owner, origins, chain, private, ocsp)
}

/// Combines a certificate and its key for use by rustls.
fn certify(
    compiler: &mut Compiler<'_>,
    owner: &str,
    origins: [&Origin; 2],
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    ocsp: Option<Vec<u8>>,
) -> Option<Arc<CertifiedKey>> {
    match CertifiedKey::from_der(chain, key, &PROVIDER) {
        Ok(mut certified) => {
            certified.ocsp = ocsp;
            compiler.certificates.extend(CertificateInfo::read(owner, &certified.cert));
            Some(Arc::new(certified))
        }
        Err(rustls::Error::InconsistentKeys(_)) => {
            let message = "this key does not belong to the certificate";
            let help = "name the key that the certificate was made with; \
                if the file has several certificates, that of this host is the first";
            compiler.fault_with_help(origins[1], message, help);
            None
        }
        Err(error) => {
            compiler.fault(origins[0], format!("the certificate cannot be used: {error}"));
            None
        }
    }
}
