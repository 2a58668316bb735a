//! The metrics of shifts.

use std::fmt::Display;

use super::{Page, families};
use crate::snapshot::Snapshot;

/// Writes the metrics of all shifts.
pub(super) fn write(page: &mut Page, snapshot: &Snapshot) {
    let name = "ringway_shift_percent";
    page.family(name, "gauge", "The share of the new version now.");
    for shift in &snapshot.shifts {
        let [from, to] = &shift.names;
        let labels: [(&str, &dyn Display); 4] =
            [("host", &shift.host), ("name", &shift.rule), ("from", from), ("to", to)];
        page.sample(name, &labels, f64::from(shift.state.share()) / 10_000.0);
    }
    families(
        page,
        &snapshot.shifts,
        |shift| {
            let [from, to] = &shift.names;
            let labels = [("host", &shift.host), ("name", &shift.rule), ("from", from), ("to", to)];
            labels.map(|(label, text)| (label, text.to_string())).into()
        },
        &[
            ("gauge", "ringway_shift_done", "1 if a shift has reached its end.", |shift| {
                u64::from(shift.state.is_done())
            }),
            (
                "gauge",
                "ringway_shift_aborted",
                "1 if a shift went back because the new version was bad.",
                |shift| u64::from(shift.state.is_aborted()),
            ),
        ],
    );
    let versions = snapshot.shifts.iter().flat_map(|shift| {
        let names = shift.names.iter().zip(shift.state.totals());
        names.map(move |(name, counts)| (shift, name, counts))
    });
    families(
        page,
        &versions.collect::<Vec<_>>(),
        |(shift, version, _)| {
            let labels = [("host", &shift.host), ("name", &shift.rule), ("version", version)];
            labels.map(|(label, text)| (label, text.to_string())).into()
        },
        &[
            (
                "counter",
                "ringway_shift_requests_total",
                "Requests of a shift that say something about the version.",
                |(.., counts)| counts.requests,
            ),
            (
                "counter",
                "ringway_shift_errors_total",
                "Requests of a shift that failed, as their clients see it.",
                |(.., counts)| counts.errors,
            ),
            (
                "counter",
                "ringway_shift_slow_total",
                "Requests of a shift whose response took longer than p99 of abort_if.",
                |(.., counts)| counts.slow,
            ),
        ],
    );
}
