//! Priorities of responses (RFC 9218).

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use super::session::Session;
use super::streams::Stream;
use crate::http2::Message;
use crate::quic::{Connection, Dir, Side, StreamId};

/// The number of updates that are kept for requests that have not arrived.
const UPDATES_MAX: usize = 32;

/// The urgency of a response, from 0 (the most urgent) to 7.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Urgency(u8);

impl Default for Urgency {
    fn default() -> Self {
        Self(3)
    }
}

impl Urgency {
    /// Parses the value of the field `priority` or of PRIORITY_UPDATE. Without a valid urgency, it
    /// is the default (RFC 9218 4.1, 5).
    pub fn parse(value: &[u8]) -> Self {
        let mut urgency = Self::default();
        for member in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
            // Parameters of the member follow after a semicolon. The last member counts.
            let end = member.iter().position(|&byte| byte == b';').unwrap_or(member.len());
            match &member[..end] {
                [b'u', b'=', digit @ b'0'..=b'7'] => urgency = Self(digit - b'0'),
                [b'u', b'=', ..] => urgency = Self::default(),
                _ => {}
            }
        }
        urgency
    }

    /// The priority of a stream in QUIC: larger values are sent first. Streams without a priority
    /// have the default.
    pub fn priority(self) -> i32 {
        i32::from(Self::default().0) - i32::from(self.0)
    }
}

/// The priority of our critical streams: above all responses.
pub(super) const CRITICAL_PRIORITY: i32 = 4;

/// The updates that have arrived and are not applied.
#[derive(Debug, Default)]
pub(super) struct Updates(VecDeque<(u64, Urgency)>);

impl Updates {
    /// Stores an update. A newer one replaces it. The oldest one is dropped if there are too many.
    pub(super) fn put(&mut self, stream: u64, urgency: Urgency) {
        self.take(stream);
        if self.0.len() >= UPDATES_MAX {
            self.0.pop_front();
        }
        self.0.push_back((stream, urgency));
    }

    /// Takes the update for a stream.
    pub(super) fn take(&mut self, stream: u64) -> Option<Urgency> {
        if self.0.is_empty() {
            return None;
        }
        let at = self.0.iter().position(|(known, _)| *known == stream)?;
        self.0.remove(at).map(|(_, urgency)| urgency)
    }

    /// The streams with updates.
    pub(super) fn streams(&self) -> impl Iterator<Item = u64> {
        self.0.iter().map(|(stream, _)| *stream)
    }
}

/// Sets the priority of the response to a request (RFC 9218). An update that has arrived before the
/// request replaces its field.
pub(super) fn prioritize(
    session: &mut Session,
    quic: &Connection,
    id: StreamId,
    request: &Message,
) {
    let field = request.head.view(&request.text).value(b"priority");
    let update = session.take_update(id.into());
    if let Some(urgency) = update.or_else(|| field.map(Urgency::parse)) {
        quic.prioritize(id, urgency.priority());
    }
}

/// Applies the client's new priorities to responses that have begun.
pub(super) fn apply_updates(
    session: &mut Session,
    quic: &Connection,
    streams: &FxHashMap<StreamId, Stream>,
) {
    let ids = session.updated().map(|number| StreamId::new(Side::Client, Dir::Bi, number / 4));
    let has_begun = |id: &StreamId| streams.get(id).is_some_and(|stream| stream.in_body);
    let begun: Vec<StreamId> = ids.filter(has_begun).collect();
    for id in begun {
        if let Some(urgency) = session.take_update(id.into()) {
            quic.prioritize(id, urgency.priority());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urgencies_are_read_as_in_rfc_9218() {
        for (value, urgency) in [
            ("", 3),
            ("u=0", 0),
            ("u=7, i", 7),
            ("i, u=5", 5),
            ("i=?0,u=1;x=2", 1),
            ("u=1, u=6", 6),
            ("u=8", 3),
            ("u=-1", 3),
            ("u=1, u=x", 3),
            ("U=1", 3),
            ("other=4, \"u=2\"", 3),
        ] {
            assert_eq!(Urgency::parse(value.as_bytes()), Urgency(urgency), "{value}");
        }
        assert_eq!(Urgency::default().priority(), 0);
        assert_eq!((Urgency(0).priority(), Urgency(7).priority()), (3, -4));
        assert!(Urgency(0).priority() < CRITICAL_PRIORITY);
    }

    #[test]
    fn updates_are_kept_until_their_streams_arrive() {
        let mut updates = Updates::default();
        assert_eq!((updates.take(0), updates.streams().count()), (None, 0));
        for stream in 0..40 {
            updates.put(stream, Urgency(1));
        }
        updates.put(39, Urgency(2));
        assert_eq!((updates.streams().count(), updates.streams().last()), (32, Some(39)));
        assert_eq!((updates.take(39), updates.take(39)), (Some(Urgency(2)), None));
        assert_eq!((updates.take(7), updates.take(8)), (None, Some(Urgency(1))));
    }
}
