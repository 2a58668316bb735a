//! The pause between attempts to reach a server.

use std::time::Duration;

/// The pause after the first failure.
pub(super) const FIRST: Duration = Duration::from_millis(500);

/// A pause that each failure doubles, up to a maximum.
pub(super) struct Pause {
    next: Duration,
    max: Duration,
}

impl Pause {
    /// Creates a pause that begins with [`FIRST`].
    pub(super) fn up_to(max: Duration) -> Self {
        Self { next: FIRST, max }
    }

    /// Begins with [`FIRST`] again, because the server has answered.
    pub(super) fn reset(&mut self) {
        self.next = FIRST;
    }

    /// The pause after another failure, without jitter.
    pub(super) fn take(&mut self) -> Duration {
        let taken = self.next;
        self.next = (taken * 2).min(self.max);
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_doubles_the_pause_until_an_answer() {
        let mut pause = Pause::up_to(FIRST * 3);
        assert_eq!([pause.take(), pause.take(), pause.take()], [FIRST, FIRST * 2, FIRST * 3]);
        pause.reset();
        assert_eq!([pause.take(), pause.take()], [FIRST, FIRST * 2]);
    }
}
