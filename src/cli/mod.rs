//! The commands. Exit codes: 0, 1 for a configuration or runtime error, 2 for wrong usage.
#![allow(clippy::print_stdout)] // commands print to standard output

mod ca;
mod explain;
mod intercept;

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::compile::Resolutions;
use crate::compile::registry::Registry;
use crate::sources::files;
use crate::sources::files::ProcessEnvironment;

/// A service-mesh proxy: one thread per core on io_uring, configured with files that it reloads.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
#[command(after_help = "Examples:\n  ringway demo\n  ringway check -c /etc/ringway\n  \
    ringway run -c /etc/ringway\n\nEach command has its own --help.")]
struct Cli {
    /// The format of the log on standard error.
    #[arg(long, global = true, value_enum, default_value_t = LogStyle::Text)]
    log: LogStyle,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum LogStyle {
    Text,
    Json,
}

#[derive(Subcommand)]
enum Command {
    /// Run the proxy until SIGTERM. It applies changed files at once, or reports their mistakes.
    #[command(after_help = "Examples:\n  ringway run -c conf/minimal\n  \
        ringway run -c base/ -c production/    # later directories override earlier ones\n  \
        ringway run -c conf/sidecar --intercept --fail-open\n\n\
        Signals: TERM drains and exits, HUP reloads. RUST_LOG=warn hides \
        messages without a problem.")]
    Run(RunArgs),
    /// Report every mistake in a configuration with its place. The exit code is 1 if there is one.
    #[command(after_help = "Example:\n  ringway check -c conf/gateway\n\n\
        The command opens no port and starts nothing.")]
    Check(Configuration),
    /// Show the result of a request, and why, without sending it.
    #[command(after_help = "Example:\n  \
        ringway explain -c conf/canary -H 'x-canary: true' GET http://shop.example.com/cart\n  \
        ringway explain -c conf/ --from spiffe://cluster.local/ns/shop/sa/web GET http://shop/")]
    Explain(explain::ExplainArgs),
    /// Print the JSON Schema of the configuration, for editors.
    #[command(after_help = "Example:\n  ringway schema > ringway.schema.json\n  \
        # first line of a file: # yaml-language-server: $schema=ringway.schema.json")]
    Schema,
    /// Start a demo: a service in two versions behind the proxy. The demo prints commands to try.
    #[command(after_help = "Example:\n  ringway demo --port 8080")]
    Demo(crate::demo::DemoArgs),
    /// Create a certificate authority, and issue certificates to workloads.
    #[command(subcommand)]
    #[command(after_help = "Examples:\n  ringway ca init\n  \
        ringway ca issue spiffe://cluster.local/ns/demo/sa/shop\n  ringway ca renew")]
    Ca(ca::CaCommand),
    /// Redirect a service's traffic to the proxy, with nft or iptables rules.
    #[command(subcommand)]
    #[command(after_help = "Examples:\n  ringway intercept up\n  \
        ringway intercept show --tproxy\n  ringway intercept down")]
    Intercept(intercept::InterceptCommand),
    /// Generate load for a server or proxy and measure it: HTTP/1.1 or TCP, on one thread.
    Bench(crate::loadgen::BenchArgs),
}

/// The arguments of `ringway run`.
#[derive(Args)]
struct RunArgs {
    #[command(flatten)]
    configuration: Configuration,
    #[command(flatten)]
    interception: intercept::RunInterceptArgs,
}

/// The configuration to read.
#[derive(Args)]
struct Configuration {
    /// A directory of YAML files, or one file. Later arguments override earlier ones key by key.
    #[arg(short, long = "config", required = true)]
    config: Vec<PathBuf>,
}

/// Runs the command from the command line.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    start_log(cli.log);
    match cli.command {
        Command::Run(arguments) => {
            let RunArgs { configuration, interception } = arguments;
            end(crate::control::run::run(configuration.config, interception.install()))
        }
        Command::Check(configuration) => check(&configuration.config),
        Command::Explain(arguments) => explain::explain(&arguments),
        Command::Schema => {
            println!("{:#}", files::schema());
            ExitCode::SUCCESS
        }
        Command::Ca(command) => ca::ca(command),
        Command::Intercept(command) => intercept::intercept(command),
        Command::Demo(arguments) => end(crate::demo::run(&arguments)),
        Command::Bench(arguments) => bench(&arguments),
    }
}

fn end(result: Result<(), impl std::fmt::Display>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", error.to_string().trim_end());
            ExitCode::FAILURE
        }
    }
}

fn bench(arguments: &crate::loadgen::BenchArgs) -> ExitCode {
    match crate::loadgen::run(arguments) {
        Ok(code) => code,
        Err(error @ crate::loadgen::Error::Usage(_)) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start_log(style: LogStyle) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match style {
        LogStyle::Text => {
            log.with_target(false).with_ansi(std::io::stderr().is_terminal()).init();
        }
        LogStyle::Json => log.json().init(),
    }
}

fn check(arguments: &[PathBuf]) -> ExitCode {
    let loaded = files::load(arguments, &ProcessEnvironment);
    match files::compile(&loaded, 1, &mut Registry::new(1), &Resolutions::new()) {
        Ok(compiled) => {
            let snapshot = &compiled.snapshot;
            let (listeners, services) = (snapshot.listeners.len(), snapshot.services.len());
            println!("ok: {listeners} listeners, {services} services");
            ExitCode::SUCCESS
        }
        Err(errors) => {
            let count = errors.list.len();
            eprintln!("{errors}{count} {}", if count == 1 { "error" } else { "errors" });
            ExitCode::FAILURE
        }
    }
}
