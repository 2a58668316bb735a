//! `ringway explain`: shows the listener, rule, service and endpoints of a request, and why.
//!
//! The decisions are made by the code of the proxy (`decision`, `route`, `authz`). This module only
//! prints them.

mod asked;
mod captured;
mod connection;
mod request;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

pub use asked::Asked;

use crate::compile::Resolutions;
use crate::compile::registry::Registry;
use crate::snapshot::{Serves, Snapshot};
use crate::sources::files;
use crate::sources::files::ProcessEnvironment;

/// The arguments of `ringway explain`.
#[derive(Args)]
pub(super) struct ExplainArgs {
    /// A directory of YAML files, or one file. Later arguments override earlier ones key by key.
    #[arg(short, long = "config", required = true)]
    config: Vec<PathBuf>,
    #[command(flatten)]
    asked: Asked,
}

pub(super) fn explain(arguments: &ExplainArgs) -> ExitCode {
    let loaded = files::load_without_log(&arguments.config, &ProcessEnvironment);
    let compiled = files::compile(&loaded, 1, &mut Registry::new(1), &Resolutions::new());
    let snapshot = match compiled {
        Ok(compiled) => compiled.snapshot,
        Err(errors) => {
            eprint!("{errors}");
            return ExitCode::FAILURE;
        }
    };
    match explanation(&snapshot, &arguments.asked) {
        Ok(text) => {
            super::say(&text);
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::from(2)
        }
    }
}

/// Explains a request. The text has a part for each listener that may get the request.
///
/// # Errors
/// If the request is not valid, or if no listener may get it.
pub fn explanation(snapshot: &Snapshot, asked: &Asked) -> Result<String, String> {
    asked.check(snapshot)?;
    let mut out = String::new();
    for listener in &snapshot.listeners {
        match &listener.serves {
            Serves::Http(_) => connection::explain(&mut out, snapshot, listener, asked)?,
            Serves::Captured(capture) => {
                captured::explain(&mut out, snapshot, listener, capture, asked)?;
            }
            Serves::Tcp(_) | Serves::Tls(_) | Serves::Quic(_) => {}
        }
    }
    match (out.is_empty(), asked.to) {
        (false, _) => Ok(out),
        (true, None) => Err("the configuration has no HTTP listener".to_owned()),
        (true, Some(to)) => Err(format!(
            "no HTTP listener has the address {to}, and none gets captured connections; leave out \
             --to"
        )),
    }
}
