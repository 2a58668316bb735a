//! `ringway check`: prints every mistake of a configuration.

use std::process::ExitCode;

use clap::Args;

use super::Configuration;
use crate::sources::files::{self, ProcessEnvironment};

/// The arguments of `ringway check`.
#[derive(Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    configuration: Configuration,
    /// Treat each warning as an error.
    #[arg(long)]
    strict: bool,
}

pub(super) fn check(arguments: &CheckArgs) -> ExitCode {
    let CheckArgs { configuration, strict } = arguments;
    let report = files::check(&configuration.config, &ProcessEnvironment, *strict);
    eprint!("{}", report.mistakes);
    if report.accepted {
        super::say(&format!("{}\n", report.summary));
        return ExitCode::SUCCESS;
    }
    eprintln!("{}", report.summary);
    ExitCode::FAILURE
}
