//! Applies the documents of a server, and keeps a copy of the last ones on the disk.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::sleep;

use super::apply::{Applied, Applier};
use super::consul::ConsulServices;
use super::kubernetes::KubernetesObjects;
use crate::compile::SourcePlan;
use crate::sources::lookup::Lookups;
use crate::sources::{Cache, Documents, Etcd, Xds, consul, etcd, kubernetes, xds};
use crate::telemetry::status::Status;

/// How long the process waits at its start for a server. After that it uses the copy.
pub const FIRST_ANSWER: Duration = Duration::from_secs(3);

/// How long the process waits at its start for the resources of an xDS server: for its answer, or
/// else for the copy on the disk.
pub const FIRST_RESOURCES: Duration = Duration::from_millis(3500);

/// The shortest time between two copies.
const COPY_INTERVAL: Duration = Duration::from_secs(1);

/// The servers that are asked for more of the configuration.
pub struct Sources {
    status: Status,
    etcd: Etcd,
    xds: Xds,
    /// The services in Consul.
    pub consul: ConsulServices,
    /// The objects of Kubernetes.
    pub kubernetes: KubernetesObjects,
    plan: SourcePlan,
    copies: Option<Copies>,
    first: Option<First>,
    /// The copy on the disk, if the server's first state is another one.
    copy: Option<First>,
    /// The first resources of an xDS server.
    first_update: Option<xds::Update>,
}

/// A change that a server has sent.
pub enum Change {
    /// The documents of etcd.
    Documents(Arc<Documents>),
    /// Resources of an xDS server.
    Resources(xds::Update),
    /// Services in Consul, or their endpoints.
    Consul(consul::Change),
    /// Objects of Kubernetes.
    Kubernetes(kubernetes::Change),
}

/// The first documents, and the time of their copy if they are a copy.
type First = (Arc<Documents>, Option<SystemTime>);

/// Writes copies, on a thread that may wait for the disk.
pub struct Copies {
    /// The place of the copy.
    pub cache: Cache,
    latest: watch::Sender<Arc<Documents>>,
    task: JoinHandle<()>,
}

impl Copies {
    /// Begins to write copies to `cache`.
    pub fn new(cache: Cache) -> Self {
        let (latest, written) = watch::channel(Arc::default());
        let task = tokio::spawn(write_copies(cache.clone(), written));
        Self { cache, latest, task }
    }

    /// Writes this copy next.
    pub fn put(&self, documents: Arc<Documents>) {
        self.latest.send_replace(documents);
    }
}

impl Drop for Copies {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Sources {
    /// Asks the servers of `plan`, and waits for the first documents.
    pub async fn begin(status: &Status, lookups: &Lookups, plan: &SourcePlan) -> Self {
        let etcd = Etcd::new(status.clone(), lookups.clone());
        let xds = Xds::new(status.clone(), lookups.clone());
        let consul = ConsulServices::new(status, lookups);
        let kubernetes = KubernetesObjects::new(status, lookups);
        let status = status.clone();
        let (copies, first, copy) = (None, None, None);
        let (plan_before, first_update) = (SourcePlan::default(), None);
        let mut sources = Self {
            status,
            etcd,
            xds,
            consul,
            kubernetes,
            plan: plan_before,
            copies,
            first,
            copy,
            first_update,
        };
        sources.follow(plan);
        sources.first = sources.await_first().await;
        if plan.xds.is_some() {
            sources.first_update = sources.xds.first(FIRST_RESOURCES).await;
        }
        sources.consul.await_first(FIRST_ANSWER).await;
        sources.kubernetes.await_first().await;
        sources
    }

    /// The first documents.
    pub fn first(&self) -> Option<&Documents> {
        self.first.as_ref().map(|(documents, _)| &**documents)
    }

    /// Takes the copy on the disk, if the server's answer at the start was another state. It is
    /// used if that state is refused: the files alone may lack the policies that the server has.
    pub fn take_copy(&mut self) -> Option<First> {
        self.copy.take()
    }

    /// Takes the first resources of an xDS server, to apply them.
    pub fn take_first_update(&mut self) -> Option<xds::Update> {
        self.first_update.take()
    }

    /// Takes the first documents, to apply them.
    pub fn take_first(&mut self) -> Option<First> {
        self.first.take()
    }

    /// Asks exactly the servers of `plan` from now on.
    pub fn follow(&mut self, plan: &SourcePlan) {
        self.etcd.follow(plan.etcd.as_ref());
        self.xds.follow(plan.xds.as_ref(), plan.cache.as_ref());
        self.consul.follow(plan);
        self.kubernetes.follow(plan);
        let cache = plan.etcd.as_ref().zip(plan.cache.as_ref());
        let cache = cache
            .map(|(source, directory)| Cache::new(directory, etcd::NAME, source.prefix.clone()));
        if self.copies.as_ref().map(|copies| &copies.cache) != cache.as_ref() {
            self.copies = cache.map(Copies::new);
        }
        self.plan = plan.clone();
    }

    async fn await_first(&mut self) -> Option<First> {
        self.plan.etcd.as_ref()?;
        let answer = self.etcd.first(FIRST_ANSWER).await;
        let servers = self.plan.names().next().unwrap_or_default();
        let copy = self.copies.as_ref().map(|copies| copies.cache.read());
        if let Some(documents) = answer {
            match copy {
                Some(Ok(Some((known, copied)))) if is_lost(&known, &documents) => {
                    self.refuse(&documents, known.revision, &lost(&known, &documents));
                    return Some((Arc::new(known), Some(copied)));
                }
                Some(Ok(Some((known, copied)))) => {
                    self.copy = Some((Arc::new(known), Some(copied)));
                    return Some((documents, None));
                }
                _ => return Some((documents, None)),
            }
        }
        match copy {
            Some(Ok(Some((documents, copied)))) => {
                let age = Duration::from_secs(copied.elapsed().unwrap_or_default().as_secs());
                tracing::warn!(
                    servers,
                    revision = documents.revision,
                    ?age,
                    "no answer at the start; the copy on the disk is used"
                );
                return Some((Arc::new(documents), Some(copied)));
            }
            Some(Err(why)) => tracing::warn!(servers, %why, "no answer at the start, and no copy"),
            Some(Ok(None)) | None => {
                tracing::warn!(servers, "no answer at the start; only the files are used");
            }
        }
        None
    }

    /// Waits for a change.
    pub async fn changed(&mut self) -> Change {
        tokio::select! {
            documents = self.etcd.changed() => Change::Documents(documents),
            update = self.xds.changed() => Change::Resources(update),
            change = self.consul.changed() => Change::Consul(change),
            change = self.kubernetes.changed() => Change::Kubernetes(change),
        }
    }

    /// Applies an update of endpoints alone, and answers it. Returns every other update.
    pub fn move_endpoints(applier: &mut Applier, update: xds::Update) -> Option<xds::Update> {
        let moves = update.only_moves && !update.is_first;
        if !moves || !applier.move_endpoints(xds::NAME, &update.changes) {
            return Some(update);
        }
        update.answer.send(Vec::new()).ok();
        None
    }

    /// Applies an update, and answers it.
    pub async fn apply_update(applier: &mut Applier, update: xds::Update) -> Option<Applied> {
        let xds::Update { changes, is_first, answer, .. } = update;
        if changes.is_empty() && !is_first {
            answer.send(Vec::new()).ok();
            return None;
        }
        let applying = Box::pin(applier.apply_changes(xds::NAME, changes, is_first));
        let (applied, refused) = applying.await;
        answer.send(refused).ok();
        applied
    }

    /// Applies `documents`. `copied` is the time of their copy, if they are a copy. Returns `None`
    /// if they are refused or if they are in use already.
    pub async fn apply(
        &self,
        applier: &mut Applier,
        documents: Arc<Documents>,
        copied: Option<SystemTime>,
    ) -> Option<Applied> {
        self.plan.etcd.as_ref()?;
        if copied.is_none() && is_lost(&applier.documents, &documents) {
            let known = &applier.documents;
            self.refuse(&documents, known.revision, &lost(known, &documents));
            return None;
        }
        let is_same = documents.fault.is_none() && documents.texts == applier.documents.texts;
        let applied = match is_same && applier.documents.revision > 0 {
            true => {
                applier.documents = Arc::clone(&documents);
                Ok(None)
            }
            false => applier.apply_documents(&documents).await.map(Some),
        };
        let mut known = self.status.known();
        let used = applier.documents.revision;
        let source = known.sources.get_mut(etcd::NAME)?;
        match applied {
            Ok(applied) => {
                source.revision = documents.revision;
                source.documents = documents.texts.len();
                source.copied = copied;
                source.refusal.clear();
                drop(known);
                if copied.is_none() {
                    self.copies.iter().for_each(|it| it.put(documents.clone()));
                }
                applied
            }
            Err(why) => {
                drop(known);
                self.refuse(&documents, used, &why);
                None
            }
        }
    }

    /// Notes that `documents` are refused because of `why`. The revision `used` stays in use.
    fn refuse(&self, documents: &Documents, used: u64, why: &str) {
        if let Some(source) = self.status.known().sources.get_mut(etcd::NAME) {
            source.refused += 1;
            why.clone_into(&mut source.refusal);
        }
        tracing::error!(
            source = etcd::NAME,
            revision = documents.revision,
            used,
            "a revision is refused; the previous configuration stays in use: {why}"
        );
    }
}

/// Whether `new` looks like the state of a server that has lost its data: it has no documents, and
/// an earlier revision. Documents that somebody deletes lead to a later one.
fn is_lost(known: &Documents, new: &Documents) -> bool {
    new.texts.is_empty() && !known.texts.is_empty() && new.revision < known.revision
}

fn lost(known: &Documents, new: &Documents) -> String {
    format!(
        "the server has no documents, and its revision went back from {} to {}",
        known.revision, new.revision
    )
}

async fn write_copies(cache: Cache, mut latest: watch::Receiver<Arc<Documents>>) {
    while latest.changed().await.is_ok() {
        let (cache, documents) = (cache.clone(), Arc::clone(&latest.borrow_and_update()));
        let written = spawn_blocking(move || cache.write(&documents)).await;
        if let Ok(Err(why)) = written {
            tracing::warn!("no copy of the documents: {why}");
        }
        sleep(COPY_INTERVAL).await;
    }
}
