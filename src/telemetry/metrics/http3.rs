//! Metrics of HTTP/3 and QUIC.

use super::Page;
use crate::http3::Flood;
use crate::snapshot::Snapshot;

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
    let name = "ringway_service_quic_fallbacks_total";
    let help = "How often requests for an endpoint went over TCP for a time, because QUIC failed.";
    page.family(name, "counter", help);
    for service in snapshot.all_services().filter(|service| service.beside.is_some()) {
        let count = service.stats.sum(|cells| &cells.quic_fallbacks);
        page.sample(name, &[("service", &service.name)], count);
    }
}
