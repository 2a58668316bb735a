//! The commands of `ringway`. Exit codes: 0 for success, 1 for a configuration or runtime error, 2
//! for wrong usage.

mod ca;
mod check;
pub mod explain;
mod generate;
mod inject;
mod intercept;
mod live;

use std::backtrace::BacktraceStatus;
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

use crate::error::plain;
use crate::sources::files;
use crate::telemetry::logs;

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
    #[command(after_help = "Examples:\n  ringway check -c conf/gateway\n  \
        ringway check --strict -c conf/gateway    # a warning is an error, too\n\n\
        The command opens no port and starts nothing.")]
    Check(check::CheckArgs),
    /// Show the result of a request, and why, without sending it.
    #[command(after_help = "Example:\n  \
        ringway explain -c conf/canary -H 'x-canary: true' GET http://shop.example.com/cart\n  \
        ringway explain -c conf/ --from spiffe://cluster.local/ns/shop/sa/web GET http://shop/")]
    Explain(explain::ExplainArgs),
    /// Show the requests of a running proxy as they end.
    #[command(after_help = "Examples:\n  ringway tap\n  \
        ringway tap 'status >= 500 or duration > 250ms'\n  \
        ringway tap -H x-tenant -n 10 'host == \"shop.example.com\"'\n\n\
        The filter is that of the access log.")]
    Tap(live::TapArgs),
    /// Show the services, routes and endpoints of a running proxy, refreshed each second.
    #[command(after_help = "Examples:\n  ringway top\n  \
        ringway top --admin 10.0.0.1:9900 --token /etc/ringway/admin.token\n  \
        ringway top --once    # prints the tables and ends")]
    Top(live::TopArgs),
    /// Show the story of one of the last requests of a running proxy: rule, policies, attempts.
    #[command(after_help = "Examples:\n  \
        ringway why 2f1c9a54-6b8e-4c64-9d0b-6a7b0c7b6c11\n  \
        ringway why    # the last requests that failed or were slow\n\n\
        The id is the x-request-id of the request. It is in the access log, too.")]
    Why(live::WhyArgs),
    /// Print the JSON Schema of the configuration, for editors.
    #[command(after_help = "Example:\n  ringway schema > ringway.schema.json\n  \
        # first line of a file: # yaml-language-server: $schema=ringway.schema.json")]
    Schema,
    /// Print completions for a shell.
    #[command(after_help = "Examples:\n  \
        ringway completions bash > /usr/share/bash-completion/completions/ringway\n  \
        ringway completions zsh > /usr/share/zsh/vendor-completions/_ringway\n  \
        ringway completions fish > ~/.config/fish/completions/ringway.fish")]
    Completions(generate::CompletionsArgs),
    /// Print the manual page, or write the pages of all commands.
    #[command(after_help = "Examples:\n  ringway man | man -l -\n  \
        ringway man --dir /usr/local/share/man/man1    # then: man ringway-run")]
    Man(generate::ManArgs),
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
    /// Add the sidecar to the pods of Kubernetes' workloads, in YAML or JSON.
    #[command(after_help = "Examples:\n  \
        ringway inject -f deployment.yaml | kubectl apply -f -\n  \
        kubectl get deployments -n shop -o yaml | ringway inject | kubectl apply -f -\n  \
        ringway inject -f shop.yaml --image registry.example.com/ringway:1 \\\n    \
        --exclude-inbound-ports 22,9100\n  \
        ringway inject --serve 0.0.0.0:8443 --cert tls.crt --key tls.key    # the webhook\n\n\
        The result is on standard output, and a line for each object on standard error. Other \
        documents pass unchanged, and so does a pod that has its sidecar.\n\n\
        Annotations of a pod change the options for it: ringway.io/inject: \"false\" leaves it \
        out; ringway.io/image, config, secret, admin-port, exclude-inbound-ports, \
        exclude-outbound-ports, exclude-inbound-cidrs, exclude-outbound-cidrs, cpu, memory, \
        cpu-limit, memory-limit.")]
    Inject(inject::InjectArgs),
    /// Try a configuration against failures, on a simulated network in virtual time.
    #[command(after_help = "Examples:\n  ringway simulate -c conf/canary\n  \
        ringway simulate -c conf/canary --scenario conf/scenarios/canary.yaml --svg result.svg\n\n\
        The exit code is 1 if an expectation of the scenario fails.")]
    Simulate(crate::simulate::SimulateArgs),
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

/// Runs the command of the command line.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    start_log(cli.log, &cli.command);
    match cli.command {
        Command::Run(arguments) => {
            let RunArgs { configuration, interception } = arguments;
            end(crate::control::run::run(configuration.config, interception.install()))
        }
        Command::Check(arguments) => check::check(&arguments),
        Command::Explain(arguments) => explain::explain(&arguments),
        Command::Tap(arguments) => live::tap(&arguments),
        Command::Top(arguments) => live::top(&arguments),
        Command::Why(arguments) => live::why(&arguments),
        Command::Schema => {
            say(&format!("{:#}\n", files::schema()));
            ExitCode::SUCCESS
        }
        Command::Completions(arguments) => generate::completions(&arguments),
        Command::Man(arguments) => generate::man(&arguments),
        Command::Ca(command) => ca::ca(command),
        Command::Intercept(command) => intercept::intercept(command),
        Command::Inject(arguments) => inject::inject(&arguments),
        Command::Demo(arguments) => end(crate::demo::run(&arguments)),
        Command::Simulate(arguments) => crate::simulate::run(&arguments),
        Command::Bench(arguments) => bench(&arguments),
    }
}

/// Prints the result of a command. Ignores the error of a closed pipe (`| head`): the command has
/// done its work.
fn say(text: &str) {
    std::io::stdout().write_all(text.as_bytes()).ok();
}

/// Ends a command that has run the proxy. Prints the error, but does not wait for a reader of
/// standard error that is stuck.
fn end(result: Result<(), impl std::fmt::Display>) -> ExitCode {
    let code = match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let message = error.to_string();
            writeln!(logs::ProcessLog, "{}", message.trim_end()).ok();
            ExitCode::FAILURE
        }
    };
    logs::finish_process_log(logs::FINISH_LIMIT);
    code
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

fn start_log(style: LogStyle, command: &Command) {
    // The proxy must not wait until its log is read. Other commands may wait.
    let writer = match command {
        Command::Run(_) | Command::Demo(_) => match logs::start_process_log() {
            Ok(writer) => {
                std::panic::set_hook(Box::new(log_panic));
                BoxMakeWriter::new(writer)
            }
            Err(error) => {
                eprintln!("error: cannot start the log thread: {}", plain(&error));
                BoxMakeWriter::new(std::io::sink)
            }
        },
        _ => BoxMakeWriter::new(std::io::stderr),
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    match style {
        LogStyle::Text => {
            log.with_target(false).with_ansi(std::io::stderr().is_terminal()).init();
        }
        LogStyle::Json => log.json().init(),
    }
}

/// Logs a panic. The default hook would write to standard error directly, which could block a
/// worker.
fn log_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("unnamed");
    let backtrace = std::backtrace::Backtrace::capture();
    match backtrace.status() {
        BacktraceStatus::Captured => {
            tracing::error!(thread, "bug in Ringway, please report it: {panic}\n{backtrace}");
        }
        _ => tracing::error!(
            thread,
            "bug in Ringway, please report it (RUST_BACKTRACE=1 adds a backtrace): {panic}"
        ),
    }
}
