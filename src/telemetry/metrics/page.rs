//! The text of the metrics page.

use std::fmt::{self, Display, Write as _};

use super::Format;
use crate::cells::{Count, Durations, Histogram, LATENCY_BUCKETS_MS, PerWorker};
use crate::http2::Flood;

/// A metric of listeners: its kind, name, help and counter.
pub(super) type Metric<C> = (&'static str, &'static str, &'static str, fn(&C) -> &Count);

/// Upper bounds of exponential buckets, in microseconds: 64, 90, 128, 180 and so on to 67 seconds.
/// They are bounds of the fine histograms, so no duration is in a wrong bucket.
const EXPONENTIAL_US: [u64; 41] = {
    let mut bounds = [0; 41];
    let mut index = 0;
    while index < bounds.len() {
        bounds[index] = [64, 90][index % 2] << (index / 2);
        index += 1;
    }
    bounds
};

/// The page so far.
pub(super) struct Page {
    pub(super) text: String,
    pub(super) format: Format,
}

impl Page {
    pub(super) fn family(&mut self, name: &str, kind: &str, help: &str) {
        // In OpenMetrics, only the samples of a counter have the suffix.
        let name = match (self.format, kind) {
            (Format::OpenMetrics, "counter") => name.strip_suffix("_total").unwrap_or(name),
            _ => name,
        };
        // Writing to a String does not fail.
        write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n").ok();
    }

    /// Writes the metrics of `table`, each with one sample for each listener.
    pub(super) fn listeners<'l, C: 'l>(
        &mut self,
        table: &[Metric<C>],
        listeners: impl Iterator<Item = (&'l str, &'l PerWorker<C>)> + Clone,
    ) {
        for &(kind, name, help, count) in table {
            self.family(name, kind, help);
            for (listener, cells) in listeners.clone() {
                self.sample(name, &[("listener", &listener)], cells.sum(count));
            }
        }
    }

    /// The label `le` of the bucket with this upper bound. `None` means the last bucket. The bounds
    /// of OpenMetrics are decimal numbers: `1.0`.
    pub(super) fn bound(&self, bound: Option<&f64>) -> String {
        let Some(bound) = bound else { return "+Inf".to_owned() };
        let text = bound.to_string();
        match self.format {
            Format::OpenMetrics if !text.contains('.') => text + ".0",
            _ => text,
        }
    }

    /// Writes a sample whose labels are already text, without braces. `le` is the upper bound of a
    /// bucket, or empty.
    pub(super) fn raw(
        &mut self,
        name: &str,
        suffix: &str,
        labels: &str,
        le: &str,
        value: impl Display,
    ) {
        let text = &mut self.text;
        for part in [name, suffix, "{", labels] {
            text.push_str(part);
        }
        if !le.is_empty() {
            let comma = if labels.is_empty() { "" } else { "," };
            write!(text, "{comma}le=\"{le}\"").ok();
        }
        writeln!(text, "}} {value}").ok();
    }

    pub(super) fn sample(
        &mut self,
        name: &str,
        labels: &[(&str, &dyn Display)],
        value: impl Display,
    ) {
        self.text.push_str(name);
        for (index, (label, text)) in labels.iter().enumerate() {
            let before = if index == 0 { '{' } else { ',' };
            write!(self.text, "{before}{label}=\"{}\"", Escaped(*text)).ok();
        }
        let after = if labels.is_empty() { "" } else { "}" };
        writeln!(self.text, "{after} {value}").ok();
    }

    pub(super) fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "counter", help);
        self.sample(name, &[], value);
    }

    pub(super) fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "gauge", help);
        self.sample(name, &[], value);
    }

    pub(super) fn flood(
        &mut self,
        name: &str,
        owner: (&str, &dyn Display),
        flood: Flood,
        count: u64,
    ) {
        if count > 0 {
            self.sample(name, &[owner, ("limit", &flood.label())], count);
        }
    }

    /// Writes the samples of a histogram of durations, in seconds. `of` finds it in the cells of a
    /// worker.
    pub(super) fn histogram<C>(
        &mut self,
        name: &str,
        labels: &[(&str, &dyn Display)],
        stats: &PerWorker<C>,
        of: impl Fn(&C) -> &Histogram,
    ) {
        let bucket = format!("{name}_bucket");
        let mut total = 0;
        for index in 0..=LATENCY_BUCKETS_MS.len() {
            total += stats.sum(|cells| &of(cells).buckets[index]);
            let bound = LATENCY_BUCKETS_MS.get(index).map(|ms| ms / 1000.0);
            let bound = self.bound(bound.as_ref());
            self.sample(&bucket, &[labels, &[("le", &bound)]].concat(), total);
        }
        let sum_us = stats.sum(|cells| &of(cells).sum_us);
        self.sample(&format!("{name}_sum"), labels, sum_us as f64 / 1e6);
        self.sample(&format!("{name}_count"), labels, total);
    }
}

impl Page {
    /// Writes the samples of a histogram of durations with exponential buckets, in seconds.
    pub(super) fn exponential(
        &mut self,
        name: &str,
        labels: &[(&str, &dyn Display)],
        durations: &Durations,
        sum_us: u64,
    ) {
        let bucket = format!("{name}_bucket");
        let (counts, total) = durations.up_to(&EXPONENTIAL_US);
        let bounds = EXPONENTIAL_US.iter().map(|us| Some(*us as f64 / 1e6)).chain([None]);
        for (bound, count) in bounds.zip(counts.into_iter().chain([total])) {
            let bound = self.bound(bound.as_ref());
            self.sample(&bucket, &[labels, &[("le", &bound)]].concat(), count);
        }
        self.sample(&format!("{name}_sum"), labels, sum_us as f64 / 1e6);
        self.sample(&format!("{name}_count"), labels, total);
    }
}

/// Displays a label value with its special characters escaped.
pub(super) struct Escaped<'a>(pub(super) &'a dyn Display);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.to_string().chars() {
            match c {
                '\\' => f.write_str("\\\\")?,
                '"' => f.write_str("\\\"")?,
                '\n' => f.write_str("\\n")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponential_buckets_count_each_duration_once_at_their_bounds() {
        let mut page = Page { text: String::new(), format: Format::OpenMetrics };
        let us = [0, 63, 64, 89, 90, 127, 128, 67_108_863, 67_108_864, u64::MAX];
        let durations = Durations::of_us(us.map(|us| (us, 1)));
        page.exponential("d", &[("a", &"b")], &durations, 1_500_000);
        for line in [
            "d_bucket{a=\"b\",le=\"0.000064\"} 2",
            "d_bucket{a=\"b\",le=\"0.00009\"} 4",
            "d_bucket{a=\"b\",le=\"0.000128\"} 6",
            "d_bucket{a=\"b\",le=\"0.00018\"} 7",
            "d_bucket{a=\"b\",le=\"1.048576\"} 7",
            "d_bucket{a=\"b\",le=\"67.108864\"} 8",
            "d_bucket{a=\"b\",le=\"+Inf\"} 10",
            "d_sum{a=\"b\"} 1.5",
            "d_count{a=\"b\"} 10",
        ] {
            assert!(page.text.lines().any(|it| it == line), "{line} in\n{}", page.text);
        }
        assert!(EXPONENTIAL_US.is_sorted() && EXPONENTIAL_US[40] == 67_108_864);
        assert_eq!(page.text.lines().count(), EXPONENTIAL_US.len() + 3);
    }
}
