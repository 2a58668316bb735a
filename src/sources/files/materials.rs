//! Reads the files that a configuration refers to: certificates, keys, roots, revocation lists.
//! Issues the workload's certificate, if its CA is local.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::diagnostic::SourceMap;
use super::grammar::Config;
use super::grammar::admin::AdminPeer;
use super::grammar::tls::{ListenerTls, ServiceTls};
use super::log_file::{self, LogFault};
use super::values::Placed;
use crate::ca::{self, Issued, Issuer, Request};
use crate::error::plain;
use crate::file;
use crate::identity::SpiffeId;
use crate::model::Material;
use crate::net::is_shortage;

/// The default lifetime of a certificate that is issued to this workload.
const ISSUED_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// The maximum size of a file.
pub const MATERIAL_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The content of each file, or the reason why it cannot be read. Private keys are among them, so
/// the contents are never printed.
#[derive(Clone, Default)]
pub struct Materials {
    files: BTreeMap<PathBuf, Material>,
    issued: Option<Result<Arc<Issued>, String>>,
    /// The files that every user of this host can read.
    open: BTreeSet<PathBuf>,
    /// The reason why the access log cannot be written. `None` if it can.
    log_fault: Option<LogFault>,
    /// Whether a file could not be read because the process had no descriptors or memory left.
    short: bool,
}

impl PartialEq for Materials {
    /// Compares the files and the state of the access log. Issued certificates are not compared,
    /// because each time another one is issued.
    fn eq(&self, other: &Self) -> bool {
        self.files == other.files && self.log_fault == other.log_fault
    }
}

/// The beginning of the name of a variable of the environment, in the place of a file's name.
const VARIABLE: &str = "env:";

/// A longer text in the place of a file's name is not shown in a message.
const NAME_BYTES_MAX: usize = 200;

impl Materials {
    /// Reads every file that `config` refers to. Issues the workload's certificate if `config`
    /// names a local CA.
    pub(super) fn read(config: &Config, sources: &SourceMap) -> Self {
        // A server must not read files of this machine.
        let own = |name: &&Placed<String>| !sources.is_remote(name.place.file);
        let paths = references(config).into_iter().filter(own).map(|name| path_of(sources, name));
        let mut short = false;
        let mut files: BTreeMap<PathBuf, Material> =
            paths.map(|path| (path.clone(), read(&path, &mut short))).collect();
        let identity = config.mesh.identity.as_ref().map(|identity| &identity.value);
        let mut issued = None;
        if let Some(identity) = identity
            && let (Some(directory), Some(id)) = (&identity.ca, &identity.id)
        {
            let directory = path_of(sources, directory);
            for name in [ca::INTERMEDIATE_CERTIFICATE, ca::INTERMEDIATE_KEY, ca::ROOTS] {
                let path = directory.join(name);
                files.insert(path.clone(), read(&path, &mut short));
            }
            let lifetime = identity.lifetime.as_ref().map_or(ISSUED_LIFETIME, |time| time.0);
            issued = Some(issue(&directory, &id.value, lifetime));
        }
        let open = files.keys().filter(|path| is_open(path)).cloned().collect();
        let log = config.telemetry.access_log.path.as_ref();
        let log = log.filter(|name| log_file::target(&name.value) == log_file::Target::File);
        let log_fault = log.and_then(|name| log_file::fault(&path_of(sources, name)));
        Self { files, issued, open, log_fault, short }
    }

    /// Drops the fault of the access log, for a process that does not write it.
    pub(super) fn without_log(self) -> Self {
        Self { log_fault: None, ..self }
    }

    /// The reason why the access log cannot be written to the configured file. `None` if it can.
    pub(super) fn log_fault(&self) -> Option<&LogFault> {
        self.log_fault.as_ref()
    }

    /// Whether a file could not be read because the process had no descriptors or memory left.
    pub fn is_short(&self) -> bool {
        self.short
    }

    /// Whether a file could not be read, or the access log cannot be written.
    pub fn is_unread(&self) -> bool {
        self.log_fault.is_some() || self.files.values().any(|file| file.bytes().is_err())
    }

    /// The time at which the issued certificate is to be renewed. Returns `None` if there is no
    /// such certificate. `jitter` is a random number from 0 to 1.
    pub fn renew_at(&self, jitter: f64) -> Option<SystemTime> {
        let issued = self.issued.as_ref()?.as_ref().ok()?;
        Some(ca::renew_at(issued.not_before, issued.not_after, jitter))
    }

    /// The certificate that a local CA has issued to this workload, or the error. `None` if there
    /// is no local CA.
    pub(super) fn issued(&self) -> Option<Result<&Issued, &str>> {
        self.issued.as_ref().map(|issued| issued.as_deref().map_err(String::as_str))
    }

    /// The content of the file `name`.
    pub(super) fn get(&self, sources: &SourceMap, name: &Placed<String>) -> Material {
        if !sources.is_remote(name.place.file) {
            if let Some(variable) = name.value.strip_prefix(VARIABLE) {
                let unset = || Material::unreadable(&format!("the variable {variable} is not set"));
                let value = std::env::var_os(variable);
                return value.map_or_else(unset, |value| Material::new(value.into_encoded_bytes()));
            }
            return self.at(&path_of(sources, name));
        }
        // A server writes the text itself in the place of the name of a file. Text may come before
        // the first part of it.
        if name.value.contains("-----BEGIN ") {
            return Material::new(name.value.clone().into_bytes());
        }
        // A value that is no path may be a secret in another form, so it is not repeated.
        let named = match name.value.contains('\n') || name.value.len() > NAME_BYTES_MAX {
            true => String::new(),
            false => format!(", such as {:?}", name.value),
        };
        Material::unreadable(&format!(
            "a document of a server cannot name files of this machine{named}: write the text of \
             the PEM file here"
        ))
    }

    /// The content of a file in the directory `name`.
    pub(super) fn in_directory(
        &self,
        sources: &SourceMap,
        name: &Placed<String>,
        file: &str,
    ) -> Material {
        self.at(&path_of(sources, name).join(file))
    }

    fn at(&self, path: &Path) -> Material {
        let unread = || Material::unreadable(&format!("{} was not read", path.display()));
        self.files.get(path).cloned().unwrap_or_else(unread)
    }

    /// Whether every user of this host can read the file `name`.
    pub(super) fn is_open(&self, sources: &SourceMap, name: &Placed<String>) -> bool {
        !sources.is_remote(name.place.file) && self.open.contains(&path_of(sources, name))
    }

    /// Whether every user of this host can read a file in the directory `name`.
    pub(super) fn is_open_in(
        &self,
        sources: &SourceMap,
        name: &Placed<String>,
        file: &str,
    ) -> bool {
        self.open.contains(&path_of(sources, name).join(file))
    }

    /// The paths of all files, to watch them for changes.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.keys().map(PathBuf::as_path)
    }
}

/// The path of the file `name`. A relative name is relative to the directory of the configuration
/// file.
pub(super) fn path_of(sources: &SourceMap, name: &Placed<String>) -> PathBuf {
    let file = sources.files().get(name.place.file as usize);
    let directory =
        file.and_then(|(file, _)| Path::new(&**file).parent()).unwrap_or_else(|| Path::new(""));
    directory.join(&name.value)
}

/// Whether every user of this host can read the file at `path`.
fn is_open(path: &Path) -> bool {
    std::fs::metadata(path)
        .is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o004 != 0)
}

fn read(path: &Path, short: &mut bool) -> Material {
    match file::read(path, MATERIAL_BYTES_MAX) {
        Ok(bytes) => Material::new(bytes),
        Err(error) => {
            *short |= is_shortage(&error);
            Material::unreadable(&format!("cannot read {}: {}", path.display(), plain(&error)))
        }
    }
}

fn references(config: &Config) -> Vec<&Placed<String>> {
    let mut all = Vec::new();
    let listeners = config.listeners.0.iter();
    let of_listeners = listeners.flat_map(|(_, it)| it.value.tls.iter().flat_map(|tls| &tls.0));
    let of_gateways = config.sources.certificates().map(|(_, tls)| tls);
    for tls in of_listeners.chain(of_gateways).chain(&config.admin.tls) {
        if let ListenerTls::Files(files) = &tls.value {
            all.extend([&files.cert, &files.key]);
            all.extend([&files.ocsp, &files.client_ca, &files.crl].into_iter().flatten());
        }
    }
    for (_, service) in &config.services.0 {
        if let Some(Placed { value: ServiceTls::Files(files), .. }) = &service.value.tls {
            let named = [&files.ca, &files.cert, &files.key, &files.crl];
            all.extend(named.into_iter().flatten());
        }
    }
    for (_, provider) in &config.jwt.0 {
        let jwks = &provider.value.jwks.value;
        all.extend(jwks.file.iter().chain(&jwks.ca));
    }
    all.extend(&config.mesh.crl);
    all.extend(&config.admin.token);
    all.extend(&config.telemetry.access_log.ca);
    all.extend(config.telemetry.tracing.iter().flat_map(|tracing| &tracing.value.ca));
    for (_, peer) in &config.admin.peers.0 {
        let AdminPeer::Settings(peer) = &peer.value else { continue };
        all.extend(&peer.token);
        if let Some(Placed { value: ServiceTls::Files(files), .. }) = &peer.tls {
            all.extend([&files.ca, &files.cert, &files.key, &files.crl].into_iter().flatten());
        }
    }
    if let Some(consul) = &config.sources.consul {
        let is_file = |token: &&Placed<String>| !token.value.starts_with(VARIABLE);
        all.extend(consul.value.token.iter().filter(is_file));
        if let Some(Placed { value: ServiceTls::Files(files), .. }) = &consul.value.tls {
            all.extend([&files.ca, &files.cert, &files.key, &files.crl].into_iter().flatten());
        }
    }
    if let Some(etcd) = &config.sources.etcd {
        all.extend(&etcd.value.password);
        if let Some(Placed { value: ServiceTls::Files(files), .. }) = &etcd.value.tls {
            all.extend([&files.ca, &files.cert, &files.key, &files.crl].into_iter().flatten());
        }
    }
    all.extend(config.mesh.trust_bundles.0.iter().map(|(_, file)| file));
    if let Some(identity) = &config.mesh.identity {
        let named = [&identity.value.cert, &identity.value.key, &identity.value.roots];
        all.extend(named.into_iter().flatten());
    }
    all
}

fn issue(directory: &Path, id: &str, lifetime: Duration) -> Result<Arc<Issued>, String> {
    let id = SpiffeId::parse(id).map_err(|why| format!("{id:?} is not a SPIFFE ID: {why}"))?;
    let issuer = Issuer::open(directory).map_err(|error| error.to_string())?;
    // The certificate has only the SPIFFE ID: the configuration does not name any DNS names.
    let request =
        Request { id, dns: Vec::new(), ips: Vec::new(), lifetime, now: SystemTime::now() };
    issuer.issue(&request).map(Arc::new).map_err(|error| error.to_string())
}
