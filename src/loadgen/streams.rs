//! Sends requests over HTTP/2 and HTTP/3, many at once on each connection.
//!
//! It uses the crates `h2`, `h3` and `quinn`, so that the proxy's own code is measured by other
//! code.

mod connect;

use std::cell::RefCell;
use std::os::fd::{AsFd as _, AsRawFd, RawFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes};
use http::Request;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::io::unix::AsyncFd;
use tokio::sync::Mutex;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::error::Elapsed;

use super::Error;
use super::args::{Load, StreamTarget};
use super::pace::Pace;
use super::poller::reserve_descriptors;
use super::report::{Failure, Report, Tally};
use connect::{Connection, connect};

/// The wait after a failure. It prevents a busy loop if the target refuses everything.
const REST: Duration = Duration::from_millis(50);

/// Generates the load, and returns the report.
///
/// # Errors
/// If the target cannot be reached, or if the system has no free descriptors.
pub(super) fn run(target: &StreamTarget, load: &Load) -> Result<Report, Error> {
    let at_once = if load.close { target.streams } else { 1 };
    reserve_descriptors(load.connections.saturating_mul(at_once))
        .map_err(Error::system("cannot open so many connections"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(Error::system("epoll"))?;
    LocalSet::new().block_on(&runtime, generate(target, load))
}

async fn generate(target: &StreamTarget, load: &Load) -> Result<Report, Error> {
    let shared = Shared {
        target: target.clone(),
        load: *load,
        tally: RefCell::new(Tally::new()),
        clock: Mutex::new(Clock::new().map_err(Error::system("timerfd"))?),
    };
    let shared = Rc::new(shared);
    let mut opened = Vec::new();
    if !load.close {
        for _ in 0..load.connections {
            match shared.connect().await {
                Ok(connection) => opened.push(connection),
                Err(failure) if opened.is_empty() => return Err(shared.unreachable(failure)),
                Err(failure) => shared.tally.borrow_mut().record_failure(failure),
            }
        }
    }
    let start = Instant::now();
    shared.clock.lock().await.pace = Some(Pace::new(start, load.duration, load.rate));
    let mut users = JoinSet::new();
    for index in 0..load.connections as usize {
        let place = Rc::new(Mutex::new(opened.get(index).cloned()));
        for _ in 0..target.streams {
            users.spawn_local(use_stream(Rc::clone(&shared), Rc::clone(&place)));
        }
    }
    while users.join_next().await.is_some() {}
    shared.report(start.elapsed())
}

/// A part of the load: the requests that are sent one after the other on a stream of a connection.
async fn use_stream(shared: Rc<Shared>, place: Rc<Mutex<Option<Connection>>>) {
    loop {
        // The others wait for their moments, so the lock ends with this statement.
        let due = shared.clock.lock().await.due().await;
        let Some(from) = due else { return };
        let sent = tokio::time::timeout(shared.load.timeout, shared.exchange(&place)).await;
        if !shared.record(sent, from) {
            tokio::time::sleep(REST).await;
        }
    }
}

/// The state that all streams of a run share.
struct Shared {
    target: StreamTarget,
    load: Load,
    tally: RefCell<Tally>,
    /// A stream holds the lock while it waits for the next moment of the schedule.
    clock: Mutex<Clock>,
}

impl Shared {
    /// Opens a connection.
    async fn connect(&self) -> Result<Connection, Failure> {
        let opening = Box::pin(connect(&self.target)); // large, and rare
        let opened = tokio::time::timeout(self.load.timeout, opening).await;
        match opened {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err((failure, reason))) => {
                self.tally.borrow_mut().note_connect_error(&reason);
                Err(failure)
            }
            Err(_) => Err(Failure::Timeout),
        }
    }

    /// Counts the result of a request, whose latency counts from `from`. Returns whether there was
    /// a response.
    fn record(&self, sent: Result<Result<u16, Failure>, Elapsed>, from: Instant) -> bool {
        let mut tally = self.tally.borrow_mut();
        match sent {
            Ok(Ok(status)) => tally.record_answer(from.elapsed(), status),
            Ok(Err(failure)) => tally.record_failure(failure),
            Err(_) => {
                // Record the wait as a latency. Otherwise the percentiles would not show timeouts.
                tally.record_latency(from.elapsed());
                tally.record_failure(Failure::Timeout);
            }
        }
        matches!(sent, Ok(Ok(_)))
    }

    /// Sends a request, on the connection in `place`, and reads the whole response. Returns its
    /// status.
    async fn exchange(&self, place: &Mutex<Option<Connection>>) -> Result<u16, Failure> {
        if self.load.close {
            let status = self.connect().await?.exchange(self).await;
            self.tally.borrow_mut().record_close(false);
            return status;
        }
        let mut held = place.lock().await;
        let connection = match &*held {
            Some(connection) => connection.clone(),
            None => held.insert(self.connect().await?).clone(),
        };
        drop(held);
        let done = connection.exchange(self).await;
        if done.is_err() {
            // The next request opens a new one, unless another stream has done so.
            let mut held = place.lock().await;
            if held.as_ref().is_some_and(|held| held.is(&connection)) {
                *held = None;
            }
        }
        done
    }

    fn request(&self) -> Request<()> {
        self.target.request.clone()
    }

    fn unreachable(&self, failure: Failure) -> Error {
        let tally = self.tally.borrow();
        let reason = tally.connect_reason().map_or_else(
            || match failure {
                Failure::Timeout => "it does not answer".to_owned(),
                _ => "the handshake failed".to_owned(),
            },
            str::to_owned,
        );
        Error::Unreachable { target: self.target.name.clone(), reason }
    }

    fn report(self: Rc<Self>, elapsed: Duration) -> Result<Report, Error> {
        let tally = self.tally.replace(Tally::new());
        if tally.requests() == 0 && tally.connect_reason().is_some() {
            self.tally.replace(tally);
            return Err(self.unreachable(Failure::Connect));
        }
        let mode = if self.load.rate.is_some() { "open" } else { "closed" };
        let (name, connections) = (self.target.name.clone(), self.load.connections as usize);
        Ok(Report::new(name, mode, connections, elapsed, tally).with_streams(self.target.streams))
    }
}

impl Connection {
    /// Sends a request, and reads the whole response. Returns its status.
    async fn exchange(&self, shared: &Shared) -> Result<u16, Failure> {
        let count = |bytes: usize| shared.tally.borrow_mut().add_bytes(bytes);
        match self {
            Self::Http2(_, opener) => {
                let mut opener = opener.clone().ready().await.map_err(|error| broken(&error))?;
                let sent = opener.send_request(shared.request(), true);
                let (response, _) = sent.map_err(|error| broken(&error))?;
                let response = response.await.map_err(|error| broken(&error))?;
                let (status, mut body) = (response.status().as_u16(), response.into_body());
                while let Some(data) = body.data().await {
                    let data = data.map_err(|error| broken(&error))?;
                    count(data.len());
                    body.flow_control().release_capacity(data.len()).ok();
                }
                body.trailers().await.map_err(|error| broken(&error))?;
                Ok(status)
            }
            Self::Http3(_, opener) => {
                let sent = opener.clone().send_request(shared.request()).await;
                let mut stream = sent.map_err(|_| Failure::Reset)?;
                stream.finish().await.map_err(|_| Failure::Reset)?;
                let response = stream.recv_response().await.map_err(|_| Failure::Reset)?;
                while let Some(data) = stream.recv_data().await.map_err(|_| Failure::Reset)? {
                    count(data.remaining());
                }
                stream.recv_trailers().await.map_err(|_| Failure::Reset)?;
                Ok(response.status().as_u16())
            }
        }
    }
}

/// The kind of an error of HTTP/2.
fn broken(error: &h2::Error) -> Failure {
    if error.is_io() { Failure::Closed } else { Failure::Reset }
}

/// The schedule, and a timer that is more precise than those of tokio, which count milliseconds.
struct Clock {
    pace: Option<Pace>,
    timer: AsyncFd<Timer>,
}

/// A timer that a runtime of tokio watches.
struct Timer(TimerFd);

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Clock {
    fn new() -> std::io::Result<Self> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = Timer(TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?);
        // Use the deprecated `new`, because its replacement is unsafe. `new` is sound here: a
        // `Timer` stays open as long as it exists.
        #[expect(deprecated)]
        let timer = AsyncFd::new(timer)?;
        Ok(Self { pace: None, timer })
    }

    /// Waits until a request is due, and takes it. Returns the time from which its latency counts.
    /// `None` at the end of the run.
    async fn due(&mut self) -> Option<Instant> {
        loop {
            let (now, pace) = (Instant::now(), self.pace.as_mut()?);
            if let Some(from) = pace.take(now) {
                return Some(from);
            }
            let due = pace.next_due().filter(|_| !pace.is_over(now))?;
            self.wait(due.saturating_duration_since(now)).await?;
        }
    }

    async fn wait(&self, time: Duration) -> Option<()> {
        // Zero would stop the timer.
        let expiration = Expiration::OneShot(time.max(Duration::from_nanos(1)).into());
        self.timer.get_ref().0.set(expiration, TimerSetTimeFlags::empty()).ok()?;
        let mut ready = self.timer.readable().await.ok()?;
        ready.clear_ready();
        Some(())
    }
}

/// The bytes of a message. No request has any.
type Opener2 = h2::client::SendRequest<Bytes>;
type Opener3 = h3::client::SendRequest<h3_quinn::OpenStreams, Bytes>;
