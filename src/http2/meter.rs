//! Counts the frames of a connection and reports when its peer exceeds a limit.
//!
//! Normal traffic earns credit; only the excess counts. For example, the DATA that we send earns
//! credit for WINDOW_UPDATE and PING. Counts decrease with time, so a long-lived connection does
//! not look like a flood.

use std::time::Duration;

use super::flood::{Excess, Flood, FloodLimits};
use super::frame::{Code, END_HEADERS, END_STREAM, FrameHead, Kind};
use crate::message::Limits;
use crate::time::Time;

/// A client's RST_STREAM counts if it arrives within this time after its stream was opened. The
/// times are approximate: see [`Streams::grow_old`].
const YOUNG: Duration = Duration::from_millis(100);

/// One stream earns credit for this many PRIORITY frames, as in Envoy.
const PRIORITY_PER_STREAM: f64 = 100.0;

/// One stream earns credit for this many GOAWAY frames and frames of unknown types.
const OTHER_PER_STREAM: f64 = 10.0;

/// One KiB of DATA that we send earns credit for this many WINDOW_UPDATE frames. Envoy allows 10
/// for each DATA frame.
const UPDATES_PER_KIB: f64 = 10.0;

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
pub(super) struct Meter {
    limits: FloodLimits,
    header_bytes: usize,
    peer: Peer,
    header_timeout: Duration,
    /// The count of each limit in [`Flood::ALL`].
    levels: [f64; Flood::ALL.len()],
    /// The time of the last decrease of `levels`.
    lowered: Time,
    /// The number of CONTINUATION frames in the open header block.
    continuations: u32,
    /// The time since which a frame or a header block has been incomplete.
    unfinished: Option<Time>,
    streams: Streams,
}

impl Meter {
    /// Creates the meter of a connection that was opened at `now`. Each header block must be
    /// complete within `header_timeout`.
    pub(super) fn new(
        message: &Limits,
        limits: FloodLimits,
        peer: Peer,
        header_timeout: Duration,
        now: Time,
    ) -> Self {
        Self {
            limits,
            header_bytes: message.header_bytes,
            peer,
            header_timeout,
            levels: [0.0; Flood::ALL.len()],
            lowered: now,
            continuations: 0,
            unfinished: None,
            streams: Streams::new(now),
        }
    }

    /// Decreases the counts for the time since the last call.
    pub(super) fn pass_time(&mut self, now: Time) {
        self.streams.grow_old(now);
        let part = (now - self.lowered).as_secs_f64() / self.limits.window.as_secs_f64();
        if part == 0.0 {
            return;
        }
        self.lowered = now;
        for flood in Flood::ALL {
            if self.levels[flood.index()] > 0.0 {
                self.pay(flood, self.limit(flood) as f64 * part);
            }
        }
    }

    /// Counts a received frame. `content_bytes` is the length of its payload without padding.
    ///
    /// # Errors
    /// The exceeded limit.
    pub(super) fn received(
        &mut self,
        frame: FrameHead,
        content_bytes: usize,
    ) -> Result<(), Excess> {
        match frame.kind {
            Kind::Data if content_bytes == 0 && !frame.has(END_STREAM) => {
                self.charge(Flood::EmptyFrames)
            }
            Kind::Data => Ok(()),
            Kind::Headers => {
                self.continuations = 0;
                if self.peer == Peer::Client {
                    self.opened(frame.stream);
                } else if frame.has(END_STREAM) {
                    self.pay(Flood::StreamResets, 1.0);
                }
                match content_bytes == 0 && !frame.has(END_HEADERS) {
                    true => self.charge(Flood::EmptyFrames),
                    false => Ok(()),
                }
            }
            Kind::Continuation => {
                self.continuations += 1;
                match self.continuations > self.limits.continuation_frames {
                    true => Err(self.excess(Flood::ContinuationFrames)),
                    false => Ok(()),
                }
            }
            Kind::Reset if self.streams.reset(frame.stream, self.peer) => {
                self.charge(Flood::StreamResets)
            }
            Kind::Reset => Ok(()),
            Kind::Settings => self.charge(Flood::SettingsFrames),
            Kind::Ping => self.charge(Flood::PingFrames),
            Kind::Priority | Kind::PriorityUpdate => self.charge(Flood::PriorityFrames),
            Kind::WindowUpdate => self.charge(Flood::WindowUpdateFrames),
            Kind::PushPromise | Kind::GoAway | Kind::Other => self.charge(Flood::OtherFrames),
        }
    }

    /// Records a DATA frame that we send: it earns credit for WINDOW_UPDATE and PING.
    pub(super) fn sent_data(&mut self, bytes: usize) {
        self.pay(Flood::WindowUpdateFrames, UPDATES_PER_KIB * (1 + bytes / 1024) as f64);
        self.pay(Flood::PingFrames, 1.0);
    }

    /// Records that we have ended the stream of a client: it earns credit for one RST_STREAM.
    pub(super) fn answered(&mut self) {
        self.pay(Flood::StreamResets, 1.0);
    }

    /// Counts a RST_STREAM that we send because of an error of the peer.
    ///
    /// # Errors
    /// When the count exceeds [`FloodLimits::provoked_resets`].
    pub(super) fn sent_reset(&mut self, code: Code) -> Result<(), Excess> {
        match code.is_provoked() {
            true => self.charge(Flood::ProvokedResets),
            false => Ok(()),
        }
    }

    /// Checks the memory overhead of unread DATA frames: see [`FloodLimits::data_overhead_bytes`].
    ///
    /// # Errors
    /// When the overhead exceeds the limit.
    pub(super) fn overhead(&self, bytes: usize) -> Result<(), Excess> {
        match bytes > self.limits.data_overhead_bytes {
            true => Err(self.excess(Flood::DataOverhead)),
            false => Ok(()),
        }
    }

    /// Records whether a frame or a header block has begun and is not complete. `progress` means
    /// that an earlier one has been completed since the last call.
    pub(super) fn is_unfinished(&mut self, unfinished: bool, progress: bool, now: Time) {
        self.unfinished = match (unfinished, progress) {
            (false, _) => None,
            (true, true) => Some(now),
            (true, false) => self.unfinished.or(Some(now)),
        };
    }

    /// The deadline for an incomplete header block, or an incomplete frame other than DATA.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.unfinished.map(|since| since + self.header_timeout)
    }

    /// Records a HEADERS frame. If it opens a stream, it earns credit for PRIORITY and other
    /// frames.
    pub(super) fn opened(&mut self, stream: u32) {
        if self.streams.opened(stream) {
            self.pay(Flood::PriorityFrames, PRIORITY_PER_STREAM);
            self.pay(Flood::OtherFrames, OTHER_PER_STREAM);
        }
    }

    /// The error for exceeding the limit `flood`.
    pub(super) fn excess(&self, flood: Flood) -> Excess {
        Excess { flood, limit: self.limit(flood) }
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
            // The value is in milliseconds.
            Flood::UnfinishedHeaders => self.header_timeout.as_millis() as u64,
            Flood::HeaderBytes => self.header_bytes as u64,
        }
    }
}

/// The streams that were opened. They decide whether a reset counts. A later stream has a larger
/// id.
#[derive(Debug)]
struct Streams {
    /// The id of the last stream that was opened.
    last: u32,
    /// The number of streams that were opened and not reset.
    unreset: u64,
    /// Streams with ids up to `old` are older than [`YOUNG`]. Streams up to `next_old` will be so
    /// at the next update of the ages.
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

    /// Whether the reset of `stream` counts: a client resets a young stream, or the peer resets
    /// more streams than were opened.
    fn reset(&mut self, stream: u32, peer: Peer) -> bool {
        let none_left = self.unreset == 0;
        self.unreset = self.unreset.saturating_sub(1);
        none_left || (peer == Peer::Client && stream > self.old)
    }

    /// Updates the ages. A stream counts as young for one to two times [`YOUNG`].
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
    use super::super::frame::{HEAD_BYTES, without_padding};
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        bytes.extend([kind, flags]);
        bytes.extend(stream.to_be_bytes());
        bytes.extend(payload);
        bytes
    }

    impl Meter {
        /// Counts the complete frames in `bytes`, as sent by the peer.
        fn take(&mut self, mut bytes: &[u8], now: Time) -> Result<(), Excess> {
            self.pass_time(now);
            while let Some(head) = FrameHead::read(bytes) {
                let (payload, rest) = bytes[HEAD_BYTES..].split_at(head.payload_bytes);
                self.received(head, without_padding(head, payload).map_or(0, <[u8]>::len))?;
                bytes = rest;
            }
            Ok(())
        }
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
        let (limits, nine_seconds) = (FloodLimits::default(), Duration::from_secs(9));
        Meter::new(&Limits::default(), limits, peer, nine_seconds, at(0.0))
    }

    /// Returns how many rounds of frames the meter accepts at one time (at most 5000), and the
    /// exceeded limit.
    fn taken(peer: Peer, round: impl Fn(u32) -> Vec<u8>) -> (u32, Option<&'static str>) {
        let mut meter = meter(peer);
        for n in 0..5000 {
            if let Err(excess) = meter.take(&round(n), at(0.0)) {
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
            // A browser sends the priority of each request.
            &|n| [open(2 * n + 1), frame(16, 0, 0, b"u=1")].concat(),
        ] {
            assert_eq!(taken(Peer::Client, harmless), (5000, None));
        }
    }

    #[test]
    fn resets_that_the_peer_provokes_count_and_our_own_do_not() {
        for (code, limit) in [(1, 500), (5, 500), (7, 500), (0, 5000), (2, 5000), (8, 5000)] {
            let mut meter = meter(Peer::Client);
            let taken = (0..5000).take_while(|_| meter.sent_reset(Code(code)).is_ok());
            assert_eq!(taken.count(), limit, "{code}");
        }
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
                busy.take(&open(stream), now).unwrap();
                if n % 2 == 0 {
                    busy.take(&reset(stream, 8), now).unwrap();
                    continue;
                }
                for _ in 0..3 {
                    busy.sent_data(16384);
                    busy.take(&update.repeat(32), now).unwrap();
                    busy.take(&frame(6, 0, 0, &[0; 8]), now).unwrap();
                }
                busy.answered();
            }
            for n in 0..100 {
                let stream = |round: u32| 200 * round + 2 * n + 1;
                late.take(&open(stream(round)), now).unwrap();
                if round >= 3 {
                    late.take(&reset(stream(round - 3), 8), now).unwrap();
                }
            }
        }
        // An endpoint may reset every stream that we open.
        let mut endpoint = meter(Peer::Endpoint);
        for n in 0..10_000 {
            endpoint.opened(2 * n + 1);
            endpoint.take(&reset(2 * n + 1, 11), at(0.0)).unwrap();
        }
    }

    #[test]
    fn what_was_counted_is_forgotten_at_an_even_rate() {
        let mut meter = meter(Peer::Client);
        let pings = |n| frame(6, 0, 0, &[0; 8]).repeat(n);
        meter.take(&pings(1000), at(0.0)).unwrap();
        assert!(meter.take(&pings(1), at(0.0)).is_err());
        meter.take(&pings(499), at(5.01)).unwrap();
        assert!(meter.take(&pings(10), at(5.01)).is_err());
        meter.take(&pings(990), at(16.0)).unwrap();
    }

    #[test]
    fn what_is_unfinished_has_a_deadline_from_its_beginning() {
        let mut meter = meter(Peer::Client);
        assert_eq!(meter.deadline(), None);
        meter.is_unfinished(true, false, at(1.0));
        meter.is_unfinished(true, false, at(2.0));
        assert_eq!(meter.deadline(), Some(at(10.0)));
        // An earlier frame was completed at 3 s, and another one has begun.
        meter.is_unfinished(true, true, at(3.0));
        assert_eq!(meter.deadline(), Some(at(12.0)));
        meter.is_unfinished(false, true, at(4.0));
        assert_eq!(meter.deadline(), None);
    }
}
