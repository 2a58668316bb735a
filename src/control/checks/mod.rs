//! Health checks of endpoints. The control thread checks each endpoint once for the whole process,
//! on a connection of its own with the settings of the service. Workers read the results in
//! `health::HealthState`.

mod http1;
mod http2;
mod probe;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use super::outliers::Clock;
use crate::cluster::{Endpoint, Service};
use crate::health::{Check, Eligible, State, eligible};
use crate::net::Address;
use crate::snapshot::Snapshot;

/// The maximum number of concurrent checks. Further checks wait.
pub const CONCURRENT_MAX: usize = 256;

/// Runs the health checks of all services.
pub struct Checks {
    /// The endpoints that are checked, by service and address.
    followed: HashMap<Box<str>, HashMap<Address, Followed>>,
    turns: Arc<Semaphore>,
    clock: Clock,
}

/// The checks of one endpoint: a channel to change their settings, and their task.
type Followed = (watch::Sender<Target>, JoinHandle<()>);

/// An endpoint, and the settings of its checks.
#[derive(Clone)]
struct Target {
    service: Arc<Service>,
    endpoint: Arc<Endpoint>,
    check: Arc<Check>,
}

impl Checks {
    /// Creates a set that checks no endpoint yet.
    pub fn new(clock: Clock) -> Self {
        let turns = Arc::new(Semaphore::new(CONCURRENT_MAX));
        Self { followed: HashMap::new(), turns, clock }
    }

    /// Checks exactly the endpoints of `snapshot` from now on. An endpoint that was checked before
    /// keeps the time of its next check, unless its settings have changed.
    pub fn follow(&mut self, snapshot: &Snapshot) {
        self.followed.retain(|name, endpoints| {
            let kept = snapshot.service(name).is_some_and(|service| service.health.is_some());
            if !kept {
                end_all(endpoints);
            }
            kept
        });
        snapshot.services.iter().for_each(|service| self.follow_service(service));
    }

    /// Checks exactly the current endpoints of `service` from now on. Other services are not
    /// affected.
    pub fn follow_service(&mut self, service: &Arc<Service>) {
        let Some(check) = &service.health else { return };
        let mut wanted = HashMap::new();
        for endpoint in &service.endpoints.load().list {
            wanted.entry(endpoint.address.clone()).or_insert_with(|| Target {
                service: Arc::clone(service),
                endpoint: Arc::clone(endpoint),
                check: Arc::clone(check),
            });
        }
        let followed = self.followed.entry(service.name.clone()).or_default();
        followed.retain(|address, (_, task)| {
            let kept = wanted.contains_key(address) && !task.is_finished();
            if !kept {
                task.abort();
            }
            kept
        });
        for (address, target) in wanted {
            match followed.get(&address) {
                Some((sender, _)) => {
                    sender.send_if_modified(|known| {
                        let otherwise = !known.check.is_like(&target.check);
                        *known = target;
                        otherwise
                    });
                }
                None => {
                    let (sender, targets) = watch::channel(target);
                    let task = tokio::spawn(attend(targets, Arc::clone(&self.turns), self.clock));
                    followed.insert(address, (sender, task));
                }
            }
        }
    }
}

fn end_all(endpoints: &HashMap<Address, Followed>) {
    endpoints.values().for_each(|(_, task)| task.abort());
}

impl Drop for Checks {
    fn drop(&mut self) {
        self.followed.values().for_each(end_all);
    }
}

/// Checks one endpoint repeatedly, until the endpoint is removed.
async fn attend(mut targets: watch::Receiver<Target>, turns: Arc<Semaphore>, clock: Clock) {
    // A random interval spreads checks that have started at the same time.
    let mut pace = fastrand::f64();
    loop {
        let target = targets.borrow_and_update().clone();
        let outcome = match turns.acquire().await {
            Ok(_turn) => probe::probe(&target).await,
            Err(_) => return,
        };
        let pause = target.check.interval.mul_f64(pace);
        pace = 0.9 + 0.2 * fastrand::f64();
        note(&target, outcome, clock);
        drop(target);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            changed = targets.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}

/// Stores the result of a check. Logs a change of the state of the endpoint.
fn note(target: &Target, outcome: Result<(), probe::Failed>, clock: Clock) {
    let Target { service, endpoint, check } = target;
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let reason = outcome.as_ref().err().map(|failed| failed.message.clone()).unwrap_or_default();
    let outcome = outcome.map_err(|failed| (failed.reason, failed.message));
    let (thresholds, unix_s) = (check.thresholds, since_epoch.as_secs());
    let Some(state) = endpoint.hear_check(outcome, thresholds, clock.now(), unix_s) else { return };
    let endpoints = service.endpoints.load();
    let states: Vec<_> = endpoints.list.iter().filter_map(|e| e.weighted_state()).collect();
    let healthy = states.iter().filter(|&&state| state == State::Healthy).count();
    let checked = states.len();
    let eligible = eligible(states.into_iter(), service.panic_percent);
    let all_endpoints_used = eligible == Eligible::Everyone;
    let (service, endpoint) = (&*service.name, &endpoint.address);
    match state {
        State::Unhealthy => tracing::warn!(
            service, %endpoint, %reason, healthy, checked, all_endpoints_used,
            "endpoint became unhealthy"
        ),
        _ => tracing::info!(
            service, %endpoint, healthy, checked, all_endpoints_used,
            "endpoint became healthy"
        ),
    }
}

/// The time limit for closing the connection of a check normally.
const FAREWELL: Duration = Duration::from_secs(1);
