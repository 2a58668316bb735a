//! Tests of objects of the Gateway API: what one namespace may do to another, and which listener a
//! request is for.

use crate::istio_objects::Files;

fn settings(certificates: &str) -> String {
    format!("sources: {{gateway_api: {{files: objects.yaml, namespace: shop{certificates}}}}}\n")
}

fn object(kind: &str, namespace: &str, spec: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\n\
         metadata: {{name: it, namespace: {namespace}}}\nspec: {spec}\n---\n"
    )
}

#[test]
fn certificates_of_other_namespaces_need_a_grant() {
    let gateway = |namespace: &str| {
        let reference = format!("{{name: tls, namespace: {namespace}}}");
        let tls = format!("tls: {{certificateRefs: [{reference}]}}");
        object(
            "Gateway",
            "shop",
            &format!("{{listeners: [{{name: a, port: 443, protocol: HTTPS, {tls}}}]}}"),
        )
    };
    let grant = |from: &str, to: &str| {
        let from =
            format!("{{group: gateway.networking.k8s.io, kind: Gateway, namespace: {from}}}");
        object("ReferenceGrant", "vault", &format!("{{from: [{from}], to: [{to}]}}"))
    };
    let secret = "{group: '', kind: Secret}";
    for (objects, expected) in [
        (gateway("shop"), true),
        (gateway("vault"), false),
        (gateway("vault") + &grant("shop", secret), true),
        (gateway("vault") + &grant("shop", "{group: '', kind: Secret, name: tls}"), true),
        (gateway("vault") + &grant("shop", "{group: '', kind: Secret, name: other}"), false),
        (gateway("vault") + &grant("shop", "{group: '', kind: Service}"), false),
        (gateway("vault") + &grant("other", secret), false),
    ] {
        let certificates = ", certificates: {tls: {cert: a.pem, key: a.key}}";
        let errors = Files::new(&objects, &settings(certificates)).compiled().err().unwrap();
        let is_refused = errors.contains("no ReferenceGrant in vault permits this reference");
        assert_eq!(!is_refused, expected, "{objects}{errors}");
    }
}

#[test]
fn a_port_has_one_protocol() {
    let tls = "tls: {certificateRefs: [{name: tls}]}";
    let listeners = format!(
        "{{listeners: [{{name: a, port: 443, protocol: HTTPS, {tls}}}, \
         {{name: b, port: 443, protocol: HTTP, hostname: b.example.com}}]}}"
    );
    let certificates = ", certificates: {tls: {cert: a.pem, key: a.key}}";
    let files = Files::new(&object("Gateway", "shop", &listeners), &settings(certificates));
    let errors = files.compiled().err().unwrap();
    assert!(errors.contains("the listener \"a\" of this port has another protocol"), "{errors}");
}

/// The places of the rules: hosts, each with the name of its first rule.
fn places(objects: &str) -> Vec<String> {
    let model = Files::new(objects, &settings("")).model();
    let routes = model.routes.iter().map(|routes| &routes.value);
    let mut all: Vec<String> = routes
        .map(|routes| {
            let name = routes.rules[0].value.name.as_ref().unwrap();
            format!("{}: {}", routes.host.value, name.value)
        })
        .collect();
    all.sort();
    all
}

#[test]
fn a_host_is_served_at_its_most_specific_listener() {
    let gateway = "{listeners: [{name: all, port: 8080, protocol: HTTP}, \
        {name: wild, port: 8080, protocol: HTTP, hostname: '*.example.com'}, \
        {name: one, port: 8080, protocol: HTTP, hostname: a.example.com}]}";
    let gateway = object("Gateway", "shop", gateway);
    let route = |section: &str, hosts: &str| {
        let parent = format!("{{name: it{section}}}");
        object(
            "HTTPRoute",
            "shop",
            &format!("{{parentRefs: [{parent}], hostnames: [{hosts}], rules: [{{}}]}}"),
        )
    };
    let served = |host: &str| format!("{host}: HTTPRoute shop/it #1");
    let empty = |host: &str| format!("{host}: Gateway shop/it:8080 without routes");
    for (section, hosts, expected) in [
        ("", "a.example.com", vec![empty("*.example.com"), served("a.example.com")]),
        (
            ", sectionName: all",
            "a.example.com",
            vec![empty("*.example.com"), empty("a.example.com")],
        ),
        (
            ", sectionName: wild",
            "a.example.com, b.example.com",
            vec![empty("*.example.com"), empty("a.example.com"), served("b.example.com")],
        ),
        (
            ", sectionName: all",
            "x.example.org",
            vec![empty("*.example.com"), empty("a.example.com"), served("x.example.org")],
        ),
    ] {
        assert_eq!(
            places(&(gateway.clone() + &route(section, hosts))),
            expected,
            "{section} {hosts}"
        );
    }
}

#[test]
fn routes_for_services_are_in_the_namespace_of_the_service_or_of_the_proxy() {
    for (route, service, expected) in [
        ("shop", "shop", true),
        ("shop", "other", true),
        ("other", "other", true),
        ("other", "shop", false),
        ("third", "other", false),
    ] {
        let parent = format!("{{kind: Service, group: '', name: web, namespace: {service}}}");
        let spec = format!("{{parentRefs: [{parent}], rules: [{{}}]}}");
        let found = places(&object("HTTPRoute", route, &spec));
        assert_eq!(!found.is_empty(), expected, "{route} {service}");
    }
}
