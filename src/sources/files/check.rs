//! The report of `ringway check`.

use std::path::PathBuf;

use super::diagnostic::{Diagnostics, Severity};
use super::{Environment, Resolutions, compile, load, warnings};
use crate::compile::registry::Registry;

/// The result of a check, as texts for the operator.
pub struct Report {
    /// The text of all mistakes, each with its place.
    pub mistakes: String,
    /// The last line of the output: the numbers of items and mistakes.
    pub summary: String,
    /// Whether the configuration is accepted.
    pub accepted: bool,
}

/// Checks the files of the `-c` arguments. With `strict`, a warning is an error.
pub fn check(arguments: &[PathBuf], environment: &dyn Environment, strict: bool) -> Report {
    let loaded = load(arguments, environment);
    let compiled = compile(&loaded, 1, &mut Registry::new(1), &Resolutions::new());
    let (mut found, counts) = match &compiled {
        Ok(compiled) => {
            let snapshot = &compiled.snapshot;
            let listeners = counted(snapshot.listeners.len(), "listener");
            let services = counted(snapshot.services.len(), "service");
            (warnings(&loaded, compiled), format!("ok: {listeners}, {services}"))
        }
        Err(errors) => (errors.clone(), String::new()),
    };
    if strict {
        found.list.iter_mut().for_each(|mistake| mistake.severity = Severity::Error);
    }
    let mut report = report(&found, counts);
    for server in compiled.iter().flat_map(|compiled| compiled.sources.names()) {
        report.summary.push_str(&format!("\nnot asked by this check: {server}"));
    }
    report
}

fn report(found: &Diagnostics, ok: String) -> Report {
    let of = |severity| found.list.iter().filter(|found| found.severity == severity).count();
    let (errors, warnings) = (of(Severity::Error), of(Severity::Warning));
    let mut parts = Vec::new();
    if errors > 0 {
        parts.push(counted(errors, "error"));
    } else {
        parts.push(ok);
    }
    if warnings > 0 {
        parts.push(counted(warnings, "warning"));
    }
    Report { mistakes: found.to_string(), summary: parts.join(", "), accepted: errors == 0 }
}

/// The number with its noun: `1 error`, `2 errors`.
fn counted(count: usize, of: &str) -> String {
    format!("{count} {of}{}", if count == 1 { "" } else { "s" })
}
