//! TLS between Ringway and Envoy, nginx and HAProxy, as clients and as servers.

use crate::support::http::Client;
use crate::support::origin::Origin;
use crate::support::peers::Server;
use crate::support::pki::{Pki, Wanted};
use crate::support::proxy::Proxy;
use crate::support::{eventually, free_port};

const SHOP: &str = "spiffe://cluster.local/ns/demo/sa/shop";
const STOCK: &str = "spiffe://cluster.local/ns/demo/sa/stock";
const THIEF: &str = "spiffe://cluster.local/ns/demo/sa/thief";
const FOREIGN: &str = "spiffe://other.org/ns/demo/sa/shop";

fn members() -> Pki {
    let pki = Pki::new();
    for (name, id) in [("shop", SHOP), ("stock", STOCK), ("thief", THIEF), ("foreign", FOREIGN)] {
        pki.leaf(name, &Wanted { names: &[id], ..Wanted::default() });
    }
    pki
}

fn identity(pki: &Pki, name: &str) -> String {
    let path = |extension: &str| pki.path(&format!("{name}.{extension}"));
    format!("{{cert: {}, key: {}, roots: {}}}", path("pem"), path("key"), pki.path("ca.pem"))
}

/// A Ringway that presents the certificate `name` to members of the mesh.
fn ringway_inbound(pki: &Pki, name: &str, origin: &Origin) -> (Proxy, u16) {
    let port = free_port();
    let proxy = Proxy::start(&format!(
        "mesh: {{identity: {}}}\nlisteners: {{in: {{bind: \"127.0.0.1:{port}\", tls: mesh}}}}\n\
         routes: {{\"*\": [{{to: app}}]}}\nservices: {{app: {{endpoints: [\"{}\"]}}}}\n\
         authorization:\n  - name: no-thieves\n    action: deny\n\
         \x20   from: {{identities: \"{THIEF}\"}}\n",
        identity(pki, name),
        origin.address()
    ));
    (proxy, port)
}

#[test]
fn envoy_serves_us_when_both_have_the_right_identity() {
    let pki = members();
    // This Envoy has the identity of the stock, and accepts only the shop.
    let right = Server::envoy_inbound(&pki, "stock", SHOP);
    let wrong = Server::envoy_inbound(&pki, "thief", SHOP);
    let ask = |me: &str, envoy: &Server| {
        let port = free_port();
        let proxy = Proxy::start(&format!(
            "mesh: {{identity: {}}}\nlisteners: {{out: {{bind: 127.0.0.1:{port}}}}}\n\
             routes: {{\"*\": [{{to: stock}}]}}\n\
             services:\n  stock: {{endpoints: [\"127.0.0.1:{}\"], tls: mesh, \
             identity: \"{STOCK}\"}}\n",
            identity(&pki, me),
            envoy.port
        ));
        let answers: Vec<_> = (0..3).map(|_| Client::connect(port).get("stock", "/")).collect();
        let said = answers.iter().map(|answer| (answer.status, answer.text().to_owned())).collect();
        (proxy, said)
    };
    let (proxy, said): (_, Vec<_>) = ask("shop", &right);
    assert_eq!(said, vec![(200, "from envoy".to_owned()); 3], "{}", proxy.log());
    let (proxy, said) = ask("thief", &right);
    assert!(said.iter().all(|(status, _)| *status >= 500), "{said:?}: {}", proxy.log());
    let (proxy, said) = ask("shop", &wrong);
    assert!(said.iter().all(|(status, _)| *status == 503), "{said:?}");
    let reason = "it proves spiffe://cluster.local/ns/demo/sa/thief";
    eventually(reason, || proxy.log().contains(reason).then_some(()));
}

#[test]
fn envoy_calls_us_when_both_have_the_right_identity() {
    let pki = members();
    let origin = Origin::saying("from ringway");
    let (proxy, inbound) = ringway_inbound(&pki, "stock", &origin);
    let ask = |envoy: &Server| {
        let answer = Client::connect(envoy.port).get("stock", "/");
        (answer.status, answer.text().to_owned())
    };
    let shop = Server::envoy_outbound(&pki, "shop", STOCK, inbound);
    for _ in 0..3 {
        assert_eq!(ask(&shop), (200, "from ringway".to_owned()), "{}", proxy.log());
    }
    let thief = Server::envoy_outbound(&pki, "thief", STOCK, inbound);
    assert_eq!(ask(&thief), (403, "access denied by policy".to_owned()));
    let mistaken = Server::envoy_outbound(&pki, "shop", THIEF, inbound);
    assert_eq!(ask(&mistaken).0, 503, "Envoy refuses what is not who it should be");
    let foreign = Server::envoy_outbound(&pki, "foreign", STOCK, inbound);
    assert_eq!(ask(&foreign).0, 503);
    for reason in ["the peer refused with the alert", "no bundle for the domain other.org"] {
        eventually(reason, || proxy.log().contains(reason).then_some(()));
    }
}

#[test]
fn nginx_and_haproxy_call_us_with_client_certificates() {
    let pki = Pki::new();
    let stranger = Pki::new();
    pki.leaf("web", &Wanted { names: &["web.test"], ..Wanted::default() });
    pki.leaf("client", &Wanted { names: &["client"], ..Wanted::default() });
    pki.leaf(
        "expired",
        &Wanted { names: &["client"], valid_s: (-7200, -3600), ..Wanted::default() },
    );
    stranger.leaf("client", &Wanted { names: &["client"], ..Wanted::default() });
    let origin = Origin::saying("hello");
    let port = free_port();
    let proxy = Proxy::start(&format!(
        "listeners:\n  web:\n    bind: 127.0.0.1:{port}\n    forward_client_cert: set\n\
         \x20   tls: {{cert: {}, key: {}, client_ca: {}}}\n\
         routes: {{\"*\": [{{to: app}}]}}\nservices: {{app: {{endpoints: [\"{}\"]}}}}\n",
        pki.path("web.pem"),
        pki.path("web.key"),
        pki.path("ca.pem"),
        origin.address()
    ));
    type Make = fn(&Pki, &str, &str, &str, u16) -> Server;
    let makers: [(&str, Make); 2] =
        [("nginx", Server::nginx_client), ("haproxy", Server::haproxy_client)];
    for (name, make) in makers {
        let ask = |with: &Pki, cert: &str, expected: &str| {
            let client = make(with, cert, &pki.path("ca.pem"), expected, port);
            Client::connect(client.port).get("web.test", "/")
        };
        for _ in 0..2 {
            assert_eq!(ask(&pki, "client", "web.test").text(), "hello", "{name}: {}", proxy.log());
        }
        // nginx notices the refusal only when it reads the answer.
        assert!(ask(&pki, "expired", "web.test").status >= 400, "{name}");
        assert!(ask(&stranger, "client", "web.test").status >= 400, "{name}");
        assert!(ask(&pki, "client", "other.test").status >= 500, "{name} refuses another name");
    }
    assert_eq!(origin.requests().len(), 4);
    assert!(origin.requests().iter().all(|head| head.contains("x-forwarded-client-cert: ")));
}
