//! The rows of `ringway top`: rates between two samples, sorted and filtered.

use super::sample::{Counters, Sample};

/// The kind of the items in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    Services,
    Routes,
    Endpoints,
}

impl View {
    pub(super) const ALL: [Self; 3] = [Self::Services, Self::Routes, Self::Endpoints];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Services => "services",
            Self::Routes => "routes",
            Self::Endpoints => "endpoints",
        }
    }

    /// The names of the columns.
    pub(super) fn columns(self) -> &'static [&'static str] {
        match self {
            Self::Services => &["service", "req/s", "success", "p50", "p90", "p99", "active"],
            Self::Routes => &["route", "req/s", "success"],
            Self::Endpoints => &["endpoint", "req/s", "success", "mean", "active", "state"],
        }
    }
}

/// How a table is sorted, and which rows it has.
#[derive(Clone, Debug)]
pub(super) struct Order {
    /// The column.
    pub(super) column: usize,
    /// Whether the smallest value comes first.
    pub(super) ascending: bool,
    /// The text that names of rows contain, in any case.
    pub(super) filter: String,
}

/// A value of a row, for sorting and for showing. `None` has no value.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Cell {
    pub(super) number: Option<f64>,
    pub(super) text: String,
}

impl Cell {
    fn of(number: Option<f64>, text: impl Fn(f64) -> String) -> Self {
        Self { number, text: number.map_or_else(|| "-".to_owned(), text) }
    }
}

/// The rows of `view` for the time between two samples, which are `seconds` apart.
pub(super) fn rows(
    view: View,
    (old, new): (&Sample, &Sample),
    seconds: f64,
    order: &Order,
) -> Vec<Vec<Cell>> {
    let index = view as usize;
    let none = Counters::default();
    let wanted = order.filter.to_lowercase();
    let items = new.views[index].iter();
    let mut rows: Vec<Vec<Cell>> = items
        .filter(|(name, _)| name.to_lowercase().contains(&wanted))
        .map(|(name, now)| {
            let before = old.views[index].get(name).unwrap_or(&none);
            row(view, name, (before, now), seconds)
        })
        .collect();
    let column = order.column.min(view.columns().len() - 1);
    rows.sort_by(|one, other| {
        let (one, other) = (&one[column], &other[column]);
        let ordering = match (one.number, other.number) {
            (Some(one), Some(other)) => one.total_cmp(&other),
            // Rows without a value come last when the largest comes first.
            (one, other) if one.is_some() != other.is_some() => one.is_some().cmp(&other.is_some()),
            _ => other.text.cmp(&one.text),
        };
        if order.ascending { ordering } else { ordering.reverse() }
    });
    rows
}

fn row(view: View, name: &str, (old, new): (&Counters, &Counters), seconds: f64) -> Vec<Cell> {
    let requests = (new.requests - old.requests).max(0.0);
    let failures = (new.failures - old.failures).clamp(0.0, requests);
    let name = Cell { number: None, text: super::super::plain(name) };
    let rate = Cell::of(Some(requests / seconds), |rate| format!("{rate:.1}"));
    let share = (requests > 0.0).then(|| (1.0 - failures / requests) * 100.0);
    let success = Cell::of(share, |share| format!("{share:.2}%"));
    let active = Cell::of(Some(new.active), |active| format!("{active}"));
    let ms = |value| Cell::of(value, |ms| format!("{ms:.1}ms"));
    let mut cells = vec![name, rate, success];
    match view {
        View::Services => {
            let shares = [0.5, 0.9, 0.99];
            let exact = new.durations.since(&old.durations).quantiles_ms(shares);
            let coarse = |share| percentile(&old.buckets, &new.buckets, share);
            let found = exact.map_or_else(|| shares.map(coarse), |exact| exact.map(Some));
            cells.extend(found.map(ms));
            cells.push(active);
        }
        View::Routes => {}
        View::Endpoints => {
            let count = new.duration.1 - old.duration.1;
            let mean = (count > 0.0).then(|| (new.duration.0 - old.duration.0) / count);
            let state = if new.is_out { "out" } else { "ok" };
            cells.extend([ms(mean), active, Cell { number: None, text: state.into() }]);
        }
    }
    cells
}

/// The percentile of the durations between two samples, in milliseconds. Inside a bucket, durations
/// count as spread evenly.
fn percentile(old: &[(f64, f64)], new: &[(f64, f64)], share: f64) -> Option<f64> {
    let before = |index: usize| old.get(index).map_or(0.0, |(_, count)| *count);
    let counted = new.iter().enumerate();
    let counts: Vec<(f64, f64)> =
        counted.map(|(index, (bound, count))| (*bound, count - before(index))).collect();
    let all = counts.last()?.1;
    if all <= 0.0 {
        return None;
    }
    let (mut low, mut below) = (0.0, 0.0);
    for (bound, count) in counts {
        if count >= all * share {
            if bound.is_infinite() {
                return Some(low);
            }
            let part = if count > below { (all * share - below) / (count - below) } else { 1.0 };
            return Some(low + (bound - low) * part);
        }
        (low, below) = (bound, count);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(lines: &[&str]) -> Sample {
        Sample::read(&lines.join("\n"))
    }

    fn shown(rows: &[Vec<Cell>]) -> Vec<String> {
        let text =
            |row: &Vec<Cell>| row.iter().map(|cell| &*cell.text).collect::<Vec<_>>().join(" ");
        rows.iter().map(text).collect()
    }

    #[test]
    fn rows_have_rates_and_are_sorted_and_filtered() {
        let old =
            sample(&["ringway_route_requests_total{host=\"a\",route=\"x\",class=\"2xx\"} 10"]);
        let new = sample(&[
            "ringway_route_requests_total{host=\"a\",route=\"x\",class=\"2xx\"} 30",
            "ringway_route_requests_total{host=\"a\",route=\"x\",class=\"5xx\"} 20",
            "ringway_route_requests_total{host=\"b\",route=\"y\",class=\"2xx\"} 100",
            "ringway_route_requests_total{host=\"c\",route=\"z\",class=\"2xx\"} 0",
        ]);
        let table = |column, ascending, filter: &str| {
            let order = Order { column, ascending, filter: filter.into() };
            shown(&rows(View::Routes, (&old, &new), 2.0, &order))
        };
        let all = ["b y 50.0 100.00%", "a x 20.0 50.00%", "c z 0.0 -"];
        assert_eq!(table(1, false, ""), all);
        assert_eq!(table(1, true, "").last().unwrap(), all[0]);
        assert_eq!(table(0, false, ""), [all[1], all[0], all[2]]);
        assert_eq!(table(2, false, ""), all);
        assert_eq!(table(9, false, "A X"), [all[1]]);
    }

    #[test]
    fn percentiles_of_services_are_exact_if_the_proxy_tells_the_durations() {
        let line = "ringway_service_requests_total{service=\"a\",class=\"2xx\"}";
        let take = |requests: u32, latencies: &str| {
            let mut sample = sample(&[&format!("{line} {requests}")]);
            sample.read_latencies(latencies);
            sample
        };
        let old = take(10, "{\"a\":[[5000,10]],\"other\":[[1,1]]}");
        let new = take(110, "{\"a\":[[5000,10],[20000,98],[900000,2]]}");
        let order = Order { column: 0, ascending: true, filter: String::new() };
        let rows = rows(View::Services, (&old, &new), 1.0, &order);
        assert!(rows[0][3].number.is_some_and(|p50| (p50 / 20.0 - 1.0).abs() < 0.02));
        assert!(rows[0][5].number.is_some_and(|p99| (p99 / 900.0 - 1.0).abs() < 0.02));
        assert_eq!(take(1, "nonsense").views[0]["a"].durations, Default::default());
    }

    #[test]
    fn percentiles_are_those_of_the_time_between_the_samples() {
        let old = [(1.0, 100.0), (10.0, 100.0), (f64::INFINITY, 100.0)];
        let new = [(1.0, 150.0), (10.0, 200.0), (f64::INFINITY, 200.0)];
        assert_eq!(percentile(&old, &new, 0.5), Some(1.0));
        assert_eq!(percentile(&old, &new, 0.75), Some(5.5));
        assert_eq!(percentile(&new, &new, 0.5), None);
        assert_eq!(percentile(&[], &[], 0.5), None);
        let slow = [(1.0, 0.0), (10.0, 0.0), (f64::INFINITY, 7.0)];
        assert_eq!(percentile(&[], &slow, 0.99), Some(10.0));
    }
}
