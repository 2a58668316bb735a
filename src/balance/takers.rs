//! The members of a level that get traffic, and the choice among them.

use std::cell::Cell;

use super::Candidates;
use super::Policy;
use super::levels::Judged;
use crate::health::Eligible;
use crate::time::Time;

/// The share of a member with weight 1 while a slow start is in progress.
const SHARE_UNIT: f64 = 1000.0;

/// The members of a level that get traffic.
#[derive(Debug)]
pub(super) struct Takers {
    members: Vec<Member>,
    shares_total: u64,
    /// Whether all members have the same share.
    even: bool,
    /// Whether the subset has one level, and health states exclude no endpoint: all endpoints with
    /// a weight above 0 get traffic.
    pub everyone: bool,
    /// When shares have grown by a step of the slow start. `Time::NEVER` if no endpoint is in its
    /// slow start.
    pub renew_at: Time,
}

#[derive(Debug)]
pub(super) struct Member {
    /// Index into the endpoints of the service.
    pub index: u32,
    pub weight: u32,
    /// The factor for the weight of an endpoint during its slow start, from 0 to 1.
    ramp: f64,
    /// The current weight, scaled to an integer. With most policies, it includes the slow start.
    share: u64,
    /// The sum of the shares up to and including this member.
    cumulative: u64,
    /// For smooth weighted round robin: each turn adds the share to the credit, and the member with
    /// the largest credit is chosen.
    credit: Cell<i64>,
}

impl Takers {
    /// Selects the endpoints of `states` that are eligible by their health, and computes their
    /// shares.
    pub fn of(service: &impl Candidates, states: &[Judged], eligible: Eligible, now: Time) -> Self {
        let mut members = Vec::with_capacity(states.len());
        let slow_start = service.slow_start();
        // The policies that compare two members apply the slow start in [`Takers::better_of_two`].
        let two = matches!(service.policy(), Policy::LeastRequest | Policy::PeakEwma);
        let mut shares_total = 0;
        for &(index, state) in states {
            if state.is_some_and(|state| !eligible.includes(state)) {
                continue;
            }
            let weight = service.weight(index);
            let ramp = slow_start.map_or(1.0, |slow| slow.factor(service.age(index, now)));
            let share = match slow_start {
                Some(_) if !two => ((f64::from(weight) * SHARE_UNIT * ramp) as u64).max(1),
                _ => u64::from(weight),
            };
            shares_total += share;
            let credit = Cell::new(0);
            let cumulative = shares_total;
            members.push(Member { index, weight, ramp, share, cumulative, credit });
        }
        let even = members.windows(2).all(|pair| pair[0].share == pair[1].share);
        let everyone = members.len() == states.len();
        let growing = slow_start.filter(|_| members.iter().any(|member| member.ramp < 1.0));
        let renew_at = growing.map_or(Time::NEVER, |slow_start| now + slow_start.step());
        Self { members, shares_total, even, everyone, renew_at }
    }

    /// Continues the round robin of `before`. The shares have changed only a little since then.
    pub fn continue_turns(&self, before: &Self) {
        for (member, before) in self.members.iter().zip(&before.members) {
            member.credit.set(before.credit.get());
        }
    }

    /// Whether the endpoint gets traffic. Its weight must be above 0.
    pub fn includes(&self, index: u32) -> bool {
        let place = || self.members.binary_search_by_key(&index, |member| member.index);
        self.everyone || place().is_ok()
    }

    pub fn next_in_turn(&self) -> Option<u32> {
        let mut best: Option<&Member> = None;
        for member in &self.members {
            member.credit.set(member.credit.get() + member.share as i64);
            if best.is_none_or(|best| member.credit.get() > best.credit.get()) {
                best = Some(member);
            }
        }
        let best = best?;
        best.credit.set(best.credit.get() - self.shares_total as i64);
        Some(best.index)
    }

    pub fn any(&self, random: &mut fastrand::Rng) -> Option<u32> {
        self.sample(random).map(|at| self.members[at].index)
    }

    /// Returns the position of a random member, weighted by share.
    fn sample(&self, random: &mut fastrand::Rng) -> Option<usize> {
        if self.members.is_empty() {
            return None;
        }
        if self.even {
            return Some(random.usize(..self.members.len()));
        }
        let point = random.u64(..self.shares_total);
        Some(self.members.partition_point(|member| member.cumulative <= point))
    }

    /// Draws two members at random. Returns the one with the lower cost relative to its weight.
    pub fn better_of_two(
        &self,
        random: &mut fastrand::Rng,
        cost: impl Fn(&Member) -> f64,
    ) -> Option<u32> {
        let first = self.sample(random)?;
        if self.members.len() == 1 {
            return Some(self.members[first].index);
        }
        let mut second = self.sample(random)?;
        if second == first {
            second = (first + 1 + random.usize(..self.members.len() - 1)) % self.members.len();
        }
        let (first, second) = (&self.members[first], &self.members[second]);
        let relative = |member: &Member| cost(member) / f64::from(member.weight);
        // If the costs are equal, the first one is chosen. It was drawn by weight, so each member
        // gets requests in proportion to its weight.
        let (better, other) = match relative(second) < relative(first) {
            true => (second, first),
            false => (first, second),
        };
        // During its slow start, a member passes a part of its requests to the other member.
        let leaves = better.ramp < other.ramp && random.f64() * other.ramp >= better.ramp;
        Some(if leaves { other.index } else { better.index })
    }

    /// Returns a random member that is not in `avoid`, or `None` if there is none.
    pub fn another(&self, avoid: &[u32], random: &mut fastrand::Rng) -> Option<u32> {
        let others = self.members.iter().map(|member| member.index);
        let mut others = others.filter(|index| !avoid.contains(index));
        let count = others.clone().count();
        if count == 0 { None } else { others.nth(random.usize(..count)) }
    }
}
