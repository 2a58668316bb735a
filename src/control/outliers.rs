//! The part of outlier detection and slow start that needs a clock. It ends ejections, logs them,
//! and sets the start times of slow starts. Workers eject endpoints, and then wake this part
//! through the hub.

use std::collections::{HashMap, HashSet};
use std::future::poll_fn;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::task::JoinHandle;

use crate::cluster::Service;
use crate::health::{OutlierEvent, OutlierGroup, OutlierHub};
use crate::snapshot::Snapshot;
use crate::time::Time;

/// The clock of the workers, for use on the control thread.
#[derive(Clone, Copy)]
pub struct Clock {
    /// The start of the workers' clocks.
    pub began: Instant,
}

impl Clock {
    /// The current time of the workers' clocks.
    pub fn now(self) -> Time {
        Time::from_micros(self.began.elapsed().as_micros() as u64)
    }
}

/// The services with outlier detection or slow start.
pub struct Outliers {
    clock: Clock,
    /// The services with slow start whose first endpoints are known.
    slow: HashSet<Box<str>>,
    followed: HashMap<Box<str>, Arc<OutlierGroup>>,
    attendant: JoinHandle<()>,
}

impl Outliers {
    /// Starts a task for each service that `hub` reports.
    pub fn new(hub: Arc<OutlierHub>, clock: Clock) -> Self {
        let attendant = tokio::spawn(async move {
            loop {
                let group = poll_fn(|context| hub.poll_next(context)).await;
                tokio::spawn(attend(group, clock));
            }
        });
        Self { clock, slow: HashSet::new(), followed: HashMap::new(), attendant }
    }

    /// Applies the outlier detection and the slow start of `snapshot` from now on.
    pub fn follow(&mut self, snapshot: &Snapshot) {
        let now = self.clock.now();
        self.followed.retain(|name, group| {
            let service = snapshot.service(name);
            let kept = service.is_some_and(|service| service.outlier.is_some());
            if !kept {
                group.leave(now);
            }
            kept
        });
        let is_slow = |name: &str| snapshot.service(name).is_some_and(|it| it.slow_start.is_some());
        self.slow.retain(|name| is_slow(name));
        snapshot.services.iter().for_each(|service| self.follow_service(service));
    }

    /// Applies the settings of `service` to its current endpoints.
    pub fn follow_service(&mut self, service: &Service) {
        let is_slow = service.slow_start.is_some();
        if !is_slow && service.outlier.is_none() {
            return;
        }
        // The first endpoints of a service all start at the same time, so they need no slow start.
        let first = is_slow
            && !self.slow.contains(&service.name)
            && !service.endpoints.load().list.is_empty();
        if first {
            self.slow.insert(service.name.clone());
        }
        service.begin(self.clock.now(), first);
        let Some(outlier) = &service.outlier else { return };
        if !self.followed.contains_key(&service.name) {
            self.followed.insert(service.name.clone(), Arc::clone(&outlier.group));
        }
    }
}

impl Drop for Outliers {
    fn drop(&mut self) {
        self.attendant.abort();
    }
}

/// Ends the ejections of a service. Returns when no endpoint is ejected.
async fn attend(group: Arc<OutlierGroup>, clock: Clock) {
    loop {
        let (events, next) = group.tick(clock.now());
        events.iter().for_each(|event| log(&group, event));
        let Some(next) = next else { return };
        let until = clock.began + Duration::from_micros(next.as_micros());
        tokio::select! {
            () = tokio::time::sleep_until(until.into()) => {}
            () = poll_fn(|context| group.poll_news(context)) => {}
        }
    }
}

fn log(group: &OutlierGroup, event: &OutlierEvent) {
    let OutlierEvent { endpoint: state, ejected, members: endpoints, .. } = event;
    let (service, endpoint) = (&*group.service, &*state.address);
    match event.ejection {
        Some((reason, lasts)) => {
            let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            state.date(since_epoch.as_secs());
            let reason = reason.label();
            tracing::warn!(
                service,
                endpoint,
                reason,
                ?lasts,
                ejected_endpoints = ejected,
                all_endpoints = endpoints,
                "endpoint ejected: its responses fail"
            );
        }
        None => {
            tracing::info!(
                service,
                endpoint,
                ejected_endpoints = ejected,
                all_endpoints = endpoints,
                "endpoint is no longer ejected"
            );
        }
    }
}
