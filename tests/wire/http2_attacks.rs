//! Peers that misuse HTTP/2. Each one exceeds one limit, gets ENHANCE_YOUR_CALM, and is counted and
//! logged. Other connections are not affected.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use crate::support::frames::{END_HEADERS, END_STREAM, Frames, block, code, frame, kind, setting};
use crate::support::http::Client;
use crate::support::origin::Origin;
use crate::support::proxy::Proxy;
use crate::support::{eventually, free_port};

/// The number of connections that run the same attack, one after the other.
const ATTACKERS: u32 = 5;

/// How much the memory of the proxy may grow, over all attacks together, including the pools of a
/// normal load.
const GROWTH_KIB_MAX: u64 = 24 * 1024;

fn request(method: &'static str, path: &'static str) -> [(&'static str, &'static str); 4] {
    [(":method", method), (":scheme", "http"), (":authority", "a"), (":path", path)]
}

fn opened(stream: u32, method: &'static str, ends: bool) -> Vec<u8> {
    let flags = END_HEADERS | if ends { END_STREAM } else { 0 };
    frame(kind::HEADERS, flags, stream, &block(&request(method, "/app")))
}

/// A header block with one large field, which is added to the dynamic table (RFC 7541 6.2.1). The
/// rest of the block names this field thousands of times by its index.
fn bomb(first: &[(&str, &str)]) -> Vec<u8> {
    let mut large = block(&[("x", &"y".repeat(3900))]);
    large[0] = 0x40;
    [block(first), large, vec![0xbe; 12_000]].concat()
}

/// Sends a request on a connection that stays open, and checks the answer.
#[track_caller]
fn asks(frames: &mut Frames, stream: u32) {
    frames.headers(stream, &request("GET", "/"), true);
    let answer = frames.next_of(kind::DATA).expect("an answer");
    assert_eq!((answer.stream, &answer.payload[..]), (stream, &b"fixed"[..]));
    frames.send(kind::WINDOW_UPDATE, 0, 0, &5u32.to_be_bytes());
}

/// A well-behaved client that sends requests on one connection while others attack. When it is
/// dropped, it checks that each answer was correct and in time.
struct Witness {
    answers: Arc<AtomicU32>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Witness {
    fn at(port: u16) -> Self {
        let (answers, stopping) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
        let thread = std::thread::spawn({
            let (answers, stopping) = (Arc::clone(&answers), Arc::clone(&stopping));
            move || {
                let mut frames = Frames::connect(port);
                while !stopping.load(Ordering::Relaxed) {
                    let number = answers.load(Ordering::Relaxed);
                    asks(&mut frames, 2 * number + 1);
                    answers.store(number + 1, Ordering::Relaxed);
                }
            }
        });
        let witness = Self { answers, stopping, thread: Some(thread) };
        witness.goes_on();
        witness
    }

    /// Waits until the witness has got several more answers.
    #[track_caller]
    fn goes_on(&self) {
        let wanted = self.answers.load(Ordering::Relaxed) + 5;
        eventually("the witness to be answered", || {
            let thread = self.thread.as_ref().expect("it runs until it is dropped");
            assert!(!thread.is_finished(), "the witness was harmed");
            (self.answers.load(Ordering::Relaxed) >= wanted).then_some(())
        });
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(matches!(ended, Some(Ok(()))) || std::thread::panicking(), "it was harmed");
    }
}

/// A proxy in front of `origin`. `more` are further settings. Returns the proxy and its port.
fn before(origin: &Origin, more: &str) -> (Proxy, u16) {
    let port = free_port();
    let proxy = Proxy::start(&format!(
        "listeners: {{web: {{bind: 127.0.0.1:{port}, \
         timeouts: {{header: 1s, request_body: 1s, stream_idle: 1s}}}}}}\n\
         routes: {{\"*\": [{{match: {{path: /app}}, to: app}}, {{respond: {{body: fixed}}}}]}}\n\
         services: {{app: {{endpoints: [\"{}\"]}}}}\n{more}",
        origin.address()
    ));
    (proxy, port)
}

/// Checks that each run of `attack` exceeds `limit` and gets ENHANCE_YOUR_CALM.
#[track_caller]
fn ends_at(limit: &str, more: &str, attack: impl Fn(&mut Frames)) {
    let origin = Origin::echoing();
    let (proxy, port) = before(&origin, more);
    let witness = Witness::at(port);
    let mut resident_kib = 0;
    for number in 0..ATTACKERS {
        let mut attacker = Frames::connect(port);
        attack(&mut attacker);
        let goodbye = attacker.next_of(kind::GOAWAY).expect("GOAWAY");
        assert_eq!(goodbye.payload[4..8], code::ENHANCE_YOUR_CALM.to_be_bytes());
        attacker.until_closed();
        // The first attack fills the pools, so measure after it.
        resident_kib = if number == 0 { proxy.resident_kib() } else { resident_kib };
        witness.goes_on();
    }
    drop(witness);
    let series = format!("ringway_listener_http2_floods_total{{listener=\"web\",limit=\"{limit}\"");
    let times = f64::from(ATTACKERS);
    eventually("the count", || (proxy.metric(&series) == times).then_some(()));
    assert_eq!(proxy.metric("ringway_listener_http2_floods_total"), times, "no other limit");
    let logged = format!("limit=\"{limit}\" limit_value=");
    assert_eq!(proxy.log().matches(&logged).count(), ATTACKERS as usize, "{}", proxy.log());
    let growth_kib = proxy.resident_kib().saturating_sub(resident_kib);
    assert!(growth_kib < GROWTH_KIB_MAX, "{growth_kib} KiB");
    assert_eq!(proxy.metric("ringway_worker_panics_total"), 0.0);
}

#[test]
fn a_block_of_many_continuations() {
    ends_at("continuation_frames", "", |frames| {
        frames.send(kind::HEADERS, END_STREAM, 1, &block(&request("GET", "/")));
        frames.send_bytes(&frame(kind::CONTINUATION, 0, 1, &block(&[("x", "y")])).repeat(100));
    });
}

#[test]
fn a_block_of_empty_continuations() {
    ends_at("continuation_frames", "", |frames| {
        frames.send(kind::HEADERS, END_STREAM, 1, &block(&request("GET", "/")));
        frames.send_bytes(&frame(kind::CONTINUATION, 0, 1, b"").repeat(10_000));
    });
}

#[test]
fn streams_that_are_opened_and_reset() {
    ends_at("stream_resets", "", |frames| {
        let cancel = code::CANCEL.to_be_bytes();
        let round = |n: u32| {
            let stream = 2 * n + 1;
            [opened(stream, "GET", true), frame(kind::RST_STREAM, 0, stream, &cancel)].concat()
        };
        frames.send_bytes(&(0..3000).flat_map(round).collect::<Vec<_>>());
    });
}

#[test]
fn resets_that_we_are_made_to_send() {
    ends_at("provoked_resets", "", |frames| {
        let round = |n: u32| {
            let stream = 2 * n + 1;
            // The stream depends on itself (RFC 7540 5.3.1).
            let priority = [&stream.to_be_bytes()[..], &[0]].concat();
            [opened(stream, "GET", true), frame(kind::PRIORITY, 0, stream, &priority)].concat()
        };
        frames.send_bytes(&(0..3000).flat_map(round).collect::<Vec<_>>());
    });
}

#[test]
fn resets_that_we_are_made_to_send_by_windows_that_grow_too_far() {
    // The window updates may arrive faster than the proxy resets streams.
    let more = "limits: {http2: {window_update_frames: 10000}}";
    ends_at("provoked_resets", more, |frames| {
        let most = 0x7fff_ffff_u32.to_be_bytes();
        let round = |n: u32| {
            let stream = 2 * n + 1;
            [opened(stream, "GET", true), frame(kind::WINDOW_UPDATE, 0, stream, &most)].concat()
        };
        frames.send_bytes(&(0..3000).flat_map(round).collect::<Vec<_>>());
    });
}

/// Other frames by which a peer could make the proxy reset streams (CVE-2025-8671). The first of
/// these frames ends the connection.
#[test]
fn what_may_not_come_for_a_stream_ends_its_connection_at_once() {
    type Provoke = fn(u32) -> Vec<u8>;
    let provocations: [(u32, Provoke); 3] = [
        (code::PROTOCOL_ERROR, |stream| frame(kind::WINDOW_UPDATE, 0, stream, &[0; 4])),
        (code::STREAM_CLOSED, |stream| frame(kind::DATA, 0, stream, b"beyond its end")),
        (code::STREAM_CLOSED, |stream| opened(stream, "GET", true)),
    ];
    for (code, provoke) in provocations {
        let origin = Origin::scripted(|peer| drop(peer.until_closed()));
        let (proxy, port) = before(&origin, "");
        let witness = Witness::at(port);
        for _ in 0..ATTACKERS {
            let mut attacker = Frames::connect(port);
            let round = |n: u32| [opened(2 * n + 1, "GET", true), provoke(2 * n + 1)].concat();
            attacker.send_bytes(&(0..3000).flat_map(round).collect::<Vec<_>>());
            let goodbye = attacker.next_of(kind::GOAWAY).expect("GOAWAY");
            assert_eq!(goodbye.payload[4..8], code.to_be_bytes());
            attacker.until_closed();
            witness.goes_on();
        }
        assert!(origin.accepted() <= ATTACKERS as usize, "{} streams", origin.accepted());
        let active = "ringway_service_requests_active{service=\"app\"}";
        eventually("its requests to be over", || (proxy.metric(active) == 0.0).then_some(()));
    }
}

#[test]
fn more_streams_than_are_allowed() {
    ends_at("provoked_resets", "", |frames| {
        frames.send_bytes(
            &(0..3000).flat_map(|n| opened(2 * n + 1, "POST", false)).collect::<Vec<_>>(),
        );
    });
}

#[test]
fn empty_data() {
    ends_at("empty_frames", "", |frames| {
        frames.send_bytes(&opened(1, "POST", false));
        frames.send_bytes(&frame(kind::DATA, 0, 1, b"").repeat(3000));
    });
}

#[test]
fn settings() {
    ends_at("settings_frames", "", |frames| {
        frames.send_bytes(&frame(kind::SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]).repeat(3000));
    });
}

#[test]
fn pings() {
    ends_at("ping_frames", "", |frames| {
        frames.send_bytes(&frame(kind::PING, 0, 0, &[7; 8]).repeat(3000));
    });
}

#[test]
fn priorities() {
    ends_at("priority_frames", "", |frames| {
        frames.send_bytes(&frame(kind::PRIORITY, 0, 3, &[0, 0, 0, 0, 9]).repeat(3000));
    });
}

#[test]
fn window_updates() {
    ends_at("window_update_frames", "", |frames| {
        frames.send_bytes(&frame(kind::WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]).repeat(3000));
    });
}

#[test]
fn frames_that_nobody_knows() {
    ends_at("other_frames", "", |frames| {
        frames.send_bytes(&frame(0xfa, 0, 0, b"?").repeat(3000));
    });
}

#[test]
fn a_body_in_frames_of_one_byte_that_nobody_takes() {
    ends_at("data_overhead", "limits: {http2: {data_overhead: 25600}}", |frames| {
        frames.send_bytes(&opened(1, "POST", false));
        frames.send_bytes(&frame(kind::DATA, 0, 1, b"x").repeat(3000));
    });
}

#[test]
fn headers_that_never_end() {
    ends_at("unfinished_headers", "", |frames| {
        // Acknowledge SETTINGS before the header block begins. Inside the block no other frame is
        // allowed.
        frames.next_of(kind::SETTINGS);
        frames.send(kind::HEADERS, END_STREAM, 1, &block(&request("GET", "/")));
    });
}

#[test]
fn a_frame_that_never_ends() {
    ends_at("unfinished_headers", "", |frames| {
        frames.send_bytes(&opened(1, "GET", true)[..12]);
    });
}

#[test]
fn fields_that_unpack_to_many_times_their_size() {
    ends_at("header_bytes", "", |frames| {
        frames.send(kind::HEADERS, END_HEADERS | END_STREAM, 1, &bomb(&request("GET", "/")));
    });
}

#[test]
fn limits_are_what_is_configured() {
    let origin = Origin::echoing();
    let (_proxy, port) = before(&origin, "limits: {http2: {ping_frames: 4000, window: 1h}}");
    let mut client = Frames::connect(port);
    client.send_bytes(&frame(kind::PING, 0, 0, &[7; 8]).repeat(3990));
    asks(&mut client, 1);
    client.send_bytes(&frame(kind::PING, 0, 0, &[7; 8]).repeat(100));
    assert!(client.next_of(kind::GOAWAY).is_some());
}

#[test]
fn windows_that_stay_closed() {
    let origin = Origin::saying(&"x".repeat(1_000_000));
    let (proxy, port) = before(&origin, "");
    let witness = Witness::at(port);
    let resident_kib = proxy.resident_kib();
    let mut client = Frames::connect(port);
    client.settings(&[(setting::INITIAL_WINDOW_SIZE, 0)]);
    let streams = 50;
    for n in 0..streams {
        client.send_bytes(&opened(2 * n + 1, "GET", true));
    }
    for _ in 0..streams {
        let reset = client.next_of(kind::RST_STREAM).expect("a reset");
        assert_eq!(reset.payload, code::INTERNAL_ERROR.to_be_bytes());
    }
    let series = "ringway_service_response_flags_total{service=\"app\",flag=\"SI\"}";
    eventually("the flags", || (proxy.metric(series) == f64::from(streams)).then_some(()));
    let growth_kib = proxy.resident_kib().saturating_sub(resident_kib);
    assert!(growth_kib < GROWTH_KIB_MAX, "{growth_kib} KiB");
    witness.goes_on();
    // The streams were reset, so the bytes held for them are dropped.
    let held = || proxy.metric("ringway_worker_http2_held_bytes");
    eventually("nothing to be held", || (held() == 0.0).then_some(()));
}

#[test]
fn a_client_that_reads_nothing_is_seen_and_bounded() {
    let origin = Origin::saying(&"x".repeat(8_000_000));
    let (proxy, port) = before(&origin, "");
    let witness = Witness::at(port);
    let mut client = Frames::connect(port);
    client.settings(&[(setting::INITIAL_WINDOW_SIZE, i32::MAX as u32)]);
    client.send(kind::WINDOW_UPDATE, 0, 0, &0x7000_0000_u32.to_be_bytes());
    for n in 0..10 {
        client.send_bytes(&opened(2 * n + 1, "GET", true));
    }
    let held = || proxy.metric("ringway_worker_http2_held_bytes");
    // One buffer is being written, and another one waits.
    eventually("bytes to be held", || (held() > 32768.0).then_some(()));
    // The limit includes the two buffers of the witness.
    assert!(held() <= 4.0 * 32768.0, "{}", held());
    witness.goes_on();
    drop((client, witness));
    eventually("nothing to be held", || (held() == 0.0).then_some(()));
}

/// The frames that an endpoint sends instead of a response.
type Attack = fn(&mut Frames, u32);

/// The attacks of endpoints, and the limit that each one exceeds.
const BY_ENDPOINTS: [(&str, Attack); 8] = [
    ("settings_frames", |frames, _| {
        frames.send_bytes(&frame(kind::SETTINGS, 0, 0, b"").repeat(3000));
    }),
    ("ping_frames", |frames, _| {
        frames.send_bytes(&frame(kind::PING, 0, 0, &[7; 8]).repeat(3000));
    }),
    ("window_update_frames", |frames, _| {
        frames.send_bytes(&frame(kind::WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]).repeat(3000));
    }),
    ("other_frames", |frames, _| frames.send_bytes(&frame(0xfa, 0, 0, b"?").repeat(3000))),
    ("continuation_frames", |frames, stream| {
        frames.send(kind::HEADERS, 0, stream, &block(&[(":status", "200")]));
        frames.send_bytes(&frame(kind::CONTINUATION, 0, stream, b"").repeat(100));
    }),
    ("unfinished_headers", |frames, stream| {
        frames.send(kind::HEADERS, 0, stream, &block(&[(":status", "200")]));
    }),
    ("stream_resets", |frames, stream| {
        let cancel = code::CANCEL.to_be_bytes();
        // Reset streams that have ended before, so that the resets do not affect the current
        // request.
        let old = if stream > 1 { stream - 2 } else { stream };
        frames.send_bytes(&frame(kind::RST_STREAM, 0, old, &cancel).repeat(3000));
    }),
    ("header_bytes", |frames, stream| {
        frames.send(kind::HEADERS, END_HEADERS, stream, &bomb(&[(":status", "200")]));
    }),
];

#[test]
fn endpoints_that_flood_us_are_left_and_their_requests_fail() {
    let connections = AtomicUsize::new(0);
    let origin = Origin::scripted(move |peer| {
        let number = connections.fetch_add(1, Ordering::SeqCst);
        let Some(mut frames) = Frames::accept(peer, &[]) else { return };
        match BY_ENDPOINTS.get(number) {
            Some((_, attack)) => {
                // Answer the first request, and attack with the second.
                let Some((stream, _)) = frames.request() else { return };
                frames.respond(stream, "good");
                let Some((stream, _)) = frames.request() else { return };
                attack(&mut frames, stream);
                frames.until_closed();
            }
            None => {
                while let Some((stream, _)) = frames.request() {
                    frames.respond(stream, "good");
                }
            }
        }
        peer.stream.shutdown(std::net::Shutdown::Both).ok();
    });
    let port = free_port();
    let config = format!(
        "listeners: {{web: {{bind: 127.0.0.1:{port}}}}}\n\
         routes: {{\"*\": [{{match: {{path: /app}}, to: app}}, {{respond: {{body: fixed}}}}]}}\n\
         services: {{app: {{endpoints: [\"{}\"], protocol: http2}}}}\n\
         limits: {{http2: {{endpoint_header_timeout: 1s}}}}\n",
        origin.address()
    );
    let proxy = Proxy::start_with(&config, 1);
    let get = || Client::connect(port).get("a", "/app");
    assert_eq!(get().text(), "good");
    let witness = Witness::at(port);
    let resident_kib = proxy.resident_kib();
    for (done, (limit, _)) in BY_ENDPOINTS.iter().enumerate() {
        assert_eq!(get().status, 502, "{limit}");
        assert_eq!(get().text(), "good", "{limit}");
        let series =
            format!("ringway_service_http2_floods_total{{service=\"app\",limit=\"{limit}\"}}");
        eventually(limit, || (proxy.metric(&series) == 1.0).then_some(()));
        let flag = "ringway_service_response_flags_total{service=\"app\",flag=\"UPE\"}";
        let times = (done + 1) as f64;
        eventually(limit, || (proxy.metric(flag) == times).then_some(()));
        witness.goes_on();
    }
    assert_eq!(
        proxy.log().matches("HTTP/2 connection closed: the peer exceeded a limit").count(),
        BY_ENDPOINTS.len()
    );
    let growth_kib = proxy.resident_kib().saturating_sub(resident_kib);
    assert!(growth_kib < GROWTH_KIB_MAX, "{growth_kib} KiB");
    assert_eq!(proxy.metric("ringway_worker_panics_total"), 0.0);
}
