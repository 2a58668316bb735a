//! Objects of the Gateway API and of SMI, and Istio's Gateway, from files.

use crate::support::http::Client;
use crate::support::origin::Origin;
use crate::support::proxy::Proxy;
use crate::support::{eventually, free_port};

/// Starts a proxy with these objects, which the source `source` reads.
fn start(source: &str, objects: &str, own: &str) -> Proxy {
    let directory = tempfile::tempdir().unwrap();
    let admin = free_port();
    let base = format!(
        "admin: {{bind: 127.0.0.1:{admin}}}\nruntime: {{workers: 2}}\n\
         sources: {{{source}}}\n{own}"
    );
    std::fs::write(directory.path().join("ringway.yaml"), base).unwrap();
    std::fs::create_dir(directory.path().join("objects")).unwrap();
    std::fs::write(directory.path().join("objects/all.yaml"), objects).unwrap();
    Proxy::start_on(directory, admin)
}

/// A gateway on PORT, and routes with all filters. Its services are `one`, `two`, and `web` in the
/// namespace `other`.
const GATEWAY: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  gatewayClassName: ringway
  listeners:
    - {name: http, port: PORT, protocol: HTTP}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: shop}
spec:
  parentRefs: [{name: edge}]
  hostnames: [shop.example.com]
  rules:
    - backendRefs: [{name: one, port: 80}]
    - matches: [{path: {value: /two}}]
      backendRefs: [{name: two, port: 80}]
    - matches: [{path: {type: Exact, value: /two/exact}}]
      backendRefs: [{name: one, port: 80}]
    - matches: [{path: {value: /two}, headers: [{name: x-to, value: one}]}]
      backendRefs: [{name: one, port: 80}]
    - matches: [{path: {value: /half}}]
      backendRefs:
        - {name: one, port: 80}
        - {name: lost, port: 80}
    - matches: [{path: {value: /lost}}]
      backendRefs: [{name: lost, port: 80}]
    - matches: [{path: {value: /none}}]
    - matches: [{path: {value: /zero}}]
      backendRefs: [{name: one, port: 80, weight: 0}]
    - matches: [{path: {value: /forbidden}}]
      backendRefs: [{name: web, namespace: strict, port: 80}]
    - matches: [{path: {value: /granted}}]
      backendRefs: [{name: web, namespace: other, port: 80}]
    - matches: [{path: {value: /old}}]
      filters:
        - type: URLRewrite
          urlRewrite:
            hostname: inner.example
            path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}
        - type: RequestHeaderModifier
          requestHeaderModifier: {set: [{name: x-a, value: b}], remove: [x-drop]}
        - type: ResponseHeaderModifier
          responseHeaderModifier: {add: [{name: x-route, value: old}]}
      backendRefs: [{name: one, port: 80}]
    - matches: [{path: {value: /moved}}]
      filters:
        - type: RequestRedirect
          requestRedirect:
            hostname: other.example
            path: {type: ReplacePrefixMatch, replacePrefixMatch: /there}
    - matches: [{path: {value: /secure}}]
      filters: [{type: RequestRedirect, requestRedirect: {scheme: https, statusCode: 301}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: echo}
spec:
  parentRefs: [{name: edge, sectionName: http}]
  hostnames: [grpc.example.com]
  rules:
    - matches: [{method: {service: pkg.Echo, method: Say}}]
      backendRefs: [{name: one, port: 80}]
    - matches: [{method: {service: pkg.Echo}}, {method: {method: Any}}]
      backendRefs: [{name: two, port: 80}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: aa-newer, creationTimestamp: '2026-02-01T00:00:00Z'}
spec:
  parentRefs: [{name: edge}]
  hostnames: [same.example.com]
  rules: [{matches: [{path: {value: /same}}], backendRefs: [{name: two, port: 80}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: zz-older, creationTimestamp: '2026-01-01T00:00:00Z'}
spec:
  parentRefs: [{name: edge}]
  hostnames: [same.example.com]
  rules: [{matches: [{path: {value: /same}}], backendRefs: [{name: one, port: 80}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: ReferenceGrant
metadata: {name: shop, namespace: other}
spec:
  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: default}]
  to: [{group: '', kind: Service}]
";

#[test]
fn routes_of_a_gateway() {
    let (one, two, other) = (Origin::saying("one"), Origin::saying("two"), Origin::saying("web"));
    let port = free_port();
    let own = format!(
        "services:\n  one: {{endpoints: [\"{}\"]}}\n  two: {{endpoints: [\"{}\"]}}\n  \
         web.other: {{endpoints: [\"{2}\"]}}\n  web.strict: {{endpoints: [\"{2}\"]}}\n",
        one.address(),
        two.address(),
        other.address()
    );
    let source = "gateway_api: {files: objects/*.yaml, address: 127.0.0.1}";
    let proxy = start(source, &GATEWAY.replace("PORT", &port.to_string()), &own);
    let mut client = Client::connect(port);
    for (path, status, body) in [
        ("/", 200, "one"),
        ("/two", 200, "two"),
        ("/two/x", 200, "two"),
        ("/twofold", 200, "one"),
        ("/two/exact", 200, "one"),
        ("/lost", 500, ""),
        ("/none", 500, ""),
        ("/zero", 500, ""),
        ("/forbidden", 500, ""),
        ("/granted", 200, "web"),
    ] {
        let answer = client.get("shop.example.com", path);
        assert_eq!(answer.status, status, "{path}");
        assert!(status != 200 || answer.text() == body, "{path}: {}", answer.text());
    }
    for (host, path, body) in [
        ("grpc.example.com", "/pkg.Echo/Say", "one"),
        ("grpc.example.com", "/pkg.Echo/Other", "two"),
        ("grpc.example.com", "/pkg.More/Any", "two"),
        ("same.example.com", "/same", "one"),
    ] {
        assert_eq!(client.get(host, path).text(), body, "{host} {path}");
    }
    assert_eq!(client.get("grpc.example.com", "/pkg.More/Say").status, 404);
    let with_field = "GET /two HTTP/1.1\r\nHost: shop.example.com\r\nX-To: one\r\n\r\n";
    assert_eq!(client.request(with_field).text(), "one");
    // A missing backend answers 500 in its share.
    let statuses: Vec<u16> =
        (0..200).map(|_| client.get("shop.example.com", "/half").status).collect();
    let failed = statuses.iter().filter(|&&status| status == 500).count();
    assert_eq!(failed, 100, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|&&status| status == 200).count(), 100);
    // Filters.
    let before = one.requests().len();
    let request = "GET /old/x?q HTTP/1.1\r\nHost: shop.example.com\r\nx-drop: 1\r\n\r\n";
    let answer = client.request(request);
    assert_eq!((answer.text(), answer.field("x-route")), ("one", Some("old")));
    let seen = one.requests()[before].to_ascii_lowercase();
    assert!(seen.starts_with("get /new/x?q http/1.1\r\n"), "{seen}");
    assert!(seen.contains("host: inner.example\r\n") && seen.contains("x-a: b\r\n"), "{seen}");
    assert!(!seen.contains("x-drop"), "{seen}");
    let moved = client.get("shop.example.com", "/moved/a?b");
    let location = format!("http://other.example:{port}/there/a?b");
    assert_eq!((moved.status, moved.field("location")), (302, Some(location.as_str())));
    let secure = client.get("shop.example.com", "/secure");
    let location = Some("https://shop.example.com/secure");
    assert_eq!((secure.status, secure.field("location")), (301, location));
    assert_eq!(client.get("other.example.com", "/").status, 404);
    eventually("the warnings", || {
        let log = proxy.log();
        (log.contains("no ReferenceGrant in strict") && log.contains("there is no service lost"))
            .then_some(())
    });
}

#[test]
fn a_gateway_of_istio_opens_ports_with_its_routes() {
    let (one, two) = (Origin::saying("one"), Origin::saying("two"));
    let (edge, inner) = (free_port(), free_port());
    let objects = "\
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  selector: {istio: ingressgateway}
  servers:
    - {port: {number: PORT, name: http, protocol: HTTP}, hosts: ['*.example.com']}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop}
spec:
  hosts: [shop.example.com, shop.example.org]
  gateways: [edge, mesh]
  http:
    - match: [{gateways: [mesh]}]
      route: [{destination: {host: two}}]
    - route: [{destination: {host: one}}]
";
    let objects = objects.replace("PORT", &edge.to_string());
    let own = format!(
        "listeners: {{in: {{bind: 127.0.0.1:{inner}}}}}\n\
         services:\n  one: {{endpoints: [\"{}\"]}}\n  two: {{endpoints: [\"{}\"]}}\n",
        one.address(),
        two.address()
    );
    let labels = "labels: {istio: ingressgateway}";
    let source = format!("istio: {{files: objects/*.yaml, address: 127.0.0.1, {labels}}}");
    let _proxy = start(&source, &objects, &own);
    let (mut edge, mut inner) = (Client::connect(edge), Client::connect(inner));
    assert_eq!(edge.get("shop.example.com", "/").text(), "one");
    assert_eq!(inner.get("shop.example.com", "/").text(), "two");
    assert_eq!(inner.get("shop.example.org", "/").text(), "two");
    assert_eq!(edge.get("shop.example.org", "/").status, 404, "no server has this host");
}

#[test]
fn a_traffic_split_of_smi() {
    let (one, two) = (Origin::saying("one"), Origin::saying("two"));
    let port = free_port();
    let objects = "\
apiVersion: split.smi-spec.io/v1alpha4
kind: TrafficSplit
metadata: {name: canary}
spec:
  service: shop
  matches: [{kind: HTTPRouteGroup, name: beta}]
  backends: [{service: one, weight: 1}, {service: two, weight: 1}]
---
apiVersion: specs.smi-spec.io/v1alpha4
kind: HTTPRouteGroup
metadata: {name: beta}
spec: {matches: [{name: beta, pathRegex: '/beta/.*', methods: [GET]}]}
---
apiVersion: access.smi-spec.io/v1alpha3
kind: TrafficTarget
metadata: {name: readers}
spec:
  destination: {kind: ServiceAccount, name: shop}
  sources: [{kind: ServiceAccount, name: web}]
  rules: [{kind: HTTPRouteGroup, name: beta}]
";
    let own = format!(
        "listeners: {{web: {{bind: 127.0.0.1:{port}, direction: outbound}}}}\n\
         services:\n  one: {{endpoints: [\"{}\"]}}\n  two: {{endpoints: [\"{}\"]}}\n  \
         shop: {{endpoints: [\"{}\"]}}\n",
        one.address(),
        two.address(),
        one.address()
    );
    let proxy = start("smi: {files: objects/*.yaml}", objects, &own);
    let mut client = Client::connect(port);
    let mut said = [0, 0];
    for _ in 0..20 {
        let answer = client.get("shop", "/beta/x");
        said[usize::from(answer.text() == "two")] += 1;
    }
    assert_eq!(said, [10, 10]);
    assert_eq!(client.get("shop.default", "/other").text(), "one");
    let log = proxy.log();
    assert!(log.contains("the Service Mesh Interface is archived"), "{log}");
}
