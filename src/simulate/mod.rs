//! `ringway simulate`: runs the operator's configuration in the proxy's own worker code against
//! failing endpoints, on a simulated network in virtual time. It opens no socket.

mod configuration;
mod endpoint;
mod grammar;
mod load;
mod picture;
mod report;
mod result;
mod scenario;
#[cfg(test)]
mod tests;
mod world;

use std::future::Future;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use self::configuration::{Configuration, places};
use self::report::Report;
use self::scenario::Scenario;
use crate::compile::Resolutions;
use crate::compile::registry::Registry;
use crate::error::plain;
use crate::runtime::io::Io;
use crate::runtime::sim::SimIo;
use crate::sources::files::{self, Diagnostics, ProcessEnvironment};

/// The arguments of `ringway simulate`.
#[derive(Args)]
pub struct SimulateArgs {
    /// A directory of YAML files, or one file. Later arguments override earlier ones key by key.
    #[arg(short, long = "config", required = true)]
    config: Vec<PathBuf>,
    /// The scenario. Without one, each endpoint in turn is slow, fails, refuses connections, and is
    /// silent.
    #[arg(long)]
    scenario: Option<PathBuf>,
    /// The seed of all random choices. It replaces the seed of the scenario.
    #[arg(long)]
    seed: Option<u64>,
    /// Write a picture of the result to this file.
    #[arg(long)]
    svg: Option<PathBuf>,
}

/// Runs `ringway simulate`. The exit code is 1 if an expectation of the scenario is not met.
pub fn run(arguments: &SimulateArgs) -> ExitCode {
    match simulate(arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{}", error.trim_end());
            ExitCode::FAILURE
        }
    }
}

fn simulate(arguments: &SimulateArgs) -> Result<bool, String> {
    let (configuration, scenario) = prepared(arguments)?;
    let mut show = progress("", scenario.duration);
    let outcome = world::run(&configuration, &scenario, &mut show)?;
    let without = match configuration.without_policies() {
        None => None,
        Some(configuration) => {
            let mut show = progress("without the policies: ", scenario.duration);
            Some(world::run(&configuration, &scenario, &mut show)?)
        }
    };
    let report = Report { scenario: &scenario, outcome: &outcome, without: without.as_ref() };
    // Ignore the error of a closed pipe (`| head`).
    io::stdout().write_all(report.to_string().as_bytes()).ok();
    if let Some(path) = &arguments.svg {
        write_picture(path, &picture::draw(&scenario, &outcome, without.as_ref()))?;
    }
    Ok(report.holds())
}

/// Loads the configuration and the scenario.
fn prepared(arguments: &SimulateArgs) -> Result<(Configuration, Scenario), String> {
    let loaded = files::load_without_log(&arguments.config, &ProcessEnvironment);
    let compiled = files::compile(&loaded, 1, &mut Registry::new(1), &Resolutions::new());
    let compiled = compiled.map_err(|mistakes| mistakes.to_string())?;
    let mut configuration = Configuration::new(&loaded.model(), &compiled.names);
    let places = places(&configuration.compile()?.snapshot);
    let requests = configuration.requests();
    if places.is_empty() {
        return Err("error: the configuration has no service with endpoints to simulate".to_owned());
    }
    let Some(path) = &arguments.scenario else {
        if requests.is_empty() {
            let text = "error: no rule forwards a simple request; \
                        write a scenario with `requests: {mix: {\"GET http://HOST/\": 1}}`";
            return Err(text.to_owned());
        }
        let mut scenario = Scenario::of_each(places, requests);
        scenario.seed = arguments.seed.unwrap_or(scenario.seed);
        return Ok((configuration, scenario));
    };
    let (file, sources) =
        files::document(path, &ProcessEnvironment).map_err(|mistakes| mistakes.to_string())?;
    let wrong = |list| Diagnostics::new(list, sources).to_string();
    let mut scenario = Scenario::of_file(file, places, requests).map_err(wrong)?;
    scenario.seed = arguments.seed.unwrap_or(scenario.seed);
    if let Some(name) = &scenario.listener {
        configuration.listen_at(name).map_err(|known| {
            format!("error: no HTTP listener is named {name:?}; write one of {}", known.join(", "))
        })?;
    }
    Ok((configuration, scenario))
}

/// Shows on a terminal which part of `duration` is already simulated.
fn progress(what: &'static str, duration: Duration) -> impl FnMut(Duration) {
    let shown = io::stderr().is_terminal();
    move |now| {
        if shown {
            let percent = 100.0 * now.as_secs_f64() / duration.as_secs_f64();
            let end = if now >= duration { "\r\x1b[K" } else { "" };
            eprint!("\r{what}{percent:.0} % of {}{end}", scenario::time(duration));
        }
    }
}

fn write_picture(path: &Path, picture: &str) -> Result<(), String> {
    std::fs::write(path, picture)
        .map_err(|error| format!("error: cannot write {}: {}", path.display(), plain(&error)))
}

/// The output of `task`. Returns `None` if it takes longer than `limit`.
async fn within<T>(io: &SimIo, limit: Duration, task: impl Future<Output = T>) -> Option<T> {
    let alarm = io.alarms().alarm();
    alarm.set(io.now() + limit);
    alarm.guard(pin!(task)).await.ok()
}
