//! From answers to states, and from states to who takes requests.

/// What is known of an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Nothing yet.
    #[default]
    Unchecked,
    /// It is fit for requests.
    Healthy,
    /// It is not.
    Unhealthy,
}

impl State {
    /// Its name for operators.
    pub fn label(self) -> &'static str {
        match self {
            Self::Unchecked => "unchecked",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// Why a check failed, as metrics count it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It took too long.
    Timeout,
    /// There was no connection.
    Connect,
    /// The TLS handshake failed.
    Tls,
    /// The connection broke off, or what came was no answer.
    Broken,
    /// The answer had another status than a good one.
    Status,
    /// The endpoint says of itself that it does not serve.
    NotServing,
}

impl Reason {
    /// Every reason, in the order of [`Reason::index`].
    pub const ALL: [Self; 6] =
        [Self::Timeout, Self::Connect, Self::Tls, Self::Broken, Self::Status, Self::NotServing];

    /// The value of the metric's label.
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

    /// Position in [`Reason::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// Whether the endpoint itself has said no: that counts at once. For everything else the
    /// network may be to blame, and it counts when it has come often enough.
    fn is_a_no(self) -> bool {
        matches!(self, Self::Status | Self::NotServing)
    }
}

/// How many answers in a row change a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Good ones, until an unhealthy endpoint is healthy.
    pub healthy: u32,
    /// Missing ones, until a healthy endpoint is unhealthy.
    pub unhealthy: u32,
}

/// Follows the answers of one endpoint.
#[derive(Clone, Copy, Debug, Default)]
pub struct Judge {
    state: State,
    /// Answers in a row that speak against the state.
    against: u32,
}

impl Judge {
    /// What is known now.
    pub fn state(&self) -> State {
        self.state
    }

    /// Takes the outcome of a check, and gives the new state when that has changed it. The first
    /// check decides alone: there is nothing that it could speak against.
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

/// Who of some endpoints takes requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eligible {
    /// Those in this state.
    Only(State),
    /// Whoever there is: so few are healthy that they could not carry the load of all.
    Everyone,
}

impl Eligible {
    /// Whether an endpoint in this state is among them.
    pub fn includes(self, state: State) -> bool {
        self == Self::Everyone || self == Self::Only(state)
    }
}

/// Who of endpoints in these states takes requests: the healthy ones, unless they are fewer than
/// `panic_percent`. Those of whom nothing is known only as long as there is no healthy one.
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

    /// States after each of these answers: `+` a good one, `-` one that says no, `.` none.
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
            // The first check decides alone.
            ("+", 3, 3, "H"),
            (".", 3, 3, "u"),
            ("-", 3, 3, "u"),
            // So many in a row, and not fewer.
            ("+...", 2, 3, "HHHu"),
            ("+..+..+", 2, 3, "HHHHHHH"),
            ("+...+.++", 2, 3, "HHHuuuuH"),
            ("+....++", 2, 3, "HHHuuuH"),
            ("+.", 1, 1, "Hu"),
            (".+.+", 1, 1, "uHuH"),
            // Who says no is believed at once; who says yes is not.
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
            // Of newcomers nothing is known: not against them, if there is nobody better.
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
