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
    pub fn has(&self, key: &K, now: Time) -> bool {
        self.0.borrow().get(key).is_some_and(|opening| !opening.is_late(now))
    }

    /// Handles a datagram of a connection without a flow.
    pub fn receive(&self, key: K, bytes: &[u8], now: Time) -> Step {
        let known = self.0.borrow_mut().remove(&key);
        // A client that has given up begins another connection at the same socket.
        let goes_on = |it: &Opening| !it.is_late(now) && !it.hello.is_another(bytes);
        let mut opening = match known.filter(goes_on) {
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
            all.retain(|_, opening| !opening.is_late(now));
        }
        all.len() < READING_MAX
    }
}

impl Opening {
    fn is_late(&self, now: Time) -> bool {
        now.since(self.since) >= READING_TIMEOUT
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

    /// Holds the id by which the client was found at its new address.
    pub fn moved(&self, state: &PassedState, to: &PassedTo, id: Box<[u8]>) {
        state.ids.hold(&id, to.clone());
        self.0.borrow_mut().push(id);
    }

    /// Forgets the ids: the flow has ended.
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
        assert!(!openings.has(&1, seconds(0)));
    }

    #[test]
    fn a_connection_that_never_completes_blocks_no_later_one() {
        let [first, second] = example_in_two_datagrams();
        let mut other = first.clone();
        // Another connection id, so the packet is of another connection, and its tag is wrong.
        other[6] ^= 1;
        let openings = Openings::default();
        assert!(matches!(openings.receive((), &first, seconds(0)), Step::NeedMore));
        assert!(matches!(openings.receive((), &other, seconds(1)), Step::Malformed(_)));
        assert!(!openings.has(&(), seconds(1)), "the first one is forgotten");
        // A late part is the first datagram of a connection.
        assert!(matches!(openings.receive((), &first, seconds(1)), Step::NeedMore));
        assert!(openings.has(&(), seconds(5)) && !openings.has(&(), seconds(6)));
        assert!(matches!(openings.receive((), &first, seconds(6)), Step::NeedMore));
        let Step::Known(_, datagrams) = openings.receive((), &second, seconds(7)) else { panic!() };
        assert_eq!(datagrams.len(), 2, "those of the first attempt are not sent");
    }

    #[test]
    fn a_client_is_followed_from_each_address_to_the_next() {
        let state = PassedState::new(1);
        let address = "192.0.2.1:443".parse().unwrap();
        let to = PassedTo {
            address,
            egress: crate::net::Egress::default(),
            service: "app".into(),
            destination: None,
        };
        let long = [0xc0, 0, 0, 0, 1, 0, 4, 1, 2, 3, 4, 0, 0];
        let mut flow = Followed::default();
        flow.follow(&state, &to, &long, 10);
        for _ in 0..3 {
            let (id, to) = state.ids.find(&[0x40, 1, 2, 3, 4], |_| true).unwrap();
            let next = Followed::default();
            next.moved(&state, &to, id);
            // The flow from the old address idles out.
            flow.forget(&state);
            flow = next;
        }
        flow.forget(&state);
        assert!(state.ids.find(&[0x40, 1, 2, 3, 4], |_| true).is_none());
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
        assert!(openings.has(&0, seconds(4)) && !openings.has(&READING_MAX, seconds(4)));
        assert!(matches!(openings.receive(0, &second, seconds(4)), Step::Known(..)), "it goes on");
        assert!(matches!(begin(READING_MAX, 4), Step::NeedMore), "there is room for one");
        assert!(matches!(begin(0, 5), Step::NeedMore), "the others were too slow");
        assert!(openings.has(&READING_MAX, seconds(5)) && !openings.0.borrow().contains_key(&1));
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
        assert!(!openings.has(&(), seconds(0)));
    }

    #[test]
    fn what_begins_no_connection_is_not_kept() {
        let openings = Openings::default();
        for bytes in [&b"\0\x1d\x01\0\0\x01"[..], &[0x40; 30], &[]] {
            assert!(matches!(openings.receive((), bytes, seconds(0)), Step::Other(_)));
            assert!(!openings.has(&(), seconds(0)));
        }
        let [mut broken, _] = example_in_two_datagrams();
        *broken.last_mut().unwrap() ^= 1;
        assert!(matches!(openings.receive((), &broken, seconds(0)), Step::Malformed(_)));
        assert!(!openings.has(&(), seconds(0)));
    }
}
