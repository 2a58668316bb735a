//! Counts the frames of a connection and reports when its peer exceeds a limit.
//!
//! The meter reads the bytes of both directions in parts of any size, and copies nothing. Normal
//! traffic earns credit; only the excess counts. For example, the DATA that we send earns credit
//! for WINDOW_UPDATE and PING. Counts decrease with time, so a long-lived connection does not look
//! like a flood.

use std::time::Duration;

use super::flood::{Excess, Flood, FloodLimits};
use super::frames::{Event, Frame, Kind, Walker};
use crate::message::Limits;
use crate::time::Time;

/// A reset within this time after the stream opened counts as abuse.
const YOUNG: Duration = Duration::from_millis(100);

/// PRIORITY frames that one stream earns credit for, as in Envoy.
const PRIORITY_PER_STREAM: f64 = 100.0;

/// Frames of unknown types that one stream earns credit for.
const OTHER_PER_STREAM: f64 = 10.0;

/// WINDOW_UPDATE frames that one KiB of our DATA earns credit for. Envoy allows 10 for each frame.
const UPDATES_PER_KIB: f64 = 10.0;

/// The maximum number of empty DATA frames that the `h2` crate accepts in the life of a connection.
const EMPTY_DATA_MAX: u32 = 100;

/// The kind of peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A client: it opens the streams, and begins with the preface.
    Client,
    /// An endpoint of a service: we open the streams, and begin with the preface.
    Endpoint,
}

/// The frame counters of one connection.
#[derive(Debug)]
pub struct Meter {
    limits: FloodLimits,
    header_bytes: usize,
    peer: Peer,
    header_timeout: Duration,
    inbound: Walker,
    outbound: Walker,
    /// The count of each kind in [`Flood::ALL`].
    levels: [f64; Flood::ALL.len()],
    /// The time of the last decrease.
    lowered: Time,
    /// CONTINUATION frames of the open header block. `None` if there is none.
    block: Option<u32>,
    /// Start time of the incomplete frame or header block.
    unfinished: Option<Time>,
    streams: Streams,
    /// All empty DATA frames that did not end a stream.
    empty_data: u32,
    told: Option<Flood>,
    greeted: bool,
}

impl Meter {
    /// The meter of a new connection with `peer` at `now`. Each header block must be complete
    /// within `header_timeout`.
    pub fn new(
        message: &Limits,
        limits: FloodLimits,
        peer: Peer,
        header_timeout: Duration,
        now: Time,
    ) -> Self {
        let preface = super::PREFACE.len();
        let (inbound, outbound) = match peer {
            Peer::Client => (preface, 0),
            Peer::Endpoint => (0, preface),
        };
        Self {
            limits,
            header_bytes: message.header_bytes,
            peer,
            header_timeout,
            inbound: Walker::new(inbound),
            outbound: Walker::new(outbound),
            levels: [0.0; Flood::ALL.len()],
            lowered: now,
            block: None,
            unfinished: None,
            streams: Streams::new(now),
            empty_data: 0,
            told: None,
            greeted: false,
        }
    }

    /// Counts the bytes that the peer sent.
    ///
    /// # Errors
    /// The exceeded limit. Later bytes are not counted.
    pub fn received(&mut self, mut portion: &[u8], now: Time) -> Result<(), Excess> {
        self.lower(now);
        self.streams.grow_old(now);
        while let Some(event) = self.inbound.next(&mut portion) {
            match event {
                Event::Begun(frame) => self.count(&frame)?,
                Event::Passed(frame) => {
                    if frame.block() == Some(true) {
                        self.block = None;
                    }
                    self.unfinished = self.unfinished.filter(|_| self.block.is_some());
                    self.greeted |= frame.kind == Kind::Settings;
                }
            }
        }
        match self.block.is_some() || self.inbound.in_control_frame() {
            true => _ = self.unfinished.get_or_insert(now),
            false => self.unfinished = None,
        }
        Ok(())
    }

    /// Counts the bytes that we send to the peer.
    ///
    /// # Errors
    /// When we had to reset more streams for errors of the peer than its limit allows.
    pub fn sent(&mut self, mut portion: &[u8], now: Time) -> Result<(), Excess> {
        self.lower(now);
        while let Some(event) = self.outbound.next(&mut portion) {
            let Event::Begun(frame) = event else { continue };
            match frame.kind {
                Kind::Data => {
                    let kib = f64::from(1 + frame.content_bytes / 1024);
                    self.pay(Flood::WindowUpdateFrames, UPDATES_PER_KIB * kib);
                    self.pay(Flood::PingFrames, 1.0);
                }
                Kind::Headers if self.peer == Peer::Endpoint => self.opened(frame.stream),
                Kind::Reset if is_provoked(frame.code) => self.charge(Flood::ProvokedResets)?,
                Kind::GoAway => self.told = frame.flood,
                _ => {}
            }
            if frame.ends_stream() && self.peer == Peer::Client {
                self.pay(Flood::StreamResets, 1.0);
            }
        }
        Ok(())
    }

    /// The deadline for an incomplete header block, or an incomplete frame other than DATA.
    pub fn deadline(&self) -> Option<Time> {
        self.unfinished.map(|since| since + self.header_timeout)
    }

    /// The error after [`Meter::deadline`] has passed.
    pub fn unfinished(&self) -> Excess {
        Excess { flood: Flood::UnfinishedHeaders, limit: self.header_timeout.as_secs() }
    }

    /// The last stream that the peer has opened. It is 0 for an endpoint, because endpoints open no
    /// streams.
    pub fn last_stream(&self) -> u32 {
        match self.peer {
            Peer::Client => self.streams.last,
            Peer::Endpoint => 0,
        }
    }

    /// Whether we may send a frame of our own after the sent bytes.
    pub fn may_send_frame(&self) -> bool {
        self.outbound.between_frames()
    }

    /// Whether the peer has sent its SETTINGS.
    pub fn greeted(&self) -> bool {
        self.greeted
    }

    /// The exceeded limit that the `h2` crate reported in a sent GOAWAY.
    pub fn told(&self) -> Option<Excess> {
        let flood = match self.told? {
            // The crate uses one name for small and for empty DATA frames.
            Flood::DataOverhead if self.empty_data > EMPTY_DATA_MAX => Flood::EmptyFrames,
            flood => flood,
        };
        Some(Excess { flood, limit: self.limit(flood) })
    }

    /// Counts a frame of the peer.
    fn count(&mut self, frame: &Frame) -> Result<(), Excess> {
        if frame.kind != Kind::Continuation && frame.block() == Some(false) {
            self.block = Some(0);
        }
        match frame.kind {
            Kind::Data if frame.content_bytes == 0 && !frame.ends_stream() => {
                self.empty_data = self.empty_data.saturating_add(1);
                self.charge(Flood::EmptyFrames)
            }
            Kind::Data => Ok(()),
            Kind::Headers => {
                if self.peer == Peer::Client {
                    self.opened(frame.stream);
                } else if frame.ends_stream() {
                    self.pay(Flood::StreamResets, 1.0);
                }
                match frame.content_bytes == 0 && frame.block() == Some(false) {
                    true => self.charge(Flood::EmptyFrames),
                    false => Ok(()),
                }
            }
            Kind::Continuation => self.continued(),
            Kind::Reset if self.streams.reset(frame.stream, self.peer) => {
                self.charge(Flood::StreamResets)
            }
            Kind::Reset => Ok(()),
            Kind::Settings => self.charge(Flood::SettingsFrames),
            Kind::Ping => self.charge(Flood::PingFrames),
            Kind::Priority => self.charge(Flood::PriorityFrames),
            Kind::WindowUpdate => self.charge(Flood::WindowUpdateFrames),
            Kind::PushPromise | Kind::GoAway | Kind::Other => self.charge(Flood::OtherFrames),
        }
    }

    fn continued(&mut self) -> Result<(), Excess> {
        // CONTINUATION without an open block is a protocol error; the crate ends the connection.
        let Some(frames) = &mut self.block else { return Ok(()) };
        *frames += 1;
        match *frames > self.limits.continuation_frames {
            true => {
                let flood = Flood::ContinuationFrames;
                Err(Excess { flood, limit: self.limit(flood) })
            }
            false => Ok(()),
        }
    }

    /// Handles HEADERS. A new stream earns credit.
    fn opened(&mut self, stream: u32) {
        if self.streams.opened(stream) {
            self.pay(Flood::PriorityFrames, PRIORITY_PER_STREAM);
            self.pay(Flood::OtherFrames, OTHER_PER_STREAM);
        }
    }

    fn charge(&mut self, flood: Flood) -> Result<(), Excess> {
        let limit = self.limit(flood);
        let level = &mut self.levels[flood.index()];
        *level += 1.0;
        match *level > limit as f64 {
            true => Err(Excess { flood, limit }),
            false => Ok(()),
        }
    }

    fn pay(&mut self, flood: Flood, amount: f64) {
        let level = &mut self.levels[flood.index()];
        *level = (*level - amount).max(0.0);
    }

    /// Decreases the counts for the time since the last call.
    fn lower(&mut self, now: Time) {
        let part = (now - self.lowered).as_secs_f64() / self.limits.window.as_secs_f64();
        if part == 0.0 {
            return;
        }
        self.lowered = now;
        for flood in Flood::ALL {
            self.pay(flood, self.limit(flood) as f64 * part);
        }
    }

    fn limit(&self, flood: Flood) -> u64 {
        let limits = &self.limits;
        match flood {
            Flood::ContinuationFrames => limits.continuation_frames.into(),
            Flood::StreamResets => limits.stream_resets.into(),
            Flood::ProvokedResets => limits.provoked_resets.into(),
            Flood::EmptyFrames => limits.empty_frames.into(),
            Flood::SettingsFrames => limits.settings_frames.into(),
            Flood::PingFrames => limits.ping_frames.into(),
            Flood::PriorityFrames => limits.priority_frames.into(),
            Flood::WindowUpdateFrames => limits.window_update_frames.into(),
            Flood::OtherFrames => limits.other_frames.into(),
            Flood::DataOverhead => limits.data_overhead_bytes as u64,
            Flood::UnfinishedHeaders => self.header_timeout.as_secs(),
            Flood::HeaderBytes => self.header_bytes as u64,
        }
    }
}

/// Whether an error of the peer caused our reset with `code` (RFC 9113 7): PROTOCOL_ERROR,
/// FLOW_CONTROL_ERROR, STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM, COMPRESSION_ERROR and
/// ENHANCE_YOUR_CALM. For our own reasons we send INTERNAL_ERROR, CANCEL or NO_ERROR.
fn is_provoked(code: u32) -> bool {
    matches!(code, 0x1 | 0x3 | 0x5 | 0x6 | 0x7 | 0x9 | 0xb)
}

/// The opened streams. A later stream has a larger id.
#[derive(Debug)]
struct Streams {
    /// The last stream that was opened.
    last: u32,
    /// The number of streams that were opened and not reset.
    unreset: u64,
    /// Streams up to `old` are not young. Streams up to `next_old` will not be young after the next
    /// step.
    old: u32,
    next_old: u32,
    marked: Time,
}

impl Streams {
    fn new(now: Time) -> Self {
        Self { last: 0, unreset: 0, old: 0, next_old: 0, marked: now }
    }

    /// Records HEADERS. Returns whether it opens a stream.
    fn opened(&mut self, stream: u32) -> bool {
        let new = stream > self.last;
        if new {
            self.last = stream;
            self.unreset += 1;
        }
        new
    }

    /// Whether the reset of `stream` counts: a client reset a young stream, or no opened stream is
    /// left to reset.
    fn reset(&mut self, stream: u32, peer: Peer) -> bool {
        let none_left = self.unreset == 0;
        self.unreset = self.unreset.saturating_sub(1);
        none_left || (peer == Peer::Client && stream > self.old)
    }

    /// Updates the ages. A stream is young for one to two times [`YOUNG`].
    fn grow_old(&mut self, now: Time) {
        let passed = now - self.marked;
        if passed < YOUNG {
            return;
        }
        self.old = if passed >= YOUNG * 2 { self.last } else { self.next_old };
        self.next_old = self.last;
        self.marked = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const END_STREAM: u8 = 1;
    const END_HEADERS: u8 = 4;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        bytes.extend([kind, flags]);
        bytes.extend(stream.to_be_bytes());
        bytes.extend(payload);
        bytes
    }

    fn open(stream: u32) -> Vec<u8> {
        frame(1, END_STREAM | END_HEADERS, stream, b"fields")
    }

    fn reset(stream: u32, code: u32) -> Vec<u8> {
        frame(3, 0, stream, &code.to_be_bytes())
    }

    fn at(seconds: f64) -> Time {
        Time::from_micros((seconds * 1e6) as u64)
    }

    fn meter(peer: Peer) -> Meter {
        let mut meter = Meter::new(
            &Limits::default(),
            FloodLimits::default(),
            peer,
            Duration::from_secs(9),
            at(0.0),
        );
        if peer == Peer::Client {
            meter.received(crate::http2::PREFACE, at(0.0)).unwrap();
        } else {
            meter.sent(crate::http2::PREFACE, at(0.0)).unwrap();
        }
        meter
    }

    /// Counts how many rounds are accepted at once, up to a few thousand.
    fn taken(peer: Peer, round: impl Fn(u32) -> Vec<u8>) -> (u32, Option<&'static str>) {
        let mut meter = meter(peer);
        for n in 0..5000 {
            if let Err(excess) = meter.received(&round(n), at(0.0)) {
                return (n, Some(excess.flood.label()));
            }
        }
        (5000, None)
    }

    #[test]
    fn each_flood_ends_at_its_limit() {
        let limits = FloodLimits::default();
        let empty_block = |n: u32| match n {
            0 => frame(1, 0, 1, b"x"),
            _ => frame(9, 0, 1, b""),
        };
        let rapid = |n| [open(2 * n + 1), reset(2 * n + 1, 8)].concat();
        for (name, limit, round) in [
            (
                "continuation_frames",
                limits.continuation_frames + 1,
                &empty_block as &dyn Fn(_) -> _,
            ),
            ("stream_resets", limits.stream_resets, &|_| reset(1, 8)),
            ("empty_frames", limits.empty_frames, &|_| frame(0, 0, 1, b"")),
            ("empty_frames", limits.empty_frames, &|_| frame(0, 8, 1, b"\x02\0\0")),
            ("empty_frames", limits.empty_frames, &|_| frame(1, 0, 1, b"")),
            ("settings_frames", limits.settings_frames, &|_| frame(4, 0, 0, b"")),
            ("ping_frames", limits.ping_frames, &|_| frame(6, 0, 0, &[0; 8])),
            ("priority_frames", limits.priority_frames, &|_| frame(2, 0, 9, &[0; 5])),
            ("priority_frames", limits.priority_frames, &|_| frame(16, 0, 0, b"\0\0\0\x01u=1")),
            ("window_update_frames", limits.window_update_frames, &|_| frame(8, 0, 0, &[1; 4])),
            ("other_frames", limits.other_frames, &|_| frame(0xfa, 0, 0, b"grease")),
            ("other_frames", limits.other_frames, &|_| frame(7, 0, 0, &[0; 8])),
        ] {
            assert_eq!(taken(Peer::Client, round), (limit, Some(name)));
            assert_eq!(taken(Peer::Endpoint, round).1, Some(name));
        }
        assert_eq!(taken(Peer::Client, rapid), (limits.stream_resets, Some("stream_resets")));
        for harmless in [
            &(|_| frame(0, 0, 1, b"x")) as &dyn Fn(u32) -> Vec<u8>,
            &|_| frame(0, END_STREAM, 1, b""),
            &|n| open(2 * n + 1),
            // A browser that sends the priority of each request.
            &|n| [open(2 * n + 1), frame(16, 0, 0, b"u=1")].concat(),
        ] {
            assert_eq!(taken(Peer::Client, harmless), (5000, None));
        }
    }

    #[test]
    fn resets_that_the_peer_provokes_count_and_our_own_do_not() {
        for (code, limit) in [(1, 500), (5, 500), (7, 500), (0, 5000), (2, 5000), (8, 5000)] {
            let mut meter = meter(Peer::Client);
            let taken = (0..5000).take_while(|n| meter.sent(&reset(*n, code), at(0.0)).is_ok());
            assert_eq!(taken.count(), limit, "{code}");
        }
    }

    #[test]
    fn what_the_crate_counts_has_its_name_here() {
        let told = |name: &[u8], empty| {
            let mut meter = meter(Peer::Client);
            meter.empty_data = empty;
            meter.sent(&frame(7, 0, 0, &[&[0; 8], name].concat()), at(0.0)).unwrap();
            meter.told().map(|excess| (excess.flood.label(), excess.limit))
        };
        assert_eq!(told(b"header_list_way_too_large", 0), Some(("header_bytes", 61440)));
        assert_eq!(told(b"too_many_data_frames", 100), Some(("data_overhead", 524_288)));
        assert_eq!(told(b"too_many_data_frames", 101), Some(("empty_frames", 100)));
        assert_eq!((told(b"", 0), told(b"too_many", 0)), (None, None));
    }

    #[test]
    fn a_busy_peer_is_never_told_to_calm_down() {
        // Ten minutes of normal traffic: downloads with a WINDOW_UPDATE for each KiB, a PING for
        // each DATA frame (gRPC measures its bandwidth this way), and half of all calls cancelled
        // at once. Then calls that all pass their deadline of 300 ms, 100 at a time.
        let mut busy = meter(Peer::Client);
        let mut late = meter(Peer::Client);
        let update = frame(8, 0, 0, &[1; 4]);
        for round in 0..6000_u32 {
            let now = at(f64::from(round) / 10.0);
            for n in 0..4 {
                let stream = 8 * round + 2 * n + 1;
                busy.received(&open(stream), now).unwrap();
                if n % 2 == 0 {
                    busy.received(&reset(stream, 8), now).unwrap();
                    continue;
                }
                for _ in 0..3 {
                    busy.sent(&frame(0, 0, stream, &[0; 16384]), now).unwrap();
                    busy.received(&update.repeat(32), now).unwrap();
                    busy.received(&frame(6, 0, 0, &[0; 8]), now).unwrap();
                }
                busy.sent(&frame(0, END_STREAM, stream, b""), now).unwrap();
            }
            for n in 0..100 {
                let stream = |round: u32| 200 * round + 2 * n + 1;
                late.received(&open(stream(round)), now).unwrap();
                if round >= 3 {
                    late.received(&reset(stream(round - 3), 8), now).unwrap();
                }
            }
        }
        // An endpoint may reset every stream that we open.
        let mut endpoint = meter(Peer::Endpoint);
        for n in 0..10_000 {
            endpoint.sent(&open(2 * n + 1), at(0.0)).unwrap();
            endpoint.received(&reset(2 * n + 1, 11), at(0.0)).unwrap();
        }
    }

    #[test]
    fn what_was_counted_is_forgotten_at_an_even_rate() {
        let mut meter = meter(Peer::Client);
        let pings = |n| frame(6, 0, 0, &[0; 8]).repeat(n);
        meter.received(&pings(1000), at(0.0)).unwrap();
        assert!(meter.received(&pings(1), at(0.0)).is_err());
        meter.received(&pings(499), at(5.01)).unwrap();
        assert!(meter.received(&pings(10), at(5.01)).is_err());
        meter.received(&pings(990), at(16.0)).unwrap();
    }

    #[test]
    fn a_header_block_has_to_end_and_a_body_has_not() {
        let begun = frame(1, END_STREAM, 1, b"fields");
        let ended = frame(9, END_HEADERS, 1, b"more");
        let mut meter = meter(Peer::Client);
        assert_eq!(meter.deadline(), None);
        meter.received(&begun[..4], at(1.0)).unwrap();
        assert_eq!(meter.deadline(), Some(at(10.0)));
        meter.received(&begun[4..], at(2.0)).unwrap();
        meter.received(&ended[..12], at(3.0)).unwrap();
        assert_eq!(meter.deadline(), Some(at(10.0)));
        meter.received(&ended[12..], at(3.0)).unwrap();
        assert_eq!(meter.deadline(), None);
        // A frame other than DATA has its own deadline.
        let ping = frame(6, 0, 0, &[0; 8]);
        meter.received(&ping[..16], at(4.0)).unwrap();
        meter.received(&[&ping[16..], &ping[..3]].concat(), at(5.0)).unwrap();
        assert_eq!(meter.deadline(), Some(at(14.0)));
        meter.received(&ping[3..], at(5.0)).unwrap();
        let data = frame(0, 0, 1, b"body");
        meter.received(&data[..5], at(6.0)).unwrap();
        meter.received(&data[5..10], at(7.0)).unwrap();
        assert_eq!(meter.deadline(), None);
        assert_eq!(meter.last_stream(), 1);
    }

    #[test]
    fn byte_by_byte_is_the_same_as_at_once() {
        let mut random = fastrand::Rng::with_seed(4);
        for _ in 0..200 {
            let mut bytes = crate::http2::PREFACE.to_vec();
            for _ in 0..random.usize(..400) {
                let payload = vec![0; random.usize(..20)];
                bytes.extend(frame(random.u8(..12), random.u8(..16), random.u32(..9), &payload));
            }
            let new = || {
                let (message, limits) = (Limits::default(), FloodLimits::default());
                Meter::new(&message, limits, Peer::Client, YOUNG, at(0.0))
            };
            let (mut whole, mut split) = (new(), new());
            let at_once = whole.received(&bytes, at(1.0));
            let mut dripped = Ok(());
            for byte in &bytes {
                dripped = dripped.and_then(|()| split.received(&[*byte], at(1.0)));
            }
            assert_eq!(at_once, dripped);
            if dripped.is_ok() {
                assert_eq!(whole.deadline(), split.deadline());
            }
        }
    }
}
