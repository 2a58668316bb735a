//! The simulated world: one thread, virtual time, and everything random drawn from one seed.
//!
//! The same seed gives the same run: which task goes next, how bytes are cut into portions, how
//! long each takes, which connection is reset. `now` moves by a microsecond with every step of a
//! task, and straight to the next event when no task can run, so an hour of timeouts costs nothing.

mod network;

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use slab::Slab;

pub use network::{SimListener, SimStream, Weather};

use super::alarm::{self, Alarms};
use super::buffer::BufferPool;
use super::io::Io;
use crate::net::{Address, Egress};
use crate::time::Time;

/// Steps after which a run is taken for a livelock.
const STEPS_MAX: u64 = 50_000_000;

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// A world of its own.
pub struct Simulation(Rc<World>);

/// Why a run has not come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stuck {
    /// Nothing can run and nothing will happen: somebody waits for ever.
    Deadlock,
    /// Tasks run without end while the clock hardly moves.
    Livelock,
    /// The virtual time allowed has passed.
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
}

/// Tasks that were woken. Wakers are `Send` by contract, hence the lock; nobody ever waits for it.
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
    /// Timers of the same moment go off in the order in which they were set.
    number: u64,
    waker: Waker,
}

impl Simulation {
    /// A world in which everything random follows from `seed`.
    pub fn new(seed: u64) -> Self {
        Self(Rc::new(World {
            now: Cell::default(),
            random: RefCell::new(fastrand::Rng::with_seed(seed)),
            tasks: RefCell::default(),
            ready: Arc::default(),
            timers: RefCell::default(),
            timers_set: Cell::default(),
            listeners: RefCell::default(),
        }))
    }

    /// Access to this world for one more process: with buffers and alarms of its own, so that what
    /// one process leaks is not mistaken for another's.
    pub fn io(&self) -> SimIo {
        let io = SimIo {
            world: Rc::clone(&self.0),
            buffers: BufferPool::default(),
            alarms: Alarms::default(),
            weather: Rc::new(Cell::new(Weather::CALM)),
            tasks: Rc::default(),
        };
        io.spawn(alarm::run(io.clone()));
        io
    }

    /// Runs everything until `main` is done, for at most `limit` of virtual time.
    ///
    /// # Errors
    /// [`Stuck`], when it never is.
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
        // Tasks hold the world that holds them. Dropping one may wake or end others.
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

    /// Polls one of the woken tasks; false when there is none.
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
        // A waker of a task that is over may still be about.
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

    /// A random duration up to `max`.
    fn up_to(&self, max: Duration) -> Duration {
        let us = u64::try_from(max.as_micros()).unwrap_or(u64::MAX - 1);
        Duration::from_micros(self.random.borrow_mut().u64(..=us))
    }

    fn chance(&self, of_one: f64) -> bool {
        self.random.borrow_mut().f64() < of_one
    }
}

/// One simulated process's access to the world.
#[derive(Clone)]
pub struct SimIo {
    world: Rc<World>,
    buffers: BufferPool,
    alarms: Alarms,
    weather: Rc<Cell<Weather>>,
    tasks: Rc<Cell<usize>>,
}

/// Counts a task for as long as there is one.
struct Counted(Rc<Cell<usize>>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl SimIo {
    /// What the connections that this process opens from now on will have to endure.
    pub fn set_weather(&self, weather: Weather) {
        self.weather.set(weather);
    }

    /// Starts to listen. Connections to `address` are refused before, and once the listener is
    /// dropped.
    pub fn listen(&self, address: &Address) -> SimListener {
        SimListener::open(self, address)
    }

    /// Tasks of this process that are not over, that which rings its alarms among them.
    pub fn tasks(&self) -> usize {
        self.tasks.get()
    }

    /// Waits for `duration`, exactly.
    pub async fn sleep(&self, duration: Duration) {
        self.sleep_until(self.now() + duration).await;
    }
}

impl Io for SimIo {
    type Stream = SimStream;

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
