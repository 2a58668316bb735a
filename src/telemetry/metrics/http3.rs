//! Metrics of HTTP/3 and QUIC.

use super::page::{Metric, Page};
use crate::http3::Flood;
use crate::mesh::{PassRefusal, PassedCells};
use crate::snapshot::{Serves, Snapshot};

/// Writes the counters of listeners with HTTP/3.
pub(super) fn write(page: &mut Page, snapshot: &Snapshot) {
    let name = "ringway_listener_http3_floods_total";
    let help =
        "HTTP/3 connections closed because the client exceeded a limit. A limit appears then.";
    page.family(name, "counter", help);
    let with_http3 = || snapshot.listeners.iter().filter(|listener| listener.http3.is_some());
    for listener in with_http3() {
        for flood in Flood::ALL {
            let count = listener.stats.sum(|cells| &cells.http3_floods[flood.index()]);
            if count > 0 {
                page.sample(
                    name,
                    &[("listener", &listener.name), ("limit", &flood.label())],
                    count,
                );
            }
        }
    }
    let name = "ringway_listener_quic_retries_total";
    let help = "QUIC clients that had to prove their address before their handshake.";
    page.family(name, "counter", help);
    for listener in with_http3() {
        let count = listener.stats.sum(|cells| &cells.quic_retries);
        page.sample(name, &[("listener", &listener.name)], count);
    }
    let name = "ringway_listener_early_requests_total";
    let help = "Requests in early data (0-RTT): served at once, or held until the handshake ended.";
    page.family(name, "counter", help);
    for listener in with_http3() {
        let stats = &listener.stats;
        for (result, count) in [
            ("served", stats.sum(|cells| &cells.early_requests)),
            ("held", stats.sum(|cells| &cells.early_held)),
        ] {
            page.sample(name, &[("listener", &listener.name), ("result", &result)], count);
        }
    }
    let name = "ringway_service_quic_fallbacks_total";
    let help = "How often requests for an endpoint went over TCP for a time, because QUIC failed.";
    page.family(name, "counter", help);
    for service in snapshot.all_services().filter(|service| service.beside.is_some()) {
        let count = service.stats.sum(|cells| &cells.quic_fallbacks);
        page.sample(name, &[("service", &service.name)], count);
    }
}

const PASSED: [Metric<PassedCells>; 6] = [
    ("counter", "ringway_quic_flows_total", "Flows of QUIC that is passed through.", |c| &c.flows),
    ("gauge", "ringway_quic_flows_active", "Open flows of QUIC that is passed through.", |c| {
        &c.active
    }),
    (
        "counter",
        "ringway_quic_moved_flows_total",
        "Flows whose client has moved from another address.",
        |c| &c.moved,
    ),
    ("counter", "ringway_quic_sent_datagrams_total", "Datagrams sent to endpoints.", |c| &c.out),
    ("counter", "ringway_quic_received_datagrams_total", "Datagrams sent to clients.", |c| &c.back),
    (
        "counter",
        "ringway_quic_lost_datagrams_total",
        "Datagrams lost because a buffer of the kernel was full.",
        |c| &c.lost,
    ),
];

/// The metrics of listeners that pass QUIC through.
pub(super) fn passed(page: &mut Page, snapshot: &Snapshot) {
    let passing = || {
        snapshot.listeners.iter().filter_map(|listener| match &listener.serves {
            Serves::Quic(passed) => Some((&*listener.name, &passed.state.cells)),
            _ => None,
        })
    };
    page.listeners(&PASSED, passing());
    let name = "ringway_quic_refused_datagrams_total";
    page.family(name, "counter", "Datagrams that were refused, by reason.");
    for (listener, cells) in passing() {
        for reason in PassRefusal::ALL {
            let count = cells.sum(|cells| &cells.refused[reason.index()]);
            page.sample(name, &[("listener", &listener), ("reason", &reason.label())], count);
        }
    }
}
