//! The metrics of taps and traces.

use super::Page;
use crate::telemetry::status::Known;

/// Writes the number of open taps, and of the lines that they got and lost, and those of spans.
pub(super) fn write(page: &mut Page, known: &Known) {
    let taps = &known.observers.taps;
    page.gauge("ringway_taps_active", "Taps (`ringway tap`, `/tap`) that are open.", taps.count());
    let (lines, dropped) = taps.lines();
    page.counter("ringway_tap_lines_total", "Requests that taps have shown.", lines);
    page.counter(
        "ringway_tap_dropped_lines_total",
        "Requests that a tap has not shown, because its reader was too slow.",
        dropped,
    );
    let (recorded, dropped) = known.observers.spans.counts();
    page.counter(
        "ringway_trace_spans_total",
        "Spans that were recorded for the collector of traces.",
        recorded,
    );
    page.counter(
        "ringway_trace_dropped_spans_total",
        "Spans that were dropped: the collector was away, slow, or has refused them.",
        dropped,
    );
}
