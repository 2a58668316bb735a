//! Chooses among the endpoints of a subset, on one worker.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use super::levels::Levels;
use super::takers::Takers;
use super::{Level, Load, Locality, Maglev, Policy};
use crate::health::{Changes, SlowStart, State};
use crate::time::Time;

/// The endpoints and the policy of a service.
pub trait Candidates {
    /// The load balancing policy.
    fn policy(&self) -> &Policy;

    /// The counter of state changes. `None` if the service has neither a health check nor outlier
    /// detection.
    fn changes(&self) -> Option<&Changes>;

    /// If fewer endpoints than this percentage are healthy, all endpoints get requests.
    fn panic_percent(&self) -> u8;

    /// The indices of the endpoints in a subset. Empty if the subset does not exist.
    fn members(&self, subset: usize) -> &[u32];

    /// The weight of an endpoint.
    fn weight(&self, index: u32) -> u32;

    /// The state of an endpoint. `None` if it has neither a health check nor outlier detection.
    fn state(&self, index: u32) -> Option<State>;

    /// The preference for near endpoints. Returns `None` if all endpoints have the same level.
    fn locality(&self) -> Option<&Locality>;

    /// Returns the level of an endpoint: its priority, and its distance from this proxy.
    fn level(&self, index: u32) -> Level;

    /// The slow start. `None` means that a new endpoint gets its full traffic at once. The hash
    /// policy has no slow start.
    fn slow_start(&self) -> Option<&SlowStart>;

    /// The time since the slow start of an endpoint began. `Duration::MAX` if it has none.
    fn age(&self, index: u32, now: Time) -> Duration;

    /// The Maglev table of a subset, for the hash policy.
    fn maglev(&self, subset: usize) -> Option<&Maglev>;
}

/// Chooses among the endpoints of one subset of a service, on one worker.
#[derive(Debug)]
pub struct Balancer {
    subset: usize,
    levels: RefCell<Levels>,
    /// The value of [`Candidates::changes`] for which `levels` was computed.
    changes: Cell<u64>,
}

impl Balancer {
    /// Creates the balancer for the subset with this index.
    pub fn new(service: &impl Candidates, subset: usize) -> Self {
        // Read the count first, so that a change in the meantime is noticed at the next request.
        let changes = service.changes().map_or(0, Changes::count);
        // The first pick knows the time, and computes the shares again.
        let levels = RefCell::new(Levels::of(service, subset, Time::default()));
        Self { subset, levels, changes: Cell::new(changes) }
    }

    /// Returns the index of the endpoint for the next request, or `None` if there is no endpoint.
    /// `load` returns the load of an endpoint by index. `key` is the hash of the request, for the
    /// hash policy. An endpoint of `avoid` is chosen only if there is no other.
    pub fn pick<'l>(
        &self,
        service: &impl Candidates,
        load: impl Fn(u32) -> &'l Load,
        key: Option<u64>,
        avoid: &[u32],
        now: Time,
        random: &mut fastrand::Rng,
    ) -> Option<u32> {
        if let Some(changes) = service.changes() {
            let changes = changes.count();
            let changed = self.changes.replace(changes) != changes;
            if changed || now >= self.levels.borrow().renew_at {
                let new = Levels::of(service, self.subset, now);
                if !changed {
                    new.continue_turns(&self.levels.borrow());
                }
                *self.levels.borrow_mut() = new;
            }
        }
        let levels = self.levels.borrow();
        let takers = levels.takers(key);
        let picked = match service.policy() {
            Policy::RoundRobin => takers.next_in_turn(),
            Policy::Random => takers.any(random),
            Policy::LeastRequest => {
                takers.better_of_two(random, |member| f64::from(load(member.index).active()))
            }
            Policy::PeakEwma => takers.better_of_two(random, |member| {
                let load = load(member.index);
                load.latency_us(now) * f64::from(load.active() + 1)
            }),
            Policy::Hash(_) => match (key, service.maglev(self.subset)) {
                (Some(key), Some(table)) => table.lookup(key, |index| takers.includes(index)),
                _ => takers.any(random),
            },
        }?;
        if !avoid.contains(&picked) {
            return Some(picked);
        }
        let table = service.maglev(self.subset).filter(|_| service.policy().is_hash());
        let mut other = |takers: &Takers| match (key, table) {
            // All requests with the same key move to the same other endpoint.
            (Some(key), Some(table)) => {
                table.lookup(key, |index| takers.includes(index) && !avoid.contains(&index))
            }
            _ => takers.another(avoid, random),
        };
        // Another endpoint of the same level is preferred to the endpoints of other levels.
        let next = other(takers).or_else(|| levels.all().find_map(&mut other));
        Some(next.unwrap_or(picked))
    }
}

#[cfg(test)]
mod level_tests;
#[cfg(test)]
mod tests;
