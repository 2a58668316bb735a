//! Weighted shares of traffic that are exact over a short sequence of requests.

use std::sync::Arc;

use crate::cells::{Count, PerWorker};
use crate::cluster::Destination;

/// The maximum length of a sequence. Shares finer than one thousandth are rounded.
const SEQUENCE_MAX: u64 = 1000;

/// The position of each worker in the sequence of a split. It is kept over reloads.
pub type Turns = Arc<PerWorker<Count>>;

/// A sequence of destinations in which each has its share.
#[derive(Debug)]
pub struct Split {
    sequence: Vec<Destination>,
    /// The position of each worker. `None` if there is only one destination.
    turns: Option<Turns>,
}

impl Split {
    /// Creates a split with one destination.
    pub fn single(destination: Destination) -> Self {
        Self { sequence: vec![destination], turns: None }
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
        Self { sequence, turns: Some(turns) }
    }

    /// Returns the destination of the next request of a worker.
    pub fn next(&self, worker: usize) -> Destination {
        let turn = match &self.turns {
            Some(turns) if self.sequence.len() > 1 => turns.worker(worker),
            _ => return self.sequence[0],
        };
        let place = turn.value() as usize % self.sequence.len();
        turn.increment();
        self.sequence[place]
    }

    /// Returns the destinations and their numbers of requests in the sequence, in the order of
    /// their first appearance.
    pub fn shares(&self) -> Vec<(Destination, usize)> {
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
    fn equal_shares_alternate() {
        let split = weighted(&[(to(0), 50), (to(1), 50)]);
        assert_eq!(split.sequence, [to(0), to(1)]);
        assert_eq!(weighted(&[(to(0), 7)]).sequence, Split::single(to(0)).sequence);
    }
}
