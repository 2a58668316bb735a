//! One simulation: the proxy's own worker code on the simulated network, with clients and
//! endpoints.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::configuration::Configuration;
use super::endpoint::Endpoint;
use super::load::{Clients, PATIENCE};
use super::result::{Interval, Outcome};
use super::scenario::Scenario;
use crate::cells::PerWorker;
use crate::cluster;
use crate::downstream::connection;
use crate::health::{Check, OutlierGroup, OutlierHub, Reason, State};
use crate::l4::Arrival;
use crate::net::Address;
use crate::route::Shift;
use crate::runtime::io::Io;
use crate::runtime::sim::{SimIo, Simulation};
use crate::serve::record::buffer::LogBuffer;
use crate::serve::worker::SWEEP_INTERVAL;
use crate::serve::{Worker, WorkerParts};
use crate::snapshot::Snapshot;
use crate::time::Time;

/// The approximate number of intervals in a timeline.
const INTERVALS: u32 = 40;

/// The shortest time between two looks at a shift.
const SOONEST_LOOK: Duration = Duration::from_millis(5);

/// A function that is called after each interval, with the simulated time.
pub type Progress<'a> = &'a mut dyn FnMut(Duration);

/// Simulates `scenario` with `configuration`.
///
/// # Errors
/// A sentence: the configuration does not compile, or the simulation does not make progress.
pub fn run(
    configuration: &Configuration,
    scenario: &Scenario,
    progress: Progress<'_>,
) -> Result<Outcome, String> {
    let snapshot = Arc::new(configuration.compile()?.snapshot);
    let simulation = Simulation::new(scenario.seed);
    let (near, far) = (simulation.io(), simulation.io());
    let notes = Rc::default();
    let mut endpoints = Vec::new();
    for (index, (place, _)) in scenario.endpoints.iter().enumerate() {
        let behaviour = scenario.behaviour(index, Duration::ZERO);
        let seed = scenario.seed ^ (index as u64 + 1) << 32;
        endpoints.push(Endpoint::start(&far, place.address.clone(), behaviour, seed));
    }
    check_health(&far, &snapshot, &endpoints, &notes);
    detect_outliers(&far, &snapshot, &notes);
    shift_traffic(&far, &snapshot, &notes);
    let proxy = serve(simulation.io(), snapshot, &configuration.listener, scenario.seed)?;
    let clients = Clients::new(near.clone(), proxy, scenario);
    let end = near.now() + scenario.duration;
    near.spawn(Rc::clone(&clients).send_all(scenario.rate, end));
    let mut run = Run { simulation, io: near, clients, endpoints, notes, attempts: 0 };
    let intervals = run.intervals(scenario, progress)?;
    let of_endpoint = |endpoint: &Rc<Endpoint>| {
        (endpoint.address.to_string(), endpoint.requests.get(), endpoint.errors.get())
    };
    let endpoints = run.endpoints.iter().map(of_endpoint).collect();
    Ok(Outcome { intervals, endpoints })
}

struct Run {
    simulation: Simulation,
    io: SimIo,
    clients: Rc<Clients>,
    endpoints: Vec<Rc<Endpoint>>,
    notes: Notes,
    /// The number of attempts in the intervals so far.
    attempts: u64,
}

/// Texts about endpoints that the proxy has stopped using or uses again.
type Notes = Rc<RefCell<Vec<String>>>;

impl Run {
    fn intervals(
        &mut self,
        scenario: &Scenario,
        progress: Progress<'_>,
    ) -> Result<Vec<Interval>, String> {
        let length = interval(scenario.duration);
        let changes = scenario.changes();
        let mut intervals = Vec::new();
        let mut now = Duration::ZERO;
        while now < scenario.duration {
            let next = (now + length).min(scenario.duration);
            let begun = scenario.events.iter().filter(|event| (now..next).contains(&event.from));
            let mut notes: Vec<String> = begun.map(|event| event.text.clone()).collect();
            for &change in changes.iter().filter(|change| (now..next).contains(*change)) {
                self.run_until(change)?;
                for (index, endpoint) in self.endpoints.iter().enumerate() {
                    endpoint.behave(scenario.behaviour(index, change));
                }
            }
            self.run_until(next)?;
            notes.extend(self.notes.take());
            let mut interval = self.taken();
            (interval.from, interval.notes) = (now, notes);
            intervals.push(interval);
            progress(next);
            now = next;
        }
        // Continue until the last requests have a result.
        let end = now + PATIENCE + Duration::from_secs(1);
        while self.clients.open.get() > 0 && now < end {
            now += Duration::from_secs(1);
            self.run_until(now)?;
        }
        if let Some(last) = intervals.last_mut() {
            last.merge(&self.taken());
        }
        Ok(intervals)
    }

    fn taken(&mut self) -> Interval {
        let all: u64 = self.endpoints.iter().map(|endpoint| endpoint.requests.get()).sum();
        let attempts = all - std::mem::replace(&mut self.attempts, all);
        let mut interval = self.clients.interval.take();
        interval.attempts = attempts;
        interval
    }

    fn run_until(&self, until: Duration) -> Result<(), String> {
        let until = Time::default() + until;
        let io = self.io.clone();
        let limit = Duration::from_secs(48 * 3600);
        let ended = self.simulation.run(limit, async move { io.sleep_until(until).await });
        ended.map_err(|stuck| format!("the simulation does not go on: {stuck:?}"))
    }
}

/// The length of an interval: a round number of seconds.
fn interval(duration: Duration) -> Duration {
    let about = duration.as_secs() / u64::from(INTERVALS);
    let round = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600];
    Duration::from_secs(round.into_iter().find(|it| *it >= about).unwrap_or(3600))
}

/// Starts the proxy. Returns the address of its listener.
fn serve(io: SimIo, snapshot: Arc<Snapshot>, listener: &str, seed: u64) -> Result<Address, String> {
    let stats = Arc::new(PerWorker::new(1));
    let parts = WorkerParts {
        index: 0,
        stats,
        seed,
        overload: Arc::default(),
        log: LogBuffer::default(),
        observers: Arc::default(),
    };
    let worker = Worker::new(io.clone(), parts);
    worker.prepare(snapshot);
    if !worker.commit(1) {
        return Err("the simulated worker does not take the configuration".to_owned());
    }
    let at = Address::Tcp(([10, 255, 255, 254], 80).into());
    let (socket, name) = (io.listen(&at), Rc::from(listener));
    let accepting = Rc::clone(&worker);
    io.spawn(async move {
        let peer = Some(([10, 255, 255, 253], 40_000).into());
        loop {
            let stream = socket.accept().await;
            let arrival = Arrival { peer, port: 80, original: None };
            let serving =
                connection::serve(Rc::clone(&accepting), stream, Rc::clone(&name), arrival);
            accepting.io.spawn(serving);
        }
    });
    io.clone().spawn(async move {
        loop {
            io.sleep(SWEEP_INTERVAL).await;
            worker.sweep();
        }
    });
    Ok(at)
}

/// Starts the health checks that the configuration has.
fn check_health(io: &SimIo, snapshot: &Arc<Snapshot>, simulated: &[Rc<Endpoint>], notes: &Notes) {
    for service in &snapshot.services {
        let Some(check) = &service.health else { continue };
        for endpoint in &service.endpoints.load().list {
            let is_it = |peer: &&Rc<Endpoint>| peer.address == endpoint.address;
            let Some(peer) = simulated.iter().find(is_it) else { continue };
            let (endpoint, peer, notes) = (Arc::clone(endpoint), Rc::clone(peer), Rc::clone(notes));
            io.spawn(check_one(io.clone(), Arc::clone(check), endpoint, peer, notes));
        }
    }
}

async fn check_one(
    io: SimIo,
    check: Arc<Check>,
    endpoint: Arc<cluster::Endpoint>,
    peer: Rc<Endpoint>,
    notes: Notes,
) {
    loop {
        let status = super::within(&io, check.timeout, peer.probe()).await;
        let outcome = match status {
            None => Err((Reason::Timeout, "no answer in time".to_owned())),
            Some(None) => Err((Reason::Connect, "connection refused".to_owned())),
            Some(Some(status)) if status >= 400 => Err((Reason::Status, format!("{status}"))),
            Some(Some(_)) => Ok(()),
        };
        if let Some(state) = endpoint.hear_check(outcome, check.thresholds, io.now(), 0) {
            let first = state == State::Healthy && io.now() < Time::default() + check.interval;
            if !first {
                notes.borrow_mut().push(format!("{} is {}", endpoint.address, state.label()));
            }
        }
        io.sleep(check.interval).await;
    }
}

/// Starts the outlier detection and the slow start that the configuration has.
fn detect_outliers(io: &SimIo, snapshot: &Snapshot, notes: &Notes) {
    snapshot.services.iter().for_each(|service| service.begin(io.now(), true));
    let detection = snapshot.services.iter().find_map(|service| service.outlier.as_ref());
    let Some(hub) = detection.map(|outlier| Arc::clone(outlier.group.hub())) else { return };
    io.spawn(attend_all(io.clone(), hub, Rc::clone(notes)));
}

/// Starts the shifts of the configuration. The clock of the wall begins at 0, like the simulation.
fn shift_traffic(io: &SimIo, snapshot: &Snapshot, notes: &Notes) {
    for shift in &snapshot.shifts {
        shift.state.begin(None, 0);
        io.spawn(drive(io.clone(), Arc::clone(shift), Rc::clone(notes)));
    }
}

/// Looks at a shift until its plan has ended.
async fn drive(io: SimIo, shift: Arc<Shift>, notes: Notes) {
    loop {
        let now = io.now().as_micros() / 1000;
        if let Some(event) = shift.state.tick(now, false) {
            notes.borrow_mut().push(format!("{}: {}", shift.rule, shift.note(&event)));
        }
        let Some(wait) = shift.state.due_in(now) else { return };
        io.sleep(wait.max(SOONEST_LOOK)).await;
    }
}

async fn attend_all(io: SimIo, hub: Arc<OutlierHub>, notes: Notes) {
    loop {
        let group = poll_fn(|context| hub.poll_next(context)).await;
        io.spawn(attend(io.clone(), group, Rc::clone(&notes)));
    }
}

/// Ends the ejections of a service. Returns when no endpoint is ejected.
async fn attend(io: SimIo, group: Arc<OutlierGroup>, notes: Notes) {
    loop {
        let (events, next) = group.tick(io.now());
        for event in events {
            let does = if event.ejection.is_some() { "is ejected" } else { "returns" };
            notes.borrow_mut().push(format!("{} {does}", event.endpoint.address));
        }
        let Some(next) = next else { return };
        let news = poll_fn(|context| group.poll_news(context));
        super::within(&io, next.since(io.now()), news).await;
    }
}
