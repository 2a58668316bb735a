//! An endpoint that answers DEADLINE_EXCEEDED to a client without patience has not failed: it knows
//! the deadline of the client. An endpoint that answers so too early, or to a patient client, has.

use std::time::Duration;

use super::shifts::long_ago;
use crate::support::eventually;
use crate::support::frames::{Frames, kind};
use crate::support::free_port;
use crate::support::origin::Origin;
use crate::support::proxy::Proxy;

/// The deadline of a client without patience.
const SHORT: (Duration, &str) = (Duration::from_millis(800), "800m");

/// An endpoint that answers each call with DEADLINE_EXCEEDED after `pause`, in trailers after a
/// message or in the head.
fn endpoint(pause: Duration, in_trailers: bool) -> Origin {
    Origin::scripted(move |peer| {
        let Some(mut frames) = Frames::accept(peer, &[]) else { return };
        while let Some((stream, _)) = frames.request() {
            std::thread::park_timeout(pause);
            let head = [(":status", "200"), ("content-type", "application/grpc")];
            let code = ("grpc-status", "4");
            if in_trailers {
                frames.headers(stream, &head, false);
                frames.data(stream, b"\0\0\0\0\0", false);
                frames.headers(stream, &[code], true);
            } else {
                frames.headers(stream, &[head[0], head[1], code], true);
            }
        }
    })
}

/// A proxy in front of a service. `to` are the destinations of its rule, `service` its settings.
fn before(to: &str, service: &str) -> (Proxy, u16) {
    let port = free_port();
    let proxy = Proxy::start_with(
        &format!(
            "listeners: {{web: {{bind: 127.0.0.1:{port}}}}}\nroutes: {{\"*\": [{{{to}}}]}}\n\
             services: {{app: {{protocol: grpc, {service}}}}}\n"
        ),
        1,
    );
    (proxy, port)
}

/// Makes `calls` calls with this deadline, and waits for their ends.
fn call(proxy: &Proxy, port: u16, calls: u32, timeout: &str) {
    let mut client = Frames::connect(port);
    for stream in (0..calls).map(|call| 2 * call + 1) {
        client.call(stream, &[("grpc-timeout", timeout)]);
        client.data(stream, b"\0\0\0\0\0", true);
        let ends =
            |frame: &crate::support::frames::Frame| frame.ends() || frame.kind == kind::RST_STREAM;
        std::iter::from_fn(|| client.next()).find(ends).expect("the end of the call");
    }
    let done = || (proxy.metric("ringway_service_requests_active") == 0.0).then_some(());
    eventually("the calls are over", done);
}

#[test]
fn it_is_not_ejected() {
    let (late, early) = (SHORT.0 / 8 * 7, Duration::ZERO);
    for (pause, timeout, ejected) in
        [(late, SHORT.1, false), (early, SHORT.1, true), (early, "5S", true)]
    {
        for in_trailers in [true, false] {
            let origin = endpoint(pause, in_trailers);
            let endpoints = format!("endpoints: [\"{}\"]", origin.address());
            let more = format!("{endpoints}, outlier_detection: {{consecutive_5xx: 2}}");
            let (proxy, port) = before("to: app", &more);
            call(&proxy, port, 2, timeout);
            let ejections = proxy.metric("ringway_service_outlier_ejections_total");
            let case = format!("{pause:?} of {timeout}, in trailers: {in_trailers}");
            assert_eq!(ejections > 0.0, ejected, "{case}");
            let failures = proxy.metric("ringway_endpoint_responses_total");
            assert_eq!(failures, 2.0, "they are responses: {case}");
        }
    }
}

#[test]
fn it_sends_no_release_back() {
    for (pause, aborted) in [(SHORT.0 / 8 * 7, 0.0), (Duration::ZERO, 1.0)] {
        let (old, new) = (endpoint(pause, true), endpoint(pause, true));
        let to = format!(
            "to: {{app/v1: 100, app/v2: 0}}, shift: {{from: v1, to: v2, every: 10m, step: 100%, \
             start: {}, abort_if: {{error_rate: 2%, min_requests: 2}}}}",
            long_ago(5)
        );
        let versions = format!("{{v1: [\"{}\"], v2: [\"{}\"]}}", old.address(), new.address());
        let (proxy, port) = before(&to, &format!("versions: {versions}"));
        call(&proxy, port, 2, SHORT.1);
        // The plan looks at its counts about once a second.
        let requests = "ringway_shift_requests_total";
        if aborted > 0.0 {
            let gone = || (proxy.metric("ringway_shift_aborted") == aborted).then_some(());
            eventually("the plan goes back", gone);
        } else {
            assert_eq!(proxy.metric(requests), 0.0);
            assert_eq!(proxy.metric("ringway_shift_aborted"), 0.0);
        }
    }
}

#[test]
fn it_says_nothing_about_the_latency() {
    let origin = endpoint(SHORT.0 / 8 * 7, false);
    let more = format!("endpoints: [\"{}\"], concurrency: {{probe_requests: 2}}", origin.address());
    let (proxy, port) = before("to: app", &more);
    call(&proxy, port, 3, SHORT.1);
    let unloaded = "ringway_service_concurrency_unloaded_seconds{service=\"app\"}";
    assert_eq!(proxy.metric(unloaded), 0.0);
}
