//! Istio's own objects from files: 200 requests through the real binary, policies on inbound
//! traffic, and a change of an object at run time.

use crate::support::http::Client;
use crate::support::origin::Origin;
use crate::support::proxy::Proxy;
use crate::support::{eventually, free_port};

/// The services `reviews` with the versions v1 and v2, and their VirtualService.
const REVIEWS: &str = "\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: reviews}
spec:
  hosts: [reviews]
  resolution: STATIC
  ports: [{number: 80, name: http}]
  endpoints:
    - {address: 127.0.0.1, ports: {http: PORT1}, labels: {version: v1}}
    - {address: 127.0.0.1, ports: {http: PORT2}, labels: {version: v2}}
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
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
";

fn reviews(v1: &Origin, v2: &Origin, routes: &str) -> String {
    let objects = REVIEWS.replace("PORT1", &v1.port.to_string());
    format!("{}{routes}", objects.replace("PORT2", &v2.port.to_string()))
}

/// Starts a proxy with the objects in `istio/objects.yaml`.
fn start(objects: &str, own: &str) -> Proxy {
    let directory = tempfile::tempdir().unwrap();
    let admin = free_port();
    let base = format!(
        "admin: {{bind: 127.0.0.1:{admin}}}\nruntime: {{workers: 2}}\n\
         sources: {{istio: {{files: istio/*.yaml, labels: {{app: web}}}}}}\n{own}"
    );
    std::fs::write(directory.path().join("ringway.yaml"), base).unwrap();
    std::fs::create_dir(directory.path().join("istio")).unwrap();
    std::fs::write(directory.path().join("istio/objects.yaml"), objects).unwrap();
    Proxy::start_on(directory, admin)
}

const JASON: &str = "    - match: [{headers: {user: {exact: jason}}}]\n      \
     route: [{destination: {host: reviews, subset: v2}}]\n    \
     - route: [{destination: {host: reviews, subset: v1}}]\n";

#[test]
fn two_hundred_requests_go_where_istio_sends_them() {
    let (v1, v2) = (Origin::saying("v1"), Origin::saying("v2"));
    let port = free_port();
    let own = format!("listeners: {{web: {{bind: 127.0.0.1:{port}}}}}\n");
    let proxy = start(&reviews(&v1, &v2, JASON), &own);
    let mut client = Client::connect(port);
    for number in 0..200 {
        let (fields, answer) = match number % 5 {
            0 => ("", "v1"),
            1 => ("user: jason\r\n", "v2"),
            2 => ("user: bob\r\nuser: jason\r\n", "v2"),
            3 => ("user: jason, bob\r\n", "v1"),
            _ => ("User: Jason\r\n", "v1"),
        };
        let host = ["reviews", "reviews.default", "reviews.default.svc.cluster.local"][number % 3];
        let request = format!("GET /{number} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n");
        assert_eq!(client.request(request).text(), answer, "{number}");
    }
    let metrics = proxy.admin("/metrics").text().to_owned();
    let counted = "service=\"reviews.default.svc.cluster.local|v2\"";
    assert!(metrics.contains(counted), "{metrics}");
    // A change of an object is applied without a restart.
    let objects = proxy.directory().join("istio/objects.yaml");
    let all_to = reviews(&v1, &v2, "    - route: [{destination: {host: reviews, subset: v2}}]\n");
    std::fs::write(&objects, all_to).unwrap();
    eventually("the new routes", || {
        (Client::connect(port).get("reviews", "/").text() == "v2").then_some(())
    });
    // An object with a mistake changes nothing.
    std::fs::write(&objects, reviews(&v1, &v2, "    - rout: []\n")).unwrap();
    eventually("the refusal", || proxy.log().contains("unknown field `rout`").then_some(()));
    assert_eq!(client.get("reviews", "/").text(), "v2");
    // So does a new file that the pattern matches.
    std::fs::write(&objects, reviews(&v1, &v2, JASON)).unwrap();
    eventually("the old routes", || {
        (Client::connect(port).get("reviews", "/").text() == "v1").then_some(())
    });
    let more = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: more}\n\
                spec: {hosts: [more.example.com], http: [{directResponse: {status: 218}}]}\n";
    std::fs::write(proxy.directory().join("istio/more.yaml"), more).unwrap();
    eventually("the new file", || {
        (Client::connect(port).get("more.example.com", "/").status == 218).then_some(())
    });
}

/// Routes with rewrites, faults, mirrors, redirects, and destinations that do not exist.
const ROUTES: &str = "\x20   - match: [{uri: {prefix: /old}}]
      rewrite: {uri: /new, authority: inner.example}
      route:
        - destination: {host: reviews, subset: v1}
          headers: {request: {add: {x-to: v1}}}
      headers: {response: {set: {x-route: old}}}
    - match: [{uri: {prefix: /regex}}]
      rewrite: {uriRegexRewrite: {match: '^/regex/([a-z]+)/([0-9]+)', rewrite: '/\\2/\\1'}}
      route: [{destination: {host: reviews, subset: v1}}]
    - match: [{uri: {exact: /abort}}]
      fault: {abort: {httpStatus: 418, percentage: {value: 100}}}
      route: [{destination: {host: reviews, subset: v1}}]
    - match: [{uri: {exact: /mirror}}]
      mirror: {host: reviews, subset: v2}
      route: [{destination: {host: reviews, subset: v1}}]
    - match: [{uri: {exact: /lost}}]
      route: [{destination: {host: reviews, subset: v3}}]
    - match: [{uri: {exact: /nowhere}}]
      route: [{destination: {host: nowhere.example.com}}]
    - match: [{uri: {exact: /moved}}]
      redirect: {uri: /there, authority: other.example, redirectCode: 308}
    - match: [{uri: {exact: /plain}}]
      directResponse: {status: 218, body: {string: hello}}
";

#[test]
fn rewrites_faults_mirrors_and_missing_subsets() {
    let (v1, v2) = (Origin::saying("v1"), Origin::saying("v2"));
    let port = free_port();
    let own = format!("listeners: {{web: {{bind: 127.0.0.1:{port}}}}}\n");
    let proxy = start(&reviews(&v1, &v2, ROUTES), &own);
    let mut client = Client::connect(port);
    let answer = client.get("reviews", "/oldest/x?q=1");
    assert_eq!((answer.status, answer.field("x-route")), (200, Some("old")));
    client.get("reviews", "/regex/abc/12/rest?q");
    let requests = v1.requests();
    assert!(requests[0].starts_with("GET /newest/x?q=1 HTTP/1.1\r\n"), "{}", requests[0]);
    let first = requests[0].to_ascii_lowercase();
    assert!(first.contains("host: inner.example\r\n") && first.contains("x-to: v1\r\n"), "{first}");
    assert!(requests[1].starts_with("GET /12/abc/rest?q HTTP/1.1\r\n"), "{}", requests[1]);
    for (path, status) in
        [("/abort", 418), ("/lost", 503), ("/nowhere", 503), ("/moved", 308), ("/plain", 218)]
    {
        let answer = client.get("reviews", path);
        assert_eq!(answer.status, status, "{path}");
        if status == 308 {
            assert_eq!(answer.field("location"), Some("http://other.example/there"));
        }
    }
    assert_eq!(client.get("reviews", "/mirror").text(), "v1");
    eventually("the mirrored request", || (!v2.requests().is_empty()).then_some(()));
    assert!(v2.requests()[0].contains("reviews-shadow"), "{}", v2.requests()[0]);
    let log = proxy.log();
    assert!(log.contains("has the subset \\\"v3\\\"") || log.contains("has the subset"), "{log}");
}

#[test]
fn authorization_policies_hold_for_inbound_listeners() {
    let app = Origin::saying("app");
    let objects = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {name: readers}\nspec:\n  selector: {matchLabels: {app: web}}\n  rules:\n    \
         - to: [{operation: {methods: [GET], paths: [/open*]}}]\n      \
         when: [{key: 'request.headers[x-team]', values: [a, 'b*']}]\n";
    let (inbound, outbound) = (free_port(), free_port());
    let own = format!(
        "listeners:\n  in: {{bind: 127.0.0.1:{inbound}}}\n  \
         out: {{bind: 127.0.0.1:{outbound}, direction: outbound}}\n\
         routes: {{\"*\": [{{to: app}}]}}\nservices: {{app: {{endpoints: [\"{}\"]}}}}\n",
        app.address()
    );
    let _proxy = start(objects, &own);
    let mut client = Client::connect(inbound);
    for (line, team, status) in [
        ("GET /open", "a", 200),
        ("GET /opened", "bcd", 200),
        ("GET /open", "c", 403),
        ("POST /open", "a", 403),
        ("GET /closed", "a", 403),
    ] {
        let request =
            format!("{line} HTTP/1.1\r\nHost: a\r\nx-team: {team}\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(client.request(request).status, status, "{line} {team}");
    }
    assert_eq!(Client::connect(outbound).get("a", "/closed").status, 200);
}
