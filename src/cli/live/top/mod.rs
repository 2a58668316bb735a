//! `ringway top`: the services, routes and endpoints of a running proxy, refreshed each second.

mod sample;
mod screen;
mod table;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;

use self::sample::Sample;
use self::table::{Order, View, rows};
use super::{Admin, Target, client};
use crate::cli::say;

/// The time between two samples.
const INTERVAL: Duration = Duration::from_secs(1);

/// The arguments of `ringway top`.
#[derive(Args)]
pub struct TopArgs {
    #[command(flatten)]
    target: Target,
    /// Print all tables once, for the next second, and end.
    #[arg(long)]
    once: bool,
}

/// Shows the tables until the user ends it.
pub fn top(arguments: &TopArgs) -> ExitCode {
    let shown = arguments.target.admin().and_then(|admin| match arguments.once {
        true => once(&admin),
        false => screen::run(admin),
    });
    match shown {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", error.trim_end());
            ExitCode::FAILURE
        }
    }
}

/// Asks the proxy for its counters.
fn take(admin: &Admin) -> Result<Sample, String> {
    let answer = client::get(admin, "/metrics")?;
    if answer.status != 200 {
        return Err(format!("the proxy at {} answered {}", admin.address, answer.status));
    }
    let mut sample = Sample::read(&answer.text()?);
    // An older proxy does not have this page: then percentiles come from the buckets.
    let answer = client::get(admin, "/latencies")?;
    if answer.status == 200 {
        sample.read_latencies(&answer.text()?);
    }
    Ok(sample)
}

fn once(admin: &Admin) -> Result<(), String> {
    let (old, began) = (take(admin)?, Instant::now());
    std::thread::park_timeout(INTERVAL);
    let (new, seconds) = (take(admin)?, began.elapsed().as_secs_f64());
    let order = Order { column: 1, ascending: false, filter: String::new() };
    for view in View::ALL {
        let head = view.columns().iter().map(|name| (*name).to_owned()).collect();
        let rows = rows(view, (&old, &new), seconds, &order);
        let texts = rows.into_iter().map(|row| row.into_iter().map(|cell| cell.text).collect());
        let lines: Vec<Vec<String>> = std::iter::once(head).chain(texts).collect();
        let count = view.columns().len();
        let widths: Vec<usize> = (0..count)
            .map(|at| lines.iter().map(|line| line[at].chars().count()).max().unwrap_or_default())
            .collect();
        for line in lines {
            let cells = line.iter().zip(&widths).enumerate().map(|(at, (cell, width))| match at {
                0 => format!("{cell:<width$}"),
                _ => format!("{cell:>width$}"),
            });
            say(&format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end()));
        }
        say("\n");
    }
    Ok(())
}
