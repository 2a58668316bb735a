//! A simulated endpoint: an HTTP/1.1 server with the latency and the failures of the scenario.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use super::grammar::State;
use super::scenario::Behaviour;
use crate::net::Address;
use crate::runtime::io::{Io, Read, Stream};
use crate::runtime::sim::{SimIo, SimStream};
use crate::time::Time;

/// The 99th percentile of the standard normal distribution, in standard deviations.
const Z99: f64 = 2.326_347_9;

/// A simulated endpoint.
pub struct Endpoint {
    io: SimIo,
    /// The address that the configuration has for it.
    pub address: Address,
    behaviour: Cell<Behaviour>,
    /// Tasks that wait for a change of the behaviour.
    waiting: RefCell<Vec<Waker>>,
    random: RefCell<fastrand::Rng>,
    /// The times at which the slots become free.
    free: RefCell<Vec<Time>>,
    /// The number of requests received so far.
    pub requests: Cell<u64>,
    /// The number of requests that failed so far, by their status.
    pub errors: Cell<u64>,
}

impl Endpoint {
    /// Starts an endpoint.
    pub fn start(io: &SimIo, address: Address, behaviour: Behaviour, seed: u64) -> Rc<Self> {
        let endpoint = Rc::new(Self {
            io: io.clone(),
            address,
            behaviour: Cell::new(behaviour),
            waiting: RefCell::default(),
            random: RefCell::new(fastrand::Rng::with_seed(seed)),
            free: RefCell::default(),
            requests: Cell::new(0),
            errors: Cell::new(0),
        });
        io.spawn(Rc::clone(&endpoint).listen());
        endpoint
    }

    /// Changes the behaviour, and wakes the tasks that wait for a change.
    pub fn behave(&self, behaviour: Behaviour) {
        self.behaviour.set(behaviour);
        self.waiting.borrow_mut().drain(..).for_each(Waker::wake);
    }

    fn state(&self) -> State {
        self.behaviour.get().state
    }

    /// Accepts connections, except while the endpoint refuses them.
    async fn listen(self: Rc<Self>) {
        loop {
            self.until(|state| state != State::Refuses).await;
            let listener = self.io.listen(&self.address);
            loop {
                let state = self.state();
                if state == State::Refuses {
                    break;
                }
                listener.vanish(state == State::Silent);
                let changed = self.until(|now| now != state);
                if let Some(stream) = before(changed, listener.accept()).await {
                    self.io.spawn(Rc::clone(&self).serve(stream));
                }
            }
        }
    }

    async fn serve(self: Rc<Self>, stream: SimStream) {
        let gone = self.until(|state| state == State::Refuses);
        if before(gone, self.answer_all(&stream)).await.is_none() {
            stream.reset_on_close();
        }
    }

    /// Responds to all requests of a connection until the connection ends.
    async fn answer_all(&self, stream: &SimStream) {
        let mut received = Vec::new();
        loop {
            while let Some(end) = end_of_head(&received) {
                received.drain(..end);
                if self.answer(stream).await.is_none() {
                    return;
                }
            }
            match stream.read(self.io.buffers().take()).await {
                (Ok(Read::Data(_)), buf) => received.extend_from_slice(buf.data()),
                _ => return,
            }
        }
    }

    async fn answer(&self, stream: &SimStream) -> Option<()> {
        self.requests.set(self.requests.get() + 1);
        let (takes, status) = self.draw();
        self.io.sleep(self.queue(takes)).await;
        self.until(|state| state != State::Silent).await;
        if status != 200 {
            self.errors.set(self.errors.get() + 1);
        }
        let mut buf = self.io.buffers().take();
        let text = format!("HTTP/1.1 {status} Simulated\r\ncontent-length: 3\r\n\r\nok\n");
        buf.append(text.as_bytes());
        stream.write_all(buf).await.0.ok()
    }

    /// The latency of a request that arrives now and takes `takes` to process. It includes the time
    /// in the queue for a free slot.
    fn queue(&self, takes: Duration) -> Duration {
        let Some(capacity) = self.behaviour.get().capacity else { return takes };
        let (now, mut free) = (self.io.now(), self.free.borrow_mut());
        free.resize(capacity as usize, now);
        let Some(first) = free.iter_mut().min() else { return takes };
        *first = (*first).max(now) + takes;
        first.since(now)
    }

    /// Draws the response time and the status of the next response at random.
    pub fn draw(&self) -> (Duration, u16) {
        let Behaviour { p50, p99, errors, status, .. } = self.behaviour.get();
        let mut random = self.random.borrow_mut();
        // The Box-Muller transform: a normally distributed number from two uniform ones.
        let (u, v) = (1.0 - random.f64(), random.f64());
        let z = (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos();
        let sigma = (p99.as_secs_f64() / p50.as_secs_f64()).ln() / Z99;
        let takes = p50.mul_f64((sigma * z).exp());
        (takes, if random.f64() < errors { status } else { 200 })
    }

    /// The response to a health check: its status, after its response time. Returns `None` while
    /// the endpoint refuses connections.
    pub async fn probe(&self) -> Option<u16> {
        let (takes, status) = self.draw();
        self.until(|state| state != State::Silent).await;
        if self.state() == State::Refuses {
            return None;
        }
        self.io.sleep(takes).await;
        Some(status)
    }

    /// Waits until `is_it` returns true for the state.
    async fn until(&self, is_it: impl Fn(State) -> bool) {
        poll_fn(|context| {
            if is_it(self.state()) {
                return Poll::Ready(());
            }
            let mut waiting = self.waiting.borrow_mut();
            if !waiting.iter().any(|known| known.will_wake(context.waker())) {
                waiting.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }
}

/// The output of `task`. Returns `None` if `end` completes first.
async fn before<T>(end: impl Future<Output = ()>, task: impl Future<Output = T>) -> Option<T> {
    let (mut end, mut task) = (pin!(end), pin!(task));
    poll_fn(|context| {
        if end.as_mut().poll(context).is_ready() {
            return Poll::Ready(None);
        }
        task.as_mut().poll(context).map(Some)
    })
    .await
}

/// The length of the first request in `bytes`. The simulated requests have no bodies.
fn end_of_head(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}
