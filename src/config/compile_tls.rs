//! Certificates, keys and whom they are for: from files to what handshakes use.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use webpki::{CertRevocationList, EndEntityCert, OwnedCertRevocationList};

use super::compile::Compiler;
use super::diagnostic::Place;
use super::file;
use super::file_mesh::Mtls;
use super::file_tls::{ClientAuth as Auth, ClientFiles, Identity, ListenerTls, ServerFiles};
use super::file_tls::{ServiceTls, Verify};
use super::values::Placed;
use crate::ca;
use crate::identity::SpiffeId;
use crate::net::Bind;
use crate::tls::{
    Bundle, CertificateInfo, CertificateTable, ClientAuth, ClientTls, Expected, Mode, PROVIDER,
    PeerVerifier, ServerParameters, ServerTls, Trust, Versions, spiffe_id, terms_of,
};

/// What is spoken inside TLS on HTTP listeners and to HTTP services.
const ALPN_HTTP: &[&[u8]] = &[b"http/1.1"];

/// The same where the client may choose.
const ALPN_AUTO: &[&[u8]] = &[b"h2", b"http/1.1"];

/// The same for captured connections. HTTP/2 goes on as it comes, so it is not asked for.
const ALPN_CAPTURED: &[&[u8]] = &[b"http/1.1", b"h2"];
/// HTTP/2 alone.
const ALPN_HTTP2: &[&[u8]] = &[b"h2"];

/// Who this workload is, and whom it trusts.
#[derive(Clone)]
pub(super) struct MeshIdentity {
    own: Arc<CertifiedKey>,
    trust: Arc<Trust>,
    accepts: Accepts,
}

impl MeshIdentity {
    /// The SPIFFE ID.
    pub(super) fn id(&self) -> Option<SpiffeId> {
        self.own.cert.first().and_then(spiffe_id)
    }
}

/// What decides whom a peer is accepted as, byte for byte: changes of it are noticed.
#[derive(Clone, Default)]
struct Accepts {
    /// Roots, and whether they matter.
    trusted: Vec<u8>,
    /// Revocation lists. Connections of those that they name are cut; others live on.
    revoked: Vec<u8>,
}

/// The identity in `mesh`, if there is one.
pub(super) fn mesh(compiler: &mut Compiler<'_>) -> Option<MeshIdentity> {
    let mesh = &compiler.loaded.config.mesh;
    let written = mesh.identity.as_ref()?;
    let identity = &written.value;
    let (own, roots) = match (&identity.cert, &identity.key, &identity.roots) {
        (Some(cert), Some(key), Some(roots)) if identity.ca.is_none() => {
            (certified_key(compiler, "mesh identity", cert, key, None), compiler.material(roots)?)
        }
        (None, None, None) if identity.ca.is_some() && identity.id.is_some() => {
            issued_identity(compiler, identity)?
        }
        _ => {
            let help = "write {ca: DIR, id: spiffe://...}, or {cert: FILE, key: FILE, roots: FILE}";
            let message = "an identity is from a CA or from files, all of it";
            compiler.mistake_with_help(written.place, message, help);
            return None;
        }
    };
    let domain = trust_domain(compiler);
    let place = identity.roots.as_ref().map_or(written.place, |roots| roots.place);
    let mut bundles = vec![bundle(compiler, place, roots, Some(&domain))?];
    let mut accepts = Accepts { trusted: roots.to_vec(), revoked: Vec::new() };
    for (domain, file) in &mesh.trust_bundles.0 {
        let bytes = compiler.material(file)?;
        bundles.extend(bundle(compiler, file.place, bytes, Some(&domain.value)));
        accepts.trusted.extend_from_slice(bytes);
    }
    let crls = revocation_lists(compiler, mesh.crl.as_ref());
    if let Some(file) = &mesh.crl {
        accepts.revoked.extend_from_slice(compiler.material(file)?);
    }
    let own = own?;
    let proven = own.cert.first().and_then(spiffe_id);
    if proven.as_ref().is_none_or(|id| id.trust_domain() != domain) {
        let found = proven.map_or_else(|| "none".to_owned(), |id| id.as_str().to_owned());
        let message = format!("the certificate proves no SPIFFE ID of {domain} (it has: {found})");
        let help = "set mesh.trust_domain to that of the certificate";
        compiler.mistake_with_help(written.place, message, help);
    }
    Some(MeshIdentity { own, trust: Arc::new(Trust { bundles, crls }), accepts })
}

type OwnAndRoots<'a> = (Option<Arc<CertifiedKey>>, &'a [u8]);

/// What a local CA has issued to this workload, and the roots beside it.
fn issued_identity<'a>(compiler: &mut Compiler<'a>, written: &Identity) -> Option<OwnAndRoots<'a>> {
    let loaded = compiler.loaded;
    let directory = written.ca.as_ref()?;
    let issued = match loaded.materials.issued()? {
        Ok(issued) => issued,
        Err(message) => {
            compiler.mistake(directory.place, message);
            return None;
        }
    };
    let roots = match loaded.materials.in_directory(&loaded.sources, directory, ca::ROOTS) {
        Ok(roots) => roots,
        Err(message) => {
            compiler.mistake(directory.place, message);
            return None;
        }
    };
    let chain = CertificateDer::pem_slice_iter(issued.chain_pem.as_bytes()).collect();
    let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes());
    let (Ok(chain), Ok(key)) = (chain, key) else { return None };
    let places = [directory.place; 2];
    Some((certify(compiler, "mesh identity", places, chain, key, None), roots))
}

fn trust_domain(compiler: &Compiler<'_>) -> String {
    let written = compiler.loaded.config.mesh.trust_domain.as_ref();
    written.map_or_else(|| "cluster.local".to_owned(), |domain| domain.value.clone())
}

/// TLS of a listener; `None` when it speaks plain text.
pub(super) fn listener(
    compiler: &mut Compiler<'_>,
    name: &str,
    written: &file::Listener,
    binds: &[Bind],
) -> Option<Arc<ServerTls>> {
    let list = &written.tls.as_ref()?.0;
    let first = list.first()?;
    let mut table = CertificateTable::default();
    let (mut clients, mut versions, mut mode) = (ClientAuth::None, Versions::From12, Mode::Strict);
    let mut accepts = Accepts::default();
    for tls in list {
        match &tls.value {
            ListenerTls::Files(files) => {
                certificate(compiler, &format!("listener {name}"), &mut table, files);
                if std::ptr::eq(tls, first) {
                    clients = client_auth(compiler, files, &mut accepts)?;
                    versions = min_version(compiler, files);
                } else {
                    only_first(compiler, files);
                }
            }
            ListenerTls::Word(word) if word == "mesh" && list.len() == 1 => {
                mode = mesh_mode(compiler, tls.place, binds)?;
                let mesh = compiler.mesh_identity(tls.place)?;
                table.add(&mesh.own, &[]);
                let expected = Expected::Spiffe(Vec::new());
                let verifier = PeerVerifier::new(mesh.trust, expected, true);
                clients = ClientAuth::Asked(Arc::new(verifier));
                accepts = mesh.accepts;
            }
            ListenerTls::Word(word) => {
                let help = "write {cert: FILE, key: FILE}, a list of those, or `mesh` alone";
                compiler.mistake_with_help(tls.place, format!("{word:?} is no TLS"), help);
            }
        }
    }
    let alpn = match written.protocol {
        file::ListenerProtocol::Tcp | file::ListenerProtocol::Tls => &[],
        file::ListenerProtocol::Auto => ALPN_AUTO,
        file::ListenerProtocol::Http => ALPN_HTTP,
        file::ListenerProtocol::Http2 => ALPN_HTTP2,
    };
    let server = Server { certificates: table, clients, versions, alpn, mode, accepts };
    server_tls(compiler, name, first.place, server)
}

/// TLS of the listener of captured inbound connections, permissive; `None` without an identity.
pub(super) fn captured(compiler: &mut Compiler<'_>, name: &str) -> Option<Arc<ServerTls>> {
    let place = compiler.loaded.config.mesh.identity.as_ref()?.place;
    let mesh = compiler.mesh_identity(place)?;
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
    server_tls(compiler, name, place, server)
}

/// What TLS of a listener is made of, session tickets apart.
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
    place: Place,
    server: Server,
) -> Option<Arc<ServerTls>> {
    let Server { certificates, clients, versions, alpn, mode, accepts } = server;
    let terms = terms_of(&[&accepts.trusted, &[mode as u8]]);
    // Who resumes is not looked up in a revocation list: with a new one everybody begins anew.
    let ticket_terms = terms_of(&[&terms.to_ne_bytes(), &accepts.revoked]);
    let tickets = match compiler.registry.tickets.of(name, ticket_terms) {
        Ok(tickets) => tickets,
        Err(error) => {
            compiler.mistake(place, format!("no keys for session tickets: {error}"));
            return None;
        }
    };
    let parameters =
        ServerParameters { certificates, clients, versions, alpn, tickets, terms, mode };
    match ServerTls::new(parameters) {
        Ok(tls) => Some(Arc::new(tls)),
        Err(error) => {
            compiler.mistake(place, format!("TLS cannot be set up: {error}"));
            None
        }
    }
}

/// What `mesh.inbound` demands on the port of a listener; `None` for plain text.
fn mesh_mode(compiler: &mut Compiler<'_>, place: Place, binds: &[Bind]) -> Option<Mode> {
    let inbound = &compiler.loaded.config.mesh.inbound;
    let port_of = |bind: &Bind| match bind {
        Bind::Tcp(address) => Some(address.port().to_string()),
        Bind::Udp(_) | Bind::Unix(_) | Bind::Systemd(_) => None,
    };
    let ports: Vec<String> = binds.iter().filter_map(port_of).collect();
    let named = |port: &String| {
        let mut entries = inbound.ports.0.iter();
        entries.find(|(name, _)| name.value == *port).map(|(_, mtls)| mtls.value)
    };
    let mut wanted: Vec<Mtls> =
        ports.iter().map(|port| named(port).unwrap_or(inbound.mtls)).collect();
    wanted.dedup();
    match wanted[..] {
        [] | [Mtls::Permissive] => Some(Mode::Permissive),
        [Mtls::Strict] => Some(Mode::Strict),
        [Mtls::Disable] => None,
        _ => {
            let message = "mesh.inbound.ports wants different things of the binds of this listener";
            compiler.mistake_with_help(place, message, "make a listener of each bind");
            None
        }
    }
}

/// TLS to the endpoints of a service; `None` for plain text.
pub(super) fn service(
    compiler: &mut Compiler<'_>,
    name: &str,
    written: &file::Service,
) -> Option<Arc<ClientTls>> {
    let tls = written.tls.as_ref()?;
    let mesh = matches!(&tls.value, ServiceTls::Word(word) if word == "mesh");
    if let Some(identity) = written.identity.0.first()
        && !mesh
    {
        let help = "add `tls: mesh`; with a CA file the name in `sni` is checked";
        compiler.mistake_with_help(identity.place, "`identity` is for services of the mesh", help);
    }
    let alpn = match written.protocol {
        file::ServiceProtocol::Tcp => &[],
        file::ServiceProtocol::Auto => ALPN_AUTO,
        file::ServiceProtocol::Http1 => ALPN_HTTP,
        file::ServiceProtocol::Http2 | file::ServiceProtocol::Grpc => ALPN_HTTP2,
    };
    let mut accepts = Vec::new();
    let (verifier, own, server_name) = match &tls.value {
        ServiceTls::Word(_) if mesh => {
            let allowed = identities(compiler, &written.identity.0);
            let mesh = compiler.mesh_identity(tls.place)?;
            accepts.extend(allowed.iter().flat_map(|id| id.as_str().bytes()));
            accepts.extend(mesh.accepts.trusted.iter().chain(&mesh.accepts.revoked));
            let verifier = PeerVerifier::new(mesh.trust, Expected::Spiffe(allowed), true);
            (verifier, Some(mesh.own), None)
        }
        ServiceTls::Word(word) => {
            let help = "write {ca: FILE}, or `mesh`";
            compiler.mistake_with_help(tls.place, format!("{word:?} is no TLS"), help);
            return None;
        }
        ServiceTls::Files(files) => {
            for file in files.ca.iter().chain(&files.crl) {
                accepts.extend_from_slice(compiler.material(file)?);
            }
            accepts.extend(files.sni.iter().flat_map(|name| name.value.bytes()));
            client_files(compiler, tls.place, files, name, written)?
        }
    };
    match ClientTls::new(verifier, own, server_name, terms_of(&[&accepts]), alpn) {
        Ok(tls) => Some(Arc::new(tls)),
        Err(error) => {
            compiler.mistake(tls.place, format!("TLS cannot be set up: {error}"));
            None
        }
    }
}

type ClientParts = (PeerVerifier, Option<Arc<CertifiedKey>>, Option<ServerName<'static>>);

fn client_files(
    compiler: &mut Compiler<'_>,
    place: Place,
    files: &ClientFiles,
    service_name: &str,
    service: &file::Service,
) -> Option<ClientParts> {
    let own = match (&files.cert, &files.key) {
        (Some(cert), Some(key)) => {
            Some(certified_key(compiler, &format!("service {service_name}"), cert, key, None)?)
        }
        (None, None) => None,
        (Some(one), None) | (None, Some(one)) => {
            compiler.mistake(one.place, "`cert` and `key` go together");
            return None;
        }
    };
    let dns_host = service.dns.as_ref().and_then(|dns| dns.value.rsplit_once(':')).map(|d| d.0);
    let name = match (&files.sni, dns_host) {
        (Some(sni), _) => Some((sni.place, sni.value.as_str())),
        (None, host) => host.map(|host| (place, host)),
    };
    let name = match name.map(|(place, name)| (place, ServerName::try_from(name.to_owned()))) {
        Some((_, Ok(name))) => Some(name),
        Some((place, Err(_))) => {
            compiler.mistake(place, "`sni` is neither a DNS name nor an IP address");
            return None;
        }
        None => None,
    };
    let (trust, expected) = match (&files.ca, files.verify) {
        (None, Verify::None) => (Trust::default(), Expected::Unverified),
        (Some(ca), Verify::Full) => {
            let bundles = authorities(compiler, ca)?;
            let crls = revocation_lists(compiler, files.crl.as_ref());
            (Trust { bundles, crls }, Expected::Name)
        }
        (None, Verify::Full) => {
            let help = "add `ca: FILE`; on Debian /etc/ssl/certs/ca-certificates.crt has the \
                        public ones";
            compiler.mistake_with_help(place, "nobody vouches for the endpoints", help);
            return None;
        }
        (Some(ca), Verify::None) => {
            compiler.mistake(ca.place, "`ca` means nothing with `verify: none`");
            return None;
        }
    };
    Some((PeerVerifier::new(Arc::new(trust), expected, true), own, name))
}

fn identities(compiler: &mut Compiler<'_>, written: &[Placed<String>]) -> Vec<SpiffeId> {
    let mut ids = Vec::new();
    for id in written {
        match SpiffeId::parse(&id.value) {
            Ok(id) => ids.push(id),
            Err(error) => {
                compiler.mistake(id.place, format!("{:?} is not a SPIFFE ID: {error}", id.value));
            }
        }
    }
    ids
}

/// Adds the certificate in `files` to `table`.
fn certificate(
    compiler: &mut Compiler<'_>,
    owner: &str,
    table: &mut CertificateTable,
    files: &ServerFiles,
) {
    let ocsp = files.ocsp.as_ref().and_then(|file| Some(compiler.material(file)?.to_vec()));
    let Some(certified) = certified_key(compiler, owner, &files.cert, &files.key, ocsp) else {
        return;
    };
    let mut names: Vec<String> = files.names.0.iter().map(|name| name.value.clone()).collect();
    if names.is_empty()
        && let Some(parsed) = certified.cert.first().map(EndEntityCert::try_from)
        && let Ok(parsed) = parsed
    {
        names = parsed.valid_dns_names().map(ToOwned::to_owned).collect();
    }
    table.add(&certified, &names);
}

fn client_auth(
    compiler: &mut Compiler<'_>,
    files: &ServerFiles,
    accepts: &mut Accepts,
) -> Option<ClientAuth> {
    let Some(ca) = &files.client_ca else {
        if let Some(auth) = &files.client_auth {
            compiler.mistake(auth.place, "`client_auth` needs `client_ca`");
        }
        return Some(ClientAuth::None);
    };
    let bundles = authorities(compiler, ca)?;
    let crls = revocation_lists(compiler, files.crl.as_ref());
    let mandatory = files.client_auth.as_ref().is_none_or(|auth| auth.value == Auth::Require);
    accepts.trusted.extend_from_slice(compiler.material(ca)?);
    accepts.trusted.push(u8::from(mandatory));
    if let Some(file) = &files.crl {
        accepts.revoked.extend_from_slice(compiler.material(file)?);
    }
    let trust = Arc::new(Trust { bundles, crls });
    Some(ClientAuth::Asked(Arc::new(PeerVerifier::new(trust, Expected::Anyone, mandatory))))
}

fn min_version(compiler: &mut Compiler<'_>, files: &ServerFiles) -> Versions {
    match files.min_version.as_ref().map(|version| (version.place, version.value.as_str())) {
        None | Some((_, "1.2")) => Versions::From12,
        Some((_, "1.3")) => Versions::Only13,
        Some((place, other)) => {
            let message = format!("{other:?} is not a version of TLS that is spoken");
            compiler.mistake_with_help(place, message, "write \"1.2\" or \"1.3\"");
            Versions::From12
        }
    }
}

/// Who may connect is decided before it is known which certificate a client asks for.
fn only_first(compiler: &mut Compiler<'_>, files: &ServerFiles) {
    let places = [
        files.client_ca.as_ref().map(|file| file.place),
        files.crl.as_ref().map(|file| file.place),
        files.client_auth.as_ref().map(|auth| auth.place),
        files.min_version.as_ref().map(|version| version.place),
    ];
    for place in places.into_iter().flatten() {
        let message = "this holds for the whole listener: write it on the first certificate";
        compiler.mistake(place, message);
    }
}

impl<'a> Compiler<'a> {
    /// What is in the file named here.
    pub(super) fn material(&mut self, name: &Placed<String>) -> Option<&'a [u8]> {
        let loaded = self.loaded;
        match loaded.materials.get(&loaded.sources, name) {
            Ok(bytes) => Some(bytes),
            Err(message) => {
                self.mistake(name.place, message);
                None
            }
        }
    }

    fn mesh_identity(&mut self, place: Place) -> Option<MeshIdentity> {
        if self.loaded.config.mesh.identity.is_none() {
            let help = "add `mesh: {identity: {ca: DIR, id: spiffe://...}}`";
            self.mistake_with_help(place, "this workload has no identity", help);
        }
        self.mesh.clone()
    }

    /// The certificates of a PEM file, at least one.
    fn certificates(&mut self, name: &Placed<String>) -> Option<Vec<CertificateDer<'static>>> {
        let bytes = self.material(name)?;
        self.certificates_in(name.place, bytes)
    }

    fn certificates_in(
        &mut self,
        place: Place,
        bytes: &[u8],
    ) -> Option<Vec<CertificateDer<'static>>> {
        let message = match CertificateDer::pem_slice_iter(bytes).collect::<Result<Vec<_>, _>>() {
            Ok(list) if !list.is_empty() => return Some(list),
            Ok(_) => "there is no certificate in this file (PEM is expected)".to_owned(),
            Err(error) => format!("this file is not valid PEM: {error}"),
        };
        self.mistake(place, message);
        None
    }
}

/// A certificate with its key, which must fit together.
fn certified_key(
    compiler: &mut Compiler<'_>,
    owner: &str,
    cert: &Placed<String>,
    key: &Placed<String>,
    ocsp: Option<Vec<u8>>,
) -> Option<Arc<CertifiedKey>> {
    let chain = compiler.certificates(cert);
    let bytes = compiler.material(key);
    let (chain, bytes, places) = (chain?, bytes?, [cert.place, key.place]);
    let Ok(private) = PrivateKeyDer::from_pem_slice(bytes) else {
        let message = "there is no private key in this file (PEM of PKCS#8, PKCS#1 or SEC1)";
        compiler.mistake(key.place, message);
        return None;
    };
    certify(compiler, owner, places, chain, private, ocsp)
}

/// Puts a certificate and its key together; `places` are theirs.
fn certify(
    compiler: &mut Compiler<'_>,
    owner: &str,
    places: [Place; 2],
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
            compiler.mistake(places[1], "this key does not belong to the certificate");
            None
        }
        Err(error) => {
            compiler.mistake(places[0], format!("the certificate cannot be used: {error}"));
            None
        }
    }
}

/// The roots in `bytes`, which are written of at `place`.
fn bundle(
    compiler: &mut Compiler<'_>,
    place: Place,
    bytes: &[u8],
    trust_domain: Option<&str>,
) -> Option<Bundle> {
    let mut anchors = Vec::new();
    for certificate in compiler.certificates_in(place, bytes)? {
        match webpki::anchor_from_trusted_cert(&certificate) {
            Ok(anchor) => anchors.push(anchor.to_owned()),
            Err(error) => {
                compiler.mistake(place, format!("a root here cannot be used: {error}"));
            }
        }
    }
    Some(Bundle { trust_domain: trust_domain.map(Into::into), anchors })
}

/// The CAs of a file that vouch for any name.
fn authorities(compiler: &mut Compiler<'_>, file: &Placed<String>) -> Option<Vec<Bundle>> {
    let bytes = compiler.material(file)?;
    bundle(compiler, file.place, bytes, None).map(|bundle| vec![bundle])
}

fn revocation_lists(
    compiler: &mut Compiler<'_>,
    file: Option<&Placed<String>>,
) -> Vec<CertRevocationList<'static>> {
    let Some(file) = file else { return Vec::new() };
    let Some(bytes) = compiler.material(file) else { return Vec::new() };
    let mut lists = Vec::new();
    for list in CertificateRevocationListDer::pem_slice_iter(bytes) {
        let parsed = list.map_err(|error| error.to_string()).and_then(|list| {
            OwnedCertRevocationList::from_der(&list).map_err(|error| error.to_string())
        });
        match parsed {
            Ok(list) => lists.push(list.into()),
            Err(error) => {
                compiler.mistake(file.place, format!("not a revocation list: {error}"));
            }
        }
    }
    lists
}
