//! The files that a configuration refers to: certificates, keys, roots, revocation lists.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::diagnostic::SourceMap;
use super::grammar::Config;
use super::grammar::tls::{ListenerTls, ServiceTls};
use super::values::Placed;
use crate::ca::{self, Issued, Issuer, Request};
use crate::identity::SpiffeId;
use crate::model::Material;

/// The default lifetime of a certificate that is issued to this workload.
const ISSUED_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// The largest file that is read.
pub const MATERIAL_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The content of each file, or the reason why it cannot be read. It contains keys and is never
/// printed.
#[derive(Clone, Default)]
pub struct Materials {
    files: BTreeMap<PathBuf, Material>,
    issued: Option<Result<Arc<Issued>, String>>,
}

impl PartialEq for Materials {
    /// Issued certificates differ each time, so they are not compared.
    fn eq(&self, other: &Self) -> bool {
        self.files == other.files
    }
}

impl Materials {
    /// Reads every file that `config` refers to. Issues the workload's certificate if it comes from
    /// a local CA.
    pub(super) fn read(config: &Config, sources: &SourceMap) -> Self {
        let paths = references(config).into_iter().map(|name| path_of(sources, name));
        let mut files: BTreeMap<PathBuf, Material> =
            paths.map(|path| (path.clone(), read(&path))).collect();
        let identity = config.mesh.identity.as_ref().map(|identity| &identity.value);
        let mut issued = None;
        if let Some(identity) = identity
            && let (Some(directory), Some(id)) = (&identity.ca, &identity.id)
        {
            let directory = path_of(sources, directory);
            for name in [ca::INTERMEDIATE_CERTIFICATE, ca::INTERMEDIATE_KEY, ca::ROOTS] {
                let path = directory.join(name);
                files.insert(path.clone(), read(&path));
            }
            let lifetime = identity.lifetime.as_ref().map_or(ISSUED_LIFETIME, |time| time.0);
            issued = Some(issue(&directory, &id.value, lifetime));
        }
        Self { files, issued }
    }

    /// The renewal time of the issued certificate. Returns `None` if there is none.
    pub fn renew_at(&self, jitter: f64) -> Option<SystemTime> {
        let issued = self.issued.as_ref()?.as_ref().ok()?;
        Some(ca::renew_at(issued.not_before, issued.not_after, jitter))
    }

    /// The certificate that a local CA has issued to this workload.
    pub(super) fn issued(&self) -> Option<Result<&Issued, &str>> {
        self.issued.as_ref().map(|issued| issued.as_deref().map_err(String::as_str))
    }

    /// The content of the file `name`.
    pub(super) fn get(&self, sources: &SourceMap, name: &Placed<String>) -> Material {
        self.at(&path_of(sources, name))
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

    /// The files, to be watched.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.keys().map(PathBuf::as_path)
    }
}

/// Paths are relative to the configuration file.
fn path_of(sources: &SourceMap, name: &Placed<String>) -> PathBuf {
    let file = sources.files().get(name.place.file as usize);
    let directory =
        file.and_then(|(file, _)| Path::new(&**file).parent()).unwrap_or_else(|| Path::new(""));
    directory.join(&name.value)
}

fn read(path: &Path) -> Material {
    let content = match std::fs::metadata(path) {
        Ok(data) if data.len() > MATERIAL_BYTES_MAX => {
            Err(format!("larger than {MATERIAL_BYTES_MAX} bytes"))
        }
        Ok(data) if !data.is_file() => Err("not a file".to_owned()),
        Ok(_) => std::fs::read(path).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    match content {
        Ok(bytes) => Material::new(bytes),
        Err(why) => Material::unreadable(&format!("cannot read {}: {why}", path.display())),
    }
}

fn references(config: &Config) -> Vec<&Placed<String>> {
    let mut all = Vec::new();
    for (_, listener) in &config.listeners.0 {
        for tls in listener.value.tls.iter().flat_map(|tls| &tls.0) {
            if let ListenerTls::Files(files) = &tls.value {
                all.extend([&files.cert, &files.key]);
                all.extend([&files.ocsp, &files.client_ca, &files.crl].into_iter().flatten());
            }
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
    // DNS names are not known here, so the identity is only the SPIFFE ID.
    let request =
        Request { id, dns: Vec::new(), ips: Vec::new(), lifetime, now: SystemTime::now() };
    issuer.issue(&request).map(Arc::new).map_err(|error| error.to_string())
}
