//! The begin of QUIC connections that are not terminated: their first datagrams are kept until the
//! server name is known. Then the ids that the endpoint chooses are noted.

use std::cell::RefCell;
use std::hash::Hash;
use std::time::Duration;

use rustc_hash::FxHashMap;

use crate::detect::{Answer, ClientHello, QuicError, QuicHello, sender_id};
use crate::mesh::{PassedState, PassedTo};
use crate::time::Time;

/// How many connections of a worker may have an incomplete ClientHello.
const READING_MAX: usize = 1024;

/// How many bytes are kept for one of them.
const READING_BYTES_MAX: usize = 32 * 1024;

/// How long the datagrams of a ClientHello may take.
pub const READING_TIMEOUT: Duration = Duration::from_secs(5);

/// How many ids of a connection are kept: an endpoint needs one or two during its handshake.
const IDS_MAX: usize = 4;

/// The connections of a worker whose ClientHello is not complete.
pub struct Openings<K>(RefCell<FxHashMap<K, Opening>>);

struct Opening {
    hello: QuicHello,
    datagrams: Vec<Box<[u8]>>,
    bytes: usize,
    since: Time,
}

/// The state of a connection after another datagram.
pub enum Step {
    /// The ClientHello is not complete.
    NeedMore,
    /// The ClientHello, and all datagrams of the connection.
    Known(ClientHello, Vec<Box<[u8]>>),
    /// The ClientHello cannot be read. All datagrams of the connection.
    Malformed(Vec<Box<[u8]>>),
    /// The datagram does not begin a connection.
    Other(QuicError),
    /// A limit is reached. The connection is forgotten.
    Overflow,
}

impl<K> Default for Openings<K> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

impl<K: Eq + Hash> Openings<K> {
    /// Whether the ClientHello of the connection has begun.
    pub fn has(&self, key: &K) -> bool {
        self.0.borrow().contains_key(key)
    }

    /// Handles a datagram of a connection without a flow.
    pub fn receive(&self, key: K, bytes: &[u8], now: Time) -> Step {
        let known = self.0.borrow_mut().remove(&key);
        let mut opening = match known {
            Some(opening) => opening,
            None => match QuicHello::new(bytes) {
                Err(error) => return Step::Other(error),
                Ok(_) if !self.has_room(now) => return Step::Overflow,
                Ok(hello) => Opening { hello, datagrams: Vec::new(), bytes: 0, since: now },
            },
        };
        opening.bytes += bytes.len();
        if opening.bytes > READING_BYTES_MAX {
            return Step::Overflow;
        }
        opening.datagrams.push(bytes.into());
        match opening.hello.receive(bytes) {
            Ok(Answer::Known(hello)) => Step::Known(hello, opening.datagrams),
            Err(_) => Step::Malformed(opening.datagrams),
            Ok(Answer::NeedMore) => {
                self.0.borrow_mut().insert(key, opening);
                Step::NeedMore
            }
        }
    }

    /// Whether another connection may begin. If there are many, those that take too long are
    /// dropped.
    fn has_room(&self, now: Time) -> bool {
        let mut all = self.0.borrow_mut();
        if all.len() >= READING_MAX {
            all.retain(|_, opening| now.since(opening.since) < READING_TIMEOUT);
        }
        all.len() < READING_MAX
    }
}

/// The ids of one connection that its endpoint has chosen.
#[derive(Default)]
pub struct Followed(RefCell<Vec<Box<[u8]>>>);

impl Followed {
    /// Notes the id in the long header of a datagram of the endpoint `to`. All workers share the
    /// ids of `state`, for at most `flows_max_each` flows each.
    pub fn follow(&self, state: &PassedState, to: &PassedTo, bytes: &[u8], flows_max_each: usize) {
        let Some(id) = sender_id(bytes) else { return };
        let mut ids = self.0.borrow_mut();
        if ids.len() >= IDS_MAX || ids.iter().any(|known| **known == *id) {
            return;
        }
        let max = flows_max_each.saturating_mul(2 * state.cells.workers());
        if state.ids.add(id, to.clone(), max) {
            ids.push(id.into());
        }
    }

    /// Forgets the ids: the connection has ended.
    pub fn forget(&self, state: &PassedState) {
        self.0.borrow_mut().drain(..).for_each(|id| state.ids.remove(&id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::example_in_two_datagrams;

    fn seconds(seconds: u64) -> Time {
        Time::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn the_server_name_comes_with_all_datagrams() {
        let openings = Openings::default();
        let [first, second] = example_in_two_datagrams();
        assert!(matches!(openings.receive(1, &second, seconds(0)), Step::NeedMore));
        let Step::Known(hello, datagrams) = openings.receive(1, &first, seconds(0)) else {
            panic!()
        };
        assert_eq!(hello.server_name.as_deref(), Some("example.com"));
        assert_eq!(datagrams, [second.into(), first.into()] as [Box<[u8]>; 2]);
        assert!(!openings.has(&1));
    }

    #[test]
    fn only_so_many_connections_begin_at_once() {
        let openings = Openings::default();
        let [first, second] = example_in_two_datagrams();
        let begin = |key, at| openings.receive(key, &first, seconds(at));
        for key in 0..READING_MAX {
            assert!(matches!(begin(key, 0), Step::NeedMore));
        }
        assert!(matches!(begin(READING_MAX, 4), Step::Overflow));
        assert!(openings.has(&0) && !openings.has(&READING_MAX));
        assert!(matches!(openings.receive(0, &second, seconds(4)), Step::Known(..)), "it goes on");
        assert!(matches!(begin(READING_MAX, 4), Step::NeedMore), "there is room for one");
        assert!(matches!(begin(0, 5), Step::NeedMore), "the others were too slow");
        assert!(openings.has(&READING_MAX) && !openings.has(&1));
    }

    #[test]
    fn the_bytes_of_one_connection_have_a_limit() {
        let openings = Openings::default();
        let [mut first, _] = example_in_two_datagrams();
        // A client may pad its datagrams.
        first.resize(READING_BYTES_MAX / 2, 0);
        assert!(matches!(openings.receive((), &first, seconds(0)), Step::NeedMore));
        assert!(matches!(openings.receive((), &first, seconds(0)), Step::NeedMore));
        assert!(matches!(openings.receive((), &[0], seconds(0)), Step::Overflow));
        assert!(!openings.has(&()));
    }

    #[test]
    fn what_begins_no_connection_is_not_kept() {
        let openings = Openings::default();
        for bytes in [&b"\0\x1d\x01\0\0\x01"[..], &[0x40; 30], &[]] {
            assert!(matches!(openings.receive((), bytes, seconds(0)), Step::Other(_)));
            assert!(!openings.has(&()));
        }
        let [mut broken, _] = example_in_two_datagrams();
        *broken.last_mut().unwrap() ^= 1;
        assert!(matches!(openings.receive((), &broken, seconds(0)), Step::Malformed(_)));
        assert!(!openings.has(&()));
    }
}
