//! The report of a simulation, as text for a terminal.

use std::fmt::{self, Write as _};
use std::time::Duration;

use super::result::{Interval, Outcome};
use super::scenario::{Expect, Scenario, time};

/// The result of a simulation, with and without the policies.
pub struct Report<'a> {
    /// The scenario that was simulated.
    pub scenario: &'a Scenario,
    /// The result with the operator's configuration.
    pub outcome: &'a Outcome,
    /// The result of the same configuration without its policies. `None` if it has none.
    pub without: Option<&'a Outcome>,
}

impl Report<'_> {
    /// The expectations, each with whether it is met.
    fn verdicts(&self) -> Vec<(bool, String)> {
        let total = self.outcome.total();
        let Expect { success, p50, p99, attempts } = self.scenario.expect;
        let mut verdicts = Vec::new();
        if let Some(least) = success {
            let is = format!(
                "success {}, expected at least {}",
                percent(total.success()),
                percent(least)
            );
            verdicts.push((total.success() >= least, is));
        }
        for (name, share, most) in [("p50", 0.5, p50), ("p99", 0.99, p99)] {
            let Some(most) = most else { continue };
            let is = total.quantile(share);
            verdicts.push((
                is <= most,
                format!("{name} {}, expected at most {}", short(is), time(most)),
            ));
        }
        if let Some(most) = attempts {
            let is = total.attempts_per_request();
            verdicts
                .push((is <= most, format!("{is:.2} attempts a request, expected at most {most}")));
        }
        verdicts
    }

    /// Whether all expectations are met.
    pub fn holds(&self) -> bool {
        self.verdicts().iter().all(|(holds, _)| *holds)
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scenario, outcome, without } = self;
        let Scenario { duration, rate, seed, .. } = scenario;
        writeln!(f, "{} at {rate} requests per second, seed {seed}\n", time(*duration))?;
        writeln!(
            f,
            "{:>8} {:>9} {:>9} {:>8} {:>8} {:>8}  events",
            "time", "requests", "success", "p50", "p99", "attempts"
        )?;
        for interval in &outcome.intervals {
            line(f, interval)?;
        }
        writeln!(f, "\n{:>24} {:>9} {:>9}", "endpoint", "requests", "errors")?;
        for (address, requests, errors) in &outcome.endpoints {
            writeln!(f, "{address:>24} {requests:>9} {errors:>9}")?;
        }
        writeln!(f, "\n{:>24} {:>9} {:>8} {:>8} {:>8}", "", "success", "p50", "p99", "attempts")?;
        let both = [("this configuration", Some(*outcome)), ("without its policies", *without)];
        for (name, outcome) in both {
            let Some(outcome) = outcome else { continue };
            let total = outcome.total();
            writeln!(
                f,
                "{name:>24} {:>9} {:>8} {:>8} {:>8.2}",
                percent(total.success()),
                short(total.quantile(0.5)),
                short(total.quantile(0.99)),
                total.attempts_per_request()
            )?;
        }
        let verdicts = self.verdicts();
        if !verdicts.is_empty() {
            f.write_char('\n')?;
        }
        for (holds, text) in verdicts {
            writeln!(f, "{}: {text}", if holds { "ok" } else { "FAILED" })?;
        }
        Ok(())
    }
}

fn line(f: &mut fmt::Formatter<'_>, interval: &Interval) -> fmt::Result {
    let mut text = format!(
        "{:>8} {:>9} {:>9} {:>8} {:>8} {:>8.2}  {}",
        clock(interval.from),
        interval.requests,
        percent(interval.success()),
        short(interval.quantile(0.5)),
        short(interval.quantile(0.99)),
        interval.attempts_per_request(),
        interval.notes.join("; ")
    );
    text.truncate(text.trim_end().len());
    writeln!(f, "{text}")
}

/// A share from 0 to 1 as a percentage: `99.95 %`.
pub fn percent(share: f64) -> String {
    // Round down, so that 100 % means all requests.
    format!("{:.2} %", (share * 1e4).floor() / 1e2)
}

/// A time as a short text: `12 ms`.
pub fn short(time: Duration) -> String {
    match time.as_secs_f64() {
        s if s >= 1.0 => format!("{s:.1} s"),
        s if s >= 0.01 => format!("{:.0} ms", s * 1e3),
        s => format!("{:.1} ms", s * 1e3),
    }
}

/// A time since the beginning as a clock: `1:02:03`.
pub fn clock(time: Duration) -> String {
    let s = time.as_secs();
    match s / 3600 {
        0 => format!("{}:{:02}", s / 60, s % 60),
        hours => format!("{hours}:{:02}:{:02}", s / 60 % 60, s % 60),
    }
}
