//! Applies a configuration to the workers. Either all workers use it, or no worker does.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, timeout_at};

use super::checks::Checks;
use super::fallback;
use super::objects::Objects;
use super::outliers::Outliers;
use super::shifts::Shifts;
use super::sockets::{BindError, Sockets};
use crate::cluster::Endpoints;
use crate::compile::registry::Registry;
use crate::compile::{
    AdminPlan, Compiled, KeySource, Resolutions, SourcePlan, WorkloadApi, found_at, found_in_consul,
};
use crate::dns::DnsPlan;
use crate::model::{Change, Endpoint, Kind, Patch, Precedence, Refusal, Resource, Resources};
use crate::net::{Address, DnsName};
use crate::snapshot::Snapshot;
use crate::sources::files::ProcessEnvironment;
use crate::sources::files::diagnostic::{Diagnostic, Diagnostics, Place};
use crate::sources::files::redact::Texts;
use crate::sources::files::{self, Loaded};
use crate::sources::{Documents, consul, xds};
use crate::telemetry::logs::AccessLog;
use crate::telemetry::status::Status;
use crate::worker::mailbox::{ListeningSocket, Mailbox, Order, Preparation, Report, ReportKind};

/// The time limit of one phase, for all workers together. A phase is normally much shorter; the
/// limit is for the case that a worker is stuck.
pub const PHASE_TIMEOUT: Duration = Duration::from_secs(5);

/// The state that the control thread needs to apply a configuration.
pub struct Applier {
    /// The files and directories of the `-c` arguments.
    pub arguments: Vec<PathBuf>,
    /// The counters that survive reloads, by name.
    pub registry: Registry,
    /// The listening sockets of the process.
    pub sockets: Sockets,
    /// The mailbox of each worker, by index.
    pub mailboxes: Vec<Mailbox>,
    /// The channel of reports from the workers.
    pub reports: UnboundedReceiver<Report>,
    /// The state that the admin interface shows.
    pub status: Status,
    /// The addresses of services in DNS, and the keys of token issuers.
    pub resolutions: Resolutions,
    /// The resources of sources other than files.
    pub resources: Resources,
    /// The documents of a server that are in use.
    pub documents: Arc<Documents>,
    /// The objects of Kubernetes that are in use.
    pub objects: Objects,
    /// The health checks of endpoints.
    pub checks: Checks,
    /// Ends the ejections of outlier detection.
    pub outliers: Outliers,
    /// Shifts of traffic.
    pub shifts: Shifts,
    /// The access log, which the workers write to.
    pub log: Arc<AccessLog>,
    /// The configuration in use.
    pub loaded: Arc<Loaded>,
    /// The configuration that was tried last. It differs from `loaded` if it was refused.
    pub tried: Arc<Loaded>,
    /// The version of the configuration that was tried last.
    pub version: u64,
    /// Whether the last try failed because the process had no descriptors or memory left.
    pub short: bool,
    /// The API that must issue an identity before the configuration that was tried last can be
    /// applied.
    pub awaited: Option<WorkloadApi>,
    /// The address of the admin interface of the configuration in use.
    pub admin: Option<Address>,
}

/// The part of an applied configuration that concerns the control thread itself.
pub struct Applied {
    /// The DNS names to resolve.
    pub names: Vec<DnsName>,
    /// How long the last addresses of a DNS name stay in use after the name has lost all its
    /// addresses.
    pub gone_after: Duration,
    /// The URLs of token keys to fetch.
    pub key_sources: Vec<KeySource>,
    /// The admin interface.
    pub admin: AdminPlan,
    /// The files as the admin interface shows them.
    pub files: Texts,
    /// The address of the DNS resolver for the workload, and the names that it answers.
    pub dns: DnsPlan,
    /// The servers that are asked for more of the configuration.
    pub sources: SourcePlan,
}

impl Applier {
    /// Reads the files again and applies them. Returns `None` if the configuration is refused.
    /// Without `force`, it also returns `None` if no file has changed since the last try.
    pub async fn reload(&mut self, force: bool) -> Option<Applied> {
        let loaded = Arc::new(self.load());
        if !force && loaded.is_same_text(&self.tried) {
            return None;
        }
        self.tried = Arc::clone(&loaded);
        self.awaited = None;
        let before = self.resources.clone();
        if !loaded.asks_xds() {
            self.resources.forget(xds::NAME);
        }
        if !loaded.wants_all_of_consul() {
            self.resources.forget(consul::NAME);
        }
        let applied = self.apply(Arc::clone(&loaded)).await;
        if applied.is_none() {
            self.resources = before;
        }
        if let Some(applied) = &applied {
            self.loaded = loaded;
            if applied.sources.etcd.is_none() {
                self.documents = Arc::default();
            }
            if applied.sources.kubernetes.is_none() {
                self.objects = Objects::default();
            }
        }
        self.status.known().reloads.files_differ = !self.tried.is_same_text(&self.loaded);
        applied
    }

    /// Reads the files. Adds the documents in use, if the files still name a server.
    fn load(&self) -> Loaded {
        let loaded = files::load(&self.arguments, &ProcessEnvironment);
        let is_usual = self.documents.texts.is_empty() && self.objects.used.texts.is_empty();
        if is_usual || loaded.is_faulty() {
            return loaded;
        }
        let none = Documents::default();
        let documents = if loaded.asks_etcd() { &self.documents } else { &none };
        let objects = if loaded.asks_kubernetes() { &self.objects.in_order } else { &none };
        loaded.with_documents(documents, objects)
    }

    /// Applies the files in use with `documents` in the place of the previous ones.
    ///
    /// # Errors
    /// The first mistake, in one line. The previous configuration stays in use.
    pub async fn apply_documents(&mut self, documents: &Arc<Documents>) -> Result<Applied, String> {
        if let Some(fault) = &documents.fault {
            return Err(fault.clone());
        }
        let began = Instant::now();
        let loaded = Arc::new(self.loaded.with_documents(documents, &self.objects.in_order));
        self.version += 1;
        // The warnings about the files are in the log already.
        let of_document = |place: Place| loaded.sources.is_remote(place.file);
        let warns = |warning: &Diagnostic| warning.place.is_some_and(of_document);
        let result = self.try_apply(&loaded, warns, None).await;
        loaded.release();
        let (snapshot, applied) = result.map_err(|errors| first_line(&errors))?;
        if Arc::ptr_eq(&self.tried, &self.loaded) {
            self.tried = Arc::clone(&loaded);
        }
        self.loaded = loaded;
        self.documents = Arc::clone(documents);
        self.note_applied(snapshot, &applied, began);
        Ok(applied)
    }

    /// Applies changes of the resources of `source`. A refused one keeps its previous content.
    /// `replaces` is whether all earlier resources of the source are gone. Returns the refused
    /// ones, each with the reason.
    pub async fn apply_changes(
        &mut self,
        source: &'static str,
        changes: Vec<Change>,
        replaces: bool,
    ) -> (Option<Applied>, Vec<Refused>) {
        let began = Instant::now();
        let before = self.resources.clone();
        if replaces {
            self.resources.forget(source);
        }
        let keys: Vec<_> = changes.iter().map(Change::key).collect();
        let precedence = Precedence::UnderFiles;
        self.resources.apply(Patch { source: source.into(), precedence, changes });
        self.version += 1;
        let loaded = Arc::clone(&self.loaded);
        let mut undo = Undo { source, before, refused: Vec::new() };
        let result = Box::pin(self.try_apply(&loaded, |_| false, Some(&mut undo))).await;
        loaded.release();
        match result {
            Ok((snapshot, applied)) => {
                self.note_applied(snapshot, &applied, began);
                let told = |(kind, name, why): Refused| (kind, name, loaded.without_paths(&why));
                (Some(applied), undo.refused.into_iter().map(told).collect())
            }
            Err(errors) => {
                self.resources = undo.before;
                let why = loaded.without_paths(&first_line(&errors));
                (None, keys.into_iter().map(|(kind, name)| (kind, name, why.clone())).collect())
            }
        }
    }

    /// Applies the current configuration again, for example after token keys have changed.
    pub async fn apply_again(&mut self) -> Option<Applied> {
        self.apply(Arc::clone(&self.loaded)).await
    }

    /// Applies `loaded`. Returns `None` if the configuration is refused. In this case the previous
    /// configuration stays in use, and the errors are logged and shown by the admin interface.
    async fn apply(&mut self, loaded: Arc<Loaded>) -> Option<Applied> {
        self.version += 1;
        let began = Instant::now();
        self.short = loaded.is_short();
        let is_new = self.version == 1 || !Arc::ptr_eq(&loaded, &self.loaded);
        let result = self.try_apply(&loaded, |_| is_new, None).await;
        self.short &= result.is_err();
        loaded.release();
        self.note(result, began)
    }

    /// Logs the result of applying a configuration, and stores it in the status. The control thread
    /// drops the old snapshot here, so that no worker spends time on it.
    fn note(
        &mut self,
        result: Result<(Arc<Snapshot>, Applied), String>,
        began: Instant,
    ) -> Option<Applied> {
        match result {
            Ok((snapshot, applied)) => {
                self.note_applied(snapshot, &applied, began);
                Some(applied)
            }
            Err(errors) => {
                let mut known = self.status.known();
                known.reloads.last = Some(SystemTime::now());
                known.reloads.failed += 1;
                // There is no previous configuration at the start: the process ends and prints the
                // errors.
                if known.snapshot.is_some() {
                    tracing::error!(
                        "configuration refused; the previous one stays in use:\n{errors}"
                    );
                }
                known.reloads.errors = errors;
                None
            }
        }
    }

    /// Logs that a configuration was applied, and stores it in the status.
    pub(super) fn note_applied(
        &mut self,
        snapshot: Arc<Snapshot>,
        applied: &Applied,
        began: Instant,
    ) {
        let mut known = self.status.known();
        known.reloads.last = Some(SystemTime::now());
        known.reloads.succeeded += 1;
        known.reloads.errors.clear();
        known.files = Arc::clone(&applied.files);
        tracing::info!(
            version = snapshot.version,
            listeners = snapshot.listeners.len(),
            services = snapshot.services.len(),
            took = ?began.elapsed(),
            "configuration applied"
        );
        self.checks.follow(&snapshot);
        self.outliers.follow(&snapshot);
        if let Some(standard) = &snapshot.standard {
            standard.store.set_max(standard.max);
        }
        known.snapshot = Some(snapshot);
    }

    /// Replaces the endpoints of each service whose DNS name is `name`. Nothing else changes.
    pub fn readdress(&mut self, name: DnsName, addresses: Vec<SocketAddr>) {
        let snapshot = self.status.known().snapshot.clone();
        if let Some(snapshot) = snapshot {
            for (index, service) in snapshot.services.iter().enumerate() {
                if service.dns_name.as_ref() == Some(&name) {
                    let found =
                        found_at(service, &addresses, self.admin.as_ref(), &mut self.registry);
                    self.replace_endpoints(&snapshot, index, found);
                }
            }
        }
        self.resolutions.names.insert(name, addresses);
    }

    /// Replaces the endpoints of each service that is `name` in Consul. Nothing else changes.
    pub fn put_endpoints(&mut self, name: &str, endpoints: Arc<[Endpoint]>) {
        let snapshot = self.status.known().snapshot.clone();
        if let Some(snapshot) = snapshot {
            for (index, service) in snapshot.services.iter().enumerate() {
                if service.consul_name.as_deref() == Some(name) {
                    let found = found_in_consul(service, &endpoints, &mut self.registry);
                    self.replace_endpoints(&snapshot, index, found);
                }
            }
        }
        self.resolutions.consul.insert(name.to_owned(), endpoints);
    }

    /// Drops the addresses of all names that are not in `names`. If such a name is added again
    /// later, it is looked up again.
    pub fn keep_addresses(&mut self, names: &[DnsName]) {
        let wanted: HashSet<_> = names.iter().collect();
        self.resolutions.names.retain(|name, _| wanted.contains(name));
    }

    pub(super) fn replace_endpoints(
        &mut self,
        snapshot: &Snapshot,
        index: usize,
        endpoints: Arc<Endpoints>,
    ) {
        let service = &snapshot.services[index];
        let changed: Arc<[SocketAddr]> = snapshot.replace_endpoints(index, endpoints).into();
        self.checks.follow_service(service);
        self.outliers.follow_service(service);
        self.post_all(|| Order::Endpoints {
            version: snapshot.version,
            service: index,
            addresses: Arc::clone(&changed),
        });
    }

    /// Compiles `loaded` and applies it. Logs the warnings about it for which `warns` is true.
    pub(super) async fn try_apply(
        &mut self,
        loaded: &Loaded,
        warns: impl Fn(&Diagnostic) -> bool,
        undo: Option<&mut Undo>,
    ) -> Result<(Arc<Snapshot>, Applied), String> {
        let (compiled, sockets) = Box::pin(self.compile_and_open(loaded, undo)).await?;
        let files = loaded.shown();
        let mut warnings = files::warnings(loaded, &compiled);
        warnings.list.retain(warns);
        let Compiled { snapshot, refusals, absent, .. } = compiled;
        let Compiled { names, gone_after, key_sources, admin, dns, .. } = compiled;
        let sources = compiled.sources;
        for refusal in &refusals {
            tracing::warn!(
                "a resource is refused; the rest of the configuration is applied: {refusal}"
            );
        }
        note_absent(&self.status, absent);
        let snapshot = Arc::new(snapshot);
        let version = snapshot.version;
        for (mailbox, sockets) in self.mailboxes.iter().zip(sockets) {
            let snapshot = Arc::clone(&snapshot);
            mailbox.post(Order::Prepare(Preparation { snapshot, sockets }));
        }
        let prepared = |kind: &ReportKind| kind.prepared() == Some(version);
        if let Err(why) = self.await_all(prepared).await {
            self.post_all(|| Order::Abort { version });
            if let Some(snapshot) = &self.status.known().snapshot {
                self.sockets.keep_only(snapshot);
            }
            return Err(format!("error: the workers could not prepare it: {why}\n"));
        }
        self.sockets.configure(&snapshot);
        self.sockets.keep_only(&snapshot);
        // All workers have prepared, so all will commit. Their first request needs the share.
        self.shifts.follow(&snapshot);
        self.post_all(|| Order::Commit { version });
        let committed = |kind: &ReportKind| kind.committed() == Some(version);
        if let Err(why) = self.await_all(committed).await {
            // At least one worker is late.
            tracing::warn!(
                version, reason = %why,
                "a worker has not yet switched to the new configuration; it still serves the \
                 previous one"
            );
        }
        log_warnings(&warnings);
        self.admin = admin.address.clone();
        self.log.configure(snapshot.access_log.as_ref().map(|log| &log.sink));
        let applied = Applied { names, gone_after, key_sources, admin, files, dns, sources };
        Ok((snapshot, applied))
    }

    /// Compiles `loaded`, and opens its addresses. The resources that stand in the way are taken
    /// back, and everything is compiled again.
    async fn compile_and_open(
        &mut self,
        loaded: &Loaded,
        mut undo: Option<&mut Undo>,
    ) -> Result<(Compiled, Vec<Vec<ListeningSocket>>), String> {
        loop {
            let Self { resources, version, registry, resolutions, awaited, objects, .. } = self;
            let compiled = files::compile_with(loaded, resources, *version, registry, resolutions)
                .map_err(|errors| {
                    objects.blamed = errors.of_documents();
                    errors.to_string()
                })?;
            let taking = undo.as_deref_mut();
            if taking.is_some_and(|undo| undo.take_back(resources, &compiled.refusals)) {
                continue;
            }
            check_identity(awaited, &compiled.sources, compiled.awaits_identity)?;
            if let Some(free) = self.sockets.free_from(&compiled.snapshot) {
                tokio::time::sleep_until(free.into()).await;
            }
            let errors = match self.sockets.prepare(&compiled.snapshot) {
                Ok(sockets) => return Ok((compiled, sockets)),
                Err(errors) => errors,
            };
            let taking = undo.as_deref_mut();
            if taking.is_some_and(|undo| undo.take_back_listeners(&mut self.resources, &errors)) {
                continue;
            }
            self.short |= errors.iter().any(BindError::is_shortage);
            for error in &errors {
                self.objects.blame(compiled.bind_places.get(&error.bind), error);
            }
            let line = |error: &BindError| {
                let place = compiled.bind_places.get(&error.bind).map_or("", String::as_str);
                format!("{place}: error: {error}\n")
            };
            return Err(errors.iter().map(line).collect());
        }
    }

    /// Waits until every worker has sent a report for which `wanted` returns true.
    async fn await_all(&mut self, wanted: impl Fn(&ReportKind) -> bool) -> Result<(), String> {
        let deadline = Instant::now() + PHASE_TIMEOUT;
        let mut missing = self.mailboxes.len();
        while missing > 0 {
            match timeout_at(deadline, self.reports.recv()).await {
                Ok(Some(report)) if wanted(&report.kind) => missing -= 1,
                Ok(Some(report)) => {
                    if let Some(failure) = self.take(report) {
                        return Err(failure);
                    }
                }
                Ok(None) => return Err("the workers have ended".to_owned()),
                Err(_) => return Err(format!("{missing} workers did not answer in time")),
            }
        }
        Ok(())
    }

    /// Processes a report of a worker. Returns the message of a worker that cannot continue.
    pub fn take(&mut self, report: Report) -> Option<String> {
        match report.kind {
            ReportKind::Started { driver, refused } => {
                let drivers = &mut self.status.known().drivers;
                if let Some(error) = refused.filter(|_| !drivers.contains(&driver)) {
                    fallback::warn(&error);
                }
                drivers[report.worker] = driver;
            }
            ReportKind::Failed(message) => {
                tracing::error!(
                    worker = report.worker,
                    "worker failed; the process exits: {message}"
                );
                return Some(message);
            }
            ReportKind::Prepared { .. } | ReportKind::Committed { .. } | ReportKind::Drained(_) => {
            }
        }
        None
    }

    /// Sends an order to every worker.
    pub fn post_all(&self, order: impl Fn() -> Order) {
        for mailbox in &self.mailboxes {
            mailbox.post(order());
        }
    }
}

/// A refused item of a source: its kind, its name there, and the reason.
pub type Refused = (Kind, Box<str>, String);

/// The resources before a change.
pub(super) struct Undo {
    source: &'static str,
    before: Resources,
    refused: Vec<Refused>,
}

impl Undo {
    /// Takes the refused resources of the source back to their previous content. Returns whether
    /// there are some, so that everything must be compiled again.
    fn take_back(&mut self, resources: &mut Resources, refusals: &[Refusal]) -> bool {
        let mut changes = false;
        for refusal in refusals {
            let Some(id) = refusal.origin.resource().filter(|id| *id.source == *self.source) else {
                continue;
            };
            let key = (id.kind, id.name.clone());
            changes |= self.take_back_one(resources, key, refusal.reasons.join("; "));
        }
        changes
    }

    /// Takes back the listeners whose addresses cannot be opened. Returns whether each address has
    /// such a listener, so that everything must be compiled again.
    fn take_back_listeners(&mut self, resources: &mut Resources, errors: &[BindError]) -> bool {
        let mut all = true;
        for error in errors {
            let mut changes = false;
            for name in resources.listeners_at(self.source, &error.bind) {
                changes |= self.take_back_one(resources, (Kind::Listener, name), error.to_string());
            }
            all &= changes;
        }
        all
    }

    fn take_back_one(
        &mut self,
        resources: &mut Resources,
        key: (Kind, Box<str>),
        why: String,
    ) -> bool {
        if !resources.restore(&self.before, self.source, &key) {
            return false;
        }
        if let Some(other) = xds::companion(key.0, &key.1) {
            resources.restore(&self.before, self.source, &other);
        }
        // The routes of another server may be gone.
        if let Some(Resource::Listener(listener)) = resources.get(self.source, &key)
            && let Some(routes) = xds::routes_of(&listener.value)
            && resources.get(self.source, &routes).is_none()
        {
            resources.restore(&self.before, self.source, &routes);
        }
        self.refused.push((key.0, key.1, why));
        true
    }
}

/// Refuses a configuration whose identity is not issued yet: without it, no peer would be served.
fn check_identity(
    awaited: &mut Option<WorkloadApi>,
    plan: &SourcePlan,
    awaits: bool,
) -> Result<(), String> {
    let Some(api) = plan.identity.as_ref().filter(|_| awaits) else { return Ok(()) };
    *awaited = Some(api.clone());
    let name = api.name();
    Err(format!("error: {name} has not issued an identity yet; with one, this is applied\n"))
}

/// The first line of a text of errors. A place comes before its message there.
fn first_line(errors: &str) -> String {
    errors.lines().next().unwrap_or_default().to_owned()
}

/// Notes the services that rules name and that no source has.
fn note_absent(status: &Status, absent: Vec<String>) {
    let mut known = status.known();
    if known.absent != absent {
        if !absent.is_empty() {
            let services = absent.join(" ");
            tracing::warn!(services, "rules name services that no source has; requests get 503");
        }
        known.absent = absent;
    }
}

/// Logs each warning that `ringway check` also shows, with its place.
fn log_warnings(warnings: &Diagnostics) {
    for Diagnostic { place, message, help, .. } in &warnings.list {
        let place = place.map(|place| warnings.sources.file_line(place));
        tracing::warn!(place, help, "{message}");
    }
}
