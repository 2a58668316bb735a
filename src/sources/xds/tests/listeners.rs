//! Listeners and their routes: the order in which they change, and the parts that are refused.

use std::collections::BTreeSet;

use super::super::kinds::Type;
use super::super::state::State;
use super::{message, named_routes, put, put_number, says, state, take};
use crate::model::{Change, Kind};

pub(super) const ROUTER: &str =
    "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
const MANAGER: &str = "type.googleapis.com/envoy.extensions.filters.network.\
                       http_connection_manager.v3.HttpConnectionManager";

/// An `Any` in the field `number`.
pub(super) fn put_any(out: &mut Vec<u8>, number: u64, url: &str, bytes: &[u8]) {
    let any = message(|out| {
        put(out, 1, url.as_bytes());
        put(out, 2, bytes);
    });
    put(out, number, &any);
}

/// A connection manager with the routes `routes` by RDS, and with further fields.
pub(super) fn manager(routes: &str, more: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    message(|out| {
        put(out, 3, &message(|out| put(out, 2, routes.as_bytes())));
        put(out, 5, &message(|out| put_any(out, 4, ROUTER, b"")));
        more(out);
    })
}

/// A filter chain with this connection manager, and with further fields.
pub(super) fn chain(manager: &[u8], more: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    message(|out| {
        more(out);
        put(out, 3, &message(|out| put_any(out, 4, MANAGER, manager)));
    })
}

/// A listener with these filter chains, and with further fields.
pub(super) fn listening(port: u64, chains: &[Vec<u8>], more: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    message(|out| {
        put(out, 1, b"edge");
        let socket = message(|out| {
            put(out, 2, b"127.0.0.1");
            put_number(out, 3, port);
        });
        put(out, 2, &message(|out| put(out, 1, &socket)));
        chains.iter().for_each(|chain| put(out, 3, chain));
        more(out);
    })
}

/// A listener at `port` with the routes `routes`.
fn with_routes(port: u64, routes: &str) -> Vec<u8> {
    listening(port, &[chain(&manager(routes, |_| {}), |_| {})], |_| {})
}

/// A route configuration of this name.
fn named(name: &str) -> Vec<u8> {
    named_routes(name, |out| {
        put(out, 1, b"\x0a\x01/");
        says(out);
    })
}

/// The changes as `+KIND NAME` and `-KIND NAME`. The items in `refused` are refused.
fn changes(state: &mut State, refused: &[(Kind, &str)]) -> Vec<String> {
    let changes = state.changes();
    let refused: Vec<_> = refused
        .iter()
        .map(|(kind, name)| (*kind, Box::from(*name), "because".to_owned()))
        .collect();
    state.settle(&refused);
    let shown = |change: &Change| {
        let (kind, name) = change.key();
        let sign = if matches!(change, Change::Set(_)) { '+' } else { '-' };
        format!("{sign}{kind:?} {name}")
    };
    changes.iter().map(shown).collect()
}

#[test]
fn a_listener_waits_for_its_routes_and_goes_before_them() {
    let mut state = state();
    take(&mut state, Type::Listener, &[&with_routes(80, "r1")], false).unwrap();
    assert_eq!(state.refusal(Type::Listener), None);
    assert_eq!(state.wanted(Type::Routes), BTreeSet::from(["r1".to_owned()]));
    assert!(changes(&mut state, &[]).is_empty(), "it waits");
    take(&mut state, Type::Routes, &[&named("r1")], false).unwrap();
    assert_eq!(changes(&mut state, &[]), ["+Listener edge", "+Routes r1"]);
    take(&mut state, Type::Listener, &[], false).unwrap();
    assert_eq!(changes(&mut state, &[]), ["-Listener edge"]);
    assert_eq!(changes(&mut state, &[]), ["-Routes r1"]);
    assert!(!state.is_dirty());
}

#[test]
fn a_listener_keeps_its_routes_until_it_has_others() {
    let begin = || {
        let mut state = state();
        take(&mut state, Type::Listener, &[&with_routes(80, "r1")], false).unwrap();
        take(&mut state, Type::Routes, &[&named("r1")], false).unwrap();
        assert_eq!(changes(&mut state, &[]), ["+Listener edge", "+Routes r1"]);
        take(&mut state, Type::Listener, &[&with_routes(80, "r2")], false).unwrap();
        let waits = changes(&mut state, &[]);
        assert!(!waits.iter().any(|change| change.starts_with('-')), "{waits:?}");
        state
    };
    let mut state = begin();
    take(&mut state, Type::Routes, &[&named("r2")], false).unwrap();
    assert_eq!(changes(&mut state, &[]), ["+Listener edge", "+Routes r2"]);
    assert_eq!(changes(&mut state, &[]), ["-Routes r1"]);
    let mut state = begin();
    take(&mut state, Type::Routes, &[b"\x0a\x02r2\x62\x00"], false).unwrap();
    assert!(state.refusal(Type::Routes).is_some());
    let waits = changes(&mut state, &[]);
    assert!(!waits.iter().any(|change| change.starts_with('-')), "refused routes: {waits:?}");
    take(&mut state, Type::Listener, &[&with_routes(80, "r1")], false).unwrap();
    take(&mut state, Type::Routes, &[&named("r1")], false).unwrap();
    let back = changes(&mut state, &[]);
    assert!(!back.iter().any(|change| change.starts_with('-')), "back: {back:?}");
    assert!(!state.is_dirty() && state.waiting(Type::Listener).is_empty());
    let mut state = begin();
    state.note_absent(Type::Routes, "r2");
    assert_eq!(changes(&mut state, &[]), ["+Listener edge"], "absent routes");
    assert_eq!(changes(&mut state, &[]), ["-Routes r1"]);
}

#[test]
fn a_refused_listener_keeps_the_routes_from_before() {
    for is_delta in [true, false] {
        let mut state = state();
        take(&mut state, Type::Listener, &[&with_routes(8080, "r1")], is_delta).unwrap();
        take(&mut state, Type::Routes, &[&named("r1")], is_delta).unwrap();
        changes(&mut state, &[]);
        take(&mut state, Type::Listener, &[&with_routes(80, "r2")], is_delta).unwrap();
        take(&mut state, Type::Routes, &[&named("r2")], is_delta).unwrap();
        let switch = changes(&mut state, &[(Kind::Listener, "edge")]);
        assert_eq!(switch, ["+Listener edge", "+Routes r2"]);
        assert_eq!(changes(&mut state, &[]), ["-Routes r2"], "nothing uses it");
        assert!(state.entries(Type::Routes).contains_key("r1"));
        take(&mut state, Type::Listener, &[], is_delta).unwrap();
        state.drop_unwanted();
    }
}
