//! `ringway run`: the life of the process, from its arguments to its end.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use listenfd::ListenFd;
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::apply::{Applied, Applier};
use super::certificates::{Renewal, Worn};
use super::checks::Checks;
use super::cpus::Cpus;
use super::resolver::Resolver;
use super::sockets::Sockets;
use super::watch::Watch;
use crate::admin::Admin;
use crate::cells::PerWorker;
use crate::compile::registry::Registry;
use crate::compile::{Compiled, Resolutions};
use crate::intercept::{Installed, InterceptError};
use crate::model::{Driver, Model, Resources};
use crate::runtime::core::WorkerCells;
use crate::runtime::heap;
use crate::runtime::ring;
use crate::sources::files::{self, Loaded, ProcessEnvironment};
use crate::sources::{KeySets, Names};
use crate::telemetry::logs::LogSinkWriter;
use crate::telemetry::status::Status;
use crate::worker::mailbox::{Inbox, Loads, Mailbox, Order, ReportKind, Reports, mailbox};
use crate::worker::thread::{Start, spawn};

/// How long the start waits for the first addresses of services in DNS.
pub const FIRST_LOOKUP: Duration = Duration::from_secs(2);

/// How often the expiry of certificates is checked and freed memory is given back.
const INSPECTION: Duration = Duration::from_secs(60);

/// The reason why the process cannot start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration has errors. The text shows them.
    #[error("{0}")]
    Config(String),
    /// The system refused an operation.
    #[error("error: {0}")]
    System(String),
}

/// Installs capture rules for the configuration in use.
pub type Interception = Box<dyn FnOnce(&Model) -> Result<Installed, InterceptError>>;

/// Runs the proxy with the configuration files in `arguments` until a signal ends it. With an
/// `interception`, the capture rules are installed before the proxy reports that it is ready. They
/// are removed at the end.
///
/// # Errors
/// When the first configuration cannot be applied, or the system refuses an operation.
pub fn run(arguments: Vec<PathBuf>, interception: Option<Interception>) -> Result<(), RunError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let system = |error| RunError::System(format!("no control thread: {error}"));
    runtime.map_err(system)?.block_on(serve(arguments, interception))
}

async fn serve(
    arguments: Vec<PathBuf>,
    interception: Option<Interception>,
) -> Result<(), RunError> {
    let passed = passed_sockets();
    raise_descriptor_limit();
    let loaded = Arc::new(files::load(&arguments, &ProcessEnvironment));
    let trial = trial(&loaded)?;
    let cpus = Cpus::of_process();
    let workers = trial.workers.unwrap_or_else(|| cpus.workers());
    let places = cpus.places(workers, trial.pin);
    let mut registry = Registry::new(workers);
    let stats = Arc::new(PerWorker::<WorkerCells>::new(workers));
    let status = Status::new(Arc::clone(&stats));
    let signals = Signals::new().map_err(|error| RunError::System(error.to_string()))?;
    let mut watch = Watch::new();
    watch.follow(&arguments, loaded.materials.paths());
    let (sender, reports) = mpsc::unbounded_channel();
    let mailboxes = start_workers(workers, places, trial.driver, &stats, &sender)?;
    let mut names = Names::new(status.clone());
    names.follow(&trial.control.names);
    let mut key_sets = KeySets::new(status.clone());
    key_sets.follow(&trial.control.key_sources, |url| registry.keys_wanted(url));
    let (names_found, keys_found) =
        tokio::join!(names.first(FIRST_LOOKUP), key_sets.first(FIRST_LOOKUP));
    let resolutions = Resolutions { names: names_found, key_sets: keys_found };
    let mut admin = Admin::new(status.clone());
    admin.bind(trial.control.admin).await.map_err(RunError::System)?;
    let mut resolver = Resolver::new(status.clone());
    resolver.serve(trial.control.dns).await.map_err(RunError::System)?;
    let applier = Applier {
        arguments,
        registry,
        sockets: Sockets::new(workers, passed),
        mailboxes,
        reports,
        status,
        resolutions,
        resources: Resources::default(),
        checks: Checks::default(),
        log: LogSinkWriter::default(),
        tried: Arc::clone(&loaded),
        loaded,
        version: 0,
    };
    let renewal = Renewal::of(&applier.loaded.materials);
    let worn = Worn::default();
    let mut control = Control {
        applier,
        names,
        key_sets,
        admin,
        resolver,
        watch,
        signals,
        renewal,
        worn,
        rules: None,
    };
    if control.applier.apply_again().await.is_none() {
        return Err(RunError::Config(control.applier.status.known().reloads.errors.clone()));
    }
    if let Some(install) = interception {
        let installed = install(&control.applier.loaded.model());
        control.applier.loaded.release();
        let refused = |error| RunError::System(format!("error: {error}"));
        control.rules = Some(installed.map_err(refused)?);
    }
    heap::give_back();
    Box::pin(control.until_told_to_end()).await
}

/// The parts of a configuration that the start needs before there are workers.
struct Trial {
    workers: Option<usize>,
    pin: Option<bool>,
    driver: Driver,
    control: Applied,
}

/// Compiles the configuration once, to find all errors before anything is started. The snapshot is
/// dropped, so that it does not stay in memory.
fn trial(loaded: &Loaded) -> Result<Trial, RunError> {
    let compiled = files::compile(loaded, 0, &mut Registry::new(1), &Resolutions::new())
        .map_err(|errors| RunError::Config(errors.to_string()))?;
    let Compiled { workers, pin, driver, names, key_sources, admin, dns, .. } = compiled;
    Ok(Trial { workers, pin, driver, control: Applied { names, key_sources, admin, dns } })
}

struct Control {
    applier: Applier,
    names: Names,
    key_sets: KeySets,
    admin: Admin,
    resolver: Resolver,
    watch: Watch,
    signals: Signals,
    renewal: Renewal,
    worn: Worn,
    /// The capture rules. Dropping this value removes them.
    rules: Option<Installed>,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::End,
            _ = self.interrupt.recv() => Told::End,
            _ = self.hangup.recv() => Told::Reload,
        }
    }
}

/// The effect of a signal.
#[derive(PartialEq, Eq)]
enum Told {
    End,
    Reload,
}

impl Control {
    async fn until_told_to_end(mut self) -> Result<(), RunError> {
        tell_systemd(&[NotifyState::Ready]);
        let mut watchdog = tokio::time::interval(watchdog_interval());
        let mut inspection = tokio::time::interval(INSPECTION);
        loop {
            tokio::select! {
                told = self.signals.next() => {
                    if told == Told::End {
                        return self.drain().await;
                    }
                    tracing::info!("SIGHUP: reloading");
                    self.applier.log.reopen();
                    self.reload(true).await;
                }
                () = self.renewal.due() => {
                    tracing::info!("renewing this workload's certificate");
                    self.renewal.retry();
                    self.reload(true).await;
                }
                _ = inspection.tick() => {
                    let snapshot = self.applier.status.known().snapshot.clone();
                    self.worn.look(snapshot.iter().flat_map(|s| &s.certificates));
                    heap::give_back();
                }
                () = self.watch.changed() => self.reload(false).await,
                (name, addresses) = self.names.changed() => {
                    tracing::info!(%name, ?addresses, "the addresses of a DNS name changed");
                    self.applier.readdress(name, addresses);
                }
                (url, keys) = self.key_sets.changed() => {
                    self.applier.resolutions.key_sets.insert(url, keys);
                    self.applier.apply_again().await;
                    heap::give_back();
                }
                report = self.applier.reports.recv() => {
                    let Some(report) = report else {
                        return Err(RunError::System("the workers are gone".to_owned()));
                    };
                    if let Some(failure) = self.applier.take(report) {
                        return Err(RunError::System(failure));
                    }
                }
                _ = watchdog.tick() => tell_systemd(&[NotifyState::Watchdog]),
            }
        }
    }

    async fn reload(&mut self, force: bool) {
        tell_systemd(&[NotifyState::Reloading]);
        let applied = self.reload_files(force).await;
        heap::give_back();
        if let Some(Applied { names, key_sources, admin, dns }) = applied {
            self.renewal = Renewal::of(&self.applier.loaded.materials);
            self.names.follow(&names);
            let registry = &mut self.applier.registry;
            self.key_sets.follow(&key_sources, |url| registry.keys_wanted(url));
            if let Err(error) = self.admin.bind(admin).await {
                tracing::error!("{error} (the admin interface is unchanged)");
            }
            if let Err(error) = self.resolver.serve(dns).await {
                tracing::error!("{error} (the address of the DNS resolver is unchanged)");
            }
        }
        tell_systemd(&[NotifyState::Ready]);
    }

    async fn reload_files(&mut self, force: bool) -> Option<Applied> {
        let mut applied = self.applier.reload(force).await;
        let Applier { arguments, tried, .. } = &self.applier;
        if self.watch.follow(arguments, tried.materials.paths()) {
            // A file that is watched only from now on may have changed after it was read.
            applied = self.applier.reload(false).await.or(applied);
        }
        applied
    }

    /// Stops accepting and lets exchanges finish. Ends after the `drain` time at the latest.
    async fn drain(mut self) -> Result<(), RunError> {
        let drain_limit = {
            let mut known = self.applier.status.known();
            known.draining = true;
            known.snapshot.as_ref().map_or(Duration::ZERO, |snapshot| snapshot.drain)
        };
        tell_systemd(&[NotifyState::Stopping]);
        // From now on, new connections bypass the proxy if that is allowed. Captured ones stay
        // open.
        drop(self.rules.take_if(|rules| rules.is_open()));
        tracing::info!(
            ?drain_limit,
            "draining; a second SIGTERM or SIGINT stops the process at once"
        );
        self.applier.sockets.close_all();
        self.applier.post_all(|| Order::Drain);
        let mut busy = self.applier.mailboxes.len();
        let deadline = tokio::time::sleep(drain_limit);
        tokio::pin!(deadline);
        while busy > 0 {
            tokio::select! {
                () = &mut deadline => {
                    tracing::warn!("the drain time is over: open connections were closed");
                    break;
                }
                told = self.signals.next() => {
                    if told == Told::End {
                        break;
                    }
                }
                report = self.applier.reports.recv() => match report {
                    Some(report) => {
                        busy -= usize::from(matches!(report.kind, ReportKind::Drained));
                        self.applier.take(report);
                    }
                    None => break,
                },
            }
        }
        self.applier.log.finish();
        Ok(())
    }
}

fn start_workers(
    workers: usize,
    places: Option<&[usize]>,
    driver: Driver,
    stats: &Arc<PerWorker<WorkerCells>>,
    reports: &Reports,
) -> Result<Vec<Mailbox>, RunError> {
    let system = |error: std::io::Error| RunError::System(format!("no worker: {error}"));
    let pairs: Vec<(Mailbox, Inbox)> =
        (0..workers).map(|_| mailbox()).collect::<Result<_, _>>().map_err(system)?;
    let (mailboxes, inboxes): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
    let loads = Loads::new(workers);
    let began = Instant::now();
    for (index, inbox) in inboxes.into_iter().enumerate() {
        let driver = match driver {
            Driver::Auto => ring::Driver::Auto,
            Driver::IoUring => ring::Driver::IoUring,
            Driver::Epoll => ring::Driver::Epoll,
        };
        let start = Start {
            index,
            stats: stats.clone(),
            loads: loads.clone(),
            reports: reports.clone(),
            seed: fastrand::u64(..),
            inbox,
            peers: mailboxes.clone(),
            driver,
            began,
            cpu: places.map(|cpus| cpus[index]),
        };
        spawn(start).map_err(system)?;
    }
    Ok(mailboxes)
}

/// Raises the soft limit on open files to the hard limit. Each connection needs two descriptors.
/// The default soft limit of 1024 is for programs that use select(2).
fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        tracing::warn!(%error, soft, "cannot raise the limit on open files");
    }
}

/// The sockets from systemd, by their `FileDescriptorName=`.
fn passed_sockets() -> HashMap<String, OwnedFd> {
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut passed = ListenFd::from_env();
    let mut sockets = HashMap::new();
    for (index, name) in names.split(':').enumerate().take(passed.len()) {
        let tcp = passed.take_tcp_listener(index).ok().flatten().map(OwnedFd::from);
        let socket = tcp.or_else(|| passed.take_unix_listener(index).ok()?.map(OwnedFd::from));
        if let Some(socket) = socket {
            sockets.insert(name.to_owned(), socket);
        }
    }
    sockets
}

fn tell_systemd(states: &[NotifyState<'_>]) {
    // This fails without systemd, and that is not an error.
    sd_notify::notify(states).ok();
}

/// Half of systemd's watchdog limit, as systemd recommends.
fn watchdog_interval() -> Duration {
    sd_notify::watchdog_enabled().map_or(Duration::from_secs(3600), |limit| limit / 2)
}
