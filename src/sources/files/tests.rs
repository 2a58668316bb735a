//! Tests of valid configurations, and of the error for each mistake.

use std::collections::HashMap;
use std::path::PathBuf;

use super::*;
use crate::compile::registry::Registry;

/// Writes files, loads them, and compiles them. Each argument of `-c` is a list of (name, text).
fn compiled(
    arguments: &[&[(&str, &str)]],
    environment: &[(&str, &str)],
) -> Result<Compiled, String> {
    let root = tempfile::tempdir().unwrap();
    let mut paths: Vec<PathBuf> = Vec::new();
    for (index, files) in arguments.iter().enumerate() {
        let directory = root.path().join(index.to_string());
        std::fs::create_dir(&directory).unwrap();
        for (name, text) in *files {
            std::fs::write(directory.join(name), text).unwrap();
        }
        paths.push(directory);
    }
    let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let environment: HashMap<String, String> = environment.iter().map(pair).collect();
    let loaded = load(&paths, &environment);
    let result = compile(&loaded, 1, &mut Registry::new(1), &Resolutions::new());
    let prefix = format!("{}/", root.path().display());
    result.map_err(|errors| errors.to_string().replace(&prefix, ""))
}

fn errors(text: &str) -> String {
    compiled(&[&[("a.yaml", text)]], &[]).map(|_| ()).expect_err("mistakes")
}

#[test]
fn a_mistake_is_shown_with_its_line_a_caret_and_what_to_write_instead() {
    assert_eq!(
        errors("listeners:\n  web: {bind: 127.0.0.1:80, timeouts: {heder: 5s}}\n"),
        "0/a.yaml:2:40: error: unknown field \"heder\"\n \
         2 |   web: {bind: 127.0.0.1:80, timeouts: {heder: 5s}}\n   \
         |                                        ^^^^^\n   \
         = help: did you mean \"header\"?\n"
    );
}

#[test]
fn tokens_need_keys_and_a_known_issuer() {
    for (jwt, demand, expected) in [
        ("{issuer: x, jwks: {}}", "id", "this provider has no keys"),
        ("{issuer: x, jwks: {file: a, url: b}}", "id", "this provider has no keys"),
        ("{issuer: x, jwks: {url: ftp://x}}", "id", "not a URL"),
        ("{issuer: x, jwks: {file: nowhere.json}}", "id", "nowhere.json: No such file"),
        ("{issuer: x, jwks: {file: a.yaml}}", "id", "not a JSON Web Key Set"),
        (
            "{issuer: x, jwks: {url: https://x}, header: a b}",
            "id",
            "not the name of a header field",
        ),
        ("{issuer: x, jwks: {url: https://x}}", "ip", "expected one of: id"),
        ("{issuer: x, jwks: {url: https://x}}", "{providers: []}", "whose token?"),
        ("{jwks: {url: https://x}}", "id", "issuer"),
    ] {
        let text = format!(
            "jwt: {{id: {jwt}}}\nservices: {{a: {{endpoints: [], jwt: {demand}}}}}\n\
             listeners: {{web: {{bind: 127.0.0.1:1}}}}\nroutes: {{h: [{{to: a}}]}}\n"
        );
        let errors = errors(&text);
        assert!(errors.contains(expected), "{jwt}, {demand}: {errors}");
    }
}

#[test]
fn health_checks_ask_one_thing_that_can_be_asked() {
    let service = |check: &str| {
        format!(
            "services:\n  a: {{endpoints: ['10.0.0.1:1'], protocol: http1, \
             health_check: {check}}}\n  b c: {{endpoints: [], health_check: {{http: /}}}}\n"
        )
    };
    for (check, expected) in [
        ("{}", "needs one of http, grpc and tcp"),
        ("{tcp: true, http: /}", "either `http` or `tcp`, and not both"),
        ("{tcp: false}", "only `tcp: true` can be asked for"),
        ("{tcp: yes}", "expected true or false"),
        ("{grpc: false}", "expected `true`, or {service: NAME}"),
        ("{grpc: my.Service}", "expected `true`, or {service: NAME}"),
        ("{grpc: true}", "gRPC needs HTTP/2"),
        ("{http: healthz}", "\"healthz\" is not a path"),
        ("{http: '/a b'}", "is not a path"),
        ("{http: {}}", "\"path\" is missing"),
        ("{http: {path: /, method: POST}}", "unknown value \"POST\""),
        ("{http: {path: /, status: [200, 2xx]}}", "\"2xx\" is no status of a final answer"),
        ("{http: {path: /, status: 299-200}}", "write 200 or 200-299"),
        ("{http: {path: /, status: 100}}", "write 200 or 200-299"),
        ("{http: {path: /, host: 'a b'}}", "\"a b\" cannot be used as a host"),
        ("{http: /, healthy: 0}", "at least one check is needed"),
        ("{http: /, interval: 0s}", "a length of time cannot be zero"),
        ("{http: /, panic_threshold: 50}", "write 0% to 100%"),
        ("{http: /, panic_threshold: 101%}", "write 0% to 100%"),
        ("{htp: /}", "did you mean \"http\"?"),
        // The name of the second service, `b c`, is not a valid host.
        ("{http: /}", "write `host: NAME`"),
    ] {
        let errors = errors(&service(check));
        assert!(errors.contains(expected), "{check}: {errors}");
        assert!(!errors.contains(":0:"), "a place that is none: {errors}");
    }
}

#[test]
fn health_checks_have_defaults_and_short_forms() {
    let shown = |check: &str| {
        let protocol = if check.contains("grpc") { "grpc" } else { "http1" };
        let text = format!(
            "services: {{shop: {{endpoints: ['10.0.0.1:1'], protocol: {protocol}, \
             health_check: {check}}}}}"
        );
        let compiled = compiled(&[&[("a.yaml", &text)]], &[]).unwrap_or_else(|e| panic!("{e}"));
        let service = &compiled.snapshot.services[0];
        assert!(service.endpoints.load().list[0].health.is_some());
        service.health.as_ref().unwrap().to_string()
    };
    let rest = "; every 2s within 1s; healthy after 2, unhealthy after 3";
    assert_eq!(shown("{tcp: true}"), format!("tcp{rest}"));
    assert_eq!(shown("{grpc: true}"), format!("grpc{rest}"));
    assert_eq!(shown("{grpc: {service: a.B}}"), format!("grpc a.B{rest}"));
    assert_eq!(shown("{http: /healthz?x}"), format!("GET /healthz?x of shop, good is 200{rest}"));
    assert_eq!(
        shown(
            "{http: {path: /, method: HEAD, host: x.y, status: [200-299, 401]}, interval: 5s, \
             timeout: 100ms, healthy: 1, unhealthy: 10, panic_threshold: 0%}"
        ),
        "HEAD / of x.y, good is 200-299, 401; every 5s within 100ms; \
         healthy after 1, unhealthy after 10"
    );
}

#[test]
fn captured_traffic_is_checked_like_everything_else() {
    for (mesh, expected) in [
        ("inbound: {bind: nowhere}", "cannot be where captured connections arrive"),
        ("inbound: {bind: unix:/a}", "write IP:PORT or [IPv6]:PORT"),
        ("inbound: {probes: [{port: 1, path: /a}]}", "add `bind: 0.0.0.0:15006`"),
        ("inbound: {bind: 0.0.0.0:1, probes: [{port: 1, path: a}]}", "is not a path"),
        ("inbound: {bind: 0.0.0.0:1, mtls: strict}", "`strict` needs an identity"),
        ("inbound: {bind: 0.0.0.0:1, ports: {http: strict}}", "\"http\" is not a port"),
        ("inbound: {bind: 0.0.0.0:1, protocols: {1: udp}}", "unknown value \"udp\""),
        (
            "inbound: {bind: 0.0.0.0:1, application: loopback, source: client}",
            "write `source: proxy`, or `application: original`",
        ),
        ("inbound: {bind: 0.0.0.0:1}, outbound: {bind: 0.0.0.0:1}", "is taken already"),
        ("outbound: {bind: 0.0.0.0:1, hosts: nobody}", "no routes for \"nobody\""),
        ("outbound: {bind: 0.0.0.0:1, unknown: no}", "unknown value \"no\""),
        ("dns: {bind: here}", "write 127.0.0.1:15053"),
        ("outbound: {bind: 0.0.0.0:1}, intercept: {mark: 0}", "0 means no mark"),
        (
            "outbound: {bind: 0.0.0.0:1}, intercept: {exclude: {outbound: {cidrs: 10.0.0.1/8}}}",
            "write 10.0.0.0/8 for the range",
        ),
    ] {
        let errors = errors(&format!("mesh: {{{mesh}}}\n"));
        assert!(errors.contains(expected), "{mesh}: {errors}");
    }
    let twice = errors(
        "services: {a: {addresses: 10.9.0.1:80, endpoints: []}, \
         b: {addresses: [10.9.0.2:80, 10.9.0.1:80, x], endpoints: []}}\n",
    );
    assert!(twice.contains("10.9.0.1:80 is the address of another service"), "{twice}");
    assert!(twice.contains("\"x\" is not a virtual address"), "{twice}");
    let listener = errors(
        "mesh: {inbound: {bind: 0.0.0.0:1}}\nroutes: {a: [{respond: {}}]}\n\
         listeners: {mesh.inbound: {bind: 0.0.0.0:2}, \
         t: {bind: 0.0.0.0:3, protocol: tls, tls: mesh}}\n",
    );
    assert!(listener.contains("is a reserved listener name"), "{listener}");
    assert!(
        listener.contains("this listener passes TLS through and does not terminate it"),
        "{listener}"
    );
}

#[test]
fn what_rules_leave_alone_is_read_strictly() {
    for (written, words) in [
        ("exclude: {inbound: {ports: [22, 70000]}}", "\"70000\" is not a port"),
        ("exclude: {outbound: {cidrs: 10.0.0.1/8}}", "write 10.0.0.0/8 for the range"),
        ("exclude: {inbound: {interfaces: 'a;b'}}", "not the name of an interface"),
        ("exclude: {ports: 22}", "unknown field \"ports\""),
        ("udp: 9-8", "write 8080, 8000-8100 or all"),
        ("when_dead: ajar", "closed"),
    ] {
        let said = errors(&format!("mesh:\n  intercept: {{{written}}}\n"));
        assert!(said.starts_with("0/a.yaml:2:"), "{written}: {said}");
        assert!(said.contains(words), "{written}: {said}");
    }
}

#[test]
fn ten_mistakes_are_ten_errors() {
    let text = "\
listeners:
  one: {bind: nowhere}
  two: {protocol: tcp, bind: 127.0.0.1:1}
  three: {bind: 127.0.0.1:2, service: shop}
  four: {bnd: 127.0.0.1:3, bind: 127.0.0.1:3}
routes:
  a.example.com:
    - {match: {path: relative}, to: shop}
    - {to: shpo}
    - {to: shop, redirect: {scheme: https}}
services:
  shop: {endpoints: [localhost:80]}
  slow: {endpoints: [], timeout: soon}
  secret: {endpoints: [], tracing: true}
";
    let errors = errors(text);
    assert_eq!(errors.matches(": error: ").count(), 10, "{errors}");
    assert!(errors.contains("telemetry: {tracing:"), "{errors}");
    assert!(errors.contains("did you mean \"shop\"?"), "{errors}");
}

#[test]
fn an_empty_document_at_the_end_is_only_a_line() {
    let text = "---\nlisteners: {a: {bind: 127.0.0.1:80}}\n---\n";
    assert!(compiled(&[&[("a.yaml", text)]], &[]).is_ok());
    let object = "---\napiVersion: v1\nkind: Service\n";
    let errors = errors(&format!("{text}{object}"));
    assert!(errors.contains("objects of Kubernetes"), "{errors}");
}

#[test]
fn each_mistake_has_its_words() {
    for (text, words) in [
        ("a: [", "this [ is not closed"),
        ("- a", "a file is a map of sections, not a list"),
        ("a: 1\n---\nb: 2\n", "a second document"),
        ("listeners: {a: {bind: 127.0.0.1:1}, a: {bind: 127.0.0.1:2}}", "\"a\" appears twice"),
        ("listeners: {a: &x {bind: 127.0.0.1:1}, b: *x}", "aliases"),
        ("listeners: {a: {}}", "\"bind\" is missing"),
        ("listeners: {a: {bind: 127.0.0.1:1, request_id: maybe}}", "expected true or false"),
        ("limits: {headers: many}", "expected a number, found \"many\""),
        ("limits: {header_bytes: 5 apples}", "not a number of bytes"),
        ("limits: {headers: 1000}", "from 1 to 256 fields"),
        (
            "limits: {http2: {ping_frames: 3}}",
            "a limit below 10 frames would close normal connections",
        ),
        ("limits: {http2: {window: 0s}}", "cannot be zero"),
        ("limits: {http2: {data_overhead: 1KiB}}", "this must be at least 25600 bytes"),
        ("drain: 0s", "cannot be zero"),
        ("tcp: {keepalive: {probes: 0}}", "this must be from 1 to 127"),
        ("tcp: {keepalive: {time: 500ms}}", "this must be from 1s to 32767s"),
        ("listeners: {a: {bind: 127.0.0.1:1, tcp: {keepalive: off}}}", "expected `none`"),
        ("services: {a: {endpoints: [], tcp: {user_timeout: 500ms}}}", "at least 1s, or none"),
        ("drain: {outbound: never}", "\"never\" is neither after, with nor a length of time"),
        ("admin: {bind: here}", "not an address to listen on"),
        ("runtime: {workers: 0}", "neither auto nor a number"),
        ("routes: {\"a.*\": []}", "a wildcard may only be the first label"),
        ("routes: {a: {respond: {status: 99}}}", "between 200 and 599"),
        ("routes: {a: {redirect: {}}}", "this redirects to itself"),
        (
            "routes: {a: {headers: {request: {set: {host: b}}}, respond: {}}}",
            "cannot be changed in",
        ),
        (
            "routes: {a: [{respond: {}}, {match: {path: /x}, respond: {}}]}",
            "no request reaches this rule",
        ),
        (
            "routes: {a: {match: {method: [GET, CONNECT], path: '/*'}, respond: {}}}",
            "a CONNECT has no path that this rule could match",
        ),
        (
            "routes: {a: {match: {method: CONNECT, query: {b: c}}, respond: {}}}",
            "a CONNECT has no query",
        ),
        ("routes: {a: {match: {method: CONNECT}, respond: {}}}", "only a rule with `to`"),
        (
            "services: {s: {endpoints: []}}\n\
             routes: {a: {match: {method: CONNECT}, rewrite: {host: b}, to: s}}",
            "a CONNECT cannot be rewritten",
        ),
        ("routes: {a: {match: {headers: {b: \"~(\"}}, respond: {}}}", "not a valid regex"),
        ("services: {a: {}}", "needs one of endpoints, versions and dns"),
        ("services: {a: {dns: nohost}}", "is not HOST:PORT"),
        ("services: {a: {dns: {address: nohost}}}", "is not HOST:PORT"),
        ("services: {a: {dns: {address: 'a:1', family: inet}}}", "family"),
        ("services: {a: {endpoints: [], balance: best}}", "expected one of: least-request"),
        (
            "services: {a: {endpoints: [], http2: {max_concurrent_streams: 0}}}",
            "without streams nothing can be asked",
        ),
        (
            "services: {a: {endpoints: [], http2: {connection_window: 1KiB}}}",
            "this must be from 65535 to 2147483647 bytes",
        ),
        ("authorization: {name: a}", "expected a list"),
        ("authorization: [{to: {service: '*'}}]", "\"action\" is missing"),
        (
            "authorization: [{action: custom, to: {ports: 1}}]",
            "expected one of: allow, deny, audit",
        ),
        ("authorization: [{action: deny}]", "applies to every client and every service"),
        ("authorization: [{action: allow, from: {}}]", "`from` has no condition"),
        ("authorization: [{action: allow, from: }]", "`from` has no condition"),
        ("authorization: [{action: allow, from: []}]", "the list is empty"),
        ("authorization: [{action: allow, to: [{ports: 1}, {}]}]", "`to` has no condition"),
        ("authorization: [{action: allow, when: {headers: {}}}]", "`when` has no condition"),
        ("authorization: [{action: allow, from: {identities: []}}]", "the list is empty"),
        ("authorization: [{action: allow, from: {identities: }}]", "expected text"),
        ("authorization: [{action: allow, from: {identites: a}}]", "did you mean \"identities\"?"),
        ("authorization: [{action: allow, from: {identities: http://a/b}}]", "not a SPIFFE ID"),
        ("authorization: [{action: allow, from: {identities: a/*/b}}]", "is not a pattern"),
        (
            "authorization: [{action: allow, from: {not_identities: '*'}}]",
            "this rule never matches",
        ),
        ("authorization: [{action: allow, from: {ips: 10.0.0.0/33}}]", "not a range of IP"),
        ("authorization: [{action: deny, from: {ips: 10.1.0.0/8}}]", "write 10.0.0.0/8 for"),
        ("authorization: [{action: deny, to: {ports: 0}}]", "between 1 and 65535"),
        ("authorization: [{action: deny, to: {ports: 65536}}]", "expected a number up to 65535"),
        ("authorization: [{action: deny, to: {hosts: 'a:80'}}]", "compared without ports"),
        ("authorization: [{action: deny, to: {methods: get}}]", "in capitals: GET"),
        ("authorization: [{action: deny, to: {paths: /a/../b}}]", "write /b"),
        ("authorization: [{action: deny, to: {paths: '/%61/*'}}]", "write /a/*"),
        ("authorization: [{action: deny, to: {paths: '/a*'}}]", "must follow a slash"),
        ("authorization: [{action: deny, to: {paths: '/a?b'}}]", "without its query"),
        ("authorization: [{action: deny, to: {paths: '~('}}]", "not a valid regex"),
        (
            "authorization: [{action: deny, when: {headers: {a b: c}}}]",
            "not the name of a header field",
        ),
        ("authorization: [{action: audit, dry_run: true, to: {ports: 1}}]", "decides nothing"),
        (
            "services: {shop: {endpoints: []}}\n\
             authorization: [{action: deny, to: {service: shpo}}]",
            "did you mean \"shop\"?",
        ),
        (
            "services: {db: {endpoints: [], protocol: tcp}}\n\
             authorization: [{action: deny, to: {service: db, methods: GET}}]",
            "\"db\" is a tcp service",
        ),
        (
            "authorization: [{name: a, action: deny, to: {ports: 1}},\n\
             {name: a, action: deny, to: {ports: 2}}]",
            "another rule is called \"a\", at 0/a.yaml:1",
        ),
        ("drain: ${NOT_SET}", "the environment has no variable \"NOT_SET\""),
    ] {
        let errors = errors(text);
        assert!(errors.contains(words), "{text}: {errors}");
        assert_eq!(errors.matches("error: ").count(), 1, "{text}: {errors}");
    }
}

#[test]
fn files_of_a_directory_are_one_and_later_directories_override() {
    let base: &[(&str, &str)] = &[
        ("listeners.yaml", "listeners: {web: {bind: \"127.0.0.1:${PORT:-80}\"}}"),
        ("services.yml", "services: {a: {endpoints: [10.0.0.1:1]}, b: {endpoints: []}}"),
        ("ignored.txt", "not yaml: ["),
    ];
    let over: &[(&str, &str)] = &[("x.yaml", "services: {a: {endpoints: [10.0.0.2:2]}}")];
    let result = compiled(&[base, over], &[("PORT", "8080")]);
    let snapshot = result.unwrap_or_else(|errors| panic!("{errors}")).snapshot;
    assert_eq!(snapshot.listeners[0].binds[0].to_string(), "127.0.0.1:8080");
    assert_eq!(snapshot.services[0].endpoints.load().list[0].address.to_string(), "10.0.0.2:2");
    assert_eq!(snapshot.services.len(), 2);
    let twice: &[(&str, &str)] = &[
        ("1.yaml", "services: {a: {endpoints: []}}"),
        ("2.yaml", "services:\n  a: {endpoints: []}"),
    ];
    let errors = compiled(&[twice], &[]).map(|_| ()).unwrap_err();
    assert!(errors.contains("0/2.yaml:2:3: error: \"a\" appears twice, first at 0/1.yaml:1"));
}

#[test]
fn an_empty_file_among_others_is_a_warning_which_strict_makes_an_error() {
    let root = tempfile::tempdir().unwrap();
    let listener = "listeners: {a: {bind: 127.0.0.1:1}}\nroutes: {a: {respond: {}}}";
    std::fs::write(root.path().join("a.yaml"), listener).unwrap();
    std::fs::write(root.path().join("b.yaml"), "").unwrap();
    std::fs::write(root.path().join("c.yaml"), "# services: {}\n").unwrap();
    let checked = |strict| check(&[root.path().to_owned()], &HashMap::new(), strict);
    let report = checked(false);
    assert!(report.accepted, "{}", report.mistakes);
    assert_eq!(report.summary, "ok: 1 listener, 0 services, 1 warning");
    assert!(report.mistakes.contains("b.yaml:1:1: warning: this file is empty"));
    let report = checked(true);
    assert!(!report.accepted && report.mistakes.contains("b.yaml:1:1: error: this file is empty"));
}

#[test]
fn authorization_rules_of_all_files_of_a_directory_hold() {
    let base: &[(&str, &str)] = &[
        ("1.yaml", "authorization: [{name: one, action: deny, to: {ports: 1}}]"),
        ("2.yaml", "authorization:\n- {action: deny, to: {ports: 2}}"),
    ];
    let result = compiled(&[base], &[]);
    let snapshot = result.unwrap_or_else(|errors| panic!("{errors}")).snapshot;
    let rule = |rule: &crate::authz::Rule| format!("{} {}", rule.name, rule.place);
    let rules: Vec<String> = snapshot.authorization.rules().map(rule).collect();
    assert!(rules[0].starts_with("one ") && rules[0].ends_with("1.yaml:1"), "{rules:?}");
    assert!(rules[1].starts_with("authorization#2 ") && rules[1].ends_with("2.yaml:2"));
    let over: &[(&str, &str)] = &[("x.yaml", "authorization: []")];
    let result = compiled(&[base, over], &[]);
    assert!(result.unwrap_or_else(|errors| panic!("{errors}")).snapshot.authorization.is_empty());
}

#[test]
fn what_is_not_text_is_one_clear_error() {
    let root = tempfile::tempdir().unwrap();
    for (bytes, words) in [(&b"\0\x01\x02"[..], "NUL"), (&b"a: 1\n\xff\xfe"[..], "not UTF-8")] {
        std::fs::write(root.path().join("a.yaml"), bytes).unwrap();
        let loaded = load(&[root.path().to_owned()], &HashMap::new());
        let result = compile(&loaded, 1, &mut Registry::new(1), &Resolutions::new());
        let errors = result.map(|_| ()).unwrap_err().to_string();
        assert!(errors.contains(words), "{errors}");
    }
}

#[test]
fn whatever_is_written_never_panics() {
    let mut random = fastrand::Rng::with_seed(11);
    let words = [
        "listeners",
        "routes",
        "services",
        "{",
        "}",
        "[",
        "]",
        ":",
        " ",
        "\n",
        "-",
        "a",
        "to",
        "match",
        "path",
        "bind",
        "${",
        "\"",
        "*",
        "&x",
        "endpoints",
        "1",
        "~",
        "|",
        "?",
    ];
    for _ in 0..3000 {
        let count = random.usize(..30);
        let text: String = (0..count).map(|_| words[random.usize(..words.len())]).collect();
        drop(compiled(&[&[("a.yaml", &text)]], &[]));
    }
}

#[test]
fn ten_thousand_routes_compile_and_the_last_is_found() {
    let rules: String =
        (0..10_000).map(|i| format!("    - {{match: {{path: /p{i}/*}}, to: a}}\n")).collect();
    let text = format!(
        "listeners: {{web: {{bind: 127.0.0.1:1}}}}\nservices: {{a: {{endpoints: []}}}}\n\
         routes:\n  h:\n{rules}"
    );
    let result = compiled(&[&[("a.yaml", &text)]], &[]);
    let snapshot = result.unwrap_or_else(|errors| panic!("{errors}")).snapshot;
    let crate::snapshot::Serves::Http(table) = &snapshot.listeners[0].serves else { panic!() };
    let request = b"GET /p9999/x HTTP/1.1\r\nHost: h\r\n\r\n";
    let mut head = crate::message::Head::default();
    crate::http1::parse::request(request, 0..request.len(), &snapshot.limits.message, &mut head)
        .unwrap();
    assert_eq!(&*table.find(head.view(request), 80).unwrap().name, "h#10000");
}

#[test]
fn the_schema_knows_every_section() {
    let schema = schema();
    for section in [
        "runtime",
        "zone",
        "admin",
        "drain",
        "dns",
        "tcp",
        "limits",
        "overload",
        "listeners",
        "routes",
        "services",
        "mesh",
        "jwt",
        "authorization",
        "telemetry",
    ] {
        assert!(schema["properties"][section].is_object(), "{section}");
    }
    assert_eq!(schema["additionalProperties"], false);
}

#[test]
fn every_section_of_the_schema_is_decoded() {
    // A section that is not decoded would be ignored silently.
    let sections: Vec<String> =
        schema()["properties"].as_object().unwrap().keys().cloned().collect();
    for section in sections {
        let text = format!("{section}: {{nothing_has_this_name: 1}}\n");
        assert!(errors(&text).contains("0/a.yaml:1:"), "{section}");
    }
    let all = compiled(
        &[&[(
            "a.yaml",
            "runtime: {workers: 3}\nadmin: {bind: 127.0.0.1:1}\ndrain: 5s\n\
            dns: {gone_after: 7s}\n\
            limits: {connections: 7}\nmesh: {dns: {bind: 127.0.0.1:2}}\n\
            telemetry: {access_log: {path: stdout}}\n",
        )]],
        &[],
    );
    let all = all.unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(
        (all.workers, all.admin.address.unwrap().to_string()),
        (Some(3), "127.0.0.1:1".to_owned())
    );
    assert_eq!(all.snapshot.drain.limit, std::time::Duration::from_secs(5));
    assert_eq!(all.snapshot.limits.connections, 7);
    assert_eq!(all.gone_after, std::time::Duration::from_secs(7));
    assert!(all.dns.bind.is_some());
    assert_eq!(all.snapshot.access_log.unwrap().sink, crate::snapshot::LogSink::Stdout);
}

#[test]
fn mistakes_in_large_sections_are_all_found_and_order_is_kept() {
    let services: String = (0..1000)
        .map(|i| match i % 250 {
            249 => format!("  s{i}: {{endpoints: [], tiemout: 1s}}\n"),
            _ => format!("  s{i}: {{endpoints: []}}\n"),
        })
        .collect();
    let text = format!("services:\n{services}  s7: {{endpoints: []}}\n");
    let errors = errors(&text);
    assert_eq!(errors.matches("did you mean \"timeout\"?").count(), 4, "{errors}");
    assert!(errors.contains("a.yaml:1002:3: error: \"s7\" appears twice, first in line 9"));
    let places: Vec<usize> = errors.match_indices(": error: ").map(|(at, _)| at).collect();
    assert_eq!(places.len(), 5, "{errors}");
}

#[test]
fn a_released_model_is_made_again_from_the_texts() {
    let root = tempfile::tempdir().unwrap();
    let (base, over) = (root.path().join("base.yaml"), root.path().join("over.yaml"));
    std::fs::write(&base, "services: {a: {endpoints: []}, b: {endpoints: []}}").unwrap();
    std::fs::write(&over, "services: {b: {endpoints: [10.0.0.1:80]}}").unwrap();
    let loaded = load(&[base.clone(), over], &HashMap::new());
    let shown = |loaded: &Loaded| {
        let compiled = compile(loaded, 1, &mut Registry::new(1), &Resolutions::new());
        let snapshot = compiled.unwrap_or_else(|errors| panic!("{errors}")).snapshot;
        let shown = |service: &Arc<crate::cluster::Service>| {
            (service.name.to_string(), service.endpoints.load().list.len())
        };
        snapshot.services.iter().map(shown).collect::<Vec<_>>()
    };
    let before = shown(&loaded);
    loaded.release();
    // The files change here. The model must still be that of the applied texts.
    std::fs::write(&base, "services: {}").unwrap();
    assert_eq!(shown(&loaded), before);
    assert_eq!(before, [("a".to_owned(), 0), ("b".to_owned(), 1)]);
}

#[test]
fn a_command_that_writes_no_log_does_not_need_its_file() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("a.yaml");
    std::fs::write(&file, "telemetry: {access_log: {path: missing/access.log}}").unwrap();
    let files = [file];
    let accepted =
        |loaded: &Loaded| compile(loaded, 1, &mut Registry::new(1), &Resolutions::new()).is_ok();
    assert!(!accepted(&load(&files, &HashMap::new())));
    let without = load_without_log(&files, &HashMap::new());
    assert!(accepted(&without) && !without.is_unread());
    without.release();
    assert!(accepted(&without));
}
