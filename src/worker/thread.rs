//! A worker's thread: its ring, its listeners and its orders.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use pin_project_lite::pin_project;

use super::mailbox::{
    Adopted, HANDSHAKE_GRACE, Inbox, ListeningSocket, Loads, Mailbox, Order, Report, ReportKind,
    Reports,
};
use super::quic;
use crate::cells::PerWorker;
use crate::downstream::connection;
use crate::error::plain;
use crate::l4::{Arrival, datagram, passed};
use crate::net::Bind;
use crate::observe::Observers;
use crate::runtime::alarm::{Alarm, WakeHandle};
use crate::runtime::core::WorkerCells;
use crate::runtime::io::{Io, Stream};
use crate::runtime::ring::{self, Driver, RingIo, RingStream};
use crate::runtime::socket;
use crate::serve::record::buffer::LogBuffer;
use crate::serve::worker::{SWEEP_INTERVAL, Worker, WorkerParts};
use crate::snapshot::{DrainStep, Listener, ListenerCells, Overload};
use crate::time::Time;

/// How long a worker pauses after an error of accept(2). The process may have no descriptors or
/// memory left, or the socket may be unusable. Without a pause the worker would retry in a busy
/// loop.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How often a draining worker checks whether the drain is complete.
const DRAIN_INTERVAL: Duration = Duration::from_millis(20);

/// The arguments of a worker's thread.
pub struct Start {
    /// Index of the worker, from 0.
    pub index: usize,
    /// Counters of all workers.
    pub stats: Arc<PerWorker<WorkerCells>>,
    /// Connections of each worker.
    pub loads: Loads,
    /// The channel to the control thread.
    pub reports: Reports,
    /// Writes complete lines to the access log. It never blocks.
    pub access_log: Arc<dyn Fn(Vec<u8>) + Send + Sync>,
    /// The overload level of the process. All workers share it.
    pub overload: Arc<Overload>,
    /// The taps and stories of all workers.
    pub observers: Arc<Observers>,
    /// The seed of the worker's random numbers.
    pub seed: u64,
    /// The worker's end of its mailbox.
    pub inbox: Inbox,
    /// The mailboxes of all workers, including this one, for the hand-over of connections.
    pub peers: Vec<Mailbox>,
    /// The kernel interface to use.
    pub driver: Driver,
    /// The start time of the clocks of all workers.
    pub began: Instant,
    /// The CPU to which the worker is pinned. `None` means no pinning.
    pub cpu: Option<usize>,
}

/// Starts a worker's thread. The thread reports its errors as [`ReportKind::Failed`].
///
/// # Errors
/// When the thread cannot be created.
pub fn spawn(start: Start) -> std::io::Result<std::thread::JoinHandle<()>> {
    let name = format!("worker-{}", start.index);
    std::thread::Builder::new().name(name).spawn(move || {
        let index = start.index;
        let reports = start.reports.clone();
        if let Some(cpu) = start.cpu {
            pin_to(cpu);
        }
        let (driver, began) = (start.driver, start.began);
        if let Err(error) = ring::run(driver, began, |io| run(io, start)) {
            let kind =
                ReportKind::Failed(format!("cannot start worker {index}: {}", plain(&error)));
            reports.send(Report { worker: index, kind }).ok();
        }
    })
}

fn pin_to(cpu: usize) {
    let mut set = nix::sched::CpuSet::new();
    // A worker that cannot be pinned still works.
    if set.set(cpu).is_ok() {
        nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set).ok();
    }
}

/// One listening socket of this worker.
pub(super) struct Acceptor {
    listener: RefCell<Rc<str>>,
    outbound: Cell<bool>,
    wake: WakeHandle,
}

pub(super) struct Thread {
    pub(super) worker: Rc<Worker<RingIo>>,
    pub(super) loads: Loads,
    reports: Reports,
    peers: Vec<Mailbox>,
    acceptors: RefCell<HashMap<Bind, Rc<Acceptor>>>,
    prepared: RefCell<Vec<ListeningSocket>>,
    told_drained: Cell<Option<DrainStep>>,
}

async fn run(io: RingIo, start: Start) {
    let (driver, refused) = (io.driver_name(), io.take_refusal());
    let Start { index, stats, loads, reports, seed, peers, overload, observers, .. } = start;
    let Inbox { orders, wake } = start.inbox;
    let access_log = start.access_log;
    let log = LogBuffer::new(Box::new(move |lines| access_log(lines)));
    let worker =
        Worker::new(io.clone(), WorkerParts { index, stats, seed, overload, log, observers });
    let thread = Rc::new(Thread {
        worker,
        loads,
        reports,
        peers,
        acceptors: RefCell::default(),
        prepared: RefCell::default(),
        told_drained: Cell::new(None),
    });
    let wake = match io.readiness(wake.into()) {
        Ok(wake) => wake,
        Err(error) => {
            return thread
                .report(ReportKind::Failed(format!("no wake-up socket: {}", plain(&error))));
        }
    };
    thread.report(ReportKind::Started { driver, refused });
    io.spawn(sweep(Rc::clone(&thread)));
    serve_orders(&thread, &orders, &wake).await;
}

/// Executes orders until the control thread ends.
async fn serve_orders(thread: &Rc<Thread>, orders: &Receiver<Order>, wake: &RingStream) {
    loop {
        loop {
            match orders.try_recv() {
                Ok(order) => thread.obey(order),
                Err(std::sync::mpsc::TryRecvError::Empty) => break,
                Err(std::sync::mpsc::TryRecvError::Disconnected) => return,
            }
        }
        if wake.readable().await.is_err() || !socket::drain_wakes(wake.as_fd()) {
            return;
        }
    }
}

/// Does the regular work of a worker: sweeps idle connections, sends access log lines, and reports
/// the end of a drain.
async fn sweep(thread: Rc<Thread>) {
    let worker = &thread.worker;
    loop {
        let draining = worker.draining();
        let interval = if draining.is_some() { DRAIN_INTERVAL } else { SWEEP_INTERVAL };
        worker.io.sleep_until(worker.io.now() + interval).await;
        worker.sweep();
        worker.log.flush();
        if let Some(step) = draining.filter(|step| thread.told_drained.get() != Some(*step))
            && thread.loads.are_over(step)
            && worker.registry.is_drained()
        {
            worker.log.flush();
            thread.told_drained.set(Some(step));
            thread.report(ReportKind::Drained(step));
        }
    }
}

impl Acceptor {
    /// The name of the listener. A reload may give the bind to another one.
    pub(super) fn name(&self) -> Rc<str> {
        Rc::clone(&self.listener.borrow())
    }
}

impl Thread {
    /// Reports that the worker cannot continue.
    pub(super) fn failed(&self, reason: String) {
        self.report(ReportKind::Failed(reason));
    }

    /// Whether the process and the listener may have one more connection.
    pub(super) fn has_room(&self, listener: &Listener) -> bool {
        let open = listener.stats.sum(|cells| &cells.active);
        self.loads.total() < self.worker.local().snapshot.limits.connections
            && open < u64::from(listener.connections_max)
    }

    /// Sends a report. Has no effect when the control thread has ended.
    fn report(&self, kind: ReportKind) {
        self.reports.send(Report { worker: self.worker.index, kind }).ok();
    }

    fn obey(self: &Rc<Self>, order: Order) {
        match order {
            Order::Prepare(preparation) => {
                let version = preparation.snapshot.version;
                self.worker.prepare(preparation.snapshot);
                *self.prepared.borrow_mut() = preparation.sockets;
                self.report(ReportKind::Prepared { version });
            }
            Order::Commit { version } => {
                if self.worker.commit(version) {
                    self.listen();
                }
                self.report(ReportKind::Committed { version });
            }
            Order::Abort { .. } => {
                self.worker.abort();
                self.prepared.borrow_mut().clear();
            }
            Order::Endpoints { version, service, addresses } => {
                self.worker.endpoints_changed(version, service, &addresses);
            }
            Order::Adopt(adopted) => self.adopt(adopted),
            Order::Drain(step) => {
                self.stop_listening(|_, acceptor| {
                    step == DrainStep::Inbound && acceptor.outbound.get()
                });
                self.worker.drain(step);
            }
        }
    }

    /// Starts to accept from the prepared sockets, and stops accepting on removed binds.
    fn listen(self: &Rc<Self>) {
        let sockets = std::mem::take(&mut *self.prepared.borrow_mut());
        let local = self.worker.local();
        let mut wanted = HashMap::new();
        for socket in sockets {
            let Some(listener) = local.snapshot.listeners.get(socket.listener) else { continue };
            let name: Rc<str> = Rc::from(&*listener.name);
            let outbound = listener.is_outbound();
            let known = self.acceptors.borrow().get(&socket.bind).cloned();
            if let Some(acceptor) = known {
                *acceptor.listener.borrow_mut() = name;
                if !matches!(socket.bind, Bind::Udp(_) | Bind::Passed(_)) {
                    self.loads.accepts(self.worker.index, outbound);
                    self.loads.accepts_no_more(self.worker.index, acceptor.outbound.get());
                }
                acceptor.outbound.set(outbound);
                wanted.insert(socket.bind, acceptor);
                continue;
            }
            let alarm = self.worker.io.alarms().alarm();
            let acceptor = Rc::new(Acceptor {
                listener: RefCell::new(name),
                outbound: Cell::new(outbound),
                wake: alarm.wake(),
            });
            wanted.insert(socket.bind.clone(), Rc::clone(&acceptor));
            if let Bind::Quic(_) = socket.bind {
                self.worker.io.spawn(quic::serve(Rc::clone(self), acceptor, socket, alarm));
                continue;
            }
            if let Bind::Udp(_) | Bind::Passed(_) = socket.bind {
                let task = datagrams(Rc::clone(self), acceptor, socket, alarm);
                self.worker.io.spawn(task);
                continue;
            }
            let accepting = Accepting::new(self, &acceptor);
            let task = accept(accepting, socket.bind, socket.descriptor, alarm);
            self.worker.io.spawn(task);
        }
        self.stop_listening(|bind, _| wanted.contains_key(bind));
        *self.acceptors.borrow_mut() = wanted;
    }

    fn stop_listening(&self, keep: impl Fn(&Bind, &Acceptor) -> bool) {
        self.acceptors.borrow_mut().retain(|bind, acceptor| {
            let kept = keep(bind, acceptor);
            if !kept {
                acceptor.wake.ring();
            }
            kept
        });
    }

    /// Serves a new connection here, or hands it to a worker with fewer connections.
    fn admit(self: &Rc<Self>, acceptor: &Acceptor, bind: &Bind, accepted: Accepted) {
        let worker = &self.worker;
        let name = Rc::clone(&acceptor.listener.borrow());
        let local = worker.local_of(&name);
        let Some(listener) = local.snapshot.listener(&name) else { return };
        let cells = listener.stats.worker(worker.index);
        let open = listener.stats.sum(|cells| &cells.active);
        if self.loads.total() >= local.snapshot.limits.connections
            || open >= u64::from(listener.connections_max)
        {
            cells.overflow.increment();
            return worker.log_limited(|suppressed| {
                let listener = &*name;
                tracing::warn!(
                    listener,
                    suppressed,
                    "connection closed: too many are open; the limits are limits.connections and \
                    `connections` of the listener"
                );
            });
        }
        worker.cells().accepted.increment();
        let place = self.loads.place(worker.index);
        let outbound = listener.is_outbound();
        self.loads.opened(place, outbound);
        if place == worker.index {
            return self.start(name, bind, accepted, outbound);
        }
        let (descriptor, peer) = accepted;
        worker.cells().handed_over.increment();
        let (bind, listener) = (bind.clone(), Arc::clone(listener));
        let adopted = Adopted { descriptor, bind, listener, peer };
        if !self.peers[place].post(Order::Adopt(adopted)) {
            self.loads.closed(place, outbound);
        }
    }

    fn adopt(self: &Rc<Self>, adopted: Adopted) {
        let Adopted { descriptor, bind, listener, peer } = adopted;
        let acceptor = self.acceptors.borrow().get(&bind).cloned();
        let name = match acceptor {
            Some(acceptor) => Rc::clone(&acceptor.listener.borrow()),
            // The listener was removed during the hand-over.
            None => Rc::from(&*listener.name),
        };
        self.start(name, &bind, (descriptor, peer), listener.is_outbound());
    }

    /// Serves a connection. `outbound` says whether its listener is outbound, because a drain
    /// counts the two directions separately.
    fn start(self: &Rc<Self>, listener: Rc<str>, bind: &Bind, accepted: Accepted, outbound: bool) {
        let (socket, peer) = accepted;
        let worker = Rc::clone(&self.worker);
        let snapshot = &worker.local_of(&listener).snapshot;
        let arrival = Arrival::of(&socket, peer, bind, &listener, snapshot);
        let open = Open::new(self, &listener, outbound);
        match worker.io.accepted(socket) {
            Ok(stream) => {
                let connection = connection::serve(Rc::clone(&worker), stream, listener, arrival);
                self.worker.io.spawn(Contained { connection, open });
            }
            Err(_) => worker.cells().accept_errors.increment(),
        }
    }
}

type Accepted = (OwnedFd, Option<SocketAddr>);

/// Receives captured datagrams, or those of QUIC that is passed through, until `stop` rings.
async fn datagrams(
    thread: Rc<Thread>,
    acceptor: Rc<Acceptor>,
    socket: ListeningSocket,
    stop: Alarm,
) {
    let ListeningSocket { bind, descriptor, .. } = socket;
    let worker = Rc::clone(&thread.worker);
    let listener = || Rc::clone(&acceptor.listener.borrow());
    let served = match bind {
        Bind::Passed(address) => {
            passed::serve(worker, listener, (descriptor, address.port()), stop).await
        }
        _ => datagram::serve(worker, listener, descriptor, stop).await,
    };
    if let Err(error) = served {
        let message = format!("cannot receive on {bind}: {}", plain(&error));
        thread.report(ReportKind::Failed(message));
    }
}

/// Counts a listening socket while its worker accepts from it.
pub(super) struct Accepting {
    thread: Rc<Thread>,
    acceptor: Rc<Acceptor>,
}

impl Accepting {
    pub(super) fn new(thread: &Rc<Thread>, acceptor: &Rc<Acceptor>) -> Self {
        thread.loads.accepts(thread.worker.index, acceptor.outbound.get());
        Self { thread: Rc::clone(thread), acceptor: Rc::clone(acceptor) }
    }
}

impl Drop for Accepting {
    fn drop(&mut self) {
        let Self { thread, acceptor } = self;
        thread.loads.accepts_no_more(thread.worker.index, acceptor.outbound.get());
    }
}

/// Accepts connections until `stop` rings. Then still accepts, for [`HANDSHAKE_GRACE`], connections
/// whose handshakes the kernel has begun.
async fn accept(accepting: Accepting, bind: Bind, descriptor: OwnedFd, stop: Alarm) {
    let Accepting { thread, acceptor } = &accepting;
    let worker = &thread.worker;
    stop.set(Time::NEVER);
    let socket = match worker.io.readiness(descriptor) {
        Ok(socket) => socket,
        Err(error) => {
            return thread
                .report(ReportKind::Failed(format!("cannot accept on {bind}: {}", plain(&error))));
        }
    };
    accept_until(thread, acceptor, &bind, &socket, &stop).await;
    stop.set(worker.io.now() + HANDSHAKE_GRACE);
    accept_until(thread, acceptor, &bind, &socket, &stop).await;
    // Closing the socket would reset the connections in its queue, so accept all of them first.
    let end = worker.io.now() + worker.local().snapshot.drain.limit;
    while accept_waiting(thread, acceptor, &bind, &socket).is_err() && worker.io.now() < end {
        worker.io.sleep_until(worker.io.now() + ACCEPT_PAUSE).await;
    }
    drop(socket);
}

/// Accepts connections until `stop` rings.
async fn accept_until(
    thread: &Rc<Thread>,
    acceptor: &Acceptor,
    bind: &Bind,
    socket: &RingStream,
    stop: &Alarm,
) {
    let io = &thread.worker.io;
    loop {
        let failed = match stop.guard(socket.readable()).await {
            Ok(Ok(())) => accept_waiting(thread, acceptor, bind, socket).is_err(),
            Ok(Err(error)) => {
                accept_failed(thread, bind, &error);
                true
            }
            Err(_) => return,
        };
        if failed && stop.guard(io.sleep_until(io.now() + ACCEPT_PAUSE)).await.is_err() {
            return;
        }
    }
}

/// The error of accept(2): accepting must pause.
struct Paused;

/// Accepts all connections in the queue.
fn accept_waiting(
    thread: &Rc<Thread>,
    acceptor: &Acceptor,
    bind: &Bind,
    socket: &RingStream,
) -> Result<(), Paused> {
    loop {
        match socket.accept() {
            Ok(accepted) => {
                thread.admit(acceptor, bind, accepted);
                // A process that is short of descriptors accepts one connection per pause, so that
                // probes are answered and some clients get a 503 response.
                if thread.worker.overload.is_short_of_descriptors() {
                    return Err(Paused);
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
            // The client closed the connection before accept.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                accept_failed(thread, bind, &error);
                return Err(Paused);
            }
        }
    }
}

fn accept_failed(thread: &Thread, bind: &Bind, error: &std::io::Error) {
    thread.worker.cells().accept_errors.increment();
    thread.worker.log_limited(|suppressed| {
        let error = plain(&error);
        tracing::warn!(%bind, %error, suppressed, "cannot accept connections; will retry");
    });
}

/// Counts a connection while it is open.
pub(super) struct Open {
    thread: Rc<Thread>,
    outbound: bool,
    listener: Option<Arc<PerWorker<ListenerCells>>>,
}

impl Open {
    pub(super) fn new(thread: &Rc<Thread>, listener: &str, outbound: bool) -> Self {
        let worker = &thread.worker;
        let local = worker.local_of(listener);
        let listener = local.snapshot.listener(listener).map(|found| Arc::clone(&found.stats));
        if let Some(stats) = &listener {
            let cells = stats.worker(worker.index);
            cells.connections.increment();
            cells.active.increment();
        }
        worker.cells().active.increment();
        Self { thread: Rc::clone(thread), outbound, listener }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let Thread { worker, loads, .. } = &*self.thread;
        if let Some(stats) = &self.listener {
            stats.worker(worker.index).active.decrement();
        }
        worker.cells().active.decrement();
        loads.closed(worker.index, self.outbound);
    }
}

pin_project! {
    /// The task of a connection. A panic ends only this connection. The future is not boxed: its
    /// size is the memory that an idle connection holds.
    pub(super) struct Contained<F> {
        #[pin]
        pub(super) connection: F,
        // This field is dropped last, so the connection counts as open until it is completely
        // dropped.
        pub(super) open: Open,
    }
}

impl<F: Future<Output = ()>> Future for Contained<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let task = self.project();
        catch_unwind(AssertUnwindSafe(|| task.connection.poll(context))).unwrap_or_else(|_| {
            task.open.thread.worker.cells().panics.increment();
            Poll::Ready(())
        })
    }
}
