//! Tests every field, every action and their order, from the text of a rule to its decision.

use std::collections::HashMap;
use std::io::Write as _;

use ringway::authz::*;
use ringway::compile::Resolutions;
use ringway::compile::registry::Registry;
use ringway::http1::parse;
use ringway::jwt::Claims;
use ringway::message::Head;
use ringway::message::Limits;
use ringway::snapshot::Snapshot;
use ringway::sources::files;

const SERVICES: &str = "services:
  reviews: {endpoints: []}
  ratings: {endpoints: []}
  db: {protocol: tcp, endpoints: []}
authorization:
";

/// A configuration with these rules, one per line.
fn snapshot(rules: &[&str]) -> Snapshot {
    let lines: String = rules.iter().map(|rule| format!("  - {rule}\n")).collect();
    let mut file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    write!(file, "{SERVICES}{lines}").unwrap();
    let loaded = files::load(&[file.path().to_owned()], &HashMap::new());
    let registry = &mut Registry::new(1);
    let compiled = files::compile(&loaded, 1, registry, &Resolutions::new());
    compiled.unwrap_or_else(|errors| panic!("{errors}")).snapshot
}

const FRONTEND: &str = "spiffe://cluster.local/ns/shop/sa/frontend";
const CONSUL: &str = "spiffe://11-22.consul/ns/default/dc/dc1/svc/web";

/// The client: an identity, `ip=...` and `for=...` in any order. Each part is optional.
fn peer(text: &str) -> Peer<'_> {
    let part = |name| text.split(' ').find_map(|part| part.strip_prefix(name));
    Peer {
        identity: text.split(' ').find(|part| part.contains("://")),
        ip: part("ip=").map(|ip| ip.parse().unwrap()),
        forwarded_ip: part("for=").map(|ip| ip.parse().unwrap()),
    }
}

/// The decision for `METHOD HOST/PATH SERVICE:PORT | FIELD | FIELD`, or for `tcp SERVICE:PORT`.
/// `@IP` after it is the original destination of a captured connection. `claims {JSON}` instead of
/// a field sets the token's claims.
fn said(policies: &Policies, who: &str, what: &str) -> String {
    let mut parts = what.split(" | ");
    let words: Vec<&str> = parts.next().unwrap().split(' ').collect();
    let (service, port) = words[words.len() - 1].split_once(':').unwrap();
    let (port, ip) = port.split_once('@').map_or((port, None), |(port, ip)| (port, Some(ip)));
    let ip = ip.map(|ip| ip.parse().unwrap());
    let mut head = Head::default();
    let mut target =
        Target { service, port: port.parse().unwrap(), ip, outbound: false, request: None };
    let mut claims = None;
    let mut text = String::new();
    if let [method, address, _] = words[..] {
        // A CONNECT has no path; its target is the host.
        let (host, path) = address.split_at(address.find('/').unwrap_or(address.len()));
        let target = if path.is_empty() { host } else { path };
        text = format!("{method} {target} HTTP/1.0\r\n");
        if !host.is_empty() {
            text += &format!("Host: {host}\r\n");
        }
        for field in parts {
            match field.strip_prefix("claims ") {
                Some(json) => {
                    let map: serde_json::Map<_, _> = serde_json::from_str(json).unwrap();
                    claims = Some(Claims::from(map));
                }
                None => text += &format!("{field}\r\n"),
            }
        }
        text += "\r\n";
    }
    if !text.is_empty() {
        let whole = 0..text.len();
        parse::request(text.as_bytes(), whole, &Limits::default(), &mut head).unwrap();
        let head = head.view(text.as_bytes());
        let (method, host) = (head.method_name(), head.authority());
        let mut out = Vec::new();
        let normal = path::normalise(head.path(), EscapedSlashes::Keep, &mut out).unwrap();
        let path = if normal == Normal::Changed { &out } else { head.path() };
        target.request = Some(Request { method, host, path, head, claims: claims.as_ref() });
        return words_of(&policies.decide(&peer(who), &target));
    }
    words_of(&policies.decide(&peer(who), &target))
}

fn words_of(decision: &Decision<'_, '_>) -> String {
    let mut text = match decision.verdict {
        Verdict::Unconcerned => "open".to_owned(),
        Verdict::Allowed(rule) => format!("allow {}", rule.name),
        Verdict::Denied(rule) => format!("deny {}", rule.name),
        Verdict::DeniedByDefault(rule) => format!("default {}", rule.name),
    };
    for Report { rule, outcome } in decision.reports() {
        text += &match outcome {
            Outcome::Audited => format!(", audited {}", rule.name),
            Outcome::WouldAllow => format!(", would allow {}", rule.name),
            Outcome::WouldDeny => format!(", would deny {}", rule.name),
        };
    }
    text
}

/// Checks the decision for each case.
fn check(rules: &[&str], cases: &[(&str, &str, &str)]) {
    let policies = snapshot(rules).authorization;
    for (who, what, expected) in cases {
        assert_eq!(said(&policies, who, what), *expected, "{rules:?}\n{who:?} {what:?}");
    }
}

/// Checks for each condition whether a rule with only this condition matches, as an allow rule and
/// as a deny rule.
fn conditions(cases: &[(&str, &str, &str, bool, bool)]) {
    for (condition, who, what, allows, denies) in cases {
        for (action, matches, yes, no) in
            [("allow", allows, "allow r", "default r"), ("deny", denies, "deny r", "open")]
        {
            let rule = format!("{{name: r, action: {action}, {condition}}}");
            let policies = snapshot(&[&rule]).authorization;
            let expected = if *matches { yes } else { no };
            assert_eq!(said(&policies, who, what), expected, "{rule}\n{who:?} {what:?}");
        }
    }
}

#[test]
fn without_rules_everything_may_pass() {
    assert!(Policies::default().is_empty());
    let policies = snapshot(&[]).authorization;
    assert!(policies.is_empty());
    assert_eq!(said(&policies, "", "GET a/ reviews:80"), "open");
    assert_eq!(said(&policies, "", "tcp db:3306"), "open");
}

#[test]
fn deny_comes_before_allow_and_an_allow_rule_closes_its_service_only() {
    let rules = [
        "{name: all-get, action: allow, to: {service: reviews, methods: GET}}",
        "{name: no-admin, action: deny, to: {paths: /admin/*}}",
        "{name: admin, action: allow, to: {service: reviews, paths: /admin/*}}",
        "{name: never, action: deny, from: {ips: 192.0.2.0/24}}",
    ];
    check(
        &rules,
        &[
            ("", "GET a/x reviews:80", "allow all-get"),
            ("", "POST a/x reviews:80", "default all-get"),
            ("", "GET a/admin/x reviews:80", "deny no-admin"),
            ("ip=192.0.2.1", "GET a/admin/x reviews:80", "deny no-admin"),
            ("ip=192.0.2.1", "GET a/x reviews:80", "deny never"),
            ("ip=192.0.2.1", "GET a/x ratings:80", "deny never"),
            ("", "POST a/x ratings:80", "open"),
            ("", "POST a/x :80", "open"),
        ],
    );
}

#[test]
fn an_allow_rule_without_a_service_concerns_all_of_them() {
    let rules = [
        "{name: one, action: allow, to: {service: ratings}, from: {identities: '*'}}",
        "{name: all, action: allow, to: {methods: GET}}",
        "{name: some, action: allow, to: [{service: re*, methods: PUT}, {service: db}]}",
    ];
    check(
        &rules,
        &[
            ("", "GET a/ ratings:80", "allow all"),
            (FRONTEND, "POST a/ ratings:80", "allow one"),
            ("", "POST a/ ratings:80", "default one"),
            ("", "POST a/ reviews:80", "default all"),
            ("", "PUT a/ reviews:80", "allow some"),
            ("", "PUT a/ ratings:80", "default one"),
            ("", "tcp db:3306", "allow some"),
        ],
    );
    check(
        &["{name: some, action: allow, to: {service: re*, methods: PUT}}"],
        &[("", "GET a/ reviews:80", "default some"), ("", "GET a/ ratings:80", "open")],
    );
}

#[test]
fn rules_that_do_not_decide_are_reported() {
    check(
        &[
            "{name: seen, action: audit, to: {methods: DELETE}}",
            "{name: trial-deny, action: deny, dry_run: true, from: {ips: 192.0.2.1}}",
            "{name: trial-allow, action: allow, dry_run: true, to: {service: reviews, ports: 80}}",
            "{name: trial-too, action: allow, dry_run: true, to: {service: reviews, ports: 81}}",
        ],
        &[
            ("", "GET a/ ratings:80", "open"),
            ("", "DELETE a/ ratings:80", "open, audited seen"),
            ("ip=192.0.2.1", "GET a/ ratings:80", "open, would deny trial-deny"),
            ("", "GET a/ reviews:80", "open, would allow trial-allow"),
            ("", "GET a/ reviews:82", "open, would deny trial-allow, would deny trial-too"),
        ],
    );
    check(
        &[
            "{name: real, action: allow, to: {methods: GET}}",
            "{name: trial, action: allow, dry_run: true, to: {methods: PUT}}",
            "{name: seen, action: audit, from: {not_identities: '*'}}",
        ],
        &[
            (FRONTEND, "GET a/ reviews:80", "allow real"),
            (FRONTEND, "PUT a/ reviews:80", "default real, would allow trial"),
            ("", "POST a/ reviews:80", "default real, audited seen"),
        ],
    );
}

#[test]
fn who_asks() {
    let any = "GET a/ reviews:80";
    let ids = "from: {identities: [spiffe://cluster.local/ns/shop/sa/frontend, '*/svc/web']}";
    conditions(&[
        (ids, FRONTEND, any, true, true),
        (ids, CONSUL, any, true, true),
        (ids, "spiffe://cluster.local/ns/shop/sa/frontend2", any, false, false),
        (ids, "https://cluster.local/ns/shop/sa/frontend", any, false, false),
        (ids, "", any, false, false),
        ("from: {identities: cluster.local/ns/shop/*}", FRONTEND, any, true, true),
        ("from: {identities: '*'}", FRONTEND, any, true, true),
        ("from: {identities: '*'}", "", any, false, false),
        ("from: {not_identities: '*/sa/frontend'}", FRONTEND, any, false, false),
        ("from: {not_identities: '*/sa/frontend'}", CONSUL, any, true, true),
        // A peer without an identity may be anyone: an allow rule does not match, a deny rule does.
        ("from: {not_identities: '*/sa/frontend'}", "", any, false, true),
        ("from: {namespaces: shop}", FRONTEND, any, true, true),
        ("from: {namespaces: [sho, def*]}", FRONTEND, any, false, false),
        ("from: {namespaces: [sho, def*]}", CONSUL, any, true, true),
        ("from: {namespaces: '*'}", "spiffe://cluster.local/x", any, false, false),
        ("from: {not_namespaces: shop}", CONSUL, any, true, true),
        ("from: {not_namespaces: shop}", "spiffe://cluster.local/x", any, false, true),
        ("from: {trust_domains: cluster.local}", FRONTEND, any, true, true),
        ("from: {trust_domains: '*.consul'}", FRONTEND, any, false, false),
        ("from: {not_trust_domains: '*.consul'}", FRONTEND, any, true, true),
        ("from: {ips: [10.0.0.0/8, '::1']}", "ip=10.1.2.3", any, true, true),
        ("from: {ips: [10.0.0.0/8, '::1']}", "ip=::ffff:10.1.2.3", any, true, true),
        ("from: {ips: [10.0.0.0/8, '::1']}", "ip=::1", any, true, true),
        ("from: {ips: [10.0.0.0/8, '::1']}", "ip=11.0.0.1", any, false, false),
        ("from: {ips: 0.0.0.0/0}", "", any, false, false),
        ("from: {not_ips: 10.0.0.0/8}", "ip=11.0.0.1", any, true, true),
        ("from: {not_ips: 10.0.0.0/8}", "ip=10.0.0.1", any, false, false),
        ("from: {not_ips: 10.0.0.0/8}", "", any, false, true),
        ("from: {forwarded_ips: 192.0.2.0/24}", "ip=10.0.0.1 for=192.0.2.7", any, true, true),
        ("from: {forwarded_ips: 192.0.2.0/24}", "ip=192.0.2.7", any, false, false),
        ("from: {not_forwarded_ips: 192.0.2.0/24}", "for=192.0.3.7", any, true, true),
        // All fields of one `from`, and one of several `from`.
        ("from: {namespaces: shop, ips: 10.0.0.0/8}", FRONTEND, any, false, false),
        ("from: [{namespaces: shop}, {ips: 10.0.0.0/8}]", FRONTEND, any, true, true),
        ("from: [{namespaces: shop}, {ips: 10.0.0.0/8}]", "ip=10.0.0.1", any, true, true),
        ("from: [{namespaces: shop}, {ips: 10.0.0.0/8}]", CONSUL, any, false, false),
    ]);
}

#[test]
fn what_is_asked_for() {
    let api = "to: {paths: [/api/*, /exact, '*.js', '~/v[0-9]+']}";
    conditions(&[
        ("to: {ports: [80, 443]}", "", "GET a/ reviews:443", true, true),
        ("to: {ports: [80, 443]}", "", "GET a/ reviews:81", false, false),
        ("to: {ports: 80}", "", "GET a/ reviews:0", false, false),
        ("to: {not_ports: 80}", "", "GET a/ reviews:81", true, true),
        ("to: {not_ports: 80}", "", "GET a/ reviews:0", false, true),
        ("to: {hosts: [a.test, '*.b.test']}", "", "GET A.Test:8080/ reviews:80", true, true),
        ("to: {hosts: [a.test, '*.b.test']}", "", "GET x.B.test./ reviews:80", true, true),
        ("to: {hosts: [a.test, '*.b.test']}", "", "GET b.test/ reviews:80", false, false),
        ("to: {hosts: '*'}", "", "GET / reviews:80", false, false),
        ("to: {hosts: shop.*}", "", "GET shop.test/ reviews:80", true, true),
        ("to: {not_hosts: a.test}", "", "GET b.test/ reviews:80", true, true),
        ("to: {not_hosts: a.test}", "", "GET A.test/ reviews:80", false, false),
        ("to: {not_hosts: a.test}", "", "GET / reviews:80", false, true),
        ("to: {methods: [GET, PUT]}", "", "PUT a/ reviews:80", true, true),
        ("to: {methods: [GET, PUT]}", "", "HEAD a/ reviews:80", false, false),
        ("to: {methods: GET}", "", "Got a/ reviews:80", false, false),
        ("to: {not_methods: GET}", "", "PUT a/ reviews:80", true, true),
        ("to: {not_methods: GET}", "", "GET a/ reviews:80", false, false),
        (api, "", "GET a/api reviews:80", true, true),
        (api, "", "GET a/api/x?y reviews:80", true, true),
        (api, "", "GET a/apix reviews:80", false, false),
        (api, "", "GET a/exact reviews:80", true, true),
        (api, "", "GET a/exact/ reviews:80", false, false),
        (api, "", "GET a/x/y.js reviews:80", true, true),
        (api, "", "GET a/v17 reviews:80", true, true),
        (api, "", "GET a/v17/x reviews:80", false, false),
        (api, "", "GET a/x/..//api/./y reviews:80", true, true),
        ("to: {not_paths: /api/*}", "", "GET a/x reviews:80", true, true),
        ("to: {not_paths: /api/*}", "", "GET a/api/x reviews:80", false, false),
        ("to: {paths: '*'}", "", "GET a/x reviews:80", true, true),
        ("to: {methods: GET, paths: /x}", "", "GET a/y reviews:80", false, false),
        ("to: [{methods: GET}, {paths: /x}]", "", "PUT a/x reviews:80", true, true),
    ]);
}

#[test]
fn a_path_with_an_escaped_slash_is_read_in_both_ways() {
    let public = "to: {paths: /public/*}";
    let but = "to: {not_paths: /admin/*}";
    conditions(&[
        (public, "", "GET a/public/a%2Fb reviews:80", true, true),
        (public, "", "GET a/public/..%2fadmin reviews:80", false, true),
        (public, "", "GET a/public%5cx reviews:80", false, true),
        (public, "", "GET a/public/a%20b reviews:80", true, true),
        (public, "", "GET a/x/%2E%2e/public/ reviews:80", true, true),
        (but, "", "GET a/admin%2Fx reviews:80", false, true),
        (but, "", "GET a/x%2F..%2Fadmin%2Fx reviews:80", false, true),
        (but, "", "GET a/x%2Fy reviews:80", true, true),
        ("to: {paths: /q/%2F/*}", "", "GET a/q/%2f/x reviews:80", true, true),
        ("to: {paths: /q/%2F/*}", "", "GET a/q/%2F/..%2F..%2Fx reviews:80", false, true),
        ("to: {paths: /q/%2F}", "", "GET a/q/%2f reviews:80", true, true),
        (public, "", "GET a/public/..;/admin reviews:80", false, true),
        (public, "", "GET a/public/x;v=1/y reviews:80", true, true),
        (public, "", "GET a/x/..%2Fy reviews:80", false, true),
        ("to: {paths: '~/[^/]*'}", "", "GET a/x%2Fy reviews:80", false, true),
        ("to: {paths: '~/[^/]*'}", "", "GET a/x%3Ay reviews:80", true, true),
        ("to: {paths: '*'}", "", "GET a/x/..%2Fy reviews:80", true, true),
        (but, "", "GET a/x/..%2Fy reviews:80", false, true),
        ("to: {paths: '*:delete'}", "", "GET a/x%3Adelete reviews:80", false, true),
        ("to: {paths: '/a@b'}", "", "GET a/a%40b reviews:80", false, true),
        ("to: {paths: '/a%20b'}", "", "GET a/a%20b reviews:80", true, true),
    ]);
}

#[test]
fn header_fields() {
    let exact = "when: {headers: {x-user: jason}}";
    let both = "when: {headers: {x-user: '~j.*', x-role: {present: true}}}";
    conditions(&[
        (exact, "", "GET a/ reviews:80 | X-User: jason", true, true),
        (exact, "", "GET a/ reviews:80 | x-user: Jason", false, false),
        (exact, "", "GET a/ reviews:80", false, false),
        // The service may read any of several lines.
        (exact, "", "GET a/ reviews:80 | x-user: jason | x-user: eve", false, true),
        (exact, "", "GET a/ reviews:80 | x-user: eve | x-user: jason", false, true),
        (exact, "", "GET a/ reviews:80 | x-user: jason | x-user: jason", true, true),
        (both, "", "GET a/ reviews:80 | x-user: jo | x-role:", true, true),
        (both, "", "GET a/ reviews:80 | x-user: jo", false, false),
        (both, "", "GET a/ reviews:80 | x-user: j\u{fc} | x-role: a", true, true),
        (
            "when: [{headers: {a: b}}, {headers: {c: d}}]",
            "",
            "GET a/ reviews:80 | a: b",
            false,
            false,
        ),
    ]);
    let bytes = b"GET / HTTP/1.1\r\nHost: a\r\nx-user: a\xffdmin\r\n\r\n";
    let mut head = Head::default();
    parse::request(bytes, 0..bytes.len(), &Limits::default(), &mut head).unwrap();
    let request =
        Request { method: b"GET", host: b"a", path: b"/", head: head.view(bytes), claims: None };
    let target =
        Target { service: "reviews", port: 80, ip: None, outbound: false, request: Some(request) };
    let rule = "{name: r, action: deny, when: {headers: {x-user: '~a.dmin'}}}";
    let policies = snapshot(&[rule]).authorization;
    assert_eq!(words_of(&policies.decide(&Peer::default(), &target)), "deny r", "any byte is one");
}

#[test]
fn conditions_on_requests_are_doubt_about_bytes() {
    conditions(&[
        ("to: {ports: 3306}", "", "tcp db:3306", true, true),
        ("to: {service: db}, from: {ips: 10.0.0.1}", "ip=10.0.0.1", "tcp db:1", true, true),
        ("to: {service: db}, from: {ips: 10.0.0.1}", "ip=10.0.0.2", "tcp db:1", false, false),
        ("to: {methods: GET}", "", "tcp db:1", false, true),
        ("to: {not_methods: GET}", "", "tcp db:1", false, true),
        ("to: {hosts: a}", "", "tcp db:1", false, true),
        ("to: {paths: '*'}", "", "tcp db:1", false, true),
        ("to: {paths: '*', ports: 2}", "", "tcp db:1", false, false),
        ("to: {ips: 10.0.0.0/8}", "", "tcp db:1@10.1.2.3", true, true),
        ("to: {ips: 10.0.0.0/8}", "", "tcp db:1@11.1.2.3", false, false),
        ("to: {not_ips: 10.0.0.0/8}", "", "tcp db:1@11.1.2.3", true, true),
        // A connection that was not captured has no original destination.
        ("to: {ips: 10.0.0.0/8}", "", "tcp db:1", false, false),
        ("to: {not_ips: 10.0.0.0/8}", "", "tcp db:1", false, false),
        ("when: {headers: {a: b}}", "", "tcp db:1", false, true),
        ("when: {claims: {a: b}}", "", "tcp db:1", false, true),
        ("when: {headers: {a: b}}, from: {identities: '*'}", "", "tcp db:1", false, false),
    ]);
}

#[test]
fn the_tunnel_of_a_connect_may_carry_requests_for_any_path() {
    let connect = "CONNECT a:80 reviews:80";
    conditions(&[
        ("to: {methods: CONNECT}", "", connect, true, true),
        ("to: {methods: GET}", "", connect, false, false),
        ("to: {hosts: a}", "", connect, true, true),
        ("to: {paths: /x}", "", connect, false, true),
        ("to: {not_paths: /x}", "", connect, false, true),
        ("to: {paths: '*'}", "", connect, false, true),
        ("to: {paths: /x, hosts: b}", "", connect, false, false),
    ]);
}

#[test]
fn rules_of_many_services_keep_their_order() {
    let mut rules: Vec<String> = (0..20)
        .map(|i| {
            format!("{{name: r{i}, action: deny, to: {{service: reviews, ports: {}}}}}", i + 1)
        })
        .collect();
    rules.insert(10, "{name: all, action: deny, to: {ports: [5, 15]}}".to_owned());
    let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
    check(
        &rules,
        &[
            ("", "tcp reviews:5", "deny r4"),
            ("", "tcp reviews:15", "deny all"),
            ("", "tcp reviews:14", "deny r13"),
            ("", "tcp ratings:15", "deny all"),
            ("", "tcp ratings:14", "open"),
        ],
    );
}

#[test]
fn what_is_decided_is_counted_with_its_rule() {
    let policies = snapshot(&[
        "{name: get, action: allow, to: {methods: GET}}",
        "{name: seen, action: audit, to: {ports: 81}}",
        "{name: trial, action: deny, dry_run: true, to: {ports: 81}}",
    ])
    .authorization;
    let target =
        |port| Target { service: "reviews", port, ip: None, outbound: false, request: None };
    for port in [80, 81, 81] {
        policies.decide(&Peer::default(), &target(port)).count(0);
    }
    let counts: Vec<[u64; 5]> = policies
        .rules()
        .map(|rule| {
            let RuleCells { allowed, denied, audited, dry_run_allowed, dry_run_denied } =
                rule.stats.worker(0);
            [allowed, denied, audited, dry_run_allowed, dry_run_denied].map(|count| count.value())
        })
        .collect();
    assert_eq!(counts, [[0, 3, 0, 0, 0], [0, 0, 2, 0, 0], [0, 0, 0, 0, 2]]);
}

#[test]
fn claims_are_those_of_a_token_that_was_accepted() {
    let one = "when: {claims: {role: '~bo.*'}}";
    let both = "when: {claims: {role: boss, realm.groups: ops}, headers: {x: y}}";
    let boss = r#"GET a/ reviews:80 | claims {"role": ["clerk", "boss"]}"#;
    let all = r#"GET a/ reviews:80 | x: y | claims {"role": "boss", "realm": {"groups": ["ops"]}}"#;
    conditions(&[
        (one, "", "GET a/ reviews:80", false, false),
        (one, "", r#"GET a/ reviews:80 | claims {"sub": "boss"}"#, false, false),
        (one, "", boss, true, true),
        (one, "", "GET a/ reviews:80 | role: boss", false, false),
        (both, "", boss, false, false),
        (both, "", all, true, true),
        ("when: {claims: {sub: {present: true}}}", "", all, false, false),
    ]);
}
