//! Maglev hashing (Eisenbud et al., NSDI 2016). Every endpoint has its share of the slots in a
//! table. When other endpoints are added or removed, an endpoint keeps most of its slots.

use super::key::hash;

/// Table sizes, all of them primes. A table has at least [`PLACES_PER_ENDPOINT`] slots for each
/// endpoint, so shares are accurate to about one percent. The largest size is the one in the paper.
const SIZES: [usize; 4] = [1021, 4093, 16_381, 65_537];

/// The minimum number of slots for each endpoint.
const PLACES_PER_ENDPOINT: usize = 100;

/// The lookup table of Maglev hashing.
#[derive(Debug)]
pub struct Maglev(Box<[u32]>);

/// An endpoint in the table.
pub struct Member<'a> {
    /// The index that a lookup returns.
    pub index: u32,
    /// The key of the endpoint, from which its permutation of the slots is computed.
    pub key: &'a [u8],
    /// The weight of the endpoint.
    pub weight: u32,
}

impl Maglev {
    /// Builds the table for `members`. Members with weight 0 get no slot.
    pub fn build(members: &[Member<'_>]) -> Self {
        let mut members: Vec<_> = members.iter().filter(|member| member.weight > 0).collect();
        // Sort, so that the order in the configuration does not matter.
        members.sort_by_key(|member| member.key);
        if members.is_empty() {
            return Self(Box::default());
        }
        let wanted = members.len() * PLACES_PER_ENDPOINT;
        let size = SIZES.into_iter().find(|&size| size >= wanted).unwrap_or(SIZES[3]);
        Self(fill(&members, size))
    }

    /// Returns the endpoint for a key with this hash. `takes` returns whether an endpoint gets
    /// traffic. Returns `None` if no endpoint does. The keys of an endpoint without traffic move to
    /// the endpoint of the next usable slot, so they are spread over the others. All other keys
    /// keep their endpoint.
    pub fn lookup(&self, hash: u64, takes: impl Fn(u32) -> bool) -> Option<u32> {
        // The size is a prime, so all bits of the hash have an effect.
        let place = (hash % (self.0.len().max(1) as u64)) as usize;
        let (before, after) = self.0.split_at_checked(place)?;
        after.iter().chain(before).copied().find(|&index| takes(index))
    }
}

/// Fills the table: the members take turns. In its turn, a member takes the next free slot of its
/// own permutation. A member with less weight skips turns in proportion.
fn fill(members: &[&Member<'_>], size: usize) -> Box<[u32]> {
    const FREE: u32 = u32::MAX;
    let heaviest = members.iter().map(|member| member.weight).max().unwrap_or(1);
    let mut walks: Vec<_> = members
        .iter()
        .map(|member| {
            let hashed = hash(member.key);
            let offset = hashed % size as u64;
            let skip = hash(&hashed.to_le_bytes()) % (size as u64 - 1) + 1;
            (offset as usize, skip as usize, 0_u64)
        })
        .collect();
    let mut places = vec![FREE; size].into_boxed_slice();
    let mut filled = 0;
    loop {
        for (member, (at, skip, credit)) in members.iter().zip(&mut walks) {
            *credit += u64::from(member.weight);
            if *credit < u64::from(heaviest) {
                continue;
            }
            *credit -= u64::from(heaviest);
            while places[*at] != FREE {
                *at = (*at + *skip) % size;
            }
            places[*at] = member.index;
            filled += 1;
            if filled == size {
                return places;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(keys: &[String], weight: impl Fn(usize) -> u32) -> Maglev {
        let members: Vec<_> = keys
            .iter()
            .enumerate()
            .map(|(i, key)| Member { index: i as u32, key: key.as_bytes(), weight: weight(i) })
            .collect();
        Maglev::build(&members)
    }

    fn keys(n: usize) -> Vec<String> {
        (0..n).map(|i| format!("10.0.0.{i}:8080")).collect()
    }

    fn shares(table: &Maglev, n: usize) -> Vec<usize> {
        let mut shares = vec![0; n];
        table.0.iter().for_each(|&index| shares[index as usize] += 1);
        shares
    }

    #[test]
    fn shares_are_even_or_by_weight() {
        let even = shares(&table(&keys(10), |_| 1), 10);
        let (least, most) = (even.iter().min().unwrap(), even.iter().max().unwrap());
        assert!(most - least <= 1, "{even:?}");
        let weighted = shares(&table(&keys(3), |i| i as u32), 3);
        assert_eq!(weighted[0], 0);
        assert!(weighted[2].abs_diff(2 * weighted[1]) <= 2, "{weighted:?}");
    }

    #[test]
    fn the_loss_of_one_endpoint_moves_little_else() {
        let before = table(&keys(10), |_| 1);
        let after = table(&keys(9), |_| 1);
        let moved = before.0.iter().zip(&after.0).filter(|(old, new)| **old != 9 && old != new);
        let moved = moved.count() as f64 / before.0.len() as f64;
        assert!(moved < 0.05, "{moved}");
    }

    #[test]
    fn an_empty_table_has_nobody() {
        assert_eq!(table(&[], |_| 1).lookup(7, |_| true), None);
        assert_eq!(table(&keys(2), |_| 0).lookup(7, |_| true), None);
    }
}
