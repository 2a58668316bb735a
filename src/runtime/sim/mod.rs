//! The simulated network: one thread, virtual time, and all random choices from one seed.
//!
//! The same seed gives the same run: the order of tasks, the sizes of the parts of a stream, their
//! latency and the connections that are reset. Each step of a task takes one microsecond. If no
//! task can run, the clock jumps to the next event, so an hour of timeouts costs no real time.

mod datagrams;
mod network;

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use slab::Slab;

pub use datagrams::SimDatagrams;
pub use network::{SimListener, SimStream, Weather};

use super::alarm::{self, Alarms};
use super::buffer::BufferPool;
use super::io::Io;
use crate::net::{Address, Egress};
use crate::time::Time;

/// A run with more steps than this counts as a livelock.
const STEPS_MAX: u64 = 50_000_000;

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// One simulated network with its processes.
pub struct Simulation(Rc<World>);

/// The reason why a run did not end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stuck {
    /// No task can run and no timer is set.
    Deadlock,
    /// The run exceeded the maximum number of steps.
    Livelock,
    /// The limit of virtual time has passed.
    TooLong,
}

struct World {
    now: Cell<Time>,
    random: RefCell<fastrand::Rng>,
    tasks: RefCell<Slab<Option<(Task, Waker)>>>,
    ready: Arc<Ready>,
    timers: RefCell<BinaryHeap<Reverse<Timer>>>,
    timers_set: Cell<u64>,
    listeners: RefCell<HashMap<Address, network::Backlog>>,
    ports: RefCell<HashMap<SocketAddr, datagrams::Inbox>>,
    /// The number of the last port that was given to a client.
    last_port: Cell<u16>,
}

/// The tasks that were woken. Wakers must be `Send`, so there is a lock, but no thread ever waits
/// for it.
type Ready = Mutex<Vec<usize>>;

struct TaskWaker {
    task: usize,
    ready: Arc<Ready>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        if !ready.contains(&self.task) {
            ready.push(self.task);
        }
    }
}

struct Timer {
    at: Time,
    /// The number of the timer. Timers for the same time fire in the order of their numbers.
    number: u64,
    waker: Waker,
}

impl Simulation {
    /// Creates a simulation. `seed` determines all random choices.
    pub fn new(seed: u64) -> Self {
        Self(Rc::new(World {
            now: Cell::default(),
            random: RefCell::new(fastrand::Rng::with_seed(seed)),
            tasks: RefCell::default(),
            ready: Arc::default(),
            timers: RefCell::default(),
            timers_set: Cell::default(),
            listeners: RefCell::default(),
            ports: RefCell::default(),
            last_port: Cell::new(40_000),
        }))
    }

    /// Adds a simulated process and returns its I/O interface. Each process has its own buffers and
    /// alarms, so a test can find the process that leaks.
    pub fn io(&self) -> SimIo {
        let io = SimIo {
            world: Rc::clone(&self.0),
            buffers: BufferPool::default(),
            alarms: Alarms::default(),
            weather: Rc::new(Cell::new(Weather::CALM)),
            tasks: Rc::default(),
        };
        let clock = io.clone();
        io.spawn(alarm::run(io.clone(), async move |until| clock.sleep_until(until).await));
        io
    }

    /// Runs all tasks until `main` completes, for at most `limit` of virtual time.
    ///
    /// # Errors
    /// [`Stuck`], if `main` does not complete.
    pub fn run<T: 'static>(
        &self,
        limit: Duration,
        main: impl Future<Output = T> + 'static,
    ) -> Result<T, Stuck> {
        let output = Rc::new(RefCell::new(None));
        let place = Rc::clone(&output);
        self.0.spawn(Box::pin(async move {
            let done = main.await;
            *place.borrow_mut() = Some(done);
        }));
        let end = self.0.now.get() + limit;
        for _ in 0..STEPS_MAX {
            if let Some(done) = output.borrow_mut().take() {
                return Ok(done);
            }
            if self.0.now.get() > end {
                return Err(Stuck::TooLong);
            }
            if !self.0.step() && !self.0.skip_to_next_timer() {
                return Err(Stuck::Deadlock);
            }
        }
        Err(Stuck::Livelock)
    }
}

impl Drop for Simulation {
    fn drop(&mut self) {
        // Tasks and the world hold references to each other. Dropping one task may wake or end
        // others.
        loop {
            let first = self.0.tasks.borrow().iter().next().map(|(key, _)| key);
            let Some(key) = first else { break };
            let task = self.0.tasks.borrow_mut().remove(key);
            drop(task);
        }
        self.0.listeners.borrow_mut().clear();
    }
}

impl World {
    fn spawn(&self, task: Task) {
        let mut tasks = self.tasks.borrow_mut();
        let entry = tasks.vacant_entry();
        let ready = Arc::clone(&self.ready);
        let waker = Waker::from(Arc::new(TaskWaker { task: entry.key(), ready }));
        waker.wake_by_ref();
        entry.insert(Some((task, waker)));
    }

    /// Polls one woken task at random. Returns false if no task was woken.
    fn step(&self) -> bool {
        let key = {
            let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
            if ready.is_empty() {
                return false;
            }
            let choice = self.random.borrow_mut().usize(..ready.len());
            ready.swap_remove(choice)
        };
        self.now.set(self.now.get() + Duration::from_micros(1));
        let taken = self.tasks.borrow_mut().get_mut(key).and_then(Option::take);
        // A waker may outlive its task.
        let Some((mut task, waker)) = taken else { return true };
        if task.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
            drop(task);
            self.tasks.borrow_mut().remove(key);
        } else if let Some(place) = self.tasks.borrow_mut().get_mut(key) {
            *place = Some((task, waker));
        }
        self.fire_timers();
        true
    }

    fn skip_to_next_timer(&self) -> bool {
        let Some(at) = self.timers.borrow().peek().map(|Reverse(timer)| timer.at) else {
            return false;
        };
        self.now.set(self.now.get().max(at));
        self.fire_timers();
        true
    }

    fn fire_timers(&self) {
        let now = self.now.get();
        let mut timers = self.timers.borrow_mut();
        while timers.peek().is_some_and(|Reverse(timer)| timer.at <= now) {
            if let Some(Reverse(timer)) = timers.pop() {
                timer.waker.wake();
            }
        }
    }

    fn wake_at(&self, at: Time, waker: &Waker) {
        let number = self.timers_set.get();
        self.timers_set.set(number + 1);
        self.timers.borrow_mut().push(Reverse(Timer { at, number, waker: waker.clone() }));
    }

    /// Returns a random duration from zero to `max`.
    fn up_to(&self, max: Duration) -> Duration {
        let us = u64::try_from(max.as_micros()).unwrap_or(u64::MAX - 1);
        Duration::from_micros(self.random.borrow_mut().u64(..=us))
    }

    fn chance(&self, of_one: f64) -> bool {
        self.random.borrow_mut().f64() < of_one
    }
}

/// The I/O interface of one simulated process.
#[derive(Clone)]
pub struct SimIo {
    world: Rc<World>,
    buffers: BufferPool,
    alarms: Alarms,
    weather: Rc<Cell<Weather>>,
    tasks: Rc<Cell<usize>>,
}

/// Counts a task while it exists.
struct Counted(Rc<Cell<usize>>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl SimIo {
    /// Sets the network conditions of the connections that this process opens from now on.
    pub fn set_weather(&self, weather: Weather) {
        self.weather.set(weather);
    }

    /// Starts to listen. Before this, and after the listener is dropped, connections to `address`
    /// are refused.
    pub fn listen(&self, address: &Address) -> SimListener {
        SimListener::open(self, address)
    }

    /// The number of unfinished tasks of this process, including the one that runs its alarms.
    pub fn tasks(&self) -> usize {
        self.tasks.get()
    }

    /// Sleeps for exactly `duration`.
    pub async fn sleep(&self, duration: Duration) {
        self.sleep_until(self.now() + duration).await;
    }
}

impl Io for SimIo {
    type Stream = SimStream;
    type Datagrams = SimDatagrams;

    fn now(&self) -> Time {
        self.world.now.get()
    }

    fn recent(&self) -> Time {
        self.now()
    }

    fn buffers(&self) -> &BufferPool {
        &self.buffers
    }

    fn alarms(&self) -> &Alarms {
        &self.alarms
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.tasks.set(self.tasks.get() + 1);
        let counted = Counted(Rc::clone(&self.tasks));
        self.world.spawn(Box::pin(async move {
            task.await;
            drop(counted);
        }));
    }

    async fn connect(&self, to: &Address, _: Egress) -> io::Result<SimStream> {
        network::connect(self, to, self.weather.get()).await
    }

    fn datagrams(&self, to: SocketAddr, _: Egress) -> io::Result<SimDatagrams> {
        Ok(SimDatagrams::towards(self, to))
    }

    async fn sleep_until(&self, until: Time) {
        poll_fn(|context| {
            if self.now() >= until {
                return Poll::Ready(());
            }
            self.world.wake_at(until, context.waker());
            Poll::Pending
        })
        .await;
    }
}

impl PartialEq for Timer {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}

impl Eq for Timer {}

impl PartialOrd for Timer {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Timer {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}
