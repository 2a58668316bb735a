//! Commands that ask a running proxy: `tap`, `top` and `why`.

mod client;
mod tap;
mod top;
mod why;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use pki_types::pem::PemObject as _;
use pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::compile::Resolutions;
use crate::compile::registry::Registry;
use crate::error::plain as plainly;
use crate::sources::files::{self, ProcessEnvironment};
use crate::tls::PROVIDER;

pub use tap::{TapArgs, tap};
pub use top::{TopArgs, top};
pub use why::{WhyArgs, why};

/// The default address of the admin interface.
const ADMIN: &str = "127.0.0.1:9900";

/// The running proxy to ask.
#[derive(Args)]
struct Target {
    /// The admin address of the running proxy, HOST:PORT or unix:PATH. Default: the one in `-c`, or
    /// 127.0.0.1:9900.
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<String>,
    /// The configuration of the proxy, for its admin address.
    #[arg(short, long = "config", value_name = "DIR")]
    config: Vec<PathBuf>,
    /// The file with the token that the admin interface demands. Default: the one in `-c`.
    #[arg(long, value_name = "FILE")]
    token: Option<PathBuf>,
    /// The CA of the certificate of the admin interface. Its presence means TLS.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The certificate to show to the admin interface, with its intermediates.
    #[arg(long, value_name = "FILE", requires_all = ["ca", "key"])]
    cert: Option<PathBuf>,
    /// The private key of the certificate.
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
}

/// An admin interface, and how it lets this client in.
#[derive(Clone)]
struct Admin {
    /// `HOST:PORT` or `unix:PATH`.
    address: String,
    token: Option<Arc<str>>,
    tls: Option<Arc<ClientConfig>>,
}

impl Target {
    /// The admin interface of the proxy.
    fn admin(&self) -> Result<Admin, String> {
        let token = match &self.token {
            Some(file) => Some(String::from_utf8_lossy(&read(file)?).trim().into()),
            None => None,
        };
        let tls = self.ca.as_ref().map(|ca| self.tls(ca)).transpose()?;
        if self.config.is_empty() {
            let address = self.admin.clone().unwrap_or_else(|| ADMIN.to_owned());
            return Ok(Admin { address, token, tls });
        }
        let loaded = files::load(&self.config, &ProcessEnvironment);
        let compiled = files::compile(&loaded, 0, &mut Registry::new(1), &Resolutions::new());
        let plan = compiled.map_err(|errors| errors.to_string())?.admin;
        let off = "this configuration turns the admin interface off (admin.bind: off)";
        let own = plan.address.map(|address| address.to_string());
        let address = self.admin.clone().or(own).ok_or_else(|| off.to_owned())?;
        if let (Some(used), None) = (&plan.tls, &tls) {
            let verifier = used.tls.verifier.as_ref();
            let client = match verifier.is_some_and(|verifier| verifier.is_mandatory()) {
                true => ", and a certificate for this client with --cert FILE --key FILE",
                false => "",
            };
            return Err(format!(
                "the admin interface at {address} speaks TLS: name the CA of its certificate with \
                 --ca FILE{client}"
            ));
        }
        Ok(Admin { address, token: token.or(plan.token), tls })
    }

    /// The settings of TLS.
    fn tls(&self, ca: &Path) -> Result<Arc<ClientConfig>, String> {
        let wrong = |file: &Path, why: String| format!("{}: {why}", file.display());
        let mut roots = RootCertStore::empty();
        for root in certificates(ca)? {
            roots.add(root).map_err(|error| wrong(ca, error.to_string()))?;
        }
        let builder = ClientConfig::builder_with_provider(Arc::clone(&PROVIDER))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots);
        let (Some(cert), Some(file)) = (&self.cert, &self.key) else {
            return Ok(Arc::new(builder.with_no_client_auth()));
        };
        let key = PrivateKeyDer::from_pem_slice(&read(file)?);
        let key = key.map_err(|error| wrong(file, error.to_string()))?;
        let config = builder.with_client_auth_cert(certificates(cert)?, key);
        config.map(Arc::new).map_err(|error| wrong(cert, error.to_string()))
    }
}

fn read(file: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(file)
        .map_err(|error| format!("cannot read {}: {}", file.display(), plainly(&error)))
}

/// The certificates of a PEM file, at least one.
fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let bytes = read(file)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) => Err(format!("{} has no certificate", file.display())),
        Err(error) => Err(format!("{}: {error}", file.display())),
    }
}

/// A duration in microseconds, for people.
fn time(us: u64) -> String {
    match us {
        0..1_000 => format!("{us}us"),
        1_000..1_000_000 => format!("{}.{}ms", us / 1_000, us % 1_000 / 100),
        _ => format!("{}.{:02}s", us / 1_000_000, us % 1_000_000 / 10_000),
    }
}

/// Text of a client, without characters that a terminal would interpret.
fn plain(text: &str) -> String {
    text.chars()
        .flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] })
        .collect()
}
