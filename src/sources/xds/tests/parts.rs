//! Parts of listeners and routes that mean something else here, or nothing: each is refused, or has
//! the meaning that it has in Envoy.

use super::super::kinds::{Content, Type};
use super::super::routes::RouteConfig;
use super::listeners::{ROUTER, chain, listening, manager, put_any};
use super::{message, put, put_number, routes, says, state, take};
use crate::grpc::protobuf::put_varint;
use crate::matching::ValueMatch;
use crate::model::{FieldEdits, Item, Listener, Rule, ServerTls};

type Write<'a> = &'a dyn Fn(&mut Vec<u8>);

fn refusal(listener: &[u8]) -> String {
    let mut state = state();
    take(&mut state, Type::Listener, &[listener], false).unwrap();
    state.refusal(Type::Listener).unwrap_or_default()
}

/// Writes a number in a field of any number.
fn put_large(out: &mut Vec<u8>, field: u64, value: u64) {
    put_varint(out, field << 3);
    put_varint(out, value);
}

/// A filter of HTTP with further fields.
fn filter(url: &str, config: &[u8], more: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    message(|out| {
        put(out, 1, b"x");
        put_any(out, 4, url, config);
        more(out);
    })
}

#[test]
fn a_connection_manager_with_a_part_that_would_do_nothing_is_refused() {
    const RBAC: &str = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC";
    let cases: [(Write<'_>, &str); 8] = [
        (
            &|out| put_large(out, 45, 2),
            "http_connection_manager.path_with_escaped_slashes_action is not supported; use \
             KEEP_UNCHANGED",
        ),
        (
            &|out| put(out, 35, &message(|out| put_number(out, 5, 1))),
            "http protocol options.headers_with_underscores_action is not supported here; leave \
             it out",
        ),
        (
            &|out| put_large(out, 19, 1),
            "http_connection_manager.xff_num_trusted_hops needs use_remote_address",
        ),
        (
            &|out| {
                put(out, 23, b"\x0a\x09websocket\x1a\x00");
            },
            "upgrade_configs.enabled is false, but upgrades always pass here",
        ),
        (
            &|out| put(out, 5, &filter(RBAC, b"", |out| put_number(out, 6, 1))),
            "http_filters.typed_config is type.googleapis.com/envoy.extensions.filters.http.rbac.\
             v3.RBAC, which is not supported; leave it out",
        ),
        (
            &|out| put(out, 5, &filter(ROUTER, b"\x42\x00", |_| {})),
            "router.upstream_http_filters is not supported here; leave it out",
        ),
        (
            &|out| put_number(out, 6, 1),
            "http_connection_manager.add_user_agent is not supported here; leave it out",
        ),
        (
            &|out| put(out, 3, b"\x12\x11of the listener x"),
            "rds.route_config_name begins with words that are reserved here",
        ),
    ];
    for (more, reason) in cases {
        let listener = listening(80, &[chain(&manager("r", more), |_| {})], |_| {});
        assert_eq!(refusal(&listener), format!("listener edge: {reason}"));
    }
    let disabled = |out: &mut Vec<u8>| put(out, 5, &filter(RBAC, b"", |out| put_number(out, 7, 1)));
    let disabled = manager("r", disabled);
    assert_eq!(refusal(&listening(80, &[chain(&disabled, |_| {})], |_| {})), "");
    let options = message(|out| {
        let url = "type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.\
                   ProxyProtocol";
        put_any(out, 3, url, b"\x10\x01");
    });
    let plain = chain(&manager("r", |_| {}), |_| {});
    assert_eq!(
        refusal(&listening(80, &[plain], |out| put(out, 9, &options))),
        "listener edge: proxy_protocol.allow_requests_without_proxy_protocol is not supported \
         here; leave it out"
    );
}

/// A chain for the clients that `condition` describes, with TLS of this certificate.
fn tls_chain(condition: &[u8], cert: &str, more: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    const TLS: &str =
        "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";
    let source = |text: &str| message(|out| put(out, 3, text.as_bytes()));
    let common = message(|out| {
        let pair = message(|out| {
            put(out, 1, &source(cert));
            put(out, 2, &source("key"));
        });
        put(out, 2, &pair);
        put(out, 3, &message(|out| put(out, 1, &source("roots"))));
    });
    let context = message(|out| {
        put(out, 1, &common);
        more(out);
    });
    chain(&manager("r", |_| {}), |out| {
        put(out, 1, condition);
        put(out, 6, &message(|out| put_any(out, 3, TLS, &context)));
    })
}

/// The condition on a server name.
fn named(name: &str) -> Vec<u8> {
    message(|out| put(out, 11, name.as_bytes()))
}

#[test]
fn filter_chains_that_cannot_be_told_apart_as_in_envoy_are_refused() {
    let plain = || manager("r", |_| {});
    let with = |condition: &[u8]| tls_chain(condition, "one", |_| {});
    let cases = [
        (
            vec![with(&message(|out| put(out, 10, b"h2")))],
            "filter_chain_match.application_protocols is not supported here; leave it out",
        ),
        (
            vec![chain(&plain(), |out| put(out, 1, b"\x4a\x03tls"))],
            "filter_chains.transport_socket is missing, though filter_chain_match asks for TLS",
        ),
        (
            vec![with(b""), with(b"")],
            "listener.filter_chains are several without server_names; keep one",
        ),
        (
            vec![with(&named("a")), with(&named("A"))],
            "listener.filter_chains have the server name a twice",
        ),
        (vec![with(&named("a.*"))], "filter_chain_match.server_names has \"a.*\"; use *.DOMAIN"),
        (
            vec![with(&named("a")), tls_chain(&named("b"), "two", |out| put(out, 2, b"\x08\x01"))],
            "listener.filter_chains differ in client certificates or TLS versions; use a listener \
             for each",
        ),
        (
            vec![tls_chain(b"", "one", |out| put_number(out, 7, 1))],
            "DownstreamTlsContext.disable_stateless_session_resumption is not supported here; \
             leave it out",
        ),
    ];
    for (chains, reason) in cases {
        assert_eq!(refusal(&listening(80, &chains, |_| {})), format!("listener edge: {reason}"));
    }
}

/// The listener that these bytes become.
fn listener(bytes: &[u8]) -> Listener {
    let (_, content) = Type::Listener.read(bytes, "1").unwrap();
    let Content::Listener(listening) = content else { panic!("no listener") };
    listening.item(|_| None).unwrap().value.clone()
}

#[test]
fn the_default_chain_has_the_certificate_for_all_other_names() {
    let chains = [tls_chain(&named("a"), "one", |_| {}), tls_chain(&named("b"), "two", |_| {})];
    let strict = listener(&listening(80, &chains, |_| {}));
    assert!(strict.known_names_only);
    let more = listening(80, &chains, |out| put(out, 25, &tls_chain(b"", "three", |_| {})));
    let more = listener(&more);
    assert!(!more.known_names_only);
    let shown = more.tls.iter().map(|tls| {
        let ServerTls::Certificate(files) = &tls.value else { panic!("no certificate") };
        let cert = String::from_utf8_lossy(files.cert.value.bytes().unwrap());
        format!("{cert} {:?} {}", files.names, files.client_ca.is_some())
    });
    let shown: Vec<_> = shown.collect();
    assert_eq!(shown, ["three [\"\"] true", "one [\"a\"] false", "two [\"b\"] false"]);
}

/// A condition with this prefix, and further fields.
fn prefix(out: &mut Vec<u8>, prefix: &str, more: impl FnOnce(&mut Vec<u8>)) {
    let condition = message(|out| {
        put(out, 1, prefix.as_bytes());
        more(out);
    });
    put(out, 1, &condition);
}

/// A route to a cluster, with further fields of the action.
fn to(out: &mut Vec<u8>, more: impl FnOnce(&mut Vec<u8>)) {
    let action = message(|out| {
        put(out, 1, b"a");
        more(out);
    });
    put(out, 2, &action);
}

#[test]
fn a_route_with_a_part_that_means_something_else_here_is_refused() {
    let cases: [(Write<'_>, &str); 9] = [
        (
            &|out| prefix(out, "/", |out| put(out, 7, b"\x0a\x01k\x30\x00")),
            "query_parameters.present_match is false, which is not supported",
        ),
        (
            &|out| {
                prefix(out, "", |_| {});
                to(out, |out| put(out, 5, b"/x"));
            },
            "match.prefix is empty, which has no rewrite here; use /",
        ),
        (&|out| prefix(out, "a", |_| {}), "match.prefix does not begin with /"),
        (
            &|out| {
                let method = b"\x0a\x07:method\x22\x03GET";
                prefix(out, "/", |out| (0..2).for_each(|_| put(out, 6, method)));
            },
            "headers.name is :method twice; keep one",
        ),
        (
            &|out| {
                prefix(out, "/", |_| {});
                to(out, |out| put(out, 32, b"\x0a\x03\x12\x01a\x12\x03/ x"));
            },
            "regex_rewrite.substitution is wrong: \"/ x\" has characters that a URL cannot have",
        ),
        (
            &|out| {
                prefix(out, "/", |_| {});
                to(out, |out| put(out, 5, b"x"));
            },
            "route.prefix_rewrite does not begin with /",
        ),
        (
            &|out| prefix(out, "/", |out| put(out, 6, b"\x0a\x03a b")),
            "\"a b\" is not the name of a header field",
        ),
        (
            &|out| {
                prefix(out, "/", |_| {});
                to(out, |out| put(out, 9, b"\x0a\x09full-moon"));
            },
            "\"full-moon\" is no condition for a retry",
        ),
        (&|out| put(out, 1, b"\x52\x05\x12\x03a)("), "\"a)(\""),
    ];
    for (write, reason) in cases {
        let refused = RouteConfig::read(&routes(write), None, "1").unwrap_err();
        let wanted = format!("virtual host host, route 1: {reason}");
        assert!(refused.starts_with(&wanted), "{refused}");
    }
}

#[test]
fn a_route_configuration_is_refused_as_a_whole_for_its_own_parts() {
    let host = |domain: &str| {
        message(|out| {
            put(out, 1, b"host");
            put(out, 2, domain.as_bytes());
        })
    };
    let cases: [(Write<'_>, &str); 5] = [
        (
            &|out| put(out, 3, b"x-internal"),
            "route_configuration.internal_only_headers is not supported here; leave it out",
        ),
        (
            &|out| put_number(out, 10, 1),
            "route_configuration.most_specific_header_mutations_wins is not supported here; leave \
             it out",
        ),
        (
            &|out| ["a", "A"].iter().for_each(|domain| put(out, 2, &host(domain))),
            "route_configuration.virtual_hosts have A twice",
        ),
        (&|out| put(out, 2, &host("a/b")), "\"a/b\": it is not a host name"),
        (
            &|out| put(out, 1, b"of the listener x"),
            "route_configuration.name begins with words that are reserved here",
        ),
    ];
    for (write, reason) in cases {
        let bytes = message(|out| {
            put(out, 1, b"r");
            write(out);
        });
        assert_eq!(RouteConfig::read(&bytes, None, "1").unwrap_err(), reason);
    }
}

/// The only rule of a route configuration with this rule.
fn rule(write: impl FnOnce(&mut Vec<u8>)) -> Rule {
    let (_, read) = RouteConfig::read(&routes(write), None, "1").unwrap();
    read.hosts[0].value.rules[0].value.clone()
}

#[test]
fn an_inverted_condition_on_a_value_needs_the_field() {
    let rule = rule(|out| {
        prefix(out, "/", |out| put(out, 6, b"\x0a\x01x\x22\x01v\x40\x01"));
        says(out);
    });
    let [(name, ValueMatch::Present)] = &rule.matches.headers[..] else { panic!("{rule:?}") };
    assert_eq!(name.value, "x");
    assert!(matches!(rule.matches.without_headers[0].1, ValueMatch::Exact(_)));
}

#[test]
fn retries_follow_statuses_only_if_they_are_asked_to() {
    let on = |names: &str| {
        let rule = rule(|out| {
            prefix(out, "/", |_| {});
            to(out, |out| {
                let policy = message(|out| {
                    put(out, 1, names.as_bytes());
                    put(out, 3, b"\x08\x14"); // per_try_timeout: 20 s
                    put_number(out, 7, 418);
                });
                put(out, 9, &policy);
            });
        });
        let retries = rule.retries.unwrap().value;
        assert!(retries.per_try_timeout.is_none(), "not below the timeout of 15 s");
        let on = retries.on.unwrap_or_default();
        on.into_iter().map(|name| name.value).collect::<Vec<_>>()
    };
    assert_eq!(on("5xx"), ["5xx"]);
    assert_eq!(on("5xx,retriable-status-codes"), ["5xx", "418"]);
}

#[test]
fn the_outer_level_drops_the_changes_of_the_inner_one() {
    /// An option that adds a field, or that sets it.
    fn option(name: &str, value: &str, sets: bool) -> Vec<u8> {
        message(|out| {
            let header = message(|out| {
                put(out, 1, name.as_bytes());
                put(out, 2, value.as_bytes());
            });
            put(out, 1, &header);
            put_number(out, 3, if sets { 2 } else { 0 });
        })
    }
    let mut config = routes(|out| {
        prefix(out, "/", |_| {});
        put(out, 9, &option("X-Removed", "1", true));
        put(out, 9, &option("x-set", "inner", false));
        put(out, 9, &option("x-kept", "inner", true));
        put(out, 9, &option("x-empty", "", true));
        says(out);
    });
    put(&mut config, 8, b"x-removed");
    put(&mut config, 6, &option("X-Set", "outer", true));
    let (_, read) = RouteConfig::read(&config, None, "1").unwrap();
    let edits = read.hosts[0].value.rules[0].value.request_headers.clone().unwrap();
    let FieldEdits { set, add, remove } = *edits;
    let shown = |all: Vec<(Item<String>, Item<String>)>| {
        all.into_iter().map(|(name, value)| format!("{}: {}", name.value, value.value))
    };
    let set: Vec<_> = shown(set).collect();
    assert_eq!(set, ["x-kept: inner", "X-Set: outer"]);
    assert_eq!((shown(add).count(), remove.len()), (0, 1));
}
