//! Draws the result of a simulation as SVG: the share of successful requests and the response times
//! over time, and the events.

use std::fmt::Write as _;
use std::time::Duration;

use super::report::{clock, percent, short};
use super::result::{Interval, Outcome};
use super::scenario::Scenario;

const WIDTH: f64 = 960.0;
const LEFT: f64 = 70.0;
const CHART: f64 = 150.0;
const GAP: f64 = 50.0;
const EVENT: f64 = 16.0;

/// The colours and names of the curves.
const SERIES: [(&str, &str); 2] =
    [("#1a7f37", "this configuration"), ("#cf222e", "without its policies")];

/// Draws the result, and the result without the policies if there is one.
pub fn draw(scenario: &Scenario, outcome: &Outcome, without: Option<&Outcome>) -> String {
    let outcomes: Vec<&Outcome> = std::iter::once(outcome).chain(without).collect();
    let mut svg = String::new();
    let events_at = 40.0 + 2.0 * (CHART + GAP);
    let height = events_at + EVENT * (scenario.events.len() as f64 + 1.0) + 20.0;
    let end = scenario.duration.as_secs_f64();
    let x = |time: Duration| LEFT + time.as_secs_f64() / end * (WIDTH - LEFT - 20.0);
    put(
        &mut svg,
        format_args!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>"
        ),
    );
    for (number, ((colour, name), _)) in SERIES.iter().zip(&outcomes).enumerate() {
        let at = LEFT + 180.0 * number as f64;
        put(&mut svg, format_args!("<text x=\"{at}\" y=\"18\" fill=\"{colour}\">{name}</text>"));
    }
    let slowest = outcomes.iter().flat_map(|outcome| &outcome.intervals);
    let slowest = slowest.map(|interval| interval.quantile(0.99)).max().unwrap_or_default();
    let parts = slowest.as_secs_f64().max(1e-6);
    let success = Interval::success;
    let slow = |interval: &Interval| interval.quantile(0.99).as_secs_f64() / parts;
    chart(&mut svg, 0, "success", &percent(1.0), &curves(&outcomes, x, success));
    chart(&mut svg, 1, "p99", &short(slowest), &curves(&outcomes, x, slow));
    for (number, event) in scenario.events.iter().enumerate() {
        let (from, until) = (x(event.from), x(event.until.min(scenario.duration)));
        let text = format!("{} {}", clock(event.from), escaped(&event.text));
        bar(&mut svg, events_at + number as f64 * EVENT, (from, until), &text);
    }
    put(&mut svg, format_args!("</svg>"));
    svg
}

/// The points of each curve: a time, and a value from 0 to 1.
fn curves(
    outcomes: &[&Outcome],
    x: impl Fn(Duration) -> f64,
    value: impl Fn(&Interval) -> f64,
) -> Vec<Vec<(f64, f64)>> {
    let point = |interval: &Interval| (x(interval.from), value(interval));
    outcomes.iter().map(|outcome| outcome.intervals.iter().map(point).collect()).collect()
}

/// Draws a chart. Charts are numbered from the top; `top` is the label of the value 1.
fn chart(svg: &mut String, number: u8, name: &str, top: &str, curves: &[Vec<(f64, f64)>]) {
    let y = 40.0 + f64::from(number) * (CHART + GAP);
    let (bottom, right, label) = (y + CHART, WIDTH - 20.0, LEFT - 6.0);
    put(
        svg,
        format_args!(
            "<path d=\"M{LEFT} {y}V{bottom}H{right}\" fill=\"none\" stroke=\"#888\"/>\n\
         <text x=\"{LEFT}\" y=\"{}\">{name}</text>\n\
         <text x=\"{label}\" y=\"{}\" text-anchor=\"end\">{top}</text>\n\
         <text x=\"{label}\" y=\"{bottom}\" text-anchor=\"end\">0</text>",
            y - 6.0,
            y + 10.0
        ),
    );
    // The first curve is drawn last, so that it is above the other one.
    for ((colour, _), curve) in SERIES.iter().zip(curves).rev() {
        let points = curve.iter().map(|(x, value)| format!("{x:.1},{:.1}", bottom - value * CHART));
        let points = points.collect::<Vec<_>>().join(" ");
        put(
            svg,
            format_args!(
                "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" \
             stroke-width=\"2\"/>"
            ),
        );
    }
}

/// Draws an event as a bar with its text. `from` and `until` are horizontal positions.
fn bar(svg: &mut String, y: f64, (from, until): (f64, f64), text: &str) {
    let (width, text_at, text_y) = ((until - from).max(1.0), from.min(WIDTH * 0.6) + 2.0, y + 10.0);
    put(
        svg,
        format_args!(
            "<rect x=\"{from:.1}\" y=\"{y}\" width=\"{width:.1}\" height=\"12\" \
         fill=\"#ffd8a8\"/>\n\
         <text x=\"{text_at:.1}\" y=\"{text_y}\" font-size=\"11\">{text}</text>"
        ),
    );
}

fn put(svg: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    writeln!(svg, "{text}").unwrap_or_default();
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
