//! Resolves service names with DNS, on the control thread, and resolves them again after their TTL.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::lookup::Lookups;
use crate::dns::{Family, Found, KnownAddresses, SystemSettings};
use crate::error::plain;
use crate::net::{DnsName, Families};
use crate::telemetry::status::Status;

/// The shortest lifetime of a DNS answer. A shorter TTL is raised to it.
pub const TTL_MIN: Duration = Duration::from_secs(1);

/// The longest lifetime of a DNS answer. A longer TTL is lowered to it.
pub const TTL_MAX: Duration = Duration::from_secs(300);

/// The wait before the next lookup, if a lookup has failed or the name has no addresses. Known
/// addresses stay in use meanwhile.
pub const RETRY_AFTER: Duration = Duration::from_secs(5);

/// The interval of checks whether `/etc/resolv.conf` or `/etc/hosts` has changed. A watch of their
/// directory is not enough: in a container these files are bind mounts, and the watch does not
/// report their changes.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Resolves a set of names repeatedly, and reports changed addresses.
pub struct Names {
    context: Context,
    followed: HashMap<DnsName, JoinHandle<()>>,
    changes: mpsc::UnboundedReceiver<(DnsName, Vec<SocketAddr>)>,
    looking: Option<JoinHandle<()>>,
}

/// The shared state that the task of each name needs.
#[derive(Clone)]
struct Context {
    lookups: Lookups,
    status: Status,
    sender: mpsc::UnboundedSender<(DnsName, Vec<SocketAddr>)>,
    terms: watch::Sender<Terms>,
}

/// Values that the lookups of all names share. When one of them changes, all names are looked up
/// again.
#[derive(Clone, Copy)]
struct Terms {
    /// The number of changes so far: reloads, and changes of `/etc/resolv.conf` and `/etc/hosts`.
    changes: u64,
    /// How long the last addresses of a name stay in use after the name has lost them.
    gone_after: Duration,
}

impl Names {
    /// Creates an empty set.
    pub fn new(status: Status, lookups: Lookups) -> Self {
        let (sender, changes) = mpsc::unbounded_channel();
        let terms = Terms { changes: 0, gone_after: Duration::MAX };
        let context = Context { lookups, status, sender, terms: watch::Sender::new(terms) };
        Self { context, followed: HashMap::new(), changes, looking: None }
    }

    /// Resolves exactly these names from now on. If a name has lost its addresses, the last ones
    /// stay in use for `gone_after`.
    pub fn follow(&mut self, names: &[DnsName], gone_after: Duration) {
        self.context.terms.send_if_modified(|terms| {
            std::mem::replace(&mut terms.gone_after, gone_after) != gone_after
        });
        let wanted: HashSet<_> = names.iter().collect();
        self.followed.retain(|name, task| {
            let kept = wanted.contains(name);
            if !kept {
                task.abort();
            }
            kept
        });
        for name in names {
            if !self.followed.contains_key(name) {
                let task = follow(name.clone(), self.context.clone());
                self.followed.insert(name.clone(), tokio::spawn(task));
            }
        }
        match self.followed.is_empty() {
            true => self.stop_looking(),
            false => {
                self.looking.get_or_insert_with(|| {
                    // Read the files before the first lookup, so that a later change is detected.
                    let known = self.context.lookups.settings();
                    tokio::spawn(look_at_files(self.context.clone(), known))
                });
            }
        }
    }

    /// Looks up all names again, now.
    pub fn look_again(&self) {
        self.context.terms.send_modify(|terms| terms.changes += 1);
    }

    fn stop_looking(&mut self) {
        if let Some(looking) = self.looking.take() {
            looking.abort();
        }
    }

    /// Returns the addresses that are found within `patience`. Addresses of other names are
    /// reported later by [`Names::changed`].
    pub async fn first(&mut self, patience: Duration) -> HashMap<DnsName, Vec<SocketAddr>> {
        let mut found = HashMap::new();
        let deadline = tokio::time::Instant::now() + patience;
        while found.len() < self.followed.len() {
            match tokio::time::timeout_at(deadline, self.changes.recv()).await {
                Ok(Some((name, addresses))) => found.insert(name, addresses),
                _ => break,
            };
        }
        found
    }

    /// Waits for the next name with changed addresses.
    pub async fn changed(&mut self) -> (DnsName, Vec<SocketAddr>) {
        match self.changes.recv().await {
            Some(change) => change,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        self.followed.values().for_each(JoinHandle::abort);
        self.stop_looking();
    }
}

/// Looks up all names again when `/etc/resolv.conf` or `/etc/hosts` has changed.
async fn look_at_files(context: Context, mut known: Arc<SystemSettings>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let settings = context.lookups.settings();
        if !Arc::ptr_eq(&known, &settings) {
            known = settings;
            context.terms.send_modify(|terms| terms.changes += 1);
        }
    }
}

/// Resolves one name again after each TTL, and when the DNS settings of the system change. Reports
/// changed addresses.
async fn follow(name: DnsName, context: Context) {
    let Some((host, port)) = name.address.rsplit_once(':') else { return };
    let Ok(port) = port.parse() else { return };
    let host = host.trim_matches(['[', ']']);
    if let Ok(ip) = host.parse() {
        context.sender.send((name.clone(), vec![SocketAddr::new(ip, port)])).ok();
        return;
    }
    let mut terms = context.terms.subscribe();
    let mut known = KnownAddresses::default();
    loop {
        let gone_after = terms.borrow_and_update().gone_after;
        let [ipv4, ipv6] = Family::ALL.map(|family| look_up(&context.lookups, host, &name, family));
        let (ipv4, ipv6) = tokio::join!(ipv4, ipv6);
        let found = [ipv4, ipv6];
        let changed = known.hear(&found, Instant::now(), gone_after);
        note(&context.status, &name, &found, &known);
        if let Some(ips) = changed {
            let address = |ip: IpAddr| SocketAddr::new(ip, port);
            let addresses = ips.into_iter().map(address).collect();
            context.sender.send((name.clone(), addresses)).ok();
        }
        let goes_in = known.goes_in(Instant::now(), gone_after).unwrap_or(Duration::MAX);
        tokio::select! {
            () = tokio::time::sleep(again_in(&found).min(goes_in)) => {}
            changed = terms.changed() => if changed.is_err() { return },
        }
    }
}

/// Looks up one family of addresses. Returns `None` if `name` excludes this family.
async fn look_up(lookups: &Lookups, host: &str, name: &DnsName, family: Family) -> Option<Found> {
    let wanted = match name.families {
        Families::Any => true,
        Families::Ipv4 => family == Family::Ipv4,
        Families::Ipv6 => family == Family::Ipv6,
    };
    if wanted { Some(lookups.addresses(host, family).await) } else { None }
}

/// The time until the next lookup of a name, from the results for its two families.
fn again_in(found: &[Option<Found>; 2]) -> Duration {
    let found = found.iter().flatten();
    let valid = found.clone().filter_map(|found| match found {
        Found::Addresses(_, valid) => Some((*valid).clamp(TTL_MIN, TTL_MAX)),
        Found::Failed(_) => Some(RETRY_AFTER),
        Found::None => None,
    });
    valid.min().unwrap_or(RETRY_AFTER)
}

/// Counts and logs the results of a lookup.
fn note(status: &Status, name: &DnsName, found: &[Option<Found>; 2], known: &KnownAddresses) {
    let mut failure = None;
    let mut has_addresses = false;
    for found in found.iter().flatten() {
        match found {
            Found::Addresses(..) => has_addresses = true,
            Found::Failed(why) => failure = Some(why),
            Found::None => {}
        }
    }
    let previous_addresses = known.len();
    let lookups = &mut status.known().lookups;
    match failure {
        Some(error) => {
            lookups.failed += 1;
            tracing::warn!(
                %name, error = %plain(&error), previous_addresses,
                "DNS lookup failed; previous addresses stay in use, will retry"
            );
        }
        None if has_addresses => lookups.succeeded += 1,
        None => {
            lookups.none += 1;
            tracing::warn!(
                %name, previous_addresses,
                "the DNS name has no addresses; previous addresses stay in use for dns.gone_after"
            );
        }
    }
}
