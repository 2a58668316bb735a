//! The timer of a worker: a descriptor that becomes readable at a set time.
//!
//! A worker needs one timer, because its heap of alarms has all other deadlines. With a descriptor
//! for it, the ring waits without a timeout. monoio's own timer searches a wheel at each wait.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

/// The longest time of a timer. The alarms are looked at again after it.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// A timerfd(2). It is off until it is set.
pub struct Timer(TimerFd);

impl Timer {
    /// Creates a timer.
    ///
    /// # Errors
    /// When the process has no free descriptors.
    pub fn new() -> io::Result<Self> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        Ok(Self(TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?))
    }

    /// Returns a second descriptor of this timer. It is readable when the set time is over.
    ///
    /// # Errors
    /// When the process has no free descriptors.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        self.0.as_fd().try_clone_to_owned()
    }

    /// Makes the descriptor readable `after` this time from now, or after a day if that is earlier.
    /// Until then, it is not readable.
    pub fn set(&self, after: Duration) {
        // Zero would turn the timer off.
        let after = after.clamp(Duration::from_nanos(1), LONGEST);
        let expiration = Expiration::OneShot(TimeSpec::from_duration(after));
        let set = self.0.set(expiration, TimerSetTimeFlags::empty());
        set.expect("timerfd_settime(2) refuses only times that are no times");
    }
}

#[cfg(test)]
mod tests {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;

    #[test]
    fn a_timer_is_readable_when_its_time_is_over_and_not_after_it_is_set_again() {
        let timer = Timer::new().unwrap();
        let descriptor = timer.descriptor().unwrap();
        let readable = |wait| {
            let mut polled = [PollFd::new(descriptor.as_fd(), PollFlags::POLLIN)];
            poll(&mut polled, wait).unwrap() == 1
        };
        assert!(!readable(PollTimeout::ZERO), "before it is set");
        timer.set(Duration::ZERO);
        assert!(readable(PollTimeout::NONE), "a time that is over");
        timer.set(Duration::MAX);
        assert!(!readable(PollTimeout::ZERO), "set again");
    }
}
