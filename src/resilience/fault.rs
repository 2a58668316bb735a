//! Injected faults: a delay before a request is forwarded, a response that replaces that of the
//! endpoint, or a response with limited bandwidth.

use std::fmt;
use std::time::Duration;

use crate::error::{Flag, Refusal};
use crate::grpc::Code;
use crate::time::Time;

/// A share of requests, in [`Chance::PARTS`] of a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chance(u32);

impl Chance {
    /// The number of parts of a whole. So the smallest share is one millionth.
    pub const PARTS: u32 = 1_000_000;

    /// All requests.
    pub const ALWAYS: Self = Self(Self::PARTS);

    /// Creates the share of `parts` in [`Chance::PARTS`].
    pub fn of_parts(parts: u32) -> Self {
        Self(parts.min(Self::PARTS))
    }

    /// Whether a request belongs to the share. `draw` returns a random number from 0 to
    /// [`Chance::PARTS`], excluding the upper end. An empty share needs none.
    pub fn takes(self, draw: impl FnOnce() -> u32) -> bool {
        self.0 > 0 && draw() < self.0
    }
}

impl fmt::Display for Chance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", f64::from(self.0) / f64::from(Self::PARTS / 100))
    }
}

/// The faults of a rule. Each fault has its own share of the requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FaultPolicy {
    /// The delay before a request is forwarded.
    pub delay: Option<(Duration, Chance)>,
    /// The response that replaces that of the endpoint.
    pub abort: Option<(Abort, Chance)>,
    /// The limit on the bandwidth of the response body.
    pub bandwidth: Option<(Bandwidth, Chance)>,
}

/// The limit on the bandwidth of a response body, in bytes per second. It is not 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bandwidth(pub u32);

/// The response to an aborted request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abort {
    /// An HTTP status. A gRPC call gets the corresponding gRPC code.
    Status(u16),
    /// A gRPC code. Any other request gets the corresponding HTTP status.
    Code(Code),
}

/// The faults that one request gets. A request with a delay and an abort is aborted after its
/// delay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Injected {
    /// The delay before the request is forwarded.
    pub delay: Option<Duration>,
    /// The response that replaces that of the endpoint.
    pub abort: Option<Abort>,
    /// The limit on the bandwidth of the response body.
    pub bandwidth: Option<Bandwidth>,
}

impl FaultPolicy {
    /// Decides which faults a request gets. `draw` returns a random number from 0 to
    /// [`Chance::PARTS`], excluding the upper end. It is called once for each fault of the policy
    /// that some request gets.
    pub fn decide(&self, mut draw: impl FnMut() -> u32) -> Option<Injected> {
        let delay = self.delay.filter(|(_, chance)| chance.takes(&mut draw));
        let abort = self.abort.filter(|(_, chance)| chance.takes(&mut draw));
        let bandwidth = self.bandwidth.filter(|(_, chance)| chance.takes(&mut draw));
        let injected = Injected {
            delay: delay.map(|(wait, _)| wait),
            abort: abort.map(|(abort, _)| abort),
            bandwidth: bandwidth.map(|(limit, _)| limit),
        };
        (delay.is_some() || abort.is_some() || bandwidth.is_some()).then_some(injected)
    }
}

impl Injected {
    /// The gRPC code for a call that is aborted by this fault. `None` means that the code follows
    /// from the HTTP status.
    pub fn code_of(&self, refusal: &Refusal) -> Option<Code> {
        match self.abort {
            Some(Abort::Code(code)) if refusal.flag == Flag::FaultInjected => Some(code),
            _ => None,
        }
    }
}

/// If a response falls behind its bandwidth by no more than this time, it may be faster until it
/// has caught up.
const CATCH_UP: Duration = Duration::from_millis(100);

impl Bandwidth {
    /// The maximum number of bytes that are sent at once: those of a tenth of a second.
    pub fn portion_bytes(self) -> usize {
        (self.0 / 10).max(1) as usize
    }

    /// The time of the next portion, if `bytes` bytes were sent at `now`. `due` was the planned
    /// time of that portion.
    pub fn next(self, due: Time, now: Time, bytes: usize) -> Time {
        let earliest =
            Time::from_micros(now.as_micros().saturating_sub(CATCH_UP.as_micros() as u64));
        let took_us = (bytes as u64).saturating_mul(1_000_000).div_ceil(u64::from(self.0.max(1)));
        due.max(earliest) + Duration::from_micros(took_us)
    }
}

impl Abort {
    /// The refusal that aborts the request.
    pub fn refusal(self) -> Refusal {
        let status = match self {
            Self::Status(status) => status,
            Self::Code(code) => code.http_status(),
        };
        Refusal { status, flag: Flag::FaultInjected, detail: "the route injects this fault" }
    }
}

impl fmt::Display for Abort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "{status}"),
            Self::Code(code) => write!(f, "grpc_status {}", code.name()),
        }
    }
}

impl fmt::Display for FaultPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut before = "";
        if let Some((wait, chance)) = self.delay {
            write!(f, "delay {wait:?} for {chance}")?;
            before = ", ";
        }
        if let Some((abort, chance)) = self.abort {
            write!(f, "{before}abort with {abort} for {chance}")?;
            before = ", ";
        }
        if let Some((Bandwidth(bytes), chance)) = self.bandwidth {
            write!(f, "{before}bandwidth of {bytes} bytes per second for {chance}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn policy(delay: u32, abort: u32) -> FaultPolicy {
        FaultPolicy {
            delay: Some((SECOND, Chance::of_parts(delay))),
            abort: Some((Abort::Status(503), Chance::of_parts(abort))),
            bandwidth: None,
        }
    }

    #[test]
    fn each_fault_has_its_own_draw() {
        let (delayed, aborted) = (Some(SECOND), Some(Abort::Status(503)));
        for (draws, expected) in [
            ([9, 19], Some((delayed, aborted))),
            ([9, 20], Some((delayed, None))),
            ([10, 19], Some((None, aborted))),
            ([10, 20], None),
        ] {
            let mut draws = draws.into_iter();
            let injected = policy(10, 20).decide(|| draws.next().unwrap());
            assert_eq!(injected.map(|it| (it.delay, it.abort)), expected);
            assert_eq!(draws.next(), None);
        }
    }

    #[test]
    fn shares_are_exact_over_all_draws() {
        let mut random = fastrand::Rng::with_seed(7);
        for parts in [0, 1, 5_000, 500_000, Chance::PARTS] {
            let chance = Chance::of_parts(parts);
            let taken = (0..Chance::PARTS).filter(|&draw| chance.takes(|| draw)).count();
            assert_eq!(taken, parts as usize);
            let hits =
                (0..100_000).filter(|_| chance.takes(|| random.u32(..Chance::PARTS))).count();
            let expected = parts as usize / 10;
            assert!(hits.abs_diff(expected) <= 1_000, "{hits} of 100000 for {chance}");
        }
    }

    #[test]
    fn a_share_is_shown_as_it_is_written() {
        for (parts, shown) in [(0, "0%"), (1, "0.0001%"), (5_000, "0.5%"), (1_000_000, "100%")] {
            assert_eq!(Chance::of_parts(parts).to_string(), shown);
        }
        assert_eq!(policy(50_000, 10_000).to_string(), "delay 1s for 5%, abort with 503 for 1%");
    }

    #[test]
    fn no_order_of_portions_exceeds_the_bandwidth() {
        for seed in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed);
            let limit = Bandwidth(random.u32(1..5_000_000));
            let begun = Time::from_micros(random.u64(1_000_000..2_000_000));
            let (mut now, mut due, mut sent) = (begun, begun, 0);
            for _ in 0..100 {
                let bytes = random.usize(1..=limit.portion_bytes());
                due = limit.next(due, now, bytes);
                sent += bytes;
                // The wait may end late, and the endpoint may send nothing for a time.
                let pause = if random.u8(..10) == 0 { 3_000_000 } else { 5_000 };
                now = now.max(due) + Duration::from_micros(random.u64(..pause));
                let allowed = now.since(begun) + CATCH_UP;
                let most = f64::from(limit.0) * allowed.as_secs_f64();
                assert!(sent as f64 <= most + 1.0, "seed {seed}: {sent} of {most}");
            }
        }
    }

    #[test]
    fn a_limited_response_makes_up_for_short_lateness_only() {
        let (limit, at) = (Bandwidth(1000), |ms: u64| Time::from_micros(ms * 1000));
        assert_eq!(limit.portion_bytes(), 100);
        for (due, now, bytes, expected) in [
            (5000, 5000, 100, 5100),
            (5000, 5020, 100, 5100),
            (5000, 5200, 100, 5200),
            (5000, 9000, 50, 8950),
        ] {
            assert_eq!(limit.next(at(due), at(now), bytes), at(expected), "{due} {now} {bytes}");
        }
        assert_eq!(Bandwidth(1).portion_bytes(), 1);
    }

    #[test]
    fn a_code_is_also_a_status() {
        let unavailable = Abort::Code(Code::UNAVAILABLE);
        let refusal = unavailable.refusal();
        assert_eq!((refusal.status, refusal.flag), (503, Flag::FaultInjected));
        let injected = Injected { delay: None, abort: Some(unavailable), bandwidth: None };
        assert_eq!(injected.code_of(&refusal), Some(Code::UNAVAILABLE));
        let other = Refusal { flag: Flag::UpstreamTimeout, ..refusal };
        assert_eq!(injected.code_of(&other), None);
    }
}
