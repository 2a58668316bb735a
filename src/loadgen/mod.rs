//! `ringway bench URL`: a load generator for HTTP/1.1 and TCP, plain and through TLS, on one
//! thread, and the light TCP server that stands behind a proxy under measurement.
//!
//! It is written on epoll by hand and not on the ring: it shall measure a proxy with other means
//! than the proxy uses, and it must be light, since it shares its CPU with the server behind it.

mod answer;
mod args;
mod bulk;
mod client;
mod hold;
mod link;
mod pace;
mod poller;
mod report;
mod server;

use std::io;
use std::process::ExitCode;

pub use args::BenchArgs;

use args::Work;

/// Why there is nothing to report.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line asks for something that does not exist; the text says what to write.
    #[error("{0}")]
    Usage(String),
    /// Nothing could be sent to the target.
    #[error("no connection to {target}: {reason}; is it running?")]
    Unreachable {
        /// Where the load was to go.
        target: String,
        /// What the system or the peer said.
        reason: String,
    },
    /// The system refused a resource.
    #[error("{what}: {source}")]
    System {
        /// What was being done.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl Error {
    fn system(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { what, source }
    }
}

/// Generates the load and prints the report on standard output; blocks until the end of
/// `--duration` (as a server: until the process is ended).
///
/// The exit code is 0 when something was answered and nothing failed, otherwise 1.
///
/// # Errors
/// When the arguments contradict each other, the target cannot be reached at all, or the system
/// refuses sockets or descriptors.
#[allow(clippy::print_stdout)] // the report is what the command is there for
pub fn run(args: &BenchArgs) -> Result<ExitCode, Error> {
    let plan = args.plan()?;
    let report = match plan.work {
        Work::Serve { address, sink } => return server::run(address, sink),
        Work::Requests(target) => client::run(&target, &plan.load)?,
        Work::Hold { target, connections } => hold::run(&target, connections, &plan.load)?,
        Work::Bulk(target) => bulk::run(&target, &plan.load)?,
    };
    if args.json {
        println!("{}", report.json());
    } else {
        print!("{report}");
    }
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(test)]
mod tests;
