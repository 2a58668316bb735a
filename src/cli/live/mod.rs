//! Commands that ask a running proxy: `tap`, `top` and `why`.

mod client;
mod tap;
mod top;
mod why;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use crate::compile::Resolutions;
use crate::compile::registry::Registry;
use crate::sources::files::{self, ProcessEnvironment};

pub use tap::{TapArgs, tap};
pub use top::{TopArgs, top};
pub use why::{WhyArgs, why};

/// The default address of the admin interface.
const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9900);

/// The running proxy to ask.
#[derive(Args)]
struct Target {
    /// The admin address of the running proxy. Default: the one in `-c`, or 127.0.0.1:9900.
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<SocketAddr>,
    /// The configuration of the proxy, for its admin address.
    #[arg(short, long = "config", value_name = "DIR")]
    config: Vec<PathBuf>,
    /// The file with the token that the admin interface demands. Default: the one in `-c`.
    #[arg(long, value_name = "FILE")]
    token: Option<PathBuf>,
}

/// An admin interface, and how it lets this client in.
#[derive(Clone)]
struct Admin {
    address: SocketAddr,
    token: Option<Arc<str>>,
}

impl Target {
    /// The admin interface of the proxy.
    fn admin(&self) -> Result<Admin, String> {
        let token = match &self.token {
            Some(file) => {
                let text = std::fs::read_to_string(file).map_err(|error| {
                    format!("cannot read {}: {}", file.display(), crate::error::plain(&error))
                })?;
                Some(text.trim().into())
            }
            None => None,
        };
        if self.config.is_empty() {
            return Ok(Admin { address: self.admin.unwrap_or(ADMIN), token });
        }
        let loaded = files::load(&self.config, &ProcessEnvironment);
        let compiled = files::compile(&loaded, 0, &mut Registry::new(1), &Resolutions::new());
        let compiled = compiled.map_err(|errors| errors.to_string())?;
        let off = "this configuration turns the admin interface off (admin.bind: off)";
        let address = self.admin.or(compiled.admin).ok_or_else(|| off.to_owned())?;
        Ok(Admin { address, token: token.or(compiled.admin_token) })
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
