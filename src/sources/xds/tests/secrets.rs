//! Secrets: the resources that wait for one, and the result of each.

use super::*;
use crate::model::{ClientTls, ServerTls};

const TLS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.";
const TCP: &str = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";

/// A certificate and its key, in PEM.
fn pair() -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let made = rcgen::CertificateParams::default().self_signed(&key).unwrap();
    (made.pem(), key.serialize_pem())
}

/// A `DataSource` with a text.
fn data(text: &str) -> Vec<u8> {
    message(|out| put(out, 3, text.as_bytes()))
}

fn certificate(name: &str, (chain, key): (&str, &str)) -> Vec<u8> {
    message(|out| {
        put(out, 1, name.as_bytes());
        let pair = message(|out| {
            put(out, 1, &data(chain));
            put(out, 2, &data(key));
        });
        put(out, 2, &pair);
    })
}

fn roots(name: &str, chain: &str) -> Vec<u8> {
    message(|out| {
        put(out, 1, name.as_bytes());
        put(out, 4, &message(|out| put(out, 1, &data(chain))));
    })
}

/// An `SdsSecretConfig`.
fn named(name: &str) -> Vec<u8> {
    message(|out| {
        put(out, 1, name.as_bytes());
        put(out, 2, &message(|out| put(out, 3, b"")));
    })
}

fn any(url: &str, value: &[u8]) -> Vec<u8> {
    message(|out| {
        put(out, 1, url.as_bytes());
        put(out, 2, value);
    })
}

/// A transport socket whose `common_tls_context` has `secret` in a field.
fn socket(kind: &str, field: u64, secret: &[u8]) -> Vec<u8> {
    let common = message(|out| put(out, field, secret));
    let context = message(|out| put(out, 1, &common));
    message(|out| put(out, 3, &any(&format!("{TLS}{kind}TlsContext"), &context)))
}

/// A listener with a filter. Each secret, as its `SdsSecretConfig`, is a chain with a certificate,
/// the first one for all names.
fn with_filter(name: &str, port: u64, filter: &[u8], secrets: &[&[u8]]) -> Vec<u8> {
    message(|out| {
        put(out, 1, name.as_bytes());
        put_nested(out, 2, |out| {
            put_nested(out, 1, |out| {
                put_bytes(out, 2, b"127.0.0.1");
                put_number(out, 3, port);
            });
        });
        let filter = message(|out| put(out, 4, filter));
        for (number, secret) in secrets.iter().enumerate() {
            let chain = message(|out| {
                if number > 0 {
                    let name = format!("{number}.example.com");
                    put(out, 1, &message(|out| put(out, 11, name.as_bytes())));
                }
                put(out, 3, &filter);
                put(out, 6, &socket("Downstream", 6, secret));
            });
            put(out, 3, &chain);
        }
        if secrets.is_empty() {
            put(out, 3, &message(|out| put(out, 3, &filter)));
        }
    })
}

/// A listener of bytes with the certificates of `secrets`.
fn listener(name: &str, port: u64, secrets: &[&[u8]]) -> Vec<u8> {
    with_filter(name, port, &any(TCP, &message(|out| put(out, 2, b"shop"))), secrets)
}

fn large() -> State {
    State::new(Limits { resources: 10, bytes: 100_000 }, false)
}

/// The listeners that are set, each with the certificate that it has.
fn listeners(state: &mut State) -> Vec<(String, String)> {
    let shown = |change: Change| {
        let Change::Set(Resource::Listener(item)) = change else { return None };
        let content = match item.value.tls.first().map(|tls| &tls.value) {
            Some(ServerTls::Certificate(files)) => files.cert.value.bytes().unwrap().to_vec(),
            _ => Vec::new(),
        };
        Some((item.value.name.value.clone(), String::from_utf8(content).unwrap()))
    };
    let found = state.changes().into_iter().filter_map(shown).collect();
    state.settle(&[]);
    found
}

#[test]
fn a_listener_waits_for_its_certificate_and_nothing_else_does() {
    let (mut state, (chain, key), (other, other_key)) = (large(), pair(), pair());
    let (edge, plain) = (listener("edge", 443, &[&named("own")]), listener("plain", 80, &[]));
    take(&mut state, Type::Listener, &[&edge, &plain], true).unwrap();
    assert_eq!(state.refusal(Type::Listener), None);
    assert_eq!(listeners(&mut state), [("plain".to_owned(), String::new())]);
    assert_eq!(state.wanted(Type::Secret), BTreeSet::from(["own".to_owned()]));
    assert_eq!(state.waiting(Type::Listener), [("edge".to_owned(), "secret own".to_owned())]);
    assert_eq!(state.users_of(Type::Secret, "own"), "listener edge");
    state.note_absent(Type::Secret, "own");
    assert!(listeners(&mut state).is_empty(), "also if the server does not have it");

    take(&mut state, Type::Secret, &[&certificate("own", (&chain, &key))], true).unwrap();
    assert_eq!(listeners(&mut state), [("edge".to_owned(), chain.clone())]);
    assert!(state.waiting(Type::Listener).is_empty());
    take(&mut state, Type::Secret, &[&certificate("own", (&other, &other_key))], true).unwrap();
    assert_eq!(listeners(&mut state), [("edge".to_owned(), other.clone())]);

    for (wrong, why) in [
        (
            certificate("own", (&chain, &other_key)),
            "the private key does not belong to the certificate",
        ),
        (certificate("own", ("none", &key)), "there is no certificate in PEM"),
        (
            certificate("own", (&chain, "none")),
            "there is no private key in PEM without a passphrase",
        ),
        (roots("own", "none"), "there is no certificate in PEM"),
    ] {
        state.begin(Type::Secret);
        take(&mut state, Type::Secret, &[&wrong], true).unwrap();
        assert_eq!(state.refusal(Type::Secret).unwrap(), format!("secret own: {why}"));
        assert!(listeners(&mut state).is_empty(), "the old one is used: {why}");
    }
    let response = Response { removed: vec!["own"], ..Response::default() };
    state.take(Type::Secret, &response, true).unwrap();
    assert!(listeners(&mut state).is_empty(), "one that is in use stays");
    let response = Response { removed: vec!["edge"], ..Response::default() };
    state.take(Type::Listener, &response, true).unwrap();
    let gone = |change: &Change| matches!(change, Change::Remove(Kind::Listener, _));
    assert!(state.changes().iter().any(gone));
    assert_eq!((state.wanted(Type::Secret).len(), state.entries(Type::Secret).len()), (0, 0));
}

#[test]
fn a_cluster_whose_secret_is_of_another_kind_is_refused_until_it_is_right() {
    let (mut state, (chain, key)) = (large(), pair());
    let inside = fixed("inside", |out| put(out, 24, &socket("Upstream", 7, &named("ca"))));
    take(&mut state, Type::Cluster, &[&inside], true).unwrap();
    assert!(changes(&mut state).is_empty());
    take(&mut state, Type::Secret, &[&certificate("ca", (&chain, &key))], true).unwrap();
    assert!(changes(&mut state).is_empty());
    let refused = &state.refused[Type::Cluster.index()]["inside"];
    assert_eq!(refused, "the secret ca has no validation_context");
    take(&mut state, Type::Secret, &[&roots("ca", &chain)], true).unwrap();
    let Some(Change::Set(Resource::Service(service))) = state.changes().pop() else {
        panic!("no service")
    };
    let Some(ClientTls::Files(files)) = service.value.tls.as_ref().map(|tls| &tls.value) else {
        panic!("no TLS")
    };
    assert_eq!(files.ca.as_ref().unwrap().value.bytes(), Ok(chain.as_bytes()));
    assert!(state.refused[Type::Cluster.index()].is_empty());
}

#[test]
fn a_secret_comes_over_the_same_stream_only() {
    for (config, why) in [
        (message(|out| put(out, 1, b"own")), "sds_secret_config.sds_config is missing"),
        (
            message(|out| {
                put(out, 1, b"own");
                put(out, 2, &message(|out| put(out, 1, b"/etc/secret")));
            }),
            "config_source.path names a file",
        ),
    ] {
        let edge = listener("edge", 443, &[&config]);
        let mut state = large();
        take(&mut state, Type::Listener, &[&edge], true).unwrap();
        let refusal = state.refusal(Type::Listener).unwrap();
        assert!(refusal.starts_with(&format!("listener edge: {why}")), "{refusal}");
    }
}

#[test]
fn only_endpoints_of_a_service_as_it_is_published_change_alone() {
    let (mut state, (chain, _)) = (large(), pair());
    let at = |host: &str| assignment("a", &[locality("", 1, 0, &[endpoint(host, 80, 0, 0)])]);
    let move_to = |state: &mut State, host: &str| {
        take(state, Type::Endpoints, &[&at(host)], true).unwrap();
        let only = state.only_moves();
        (only, changes(state))
    };
    let set = || vec!["+a".to_owned()];
    take(&mut state, Type::Cluster, &[&eds("a", |_| {})], true).unwrap();
    assert!(!state.only_moves() && changes(&mut state).is_empty());
    assert_eq!(move_to(&mut state, "10.0.0.1"), (false, set()), "the first ones");
    assert_eq!(move_to(&mut state, "10.0.0.2"), (true, set()));
    let other = eds("a", |out| put_number(out, 6, 1));
    take(&mut state, Type::Cluster, &[&other], true).unwrap();
    assert_eq!(move_to(&mut state, "10.0.0.3"), (false, set()), "with the cluster");
    let secret = eds("a", |out| put(out, 24, &socket("Upstream", 7, &named("ca"))));
    take(&mut state, Type::Cluster, &[&secret], true).unwrap();
    changes(&mut state);
    assert_eq!(move_to(&mut state, "10.0.0.4"), (false, set()), "the cluster waits");
    take(&mut state, Type::Secret, &[&roots("ca", &chain)], true).unwrap();
    assert!(!state.only_moves());
    assert_eq!(changes(&mut state), ["+a"]);
    assert_eq!(move_to(&mut state, "10.0.0.5"), (true, set()));
}

#[test]
fn while_a_change_waits_the_one_before_gets_new_endpoints_and_certificates() {
    let (mut state, (chain, key), (other, other_key)) = (large(), pair(), pair());
    let at = |host: &str| assignment("a", &[locality("", 1, 0, &[endpoint(host, 80, 0, 0)])]);
    take(&mut state, Type::Cluster, &[&eds("a", |_| {})], true).unwrap();
    take(&mut state, Type::Endpoints, &[&at("10.0.0.1")], true).unwrap();
    changes(&mut state);
    let secret = eds("a", |out| put(out, 24, &socket("Upstream", 7, &named("ca"))));
    take(&mut state, Type::Cluster, &[&secret], true).unwrap();
    changes(&mut state);
    take(&mut state, Type::Endpoints, &[&at("10.0.0.2")], true).unwrap();
    let Some(Change::Set(Resource::Service(service))) = state.changes().pop() else {
        panic!("no service")
    };
    let Some(Endpoints::List(list)) = &service.value.endpoints else { panic!("no list") };
    assert_eq!(list[0].value.address.to_string(), "10.0.0.2:80");
    assert!(service.value.tls.is_none(), "the cluster before");
    state.settle(&[]);
    assert_eq!(state.waiting(Type::Cluster), [("a".to_owned(), "secret ca".to_owned())]);

    let edge = listener("edge", 443, &[&named("own")]);
    take(&mut state, Type::Listener, &[&edge], true).unwrap();
    take(&mut state, Type::Secret, &[&certificate("own", (&chain, &key))], true).unwrap();
    assert_eq!(listeners(&mut state), [("edge".to_owned(), chain)]);
    let two = listener("edge", 443, &[&named("own"), &named("more")]);
    take(&mut state, Type::Listener, &[&two], true).unwrap();
    listeners(&mut state);
    take(&mut state, Type::Secret, &[&certificate("own", (&other, &other_key))], true).unwrap();
    assert_eq!(listeners(&mut state), [("edge".to_owned(), other)]);
    assert_eq!(state.waiting(Type::Listener), [("edge".to_owned(), "secret more".to_owned())]);
}

#[test]
fn a_listener_that_changes_to_routes_that_come_later_gets_them() {
    const MANAGER: &str = "type.googleapis.com/envoy.extensions.filters.network.\
                           http_connection_manager.v3.HttpConnectionManager";
    let edge = |routes: &str| {
        let rds = message(|out| {
            put(out, 1, &message(|out| put(out, 3, b"")));
            put(out, 2, routes.as_bytes());
        });
        let manager = any(MANAGER, &message(|out| put(out, 3, &rds)));
        with_filter("edge", 80, &manager, &[])
    };
    let named = |name: &str| message(|out| put(out, 1, name.as_bytes()));
    let mut state = large();
    take(&mut state, Type::Listener, &[&edge("one")], true).unwrap();
    assert_eq!(state.refusal(Type::Listener), None);
    take(&mut state, Type::Routes, &[&named("one")], true).unwrap();
    assert_eq!(listeners(&mut state).len(), 1);
    take(&mut state, Type::Listener, &[&edge("two")], true).unwrap();
    listeners(&mut state);
    take(&mut state, Type::Routes, &[&named("two")], true).unwrap();
    assert_eq!(listeners(&mut state).len(), 1);
    assert!(state.waiting(Type::Listener).is_empty());
}
