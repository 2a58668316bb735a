//! Weighted shares of traffic that are exact over a short sequence of requests.

use std::sync::Arc;

use super::shift::Shift;
use crate::cells::{Count, PerWorker};
use crate::cluster::Destination;
use crate::resilience::{Chance, ShiftSide};

/// The maximum length of a sequence. Shares finer than one thousandth are rounded.
const SEQUENCE_MAX: u64 = 1000;

/// The position of each worker in the sequence of a split. It is kept over reloads.
pub type Turns = Arc<PerWorker<Count>>;

/// A sequence of destinations in which each has its share.
#[derive(Debug)]
pub struct Split {
    sequence: Vec<Destination>,
    /// The destinations with their weights, sorted by service and version.
    weights: Vec<(Destination, u32)>,
    /// The position of each worker. `None` if there is only one destination.
    turns: Option<Turns>,
    /// The old version of a shift stands in the sequence for both versions.
    shift: Option<Arc<Shift>>,
}

impl Split {
    /// Creates a split with one destination.
    pub fn single(destination: Destination) -> Self {
        Self {
            sequence: vec![destination],
            weights: vec![(destination, 1)],
            turns: None,
            shift: None,
        }
    }

    /// Creates a split by `shares`. At least one weight must not be zero. A destination with weight
    /// 0 gets no requests.
    ///
    /// The sequence has as many requests as the sum of the weights, divided by their greatest
    /// common divisor. In each sequence every destination gets exactly its share, spread as evenly
    /// as possible. If the sum is over 1000, each share is off by less than 0.1 %.
    ///
    /// Each split needs its own `turns`. If two splits shared one and their requests alternated,
    /// each split would use only every second position of its sequence.
    pub fn weighted(shares: &[(Destination, u32)], turns: Turns) -> Self {
        let common = shares.iter().fold(0, |common, (_, weight)| gcd(common, *weight)).max(1);
        let mut weights: Vec<u64> =
            shares.iter().map(|(_, weight)| u64::from(weight / common)).collect();
        let sum: u64 = weights.iter().sum();
        if sum > SEQUENCE_MAX {
            // Rounding must not remove a destination that has a weight.
            let scaled = |weight: u64| (weight * SEQUENCE_MAX / sum).max(u64::from(weight > 0));
            weights.iter_mut().for_each(|weight| *weight = scaled(*weight));
        }
        let sum: i64 = weights.iter().sum::<u64>() as i64;
        let mut credits = vec![0_i64; weights.len()];
        let mut sequence = Vec::new();
        for _ in 0..sum {
            // Smooth weighted round robin, as in nginx.
            for (credit, weight) in credits.iter_mut().zip(&weights) {
                *credit += *weight as i64;
            }
            let most = credits.iter().max().copied().unwrap_or_default();
            let chosen = credits.iter().position(|credit| *credit == most).unwrap_or_default();
            credits[chosen] -= sum;
            sequence.push(shares[chosen].0);
        }
        // Sorted, so that the range of users that `Self::at` gives to a destination does not depend
        // on the order in the configuration.
        let mut weights = shares.to_vec();
        weights.sort_by_key(|(to, _)| (to.service, to.subset));
        Self { sequence, weights, turns: Some(turns), shift: None }
    }

    /// Divides the requests to the old version of `shift` between both versions.
    pub fn with_shift(self, shift: Arc<Shift>) -> Self {
        Self { shift: Some(shift), ..self }
    }

    /// The shift between two of the destinations.
    pub fn shift(&self) -> Option<&Arc<Shift>> {
        self.shift.as_ref()
    }

    /// Returns the destination of the next request of a worker.
    pub fn next(&self, worker: usize) -> Destination {
        let destination = self.next_in_sequence(worker);
        match &self.shift {
            Some(shift) if shift.side_of(destination).is_some() => {
                shift.destinations[shift.state.pick(worker) as usize]
            }
            _ => destination,
        }
    }

    fn next_in_sequence(&self, worker: usize) -> Destination {
        let turn = match &self.turns {
            Some(turns) if self.sequence.len() > 1 => turns.worker(worker),
            _ => return self.sequence[0],
        };
        let place = turn.value() as usize % self.sequence.len();
        turn.increment();
        self.sequence[place]
    }

    /// Returns the destination of the user at `point`, a position from 0 to `u64::MAX`. Each
    /// destination has a range of positions, as wide as its share. So when weight is moved from one
    /// of two destinations to the other, only users at the border of the ranges change their
    /// destination.
    pub fn at(&self, point: u64) -> Destination {
        let share = self.shift.as_ref().map(|shift| shift.state.share());
        let weights = || self.weights.iter().map(|&(to, weight)| (to, self.now(to, weight, share)));
        let total: u64 = weights().map(|(_, weight)| weight).sum();
        let mut place = ((u128::from(point) * u128::from(total)) >> 64) as u64;
        for (destination, weight) in weights() {
            if place < weight {
                return destination;
            }
            place -= weight;
        }
        // Unreachable: the place is below the total, which is not 0.
        self.sequence[0]
    }

    /// The destinations, also those with weight 0.
    pub fn destinations(&self) -> impl Iterator<Item = Destination> {
        self.weights.iter().map(|(to, _)| *to)
    }

    /// Whether `destination` gets requests now.
    pub fn has_share(&self, destination: Destination) -> bool {
        let share = self.shift.as_ref().map(|shift| shift.state.share());
        let own = self.weights.iter().find(|(to, _)| *to == destination);
        own.is_some_and(|&(to, weight)| self.now(to, weight, share) > 0)
    }

    /// The weight now of a destination that has `weight` in the file, while the new version
    /// of the shift has `share` of both versions.
    fn now(&self, destination: Destination, weight: u32, share: Option<u32>) -> u64 {
        let (Some(shift), Some(share)) = (&self.shift, share) else { return weight.into() };
        let parts = match shift.side_of(destination) {
            None => return u64::from(weight) * u64::from(Chance::PARTS),
            Some(ShiftSide::From) => Chance::PARTS - share,
            Some(ShiftSide::To) => share,
        };
        let of_shift = |(to, _): &&(Destination, u32)| shift.side_of(*to).is_some();
        let both: u64 =
            self.weights.iter().filter(of_shift).map(|(_, weight)| u64::from(*weight)).sum();
        both * u64::from(parts)
    }

    /// The destinations and their shares in parts of the sum of all, in the order of their first
    /// appearance. A shift has its share now.
    pub fn shares(&self) -> Vec<(Destination, usize)> {
        let shares = self.shares_of_sequence();
        let Some(shift) = &self.shift else { return shares };
        let (whole, new) = (Chance::PARTS as usize, shift.state.share() as usize);
        let mut divided = Vec::new();
        for (destination, count) in shares {
            match shift.side_of(destination) {
                None => divided.push((destination, count * whole)),
                Some(_) => divided.extend(ShiftSide::BOTH.map(|side| {
                    let part = if side == ShiftSide::To { new } else { whole - new };
                    (shift.destinations[side as usize], count * part)
                })),
            }
        }
        divided
    }

    fn shares_of_sequence(&self) -> Vec<(Destination, usize)> {
        let mut shares: Vec<(Destination, usize)> = Vec::new();
        for destination in &self.sequence {
            match shares.iter_mut().find(|(known, _)| known == destination) {
                Some((_, count)) => *count += 1,
                None => shares.push((*destination, 1)),
            }
        }
        shares
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resilience::{ShiftPlan, ShiftState};

    fn to(service: u32) -> Destination {
        Destination { service, subset: 0 }
    }

    fn weighted(shares: &[(Destination, u32)]) -> Split {
        Split::weighted(shares, Arc::new(PerWorker::new(1)))
    }

    #[test]
    fn shares_are_exact_in_every_window() {
        let split = weighted(&[(to(0), 90), (to(1), 10), (to(2), 0)]);
        let picks: Vec<_> = (0..40).map(|_| split.next(0).service).collect();
        for window in picks.windows(10) {
            assert_eq!(window.iter().filter(|&&service| service == 1).count(), 1);
        }
        assert!(!picks.contains(&2));
    }

    #[test]
    fn fine_shares_are_rounded_and_nobody_is_lost() {
        let split = weighted(&[(to(0), 99_999), (to(1), 1)]);
        assert!(split.sequence.len() <= 1001);
        assert!(split.sequence.contains(&to(1)));
    }

    #[test]
    fn only_users_between_two_versions_move_with_their_weights() {
        let mut random = fastrand::Rng::with_seed(3);
        let users: Vec<u64> = (0..20_000).map(|_| random.u64(..)).collect();
        for _ in 0..200 {
            let (a, b) = (random.u32(..=100), random.u32(..=100));
            let (less, more) = (a.min(b), a.max(b));
            // The new version gets `less` percent of the users at first, and `more` percent later.
            // The order of the versions and a common factor of the weights must not matter.
            let factor = random.u32(1..5);
            let before = weighted(&[(to(1), less * factor), (to(0), (100 - less) * factor)]);
            let after = weighted(&[(to(0), 100 - more), (to(1), more)]);
            let mut moved = 0;
            for &user in &users {
                match (before.at(user).service, after.at(user).service) {
                    (0, 1) => moved += 1,
                    (one, other) => assert_eq!(one, other, "{less} to {more}: a user moves back"),
                }
            }
            let expected = f64::from(more - less) / 100.0;
            let share = f64::from(moved) / users.len() as f64;
            assert!((share - expected).abs() < 0.015, "{less} to {more}: {share}");
        }
    }

    #[test]
    fn the_points_of_a_split_follow_its_weights() {
        let percent = |percent: u64| (u128::from(percent) * (1 << 64) / 100) as u64;
        let split = weighted(&[(to(2), 10), (to(0), 70), (to(1), 20), (to(3), 0)]);
        for (point, service) in
            [(0, 0), (percent(69), 0), (percent(71), 1), (percent(89), 1), (u64::MAX, 2)]
        {
            assert_eq!(split.at(point), to(service), "{point}");
        }
        assert_eq!(Split::single(to(5)).at(u64::MAX), to(5));
    }

    #[test]
    fn equal_shares_alternate() {
        let split = weighted(&[(to(0), 50), (to(1), 50)]);
        assert_eq!(split.sequence, [to(0), to(1)]);
        assert_eq!(weighted(&[(to(0), 7)]).sequence, Split::single(to(0)).sequence);
    }

    #[test]
    fn a_shift_divides_the_share_of_two_destinations() {
        let plan = ShiftPlan {
            first: 200_000,
            step: 100_000,
            every: std::time::Duration::from_secs(60),
            start: None,
            abort_if: None,
        };
        let state = Arc::new(ShiftState::new("", plan, 1));
        let shift = Arc::new(Shift {
            host: "a".into(),
            rule: "a#1".into(),
            place: "a:1".into(),
            destinations: [to(0), to(1)],
            names: ["old".into(), "new".into()],
            state,
        });
        // Half of the requests go to a third destination.
        let split = weighted(&[(to(0), 1), (to(1), 0), (to(2), 1)]).with_shift(shift);
        assert_eq!(split.shares(), [(to(0), 800_000), (to(1), 200_000), (to(2), 1_000_000)]);
        let picks: Vec<_> = (0..20).map(|_| split.next(0).service).collect();
        let count = |service| picks.iter().filter(|&&pick| pick == service).count();
        assert_eq!([0, 1, 2].map(count), [8, 2, 10], "{picks:?}");
        // Users have ranges of the same widths.
        let at = |percent: u64| split.at(u64::MAX / 100 * percent).service;
        assert_eq!([1, 39, 41, 49, 51, 99].map(at), [0, 0, 1, 1, 2, 2]);
    }
}
