//! One world: the proxy, its clients and its services, and the checks at the end.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::ops::AddAssign;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ringway::cells::{Count, PerWorker};
use ringway::cluster::{Endpoint, Endpoints, ServiceCells};
use ringway::compile::Resolutions;
use ringway::compile::registry::Registry;
use ringway::downstream::connection;
use ringway::http2::held_bytes;
use ringway::l4::Arrival;
use ringway::resilience::{Hedged, Limit};
use ringway::runtime::buffer::BUFFER_BYTES;
use ringway::runtime::io::Io;
use ringway::runtime::sim::{SimIo, Simulation, Weather};
use ringway::serve::record::buffer::LogBuffer;
use ringway::serve::{Worker, WorkerParts};
use ringway::snapshot::Snapshot;
use ringway::sources::files;

use super::plan::{Plan, Role, Service};
use super::wire::address;
use super::{client, endpoint, http2, stream};

/// The limit of virtual time for one world.
const LIMIT: Duration = Duration::from_secs(24 * 3600);

/// The maximum number of bytes that one HTTP/2 connection may hold: a buffer that is being written,
/// a buffer for the next write, and some more frames that are not DATA.
const HELD_BYTES_MAX: usize = 2 * BUFFER_BYTES + 6 * 8 * 1024;

/// The greeting of an endpoint that speaks first.
pub const GREETING: &str = "220 hello";

/// The events in all worlds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Answers, by the protocols of the client and of the endpoint.
    pub answered: [[u64; 2]; 2],
    /// HTTP/2 streams without an answer.
    pub lost: u64,
    /// GOAWAYs of endpoints (`farewells`), and requests that endpoints have not processed
    /// (`unprocessed`).
    pub farewells: u64,
    pub unprocessed: u64,
    pub refused: u64,
    pub broken: u64,
    pub streams: u64,
    pub greeted: u64,
    pub reloads: u64,
    /// Changes of the endpoints of a service.
    pub changes: u64,
    /// How often a limit of a circuit breaker was reached.
    pub overflows: u64,
    /// Requests that a second endpoint answered first.
    pub hedged: u64,
    /// Copies of requests that have arrived at a mirror.
    pub mirrored: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        let counts = self.answered.iter_mut().flatten();
        counts.zip(other.answered.iter().flatten()).for_each(|(sum, more)| *sum += more);
        self.lost += other.lost;
        self.farewells += other.farewells;
        self.unprocessed += other.unprocessed;
        self.refused += other.refused;
        self.broken += other.broken;
        self.streams += other.streams;
        self.greeted += other.greeted;
        self.reloads += other.reloads;
        self.changes += other.changes;
        self.overflows += other.overflows;
        self.hedged += other.hedged;
        self.mirrored += other.mirrored;
    }
}

/// The state that the clients and endpoints of a world share.
pub struct World {
    pub seed: u64,
    /// Nothing goes wrong in this world, so no request may fail.
    pub calm: bool,
    /// How often each request has arrived, and how often it was not processed.
    seen: RefCell<HashMap<u32, Seen>>,
    /// The requests whose copy has arrived at a mirror.
    mirrored: RefCell<HashSet<u32>>,
    /// A hash of all events.
    trace: RefCell<DefaultHasher>,
    /// Whether the events are printed.
    traced: bool,
    ids: Cell<u32>,
    random: RefCell<fastrand::Rng>,
    tally: RefCell<Tally>,
    draining: Cell<bool>,
}

#[derive(Clone, Copy, Default)]
struct Seen {
    times: usize,
    refused: usize,
}

impl World {
    pub fn random<T>(&self, draw: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        draw(&mut self.random.borrow_mut())
    }

    pub fn tally(&self, count: impl FnOnce(&mut Tally)) {
        count(&mut self.tally.borrow_mut());
    }

    pub fn new_id(&self) -> u32 {
        self.ids.set(self.ids.get() + 1);
        self.ids.get()
    }

    /// Records an event of `whom`. The same seed must give the same events.
    pub fn note(&self, io: &SimIo, whom: impl Debug, event: impl Hash + Debug) {
        let at = io.now().as_micros();
        (at, &event).hash(&mut *self.trace.borrow_mut());
        if self.traced {
            println!("{at:>12} {whom:?} {event:?}");
        }
    }

    /// A new request. With `service`, a request for this service.
    pub fn new_plan(&self, service: Option<Service>) -> Plan {
        loop {
            let plan = self.plan(self.new_id());
            if service.is_none_or(|service| service == plan.service) {
                return plan;
            }
        }
    }

    /// The plan of the request for `path`.
    pub fn plan_of(&self, path: &str) -> Plan {
        let id = path
            .get(3..)
            .and_then(|id| id.parse().ok())
            .unwrap_or_else(|| panic!("a known path: {path}"));
        let plan = self.plan(id);
        assert_eq!(path, plan.path(), "a request to another service");
        plan
    }

    /// Counts an answer that a client with the protocol `version` got.
    pub fn answered(&self, version: Service, plan: &Plan) {
        self.tally(|tally| tally.answered[version as usize][plan.service as usize] += 1);
    }

    /// Records that a request has arrived at an endpoint with this role.
    pub fn see(&self, plan: &Plan, role: Role) {
        if role == Role::Mirror {
            assert!(self.mirrored.borrow_mut().insert(plan.id), "{plan:?} was mirrored twice");
            return self.tally(|tally| tally.mirrored += 1);
        }
        let times = {
            let mut seen = self.seen.borrow_mut();
            let seen = seen.entry(plan.id).or_default();
            seen.times += 1;
            seen.times
        };
        // Two repeats, and a hedge.
        let most = if plan.idempotent() { 4 } else { 1 };
        assert!(times <= most, "{plan:?} came {times} times");
    }

    /// Whether the endpoint must refuse to process this request.
    pub fn refuse(&self, plan: &Plan) -> bool {
        let refuses = self.refusals(plan) < plan.refusals as usize;
        if refuses {
            self.refused(plan);
        }
        refuses
    }

    /// Records that a request was not processed.
    pub fn refused(&self, plan: &Plan) {
        self.seen.borrow_mut().entry(plan.id).or_default().refused += 1;
        self.tally(|tally| tally.unprocessed += 1);
    }

    /// How often a request was not processed.
    pub fn refusals(&self, plan: &Plan) -> usize {
        self.seen.borrow().get(&plan.id).map_or(0, |seen| seen.refused)
    }

    /// The number of connections that endpoints have ended with GOAWAY.
    pub fn farewells(&self) -> u64 {
        self.tally.borrow().farewells
    }

    pub fn plan(&self, id: u32) -> Plan {
        assert!(id <= self.ids.get(), "request {id} was never sent");
        Plan::new(self.seed, id, !self.calm)
    }

    /// Whether the proxy is draining.
    pub fn drains(&self) -> bool {
        self.draining.get()
    }

    /// Whether the proxy may refuse connections now.
    pub fn refuses(&self) -> bool {
        !self.calm || self.drains()
    }
}

/// Runs the world of `seed`, with the configurations in `files`.
pub fn simulate(seed: u64, files: &[PathBuf]) -> (Tally, u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let calm = random.u8(..3) == 0;
    let weather = if calm { calm_weather(&mut random) } else { rough_weather(&mut random) };
    let clients = random.usize(1..8);
    let world = Rc::new(World {
        seed,
        calm,
        seen: RefCell::default(),
        mirrored: RefCell::default(),
        trace: RefCell::default(),
        traced: std::env::var_os("SIM_TRACE").is_some(),
        ids: Cell::new(0),
        random: RefCell::new(random),
        tally: RefCell::default(),
        draining: Cell::new(false),
    });
    let simulation = Simulation::new(seed);
    let (near, far) = (simulation.io(), simulation.io());
    near.set_weather(weather);
    for at in ["10.0.1.1:80", "10.0.1.2:80", "10.0.1.3:80", "10.0.1.4:80"] {
        endpoint::start(&world, &far, at, Role::Service);
    }
    for at in ["10.0.3.1:80", "10.0.3.2:80"] {
        http2::endpoint::start(&world, &far, at, Role::Service);
    }
    endpoint::start(&world, &far, "10.0.4.1:80", Role::Mirror);
    http2::endpoint::start(&world, &far, "10.0.4.2:80", Role::Mirror);
    for (at, greeting) in [("10.0.2.1:90", ""), ("10.0.2.2:90", ""), ("10.0.2.3:90", GREETING)] {
        stream::start(&world, &far, at, greeting);
    }
    let proxy = Proxy::start(simulation.io(), weather, seed, files);
    let main = {
        let world = Rc::clone(&world);
        async move { run(world, near, proxy, clients).await }
    };
    let ended = simulation.run(LIMIT, main);
    assert_eq!(ended, Ok(()), "the world came to no end");
    let trace = world.trace.borrow().finish();
    (*world.tally.borrow(), trace)
}

async fn run(world: Rc<World>, near: SimIo, mut proxy: Proxy, clients: usize) {
    let running = Rc::new(Cell::new(0));
    for number in 0..clients {
        running.set(running.get() + 1);
        let (world, io, running) = (Rc::clone(&world), near.clone(), Rc::clone(&running));
        near.spawn(async move {
            let wait = Duration::from_millis(world.random(|random| random.u64(..3000)));
            io.sleep(wait).await;
            match number % 4 {
                3 => stream::run(world, io).await,
                1 => http2::client::run(world, io).await,
                _ => client::run(world, io).await,
            }
            running.set(running.get() - 1);
        });
    }
    // The configuration changes while requests are running. In some worlds the proxy also ends
    // then.
    let drains_early = world.random(|random| random.u8(..4)) == 0;
    for _ in 0..world.random(|random| random.u8(..6)) {
        let pause = Duration::from_millis(world.random(|random| random.u64(..4000)));
        near.sleep(pause).await;
        match world.random(|random| random.bool()) {
            true => {
                proxy.reload();
                world.tally(|tally| tally.reloads += 1);
            }
            false => {
                world.random(|random| proxy.change_endpoints(random));
                world.tally(|tally| tally.changes += 1);
            }
        }
    }
    while running.get() > 0 && !drains_early {
        proxy.check_held_bytes();
        near.sleep(Duration::from_millis(100)).await;
    }
    world.draining.set(true);
    proxy.drain();
    while running.get() > 0 || !proxy.worker.registry.is_empty() {
        proxy.check_held_bytes();
        near.sleep(Duration::from_millis(100)).await;
    }
    proxy.check_nothing_is_left().await;
    world.tally(|tally| (tally.overflows, tally.hedged) = (proxy.overflows(), proxy.hedged()));
}

fn calm_weather(random: &mut fastrand::Rng) -> Weather {
    Weather {
        latency_max: Duration::from_micros(random.u64(10..5000)),
        portion_bytes_max: 1 << random.u32(4..17),
        window_bytes: 1 << random.u32(10..18),
        ..Weather::CALM
    }
}

fn rough_weather(random: &mut fastrand::Rng) -> Weather {
    let chance = |random: &mut fastrand::Rng, max: f64| random.f64() * random.f64() * max;
    Weather {
        stall_chance: chance(random, 0.02),
        stall: Duration::from_millis(random.u64(100..40_000)),
        reset_chance: chance(random, 0.5),
        reset_within_bytes: 1 << random.u32(6..17),
        refuse_chance: chance(random, 0.3),
        vanish_chance: 0.0,
        ..calm_weather(random)
    }
}

/// An endpoint as a snapshot configured it.
struct Configured {
    version: u64,
    /// Index of its service.
    service: usize,
    endpoint: Arc<Endpoint>,
}

/// The proxy: one worker, its listeners, and its configurations.
struct Proxy {
    worker: Rc<Worker<SimIo>>,
    registry: Registry,
    files: Vec<PathBuf>,
    snapshots: Vec<Arc<Snapshot>>,
    /// The configured endpoints of all snapshots.
    endpoints: Vec<Configured>,
    stop: Rc<Cell<bool>>,
    /// Open client connections, and listeners that accept.
    open: Rc<Cell<usize>>,
    listening: Rc<Cell<usize>>,
    /// The number of tasks and alarms of an idle proxy.
    idle: (usize, usize),
}

impl Proxy {
    fn start(io: SimIo, weather: Weather, seed: u64, files: &[PathBuf]) -> Self {
        // Connections to the services have the same faults, and some of them are never established.
        let vanish_chance = if weather.reset_chance > 0.0 { 0.05 } else { 0.0 };
        io.set_weather(Weather { vanish_chance, ..weather });
        let registry = Registry::new(1);
        let parts = WorkerParts {
            index: 0,
            stats: Arc::new(PerWorker::new(1)),
            seed,
            overload: Arc::default(),
            log: LogBuffer::default(),
            observers: Arc::default(),
        };
        let worker = Worker::new(io, parts);
        let stop = Rc::default();
        let files = files.to_vec();
        let (snapshots, endpoints) = (Vec::new(), Vec::new());
        let (open, listening) = (Rc::default(), Rc::default());
        let idle = (0, 0);
        let mut proxy =
            Self { worker, registry, files, snapshots, endpoints, stop, open, listening, idle };
        proxy.reload();
        for (listener, at) in [("web", "10.0.0.1:80"), ("bytes", "10.0.0.1:90")] {
            proxy.accept(listener, at, None);
        }
        // Captured connections, each with its original destination, as the kernel would deliver
        // them.
        for (at, original) in [
            ("10.0.0.1:81", "10.0.8.1:80"),
            ("10.0.0.1:82", "10.0.8.4:80"),
            ("10.0.0.1:91", "10.0.8.2:90"),
            ("10.0.0.1:92", "10.0.8.3:90"),
        ] {
            proxy.accept("mesh.outbound", at, Some(original));
        }
        proxy.sweep();
        proxy.idle = proxy.in_use();
        proxy
    }

    /// Tasks and alarms, without the task and the handle that each listener has.
    fn in_use(&self) -> (usize, usize) {
        let (io, listening) = (&self.worker.io, self.listening.get());
        (io.tasks() - listening, io.alarms().handles() - listening)
    }

    /// Applies the next configuration.
    fn reload(&mut self) {
        let turn = self.snapshots.len();
        let file = self.files[turn % self.files.len()].clone();
        let environment = HashMap::new();
        let loaded = files::load(&[file], &environment);
        let version = turn as u64 + 1;
        let compiled = files::compile(&loaded, version, &mut self.registry, &Resolutions::new());
        let snapshot = Arc::new(compiled.expect("a valid configuration").snapshot);
        for (service, config) in snapshot.services.iter().enumerate() {
            let list = config.endpoints.load().list.clone();
            let configured = |endpoint| Configured { version, service, endpoint };
            self.endpoints.extend(list.into_iter().map(configured));
        }
        self.snapshots.push(Arc::clone(&snapshot));
        self.worker.prepare(snapshot);
        assert!(self.worker.commit(version));
    }

    /// Removes some endpoints of a service and adds others, in random order. Each version keeps at
    /// least one endpoint.
    fn change_endpoints(&self, random: &mut fastrand::Rng) {
        let Some(snapshot) = self.snapshots.last() else { return };
        let index = random.usize(..snapshot.services.len());
        let its = |it: &&Configured| it.version == snapshot.version && it.service == index;
        let mut list: Vec<Arc<Endpoint>> =
            self.endpoints.iter().filter(its).map(|it| Arc::clone(&it.endpoint)).collect();
        random.shuffle(&mut list);
        let mut versions: BTreeMap<Box<str>, Vec<u32>> = BTreeMap::new();
        list.retain(|endpoint| {
            let known = versions.contains_key(endpoint.version.as_deref().unwrap_or_default());
            versions.entry(endpoint.version.clone().unwrap_or_default()).or_default();
            !known || random.bool()
        });
        for (at, endpoint) in (0..).zip(&list) {
            let version = endpoint.version.clone().unwrap_or_default();
            versions.entry(version).or_default().push(at);
        }
        versions.remove("");
        let versions = versions.iter().map(|(name, members)| (&**name, members.clone())).collect();
        let endpoints = Endpoints::new(list, versions, &snapshot.services[index].policy);
        let changed = snapshot.replace_endpoints(index, Arc::new(endpoints));
        if random.bool() {
            // Otherwise the worker notices the change at the next request.
            self.worker.endpoints_changed(snapshot.version, index, &changed);
        }
    }

    fn accept(&self, name: &str, at: &str, original: Option<&str>) {
        let original = original.map(|original| Ok(original.parse().unwrap()));
        let socket = self.worker.io.listen(&address(at));
        let (worker, stop) = (Rc::clone(&self.worker), Rc::clone(&self.stop));
        let (open, listening) = (Rc::clone(&self.open), Rc::clone(&self.listening));
        listening.set(listening.get() + 1);
        let name: Rc<str> = Rc::from(name);
        self.worker.io.spawn(async move {
            while !stop.get() {
                let stream = socket.accept().await;
                let peer: SocketAddr = "10.0.9.9:999".parse().unwrap();
                let serving = connection::serve(
                    Rc::clone(&worker),
                    stream,
                    Rc::clone(&name),
                    Arrival { peer: Some(peer), port: 0, original },
                );
                let open = Rc::clone(&open);
                worker.io.spawn(async move {
                    open.set(open.get() + 1);
                    serving.await;
                    open.set(open.get() - 1);
                });
            }
            listening.set(listening.get() - 1);
        });
    }

    fn sweep(&self) {
        let worker = Rc::clone(&self.worker);
        self.worker.io.spawn(async move {
            loop {
                worker.io.sleep(ringway::serve::worker::SWEEP_INTERVAL).await;
                worker.sweep();
            }
        });
    }

    fn drain(&self) {
        self.stop.set(true);
        self.worker.drain(ringway::snapshot::DrainStep::All);
    }

    /// Checks the bytes that HTTP/2 connections hold. Their number is bounded by the number of
    /// connections, even with slow peers.
    fn check_held_bytes(&self) {
        let mut endpoints = HashMap::new();
        for Configured { endpoint, .. } in &self.endpoints {
            let open = endpoint.stats.sum(|cells| &cells.active) as usize;
            endpoints.insert(endpoint.address.to_string(), open);
        }
        let connections = self.open.get() + endpoints.values().sum::<usize>();
        let held = held_bytes();
        assert!(held <= connections * HELD_BYTES_MAX, "{held} bytes for {connections} connections");
    }

    /// Checks that every buffer was returned, every gauge is zero and every connection is closed.
    /// The sum of a counter of the services. Counters survive reloads.
    fn sum(&self, count: impl Fn(&ServiceCells) -> &Count) -> u64 {
        let services = self.snapshots.iter().flat_map(|snapshot| &snapshot.services);
        let all: BTreeMap<_, _> = services.map(|service| (&service.name, &service.stats)).collect();
        all.values().map(|stats| stats.sum(&count)).sum()
    }

    /// How often a limit of a circuit breaker was reached.
    fn overflows(&self) -> u64 {
        let of = |limit: Limit| self.sum(|cells| &cells.overflows[limit.index()]);
        Limit::ALL.map(of).iter().sum()
    }

    /// How many requests a second endpoint answered first.
    fn hedged(&self) -> u64 {
        self.sum(|cells| &cells.hedged[Hedged::Won.index()])
    }

    async fn check_nothing_is_left(&self) {
        let mut nothing = Snapshot::empty();
        nothing.version = u64::MAX;
        self.worker.prepare(Arc::new(nothing));
        assert!(self.worker.commit(u64::MAX));
        // The last connections close within a second or two.
        self.worker.io.sleep(Duration::from_secs(5)).await;
        assert_eq!(self.worker.io.buffers().used(), 0, "buffers that were never given back");
        assert_eq!(held_bytes(), 0, "bytes that were never written nor dropped");
        assert_eq!(self.in_use(), self.idle, "tasks and alarms that are left");
        assert_eq!(self.worker.cells().panics.value(), 0, "panics");
        assert_eq!(self.worker.cells().mirrored.value(), 0, "mirrored requests");
        assert!(self.worker.registry.is_empty());
        for snapshot in &self.snapshots {
            for service in &snapshot.services {
                let name = &service.name;
                assert_eq!(service.stats.sum(|cells| &cells.active), 0, "{name}: requests");
                assert_eq!(service.stats.sum(|cells| &cells.pending), 0, "{name}: waiting");
                for limit in Limit::ALL {
                    let taken = service.breaker.as_ref().map(|breaker| breaker.taken(limit));
                    assert_eq!(taken.unwrap_or_default(), 0, "{name}: slots of {limit:?}");
                }
            }
        }
        for Configured { endpoint, .. } in &self.endpoints {
            let (stats, at) = (&endpoint.stats, &endpoint.address);
            assert_eq!(stats.sum(|cells| &cells.active), 0, "{at}: open connections");
            assert_eq!(stats.sum(|cells| &cells.idle), 0, "{at}: idle connections");
        }
    }
}
