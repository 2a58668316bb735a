//! Decides the health states from check results, and which endpoints get requests.

/// The health state of an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// No check has completed yet.
    #[default]
    Unchecked,
    /// The endpoint accepts connections and answers the checks.
    Healthy,
    /// The endpoint has failed its checks.
    Unhealthy,
}

impl State {
    /// The name of the state for operators.
    pub fn label(self) -> &'static str {
        match self {
            Self::Unchecked => "unchecked",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// The reason of a failed check, as in metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The check was not complete within its time limit.
    Timeout,
    /// The connection could not be opened.
    Connect,
    /// The TLS handshake failed.
    Tls,
    /// The connection was closed or reset, or the response was malformed.
    Broken,
    /// The response had an unexpected status.
    Status,
    /// The endpoint reported that it does not serve requests.
    NotServing,
}

impl Reason {
    /// All reasons, in the order of [`Reason::index`].
    pub const ALL: [Self; 6] =
        [Self::Timeout, Self::Connect, Self::Tls, Self::Broken, Self::Status, Self::NotServing];

    /// The value of the metric label `reason`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Broken => "broken",
            Self::Status => "status",
            Self::NotServing => "not_serving",
        }
    }

    /// The position in [`Reason::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// Whether the endpoint itself reported that it is unhealthy. One such response is enough.
    /// Other failures may be caused by the network, so several consecutive ones are needed.
    fn is_a_no(self) -> bool {
        matches!(self, Self::Status | Self::NotServing)
    }
}

/// How many consecutive results change a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// The number of consecutive successes that makes an unhealthy endpoint healthy.
    pub healthy: u32,
    /// The number of consecutive failures that makes a healthy endpoint unhealthy.
    pub unhealthy: u32,
}

/// Derives the health state of one endpoint from its check results.
#[derive(Clone, Copy, Debug, Default)]
pub struct Judge {
    state: State,
    /// The number of consecutive results that contradict the state.
    against: u32,
}

impl Judge {
    /// The current state.
    pub fn state(&self) -> State {
        self.state
    }

    /// Records the result of a check. Returns the new state if it has changed. The first check sets
    /// the state alone, whatever the thresholds are.
    pub fn hear(&mut self, outcome: Result<(), Reason>, thresholds: Thresholds) -> Option<State> {
        let (said, needed) = match outcome {
            Ok(()) => (State::Healthy, thresholds.healthy),
            Err(reason) if reason.is_a_no() => (State::Unhealthy, 1),
            Err(_) => (State::Unhealthy, thresholds.unhealthy),
        };
        if said == self.state {
            self.against = 0;
            return None;
        }
        self.against += 1;
        if self.state != State::Unchecked && self.against < needed {
            return None;
        }
        *self = Self { state: said, against: 0 };
        Some(said)
    }
}

/// Which endpoints get requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eligible {
    /// Only endpoints in this state.
    Only(State),
    /// All endpoints, because too few are healthy to carry the load.
    Everyone,
}

impl Eligible {
    /// Whether an endpoint in this state gets requests.
    pub fn includes(self, state: State) -> bool {
        self == Self::Everyone || self == Self::Only(state)
    }
}

/// Decides which endpoints get requests: the healthy ones, or all if fewer than `panic_percent` are
/// healthy. Unchecked endpoints get requests only while no endpoint is healthy.
pub fn eligible(states: impl Iterator<Item = State>, panic_percent: u8) -> Eligible {
    let (mut healthy, mut unchecked, mut all) = (0_u64, 0_u64, 0_u64);
    for state in states {
        all += 1;
        healthy += u64::from(state == State::Healthy);
        unchecked += u64::from(state == State::Unchecked);
    }
    if healthy * 100 < all * u64::from(panic_percent) {
        return Eligible::Everyone;
    }
    match (healthy, unchecked) {
        (0, 1..) => Eligible::Only(State::Unchecked),
        _ => Eligible::Only(State::Healthy),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the states after each result: `+` success, `-` an unhealthy response, `.` no
    /// response.
    fn states(answers: &str, healthy: u32, unhealthy: u32) -> String {
        let mut judge = Judge::default();
        let letter = |answer| {
            let outcome = match answer {
                '+' => Ok(()),
                '-' => Err(Reason::NotServing),
                _ => Err(Reason::Timeout),
            };
            let before = judge.state();
            let change = judge.hear(outcome, Thresholds { healthy, unhealthy });
            assert_eq!(change, (judge.state() != before).then(|| judge.state()), "{answers}");
            if judge.state() == State::Healthy { 'H' } else { 'u' }
        };
        answers.chars().map(letter).collect()
    }

    #[test]
    fn states_follow_the_answers() {
        for (answers, healthy, unhealthy, after) in [
            // The first check sets the state alone.
            ("+", 3, 3, "H"),
            (".", 3, 3, "u"),
            ("-", 3, 3, "u"),
            // Exactly this many consecutive failures are needed.
            ("+...", 2, 3, "HHHu"),
            ("+..+..+", 2, 3, "HHHHHHH"),
            ("+...+.++", 2, 3, "HHHuuuuH"),
            ("+....++", 2, 3, "HHHuuuH"),
            ("+.", 1, 1, "Hu"),
            (".+.+", 1, 1, "uHuH"),
            // One unhealthy response is enough; one success is not.
            ("+-", 2, 3, "Hu"),
            ("+.-++", 2, 3, "HHuuH"),
            ("-+-+-", 2, 3, "uuuuu"),
        ] {
            assert_eq!(states(answers, healthy, unhealthy), after, "{answers}");
        }
    }

    #[test]
    fn requests_go_to_the_healthy_while_they_are_enough() {
        use Eligible::{Everyone, Only};
        use State::{Healthy as H, Unchecked as N, Unhealthy as U};
        for (states, panic_percent, expected) in [
            (&[H, H, H][..], 50, Only(H)),
            (&[H, U], 50, Only(H)),
            (&[H, U, U], 50, Everyone),
            (&[H, U, U], 33, Only(H)),
            (&[U, U], 50, Everyone),
            (&[U], 1, Everyone),
            (&[U, U], 0, Only(H)),
            // New endpoints are unchecked. They get requests if no endpoint is healthy.
            (&[N, N, N], 50, Everyone),
            (&[N, N, U], 0, Only(N)),
            (&[N, H, U], 0, Only(H)),
            (&[N, H], 50, Only(H)),
            (&[], 50, Only(H)),
        ] {
            assert_eq!(eligible(states.iter().copied(), panic_percent), expected, "{states:?}");
        }
    }
}
