//! The meter of HTTP/2: no panic, and the same is said of the same bytes however they are cut.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use ringway::http2::{FloodLimits, Meter, PREFACE, Peer};
use ringway::message::Limits;
use ringway::time::Time;

fuzz_target!(|input: &[u8]| {
    // The first byte says who sends, and how much comes at a time where it is cut.
    let Some((first, bytes)) = input.split_first() else { return };
    let peer = if first & 1 == 0 { Peer::Client } else { Peer::Endpoint };
    let portion_bytes = usize::from(first >> 1) + 1;
    let (message, limits) = (Limits::default(), FloodLimits::default());
    let new = || {
        let mut meter =
            Meter::new(&message, limits, peer, Duration::from_secs(1), Time::default());
        if peer == Peer::Client {
            meter.received(PREFACE, Time::default()).unwrap();
        } else {
            meter.sent(PREFACE, Time::default()).unwrap();
        }
        meter
    };
    let now = Time::from_micros(50_000);
    for ours in [false, true] {
        let take = |meter: &mut Meter, portion: &[u8]| {
            if ours { meter.sent(portion, now) } else { meter.received(portion, now) }
        };
        let (mut whole, mut cut) = (new(), new());
        let at_once = take(&mut whole, bytes);
        let in_portions = bytes.chunks(portion_bytes).try_for_each(|part| take(&mut cut, part));
        assert_eq!(at_once, in_portions);
        assert_eq!(whole.last_stream(), cut.last_stream());
        assert_eq!(whole.told(), cut.told());
        if at_once.is_ok() {
            assert_eq!(whole.deadline(), cut.deadline());
            assert_eq!(whole.may_send_frame(), cut.may_send_frame());
        }
    }
});
