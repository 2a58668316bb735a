//! Sends requests on many connections, in a closed loop or on a schedule.

use std::collections::VecDeque;
use std::io;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use super::Error;
use super::answer::{Answer, Step};
use super::args::{Load, Protocol, Target};
use super::link::{Link, Portion};
use super::pace::Pace;
use super::poller::{Interest, Poller, Ready, reserve_descriptors};
use super::report::{Failure, Report, Tally};
use crate::message::Limits;

/// The maximum size of one read.
const READ_BYTES: usize = 256 * 1024;

/// The interval of timeout checks. Also the wait of a connection after a failure, which prevents a
/// busy loop if the target refuses all connections.
const SWEEP: Duration = Duration::from_millis(50);

/// Generates the load, and returns the report.
///
/// # Errors
/// If the target cannot be reached, or if the system has no free descriptors.
pub(super) fn run(target: &Target, load: &Load) -> Result<Report, Error> {
    let mut client = Client::new(target, load, load.connections)?;
    if !load.close {
        client.connect_all()?;
    }
    let start = Instant::now();
    let mut pace = Pace::new(start, load.duration, load.rate);
    while client.turn(&mut pace)? {}
    let mode = if load.rate.is_some() { "open" } else { "closed" };
    client.finish(mode, start.elapsed())
}

/// All connections of a run, and their requests.
pub(super) struct Client<'a> {
    target: &'a Target,
    load: &'a Load,
    poller: Poller,
    connections: Vec<Connection>,
    /// Connections without a request. The one that is idle for the longest time is first, so that
    /// all connections are used.
    free: VecDeque<usize>,
    /// Connections that have failed since the last timeout check.
    resting: Vec<usize>,
    next_sweep: Instant,
    busy: usize,
    /// Whether a connection that closes while idle is opened again.
    reopens: bool,
    ready: Vec<Ready>,
    scratch: Vec<u8>,
    limits: Limits,
    tally: Tally,
}

#[derive(Default)]
struct Connection {
    link: Option<Link>,
    /// Incremented for each new socket, to ignore events of earlier sockets.
    generation: u32,
    connecting: bool,
    interest: Option<Interest>,
    job: Option<Job>,
    answer: Answer,
}

struct Job {
    /// The start of the latency. On a schedule, this is the time at which the request was due.
    from: Instant,
    /// The time at which the client began to send the request.
    begun: Instant,
    sent_bytes: usize,
}

impl<'a> Client<'a> {
    /// Creates a client with `count` closed connections.
    pub(super) fn new(target: &'a Target, load: &'a Load, count: u32) -> Result<Self, Error> {
        reserve_descriptors(count).map_err(Error::system("cannot open so many connections"))?;
        Ok(Self {
            target,
            load,
            poller: Poller::new().map_err(Error::system("epoll"))?,
            connections: (0..count).map(|_| Connection::default()).collect(),
            free: (0..count as usize).collect(),
            resting: Vec::new(),
            next_sweep: Instant::now() + SWEEP,
            busy: 0,
            reopens: !load.close,
            ready: Vec::new(),
            scratch: vec![0; READ_BYTES],
            limits: Limits::default(),
            tally: Tally::new(),
        })
    }

    /// Opens all connections, before the measurement begins.
    fn connect_all(&mut self) -> Result<(), Error> {
        let deadline = Instant::now() + self.load.timeout;
        for index in 0..self.connections.len() {
            self.open(index);
        }
        while self.connections.iter().any(|connection| connection.connecting) {
            if Instant::now() >= deadline {
                break;
            }
            self.wait(Some(deadline))?;
        }
        if self.connections.iter().any(|c| c.link.is_some() && !c.connecting) {
            return Ok(());
        }
        let reason = self.tally.connect_reason().unwrap_or("it does not answer").to_owned();
        Err(Error::Unreachable { target: self.target.name.clone(), reason })
    }

    /// Starts the requests that are due, waits for events, and handles them. Returns false at the
    /// end of the run.
    fn turn(&mut self, pace: &mut Pace) -> Result<bool, Error> {
        let now = Instant::now();
        if now >= self.next_sweep {
            self.sweep(now);
        }
        while let Some(&index) = self.free.front() {
            let Some(from) = pace.take(now) else { break };
            self.free.pop_front();
            self.begin(index, from);
        }
        if pace.is_over(now) && self.busy == 0 {
            return Ok(false);
        }
        if now >= pace.end() + self.load.timeout {
            self.give_up(pace, now);
            return Ok(false);
        }
        // If all connections are busy, the next request must wait for a response.
        let due = pace.next_due().filter(|_| !self.free.is_empty() && !pace.is_over(now));
        let until = due.map_or(self.next_sweep, |due| due.min(self.next_sweep));
        self.wait(Some(until))?;
        Ok(true)
    }

    /// Waits for events, but not longer than until `until`. Handles them.
    pub(super) fn wait(&mut self, until: Option<Instant>) -> Result<(), Error> {
        let mut ready = std::mem::take(&mut self.ready);
        self.poller.wait(until, &mut ready).map_err(Error::system("epoll"))?;
        for event in &ready {
            let index = (event.token & u64::from(u32::MAX)) as usize;
            if self.connections[index].token(index) == event.token {
                self.handle(index, event.writable);
            }
        }
        self.ready = ready;
        Ok(())
    }

    /// Sends a request on the connection. Opens the connection first if it is closed.
    pub(super) fn begin(&mut self, index: usize, from: Instant) {
        let connection = &mut self.connections[index];
        connection.job = Some(Job { from, begun: Instant::now(), sent_bytes: 0 });
        match self.target.protocol {
            Protocol::Http1 => connection.answer.expect_http1(),
            Protocol::Echo => connection.answer.expect_echo(self.target.request.len()),
        }
        self.busy += 1;
        if connection.link.is_none() {
            self.open(index);
        } else if !connection.connecting {
            self.send(index);
        }
    }

    /// Fails the requests that have exceeded the timeout, and uses connections again that have
    /// failed.
    pub(super) fn sweep(&mut self, now: Instant) {
        self.next_sweep = now + SWEEP;
        self.free.extend(self.resting.drain(..));
        for index in 0..self.connections.len() {
            let job = self.connections[index].job.as_ref();
            if let Some(job) = job.filter(|job| now - job.begun >= self.load.timeout) {
                // Record the wait as a latency. Otherwise the percentiles would not show timeouts.
                self.tally.record_latency(now - job.from);
                self.fail(index, Failure::Timeout);
            }
        }
    }

    /// The number of requests that wait for a response.
    pub(super) fn busy(&self) -> usize {
        self.busy
    }

    /// The number of open connections.
    pub(super) fn open_connections(&self) -> usize {
        self.connections.iter().filter(|c| c.link.is_some() && !c.connecting).count()
    }

    /// Keeps a connection closed from now on if the peer closes it while it is idle.
    pub(super) fn hold(&mut self) {
        self.reopens = false;
    }

    /// Makes the report of the run.
    pub(super) fn finish(self, mode: &'static str, elapsed: Duration) -> Result<Report, Error> {
        if self.tally.requests() == 0
            && let Some(reason) = self.tally.connect_reason()
        {
            let (target, reason) = (self.target.name.clone(), reason.to_owned());
            return Err(Error::Unreachable { target, reason });
        }
        let connections = self.connections.len();
        Ok(Report::new(self.target.name.clone(), mode, connections, elapsed, self.tally))
    }

    fn open(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        connection.generation = connection.generation.wrapping_add(1);
        let token = connection.token(index);
        let opened = start_connect(self.target).and_then(|socket| {
            self.poller.add(&socket, token, Interest::Write)?;
            Link::new(socket, self.target.tls.as_ref())
        });
        match opened {
            Ok(link) => {
                connection.link = Some(link);
                connection.connecting = true;
                connection.interest = Some(Interest::Write);
            }
            Err(error) => {
                self.tally.note_connect_error(&error);
                self.fail(index, Failure::Connect);
            }
        }
    }

    fn handle(&mut self, index: usize, writable: bool) {
        let connection = &mut self.connections[index];
        let Some(link) = &connection.link else { return };
        if connection.connecting {
            if let Some(error) = connect_error(link.socket()) {
                self.tally.note_connect_error(&error);
                return self.fail(index, Failure::Connect);
            }
            connection.connecting = false;
            return if connection.job.is_some() {
                self.send(index);
            } else {
                self.watch(index, Interest::Read);
            };
        }
        match &connection.job {
            Some(job)
                if writable
                    && (job.sent_bytes < self.target.request.len() || link.wants_write()) =>
            {
                self.send(index);
            }
            Some(_) => self.receive(index),
            None => self.read_while_idle(index),
        }
    }

    fn send(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        let (Some(link), Some(job)) = (&mut connection.link, &mut connection.job) else {
            return;
        };
        let request = &self.target.request;
        while job.sent_bytes < request.len() {
            match link.write(&request[job.sent_bytes..]) {
                Ok(count) => job.sent_bytes += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return self.watch(index, Interest::Write);
                }
                Err(_) => return self.fail(index, Failure::Reset),
            }
        }
        match link.flush() {
            Ok(()) => self.watch(index, Interest::Read),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.watch(index, Interest::Write);
            }
            Err(_) => self.fail(index, Failure::Reset),
        }
    }

    fn receive(&mut self, index: usize) {
        loop {
            let connection = &mut self.connections[index];
            let Some(link) = &mut connection.link else { return };
            let (step, is_last) = match link.read(&mut self.scratch, &connection.answer) {
                Ok(Portion { count: 0, .. }) => match connection.answer.end() {
                    Some(step) => (Ok(step), true),
                    None => return self.fail(index, Failure::Closed),
                },
                Ok(Portion { count, discarded, is_last }) => {
                    self.tally.add_bytes(count);
                    let step = match discarded {
                        true => connection.answer.discard(count),
                        false => connection.answer.take(&self.scratch[..count], &self.limits),
                    };
                    (step, is_last)
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let owes = link.wants_write();
                    return self.watch(index, if owes { Interest::Write } else { Interest::Read });
                }
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    self.tally.note_connect_error(&error);
                    return self.fail(index, Failure::Handshake);
                }
                Err(_) => return self.fail(index, Failure::Reset),
            };
            match step {
                Err(_) => return self.fail(index, Failure::Malformed),
                Ok(Step::Done { status, keep_alive }) => {
                    return self.complete(index, status, keep_alive);
                }
                Ok(Step::More) if is_last => return,
                Ok(Step::More) => {}
            }
        }
    }

    fn complete(&mut self, index: usize, status: u16, keep_alive: bool) {
        let connection = &mut self.connections[index];
        if let Some(job) = connection.job.take() {
            self.busy -= 1;
            self.tally.record_answer(job.from.elapsed(), status);
        }
        let resumed = connection.link.as_ref().is_some_and(Link::resumed);
        if self.load.close || !keep_alive {
            self.tally.record_close(resumed);
            connection.link = None;
            if self.reopens {
                self.open(index);
            }
        }
        self.free.push_back(index);
    }

    /// Closes the connection, and counts its request as failed.
    fn fail(&mut self, index: usize, failure: Failure) {
        let connection = &mut self.connections[index];
        connection.link = None;
        connection.connecting = false;
        self.tally.record_failure(failure);
        if connection.job.take().is_some() {
            self.busy -= 1;
            self.resting.push(index);
        }
    }

    /// Handles input on an idle connection: its end, or a TLS message such as a session ticket.
    fn read_while_idle(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        if let Some(link) = connection.link.as_mut().filter(|link| link.is_tls())
            && let Err(error) = link.read(&mut self.scratch, &connection.answer)
            && error.kind() == io::ErrorKind::WouldBlock
        {
            return;
        }
        // The connection has ended, or has unexpected bytes. It cannot be used again.
        self.connections[index].link = None;
        self.tally.record_idle_close();
        if self.reopens {
            self.open(index);
        }
    }

    fn give_up(&mut self, pace: &mut Pace, now: Instant) {
        for index in 0..self.connections.len() {
            if let Some(job) = &self.connections[index].job {
                self.tally.record_latency(now - job.from);
                self.fail(index, Failure::Timeout);
            }
        }
        // On a schedule, also count the requests that were due but were not sent.
        while let Some(from) = pace.take(now).filter(|_| self.load.rate.is_some()) {
            self.tally.record_latency(now - from);
            self.tally.record_failure(Failure::Timeout);
        }
    }

    fn watch(&mut self, index: usize, interest: Interest) {
        let connection = &mut self.connections[index];
        let token = connection.token(index);
        let Some(link) = &connection.link else { return };
        if connection.interest == Some(interest) {
            return;
        }
        match self.poller.change(link, token, interest) {
            Ok(()) => connection.interest = Some(interest),
            Err(_) => self.fail(index, Failure::Reset),
        }
    }
}

impl Connection {
    fn token(&self, index: usize) -> u64 {
        u64::from(self.generation) << 32 | index as u64
    }
}

pub(super) fn start_connect(target: &Target) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(target.address), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    match socket.connect(&target.address.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(socket.into()),
    }
}

pub(super) fn connect_error(socket: &TcpStream) -> Option<io::Error> {
    match socket.take_error() {
        Ok(error) => error,
        Err(error) => Some(error),
    }
}
