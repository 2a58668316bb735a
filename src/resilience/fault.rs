//! Injected faults: a delay before a request is forwarded, or an answer in place of it.

use std::fmt;
use std::time::Duration;

use crate::error::{Flag, Refusal};
use crate::grpc::Code;

/// A share of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chance(u32);

impl Chance {
    /// The number of parts of a whole. The finest share is one part.
    pub const PARTS: u32 = 1_000_000;

    /// Every request.
    pub const ALWAYS: Self = Self(Self::PARTS);

    /// The share of `parts` in [`Chance::PARTS`].
    pub fn of_parts(parts: u32) -> Self {
        Self(parts.min(Self::PARTS))
    }

    /// Whether a request belongs to the share. `draw` is random, from 0 to below
    /// [`Chance::PARTS`].
    pub fn takes(self, draw: u32) -> bool {
        draw < self.0
    }
}

impl fmt::Display for Chance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", f64::from(self.0) / f64::from(Self::PARTS / 100))
    }
}

/// The faults of a rule. Each has its own share of the requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FaultPolicy {
    /// The wait before a request is forwarded.
    pub delay: Option<(Duration, Chance)>,
    /// The answer in place of the endpoint's.
    pub abort: Option<(Abort, Chance)>,
}

/// The answer to an aborted request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abort {
    /// An HTTP status. A gRPC call gets the code that belongs to it.
    Status(u16),
    /// A gRPC code. Another request gets the HTTP status that belongs to it.
    Code(Code),
}

/// The faults of one request. A request with both is aborted after its delay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Injected {
    /// The wait before the request is forwarded.
    pub delay: Option<Duration>,
    /// The answer in place of the endpoint's.
    pub abort: Option<Abort>,
}

impl FaultPolicy {
    /// Decides about one request. `draw` gives a random number from 0 to below [`Chance::PARTS`].
    /// It is called once for each fault of the policy.
    pub fn decide(&self, mut draw: impl FnMut() -> u32) -> Option<Injected> {
        let delay = self.delay.filter(|(_, chance)| chance.takes(draw()));
        let abort = self.abort.filter(|(_, chance)| chance.takes(draw()));
        let injected =
            Injected { delay: delay.map(|(wait, _)| wait), abort: abort.map(|(abort, _)| abort) };
        (delay.is_some() || abort.is_some()).then_some(injected)
    }
}

impl Injected {
    /// The code for a call that this fault refuses. `None` means that the status decides.
    pub fn code_of(&self, refusal: &Refusal) -> Option<Code> {
        match self.abort {
            Some(Abort::Code(code)) if refusal.flag == Flag::FaultInjected => Some(code),
            _ => None,
        }
    }
}

impl Abort {
    /// The refusal of the request.
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
            let taken = (0..Chance::PARTS).filter(|&draw| chance.takes(draw)).count();
            assert_eq!(taken, parts as usize);
            let hits = (0..100_000).filter(|_| chance.takes(random.u32(..Chance::PARTS))).count();
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
    fn a_code_is_also_a_status() {
        let unavailable = Abort::Code(Code::UNAVAILABLE);
        let refusal = unavailable.refusal();
        assert_eq!((refusal.status, refusal.flag), (503, Flag::FaultInjected));
        let injected = Injected { delay: None, abort: Some(unavailable) };
        assert_eq!(injected.code_of(&refusal), Some(Code::UNAVAILABLE));
        let other = Refusal { flag: Flag::UpstreamTimeout, ..refusal };
        assert_eq!(injected.code_of(&other), None);
    }
}
