//! Writes shell completions and manual pages, both from the definitions of the commands.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, ValueEnum};
use clap_complete::Shell;

use crate::error::plain;

/// The arguments of `ringway completions`.
#[derive(Args)]
pub(super) struct CompletionsArgs {
    /// The shell to complete in.
    shell: KnownShell,
}

/// The shells for which the tests cover the completions.
#[derive(Clone, Copy, ValueEnum)]
enum KnownShell {
    Bash,
    Zsh,
    Fish,
}

/// The arguments of `ringway man`.
#[derive(Args)]
pub(super) struct ManArgs {
    /// Write a page for each command into this directory, instead of printing the page of ringway.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(super) fn completions(arguments: &CompletionsArgs) -> ExitCode {
    let shell = match arguments.shell {
        KnownShell::Bash => Shell::Bash,
        KnownShell::Zsh => Shell::Zsh,
        KnownShell::Fish => Shell::Fish,
    };
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut super::Cli::command(), "ringway", &mut text);
    super::say(&String::from_utf8_lossy(&text));
    ExitCode::SUCCESS
}

pub(super) fn man(arguments: &ManArgs) -> ExitCode {
    let command = super::Cli::command().disable_help_subcommand(true);
    let Some(directory) = &arguments.dir else {
        let mut text = Vec::new();
        return match clap_mangen::Man::new(command).render(&mut text) {
            Ok(()) => {
                super::say(&String::from_utf8_lossy(&text));
                ExitCode::SUCCESS
            }
            Err(error) => failed(&format!("the manual page cannot be made: {}", plain(&error))),
        };
    };
    match clap_mangen::generate_to(command, directory) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&format!(
            "cannot write manual pages into {}: {}; name a directory that exists",
            directory.display(),
            plain(&error)
        )),
    }
}

fn failed(message: &str) -> ExitCode {
    eprintln!("error: {message}");
    ExitCode::FAILURE
}
