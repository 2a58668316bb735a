//! The endpoints of each level that get requests, and the choice of a level for a request.

use std::cell::Cell;

use super::locality::{WHOLE, available_state};
use super::takers::Takers;
use super::{Candidates, Level, LevelHealth, Locality};
use crate::health::{Eligible, State, eligible};
use crate::time::Time;

/// A slow start may begin with nothing. But a level with a healthy endpoint gets a few requests.
const WARMTH_MIN: f64 = 0.001;

/// The endpoints of a subset that get requests, by level.
#[derive(Debug)]
pub(super) struct Levels {
    /// The endpoints of the first level. Most services have only one level.
    first: Takers,
    /// The levels after the first one, and the shares of all levels. `None` if there is only one
    /// level.
    further: Option<Box<Further>>,
    /// When the shares of endpoints have grown by a step of the slow start. `Time::NEVER` if no
    /// endpoint is in its slow start.
    pub renew_at: Time,
}

#[derive(Debug)]
struct Further {
    takers: Vec<Takers>,
    /// The share of each level, including the first one.
    shares: Vec<Share>,
    shares_total: u64,
    /// The level that gets all requests. `None` if more than one level gets requests.
    only: Option<usize>,
}

#[derive(Debug)]
struct Share {
    share: u64,
    /// For smooth weighted round robin: each turn adds the share to the credit, and the level with
    /// the largest credit is chosen.
    credit: Cell<i64>,
}

/// The index of an endpoint with a weight above 0, and the state of the endpoint. `None` if it has
/// neither a health check nor outlier detection.
pub(super) type Judged = (u32, Option<State>);

impl Levels {
    pub(super) fn of(service: &impl Candidates, subset: usize, now: Time) -> Self {
        let members = service.members(subset).iter().copied();
        let weighty = members.filter(|&index| service.weight(index) > 0);
        // Read each state once, so that all decisions use the same states.
        let states: Vec<Judged> = weighty.map(|index| (index, service.state(index))).collect();
        if let Some(locality) = service.locality() {
            let mut levels: Vec<Level> =
                states.iter().map(|(index, _)| locality.compared(service.level(*index))).collect();
            levels.sort_unstable();
            levels.dedup();
            if levels.len() > 1 {
                return Self::several(service, locality, &levels, &states, now);
            }
        }
        let known = states.iter().filter_map(|(_, state)| *state);
        let eligible = eligible(known, service.panic_percent());
        let takers = Takers::of(service, &states, eligible, now);
        Self { renew_at: takers.renew_at, first: takers, further: None }
    }

    fn several(
        service: &impl Candidates,
        locality: &Locality,
        levels: &[Level],
        states: &[Judged],
        now: Time,
    ) -> Self {
        let available = available_state(states.iter().map(|(_, state)| *state));
        let is_available = |state: Option<State>| state.is_none_or(|state| state == available);
        let of_level = |level: &Level| -> Vec<Judged> {
            let is_of = |index| locality.compared(service.level(index)) == *level;
            states.iter().copied().filter(|(index, _)| is_of(*index)).collect()
        };
        let members: Vec<Vec<Judged>> = levels.iter().map(of_level).collect();
        let slow_start = service.slow_start();
        let warmth = |index| slow_start.map_or(1.0, |slow| slow.factor(service.age(index, now)));
        let health = |(level, members): (&Level, &Vec<Judged>)| {
            let available = || members.iter().filter(|(_, state)| is_available(*state));
            let warmest = available().map(|(index, _)| warmth(*index)).fold(0.0, f64::max);
            let (available, all) = (available().count() as u32, members.len() as u32);
            LevelHealth { level: *level, available, all, warmth: warmest.max(WARMTH_MIN) }
        };
        let health: Vec<LevelHealth> = levels.iter().zip(&members).map(health).collect();
        let shares = locality.shares(&health, service.panic_percent());
        let takers = members.iter().zip(&shares).map(|(members, share)| {
            let everyone = share.everyone;
            let eligible = if everyone { Eligible::Everyone } else { Eligible::Only(available) };
            let mut takers = Takers::of(service, members, eligible, now);
            // `everyone` would include the endpoints of other levels, too.
            takers.everyone = false;
            takers
        });
        let mut takers: Vec<Takers> = takers.collect();
        let renew_at = takers.iter().map(|takers| takers.renew_at).min().unwrap_or(Time::NEVER);
        let first = takers.remove(0);
        let shares_total: u64 = shares.iter().map(|share| share.share).sum();
        let only = shares.iter().position(|share| share.share == shares_total);
        let shares = shares.iter().map(|it| Share { share: it.share, credit: Cell::new(0) });
        let shares = shares.collect();
        let further = Some(Box::new(Further { takers, shares, shares_total, only }));
        Self { first, further, renew_at }
    }

    /// Chooses the level of the next request and returns its endpoints. Requests with the same
    /// `key` get the same level while the shares of the levels do not change. When the shares
    /// change, only the keys at the borders of the shares get another level.
    pub(super) fn takers(&self, key: Option<u64>) -> &Takers {
        let Some(further) = &self.further else { return &self.first };
        let level = further.only.unwrap_or_else(|| match key {
            Some(key) => further.of_key(key),
            None => further.next_in_turn(),
        });
        self.level(level)
    }

    /// Returns the endpoints of each level, the first level first.
    pub(super) fn all(&self) -> impl Iterator<Item = &Takers> {
        let further = self.further.iter().flat_map(|further| &further.takers);
        std::iter::once(&self.first).chain(further)
    }

    /// Continues the round robin of `before`. The shares have changed only a little since then.
    pub(super) fn continue_turns(&self, before: &Self) {
        for (takers, before) in self.all().zip(before.all()) {
            takers.continue_turns(before);
        }
        let shares = |levels: &Self| -> Vec<i64> {
            let all = levels.further.iter().flat_map(|further| &further.shares);
            all.map(|share| share.credit.get()).collect()
        };
        if let Some(further) = &self.further {
            let credits = further.shares.iter().zip(shares(before));
            credits.for_each(|(share, credit)| share.credit.set(credit));
        }
    }

    fn level(&self, level: usize) -> &Takers {
        match (level, &self.further) {
            (1.., Some(further)) => &further.takers[level - 1],
            _ => &self.first,
        }
    }
}

impl Further {
    fn next_in_turn(&self) -> usize {
        let mut best = 0;
        for (level, share) in self.shares.iter().enumerate() {
            share.credit.set(share.credit.get() + share.share as i64);
            if share.credit.get() > self.shares[best].credit.get() {
                best = level;
            }
        }
        let credit = &self.shares[best].credit;
        credit.set(credit.get() - self.shares_total as i64);
        best
    }

    fn of_key(&self, key: u64) -> usize {
        // The Maglev table uses the key itself. The level uses mixed bits, so that the choice of
        // the level does not affect the choice of the endpoint.
        let mixed = u128::from(key.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32));
        let mut point = ((mixed * u128::from(WHOLE)) >> 64) as u64;
        for (level, share) in self.shares.iter().enumerate() {
            if point < share.share {
                return level;
            }
            point -= share.share;
        }
        // The shares are rounded and may add up to less than `WHOLE`, so a few points are beyond
        // the last share.
        self.shares.iter().rposition(|share| share.share > 0).unwrap_or_default()
    }
}
