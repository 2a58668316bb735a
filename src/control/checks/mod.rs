//! Health checks of endpoints: each is asked once for the whole process, on the control thread, the
//! way that requests go to it. What is found out is written down where workers see it
//! (`health::HealthState`).

mod http1;
mod http2;
mod probe;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use crate::cluster::{Endpoint, Service};
use crate::health::{Check, Eligible, State, eligible};
use crate::net::Address;
use crate::snapshot::Snapshot;

/// Checks under way at once; more wait for their turn.
pub const CONCURRENT_MAX: usize = 256;

/// Checks the endpoints of a snapshot's services.
pub struct Checks {
    followed: HashMap<(Box<str>, Address), Followed>,
    turns: Arc<Semaphore>,
}

/// Checks of one endpoint: on what terms they are made, and what makes them.
type Followed = (watch::Sender<Target>, JoinHandle<()>);

/// Who is asked, what, and how.
#[derive(Clone)]
struct Target {
    service: Arc<Service>,
    endpoint: Arc<Endpoint>,
    check: Arc<Check>,
}

impl Default for Checks {
    fn default() -> Self {
        Self { followed: HashMap::new(), turns: Arc::new(Semaphore::new(CONCURRENT_MAX)) }
    }
}

impl Checks {
    /// Checks exactly the endpoints of `snapshot` from now on, on its terms. Those that were
    /// checked before are asked again when it is their time, unless they are to be asked otherwise.
    pub fn follow(&mut self, snapshot: &Snapshot) {
        let mut wanted = HashMap::new();
        for service in &snapshot.services {
            let Some(check) = &service.health else { continue };
            for endpoint in &service.endpoints {
                let key = (service.name.clone(), endpoint.address.clone());
                wanted.entry(key).or_insert_with(|| Target {
                    service: Arc::clone(service),
                    endpoint: Arc::clone(endpoint),
                    check: Arc::clone(check),
                });
            }
        }
        self.followed.retain(|key, (_, task)| {
            let kept = wanted.contains_key(key) && !task.is_finished();
            if !kept {
                task.abort();
            }
            kept
        });
        for (key, target) in wanted {
            match self.followed.get(&key) {
                Some((sender, _)) => {
                    sender.send_if_modified(|known| {
                        let otherwise = !known.check.is_like(&target.check);
                        *known = target;
                        otherwise
                    });
                }
                None => {
                    let (sender, targets) = watch::channel(target);
                    let task = tokio::spawn(attend(targets, Arc::clone(&self.turns)));
                    self.followed.insert(key, (sender, task));
                }
            }
        }
    }
}

impl Drop for Checks {
    fn drop(&mut self) {
        self.followed.values().for_each(|(_, task)| task.abort());
    }
}

/// Checks one endpoint for ever.
async fn attend(mut targets: watch::Receiver<Target>, turns: Arc<Semaphore>) {
    // What begins at the same moment does not stay in step.
    let mut pace = fastrand::f64();
    loop {
        let target = targets.borrow_and_update().clone();
        let outcome = match turns.acquire().await {
            Ok(_turn) => probe::probe(&target).await,
            Err(_) => return,
        };
        let pause = target.check.interval.mul_f64(pace);
        pace = 0.9 + 0.2 * fastrand::f64();
        note(&target, outcome);
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

/// Writes an outcome down, and says it when it has changed something.
fn note(target: &Target, outcome: Result<(), probe::Failed>) {
    let Target { service, endpoint, check } = target;
    let Some(health_state) = &endpoint.health else { return };
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let why = outcome.as_ref().err().map(|failed| failed.message.clone()).unwrap_or_default();
    let outcome = outcome.map_err(|failed| (failed.reason, failed.message));
    let Some(state) = health_state.hear(outcome, check.thresholds, since_epoch.as_secs()) else {
        return;
    };
    let states: Vec<_> = service.endpoints.iter().filter_map(|e| e.health_state()).collect();
    let healthy = states.iter().filter(|&&state| state == State::Healthy).count();
    let of = states.len();
    let panic = eligible(states.into_iter(), check.panic_percent) == Eligible::Everyone;
    let (service, endpoint) = (&*service.name, &endpoint.address);
    match state {
        State::Unhealthy => tracing::warn!(
            service, %endpoint, %why, healthy, of, panic,
            "an endpoint is unhealthy"
        ),
        _ => tracing::info!(service, %endpoint, healthy, of, panic, "an endpoint is healthy"),
    }
}

/// How long it may take to say goodbye.
const FAREWELL: Duration = Duration::from_secs(1);
