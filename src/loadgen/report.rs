//! Counts the results of requests, and makes the report.

use std::fmt;
use std::io;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use crate::error::plain;

/// The reason why a request has no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The connection could not be opened.
    Connect,
    /// The TLS handshake failed.
    Handshake,
    /// The peer reset the connection, or the system did.
    Reset,
    /// The peer closed the connection before the response was complete.
    Closed,
    /// The response is not valid HTTP, or not the expected echo.
    Malformed,
    /// There was no response within `--timeout`.
    Timeout,
}

impl Failure {
    const ALL: [Self; 6] =
        [Self::Connect, Self::Handshake, Self::Reset, Self::Closed, Self::Malformed, Self::Timeout];

    fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Handshake => "handshake",
            Self::Reset => "reset",
            Self::Closed => "closed",
            Self::Malformed => "malformed",
            Self::Timeout => "timeout",
        }
    }
}

/// The counters of a run.
pub(super) struct Tally {
    /// The latencies, in nanoseconds.
    latency: Histogram<u64>,
    requests: u64,
    bytes: u64,
    /// The number of responses, by status. Index 0 is for responses without a status.
    statuses: [u64; 600],
    failures: [u64; Failure::ALL.len()],
    idle_closes: u64,
    /// The number of closed connections whose handshake had resumed a TLS session.
    resumed: u64,
    connect_reason: Option<String>,
}

/// The largest latency that the histogram can record.
const LATENCY_NS_MAX: u64 = 100_000_000_000;

impl Tally {
    pub(super) fn new() -> Self {
        // The constants are valid for the library: three significant digits, and a maximum above 2.
        let latency = Histogram::new_with_max(LATENCY_NS_MAX, 3).expect("valid constants");
        Self {
            latency,
            requests: 0,
            bytes: 0,
            statuses: [0; 600],
            failures: [0; Failure::ALL.len()],
            idle_closes: 0,
            resumed: 0,
            connect_reason: None,
        }
    }

    pub(super) fn record_answer(&mut self, latency: Duration, status: u16) {
        self.requests += 1;
        if let Some(count) = self.statuses.get_mut(usize::from(status)) {
            *count += 1;
        }
        self.record_latency(latency);
    }

    pub(super) fn record_latency(&mut self, latency: Duration) {
        let ns = u64::try_from(latency.as_nanos()).unwrap_or(LATENCY_NS_MAX);
        self.latency.saturating_record(ns.max(1));
    }

    pub(super) fn record_failure(&mut self, failure: Failure) {
        self.failures[failure as usize] += 1;
    }

    /// Counts a connection that the peer closed between two requests, which is allowed.
    pub(super) fn record_idle_close(&mut self) {
        self.idle_closes += 1;
    }

    /// Counts a connection that the client has closed.
    pub(super) fn record_close(&mut self, resumed: bool) {
        self.resumed += u64::from(resumed);
    }

    pub(super) fn note_connect_error(&mut self, error: &io::Error) {
        self.connect_reason.get_or_insert_with(|| plain(error));
    }

    pub(super) fn connect_reason(&self) -> Option<&str> {
        self.connect_reason.as_deref()
    }

    pub(super) fn add_bytes(&mut self, count: usize) {
        self.bytes += count as u64;
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn requests(&self) -> u64 {
        self.requests
    }
}

/// The result of a run. `Display` is the text for people; [`Report::json`] is for programs.
pub(super) struct Report {
    target: String,
    mode: &'static str,
    connections: usize,
    elapsed: Duration,
    tally: Tally,
    /// The number of connections that were still open at the end of `--idle`.
    held: Option<usize>,
    /// The number of requests at once on each connection of HTTP/2 or HTTP/3.
    streams: Option<u32>,
}

impl Report {
    pub(super) fn new(
        target: String,
        mode: &'static str,
        connections: usize,
        elapsed: Duration,
        tally: Tally,
    ) -> Self {
        Self { target, mode, connections, elapsed, tally, held: None, streams: None }
    }

    pub(super) fn with_held(self, held: usize) -> Self {
        Self { held: Some(held), ..self }
    }

    pub(super) fn with_streams(self, streams: u32) -> Self {
        Self { streams: Some(streams), ..self }
    }

    /// Whether there was a response, all statuses are below 400, and no request failed.
    pub(super) fn is_clean(&self) -> bool {
        let refused: u64 = self.tally.statuses[400..].iter().sum();
        self.tally.requests > 0 && refused == 0 && self.tally.failures.iter().all(|&n| n == 0)
    }

    pub(super) fn json(&self) -> Value {
        let tally = &self.tally;
        let statuses = self.statuses().map(|(status, n)| (status.to_string(), json!(n)));
        let failures =
            Failure::ALL.map(|kind| (kind.name().to_owned(), json!(tally.failures[kind as usize])));
        let mut report = json!({
            "target": self.target,
            "mode": self.mode,
            "connections": self.connections,
            "duration_s": self.elapsed.as_secs_f64(),
            "requests": tally.requests,
            "requests_per_s": self.per_second(tally.requests),
            "bytes": tally.bytes,
            "bytes_per_s": self.per_second(tally.bytes),
            "statuses": statuses.collect::<Map<_, _>>(),
            "errors": failures.into_iter().collect::<Map<_, _>>(),
            "idle_closes": tally.idle_closes,
            "resumed": tally.resumed,
            "latency_us": self.latency_us(),
        });
        if let Some(held) = self.held {
            report["held"] = json!(held);
        }
        if let Some(streams) = self.streams {
            report["streams"] = json!(streams);
        }
        report
    }

    fn latency_us(&self) -> Value {
        if !self.has_latency() {
            return Value::Null;
        }
        let mut latency = Map::new();
        for (name, quantile) in QUANTILES {
            latency.insert(name.replace('.', "_"), json!(self.quantile_us(quantile)));
        }
        latency.insert("max".to_owned(), json!(self.tally.latency.max() as f64 / 1e3));
        latency.insert("mean".to_owned(), json!(self.tally.latency.mean() / 1e3));
        Value::Object(latency)
    }

    fn quantile_us(&self, quantile: f64) -> f64 {
        self.tally.latency.value_at_quantile(quantile) as f64 / 1e3
    }

    fn has_latency(&self) -> bool {
        self.mode != "bulk" && !self.tally.latency.is_empty()
    }

    fn statuses(&self) -> impl Iterator<Item = (usize, u64)> {
        let counted = self.tally.statuses.iter().copied().enumerate().skip(1);
        counted.filter(|&(_, count)| count > 0)
    }

    fn per_second(&self, count: u64) -> f64 {
        count as f64 / self.elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
    }
}

const QUANTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999)];

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tally = &self.tally;
        let seconds = self.elapsed.as_secs_f64();
        write!(f, "{}: {} loop, {} connections", self.target, self.mode, self.connections)?;
        if let Some(streams) = self.streams {
            write!(f, " x {streams} streams")?;
        }
        writeln!(f, ", {seconds:.2} s")?;
        if self.mode == "bulk" {
            let mb = self.per_second(tally.bytes) / 1e6;
            writeln!(f, "  sent      {} MB, {mb:.1} MB/s", tally.bytes / 1_000_000)?;
        } else {
            let rate = self.per_second(tally.requests);
            writeln!(f, "  answers   {}, {rate:.1} a second", tally.requests)?;
            writeln!(f, "  received  {} bytes", tally.bytes)?;
        }
        if let Some(held) = self.held {
            writeln!(f, "  held      {held} connections to the end")?;
        }
        if self.has_latency() {
            let shown = QUANTILES.map(|(name, q)| format!("{name} {:.0} µs", self.quantile_us(q)));
            let max = tally.latency.max() / 1000;
            writeln!(f, "  latency   {}, max {max} µs", shown.join(", "))?;
        }
        for (status, count) in self.statuses() {
            writeln!(f, "  status    {status}: {count}")?;
        }
        for kind in Failure::ALL.iter().filter(|kind| tally.failures[**kind as usize] > 0) {
            writeln!(f, "  failed    {}: {}", kind.name(), tally.failures[*kind as usize])?;
        }
        if let Some(reason) = tally.connect_reason() {
            writeln!(f, "  first failed connection: {reason}")?;
        }
        if tally.resumed > 0 {
            writeln!(f, "  resumed   {} TLS sessions", tally.resumed)?;
        }
        if tally.idle_closes > 0 {
            writeln!(f, "  closed by the peer while idle: {}", tally.idle_closes)?;
        }
        Ok(())
    }
}
