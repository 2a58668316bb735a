//! Measures one-way throughput: bytes per second through a proxy to a server that discards them.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use super::Error;
use super::args::{Load, Target};
use super::client::{connect_error, start_connect};
use super::poller::{Interest, Poller, Ready, reserve_descriptors};
use super::report::{Failure, Report, Tally};
use crate::error::plain;

/// The maximum size of one write.
const WRITE_BYTES: usize = 256 * 1024;

/// The maximum number of writes to one stream before it is the turn of the next stream.
const WRITES_IN_A_ROW_MAX: usize = 4;

/// Sends on `load.connections` streams for `load.duration`. Then closes them, and waits until the
/// server has closed them, too. So all counted bytes have arrived.
///
/// # Errors
/// If the target cannot be reached, or if the system has no free descriptors.
pub(super) fn run(target: &Target, load: &Load) -> Result<Report, Error> {
    let system = Error::system;
    reserve_descriptors(load.connections).map_err(system("cannot open so many connections"))?;
    let mut poller = Poller::new().map_err(system("epoll"))?;
    let mut streams = Vec::new();
    for token in 0..u64::from(load.connections) {
        let opened = start_connect(target)
            .and_then(|socket| poller.add(&socket, token, Interest::Write).map(|()| socket));
        let socket = opened.map_err(|error| unreachable(target, &error))?;
        streams.push(Stream { socket, phase: Phase::Connecting });
    }
    let payload = vec![b'b'; WRITE_BYTES];
    let mut tally = Tally::new();
    let start = Instant::now();
    let end = start + load.duration;
    let mut ready: Vec<Ready> = Vec::new();
    while streams.iter().any(|stream| stream.phase != Phase::Over) {
        if Instant::now() > end + load.timeout {
            let late = streams.iter().filter(|stream| stream.phase != Phase::Over);
            late.for_each(|_| tally.record_failure(Failure::Timeout));
            break;
        }
        poller.wait(Some(Instant::now() + STEP), &mut ready).map_err(system("epoll"))?;
        for event in &ready {
            let stream = &mut streams[event.token as usize];
            stream.advance(&payload, end, &mut tally);
        }
        for (token, stream) in (0..).zip(&mut streams) {
            stream.end_if_due(&poller, token, end, &mut tally);
        }
    }
    if tally.bytes() == 0
        && let Some(reason) = tally.connect_reason()
    {
        return Err(unreachable(target, &io::Error::other(reason.to_owned())));
    }
    Ok(Report::new(target.name.clone(), "bulk", streams.len(), start.elapsed(), tally))
}

/// The longest wait for events. After each wait, the end of the run is checked.
const STEP: Duration = Duration::from_millis(20);

struct Stream {
    socket: TcpStream,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Connecting,
    Sending,
    /// The sending side is closed. When the server closes its side, all bytes have arrived.
    Ending,
    Over,
}

impl Stream {
    fn advance(&mut self, payload: &[u8], end: Instant, tally: &mut Tally) {
        match self.phase {
            Phase::Connecting => match connect_error(&self.socket) {
                None => self.phase = Phase::Sending,
                Some(error) => {
                    tally.note_connect_error(&error);
                    self.fail(Failure::Connect, tally);
                }
            },
            Phase::Sending => self.send(payload, end, tally),
            Phase::Ending => match self.socket.read(&mut [0; 1024]) {
                Ok(0) => {
                    tally.record_answer(Duration::ZERO, 0);
                    self.phase = Phase::Over;
                }
                Ok(_) => self.fail(Failure::Malformed, tally),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => self.fail(Failure::Reset, tally),
            },
            Phase::Over => {}
        }
    }

    fn send(&mut self, payload: &[u8], end: Instant, tally: &mut Tally) {
        for _ in 0..WRITES_IN_A_ROW_MAX {
            if Instant::now() >= end {
                return;
            }
            match self.socket.write(payload) {
                Ok(count) => tally.add_bytes(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => return self.fail(Failure::Reset, tally),
            }
        }
    }

    fn end_if_due(&mut self, poller: &Poller, token: u64, end: Instant, tally: &mut Tally) {
        if self.phase != Phase::Sending || Instant::now() < end {
            return;
        }
        let ended = self
            .socket
            .shutdown(Shutdown::Write)
            .and_then(|()| poller.change(&self.socket, token, Interest::Read));
        match ended {
            Ok(()) => self.phase = Phase::Ending,
            Err(_) => self.fail(Failure::Reset, tally),
        }
    }

    fn fail(&mut self, failure: Failure, tally: &mut Tally) {
        tally.record_failure(failure);
        // Ignore the error: if `shutdown` fails, the connection is already closed.
        self.socket.shutdown(Shutdown::Both).ok();
        self.phase = Phase::Over;
    }
}

fn unreachable(target: &Target, error: &io::Error) -> Error {
    Error::Unreachable { target: target.name.clone(), reason: plain(&error) }
}
