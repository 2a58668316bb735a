//! `ringway run`: starts the process, runs the control thread, and ends the process.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::apply::{Applied, Applier};
use super::certificates::{Renewal, Worn};
use super::checks::Checks;
use super::consul::ConsulServices;
use super::cpus::Cpus;
use super::descriptors::raise_descriptor_limit;
use super::export::Exporters;
use super::identity;
use super::objects::Objects;
use super::outliers::{Clock, Outliers};
use super::overload::{Monitor, READ_INTERVAL};
use super::quic_key;
use super::resolver::Resolver;
use super::retry::{Need, Retry};
use super::shifts::Shifts;
use super::signals::{Signals, Told};
use super::sockets::Sockets;
use super::sources::{Change, Sources};
use super::systemd::{Manager, passed_sockets, watchdog_interval};
use super::trial::trial;
use super::watch::Watch;
use super::workers::{WorkerParts, observers, start_workers};
use crate::admin::Admin;
use crate::cells::PerWorker;
use crate::compile::registry::Registry;
use crate::compile::{AdminPlan, IssuedBy, Resolutions};
use crate::error::plain;
use crate::intercept::{Installed, InterceptError};
use crate::model::{Model, Resources};
use crate::runtime::core::WorkerCells;
use crate::runtime::memory;
use crate::snapshot::{DrainStep, OutboundDrain, Overload};
use crate::sources::files::{self, Loaded, ProcessEnvironment};
use crate::sources::lookup::Lookups;
use crate::sources::{Documents, Identities, KeySets, Names, Outward, consul, kubernetes, xds};
use crate::telemetry::logs::{FINISH_LIMIT, HURRIED_FINISH_LIMIT};
use crate::telemetry::status::Status;
use crate::worker::mailbox::{Order, ReportKind};

/// How long the process waits at its start for the first addresses of services in DNS.
pub const FIRST_LOOKUP: Duration = Duration::from_secs(2);

/// The interval in which the expiry of certificates is checked, and freed memory is returned to the
/// kernel.
const INSPECTION: Duration = Duration::from_secs(60);

/// The maximum number of times that a reload reads the files again. It reads them again if it has
/// begun to watch new directories. Later changes are reported as events.
const LOOKS_MAX: usize = 4;

/// The reason why the process cannot start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration has errors. The text describes them.
    #[error("{0}")]
    Config(String),
    /// A system call failed. The text describes the error.
    #[error("error: {0}")]
    System(String),
}

/// Installs capture rules for the configuration in use. Their lifetime is that of the result.
pub type Interception = Box<dyn FnOnce(&Model) -> Result<Installed, InterceptError>>;

/// Runs the proxy with the configuration files in `arguments`, until a signal ends it. An
/// `interception` installs the capture rules before the proxy reports that it is ready; they are
/// removed at the end.
///
/// # Errors
/// If the first configuration cannot be applied, or if a system call fails.
pub fn run(arguments: Vec<PathBuf>, interception: Option<Interception>) -> Result<(), RunError> {
    raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let system =
        |error| RunError::System(format!("cannot start the control thread: {}", plain(&error)));
    let runtime = runtime.map_err(system)?;
    let result = runtime.block_on(serve(arguments, interception));
    // A lookup or a fetch may still run on its own thread. Do not wait for it.
    runtime.shutdown_background();
    result
}

async fn serve(
    arguments: Vec<PathBuf>,
    interception: Option<Interception>,
) -> Result<(), RunError> {
    let passed = passed_sockets();
    let mut watch = Watch::default();
    // Watch before reading. A file that changes between the two is then read again.
    watch.follow(&arguments, std::iter::empty());
    let loaded = Arc::new(files::load(&arguments, &ProcessEnvironment));
    let trial = trial(&loaded)?;
    let cpus = Cpus::of_process();
    let workers = trial.workers.unwrap_or_else(|| cpus.workers());
    let places = cpus.places(workers, trial.pin);
    let lookups = Lookups::new(Outward::with_mark(trial.control.dns.mark));
    let mut registry = quic_key::registry(workers, trial.state_dir.as_deref());
    let stats = Arc::new(PerWorker::<WorkerCells>::new(workers));
    let status = Status::new(Arc::clone(&stats), Arc::new(observers(workers)));
    let mut signals = Signals::new().map_err(|error| RunError::System(error.to_string()))?;
    watch.follow(&loaded.watched(&arguments), loaded.materials.paths());
    let (sender, reports) = mpsc::unbounded_channel();
    let log = Arc::clone(&status.known().access_log);
    let (overload, began) = (&Arc::<Overload>::default(), Instant::now());
    let parts = WorkerParts { stats: &stats, reports: &sender, status: &status, overload, began };
    let mailboxes = start_workers(workers, places, trial.driver, &parts)?;
    let plan = &trial.control.sources;
    let begun = identity::begin(&status, plan, &mut signals).await?;
    let Some((identities, issued)) = begun else { return Ok(()) };
    let sources = Sources::begin(&status, &lookups, plan).await;
    let first = first_wanted(&loaded, &sources).unwrap_or(trial.control);
    let (names, key_sets, addresses) = resolve(&status, &lookups, &first, &mut registry).await;
    let (admin, resolver, exporters) = for_others(&status, &lookups, &first).await?;
    let applier = Applier {
        arguments,
        outliers: Outliers::new(Arc::clone(&registry.outliers), Clock { began }),
        registry,
        sockets: Sockets::new(workers, passed),
        mailboxes,
        reports,
        log,
        status,
        resolutions: addresses.with(issued, sources.consul.known()),
        resources: Resources::default(),
        documents: Arc::default(),
        objects: Objects::default(),
        checks: Checks::new(Clock { began }),
        shifts: Shifts::new(trial.state_dir),
        tried: Arc::clone(&loaded),
        loaded,
        version: 0,
        short: false,
        awaited: None,
        admin: None,
    };
    let control = Control {
        renewal: Renewal::of(&applier.loaded.materials),
        applier,
        lookups,
        names,
        key_sets,
        identities,
        sources,
        admin,
        exporters,
        resolver,
        watch,
        signals,
        manager: Manager::new(),
        retry: Retry::default(),
        worn: Worn::default(),
        monitor: Monitor::new(Arc::clone(overload), cpus.time()),
        rules: None,
    };
    Box::pin(control.run(interception)).await
}

/// The needs of the first configuration, if it has documents of a server.
fn first_wanted(loaded: &Loaded, sources: &Sources) -> Option<Applied> {
    let loaded = loaded.with_documents(sources.first()?, &Documents::default());
    trial(&loaded).ok().map(|trial| trial.control)
}

/// Looks up the names and fetches the token keys that the first configuration needs.
async fn resolve(
    status: &Status,
    lookups: &Lookups,
    wanted: &Applied,
    registry: &mut Registry,
) -> (Names, KeySets, Resolutions) {
    let mut names = Names::new(status.clone(), lookups.clone());
    names.follow(&wanted.names, wanted.gone_after);
    let mut key_sets = KeySets::new(status.clone(), lookups.clone());
    key_sets.follow(&wanted.key_sources, |url| registry.keys_wanted(url));
    let (addresses, keys) = tokio::join!(names.first(FIRST_LOOKUP), key_sets.first(FIRST_LOOKUP));
    (names, key_sets, Resolutions { names: addresses, key_sets: keys, ..Resolutions::new() })
}

/// How long a process that ends waits until its spans and lines are sent.
const EXPORT_FINISH_LIMIT: Duration = Duration::from_secs(2);

/// Starts the admin interface and the resolver for the workload. Creates the exporters.
async fn for_others(
    status: &Status,
    lookups: &Lookups,
    control: &Applied,
) -> Result<(Admin, Resolver, Exporters), RunError> {
    let mut admin = Admin::new(status.clone(), lookups.clone());
    admin.bind(&control.admin).await.map_err(RunError::System)?;
    let mut resolver = Resolver::new(status.clone(), lookups.clone());
    resolver.serve(control.dns.clone()).await.map_err(RunError::System)?;
    Ok((admin, resolver, Exporters::new(status, lookups)))
}

struct Control {
    applier: Applier,
    lookups: Lookups,
    names: Names,
    key_sets: KeySets,
    identities: Identities,
    sources: Sources,
    admin: Admin,
    exporters: Exporters,
    resolver: Resolver,
    watch: Watch,
    signals: Signals,
    manager: Manager,
    renewal: Renewal,
    retry: Retry,
    worn: Worn,
    monitor: Monitor,
    /// The installed capture rules. Dropping them removes the rules from the kernel.
    rules: Option<Installed>,
}

impl Control {
    /// Applies the first configuration, and runs until a signal ends the process.
    async fn run(mut self, interception: Option<Interception>) -> Result<(), RunError> {
        Box::pin(self.begin()).await?;
        if let Some(install) = interception {
            self.capture(install)?;
        }
        memory::give_back_with_code();
        Box::pin(self.until_told_to_end()).await
    }

    /// Applies the first configuration, with the first documents of a server if they can be used.
    async fn begin(&mut self) -> Result<(), RunError> {
        if let Some((documents, copied)) = self.sources.take_first() {
            self.take_documents(documents, copied).await;
        }
        let copy = self.sources.take_copy();
        if let Some((documents, copied)) = copy
            && self.applier.status.known().snapshot.is_none()
        {
            let revision = documents.revision;
            tracing::warn!(revision, "the first state is refused; the copy on the disk is used");
            self.take_documents(documents, copied).await;
        }
        if let Some(update) = self.sources.take_first_update() {
            self.take_update(update).await;
        }
        if let Some(change) = self.sources.kubernetes.take_first() {
            self.take_kubernetes(change).await;
        }
        if self.applier.status.known().snapshot.is_some() {
            return Ok(());
        }
        match self.applier.apply_again().await {
            Some(applied) => {
                self.follow_collectors();
                self.serve_admin(&applied.admin).await;
                Ok(())
            }
            None => Err(RunError::Config(self.applier.status.known().reloads.errors.clone())),
        }
    }

    /// Sends spans and lines to the collectors of the configuration in use.
    fn follow_collectors(&mut self) {
        let snapshot = self.applier.status.known().snapshot.clone();
        self.exporters.follow(snapshot.as_deref());
    }

    /// Installs the capture rules.
    fn capture(&mut self, install: Interception) -> Result<(), RunError> {
        let installed = install(&self.applier.loaded.model());
        self.applier.loaded.release();
        let refused = |error| RunError::System(format!("error: {error}"));
        self.rules = Some(installed.map_err(refused)?);
        Ok(())
    }

    /// Logs the addresses of the listeners, and the kernel interface that the workers use.
    fn announce(&self) {
        let known = self.applier.status.known();
        for listener in known.snapshot.iter().flat_map(|snapshot| &snapshot.listeners) {
            for bind in &listener.binds {
                tracing::info!(listener = &*listener.name, %bind, "listening");
            }
        }
        let driver = known.drivers.first().copied().unwrap_or_default();
        tracing::info!(workers = known.drivers.len(), driver, "ready");
    }

    async fn until_told_to_end(mut self) -> Result<(), RunError> {
        self.announce();
        self.retry.after(self.need());
        self.manager.ready();
        let mut watchdog = tokio::time::interval(watchdog_interval());
        let mut inspection = tokio::time::interval(INSPECTION);
        let mut readings = tokio::time::interval(READ_INTERVAL);
        readings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                told = self.signals.next() => {
                    if told == Told::End {
                        return Box::pin(self.drain()).await;
                    }
                    self.applier.log.reopen();
                    if told == Told::Reopen {
                        tracing::info!("SIGUSR1: opened the file of the access log again");
                        continue;
                    }
                    tracing::info!("SIGHUP: reloading");
                    self.reload(true).await;
                    self.names.look_again();
                }
                () = self.renewal.due() => {
                    tracing::info!("renewing this workload's certificate");
                    self.renewal.retry();
                    self.reload(true).await;
                }
                _ = inspection.tick() => {
                    let snapshot = self.applier.status.known().snapshot.clone();
                    self.worn.look(snapshot.iter().flat_map(|s| &s.certificates));
                    memory::give_back();
                }
                _ = readings.tick() => self.watch_overload(),
                () = self.watch.changed() => self.reload(false).await,
                () = self.applier.shifts.due() => self.applier.shifts.tick(),
                () = self.retry.due() => self.reload(self.applier.short).await,
                (name, addresses) = self.names.changed() => {
                    tracing::info!(%name, ?addresses, "the addresses of a DNS name changed");
                    self.applier.readdress(name, addresses);
                }
                (url, keys) = self.key_sets.changed() => {
                    self.applier.resolutions.key_sets.insert(url, keys);
                    self.applier.apply_again().await;
                    self.retry.after(self.need());
                    memory::give_back_with_code();
                }
                identity = self.identities.changed() => {
                    Box::pin(self.take_identity(identity)).await;
                }
                change = self.sources.changed() => match change {
                    Change::Documents(documents) => self.take_documents(documents, None).await,
                    Change::Resources(update) => self.take_update(update).await,
                    Change::Consul(change) => self.take_consul(change).await,
                    Change::Kubernetes(change) => self.take_kubernetes(change).await,
                },
                report = self.applier.reports.recv() => {
                    let Some(report) = report else {
                        return Err(RunError::System("the workers have ended".to_owned()));
                    };
                    if let Some(failure) = self.applier.take(report) {
                        return Err(RunError::System(failure));
                    }
                }
                _ = watchdog.tick() => self.manager.alive(),
            }
        }
    }

    /// Reads the usage of the resources, for the workers and the admin interface.
    fn watch_overload(&mut self) {
        let known = self.applier.status.known();
        let (snapshot, workers) = (known.snapshot.as_ref(), known.drivers.len());
        let terms = snapshot.map(|snapshot| snapshot.overload);
        let buffer_bytes = snapshot.and_then(|snapshot| snapshot.limits.buffer_bytes);
        drop(known);
        self.monitor.share_buffers(buffer_bytes, workers);
        let (readings, wants_memory) = self.monitor.look(&terms.unwrap_or_default());
        self.applier.status.known().overload = readings;
        if wants_memory {
            memory::give_back();
        }
    }

    async fn reload(&mut self, force: bool) {
        self.manager.reloading();
        let applied = Box::pin(self.reload_files(force)).await;
        self.identities.await_also(self.applier.awaited.as_ref());
        self.retry.after(self.need());
        memory::give_back_with_code();
        if let Some(applied) = applied {
            self.renewal = Renewal::of(&self.applier.loaded.materials);
            Box::pin(self.use_applied(applied)).await;
        }
        self.manager.ready();
    }

    /// Applies the documents of a server. `copied` is the time of their copy, if they are a copy.
    async fn take_documents(&mut self, documents: Arc<Documents>, copied: Option<SystemTime>) {
        let applied = self.sources.apply(&mut self.applier, documents, copied).await;
        memory::give_back_with_code();
        if let Some(applied) = applied {
            Box::pin(self.use_applied(applied)).await;
        }
    }

    /// Uses another identity of this workload. A configuration may have waited for it.
    async fn take_identity(&mut self, (api, identity): IssuedBy) {
        let known = &mut self.applier.resolutions.identities;
        let before = known.insert(api.clone(), identity);
        if self.applier.awaited.as_ref() == Some(&api) {
            self.reload(true).await;
            return;
        }
        let applied = self.applier.apply_again().await;
        memory::give_back_with_code();
        if let Some(applied) = applied {
            // No more than this: a reload may wait for another identity.
            self.serve_admin(&applied.admin).await;
        } else {
            let known = &mut self.applier.resolutions.identities;
            match before.clone() {
                Some(before) => known.insert(api, before),
                None => known.remove(&api),
            };
            let why = self.applier.status.known().reloads.errors.clone();
            self.identities.refuse(why.lines().next().unwrap_or_default(), before);
        }
    }

    /// Uses a change in Consul.
    async fn take_consul(&mut self, change: consul::Change) {
        if let Some(applied) = ConsulServices::apply(&mut self.applier, change).await {
            memory::give_back_with_code();
            Box::pin(self.use_applied(applied)).await;
        }
    }

    /// Uses a change in Kubernetes.
    async fn take_kubernetes(&mut self, change: kubernetes::Change) {
        let Self { sources, applier, .. } = self;
        if let Some(applied) = Box::pin(sources.kubernetes.apply(applier, change)).await {
            memory::give_back_with_code();
            Box::pin(self.use_applied(applied)).await;
        }
    }

    /// Applies the resources of an xDS server.
    async fn take_update(&mut self, update: xds::Update) {
        let Some(update) = Sources::move_endpoints(&mut self.applier, update) else { return };
        let applied = Sources::apply_update(&mut self.applier, update).await;
        memory::give_back_with_code();
        if let Some(applied) = applied {
            Box::pin(self.use_applied(applied)).await;
        }
    }

    /// Uses the part of an applied configuration that concerns the control thread.
    async fn use_applied(&mut self, applied: Applied) {
        let Applied { names, gone_after, key_sources, admin, dns, .. } = applied;
        self.lookups.outward().set_mark(dns.mark);
        self.sources.follow(&applied.sources);
        self.applier.resolutions.consul = self.sources.consul.known();
        if applied.sources.kubernetes.is_none() {
            self.applier.resolutions.slices.clear();
        }
        let api = applied.sources.identity.as_ref();
        self.applier.resolutions.identities.retain(|by, _| Some(by) == api);
        let known = api.and_then(|api| self.applier.resolutions.identities.get(api));
        self.identities.follow(api, known.map(Arc::clone));
        self.names.follow(&names, gone_after);
        self.applier.keep_addresses(&names);
        let registry = &mut self.applier.registry;
        self.key_sets.follow(&key_sources, |url| registry.keys_wanted(url));
        self.follow_collectors();
        self.serve_admin(&admin).await;
        if let Err(error) = self.resolver.serve(dns).await {
            tracing::error!("{error}; the DNS resolver keeps its previous address");
        }
    }

    /// Serves the admin interface as `plan` says, also with the TLS of another identity.
    async fn serve_admin(&mut self, plan: &AdminPlan) {
        if let Err(error) = self.admin.bind(plan).await {
            tracing::error!("{error}; the admin interface keeps its previous address");
        }
    }

    async fn reload_files(&mut self, force: bool) -> Option<Applied> {
        let mut applied = self.applier.reload(force).await;
        for _ in 0..LOOKS_MAX {
            let Applier { arguments, tried, .. } = &self.applier;
            if !self.watch.follow(&tried.watched(arguments), tried.materials.paths()) {
                break;
            }
            // A file that was not watched yet may have changed after it was read.
            applied = self.applier.reload(false).await.or(applied);
        }
        applied
    }

    /// The reason why the files must be read again without a file event.
    fn need(&self) -> Need {
        match &self.applier {
            applier if applier.short => Need::Shortage,
            applier if applier.tried.is_unread() => Need::Unread,
            _ if self.watch.is_blind() => Need::Blind,
            _ => Need::Nothing,
        }
    }

    /// Drains the listeners and then ends the process. Outbound listeners still accept during this
    /// time, because the workload may need them for its last responses. The time limit is `drain`.
    async fn drain(mut self) -> Result<(), RunError> {
        let snapshot = {
            let mut known = self.applier.status.known();
            known.draining = true;
            known.snapshot.clone()
        };
        let drain = snapshot.as_ref().map(|snapshot| snapshot.drain).unwrap_or_default();
        self.manager.stopping();
        // Without the rules, new connections bypass the proxy, if the configuration allows it.
        // Connections that are already captured stay open.
        drop(self.rules.take_if(|rules| rules.is_open()));
        tracing::info!(
            drain_limit = ?drain.limit,
            "draining; a second SIGTERM or SIGINT stops the process at once"
        );
        let began = tokio::time::Instant::now();
        let outbound = snapshot.iter().flat_map(|s| &s.listeners).filter(|l| l.is_outbound());
        let outbound: HashSet<_> = outbound.flat_map(|listener| &listener.binds).collect();
        let mut ended = None;
        if let OutboundDrain::AfterInbound { min } = drain.outbound
            && !outbound.is_empty()
        {
            self.applier.sockets.close_unless(|bind| outbound.contains(bind));
            ended = self.step(DrainStep::Inbound, began + min, began + drain.limit).await.err();
            if ended.is_none() {
                tracing::info!("inbound listeners are drained; outbound listeners stop accepting");
            }
        }
        if ended.is_none() {
            self.applier.sockets.close_unless(|_| false);
            ended = self.step(DrainStep::All, began, began + drain.limit).await.err();
        }
        if let Some(DrainEnd::TimeOver) = ended {
            tracing::warn!("the drain time is over: open connections were closed");
        }
        let hurried = matches!(ended, Some(DrainEnd::Told));
        if !hurried {
            self.exporters.finish(EXPORT_FINISH_LIMIT).await;
        }
        self.applier.log.finish(if hurried { HURRIED_FINISH_LIMIT } else { FINISH_LIMIT });
        Ok(())
    }

    /// Drains the listeners of `step`. Completes when all workers have drained them, but not before
    /// `earliest`.
    async fn step(
        &mut self,
        step: DrainStep,
        earliest: tokio::time::Instant,
        deadline: tokio::time::Instant,
    ) -> Result<(), DrainEnd> {
        self.applier.post_all(|| Order::Drain(step));
        let mut busy = self.applier.mailboxes.len();
        let mut too_early = true;
        while busy > 0 || too_early {
            tokio::select! {
                () = tokio::time::sleep_until(deadline) => return Err(DrainEnd::TimeOver),
                () = tokio::time::sleep_until(earliest), if too_early => too_early = false,
                told = self.signals.next() => {
                    if told == Told::End {
                        return Err(DrainEnd::Told);
                    }
                }
                report = self.applier.reports.recv() => {
                    let report = report.ok_or(DrainEnd::Told)?;
                    let done = matches!(report.kind, ReportKind::Drained(of) if of == step);
                    busy -= usize::from(done);
                    self.applier.take(report);
                }
            }
        }
        Ok(())
    }
}

/// The reason why a drain ends before all connections are closed.
enum DrainEnd {
    /// The time limit of the drain has passed.
    TimeOver,
    /// A second SIGTERM or SIGINT has arrived, or the workers have ended.
    Told,
}
