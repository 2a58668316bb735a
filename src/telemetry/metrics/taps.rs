//! The metrics of taps and traces.

use super::Page;
use crate::telemetry::status::Known;

/// Writes the number of open taps, and of the lines that they got and lost, and those of spans.
pub(super) fn write(page: &mut Page, known: &Known) {
    let taps = &known.observers.taps;
    let name = "ringway_taps_active";
    page.family(name, "gauge", "Taps (`ringway tap`, `/tap`) that are open.");
    page.sample(name, &[], taps.count() as u64);
    let (lines, dropped) = taps.lines();
    let name = "ringway_tap_lines_total";
    page.family(name, "counter", "Requests that taps have shown.");
    page.sample(name, &[], lines);
    let name = "ringway_tap_dropped_lines_total";
    let help = "Requests that a tap has not shown, because its reader was too slow.";
    page.family(name, "counter", help);
    page.sample(name, &[], dropped);
    let (recorded, dropped) = known.observers.spans.counts();
    let name = "ringway_trace_spans_total";
    page.family(name, "counter", "Spans that were recorded for the collector of traces.");
    page.sample(name, &[], recorded);
    let name = "ringway_trace_dropped_spans_total";
    let help = "Spans that were dropped: the collector was away, slow, or has refused them.";
    page.family(name, "counter", help);
    page.sample(name, &[], dropped);
}
