//! Waits for events with epoll, and for deadlines with a better precision than the milliseconds of
//! epoll.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// The maximum number of events from one call.
const EVENTS_MAX: usize = 512;

/// A longer wait uses epoll, except for its last milliseconds. Those need a precise wait.
const COARSE: Duration = Duration::from_millis(5);

/// Waits for many descriptors.
pub(super) struct Poller {
    epoll: Epoll,
    events: Vec<EpollEvent>,
}

/// The events to wait for. Errors and hang-ups are always reported.
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
        // The default timer slack of 50 µs would add to every latency at a low rate.
        nix::sys::prctl::set_timerslack(1)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        Ok(Self { epoll, events: vec![EpollEvent::empty(); EVENTS_MAX] })
    }

    /// Registers `socket`, level-triggered, until it is closed.
    pub(super) fn add(&self, socket: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        Ok(self.epoll.add(socket, EpollEvent::new(interest.flags(), token))?)
    }

    /// Changes the events of a registered socket.
    pub(super) fn change(
        &self,
        socket: impl AsFd,
        token: u64,
        interest: Interest,
    ) -> io::Result<()> {
        Ok(self.epoll.modify(socket, &mut EpollEvent::new(interest.flags(), token))?)
    }

    /// Waits for events or until `until`. `None` means no time limit. Stores the events in `ready`,
    /// which may stay empty.
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

/// The longest single wait. Callers wait again for the rest.
const WAIT_MS_MAX: u128 = 10_000;

/// Raises the descriptor limit for `count` more, as far as the system allows.
///
/// # Errors
/// When the highest limit is too low. The text has advice.
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

/// Descriptors for everything except connections.
const SPARE_DESCRIPTORS: u64 = 64;
