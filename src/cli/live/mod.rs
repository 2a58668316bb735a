//! Commands that ask a running proxy: `tap` and `why`.

mod client;
mod tap;
mod why;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::Args;

use crate::compile::Resolutions;
use crate::compile::registry::Registry;
use crate::sources::files::{self, ProcessEnvironment};

pub use tap::{TapArgs, tap};
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
}

impl Target {
    /// The admin address of the proxy.
    fn address(&self) -> Result<SocketAddr, String> {
        if let Some(address) = self.admin {
            return Ok(address);
        }
        if self.config.is_empty() {
            return Ok(ADMIN);
        }
        let loaded = files::load(&self.config, &ProcessEnvironment);
        let compiled = files::compile(&loaded, 0, &mut Registry::new(1), &Resolutions::new());
        let compiled = compiled.map_err(|errors| errors.to_string())?;
        let off = "this configuration turns the admin interface off (admin.bind: off)";
        compiled.admin.ok_or_else(|| off.to_owned())
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
