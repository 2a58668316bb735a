//! Tests of policies of objects: Istio's AuthorizationPolicy and targets of SMI.

use ringway::compile::Compiled;
use ringway::message::Head;

use crate::istio_objects::Files;

/// Checks a request to this workload, and returns whether it is allowed.
fn allowed(compiled: &Compiled, identity: Option<&str>, line: &str, fields: &str) -> bool {
    use ringway::authz::{Peer, Request, Target};
    let text = format!("{line} HTTP/1.1\r\nHost: web.example.com\r\n{fields}\r\n");
    let mut head = Head::default();
    let limits = &compiled.snapshot.limits.message;
    ringway::http1::parse::request(text.as_bytes(), 0..text.len(), limits, &mut head).unwrap();
    let head = head.view(text.as_bytes());
    let request = Request {
        method: head.method_name(),
        host: head.authority(),
        path: head.path(),
        head,
        claims: None,
    };
    let ip = Some("10.1.2.3".parse().unwrap());
    let peer = Peer { identity, ip, forwarded_ip: None };
    let target = |outbound| Target {
        service: "mesh/inbound",
        port: 8080,
        ip: None,
        outbound,
        request: Some(request),
    };
    let policies = &compiled.snapshot.authorization;
    assert!(policies.decide(&peer, &target(true)).verdict.is_allowed(), "outbound traffic");
    policies.decide(&peer, &target(false)).verdict.is_allowed()
}

fn policy(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {{name: {name}}}\nspec:\n{spec}\n---\n"
    )
}

#[test]
fn authorization_policies() {
    const FRONTEND: Option<&str> = Some("spiffe://cluster.local/ns/shop/sa/frontend");
    const OTHER: Option<&str> = Some("spiffe://cluster.local/ns/other/sa/job");
    let read = "\x20 rules:
    - from: [{source: {principals: [cluster.local/ns/shop/sa/frontend]}}]
      to: [{operation: {methods: [GET], paths: ['/api*']}}]";
    let deny =
        "  action: DENY\n  rules:\n    - to: [{operation: {paths: ['*/secret', '/a/{*}/b']}}]";
    let when = "\x20 rules:
    - when:
        - {key: 'request.headers[x-team]', values: [a, 'b*']}
        - {key: source.ip, notValues: [10.1.9.0/24]}";
    let unless =
        "  action: DENY\n  rules:\n    - when: [{key: 'request.headers[x-team]', notValues: [a]}]";
    let remote = |action: &str, network: &str| {
        let source = format!("{{source: {{remoteIpBlocks: [{network}]}}}}");
        format!("  action: {action}\n  rules:\n    - from: [{source}]")
    };
    let remote_when =
        "  action: DENY\n  rules:\n    - when: [{key: remote.ip, values: [10.1.2.3]}]";
    let any_or_admin = "  action: ALLOW\n  rules:\n    - to: [{operation: {methods: ['*']}}, \
                        {operation: {paths: [/admin]}}]";
    let account = "  rules:\n    - from: [{source: {serviceAccounts: [frontend]}}]";
    // A name without a namespace is in the namespace of its policy.
    let of_root =
        |spec: &str| policy("a", spec).replace("{name: a}", "{name: a, namespace: istio-system}");
    let elsewhere = "  selector: {matchLabels: {app: other}}\n  action: DENY\n  rules: [{}]";
    for (objects, identity, line, fields, expected) in [
        (policy("a", "  {}"), FRONTEND, "GET /", "", false),
        (policy("a", "  rules: [{}]"), None, "GET /", "", true),
        (policy("a", "  action: DENY"), None, "GET /", "", true),
        (policy("a", "  action: DENY\n  rules: [{}]"), FRONTEND, "GET /", "", false),
        (policy("a", elsewhere), None, "GET /", "", true),
        (policy("a", read), FRONTEND, "GET /apis", "", true),
        (policy("a", read), FRONTEND, "POST /api", "", false),
        (policy("a", read), FRONTEND, "GET /ap", "", false),
        (policy("a", read), OTHER, "GET /api", "", false),
        (policy("a", read), None, "GET /api", "", false),
        (policy("a", deny), None, "GET /x/secret", "", false),
        (policy("a", deny), None, "GET /a/x/b", "", false),
        (policy("a", deny), None, "GET /a/x/y/b", "", true),
        (policy("a", read) + &policy("b", deny), FRONTEND, "GET /api/secret", "", false),
        (policy("a", when), None, "GET /", "x-team: a\r\n", true),
        (policy("a", when), None, "GET /", "x-team: bcd\r\n", true),
        (policy("a", when), None, "GET /", "x-team: c\r\n", false),
        (policy("a", when), None, "GET /", "", false),
        (policy("a", unless), None, "GET /", "x-team: a\r\n", true),
        (policy("a", unless), None, "GET /", "x-team: b\r\n", false),
        (policy("a", unless), None, "GET /", "", false),
        (policy("a", &remote("DENY", "10.1.0.0/16")), None, "GET /", "", false),
        (policy("a", &remote("DENY", "10.2.0.0/16")), None, "GET /", "", true),
        (policy("a", &remote("ALLOW", "10.1.0.0/16")), None, "GET /", "", true),
        (policy("a", &remote("ALLOW", "10.2.0.0/16")), None, "GET /", "", false),
        (policy("a", remote_when), None, "GET /", "", false),
        (policy("a", any_or_admin), None, "GET /shop", "", true),
        (policy("a", &any_or_admin.replace("ALLOW", "DENY")), None, "GET /shop", "", false),
        (policy("a", account), FRONTEND, "GET /", "", true),
        (policy("a", account), OTHER, "GET /", "", false),
        (of_root(account), FRONTEND, "GET /", "", false),
    ] {
        let compiled = Files::new(&objects, "").compiled().unwrap();
        let found = allowed(&compiled, identity, line, fields);
        assert_eq!(found, expected, "{identity:?} {line} {fields}\n{objects}");
    }
}

/// Opaque bytes have no method, no path and no host: an ALLOW policy that asks for one, even for
/// any, does not allow them.
#[test]
fn conditions_on_requests_do_not_allow_opaque_bytes() {
    use ringway::authz::{Peer, Target};
    for (operation, expected) in [
        ("{methods: ['*']}", false),
        ("{paths: ['*']}", false),
        ("{hosts: ['*']}", false),
        ("{notMethods: [GET]}", false),
        ("{ports: ['8080']}", true),
        ("{ports: ['8080'], methods: ['*']}", false),
    ] {
        let objects = policy("a", &format!("  rules:\n    - to: [{{operation: {operation}}}]"));
        let compiled = Files::new(&objects, "").compiled().unwrap();
        let target = Target {
            service: "mesh/inbound",
            port: 8080,
            ip: None,
            outbound: false,
            request: None,
        };
        let decision = compiled.snapshot.authorization.decide(&Peer::default(), &target);
        assert_eq!(decision.verdict.is_allowed(), expected, "{operation}");
    }
}

/// A rule with an empty part could mean everything as well as nothing.
#[test]
fn empty_parts_of_policies_are_mistakes() {
    for rule in [
        "null",
        "{from: []}",
        "{from: null}",
        "{from: [{}]}",
        "{from: [null]}",
        "{from: [{source: {}}]}",
        "{from: [{source: null}]}",
        "{from: [{source: {principals: []}}]}",
        "{from: [{source: {principals: null}}]}",
        "{to: []}",
        "{to: [{}]}",
        "{to: [{operation: {}}]}",
        "{to: [{operation: {methods: []}}]}",
        "{when: []}",
        "{when: [{key: source.ip, values: []}]}",
    ] {
        let objects = policy("a", &format!("  rules: [{rule}]"));
        let errors = Files::new(&objects, "").compiled().err().expect(rule);
        assert!(errors.contains("empty") || errors.contains("has no `"), "{rule}: {errors}");
    }
    let errors = Files::new(&policy("a", "  rules: null"), "").compiled().err().unwrap();
    assert!(errors.contains("`rules` is empty"), "{errors}");
}

/// Targets of SMI: a mistake in a name must not allow more.
#[test]
fn targets_of_smi() {
    const GROUP: &str = "apiVersion: specs.smi-spec.io/v1alpha4\nkind: HTTPRouteGroup\n\
        metadata: {name: reads}\nspec: {matches: [{name: get, methods: [GET]}]}\n---\n";
    let target = |destination: &str, matches: &str| {
        format!(
            "{GROUP}apiVersion: access.smi-spec.io/v1alpha3\nkind: TrafficTarget\n\
             metadata: {{name: t}}\nspec:\n  destination: {destination}\n  \
             sources: [{{kind: ServiceAccount, name: frontend}}]\n  \
             rules: [{{kind: HTTPRouteGroup, name: reads{matches}}}]\n"
        )
    };
    let empty = "apiVersion: specs.smi-spec.io/v1alpha4\nkind: HTTPRouteGroup\n\
                 metadata: {name: reads}\nspec: {matches: []}\n";
    let without =
        "apiVersion: access.smi-spec.io/v1alpha3\nkind: TrafficTarget\nmetadata: {name: t}\n";
    let own = "{kind: ServiceAccount, name: web}";
    let other = "{kind: ServiceAccount, name: web, namespace: other}";
    let more = "sources: {smi: {files: objects.yaml, namespace: shop, account: web}}\n";
    for (objects, expected) in [
        (target(own, ""), Ok(1)),
        (target(own, ", matches: [get]"), Ok(1)),
        (target(other, ""), Ok(0)),
        (target("{kind: ServiceAccount, name: job}", ""), Ok(0)),
        (target(own, ", matches: [gte]"), Err("no element \"gte\"")),
        (target(own, ", matches: []"), Err("`matches` is empty")),
        (target("{kind: ServiceAccount}", ""), Err("has no name")),
        (empty.to_owned(), Err("`matches` is empty")),
        (without.to_owned(), Err("there is no `spec`")),
    ] {
        let compiled = Files::new(&objects, more).compiled();
        match (compiled, expected) {
            (Ok(compiled), Ok(count)) => {
                assert_eq!(compiled.snapshot.authorization.rules().count(), count, "{objects}");
            }
            (Err(errors), Err(part)) => assert!(errors.contains(part), "{part}: {errors}"),
            (found, _) => panic!("{expected:?}: {:?}\n{objects}", found.err()),
        }
    }
}
