//! Tables of resources: what becomes of each, and the reason if it is refused.

mod bounds;
mod secrets;

use std::collections::BTreeSet;

use super::kinds::{CLUSTER, ENDPOINTS, Type};
use super::routes::RouteConfig;
use super::state::{Limits, State};
use crate::grpc::protobuf::{put_bytes, put_nested, put_number, put_varint};
use crate::grpc::xds::{Resource as Sent, Response};
use crate::model::{Balance, Change, Endpoints, Kind, Resource, Service, ServiceProtocol};

/// Writes bytes in a field of any number.
fn put(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_varint(out, field << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn message(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    out
}

/// An `LbEndpoint`, its health status, and its weight.
fn endpoint(host: &str, port: u64, health: u64, weight: u64) -> Vec<u8> {
    message(|out| {
        put_nested(out, 1, |out| {
            put_nested(out, 1, |out| {
                put_nested(out, 1, |out| {
                    put_bytes(out, 2, host.as_bytes());
                    put_number(out, 3, port);
                });
            });
        });
        put_number(out, 2, health);
        if weight > 0 {
            put_nested(out, 4, |out| put_number(out, 1, weight));
        }
    })
}

/// A `LocalityLbEndpoints`.
fn locality(region: &str, weight: u64, priority: u64, endpoints: &[Vec<u8>]) -> Vec<u8> {
    message(|out| {
        put_nested(out, 1, |out| put_bytes(out, 1, region.as_bytes()));
        endpoints.iter().for_each(|endpoint| put(out, 2, endpoint));
        put_nested(out, 3, |out| put_number(out, 1, weight));
        put_number(out, 5, priority);
    })
}

fn assignment(name: &str, localities: &[Vec<u8>]) -> Vec<u8> {
    message(|out| {
        put(out, 1, name.as_bytes());
        localities.iter().for_each(|locality| put(out, 2, locality));
    })
}

/// A cluster of EDS with further fields.
fn eds(name: &str, more: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    message(|out| {
        put(out, 1, name.as_bytes());
        put_number(out, 2, 3);
        put_nested(out, 3, |out| put_nested(out, 1, |out| put(out, 3, b"")));
        more(out);
    })
}

/// A static cluster with further fields.
fn fixed(name: &str, more: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    message(|out| {
        put(out, 1, name.as_bytes());
        put(out, 33, &assignment(name, &[locality("", 1, 0, &[endpoint("10.0.0.1", 80, 0, 0)])]));
        more(out);
    })
}

fn state() -> State {
    State::new(Limits { resources: 10, bytes: 10_000 }, false)
}

fn take(state: &mut State, kind: Type, all: &[&[u8]], is_delta: bool) -> Result<(), String> {
    let sent = |bytes| Sent { type_url: kind.url(), bytes, ..Sent::default() };
    let resources = all.iter().map(|bytes| sent(*bytes)).collect();
    let response =
        Response { version: "1", type_url: kind.url(), resources, ..Response::default() };
    state.take(kind, &response, is_delta)
}

/// The changes as `+NAME` and `-NAME`.
fn changes(state: &mut State) -> Vec<String> {
    let shown = |change: Change| match change {
        Change::Set(Resource::Service(service)) => format!("+{}", service.value.name.value),
        Change::Remove(Kind::Service, name) => format!("-{name}"),
        change => format!("{change:?}"),
    };
    let changes = state.changes().into_iter().map(shown).collect();
    state.settle(&[]);
    changes
}

/// The service that a cluster becomes.
fn service(cluster: &[u8]) -> Result<Service, String> {
    let mut state = state();
    take(&mut state, Type::Cluster, &[cluster], false)?;
    if let Some(why) = state.refusal(Type::Cluster) {
        return Err(why);
    }
    match state.changes().pop() {
        Some(Change::Set(Resource::Service(service))) => Ok(service.value.clone()),
        other => Err(format!("{other:?}")),
    }
}

#[test]
fn clusters_become_services() {
    let plain = service(&fixed("a/b:80", |_| {})).unwrap();
    assert_eq!(plain.name.value, "a|b|80");
    assert_eq!((plain.balance, plain.protocol), (Balance::RoundRobin, ServiceProtocol::Http1));
    let Some(Endpoints::List(list)) = plain.endpoints else { panic!("no list") };
    assert_eq!(list[0].value.address.to_string(), "10.0.0.1:80");
    let tuned = service(&fixed("c", |out| {
        put_number(out, 6, 1);
        put(out, 14, b"");
        put_nested(out, 10, |out| {
            put_nested(out, 1, |out| {
                put_nested(out, 2, |out| put_number(out, 1, 9));
                put_nested(out, 5, |out| put_number(out, 1, 4));
            });
        });
    }));
    let tuned = tuned.unwrap();
    assert_eq!((tuned.balance, tuned.protocol), (Balance::LeastRequest, ServiceProtocol::Http2));
    let breaker = tuned.circuit_breaker.unwrap();
    assert_eq!((breaker.max_connections.unwrap().value, breaker.max_retries), (9, Some(4)));
    let named = message(|out| {
        put(out, 1, b"d");
        put_number(out, 2, 1);
        let endpoint = endpoint("shop.example.com", 80, 0, 0);
        put(out, 33, &assignment("d", &[locality("", 1, 0, &[endpoint])]));
    });
    let Some(Endpoints::Name(name)) = service(&named).unwrap().endpoints else { panic!("no name") };
    assert_eq!(&*name.value.address, "shop.example.com:80");
}

#[test]
fn a_cluster_with_a_part_that_is_missing_here_is_refused_by_its_name() {
    type Write<'a> = &'a dyn Fn(&mut Vec<u8>);
    let cases: [(Write<'_>, &str); 6] = [
        (&|out| put(out, 22, b""), "cluster.lb_subset_config is not supported here; leave it out"),
        (&|out| put(out, 900, b""), "cluster.field 900 is not supported here; leave it out"),
        (&|out| put_number(out, 6, 9), "cluster.lb_policy is not supported here; leave it out"),
        (
            &|out| put_number(out, 2, 4),
            "cluster.type is not supported here; use STATIC, STRICT_DNS, LOGICAL_DNS or EDS",
        ),
        (&|out| put(out, 4, b"\x08\xff"), "duration: these bytes are no such message"),
        (
            &|out| put(out, 10, b"\x0a\x02\x42\x00"),
            "circuit_breakers.thresholds.retry_budget is not supported here; leave it out",
        ),
    ];
    for (more, reason) in cases {
        let refused = service(&fixed("x", more)).unwrap_err();
        assert_eq!(refused, format!("cluster x: {reason}"));
    }
}

#[test]
fn endpoints_have_weights_zones_priorities_and_health() {
    let mut state = state();
    let cluster = eds("a", |out| put(out, 27, b"\x1a\x00")); // locality_weighted_lb_config
    take(&mut state, Type::Cluster, &[&cluster], false).unwrap();
    assert_eq!(state.wanted(Type::Endpoints), BTreeSet::from(["a".to_owned()]));
    assert!(changes(&mut state).is_empty(), "it waits for its endpoints");
    let near = [endpoint("10.0.0.1", 80, 1, 3), endpoint("10.0.0.2", 80, 0, 1)];
    let far = [endpoint("10.0.0.3", 80, 0, 0), endpoint("10.0.0.4", 80, 3, 0)];
    let dup = [endpoint("10.0.0.1", 80, 0, 9)];
    let all = [locality("eu", 1, 0, &near), locality("us", 3, 1, &far), locality("x", 1, 2, &dup)];
    take(&mut state, Type::Endpoints, &[&assignment("a", &all)], false).unwrap();
    let Some(Change::Set(Resource::Service(service))) = state.changes().pop() else {
        panic!("no service")
    };
    let Some(Endpoints::List(list)) = &service.value.endpoints else { panic!("no list") };
    let shown = list.iter().map(|item| {
        let endpoint = &item.value;
        let zone = endpoint.zone.as_deref().unwrap_or_default();
        format!("{} {} {zone} {}", endpoint.address, endpoint.weight, endpoint.priority)
    });
    let wanted = ["10.0.0.1:80 7500 eu 0", "10.0.0.2:80 2500 eu 0", "10.0.0.3:80 30000 us 1"];
    assert_eq!(shown.collect::<Vec<_>>(), wanted);
}

#[test]
fn wrong_endpoints_are_refused_with_the_reason() {
    let pipe = message(|out| {
        put_nested(out, 1, |out| {
            put_nested(out, 1, |out| put_nested(out, 2, |out| put_bytes(out, 1, b"/run/x")));
        });
    });
    let cases = [
        (endpoint("shop", 80, 0, 0), "\"shop\" is no IP address; use a cluster of STRICT_DNS"),
        (endpoint("10.0.0.1", 0, 0, 0), "socket_address.port_value is no port"),
        (endpoint("10.0.0.1", 70_000, 0, 0), "socket_address.port_value is no port"),
        (endpoint("", 80, 0, 0), "socket_address.address is empty"),
        (pipe, "address.pipe would be a socket of this machine; use a socket_address"),
        (Vec::new(), "lb_endpoints.endpoint is missing"),
    ];
    for (wrong, reason) in cases {
        let mut state = state();
        take(&mut state, Type::Cluster, &[&eds("a", |_| {})], false).unwrap();
        let bytes = assignment("a", &[locality("", 0, 0, &[wrong])]);
        take(&mut state, Type::Endpoints, &[&bytes], false).unwrap();
        let refusal = state.refusal(Type::Endpoints);
        assert_eq!(refusal, Some(format!("endpoints a: {reason}")));
    }
}

#[test]
fn only_the_state_of_the_world_removes_by_absence() {
    for is_delta in [false, true] {
        let mut state = state();
        let (a, b) = (fixed("a", |_| {}), fixed("b", |_| {}));
        take(&mut state, Type::Cluster, &[&a, &b], is_delta).unwrap();
        assert_eq!(changes(&mut state), ["+a", "+b"]);
        take(&mut state, Type::Cluster, &[&a], is_delta).unwrap();
        let removed: &[&str] = if is_delta { &[] } else { &["-b"] };
        assert_eq!(changes(&mut state), removed, "the same content is no change");
    }
}

#[test]
fn garbage_removes_nothing_and_is_refused() {
    let mut state = state();
    let (a, b) = (fixed("a", |_| {}), fixed("b", |_| {}));
    take(&mut state, Type::Cluster, &[&a, &b], false).unwrap();
    changes(&mut state);
    // The unreadable one may be `b`.
    take(&mut state, Type::Cluster, &[b"\xff\xff", &a], false).unwrap();
    assert!(changes(&mut state).is_empty());
    let refusal = state.refusal(Type::Cluster).unwrap();
    assert_eq!(refusal, "cluster number 1: cluster: these bytes are no such message");
    let twice = [&a[..], &fixed("a", |out| put_number(out, 6, 1))];
    take(&mut state, Type::Cluster, &twice, false).unwrap();
    assert_eq!(state.refusal(Type::Cluster).unwrap(), "cluster a: it is there twice");
    take(&mut state, Type::Cluster, &[&a, &b], false).unwrap();
    assert_eq!(state.refusal(Type::Cluster), None, "a good response mends it");
}

#[test]
fn a_refused_service_gets_its_previous_content_back() {
    let mut state = state();
    let (old, new) = (fixed("a", |_| {}), fixed("a", |out| put_number(out, 6, 1)));
    take(&mut state, Type::Cluster, &[&old], false).unwrap();
    changes(&mut state);
    take(&mut state, Type::Cluster, &[&new, &fixed("b", |_| {})], false).unwrap();
    assert_eq!(state.changes().len(), 2);
    let refused = |name: &str| (Kind::Service, name.into(), "because".to_owned());
    state.settle(&[refused("a"), refused("b")]);
    assert_eq!(state.refusal(Type::Cluster).unwrap(), "cluster a: because; cluster b: because");
    assert_eq!(*state.entries(Type::Cluster)["a"].bytes, *old);
    assert_eq!(state.entries(Type::Cluster).len(), 1);
    assert!(!state.is_dirty());
    take(&mut state, Type::Cluster, &[&new], false).unwrap();
    assert_eq!(changes(&mut state), ["+a"], "it is tried again when it is sent again");
}

#[test]
fn a_response_beyond_a_limit_is_refused_whole() {
    let mut state = state();
    let all: Vec<_> = (0..11).map(|number| fixed(&format!("c{number}"), |_| {})).collect();
    let all: Vec<&[u8]> = all.iter().map(|bytes| &**bytes).collect();
    take(&mut state, Type::Cluster, &all[..10], false).unwrap();
    let why = take(&mut state, Type::Cluster, &all, false).unwrap_err();
    assert_eq!(why, "11 resources; max_resources allows 10");
    assert_eq!(state.size().0, 10);
    let large = fixed("c0", |out| put(out, 25, &[0; 10_000]));
    let why = take(&mut state, Type::Cluster, &[&large], false).unwrap_err();
    assert!(why.ends_with("bytes of resources; max_bytes allows 10000"), "{why}");
    let (_, bytes) = state.size();
    let kept = state.entries(Type::Cluster).values().map(|entry| entry.bytes.len()).sum::<usize>();
    assert_eq!(bytes, kept);
}

#[test]
fn types_are_compared_exactly() {
    assert_eq!(Type::of(CLUSTER), Some(Type::Cluster));
    assert_eq!(Type::of(&CLUSTER.replace(".v3.", ".v2.")), None);
    let mut state = state();
    let a = fixed("a", |_| {});
    let sent = Sent { type_url: ENDPOINTS, bytes: &a, ..Sent::default() };
    let response = Response { resources: vec![sent], ..Response::default() };
    state.take(Type::Cluster, &response, false).unwrap();
    let refusal = state.refusal(Type::Cluster).unwrap();
    assert!(refusal.starts_with("cluster a: it has the type"), "{refusal}");
}

/// A route configuration with one rule, whose action answers.
fn routes(rule: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    message(|out| {
        put(out, 1, b"all");
        let host = message(|out| {
            put(out, 1, b"host");
            put(out, 2, b"shop.example.com");
            put(out, 2, b"*.shop.example.com");
            put(out, 3, &message(rule));
        });
        put(out, 2, &host);
    })
}

fn says(out: &mut Vec<u8>) {
    put(out, 7, b"\x08\xc8\x01");
}

#[test]
fn routes_become_rules_or_are_refused_with_the_place() {
    let (name, read) = RouteConfig::read(
        &routes(|out| {
            put(out, 1, b"\x0a\x02/a");
            says(out);
        }),
        None,
        "1",
    )
    .unwrap();
    let host = &read.hosts[0].value;
    assert_eq!((&*name, &*host.host.value), ("all", "shop.example.com"));
    assert_eq!((host.aliases.len(), host.rules.len()), (1, 1));
    assert_eq!(host.scope.as_deref(), Some("xds all"));
    let path = host.rules[0].value.matches.path.as_ref().unwrap();
    assert!(path.value.fits(b"/ab") && !path.value.fits(b"/b"), "a prefix of bytes");
    type Write<'a> = &'a dyn Fn(&mut Vec<u8>);
    let cases: [(Write<'_>, &str); 6] = [
        (&says, "routes.match is missing"),
        (&|out| put(out, 1, b"\x0a\x01/"), "routes.route is missing"),
        (&|out| put(out, 1, b""), "match.prefix is missing"),
        (
            &|out| put(out, 1, b"\x62\x00"),
            "match.connect_matcher is not supported here; leave it out",
        ),
        (
            &|out| put(out, 1, b"\x0a\x01/\x32\x0b\x0a\x05:path\x22\x02/x"),
            "headers.name is :path, which is not supported so",
        ),
        (
            &|out| {
                put(out, 1, b"\x0a\x01/");
                says(out);
                put(out, 13, b"");
            },
            "routes.typed_per_filter_config is not supported here; leave it out",
        ),
    ];
    for (write, reason) in cases {
        let refused = RouteConfig::read(&routes(write), None, "1").unwrap_err();
        assert_eq!(refused, format!("virtual host host, route 1: {reason}"));
    }
}

#[test]
fn a_listener_waits_for_its_routes_and_goes_with_them() {
    let manager = message(|out| {
        put(out, 3, &message(|out| put(out, 2, b"all")));
        let router = message(|out| {
            put(out, 4, &message(|out| put(out, 1, b"type.googleapis.com/envoy.Router")));
        });
        put(out, 5, &router);
    });
    let url = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.\
               HttpConnectionManager";
    let any = message(|out| {
        put(out, 1, url.as_bytes());
        put(out, 2, &manager);
    });
    let chain = message(|out| put(out, 3, &message(|out| put(out, 4, &any))));
    let listener = message(|out| {
        put(out, 1, b"edge");
        let socket = message(|out| {
            put(out, 2, b"127.0.0.1");
            put_number(out, 3, 80);
        });
        put(out, 2, &message(|out| put(out, 1, &socket)));
        put(out, 3, &chain);
    });
    let mut state = state();
    take(&mut state, Type::Listener, &[&listener], false).unwrap();
    assert_eq!(state.refusal(Type::Listener), None);
    assert_eq!(state.wanted(Type::Routes), BTreeSet::from(["all".to_owned()]));
    assert!(state.changes().is_empty(), "it waits");
    let all = routes(|out| {
        put(out, 1, b"\x0a\x01/");
        says(out);
    });
    take(&mut state, Type::Routes, &[&all], false).unwrap();
    let keys = |state: &mut State| {
        let changes = state.changes();
        state.settle(&[]);
        changes.iter().map(|change| format!("{:?} {}", change.key().0, change.key().1)).collect()
    };
    let both: Vec<String> = keys(&mut state);
    assert_eq!(both, ["Listener edge", "Routes all"]);
    take(&mut state, Type::Listener, &[], false).unwrap();
    let both: Vec<String> = keys(&mut state);
    assert_eq!(both, ["Listener edge", "Routes all"], "both are removed");
}
