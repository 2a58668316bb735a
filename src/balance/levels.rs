//! The takers of each level, and the choice of a level for a request.

use std::cell::Cell;

use super::locality::{WHOLE, available_state};
use super::takers::Takers;
use super::{Candidates, Level, LevelHealth, Locality};
use crate::health::{Eligible, State, eligible};
use crate::time::Time;

/// The endpoints of a subset that get requests, by level.
#[derive(Debug)]
pub(super) struct Levels {
    /// The takers of the first level. Most services have only this one.
    first: Takers,
    /// The levels after the first one, and the shares of all.
    further: Option<Box<Further>>,
    /// When shares of endpoints have grown by a step of the slow start.
    pub renew_at: Time,
}

#[derive(Debug)]
struct Further {
    takers: Vec<Takers>,
    /// The share of each level, the first one included.
    shares: Vec<Share>,
    shares_total: u64,
    /// The level that has the whole share, if one has.
    only: Option<usize>,
}

#[derive(Debug)]
struct Share {
    share: u64,
    /// The credit of smooth weighted round robin.
    credit: Cell<i64>,
}

/// An endpoint with a weight, and its state when all states were read.
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
        let health = |(level, members): (&Level, &Vec<Judged>)| LevelHealth {
            level: *level,
            available: members.iter().filter(|(_, state)| is_available(*state)).count() as u32,
            all: members.len() as u32,
        };
        let health: Vec<LevelHealth> = levels.iter().zip(&members).map(health).collect();
        let shares = locality.shares(&health, service.panic_percent());
        let takers = members.iter().zip(&shares).map(|(members, share)| {
            let everyone = share.everyone;
            let eligible = if everyone { Eligible::Everyone } else { Eligible::Only(available) };
            let mut takers = Takers::of(service, members, eligible, now);
            // The members of other levels do not get the requests of this one.
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

    /// The takers of the level for the next request. With a `key`, the same key has the same level
    /// while the shares stay, and only as many keys move as the shares change.
    pub(super) fn takers(&self, key: Option<u64>) -> &Takers {
        let Some(further) = &self.further else { return &self.first };
        let level = further.only.unwrap_or_else(|| match key {
            Some(key) => further.of_key(key),
            None => further.next_in_turn(),
        });
        self.level(level)
    }

    /// The takers of all levels, the first level first.
    pub(super) fn all(&self) -> impl Iterator<Item = &Takers> {
        let further = self.further.iter().flat_map(|further| &further.takers);
        std::iter::once(&self.first).chain(further)
    }

    /// Continues the turns of `before`. The shares of endpoints have grown a little since then.
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
        // The Maglev table uses the key itself, so the level uses other bits.
        let mixed = u128::from(key.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32));
        let mut point = ((mixed * u128::from(WHOLE)) >> 64) as u64;
        for (level, share) in self.shares.iter().enumerate() {
            if point < share.share {
                return level;
            }
            point -= share.share;
        }
        // The shares are rounded, so a few points are beyond the last one.
        self.shares.iter().rposition(|share| share.share > 0).unwrap_or_default()
    }
}
