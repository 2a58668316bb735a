//! Tests of Istio's objects: their semantics as Istio defines them, and their mistakes.

use std::collections::HashMap;

use ringway::compile::registry::Registry;
use ringway::compile::{Compiled, Resolutions};
use ringway::message::Head;
use ringway::model::{RequestFact, TagValue};
use ringway::route::Action;
use ringway::sources::files;

/// A service with two versions on two ports.
const REVIEWS: &str = "\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: reviews}
spec:
  hosts: [reviews]
  resolution: STATIC
  ports: [{number: 9080, name: http, protocol: HTTP}]
  endpoints:
    - {address: 10.0.0.1, labels: {version: v1}}
    - {address: 10.0.0.2, labels: {version: v2, tier: gold}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  subsets:
    - {name: v1, labels: {version: v1}}
    - {name: v2, labels: {version: v2}}
---
";

pub(crate) struct Files {
    directory: tempfile::TempDir,
}

impl Files {
    /// Objects in a file beside a configuration with a listener; `more` are more sections.
    pub(crate) fn new(objects: &str, more: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let settings = "files: objects.yaml, labels: {app: web}, namespace: shop";
        let own = match more.contains("sources:") {
            true => more.to_owned(),
            false => format!("sources: {{istio: {{{settings}}}}}\n{more}"),
        };
        let listener = "listeners: {web: {bind: 127.0.0.1:1}}\n";
        std::fs::write(directory.path().join("objects.yaml"), objects).unwrap();
        std::fs::write(directory.path().join("a.conf"), format!("{listener}{own}")).unwrap();
        Self { directory }
    }

    fn load(&self) -> files::Loaded {
        files::load(&[self.directory.path().join("a.conf")], &HashMap::new())
    }

    /// The model, without what is wrong in the files.
    pub(crate) fn model(&self) -> std::sync::Arc<ringway::model::Model> {
        self.load().model()
    }

    /// The compiled configuration, or all messages.
    pub(crate) fn compiled(&self) -> Result<Compiled, String> {
        let resolutions = Resolutions::new();
        let result = files::compile(&self.load(), 1, &mut Registry::new(1), &resolutions);
        result.map_err(|errors| {
            let root = format!("{}/", self.directory.path().display());
            errors.to_string().replace(&root, "")
        })
    }

    /// The warnings, without the lines of the files.
    fn warnings(&self) -> Vec<String> {
        let loaded = self.load();
        let compiled = self.compiled().unwrap();
        let list = files::warnings(&loaded, &compiled).list;
        list.into_iter().map(|warning| warning.message).collect()
    }
}

/// The first destination of the request, or its status if the proxy answers itself.
fn reached(compiled: &Compiled, line: &str, host: &str, fields: &str) -> String {
    let text = format!("{line} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n");
    let snapshot = &compiled.snapshot;
    let mut head = Head::default();
    ringway::http1::parse::request(
        text.as_bytes(),
        0..text.len(),
        &snapshot.limits.message,
        &mut head,
    )
    .unwrap();
    let routes = snapshot.listeners[0].routes().unwrap();
    let Some(rule) = routes.find(head.view(text.as_bytes()), 80) else { return "404".to_owned() };
    match &rule.action {
        Action::Forward(split) => {
            let to = split.shares()[0].0;
            let service = &snapshot.services[to.service as usize];
            let endpoints = &service.endpoints.load().list;
            let first =
                endpoints.first().map_or_else(|| "none".to_owned(), |it| it.address.to_string());
            format!("{} {first}", service.name)
        }
        Action::Redirect(redirect) => redirect.status.to_string(),
        Action::Respond(respond) => respond.status.to_string(),
    }
}

fn virtual_service(http: &str) -> String {
    format!(
        "{REVIEWS}apiVersion: networking.istio.io/v1\nkind: VirtualService\n\
         metadata: {{name: reviews}}\nspec:\n  hosts: [reviews]\n  http:\n{http}"
    )
}

#[test]
fn the_document_of_two_versions_runs_as_it_is_written() {
    let document = "\
apiVersion: networking.istio.io/v1alpha3
kind: VirtualService
metadata:
  name: reviews
spec:
  hosts:
  - reviews
  http:
  - match:
    - headers:
        user:
          exact: jason
    route:
    - destination:
        host: reviews
        subset: v2
  - route:
    - destination:
        host: reviews
        subset: v1
";
    let with_entry = Files::new(&format!("{REVIEWS}{document}"), "");
    let own = "services: {reviews: {versions: {v1: [10.0.0.3:80], v2: [10.0.0.4:80]}}}";
    let with_own = Files::new(document, own);
    let alone = Files::new(document, "");
    let full = "reviews.shop.svc.cluster.local";
    for (files, [v1, v2]) in [
        (&with_entry, [format!("{full}|v1 10.0.0.1:9080"), format!("{full}|v2 10.0.0.2:9080")]),
        (&with_own, ["reviews 10.0.0.3:80".to_owned(), "reviews 10.0.0.3:80".to_owned()]),
        (&alone, [format!("{full} none"), format!("{full} none")]),
    ] {
        let compiled = files.compiled().unwrap();
        for (fields, expected) in [
            ("", &v1),
            ("user: bob\r\n", &v1),
            ("user: jason\r\n", &v2),
            // Each line is tried alone.
            ("user: bob\r\nuser: jason\r\n", &v2),
            ("user: jason,bob\r\n", &v1),
        ] {
            for host in ["reviews", "reviews.shop", "reviews.shop.svc:9080", full] {
                assert_eq!(&reached(&compiled, "GET /", host, fields), expected, "{fields}");
            }
        }
        assert_eq!(reached(&compiled, "GET /", "other", ""), "404");
    }
    assert_eq!(with_entry.warnings(), [""; 0]);
    assert_eq!(with_own.warnings(), [""; 0]);
    let warnings = alone.warnings();
    assert!(warnings[0].contains("no service has the host"), "{warnings:?}");
}

#[test]
fn paths_match_as_in_istio() {
    let http = "\x20   - match: [{uri: {exact: /exact}}]
      directResponse: {status: 201}
    - match: [{uri: {prefix: /foo}}]
      directResponse: {status: 202}
    - match: [{uri: {regex: '/r[0-9]+'}}]
      directResponse: {status: 203}
    - match: [{uri: {prefix: /Any}, ignoreUriCase: true}]
      directResponse: {status: 204}
    - match: [{uri: {exact: /Whole}, ignoreUriCase: true}]
      directResponse: {status: 205}
";
    let compiled = Files::new(&virtual_service(http), "").compiled().unwrap();
    for (path, status) in [
        ("/exact", "201"),
        ("/exact/", "404"),
        ("/exact?q=1", "201"),
        ("/foo", "202"),
        ("/foobar", "202"),
        ("/foo/bar", "202"),
        ("/Foo", "404"),
        ("/r1", "203"),
        ("/r1x", "404"),
        ("/ANYTHING", "204"),
        ("/whole", "205"),
        ("/wholesome", "404"),
    ] {
        let line = format!("GET {path}");
        assert_eq!(reached(&compiled, &line, "reviews", ""), status, "{path}");
    }
}

#[test]
fn conditions_of_requests() {
    let http = "\x20   - match: [{method: {regex: 'P.*'}}]
      directResponse: {status: 201}
    - match: [{method: {exact: DELETE}}]
      directResponse: {status: 202}
    - match: [{authority: {prefix: 'reviews.'}}]
      directResponse: {status: 203}
    - match: [{queryParams: {beta: {exact: '1'}}}, {queryParams: {id: {prefix: x}}}]
      directResponse: {status: 204}
    - match: [{withoutHeaders: {x-a: {}}, headers: {x-b: {prefix: y}}}]
      directResponse: {status: 205}
    - match: [{withoutHeaders: {x-a: {exact: '1'}}, headers: {x-c: {}}}]
      directResponse: {status: 206}
    - match: [{sourceLabels: {app: other}}]
      directResponse: {status: 207}
    - match: [{sourceLabels: {app: web}, sourceNamespace: shop, headers: {x-l: {}}}]
      directResponse: {status: 208}
    - match: [{gateways: [some], headers: {x-g: {}}}]
      directResponse: {status: 209}
    - match: [{port: 8080}]
      directResponse: {status: 210}
";
    let compiled = Files::new(&virtual_service(http), "").compiled().unwrap();
    for (line, host, fields, status) in [
        ("PUT /", "reviews", "", "201"),
        ("DELETE /", "reviews", "", "202"),
        ("GET /", "reviews.shop", "", "203"),
        ("GET /?beta=1", "reviews", "", "204"),
        ("GET /?a&id=xyz", "reviews", "", "204"),
        ("GET /?beta=2", "reviews", "", "404"),
        ("GET /", "reviews", "x-b: yes\r\n", "205"),
        ("GET /", "reviews", "x-b: yes\r\nx-a: \r\n", "404"),
        ("GET /", "reviews", "x-c: 1\r\nx-a: 2\r\n", "206"),
        ("GET /", "reviews", "x-c: 1\r\nx-a: 2\r\nx-a: 1\r\n", "404"),
        ("GET /", "reviews", "x-l: 1\r\n", "208"),
        ("GET /", "reviews", "x-g: 1\r\n", "404"),
        ("GET /", "reviews:8080", "", "210"),
    ] {
        assert_eq!(reached(&compiled, line, host, fields), status, "{line} {host} {fields}");
    }
}

#[test]
fn services_have_ports_subsets_and_policies() {
    let objects = "\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: api, namespace: other}
spec:
  hosts: [api.example.com]
  resolution: STATIC
  ports:
    - {number: 80, name: http, protocol: HTTP}
    - {number: 8080, name: grpc, protocol: GRPC, targetPort: 9090}
  workloadSelector: {labels: {app: api}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: one, namespace: other, labels: {app: api}}
spec: {address: 10.0.0.1, ports: {http: 8000}, labels: {version: v1}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: two, namespace: elsewhere, labels: {app: api}}
spec: {address: 10.0.0.2}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: api}
spec:
  host: '*.example.com'
  trafficPolicy:
    loadBalancer: {simple: ROUND_ROBIN}
    connectionPool: {http: {http1MaxPendingRequests: 7}}
    portLevelSettings:
      - port: {number: 8080}
        loadBalancer: {consistentHash: {httpHeaderName: x-user}}
  subsets:
    - name: v1
      labels: {version: v1}
      trafficPolicy: {loadBalancer: {simple: RANDOM}}
";
    let compiled = Files::new(objects, "").compiled().unwrap();
    let policy = |name: &str| {
        let services = &compiled.snapshot.services;
        let service = services.iter().find(|service| &*service.name == name).unwrap();
        let first = service.endpoints.load().list[0].address.to_string();
        (format!("{:?}", service.policy), service.breaker.is_some(), first)
    };
    let shown = |policy: &str, breaker, address: &str| (policy.into(), breaker, address.into());
    assert_eq!(policy("api.example.com|80"), shown("RoundRobin", true, "10.0.0.1:8000"));
    assert_eq!(policy("api.example.com|80|v1"), shown("Random", true, "10.0.0.1:8000"));
    let hash = "Hash(Header(\"x-user\"))";
    assert_eq!(policy("api.example.com|8080"), shown(hash, false, "10.0.0.1:9090"));
    for (host, service) in [
        ("api.example.com", "api.example.com|80 10.0.0.1:8000"),
        ("api.example.com:80", "api.example.com|80 10.0.0.1:8000"),
        ("api.example.com:8080", "api.example.com|8080 10.0.0.1:9090"),
        ("api.example.com:81", "api.example.com|80 10.0.0.1:8000"),
    ] {
        assert_eq!(reached(&compiled, "GET /", host, ""), service, "{host}");
    }
}

#[test]
fn objects_of_other_namespaces_are_used_only_if_they_are_exported() {
    let entry = |export: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\n\
             metadata: {{name: a, namespace: other}}\nspec:\n  hosts: [a.example.com]\n  \
             resolution: STATIC\n  exportTo: {export}\n  ports: [{{number: 80, name: http}}]\n"
        )
    };
    for (export, services) in
        [("[]", 1), ("['*']", 1), ("['.']", 0), ("[shop]", 1), ("[more, '~']", 0)]
    {
        let compiled = Files::new(&entry(export), "").compiled().unwrap();
        assert_eq!(compiled.snapshot.services.len(), services, "{export}");
    }
}

#[test]
fn weights_have_any_sum_and_retries_have_istios_defaults() {
    let http = "\x20   - route:
        - {destination: {host: reviews, subset: v1}, weight: 40}
        - {destination: {host: reviews, subset: v2}, weight: 20}
";
    let compiled = Files::new(&virtual_service(http), "").compiled().unwrap();
    let rules = &compiled.snapshot.rules;
    let rule = rules.iter().find(|rule| &*rule.name == "VirtualService shop/reviews #1").unwrap();
    let Action::Forward(split) = &rule.action else { panic!() };
    let shares: Vec<usize> = split.shares().iter().map(|(_, weight)| *weight).collect();
    assert_eq!(shares, [2, 1], "reduced");
    let retries = rule.retries.as_ref().unwrap();
    let on: Vec<String> = retries.on.iter().map(ToString::to_string).collect();
    assert_eq!(retries.attempts, 2);
    assert_eq!(on, ["connect-failure", "refused-stream", "unavailable", "cancelled"]);
    assert!(rule.place.ends_with("objects.yaml:27"), "{}", rule.place);
}

#[test]
fn the_narrowest_peer_authentication_decides() {
    let object = |name: &str, namespace: &str, spec: &str| {
        format!(
            "apiVersion: security.istio.io/v1beta1\nkind: PeerAuthentication\n\
             metadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n---\n"
        )
    };
    let mesh = object("mesh", "istio-system", "{mtls: {mode: STRICT}}");
    let namespace = object("default", "shop", "{mtls: {mode: DISABLE}}");
    let unset = object("default", "shop", "{mtls: {mode: UNSET}}");
    let workload = object(
        "web",
        "shop",
        "{selector: {matchLabels: {app: web}}, mtls: {mode: PERMISSIVE}, \
         portLevelMtls: {8080: {mode: STRICT}, 8081: {mode: UNSET}}}",
    );
    let other = object("x", "shop", "{selector: {matchLabels: {app: x}}, mtls: {mode: STRICT}}");
    for (objects, mode, ports) in [
        (mesh.clone(), Some("Strict"), ""),
        (mesh.clone() + &namespace, Some("Disable"), ""),
        (mesh.clone() + &unset, Some("Strict"), ""),
        (mesh.clone() + &other, Some("Strict"), ""),
        (mesh + &namespace + &workload, Some("Permissive"), "8080 Strict 8081 Permissive"),
        (object("default", "elsewhere", "{mtls: {mode: STRICT}}"), None, ""),
    ] {
        let model = Files::new(&objects, "").load().model();
        let inbound = &model.mesh.inbound;
        let found = inbound.mtls.as_ref().map(|mtls| format!("{:?}", mtls.value));
        let of_ports = inbound.port_mtls.iter();
        let of_ports = of_ports.map(|(port, mtls)| format!("{port} {:?}", mtls.value));
        assert_eq!(found.as_deref(), mode, "{objects}");
        assert_eq!(of_ports.collect::<Vec<_>>().join(" "), ports, "{objects}");
    }
}

#[test]
fn unknown_fields_and_values_have_their_place_and_the_right_spelling() {
    for (http, expected) in [
        (
            "    - route: [{destination: {host: reviews, subset: v1, wieght: 1}}]\n",
            [
                "objects.yaml:27:57: error: VirtualService shop/reviews: unknown field `wieght`",
                "expected one of: host, subset, port",
            ],
        ),
        (
            "    - route: [{destination: {host: reviews}}]\n      retries: {per_try_timeout: 2s}\n",
            ["unknown field `per_try_timeout`", "write `perTryTimeout`"],
        ),
        (
            "    - route: [{destination: {host: own}}]\n      retries: {retryOn: gatway-error}\n",
            ["\"gatway-error\" is no condition for a retry", "did you mean \"gateway-error\"?"],
        ),
        (
            "    - match: [{uri: {starts: /a}}]\n      route: [{destination: {host: reviews}}]\n",
            ["unknown field `starts`", "expected one of: exact, prefix, regex"],
        ),
        (
            "    - route: [{destination: {host: reviews}}]\n      timeout: 5\n",
            ["`timeout` is a length of time, not \"5\"", "write a number with its unit"],
        ),
        (
            "    - route: [{destination: {host: reviews}}]\n      corsPolicy: {}\n",
            ["`corsPolicy` is not supported", "leave it out"],
        ),
    ] {
        let errors = Files::new(&virtual_service(http), "").compiled().map(|_| ()).unwrap_err();
        for part in expected {
            assert!(errors.contains(part), "{part:?} is not in\n{errors}");
        }
    }
}

#[test]
fn a_telemetry_gives_its_five_errors_and_its_corrected_copy_runs() {
    let document = "\
apiVersion: telemetry.istio.io/v1alpha1
kind: Telemetry
metadata:
  name: default
spec:
  metrics:
  - providers:
    - prometheus
    overrides:
    - match:
        metric: ISTIO_REQUEST_COUNT
        mode: COUNTER
      name: request_count
      dimensions:
        reporter: source
        source_app: kubernetes.io/name
        source_version: kubernetes.io/app-version
";
    let errors = Files::new(document, "").compiled().map(|_| ()).unwrap_err();
    assert_eq!(errors.matches("error: ").count(), 5, "{errors}");
    for part in [
        "objects.yaml:8:7: error: Telemetry shop/default: a provider is a map with a name",
        "write `- name: prometheus`",
        "\"ISTIO_REQUEST_COUNT\" is not a value of `metric`",
        "REQUEST_COUNT",
        "\"COUNTER\" is not a value of `mode`",
        "expected one of: CLIENT_AND_SERVER, CLIENT, SERVER",
        "unknown field `name`",
        "unknown field `dimensions`",
        "write `tagOverrides: {NAME: {operation: UPSERT, value: EXPRESSION}}`",
    ] {
        assert!(errors.contains(part), "{part:?} is not in\n{errors}");
    }
    let corrected = "\
apiVersion: telemetry.istio.io/v1alpha1
kind: Telemetry
metadata:
  name: default
spec:
  metrics:
  - providers:
    - name: prometheus
    overrides:
    - match:
        metric: REQUEST_COUNT
        mode: CLIENT_AND_SERVER
      tagOverrides:
        reporter: {value: \"'source'\"}
        source_app: {value: \"node.metadata['LABELS']['app']\"}
        source_version: {operation: REMOVE}
        url: {value: \"has(request.url_path) ? request.url_path : 'none'\"}
        caller: {value: \"source.labels['app'].value\"}
";
    let files = Files::new(corrected, "");
    files.compiled().unwrap();
    let model = files.load().model();
    let change = &model.settings.metrics.overrides[0].value;
    let set: Vec<_> = change.set.iter().map(|(n, v)| (n.value.as_str(), &v.value)).collect();
    let text = |text: &str| TagValue::Text(text.to_owned());
    assert_eq!(set[..2], [("reporter", &text("source")), ("source_app", &text("web"))]);
    let path = TagValue::Request(RequestFact::Path, Some("none".to_owned()));
    assert_eq!(set[2..], [("url", &path), ("caller", &TagValue::Label("source_app", None))]);
    assert_eq!(change.remove[0].value, "source_version");
}

#[test]
fn tokens_of_request_authentications_are_optional() {
    let objects = "\
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: jwt}
spec:
  selector: {matchLabels: {app: web}}
  jwtRules:
    - {issuer: a.example, jwksUri: 'https://a.example/keys'}
    - {issuer: b.example, jwksUri: 'https://b.example/keys', fromHeaders: [{name: x-token}]}
";
    let compiled = Files::new(objects, "").compiled().unwrap();
    let listener = &compiled.snapshot.listeners[0];
    let demand = listener.jwt.as_ref().unwrap();
    assert!(demand.optional);
    let fields: Vec<&str> = demand.providers.iter().map(|provider| &*provider.field).collect();
    assert_eq!(fields, ["authorization", "x-token"]);
}
