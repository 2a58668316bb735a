//! Chooses between two ways to an endpoint: QUIC and TCP. QUIC is tried first. If it fails where
//! TCP works, the endpoint is reached over TCP for a time.

use std::time::Duration;

use crate::time::Time;

/// How long requests go over TCP after QUIC has failed, before QUIC is tried again.
pub const QUIC_RETRY_AFTER: Duration = Duration::from_secs(300);

/// After this silence on a busy connection, the endpoint is asked whether it still hears us.
const ASK_AFTER: Duration = Duration::from_secs(1);

/// If the endpoint does not answer for this time, new requests take another way.
const DOUBT_AFTER: Duration = Duration::from_secs(1);

/// If the endpoint does not answer for this time, and TCP works, the connection is given up.
const GIVE_UP_AFTER: Duration = Duration::from_secs(3);

/// The knowledge about the way over QUIC to one endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TwoWays(State);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// QUIC was not tried yet, or both ways have failed.
    #[default]
    Untried,
    /// The endpoint offers QUIC, which was not tried yet.
    Offered,
    /// QUIC works.
    Works,
    /// Requests go over TCP until it is known which way works.
    Unsure { has_failed: bool, tcp_works: bool },
    /// QUIC does not work. It is tried again at this time.
    Failed(Time),
}

impl TwoWays {
    /// Whether new connections use QUIC. `untried` is the answer before the first attempt.
    pub fn prefers_quic(self, untried: bool) -> bool {
        match self.0 {
            State::Untried => untried,
            State::Works => true,
            State::Offered | State::Unsure { .. } | State::Failed(_) => false,
        }
    }

    /// The endpoint offers QUIC.
    pub fn offered(&mut self) {
        if self.0 == State::Untried {
            self.0 = State::Offered;
        }
    }

    /// The endpoint does not offer QUIC any more. A failure is not forgotten, so that endpoints
    /// which share an address and differ in their offers are not tried again and again.
    pub fn not_offered(&mut self) {
        if !self.has_failed() {
            self.forget();
        }
    }

    /// The last connection over QUIC has ended, and one over TCP is left. QUIC is tried again
    /// beside it. Returns whether QUIC has worked.
    pub fn left(&mut self) -> bool {
        let has_worked = self.0 == State::Works;
        if has_worked {
            self.0 = State::Unsure { has_failed: false, tcp_works: true };
        }
        has_worked
    }

    /// An attempt has ended whose offer is over. It says nothing about another offer.
    pub fn outdated(&mut self, now: Time) {
        if self.0 == State::Failed(Time::NEVER) {
            self.0 = State::Failed(now + QUIC_RETRY_AFTER);
        }
    }

    /// The endpoint has refused a request over QUIC that it may serve over TCP.
    pub fn refused(&mut self, now: Time) {
        self.0 = State::Failed(now + QUIC_RETRY_AFTER);
    }

    /// Whether QUIC is to be tried beside TCP, now or later.
    pub fn is_waiting(self) -> bool {
        matches!(self.0, State::Offered | State::Failed(_))
    }

    /// Whether QUIC should be tried again now, beside TCP. The next answer is no until the attempt
    /// has ended.
    pub fn is_due(&mut self, now: Time) -> bool {
        match self.0 {
            State::Offered => self.0 = State::Unsure { has_failed: false, tcp_works: true },
            State::Failed(at) if now >= at => self.0 = State::Failed(Time::NEVER),
            _ => return false,
        }
        true
    }

    /// Whether QUIC has worked the last time.
    pub fn has_worked(self) -> bool {
        self.0 == State::Works
    }

    /// Whether QUIC is known to fail while TCP works.
    pub fn has_failed(self) -> bool {
        matches!(self.0, State::Failed(_))
    }

    /// QUIC takes long, so TCP is tried, too.
    pub fn is_slow(&mut self) {
        if matches!(self.0, State::Untried | State::Works) {
            self.0 = State::Unsure { has_failed: false, tcp_works: false };
        }
    }

    /// A connection over QUIC is open.
    pub fn opened(&mut self) {
        self.0 = State::Works;
    }

    /// QUIC has failed, or a connection does not answer any more. Returns true if the endpoint is
    /// reached over TCP from now on.
    pub fn failed(&mut self, now: Time) -> bool {
        let at = State::Failed(now + QUIC_RETRY_AFTER);
        let (next, is_news) = match self.0 {
            State::Unsure { tcp_works: true, .. } => (at, true),
            State::Failed(_) => (at, false),
            State::Untried | State::Offered | State::Works | State::Unsure { .. } => {
                (State::Unsure { has_failed: true, tcp_works: false }, false)
            }
        };
        self.0 = next;
        is_news
    }

    /// A connection over TCP is open. Returns true if the endpoint is reached over TCP from now on.
    pub fn tcp_opened(&mut self, now: Time) -> bool {
        let State::Unsure { has_failed, .. } = self.0 else { return false };
        self.0 = match has_failed {
            true => State::Failed(now + QUIC_RETRY_AFTER),
            false => State::Unsure { has_failed, tcp_works: true },
        };
        has_failed
    }

    /// No connection over TCP could be opened.
    pub fn tcp_failed(&mut self) {
        // The endpoint itself may be gone. It may return with QUIC.
        if let State::Unsure { has_failed: true, .. } = self.0 {
            self.0 = State::Untried;
        }
    }

    /// Forgets everything.
    pub fn forget(&mut self) {
        self.0 = State::Untried;
    }
}

/// Watches a connection over QUIC to an endpoint that has another way: a path that drops UDP says
/// nothing.
#[derive(Debug, Default)]
pub struct Silence {
    busy_since: Option<Time>,
    asked: Option<Time>,
}

/// The step that is due on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// Ask the endpoint for an answer.
    pub ask: bool,
    /// Open no more streams: the endpoint does not answer.
    pub doubt: bool,
    /// End the connection if TCP works.
    pub give_up: bool,
    /// The time of the next step.
    pub next: Time,
}

impl Silence {
    /// Whether the last step saw streams.
    pub fn is_begun(&self) -> bool {
        self.busy_since.is_some()
    }

    /// Returns what is due at `now`. `heard` is the time of the last datagram, and `busy` whether
    /// streams are open.
    pub fn step(&mut self, now: Time, heard: Time, busy: bool) -> Due {
        let mut due = Due { ask: false, doubt: false, give_up: false, next: Time::NEVER };
        if !busy {
            *self = Self::default();
            return due;
        }
        let busy_since = *self.busy_since.get_or_insert(now);
        if self.asked.is_some_and(|asked| heard > asked) {
            self.asked = None;
        }
        let at = heard.max(busy_since) + ASK_AFTER;
        if self.asked.is_none() {
            if now < at {
                due.next = at;
                return due;
            }
            due.ask = true;
        }
        let asked = *self.asked.get_or_insert(now);
        due.doubt = now >= asked + DOUBT_AFTER;
        due.give_up = now >= asked + GIVE_UP_AFTER;
        due.next = match (due.doubt, due.give_up) {
            (false, _) => asked + DOUBT_AFTER,
            (true, false) => asked + GIVE_UP_AFTER,
            (true, true) => now + DOUBT_AFTER,
        };
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(s: u64) -> Time {
        Time::from_micros(s * 1_000_000)
    }

    /// An event, and the expected state after it: whether QUIC is used, and whether it is known to
    /// fail.
    type Step = (&'static str, bool, bool);

    #[test]
    fn the_way_that_works_is_taken() {
        let cases: [(&str, &[Step]); 6] = [
            ("QUIC works", &[("opened", true, false), ("opened", true, false)]),
            ("QUIC is refused", &[("failed", false, false), ("tcp opened", false, true)]),
            (
                "UDP is dropped",
                &[("slow", false, false), ("tcp opened", false, false), ("failed!", false, true)],
            ),
            (
                "QUIC is slow",
                &[("slow", false, false), ("tcp opened", false, false), ("opened", true, false)],
            ),
            (
                "the endpoint is gone for a moment",
                &[("opened", true, false), ("failed", false, false), ("tcp failed", true, false)],
            ),
            (
                "UDP is dropped later",
                &[("opened", true, false), ("failed", false, false), ("tcp opened", false, true)],
            ),
        ];
        for (case, steps) in cases {
            let mut ways = TwoWays::default();
            for (event, quic, has_failed) in steps {
                let is_news = match *event {
                    "opened" => {
                        ways.opened();
                        false
                    }
                    "slow" => {
                        ways.is_slow();
                        false
                    }
                    "failed" | "failed!" => ways.failed(seconds(1)),
                    "tcp opened" => ways.tcp_opened(seconds(1)),
                    _ => {
                        ways.tcp_failed();
                        false
                    }
                };
                let found = (ways.prefers_quic(true), ways.has_failed());
                assert_eq!(found, (*quic, *has_failed), "{case}: {event}");
                assert_eq!(is_news, *has_failed, "{case}: {event} is told once");
            }
        }
    }

    #[test]
    fn an_offer_is_tried_beside_tcp() {
        for works in [true, false] {
            let mut ways = TwoWays::default();
            ways.offered();
            assert!(ways.is_waiting() && !ways.prefers_quic(false) && !ways.prefers_quic(true));
            assert!(ways.is_due(seconds(0)) && !ways.is_due(seconds(0)), "one attempt");
            ways.offered();
            assert!(!ways.prefers_quic(true), "it is being tried");
            match works {
                true => ways.opened(),
                false => assert!(ways.failed(seconds(5)), "it is told"),
            }
            ways.offered();
            assert_eq!(ways.prefers_quic(false), works);
            assert_eq!(ways.has_failed(), !works);
        }
    }

    #[test]
    fn an_offer_that_ends_is_forgotten_but_no_failure() {
        let mut ways = TwoWays::default();
        ways.offered();
        ways.not_offered();
        assert!(!ways.is_waiting() && !ways.is_due(seconds(0)));
        ways.offered();
        assert!(ways.is_due(seconds(0)));
        ways.opened();
        ways.not_offered();
        assert!(!ways.prefers_quic(false), "TCP again");
        ways.refused(seconds(1));
        ways.not_offered();
        ways.offered();
        assert!(ways.has_failed() && !ways.is_due(seconds(300)));
        assert!(ways.is_due(seconds(301)) && !ways.is_due(seconds(302)), "one attempt");
    }

    #[test]
    fn an_attempt_for_an_old_offer_says_nothing() {
        let mut ways = TwoWays::default();
        ways.refused(seconds(0));
        assert!(ways.is_due(seconds(300)));
        ways.not_offered();
        assert!(!ways.is_due(seconds(10_000)), "the attempt goes on");
        ways.outdated(seconds(301));
        assert!(!ways.is_due(seconds(600)) && ways.is_due(seconds(601)));
        let mut ways = TwoWays::default();
        ways.offered();
        ways.outdated(seconds(1));
        assert!(ways.is_due(seconds(1)), "another offer is tried");
    }

    #[test]
    fn quic_that_has_worked_is_tried_again_beside_tcp() {
        let mut ways = TwoWays::default();
        assert!(!ways.left());
        ways.opened();
        assert!(ways.left() && !ways.left(), "one attempt");
        assert!(!ways.prefers_quic(true), "requests do not wait");
        assert!(ways.failed(seconds(1)), "TCP works");
    }

    #[test]
    fn a_failure_is_remembered_for_a_time() {
        let mut ways = TwoWays::default();
        assert!(!ways.failed(seconds(0)) && ways.tcp_opened(seconds(0)));
        assert!(!ways.is_due(seconds(299)));
        assert!(ways.is_due(seconds(300)), "it is tried again");
        assert!(!ways.is_due(seconds(301)), "one attempt at a time");
        assert!(!ways.failed(seconds(305)), "known already");
        assert!(!ways.is_due(seconds(604)) && ways.is_due(seconds(605)));
        ways.opened();
        assert!(ways.prefers_quic(false));
        ways.forget();
        assert!(!ways.prefers_quic(false) && ways.prefers_quic(true));
    }

    #[test]
    fn a_silent_endpoint_is_asked_doubted_and_given_up() {
        let mut silence = Silence::default();
        // (now, heard, busy) and (ask, doubt, give_up, next)
        for ((now, heard, busy), (ask, doubt, give_up, next)) in [
            ((10, 0, false), (false, false, false, None)),
            ((20, 0, true), (false, false, false, Some(21))),
            ((21, 0, true), (true, false, false, Some(22))),
            ((22, 22, true), (false, false, false, Some(23))),
            ((30, 22, true), (true, false, false, Some(31))),
            ((31, 22, true), (false, true, false, Some(33))),
            ((33, 22, true), (false, true, true, Some(34))),
            ((34, 34, true), (false, false, false, Some(35))),
            ((36, 34, false), (false, false, false, None)),
        ] {
            let next = next.map_or(Time::NEVER, seconds);
            let due = silence.step(seconds(now), seconds(heard), busy);
            assert_eq!(silence.is_begun(), busy);
            assert_eq!(due, Due { ask, doubt, give_up, next }, "at {now}");
        }
    }
}
