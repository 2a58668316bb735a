//! The part of outlier detection that needs a clock: ends ejections, and logs them. Workers eject
//! endpoints by themselves, and call this part through the hub.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::task::JoinHandle;

use crate::cluster::Service;
use crate::health::{OutlierEvent, OutlierGroup, OutlierHub};
use crate::snapshot::Snapshot;
use crate::time::Time;

/// The services with outlier detection.
pub struct Outliers {
    followed: HashMap<Box<str>, Arc<OutlierGroup>>,
    attendant: JoinHandle<()>,
}

impl Outliers {
    /// Attends to the services that `hub` gives out. `began` is the start of the workers' clocks.
    pub fn new(hub: Arc<OutlierHub>, began: Instant) -> Self {
        let attendant = tokio::spawn(async move {
            loop {
                let group = poll_fn(|context| hub.poll_next(context)).await;
                tokio::spawn(attend(group, began));
            }
        });
        Self { followed: HashMap::new(), attendant }
    }

    /// Uses the outlier detection of `snapshot` from now on.
    pub fn follow(&mut self, snapshot: &Snapshot) {
        self.followed.retain(|name, group| {
            let service = snapshot.service(name);
            let kept = service.is_some_and(|service| service.outlier.is_some());
            if !kept {
                group.leave();
            }
            kept
        });
        snapshot.services.iter().for_each(|service| self.follow_service(service));
    }

    /// Uses the current endpoints of `service` from now on.
    pub fn follow_service(&mut self, service: &Service) {
        let Some(outlier) = &service.outlier else { return };
        let list = &service.endpoints.load().list;
        let taken = list.iter().filter(|endpoint| endpoint.weight > 0);
        let states = taken.filter_map(|endpoint| endpoint.outlier.clone());
        outlier.group.follow(&outlier.policy, states.collect());
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

/// Attends to a service until no endpoint is ejected.
async fn attend(group: Arc<OutlierGroup>, began: Instant) {
    loop {
        let now = Time::from_micros(began.elapsed().as_micros() as u64);
        let (events, next) = group.tick(now);
        events.iter().for_each(|event| log(&group, event));
        let Some(next) = next else { return };
        let until = began + Duration::from_micros(next.as_micros());
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
                ejected,
                endpoints,
                "endpoint ejected: its responses fail"
            );
        }
        None => {
            tracing::info!(service, endpoint, ejected, endpoints, "endpoint is no longer ejected");
        }
    }
}
