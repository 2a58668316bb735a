//! Levels of endpoints, by priority and by distance, and the share of requests that each level
//! gets. The rules are those of Envoy's priority levels.

use std::fmt;

use crate::health::State;

/// The default overprovisioning factor, the same as Envoy's. A level can take all its requests
/// while its fraction of healthy endpoints, multiplied by the factor, is at least 1.
pub const OVERPROVISIONING_FACTOR: f64 = 1.4;

/// The sum of the shares of all levels, except for rounding.
pub(super) const WHOLE: u64 = 10_000;

/// The level of an endpoint. Lower levels get requests first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Level {
    /// The priority in the configuration. 0 is preferred.
    pub priority: u32,
    /// The distance from this proxy. 0 means the same zone, or that no zone is preferred.
    pub distance: u32,
}

/// The preference of a service for near endpoints.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Locality {
    /// A level can take all its requests while its fraction of healthy endpoints, multiplied by
    /// this factor, is at least 1.
    pub overprovisioning_factor: f64,
    /// The percentage of requests that stays at distance 0. The other requests go to all other
    /// endpoints of the priority. `None` means that the nearest healthy level gets all requests.
    pub local_percent: Option<u8>,
}

/// The numbers of endpoints of one level.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LevelHealth {
    /// The level that has the endpoints.
    pub level: Level,
    /// The number of endpoints whose health state lets them get requests.
    pub available: u32,
    /// The number of all endpoints.
    pub all: u32,
    /// The part of its requests that the warmest available endpoint can take in its slow start,
    /// above 0 and at most 1. The balancer protects colder endpoints beside it.
    pub warmth: f64,
}

/// The part of the requests that a level gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LevelShare {
    /// The share, in ten thousandths of the requests.
    pub share: u64,
    /// Whether too few endpoints are available, so that all endpoints of the level get requests
    /// (panic mode).
    pub everyone: bool,
}

impl fmt::Display for Locality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.local_percent {
            Some(percent) => write!(f, "{percent}% of requests stay in the own zone"),
            None => f.write_str("the first level with enough healthy endpoints"),
        }?;
        let enough = 100.0 / self.overprovisioning_factor;
        write!(f, "; {enough:.0}% of them are enough")
    }
}

impl Locality {
    /// Returns the level by which endpoints are grouped. With `local_percent`, there are only two
    /// distances: 0 for the same zone, and 1 for all other zones.
    pub fn compared(&self, level: Level) -> Level {
        match self.local_percent {
            Some(_) => Level { distance: level.distance.min(1), ..level },
            None => level,
        }
    }

    /// Returns the share of each level. `levels` must be in ascending order, and each must have an
    /// endpoint. If all shares are 0, no endpoint may get requests.
    ///
    /// Each level gets the requests that the levels before it cannot take, up to its capacity. If
    /// the capacity of all levels together is too small, each level gets requests in proportion to
    /// its capacity. A level whose percentage of available endpoints is then below `panic_percent`
    /// sends requests to all its endpoints. With `local_percent`, the levels of one priority count
    /// as one level, and then divide its share.
    ///
    /// A level whose endpoints are all in their slow start has less capacity. If all levels are
    /// equally cold, this changes nothing.
    pub fn shares(&self, levels: &[LevelHealth], panic_percent: u8) -> Vec<LevelShare> {
        if levels.iter().all(|level| level.available == 0) {
            return shares_of_all(levels, panic_percent);
        }
        let levels = &compared_warmth(levels)[..];
        let tiers = || levels.chunk_by(|one, other| self.is_same_tier(one.level, other.level));
        let sum: f64 = tiers().map(|tier| self.capacity(tier)).sum();
        let healthy: f64 = tiers().map(|tier| self.healthy(tier)).sum();
        let mut shares = Vec::with_capacity(levels.len());
        let mut left = 1.0_f64;
        for tier in tiers() {
            let load = left.min(self.capacity(tier) / sum.min(1.0));
            left -= load;
            let (available, all) = totals(tier);
            let everyone = healthy < 1.0 && available * 100 < all * u64::from(panic_percent);
            self.divide(tier, load, everyone, &mut shares);
        }
        shares
    }

    /// Whether both levels are in the same tier. The failover rule gives requests to a tier.
    /// `local_percent` then divides them between the same zone and all other zones.
    fn is_same_tier(&self, one: Level, other: Level) -> bool {
        self.local_percent.is_some() && one.priority == other.priority
    }

    /// Returns the fraction of all requests that the endpoints of `levels` can take together now,
    /// from 0 to 1.
    fn capacity(&self, levels: &[LevelHealth]) -> f64 {
        self.healthy(levels) * warmest(levels)
    }

    /// Returns the fraction of all requests that the endpoints of `levels` can take together when
    /// they are warm, from 0 to 1.
    fn healthy(&self, levels: &[LevelHealth]) -> f64 {
        let (available, all) = totals(levels);
        (self.overprovisioning_factor * available as f64 / all as f64).min(1.0)
    }

    /// Divides `load`, a fraction of all requests, among the levels of one tier.
    fn divide(
        &self,
        tier: &[LevelHealth],
        load: f64,
        everyone: bool,
        shares: &mut Vec<LevelShare>,
    ) {
        let part = |level: &LevelHealth| {
            let wanted = match (self.local_percent, level.level.distance) {
                (None, _) => 1.0,
                (Some(percent), 0) => f64::from(percent) / 100.0,
                (Some(percent), _) => 1.0 - f64::from(percent) / 100.0,
            };
            let capacity = self.capacity(std::slice::from_ref(level));
            // If the other level of the tier has no available endpoint, this level gets the whole
            // load, even if its configured percentage is 0.
            let wanted = wanted.max(1e-9);
            if everyone { wanted } else { wanted * capacity }
        };
        let sum: f64 = tier.iter().map(part).sum();
        for level in tier {
            let part = if sum > 0.0 { load * part(level) / sum } else { 0.0 };
            let share = (part * WHOLE as f64).round() as u64;
            shares.push(LevelShare { share, everyone });
        }
    }
}

/// The levels with a warmth in parts of the warmest one, so that only differences count.
fn compared_warmth(levels: &[LevelHealth]) -> Vec<LevelHealth> {
    let most = warmest(levels);
    let compared = |level: &LevelHealth| LevelHealth { warmth: level.warmth / most, ..*level };
    levels.iter().map(compared).collect()
}

/// The warmth of the warmest level with an available endpoint.
fn warmest(levels: &[LevelHealth]) -> f64 {
    let available = levels.iter().filter(|level| level.available > 0);
    available.map(|level| level.warmth).reduce(f64::max).unwrap_or(1.0)
}

/// Returns the shares when no endpoint is available: they are in proportion to the numbers of
/// endpoints. If `panic_percent` is 0, all shares are 0.
fn shares_of_all(levels: &[LevelHealth], panic_percent: u8) -> Vec<LevelShare> {
    let all: u64 = levels.iter().map(|level| u64::from(level.all)).sum();
    let share = |level: &LevelHealth| match panic_percent {
        0 => LevelShare::default(),
        _ => LevelShare { share: (u64::from(level.all) * WHOLE / all).max(1), everyone: true },
    };
    levels.iter().map(share).collect()
}

fn totals(levels: &[LevelHealth]) -> (u64, u64) {
    let sum = |count: fn(&LevelHealth) -> u32| levels.iter().map(|it| u64::from(count(it))).sum();
    (sum(|level| level.available), sum(|level| level.all))
}

/// Returns the state in which an endpoint is available: healthy, or unchecked if no endpoint is
/// healthy. An endpoint without a state is healthy.
pub(super) fn available_state(states: impl Iterator<Item = Option<State>>) -> State {
    let mut available = State::Healthy;
    for state in states {
        match state {
            None | Some(State::Healthy) => return State::Healthy,
            Some(State::Unchecked) => available = State::Unchecked,
            Some(State::Unhealthy) => {}
        }
    }
    available
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAILOVER: Locality =
        Locality { overprovisioning_factor: OVERPROVISIONING_FACTOR, local_percent: None };

    fn level(priority: u32, distance: u32, (available, all): (u32, u32)) -> LevelHealth {
        LevelHealth { level: Level { priority, distance }, available, all, warmth: 1.0 }
    }

    /// The shares in percent; `!` means that all endpoints of the level get requests.
    fn shares(locality: Locality, levels: &[LevelHealth], panic_percent: u8) -> Vec<String> {
        let text = |share: &LevelShare| {
            let mark = if share.everyone { "!" } else { "" };
            format!("{}{mark}", (share.share as f64 / 100.0).round())
        };
        locality.shares(levels, panic_percent).iter().map(text).collect()
    }

    #[test]
    fn the_nearest_level_gets_all_until_too_few_of_it_are_healthy() {
        for (health, panic_percent, expected) in [
            ([(10, 10), (10, 10), (10, 10)], 50, ["100", "0", "0"]),
            // With the factor 1.4, 72% of healthy endpoints are enough, and 71% are not.
            ([(72, 100), (10, 10), (10, 10)], 50, ["100", "0", "0"]),
            ([(5, 10), (10, 10), (10, 10)], 50, ["70", "30", "0"]),
            // There is no panic mode while the levels together have enough capacity.
            ([(1, 10), (10, 10), (10, 10)], 50, ["14", "86", "0"]),
            ([(0, 10), (10, 10), (10, 10)], 50, ["0", "100", "0"]),
            ([(0, 10), (0, 10), (1, 1)], 50, ["0", "0", "100"]),
            ([(1, 10), (2, 10), (10, 10)], 50, ["14", "28", "58"]),
            // All levels together have too little capacity: the shares are in proportion to the
            // capacities.
            ([(2, 10), (1, 10), (1, 10)], 50, ["50!", "25!", "25!"]),
            ([(5, 10), (0, 10), (1, 10)], 50, ["83", "0!", "17!"]),
            ([(2, 10), (1, 10), (1, 10)], 0, ["50", "25", "25"]),
            ([(0, 10), (0, 10), (0, 20)], 50, ["25!", "25!", "50!"]),
            ([(0, 10), (0, 10), (0, 20)], 0, ["0", "0", "0"]),
        ] {
            let levels: Vec<_> = (0..).zip(health).map(|(n, of)| level(0, n, of)).collect();
            assert_eq!(shares(FAILOVER, &levels, panic_percent), expected, "{health:?}");
            let levels: Vec<_> = (0..).zip(health).map(|(n, of)| level(n, 0, of)).collect();
            assert_eq!(shares(FAILOVER, &levels, panic_percent), expected, "{health:?}");
        }
    }

    #[test]
    fn a_share_stays_local_while_the_zone_can_carry_it() {
        let stay = |percent| Locality { local_percent: Some(percent), ..FAILOVER };
        for (percent, local, others, expected) in [
            (80, (10, 10), (10, 10), ["80", "20"]),
            (100, (10, 10), (10, 10), ["100", "0"]),
            (0, (10, 10), (10, 10), ["0", "100"]),
            (80, (10, 10), (0, 10), ["100", "0"]),
            (80, (0, 10), (10, 10), ["0", "100"]),
            (100, (0, 10), (10, 10), ["0", "100"]),
            (0, (10, 10), (0, 10), ["100", "0"]),
            // Half of the near level is healthy, so its capacity is 70%. The shares are in the
            // ratio of 80 x 0.7 to 20 x 1.
            (80, (5, 10), (10, 10), ["74", "26"]),
            (80, (1, 10), (1, 10), ["80!", "20!"]),
        ] {
            let levels = [level(0, 0, local), level(0, 1, others)];
            assert_eq!(shares(stay(percent), &levels, 50), expected, "{percent} {local:?}");
        }
        let levels = [level(0, 0, (0, 5)), level(0, 1, (0, 5)), level(1, 0, (5, 5))];
        assert_eq!(shares(stay(80), &levels, 50), ["0", "0", "100"]);
        let far = Level { priority: 1, distance: 3 };
        assert_eq!(stay(80).compared(far), Level { priority: 1, distance: 1 });
        assert_eq!(FAILOVER.compared(far), far);
    }

    #[test]
    fn a_level_whose_endpoints_are_all_cold_gets_its_share_step_by_step() {
        let stay = Locality { local_percent: Some(80), ..FAILOVER };
        let (good, half, none) = ((2, 2), (1, 2), (0, 2));
        for (locality, near, far, expected) in [
            (FAILOVER, (good, 0.1), (good, 1.0), ["10", "90"]),
            (FAILOVER, (good, 0.7), (good, 1.0), ["70", "30"]),
            (FAILOVER, (good, 1.0), (good, 0.1), ["100", "0"]),
            // Both are equally cold, or only the cold one has an endpoint.
            (FAILOVER, (good, 0.1), (good, 0.1), ["100", "0"]),
            (FAILOVER, (good, 0.1), (good, 0.2), ["50", "50"]),
            (FAILOVER, (good, 0.1), (none, 1.0), ["100", "0"]),
            (FAILOVER, (none, 1.0), (good, 0.1), ["0", "100"]),
            (FAILOVER, (half, 0.5), (good, 1.0), ["35", "65"]),
            // Cold endpoints are healthy, so there is no panic mode.
            (FAILOVER, (half, 0.1), (half, 1.0), ["9", "91"]),
            (stay, (good, 0.1), (good, 1.0), ["29", "71"]),
            (stay, (good, 1.0), (good, 0.1), ["98", "2"]),
        ] {
            let of =
                |distance, (health, warmth)| LevelHealth { warmth, ..level(0, distance, health) };
            let levels = [of(0, near), of(1, far)];
            assert_eq!(shares(locality, &levels, 50), expected, "{near:?} {far:?}");
        }
    }

    #[test]
    fn shares_are_within_the_rule_for_random_health() {
        let mut random = fastrand::Rng::with_seed(1);
        for round in 0..20_000 {
            let local_percent = random.bool().then(|| random.u8(..=100));
            let factor = 1.0 + random.f64();
            let locality = Locality { overprovisioning_factor: factor, local_percent };
            let mut keys: Vec<_> = (0..random.u32(1..6))
                .map(|_| Level { priority: random.u32(..3), distance: random.u32(..3) })
                .map(|level| locality.compared(level))
                .collect();
            keys.sort_unstable();
            keys.dedup();
            let of = |level| {
                let all = random.u32(1..10);
                let available = if random.bool() { all } else { random.u32(..=all) };
                let warmth = if random.bool() { 1.0 } else { random.f64().max(0.01) };
                LevelHealth { level, available, all, warmth }
            };
            let levels: Vec<_> = keys.into_iter().map(of).collect();
            let panic_percent = 50;
            let shares = locality.shares(&levels, panic_percent);
            let case = format!("{round}: {locality:?} {levels:?} {shares:?}");
            let sum: u64 = shares.iter().map(|share| share.share).sum();
            assert!(sum.abs_diff(WHOLE) <= 10, "{case}");
            let serving = levels.iter().filter(|it| it.available > 0);
            let warmest = serving.map(|it| it.warmth).fold(0.0, f64::max);
            let capacity = |it: &LevelHealth| {
                let healthy = factor * f64::from(it.available) / f64::from(it.all);
                healthy.min(1.0) * it.warmth / warmest
            };
            let enough: f64 = levels.iter().map(capacity).sum();
            for (level, share) in levels.iter().zip(&shares) {
                if level.available == 0 && enough > 0.0 && !share.everyone {
                    assert_eq!(share.share, 0, "{case}");
                }
                if local_percent.is_none() && enough >= 1.0 {
                    let most = (capacity(level) * WHOLE as f64).round() as u64;
                    assert!(!share.everyone && share.share <= most + 1, "{case}");
                }
            }
            let first = capacity(&levels[0]);
            if local_percent.is_none() && first >= 1.0 {
                assert_eq!(shares[0].share, WHOLE, "{case}");
            }
        }
    }
}
