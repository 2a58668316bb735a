//! The metrics of captured traffic.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::SocketAddr;

use super::page::{Metric, Page};
use crate::mesh::CaptureCells;
use crate::mesh::{Capture, CaptureError, OUTCOMES, Seen, UdpRefusal, outcome_label};
use crate::snapshot::Snapshot;

/// Writes the metrics of all listeners for captured traffic. Writes nothing if there is none.
pub(super) fn write(page: &mut Page, snapshot: &Snapshot) {
    let mut captures: Vec<(&str, &Capture)> = snapshot
        .listeners
        .iter()
        .filter_map(|listener| Some((&*listener.name, &**listener.capture()?)))
        .collect();
    if captures.is_empty() {
        return;
    }
    detection(page, &captures);
    refusals(page, &captures);
    destinations(page, &captures);
    captures.retain(|(_, capture)| capture.udp.is_some());
    udp(page, &captures);
}

fn detection(page: &mut Page, captures: &[(&str, &Capture)]) {
    let name = "ringway_capture_detected_total";
    page.family(name, "counter", "Captured connections, by detected protocol.");
    for (listener, capture) in captures {
        for outcome in 0..OUTCOMES {
            let count = capture.stats.sum(|cells| &cells.detected[outcome]);
            let labels: [(&str, &dyn Display); 2] =
                [("listener", listener), ("protocol", &outcome_label(outcome))];
            page.sample(name, &labels, count);
        }
    }
    let name = "ringway_capture_detection_seconds";
    page.family(
        name,
        "histogram",
        "Time from accept until the protocol of a connection was known.",
    );
    for (listener, capture) in captures {
        page.histogram(name, &[("listener", listener)], &capture.stats, |c| &c.detection);
    }
    let name = "ringway_capture_early_connections_total";
    let help = "Connections to destinations opened early because the client was silent.";
    page.family(name, "counter", help);
    for (listener, capture) in captures {
        page.sample(name, &[("listener", listener)], capture.stats.sum(|cells| &cells.early));
    }
    let name = "ringway_capture_probes_total";
    page.family(name, "counter", "Health checks of orchestrators, which need no identity.");
    for (listener, capture) in captures {
        page.sample(name, &[("listener", listener)], capture.stats.sum(|cells| &cells.probes));
    }
}

fn refusals(page: &mut Page, captures: &[(&str, &Capture)]) {
    let name = "ringway_capture_refused_total";
    page.family(name, "counter", "Captured connections refused, by reason.");
    for (listener, capture) in captures {
        for error in CaptureError::ALL {
            let count = capture.stats.sum(|cells| &cells.errors[error.index()]);
            let labels: [(&str, &dyn Display); 2] =
                [("listener", listener), ("reason", &error.label())];
            page.sample(name, &labels, count);
        }
    }
}

const UDP: [Metric<CaptureCells>; 8] = [
    ("counter", "ringway_capture_udp_flows_total", "UDP flows opened.", |cells| &cells.flows),
    ("gauge", "ringway_capture_udp_flows_active", "UDP flows open now.", |cells| {
        &cells.flows_active
    }),
    (
        "counter",
        "ringway_capture_udp_moved_flows_total",
        "UDP flows whose QUIC client has moved from another address.",
        |cells| &cells.flows_moved,
    ),
    (
        "counter",
        "ringway_capture_udp_sent_datagrams_total",
        "Datagrams sent to destinations.",
        |cells| &cells.datagrams_out,
    ),
    (
        "counter",
        "ringway_capture_udp_received_datagrams_total",
        "Datagrams sent to clients.",
        |cells| &cells.datagrams_in,
    ),
    ("counter", "ringway_capture_udp_sent_bytes_total", "Bytes sent to destinations.", |cells| {
        &cells.datagram_bytes_out
    }),
    ("counter", "ringway_capture_udp_received_bytes_total", "Bytes sent to clients.", |cells| {
        &cells.datagram_bytes_in
    }),
    (
        "counter",
        "ringway_capture_udp_lost_datagrams_total",
        "Datagrams lost: the kernel buffer was full.",
        |cells| &cells.datagrams_lost,
    ),
];

fn udp(page: &mut Page, captures: &[(&str, &Capture)]) {
    if captures.is_empty() {
        return;
    }
    page.listeners(&UDP, captures.iter().map(|(listener, capture)| (*listener, &*capture.stats)));
    let name = "ringway_capture_udp_refused_datagrams_total";
    page.family(name, "counter", "Datagrams refused, by reason.");
    for (listener, capture) in captures {
        for refusal in UdpRefusal::ALL {
            let count = capture.stats.sum(|cells| &cells.flows_refused[refusal.index()]);
            let labels: [(&str, &dyn Display); 2] =
                [("listener", listener), ("reason", &refusal.label())];
            page.sample(name, &labels, count);
        }
    }
}

fn destinations(page: &mut Page, captures: &[(&str, &Capture)]) {
    let name = "ringway_capture_unknown_destinations_total";
    let help = "Requests and connections to unknown destinations. Each worker counts 256 by \
                address, the rest as `other`.";
    page.family(name, "counter", help);
    for (listener, capture) in captures {
        let (mut known, mut other) = (Vec::new(), Seen::default());
        for seen in capture.seen.iter() {
            seen.add_to(&mut known, &mut other);
        }
        let mut sums: BTreeMap<SocketAddr, Seen> = BTreeMap::new();
        for (destination, seen) in known {
            let sum = sums.entry(destination).or_default();
            sum.allowed += seen.allowed;
            sum.denied += seen.denied;
        }
        let named = sums.iter().map(|(destination, seen)| (destination.to_string(), *seen));
        for (destination, seen) in named.chain([("other".to_owned(), other)]) {
            for (result, count) in [("allowed", seen.allowed), ("denied", seen.denied)] {
                let labels: [(&str, &dyn Display); 3] =
                    [("listener", listener), ("destination", &destination), ("result", &result)];
                if count > 0 {
                    page.sample(name, &labels, count);
                }
            }
        }
    }
}
