//! `ringway bench URL`: a load generator for HTTP and TCP, with and without TLS, on one thread. It
//! also has a simple TCP server, for measurements of a proxy in front of it.
//!
//! It does not measure the proxy with the proxy's own code: `client` uses epoll directly, for
//! HTTP/1.1 and TCP, and `streams` uses other libraries for HTTP/2 and HTTP/3. It must need little
//! CPU, because it may share a CPU with the server behind the proxy.

pub mod answer;
mod args;
mod bulk;
mod client;
mod hold;
mod link;
mod pace;
mod poller;
mod report;
mod server;
mod streams;

use std::io;
use std::process::ExitCode;

pub use args::BenchArgs;

use args::Work;

/// The reason why a run has no report.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line is wrong. The text has a correction.
    #[error("{0}")]
    Usage(String),
    /// The target could not be reached.
    #[error("no connection to {target}: {reason}; is it running?")]
    Unreachable {
        /// The target as the user wrote it.
        target: String,
        /// The error of the system or the peer.
        reason: String,
    },
    /// A system call failed.
    #[error("{what}: {source}")]
    System {
        /// The operation that failed.
        what: &'static str,
        /// The error of the system.
        source: io::Error,
    },
}

impl Error {
    fn system(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { what, source }
    }
}

/// Generates the load, and prints the report on standard output. Blocks for `--duration`. As a
/// server, it does not return.
///
/// The exit code is 0 if there was at least one response and no request failed, otherwise 1.
///
/// # Errors
/// If the arguments contradict each other, if the target cannot be reached, or if the system
/// refuses sockets or descriptors.
#[allow(clippy::print_stdout)] // the command prints its report
pub fn run(args: &BenchArgs) -> Result<ExitCode, Error> {
    let plan = args.plan()?;
    let report = match plan.work {
        Work::Serve { address, sink } => return server::run(address, sink),
        Work::Requests(target) => client::run(&target, &plan.load)?,
        Work::Streams(target) => streams::run(&target, &plan.load)?,
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
