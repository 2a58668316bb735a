//! Waits for events with epoll. Waits for deadlines more precisely than epoll, which counts
//! milliseconds.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// The maximum number of events that one call returns.
const EVENTS_MAX: usize = 512;

/// Up to this time, a wait is precise. A longer wait uses epoll for all but its last milliseconds.
const COARSE: Duration = Duration::from_millis(5);

/// Waits for events of many descriptors.
pub(super) struct Poller {
    epoll: Epoll,
    events: Vec<EpollEvent>,
}

/// The events to wait for. Errors and hang-ups are reported in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interest {
    Read,
    Write,
}

/// An event of the descriptor with `token`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ready {
    pub(super) token: u64,
    pub(super) writable: bool,
}

impl Poller {
    pub(super) fn new() -> io::Result<Self> {
        // The default timer slack of 50 µs would increase each latency at a low rate.
        nix::sys::prctl::set_timerslack(1)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        Ok(Self { epoll, events: vec![EpollEvent::empty(); EVENTS_MAX] })
    }

    /// Registers `socket` (level-triggered). Closing the socket removes it.
    pub(super) fn add(&self, socket: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        Ok(self.epoll.add(socket, EpollEvent::new(interest.flags(), token))?)
    }

    /// Changes the events that are reported for a registered socket.
    pub(super) fn change(
        &self,
        socket: impl AsFd,
        token: u64,
        interest: Interest,
    ) -> io::Result<()> {
        Ok(self.epoll.modify(socket, &mut EpollEvent::new(interest.flags(), token))?)
    }

    /// Waits for events, but not longer than until `until`. `None` means no time limit. Writes the
    /// events to `ready`, which may stay empty.
    pub(super) fn wait(
        &mut self,
        until: Option<Instant>,
        ready: &mut Vec<Ready>,
    ) -> io::Result<()> {
        ready.clear();
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let timeout = match left {
            None => EpollTimeout::NONE,
            Some(Duration::ZERO) => EpollTimeout::ZERO,
            Some(left) if left > COARSE => {
                let ms = (left - Duration::from_millis(1)).as_millis().min(WAIT_MS_MAX);
                EpollTimeout::from(ms as u16)
            }
            Some(left) => {
                let mut epoll = [PollFd::new(self.epoll.0.as_fd(), PollFlags::POLLIN)];
                match ppoll(&mut epoll, Some(left.into()), None) {
                    Ok(_) | Err(Errno::EINTR) => EpollTimeout::ZERO,
                    Err(error) => return Err(error.into()),
                }
            }
        };
        let count = match self.epoll.wait(&mut self.events, timeout) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(error) => return Err(error.into()),
        };
        ready.extend(self.events[..count].iter().map(|event| Ready {
            token: event.data(),
            writable: event.events().intersects(EpollFlags::EPOLLOUT),
        }));
        Ok(())
    }
}

impl Interest {
    fn flags(self) -> EpollFlags {
        match self {
            Self::Read => EpollFlags::EPOLLIN,
            Self::Write => EpollFlags::EPOLLOUT,
        }
    }
}

/// The longest wait of one call. The caller waits again for the rest.
const WAIT_MS_MAX: u128 = 10_000;

/// Raises the soft limit on open files so that `count` more descriptors fit. Raises the hard limit,
/// too, if that is needed and allowed.
///
/// # Errors
/// If the hard limit is too low and cannot be raised. The message says how to raise it.
pub(super) fn reserve_descriptors(count: u32) -> io::Result<()> {
    let wanted = u64::from(count) + SPARE_DESCRIPTORS;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft >= wanted || setrlimit(Resource::RLIMIT_NOFILE, wanted, hard.max(wanted)).is_ok() {
        return Ok(());
    }
    if hard >= wanted && setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).is_ok() {
        return Ok(());
    }
    Err(io::Error::other(format!("{wanted} are needed, {hard} allowed: raise ulimit -Hn")))
}

/// The number of descriptors for everything except connections.
const SPARE_DESCRIPTORS: u64 = 64;
