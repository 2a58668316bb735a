//! The connection ids that servers have chosen, by the long headers of their packets. With them, a
//! QUIC connection is followed when its client gets another address (RFC 9000 5.1).

use std::sync::{Mutex, MutexGuard, PoisonError};

use rustc_hash::FxHashMap;

/// The length of the shortest id that is followed.
const ID_BYTES_MIN: usize = 4;

/// The ids of the connections that pass a listener, each with a value. All workers share them: the
/// kernel may give the packets of another address to another worker.
#[derive(Debug)]
pub struct ServerIds<T>(Mutex<Known<T>>);

#[derive(Debug)]
struct Known<T> {
    /// Each value with the number of flows that hold its id.
    ids: FxHashMap<Box<[u8]>, (T, u32)>,
    /// How many ids have each length: short headers do not say it.
    lengths: [u32; 21],
}

impl<T> Default for ServerIds<T> {
    fn default() -> Self {
        Self(Mutex::new(Known { ids: FxHashMap::default(), lengths: [0; 21] }))
    }
}

impl<T: Clone> ServerIds<T> {
    /// Adds an id, unless there are `max` or it is known. Returns whether it was added. An id that
    /// is too short cannot be told from other bytes.
    pub fn add(&self, id: &[u8], value: T, max: usize) -> bool {
        let mut known = self.known();
        let Known { ids, lengths } = &mut *known;
        let Some(count) = lengths.get_mut(id.len()).filter(|_| id.len() >= ID_BYTES_MIN) else {
            return false;
        };
        if ids.len() >= max || ids.contains_key(id) {
            return false;
        }
        *count += 1;
        ids.insert(id.into(), (value, 1));
        true
    }

    /// Holds an id for another flow of its connection. The id is known until all its flows have
    /// removed it.
    pub fn hold(&self, id: &[u8], value: T) {
        let mut known = self.known();
        let Known { ids, lengths } = &mut *known;
        match (ids.get_mut(id), lengths.get_mut(id.len())) {
            (Some((_, holders)), _) => *holders += 1,
            // The flow from the old address has ended meanwhile.
            (None, Some(count)) => {
                *count += 1;
                ids.insert(id.into(), (value, 1));
            }
            (None, None) => {}
        }
    }

    /// Removes an id for one of its flows.
    pub fn remove(&self, id: &[u8]) {
        let mut known = self.known();
        let Some((_, holders)) = known.ids.get_mut(id) else { return };
        *holders -= 1;
        if *holders == 0 {
            known.ids.remove(id);
            known.lengths[id.len()] -= 1;
        }
    }

    /// The connection to which `datagram` belongs, if it begins with a short header: its id and its
    /// value, which must be `right`. A server chooses its ids freely, so they may be equal to bytes
    /// of any other protocol.
    pub fn find(&self, datagram: &[u8], right: impl Fn(&T) -> bool) -> Option<(Box<[u8]>, T)> {
        // The first bit of a short header is 0, the second one is 1. A client that clears the
        // second one, too (RFC 9287), cannot be told from other protocols.
        let (first, rest) = datagram.split_first()?;
        if first & 0xc0 != 0x40 {
            return None;
        }
        let known = self.known();
        let lengths = known.lengths.iter().enumerate().rev().filter(|(_, count)| **count > 0);
        let mut ids = lengths.filter_map(|(len, _)| rest.get(..len));
        ids.find_map(|id| {
            let (value, _) = known.ids.get(id).filter(|(value, _)| right(value))?;
            Some((id.into(), value.clone()))
        })
    }

    fn known(&self) -> MutexGuard<'_, Known<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_with_a_known_id_finds_its_connection() {
        let ids = ServerIds::default();
        assert!(ids.add(&[1, 2, 3, 4, 5], "five", 3) && ids.add(&[1, 2, 3, 4], "four", 3));
        assert!(!ids.add(&[1, 2, 3, 4], "again", 3) && !ids.add(&[1, 2, 3], "too short", 3));
        assert!(ids.add(&[7; 20], "long", 3));
        assert!(!ids.add(&[8; 8], "one too many", 3) && !ids.add(&[9; 21], "too long", 9));
        for (datagram, expected) in [
            (&[0x40, 1, 2, 3, 4, 5, 9][..], Some("five")),
            (&[0x7f, 1, 2, 3, 4, 9], Some("four")),
            (&[0x00, 1, 2, 3, 4], None),
            (&[0x40, 1, 2, 3], None),
            (&[0x40], None),
            (&[], None),
            (&[0xc0, 1, 2, 3, 4], None),
        ] {
            let found = ids.find(datagram, |_| true).map(|(_, value)| value);
            assert_eq!(found, expected, "{datagram:?}");
        }
        let right = ids.find(&[0x40, 1, 2, 3, 4, 5], |value| *value != "five");
        assert_eq!(right, Some(([1, 2, 3, 4].into(), "four")), "only the right one");
        ids.remove(&[1, 2, 3, 4]);
        ids.remove(&[1, 2, 3, 4]);
        assert_eq!(ids.find(&[0x40, 1, 2, 3, 4, 9], |_| true), None);
    }

    #[test]
    fn an_id_is_known_until_its_last_flow_ends() {
        let ids = ServerIds::default();
        let finds = || ids.find(&[0x40, 1, 2, 3, 4], |_| true).is_some();
        assert!(ids.add(&[1, 2, 3, 4], (), 1));
        ids.hold(&[1, 2, 3, 4], ());
        ids.remove(&[1, 2, 3, 4]);
        assert!(finds(), "the flow from the new address");
        ids.remove(&[1, 2, 3, 4]);
        assert!(!finds());
        ids.hold(&[1, 2, 3, 4], ());
        assert!(finds(), "the old flow ended first");
        ids.remove(&[1, 2, 3, 4]);
        assert!(!finds());
    }
}
