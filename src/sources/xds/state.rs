//! The resources of an xDS server as this proxy knows them, and the changes that follow from a
//! response. No I/O.

mod publish;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::kinds::{Content, NAME_BYTES_MAX, Type, name_of, short};
use super::proto::Reason;
use crate::grpc::xds::{Resource as Sent, Response};
use crate::model::Kind;

/// The names of refused resources without one: all of a response, and one of it.
const WHOLE: &str = "of all names";
const NUMBER: &str = "number ";

/// The largest resource. To read it takes several times as much memory.
const RESOURCE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The longest reason against a resource.
const REASON_BYTES_MAX: usize = 500;

/// The number of refused resources of a type that are known by their names.
const REFUSED_MAX: usize = 1000;

/// A resource that was accepted.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) bytes: Arc<[u8]>,
    pub(super) version: Box<str>,
    content: Content,
}

/// The limits on what is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) resources: usize,
    pub(super) bytes: usize,
}

/// The resources of a server.
#[derive(Debug)]
pub(super) struct State {
    limits: Limits,
    keeps_unwanted: bool,
    entries: [BTreeMap<String, Entry>; Type::ALL.len()],
    bytes: usize,
    /// Refused resources, each with the reason.
    pub(super) refused: [BTreeMap<String, Reason>; Type::ALL.len()],
    /// Those of the last response.
    fresh: [BTreeSet<String>; Type::ALL.len()],
    /// The resources that need one of this type and name.
    users: [HashMap<String, Vec<(Type, String)>>; Type::ALL.len()],
    /// Counts the changes of `users`, by type.
    generations: [u64; Type::ALL.len()],
    /// Clusters and listeners that are refused because of a resource that they need.
    unfit: HashSet<(Type, String)>,
    /// Endpoints, routes and secrets that the server does not have, as far as is known.
    absent: HashSet<(Type, String)>,
    /// Clusters, listeners and routes whose items are to be made again.
    dirty: BTreeSet<(Type, String)>,
    /// Clusters of which only the endpoints have changed.
    moved: BTreeSet<String>,
    /// The items that are published.
    published: HashSet<(Kind, String)>,
    /// Clusters and listeners that wait for resources that they need.
    waiting: HashSet<(Type, String)>,
    /// The number of endpoints of each published cluster, and of all.
    counts: (HashMap<String, usize>, usize),
    /// The entries before the changes that are not published yet.
    undo: BTreeMap<(Type, String), Option<Entry>>,
}

impl State {
    /// `keeps_unwanted` is whether resources that nothing needs stay: in the state of the world,
    /// the server does not send them again on the same stream.
    pub(super) fn new(limits: Limits, keeps_unwanted: bool) -> Self {
        Self {
            limits,
            keeps_unwanted,
            entries: Default::default(),
            bytes: 0,
            refused: Default::default(),
            fresh: Default::default(),
            users: Default::default(),
            generations: Default::default(),
            unfit: HashSet::new(),
            absent: HashSet::new(),
            dirty: BTreeSet::new(),
            moved: BTreeSet::new(),
            published: HashSet::new(),
            waiting: HashSet::new(),
            counts: Default::default(),
            undo: BTreeMap::new(),
        }
    }

    /// The accepted resources of a type.
    pub(super) fn entries(&self, kind: Type) -> &BTreeMap<String, Entry> {
        &self.entries[kind.index()]
    }

    /// The number and the size of all accepted resources.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.entries.iter().map(BTreeMap::len).sum(), self.bytes)
    }

    /// Changes with the names of the resources of a type that others need.
    pub(super) fn generation(&self, kind: Type) -> u64 {
        self.generations[kind.index()]
    }

    /// Whether others need a resource of this type.
    pub(super) fn is_any_wanted(&self, kind: Type) -> bool {
        !self.users[kind.index()].is_empty()
    }

    /// The names of the resources of a type that others need.
    pub(super) fn wanted(&self, kind: Type) -> BTreeSet<String> {
        self.users[kind.index()].keys().cloned().collect()
    }

    fn is_wanted(&self, kind: Type, name: &str) -> bool {
        self.users[kind.index()].contains_key(name)
    }

    /// Whether a resource of this name was sent, also if it was refused.
    pub(super) fn has(&self, kind: Type, name: &str) -> bool {
        self.entries(kind).contains_key(name) || self.refused[kind.index()].contains_key(name)
    }

    /// Whether a resource that needs this one can be used: it is there, or it does not exist.
    /// Nothing is used without a secret that it needs.
    fn is_ready(&self, kind: Type, name: &str) -> bool {
        self.entries(kind).contains_key(name)
            || (kind != Type::Secret && self.absent.contains(&(kind, name.to_owned())))
    }

    /// The first resource that `key` needs and that is not there, as its type and name.
    fn missing(&self, key: &(Type, String)) -> Option<(Type, &str)> {
        self.lacks(self.entries(key.0).get(&key.1)?)
    }

    fn lacks<'a>(&self, entry: &'a Entry) -> Option<(Type, &'a str)> {
        entry.content.needs().find(|(kind, name)| !self.is_ready(*kind, name))
    }

    /// The resources of `kind` that wait for others, each with the one that it waits for.
    pub(super) fn waiting(&self, kind: Type) -> Vec<(String, String)> {
        let mut all: Vec<(String, String)> = Vec::new();
        for key in self.waiting.iter().filter(|key| key.0 == kind) {
            if let Some((needed, name)) = self.missing(key) {
                all.push((key.1.clone(), format!("{} {name}", needed.name())));
            }
        }
        all.sort();
        all
    }

    /// The resources that need one of this type and name, in a line.
    pub(super) fn users_of(&self, kind: Type, name: &str) -> String {
        let users = self.users[kind.index()].get(name);
        let of = |(kind, name): &(Type, String)| format!("{} {name}", kind.name());
        users.into_iter().flatten().map(of).collect::<Vec<_>>().join(", ")
    }

    /// Whether the server has answered for this name of `kind`.
    pub(super) fn is_known(&self, kind: Type, name: &str) -> bool {
        self.has(kind, name) || self.absent.contains(&(kind, name.to_owned()))
    }

    /// Takes a response. `is_delta` is whether it has changes alone. Afterwards, `refused` has the
    /// resources of it that are refused. What is refused keeps its previous content.
    ///
    /// # Errors
    /// A sentence about a response that is refused whole.
    pub(super) fn take(
        &mut self,
        kind: Type,
        response: &Response<'_>,
        is_delta: bool,
    ) -> Result<(), Reason> {
        if self.check_size(kind, response, is_delta).is_err() {
            self.drop_unwanted();
            self.check_size(kind, response, is_delta)?;
        }
        if !is_delta {
            self.begin(kind);
        }
        self.refused[kind.index()].retain(|name, _| !has_no_name(name));
        if kind.is_whole() && !is_delta {
            self.refused[kind.index()].clear();
        }
        let mut seen = HashSet::new();
        let mut is_whole = kind.is_whole() && !is_delta;
        for (sent, number) in response.resources.iter().zip(1_usize..) {
            match self.take_one(kind, sent, response, &mut seen) {
                Ok(()) => {}
                Err((Some(name), why)) => {
                    seen.insert(name.clone());
                    self.unfit.remove(&(kind, name.clone()));
                    self.refuse(kind, name, why);
                }
                Err((None, why)) => {
                    // This may be any of those that seem to be gone.
                    is_whole = false;
                    self.refuse(kind, format!("{NUMBER}{number}"), why);
                }
            }
        }
        let is_known = |name: &&&str| self.has(kind, name) || self.is_wanted(kind, name);
        let removed = response.removed.iter().filter(is_known);
        let mut gone: Vec<String> = removed.map(|name| (*name).into()).collect();
        if is_whole {
            let known = self.entries(kind).keys();
            gone.extend(known.filter(|name| !seen.contains(*name)).cloned());
        }
        for name in gone {
            if self.is_wanted(kind, &name) {
                // Endpoints in use stay until their cluster is gone, as in the state of the world.
                if !self.entries(kind).contains_key(&name) {
                    self.refused[kind.index()].remove(&name);
                    self.note_absent(kind, &name);
                }
                continue;
            }
            self.refused[kind.index()].remove(&name);
            self.set(kind, name, None);
        }
        self.follow(kind);
        Ok(())
    }

    /// The next response is answered on its own. Without this, reasons against the one before are
    /// in the answer, too.
    pub(super) fn begin(&mut self, kind: Type) {
        self.fresh[kind.index()].clear();
    }

    /// Drops the resources without a version that the first changes of a stream do not have: the
    /// server could not be told that they are known, so it does not say that they are gone.
    pub(super) fn drop_unversioned(&mut self, kind: Type, response: &Response<'_>) {
        let name = |sent: &Sent<'_>| match sent.name {
            "" => name_of(sent.bytes).map(str::to_owned),
            name => Some(name.to_owned()),
        };
        let sent: Option<HashSet<String>> = response.resources.iter().map(name).collect();
        // One without a name may be any of them.
        let Some(sent) = sent.filter(|_| kind.is_whole()) else { return };
        let is_gone =
            |(name, entry): &(&String, &Entry)| entry.version.is_empty() && !sent.contains(*name);
        let gone = self.entries(kind).iter().filter(is_gone).map(|(name, _)| name.clone());
        for name in gone.collect::<Vec<_>>() {
            self.set(kind, name, None);
        }
        self.follow(kind);
    }

    fn take_one(
        &mut self,
        kind: Type,
        sent: &Sent<'_>,
        response: &Response<'_>,
        seen: &mut HashSet<String>,
    ) -> Result<(), (Option<String>, Reason)> {
        let own = match sent.name {
            "" => name_of(sent.bytes),
            name => Some(name),
        };
        let refuse = |why| (own.map(|own| short(own, NAME_BYTES_MAX)), why);
        if let Some(own) = own {
            check_name(own).map_err(refuse)?;
        }
        if sent.version.len() > NAME_BYTES_MAX {
            return Err(refuse(format!("its version has {} bytes", sent.version.len())));
        }
        if sent.bytes.len() > RESOURCE_BYTES_MAX {
            let len = sent.bytes.len();
            return Err(refuse(format!("it has {len} bytes; {RESOURCE_BYTES_MAX} are allowed")));
        }
        if sent.type_url != kind.url() {
            return Err(refuse(format!("it has the type {:?}", sent.type_url)));
        }
        if let Some(name) = own
            && let Some(entry) = self.entries(kind).get(name)
            && *entry.bytes == *sent.bytes
            && !seen.contains(name)
        {
            let name = name.to_owned();
            if let Some(entry) = self.entries[kind.index()].get_mut(&name) {
                entry.version = sent.version.into();
            }
            self.refused[kind.index()].remove(&name);
            seen.insert(name);
            return Ok(());
        }
        let version = if sent.version.is_empty() { response.version } else { sent.version };
        let (name, content) = kind.read(sent.bytes, version).map_err(refuse)?;
        check_name(&name).map_err(refuse)?;
        if own.is_some_and(|own| own != name) {
            return Err(refuse(format!("its own name is {name:?}")));
        }
        if !seen.insert(name.clone()) {
            return Err(refuse("it is there twice".to_owned()));
        }
        self.refused[kind.index()].remove(&name);
        let entry = Entry { bytes: sent.bytes.into(), version: sent.version.into(), content };
        self.set(kind, name, Some(entry));
        Ok(())
    }

    /// Refuses a response that would make the state too large.
    fn check_size(
        &self,
        kind: Type,
        response: &Response<'_>,
        is_delta: bool,
    ) -> Result<(), Reason> {
        let (mut count, mut bytes) = self.size();
        count += response.more;
        let replaces_all = kind.is_whole() && !is_delta;
        if replaces_all {
            let entries = self.entries(kind);
            count -= entries.len();
            bytes -= entries.values().map(|entry| entry.bytes.len()).sum::<usize>();
        }
        let mut seen = HashSet::new();
        for sent in &response.resources {
            // A name that is there twice replaces its entry once.
            let before = match (replaces_all, name_of(sent.bytes)) {
                (false, Some(name)) if seen.insert(name) => self.entries(kind).get(name),
                _ => None,
            };
            count += usize::from(before.is_none());
            bytes = (bytes + sent.bytes.len()) - before.map_or(0, |entry| entry.bytes.len());
        }
        let Limits { resources, bytes: bytes_max } = self.limits;
        if count > resources {
            return Err(format!("{count} resources; max_resources allows {resources}"));
        }
        if bytes > bytes_max {
            return Err(format!("{bytes} bytes of resources; max_bytes allows {bytes_max}"));
        }
        Ok(())
    }

    /// Refuses the last response whole.
    pub(super) fn refuse_all(&mut self, kind: Type, why: Reason) {
        self.fresh[kind.index()].clear();
        self.refuse(kind, WHOLE.to_owned(), why);
    }

    fn refuse(&mut self, kind: Type, name: String, why: Reason) {
        let (fresh, refused) = (&mut self.fresh[kind.index()], &mut self.refused[kind.index()]);
        if refused.len() >= REFUSED_MAX && !refused.contains_key(&name) {
            let older = match fresh.len() < REFUSED_MAX {
                true => refused.keys().find(|known| !fresh.contains(*known)).cloned(),
                false => None,
            };
            // The reasons of this answer suffice.
            let Some(older) = older else { return };
            refused.remove(&older);
        }
        fresh.insert(name.clone());
        refused.insert(name, short(&why, REASON_BYTES_MAX));
    }

    fn set(&mut self, kind: Type, name: String, entry: Option<Entry>) {
        self.bytes += entry.as_ref().map_or(0, |entry| entry.bytes.len());
        let entries = &mut self.entries[kind.index()];
        let before = match entry {
            Some(entry) => entries.insert(name.clone(), entry),
            None => entries.remove(&name),
        };
        self.bytes -= before.as_ref().map_or(0, |entry| entry.bytes.len());
        if !matches!(kind, Type::Endpoints | Type::Secret) {
            self.dirty.insert((kind, name.clone()));
        }
        self.absent.remove(&(kind, name.clone()));
        self.touch_users(kind, &name);
        self.undo.entry((kind, name)).or_insert(before);
    }

    /// Notes what the resources of `kind` need, after a change of those. Drops all others.
    fn follow(&mut self, kind: Type) {
        for needed in needed_by(kind) {
            let mut users: HashMap<String, Vec<(Type, String)>> = HashMap::new();
            for of in Type::ALL.into_iter().filter(|of| needed_by(*of).contains(needed)) {
                for (name, entry) in self.entries(of) {
                    for (_, wanted) in entry.content.needs().filter(|(it, _)| it == needed) {
                        users.entry(wanted.to_owned()).or_default().push((of, name.clone()));
                    }
                }
            }
            self.absent.retain(|(kind, name)| kind != needed || users.contains_key(name));
            self.refused[needed.index()]
                .retain(|name, _| users.contains_key(name) || has_no_name(name));
            self.generations[needed.index()] += 1;
            let before = std::mem::replace(&mut self.users[needed.index()], users);
            if *needed == Type::Routes {
                let after = &self.users[needed.index()];
                let gone = before.keys().filter(|name| !after.contains_key(*name));
                let new = after.keys().filter(|name| !before.contains_key(*name));
                self.dirty.extend(gone.chain(new).map(|name| (*needed, name.clone())));
            }
        }
        if !needed_by(kind).is_empty() && !self.keeps_unwanted {
            self.drop_unwanted();
        }
    }

    /// Drops the resources that nothing needs.
    pub(super) fn drop_unwanted(&mut self) {
        for kind in Type::ALL.into_iter().filter(|kind| !kind.is_whole()) {
            let users = &self.users[kind.index()];
            let known = self.entries(kind).keys();
            let unwanted = known.filter(|name| !users.contains_key(*name));
            for name in unwanted.cloned().collect::<Vec<_>>() {
                self.set(kind, name, None);
            }
        }
    }

    /// The resources that need `name` are to be made again.
    fn touch_users(&mut self, kind: Type, name: &str) {
        let users = self.users[kind.index()].get(name).cloned();
        // Routes are items of their own, so only a listener that waits for them is concerned.
        for user in users.into_iter().flatten() {
            let is_published = || self.published.contains(&(Kind::Listener, user.1.clone()));
            if kind == Type::Routes && !self.waiting.contains(&user) && is_published() {
                continue;
            }
            if kind == Type::Endpoints && self.is_published_as_it_is(&user) {
                self.moved.insert(user.1);
            } else {
                self.dirty.insert(user);
            }
        }
    }

    /// Whether the service that is published comes from the cluster as it is now.
    fn is_published_as_it_is(&self, key: &(Type, String)) -> bool {
        let is_published = self.published.contains(&(Kind::Service, key.1.clone()));
        let is_other =
            self.waiting.contains(key) || self.unfit.contains(key) || self.undo.contains_key(key);
        is_published && !is_other
    }

    /// Notes that the server does not have `name`.
    pub(super) fn note_absent(&mut self, kind: Type, name: &str) {
        self.absent.insert((kind, name.to_owned()));
        self.touch_users(kind, name);
    }

    /// Whether a change is not published yet.
    pub(super) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty() || !self.moved.is_empty()
    }

    /// Whether only endpoints of published clusters have changed.
    pub(super) fn only_moves(&self) -> bool {
        self.dirty.is_empty() && !self.moved.is_empty()
    }

    /// The reasons why resources of the last response are refused, in one line. `None` if none is.
    pub(super) fn refusal(&self, kind: Type) -> Option<String> {
        /// The number of resources that a refusal names.
        const NAMED_MAX: usize = 5;
        let fresh = &self.fresh[kind.index()];
        let refused = self.refused[kind.index()].iter().filter(|(name, _)| fresh.contains(*name));
        let one = |(name, why): (&String, &Reason)| format!("{} {name}: {why}", kind.name());
        let mut lines: Vec<String> = refused.map(one).collect();
        let more = lines.len().saturating_sub(NAMED_MAX);
        lines.truncate(NAMED_MAX);
        if more > 0 {
            lines.push(format!("and {more} more"));
        }
        (!lines.is_empty()).then(|| lines.join("; "))
    }
}

/// Whether this stands for a refused resource without a name.
fn has_no_name(name: &str) -> bool {
    name == WHOLE || name.starts_with(NUMBER)
}

/// The types of the resources that one of `kind` may need.
fn needed_by(kind: Type) -> &'static [Type] {
    match kind {
        Type::Cluster => &[Type::Endpoints, Type::Secret],
        Type::Listener => &[Type::Routes, Type::Secret],
        Type::Endpoints | Type::Routes | Type::Secret => &[],
    }
}

/// Refuses a name that would fill or break the log.
pub(super) fn check_name(name: &str) -> Result<(), Reason> {
    if name.len() > NAME_BYTES_MAX {
        return Err(format!("a name of {} bytes; {NAME_BYTES_MAX} are allowed", name.len()));
    }
    match name.chars().any(char::is_control) {
        true => Err("a control character in a name".to_owned()),
        false => Ok(()),
    }
}
