//! The bounds on a server: the number, size, names and order of its messages.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::super::follower::{First, Unsent, blames_type};
use super::super::stream::{Accepted, Stream};
use super::super::supervise;
use super::*;
use crate::grpc::Code;
use crate::grpc::xds::Node;
use crate::sources::rpc::Ended;

/// The endpoints of an `EDS` cluster with weights of localities.
fn weights(places: &[Vec<u8>]) -> Vec<u32> {
    let mut state = state();
    let cluster = eds("a", |out| put(out, 27, b"\x1a\x00")); // locality_weighted_lb_config
    take(&mut state, Type::Cluster, &[&cluster], false).unwrap();
    take(&mut state, Type::Endpoints, &[&assignment("a", places)], false).unwrap();
    let Some(Change::Set(Resource::Service(service))) = state.changes().pop() else {
        panic!("no service")
    };
    let Some(Endpoints::List(list)) = &service.value.endpoints else { panic!("no list") };
    list.iter().map(|item| item.value.weight).collect()
}

#[test]
fn the_weight_of_a_locality_is_divided_among_its_endpoints_alone() {
    let at = |last: u64, weight: u64| endpoint(&format!("10.0.0.{last}"), 80, 0, weight);
    let zone = |zone: &str, weight: u64, all: &[Vec<u8>]| {
        message(|out| {
            put_nested(out, 1, |out| put_bytes(out, 2, zone.as_bytes()));
            all.iter().for_each(|endpoint| put(out, 2, endpoint));
            put_nested(out, 3, |out| put_number(out, 1, weight));
        })
    };
    let two = [zone("a", 1, &[at(1, 1), at(2, 1)]), zone("b", 1, &[at(3, 1)])];
    assert_eq!(weights(&two), [5000, 5000, 10_000], "localities with a zone alone");
    let none = [locality("a", 0, 0, &[at(1, 3)]), locality("b", 0, 0, &[at(2, 1)])];
    assert_eq!(weights(&none), [3, 1], "without weights, all endpoints are used");
    let some = [locality("a", 0, 0, &[at(1, 3)]), locality("b", 2, 0, &[at(2, 1)])];
    assert_eq!(weights(&some), [20_000], "a locality without one gets nothing");
    let max = u64::from(u32::MAX);
    let large = [locality("a", max, 0, &[at(1, max)]), locality("b", max / 2, 0, &[at(2, max)])];
    let found = weights(&large);
    assert_eq!(found[0], u32::MAX);
    assert!((i64::from(found[1]) - i64::from(u32::MAX / 2)).abs() < 2, "{found:?}");
}

#[test]
fn a_name_that_is_there_twice_is_counted_once() {
    for is_delta in [false, true] {
        let mut state = state();
        let a = fixed("a", |out| put(out, 25, &[0; 500]));
        take(&mut state, Type::Cluster, &[&a], is_delta).unwrap();
        let small = fixed("a", |_| {});
        take(&mut state, Type::Cluster, &[&small, &small, &small], is_delta).unwrap();
        assert_eq!(state.size(), (1, state.entries(Type::Cluster)["a"].bytes.len()));
    }
}

#[test]
fn fields_that_change_how_requests_are_served_are_not_left_out() {
    type Write<'a> = &'a dyn Fn(&mut Vec<u8>);
    let policy = |url: &str, config: &[u8]| {
        let any = message(|out| {
            put(out, 1, format!("type.googleapis.com/envoy.extensions.{url}").as_bytes());
            put(out, 2, config);
        });
        let extension = message(|out| put(out, 2, &any));
        let entry = message(|out| put(out, 4, &extension));
        message(|out| put(out, 1, &entry))
    };
    const ROUND: &str = "load_balancing_policies.round_robin.v3.RoundRobin";
    const LEAST: &str = "load_balancing_policies.least_request.v3.LeastRequest";
    let (bias, other) = (policy(LEAST, b"\x12\x00"), policy("x.v3.RoundRobin", b""));
    let cases: [(Write<'_>, &str); 8] = [
        (&|out| put(out, 8, b"\x12\x00\x4a\x00"), "health_checks.interval is below 100ms"),
        (&|out| put(out, 8, b"\x0a\x00\x4a\x00"), "health_checks.timeout is below 100ms"),
        (&|out| put(out, 19, b"\x12\x00"), "outlier_detection.interval is below 100ms"),
        (&|out| put(out, 19, b"\x1a\x00"), "outlier_detection.base_ejection_time is below 100ms"),
        (
            &|out| put_number_at(out, 31, 1),
            "cluster.close_connections_on_host_health_failure is not supported here; leave it out",
        ),
        (
            &|out| put_number_at(out, 17, 3),
            "cluster.dns_lookup_family is not supported here; use AUTO, V4_ONLY, V6_ONLY or ALL",
        ),
        (
            &|out| put(out, 41, &bias),
            "LeastRequest.active_request_bias is not supported here; leave it out",
        ),
        (
            &|out| put(out, 41, &other),
            "cluster.load_balancing_policy has RoundRobin, which is not supported here; use \
             RoundRobin, LeastRequest or Random",
        ),
    ];
    for (more, reason) in cases {
        let refused = service(&fixed("x", more)).unwrap_err();
        assert_eq!(refused, format!("cluster x: {reason}"));
    }
    let slow =
        service(&fixed("x", |out| put(out, 41, &policy(ROUND, b"\x0a\x04\x0a\x02\x08\x05"))));
    assert_eq!(slow.unwrap().slow_start.unwrap().value.window, Duration::from_secs(5));
    let slow = service(&fixed("x", |out| put_at(out, 56, b"\x0a\x04\x0a\x02\x08\x07")));
    assert_eq!(slow.unwrap().slow_start.unwrap().value.window, Duration::from_secs(7));
}

fn put_at(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put(out, field, bytes);
}

fn put_number_at(out: &mut Vec<u8>, field: u64, number: u64) {
    put_varint(out, field << 3);
    put_varint(out, number);
}

#[test]
fn names_and_reasons_are_short_and_on_one_line() {
    let mut state = state();
    let long = "x".repeat(2000);
    take(&mut state, Type::Cluster, &[&fixed("a\nb", |_| {}), &fixed(&long, |_| {})], false)
        .unwrap();
    let refusal = state.refusal(Type::Cluster).unwrap();
    assert!(refusal.contains("cluster a\\nb: a control character in a name"), "{refusal}");
    assert!(refusal.contains("x...: a name of 2000 bytes; 1024 are allowed"), "{refusal}");
    assert!(!refusal.contains('\n'));
    assert_eq!(state.size().0, 0);
    let wrong = eds("c", |out| put_nested(out, 3, |out| put(out, 2, b"a\nb")));
    take(&mut state, Type::Cluster, &[&wrong], false).unwrap();
    assert_eq!(state.refusal(Type::Cluster).unwrap(), "cluster c: a control character in a name");
    take(&mut state, Type::Cluster, &[&eds("a", |_| {})], false).unwrap();
    let host = assignment("a", &[locality("", 0, 0, &[endpoint(&"h".repeat(5000), 80, 0, 0)])]);
    take(&mut state, Type::Endpoints, &[&host], false).unwrap();
    assert!(state.refusal(Type::Endpoints).unwrap().len() < 600);
}

#[test]
fn refusals_and_removals_do_not_pile_up() {
    let mut state = State::new(Limits { resources: 10, bytes: 10_000 }, false);
    for number in 0..3000 {
        let wrong = fixed(&format!("c{number}"), |out| put_number(out, 6, 9));
        state.begin(Type::Cluster);
        take(&mut state, Type::Cluster, &[&wrong], true).unwrap();
        assert!(state.refusal(Type::Cluster).unwrap().contains(&format!("c{number}:")));
        let unwanted = assignment(&format!("e{number}"), &[Vec::from(*b"\xff")]);
        take(&mut state, Type::Endpoints, &[&unwanted], true).unwrap();
    }
    assert!(state.refused[0].len() <= 1000, "{}", state.refused[0].len());
    assert!(state.refused[1].len() <= 1000, "also of endpoints that no cluster has");
    let response = Response { removed: vec!["never", "there"], ..Response::default() };
    changes(&mut state);
    state.take(Type::Cluster, &response, true).unwrap();
    assert!(!state.is_dirty());
}

#[test]
fn a_refusal_of_bytes_without_a_name_outlives_clusters_that_come_with_it() {
    let mut state = state();
    take(&mut state, Type::Cluster, &[&eds("a", |_| {})], false).unwrap();
    take(&mut state, Type::Endpoints, &[b"\xff\xff"], false).unwrap();
    take(&mut state, Type::Cluster, &[&eds("a", |out| put_number(out, 6, 1))], false).unwrap();
    let refusal = state.refusal(Type::Endpoints);
    assert!(refusal.is_some_and(|why| why.starts_with("endpoints number 1: ")));
    take(&mut state, Type::Endpoints, &[], false).unwrap();
    assert_eq!(state.refusal(Type::Endpoints), None);
}

#[test]
fn a_message_of_many_fields_is_refused() {
    let many = fixed("a", |out| (0..300_000).for_each(|_| put(out, 2, b"")));
    let mut state = State::new(Limits { resources: 10, bytes: 10_000_000 }, false);
    take(&mut state, Type::Cluster, &[&many], false).unwrap();
    let refusal = state.refusal(Type::Cluster).unwrap();
    assert_eq!(refusal, "cluster a: cluster: more than 200000 fields");
    let large = fixed("b", |out| put(out, 25, &vec![0; 9_000_000]));
    take(&mut state, Type::Cluster, &[&large], false).unwrap();
    let refusal = state.refusal(Type::Cluster).unwrap();
    assert!(refusal.ends_with("bytes; 8388608 are allowed"), "{refusal}");
}

#[test]
fn a_resource_without_a_version_that_is_gone_at_the_resume_is_removed() {
    let mut state = state();
    let (a, b) = (fixed("a", |_| {}), fixed("b", |_| {}));
    take(&mut state, Type::Cluster, &[&a, &b], true).unwrap();
    assert_eq!(changes(&mut state), ["+a", "+b"]);
    let sent = Sent { type_url: CLUSTER, bytes: &a, name: "a", ..Sent::default() };
    let response = Response { resources: vec![sent], ..Response::default() };
    state.take(Type::Cluster, &response, true).unwrap();
    state.drop_unversioned(Type::Cluster, &response);
    assert_eq!(changes(&mut state), ["-b"]);
}

#[test]
fn a_refusal_of_changes_is_in_the_answer_though_a_good_response_follows() {
    let (mut state, mut accepted) = (state(), Accepted::default());
    let (node, now) = (Node::default(), Instant::now());
    let mut stream = Stream::new(true, false, vec![Type::Cluster]);
    assert_eq!(stream.requests(&state, &accepted, &node, now).len(), 1);
    let wrong = fixed("wrong", |out| put_number(out, 6, 9));
    let mut hear = |stream: &mut Stream, state: &mut State, resource: &[u8], nonce: &str| {
        if !stream.note(Type::Cluster, "", nonce, now) {
            state.begin(Type::Cluster);
        }
        take(state, Type::Cluster, &[resource], true).unwrap();
        stream.judge(&mut accepted, now, |kind| state.refusal(kind))
    };
    hear(&mut stream, &mut state, &wrong, "1");
    let due = stream.due().unwrap();
    for nonce in ["2", "3"] {
        let refused = hear(&mut stream, &mut state, &fixed("good", |_| {}), nonce);
        assert!(refused[0].1.starts_with("cluster wrong: "), "{refused:?}");
        assert_eq!(stream.due(), Some(due), "it is not put off");
    }
    let refused = hear(&mut stream, &mut state, &fixed("wrong", |_| {}), "4");
    assert!(refused.is_empty(), "it is mended before the answer");
}

#[test]
fn clusters_are_never_taken_for_an_unknown_type() {
    let (state, accepted) = (state(), Accepted::default());
    let (node, now) = (Node::default(), Instant::now());
    let mut stream = Stream::new(false, false, vec![Type::Cluster, Type::Endpoints]);
    stream.requests(&state, &accepted, &node, now);
    assert!(stream.suspects(&accepted).is_empty());
    let mut stream = Stream::new(false, false, vec![Type::Cluster]);
    let mut state = self::state();
    take(&mut state, Type::Cluster, &[&eds("a", |_| {})], false).unwrap();
    assert_eq!(stream.requests(&state, &accepted, &node, now).len(), 1);
    stream.ask_again(Type::Endpoints);
    assert_eq!(stream.requests(&state, &accepted, &node, now).len(), 1, "on the open stream");
    assert_eq!(stream.suspects(&accepted), [Type::Endpoints]);
}

#[tokio::test]
async fn a_follower_that_fails_begins_again() {
    let began = Arc::new(AtomicU32::new(0));
    let failed = |why: &str| {
        assert!(why.contains("failed by a bug"));
        assert_eq!(began.load(Ordering::Relaxed), 1);
    };
    let begin = || {
        let began = Arc::clone(&began);
        async move {
            assert!(began.fetch_add(1, Ordering::Relaxed) > 0, "a bug");
        }
    };
    supervise(failed, begin).await;
    assert_eq!(began.load(Ordering::Relaxed), 2);
}

fn bad_then(state: &mut State, name: &str, why: &str) {
    assert!(!state.changes().is_empty());
    state.settle(&[(Kind::Service, name.into(), why.to_owned())]);
}

#[test]
fn a_cluster_that_waited_is_to_blame_and_not_its_endpoints() {
    let mut state = state();
    let good = assignment("a", &[locality("", 0, 0, &[endpoint("10.0.0.1", 80, 0, 0)])]);
    take(&mut state, Type::Cluster, &[&eds("a", |out| put(out, 25, b""))], true).unwrap();
    assert!(changes(&mut state).is_empty(), "it waits");
    take(&mut state, Type::Endpoints, &[&good], true).unwrap();
    bad_then(&mut state, "a", "its certificate");
    assert_eq!(state.refusal(Type::Cluster).unwrap(), "cluster a: its certificate");
    assert_eq!(state.refusal(Type::Endpoints), None);
    take(&mut state, Type::Cluster, &[&eds("a", |_| {})], true).unwrap();
    assert!(!state.has(Type::Endpoints, "a"), "they are asked for again");
    take(&mut state, Type::Endpoints, &[&good], true).unwrap();
    assert_eq!(changes(&mut state), ["+a"]);
}

#[test]
fn endpoints_that_a_refused_cluster_dropped_come_back() {
    let mut state = state();
    let good = assignment("x", &[locality("", 0, 0, &[endpoint("10.0.0.1", 80, 0, 0)])]);
    let with_x = eds("a", |out| put_nested(out, 3, |out| put(out, 2, b"x")));
    take(&mut state, Type::Cluster, &[&with_x], true).unwrap();
    take(&mut state, Type::Endpoints, &[&good], true).unwrap();
    assert_eq!(changes(&mut state), ["+a"]);
    take(&mut state, Type::Cluster, &[&fixed("a", |_| {})], true).unwrap();
    bad_then(&mut state, "a", "because");
    assert!(state.entries(Type::Endpoints).contains_key("x"));
    // Also after it has waited for others.
    let with_y = eds("a", |out| put_nested(out, 3, |out| put(out, 2, b"y")));
    take(&mut state, Type::Cluster, &[&with_y], true).unwrap();
    assert!(changes(&mut state).is_empty(), "it waits");
    let other = assignment("y", &[locality("", 0, 0, &[endpoint("10.0.0.2", 80, 0, 0)])]);
    take(&mut state, Type::Endpoints, &[&other], true).unwrap();
    bad_then(&mut state, "a", "because");
    assert_eq!(state.entries(Type::Endpoints).keys().collect::<Vec<_>>(), ["x"]);
}

#[test]
fn removed_endpoints_stay_with_their_cluster_or_do_not_exist() {
    let mut state = state();
    let good = assignment("a", &[locality("", 0, 0, &[endpoint("10.0.0.1", 80, 0, 0)])]);
    take(&mut state, Type::Cluster, &[&eds("a", |_| {}), &eds("b", |_| {})], true).unwrap();
    take(&mut state, Type::Endpoints, &[&good], true).unwrap();
    assert_eq!(changes(&mut state), ["+a"]);
    let response = Response { removed: vec!["a", "b"], ..Response::default() };
    state.take(Type::Endpoints, &response, true).unwrap();
    assert_eq!(changes(&mut state), ["+b"], "the one without endpoints answers 503");
    assert!(state.has(Type::Endpoints, "a"));
}

#[test]
fn endpoints_that_many_clusters_share_are_counted_for_each() {
    let mut state = State::new(Limits { resources: 10, bytes: 100_000 }, false);
    let shared = |name: &str| eds(name, |out| put_nested(out, 3, |out| put(out, 2, b"x")));
    let all = ["a", "b", "c", "d"].map(shared);
    let all: Vec<&[u8]> = all.iter().map(|bytes| &**bytes).collect();
    let thirty = |first: u64| {
        let all = (first..first + 30).map(|last| endpoint(&format!("10.0.0.{last}"), 80, 0, 0));
        assignment("x", &[locality("", 0, 0, &all.collect::<Vec<_>>())])
    };
    take(&mut state, Type::Cluster, &all, false).unwrap();
    for first in [1, 2] {
        take(&mut state, Type::Endpoints, &[&thirty(first)], false).unwrap();
        state.begin(Type::Cluster);
        assert_eq!(changes(&mut state), ["+a", "+b", "+c"], "100 for 10 resources");
        let refusal = state.refusal(Type::Cluster).unwrap();
        assert!(refusal.starts_with("cluster d: 120 endpoints in all clusters"), "{refusal}");
    }
    take(&mut state, Type::Cluster, &all[1..], false).unwrap();
    assert_eq!(changes(&mut state), ["-a"]);
    take(&mut state, Type::Endpoints, &[&thirty(3)], false).unwrap();
    assert_eq!(changes(&mut state), ["+b", "+c", "+d"]);
}

#[test]
fn the_first_update_waits_for_all_from_the_first_answer_on() {
    let (began, later) = (Instant::now(), Duration::from_secs(60));
    for (replaces, longest) in
        [(false, Duration::from_millis(2500)), (true, Duration::from_secs(20))]
    {
        let mut first = First::new(began, replaces);
        assert!(!first.ends(began + later, || false), "no answer, nothing to publish");
        first.hear(began + later);
        first.hear(began + later * 2);
        assert!(!first.ends(began + later, || false));
        assert!(!first.ends(began + later + longest - Duration::from_millis(1), || false));
        assert!(first.ends(began + later + longest, || false));
        let mut first = First::new(began, replaces);
        first.hear(began + later);
        assert!(first.ends(began + later, || true));
    }
}

#[test]
fn a_server_that_reads_nothing_is_left() {
    let (mut unsent, now) = (Unsent::default(), Instant::now());
    assert_eq!(unsent.may_send(true, now), Ok(true));
    assert!(unsent.next_look(None, now) > now + Duration::from_secs(1));
    assert_eq!(unsent.may_send(false, now), Ok(false));
    assert!(unsent.next_look(None, now) < now + Duration::from_secs(1));
    assert_eq!(unsent.may_send(false, now + Duration::from_secs(4)), Ok(false));
    assert!(unsent.may_send(false, now + Duration::from_secs(5)).is_err());
    assert_eq!(unsent.may_send(true, now), Ok(true));
}

#[test]
fn only_an_error_about_a_type_is_one() {
    let ended = |code, why: &str| Ended { code, why: why.to_owned() };
    let suspects = [Type::Endpoints];
    let blamed = |code, why: &str| blames_type(&ended(code, why), &suspects);
    assert!(blamed(Some(Code::UNIMPLEMENTED), ""));
    assert!(blamed(Some(Code::UNKNOWN), &format!("unknown type {ENDPOINTS}")));
    for code in [Code::UNKNOWN, Code::INTERNAL, Code::INVALID_ARGUMENT, Code::PERMISSION_DENIED] {
        assert!(!blamed(Some(code), "no"));
    }
    assert!(!blamed(Some(Code::UNAUTHENTICATED), ENDPOINTS));
    assert!(!blamed(None, ENDPOINTS));
}
