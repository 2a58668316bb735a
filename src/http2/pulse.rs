//! Decides when to send a PING on an HTTP/2 connection, when to close it, and when to drain it.

use std::time::Duration;

use super::Settings;
use crate::time::Time;

/// The timers of one connection. They read no clock; the caller passes the time.
#[derive(Debug)]
pub struct Pulse {
    ping_interval: Option<Duration>,
    ping_timeout: Option<Duration>,
    idle_timeout: Duration,
    /// The time when the connection reaches its maximum age.
    leave_at: Time,
    /// When the last PING was sent. `None` if it was answered.
    asked: Option<Time>,
    idle_since: Time,
    opened: u64,
}

/// The current state of the connection.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// The time of the last received bytes.
    pub heard: Time,
    /// Whether streams are open.
    pub busy: bool,
    /// The number of streams opened so far.
    pub opened: u64,
}

/// The actions that are due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Send a PING.
    pub ping: bool,
    /// Close the connection: the peer did not answer a PING in time.
    pub dead: bool,
    /// Open no more streams on the connection.
    pub leave: bool,
    /// The time at which [`Pulse::step`] must be called again.
    pub next: Time,
}

impl Pulse {
    /// Creates the timers of a connection that was opened at `now`. The connection is drained after
    /// `idle_timeout` without streams, or when it reaches `age`.
    pub fn new(
        now: Time,
        settings: &Settings,
        idle_timeout: Duration,
        age: Option<Duration>,
    ) -> Self {
        Self {
            ping_interval: settings.ping_interval,
            ping_timeout: settings.ping_timeout,
            idle_timeout,
            leave_at: age.map_or(Time::NEVER, |age| now + age),
            asked: None,
            idle_since: now,
            opened: 0,
        }
    }

    /// Whether the peer has answered the last PING since the last [`Pulse::step`]. The caller must
    /// then call `step`, because the time of the next PING counts from the answer.
    pub fn is_answered(&self, heard: Time) -> bool {
        self.asked.is_some_and(|asked| heard >= asked)
    }

    /// Returns the actions that are due at `now`.
    pub fn step(&mut self, now: Time, seen: Seen) -> Step {
        if seen.busy || seen.opened != self.opened {
            self.idle_since = now;
            self.opened = seen.opened;
        }
        if self.is_answered(seen.heard) {
            self.asked = None;
        }
        let leave = now >= self.leave_at;
        // A deadline in the past must not set the timer again: the timer would fire without end.
        let next = if leave { Time::NEVER } else { self.leave_at };
        let mut step = Step { ping: false, dead: false, leave, next };
        if !seen.busy {
            let gone = self.idle_since + self.idle_timeout;
            step.leave |= now >= gone;
            step.next = step.next.min(gone);
        }
        if let Some(interval) = self.ping_interval.filter(|_| seen.busy && self.asked.is_none()) {
            let due = seen.heard + interval;
            step.ping = now >= due;
            if step.ping {
                self.asked = Some(now);
            } else {
                step.next = step.next.min(due);
            }
        }
        if let (Some(asked), Some(timeout)) = (self.asked, self.ping_timeout) {
            step.dead = now >= asked + timeout;
            step.next = step.next.min(asked + timeout);
        }
        step
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_connection_is_asked_and_given_up_and_an_idle_or_old_one_is_left() {
        let seconds = |s: u64| Time::from_micros(s * 1_000_000);
        let settings = Settings::default(); // PING after 30 s, closed 20 s later
        let new = |age| Pulse::new(seconds(0), &settings, Duration::from_secs(60), age);
        let mut pulse = new(None);
        // (now, heard, busy, opened) and (ping, dead, leave, next)
        for ((now, heard, busy, opened), (ping, dead, leave, next)) in [
            ((0, 0, true, 1), (false, false, false, 30)),
            ((30, 5, true, 1), (false, false, false, 35)),
            ((35, 5, true, 1), (true, false, false, 55)),
            ((40, 36, true, 1), (false, false, false, 66)),
            ((66, 36, true, 1), (true, false, false, 86)),
            ((86, 36, true, 1), (false, true, false, 86)),
            ((87, 87, false, 1), (false, false, false, 146)),
            ((100, 100, false, 2), (false, false, false, 160)),
            ((160, 100, false, 2), (false, false, true, 160)),
        ] {
            let seen = Seen { heard: seconds(heard), busy, opened };
            let expected = Step { ping, dead, leave, next: seconds(next) };
            assert_eq!(pulse.step(seconds(now), seen), expected, "at {now}");
        }
        let mut old = new(Some(Duration::from_secs(10)));
        let seen = Seen { heard: seconds(9), busy: true, opened: 1 };
        let step = old.step(seconds(9), seen);
        assert!(!step.leave && step.next == seconds(10));
        // Open streams continue, so the next action is a PING.
        let step = old.step(seconds(10), seen);
        assert!(step.leave && step.next == seconds(39));
    }
}
