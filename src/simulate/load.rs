//! The simulated clients. Requests arrive at random times (a Poisson process), and do not wait for
//! the responses to earlier ones.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use super::result::Interval;
use super::scenario::{Request, Scenario};
use crate::loadgen::answer::{Answer, Step};
use crate::message::Limits;
use crate::net::{Address, Egress};
use crate::runtime::io::{Io, Quiet, Read, Stream};
use crate::runtime::sim::{SimIo, SimStream};
use crate::time::Time;

/// The time after which a client cancels its request.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// All clients. They share a pool of connections to the proxy.
pub struct Clients {
    io: SimIo,
    proxy: Address,
    /// The requests, each with the sum of the weights up to it.
    mix: Vec<(u32, Box<[u8]>)>,
    idle: RefCell<Vec<SimStream>>,
    random: RefCell<fastrand::Rng>,
    limits: Limits,
    /// The results of the current interval, until the simulation takes them.
    pub interval: RefCell<Interval>,
    /// The number of requests that have no result yet.
    pub open: Cell<u64>,
}

impl Clients {
    /// Creates the clients. They connect to `proxy`.
    pub fn new(io: SimIo, proxy: Address, scenario: &Scenario) -> Rc<Self> {
        let mut weights = 0;
        let text = |request: &Request| {
            weights += request.weight;
            (weights, text(request, &scenario.headers))
        };
        Rc::new(Self {
            io,
            proxy,
            mix: scenario.mix.iter().map(text).collect(),
            idle: RefCell::default(),
            random: RefCell::new(fastrand::Rng::with_seed(scenario.seed ^ 1)),
            limits: Limits::default(),
            interval: RefCell::default(),
            open: Cell::new(0),
        })
    }

    /// Sends `rate` requests per second on average, until `end`.
    pub async fn send_all(self: Rc<Self>, rate: u32, end: Time) {
        let mut next = self.io.now();
        loop {
            let uniform = 1.0 - self.random.borrow_mut().f64();
            next = next + Duration::from_secs_f64(-uniform.ln() / f64::from(rate));
            if next >= end {
                return;
            }
            self.io.sleep_until(next).await;
            self.open.set(self.open.get() + 1);
            self.io.spawn(Rc::clone(&self).send());
        }
    }

    async fn send(self: Rc<Self>) {
        let began = self.io.now();
        let status = super::within(&self.io, PATIENCE, self.ask()).await.flatten();
        self.open.set(self.open.get() - 1);
        self.interval.borrow_mut().add(status, self.io.now().since(began));
    }

    /// Sends one request. Returns the status of its response, or `None` without a response.
    async fn ask(&self) -> Option<u16> {
        let drawn = self.random.borrow_mut().u32(..self.mix.last()?.0);
        let text = &self.mix.iter().find(|(weights, _)| drawn < *weights)?.1;
        let stream = match self.pooled() {
            Some(stream) => stream,
            None => self.io.connect(&self.proxy, Egress::default()).await.ok()?,
        };
        let mut buf = self.io.buffers().take();
        buf.append(text);
        stream.write_all(buf).await.0.ok()?;
        let mut answer = Answer::default();
        answer.expect_http1();
        loop {
            let (read, buf) = stream.read(self.io.buffers().take()).await;
            let Ok(Read::Data(_)) = read else { return None };
            if let Step::Done { status, keep_alive } = answer.take(buf.data(), &self.limits).ok()? {
                if keep_alive {
                    self.idle.borrow_mut().push(stream);
                }
                return Some(status);
            }
        }
    }

    /// Takes a connection from the pool. Skips connections that have ended.
    fn pooled(&self) -> Option<SimStream> {
        let mut idle = self.idle.borrow_mut();
        std::iter::from_fn(|| idle.pop()).find(|stream| stream.quiet() == Quiet::Quiet)
    }
}

fn text(request: &Request, headers: &[(String, String)]) -> Box<[u8]> {
    let Request { method, host, path, .. } = request;
    let mut text = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\n");
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    if !matches!(&**method, "GET" | "DELETE" | "OPTIONS") {
        text += "content-length: 0\r\n";
    }
    (text + "\r\n").into_bytes().into()
}
