//! The metrics of shifts.

use std::fmt::Display;

use super::{Page, families};
use crate::resilience::{ShiftPhase, ShiftSide};
use crate::route::Shift;
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
            let [from, to] = shift.names.each_ref().map(|name| name.to_string());
            [of_rule(shift), vec![("from", from), ("to", to)]].concat()
        },
        &[
            ("gauge", "ringway_shift_done", "1 if a shift has reached its end.", |shift| {
                u64::from(is(shift, |phase| matches!(phase, ShiftPhase::Done { .. })))
            }),
            (
                "gauge",
                "ringway_shift_aborted",
                "1 if a shift went back because the new version was bad.",
                |shift| u64::from(is(shift, |phase| matches!(phase, ShiftPhase::Aborted(_)))),
            ),
        ],
    );
    let sides = snapshot.shifts.iter().flat_map(|shift| ShiftSide::BOTH.map(|side| (shift, side)));
    families(
        page,
        &sides.collect::<Vec<_>>(),
        |(shift, side)| {
            let mut labels = of_rule(shift);
            labels.push(("version", shift.name(*side).to_owned()));
            labels
        },
        &[
            (
                "counter",
                "ringway_shift_requests_total",
                "Requests of a shift that say something about the version.",
                |(shift, side)| shift.state.total(*side).requests,
            ),
            ("counter", "ringway_shift_errors_total", "Those that failed.", |(shift, side)| {
                shift.state.total(*side).errors
            }),
            (
                "counter",
                "ringway_shift_slow_total",
                "Those whose response took longer than p99 of abort_if.",
                |(shift, side)| shift.state.total(*side).slow,
            ),
        ],
    );
}

fn of_rule(shift: &Shift) -> Vec<(&'static str, String)> {
    vec![("host", shift.host.to_string()), ("name", shift.rule.to_string())]
}

fn is(shift: &Shift, wanted: impl Fn(&ShiftPhase) -> bool) -> bool {
    shift.state.progress().is_some_and(|progress| wanted(&progress.phase))
}
