//! Tokens: the requests that need one, the tokens that are valid, and the sources of the keys.

use std::sync::{Arc, Mutex};

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use crate::support::http::{Client, Response};
use crate::support::origin::Origin;
use crate::support::peers::curl;
use crate::support::pki::{Pki, Wanted};
use crate::support::proxy::Proxy;
use crate::support::{eventually, free_port};

/// A key of an issuer.
struct Signer {
    key: EncodingKey,
    id: String,
}

impl Signer {
    fn new(id: &str) -> Self {
        let der = rcgen::KeyPair::generate().unwrap().serialize_der();
        Self { key: EncodingKey::from_ec_der(&der), id: id.to_owned() }
    }

    fn key_set(&self) -> String {
        let mut jwk = Jwk::from_encoding_key(&self.key, Algorithm::ES256).unwrap();
        jwk.common.key_id = Some(self.id.clone());
        json!({ "keys": [jwk] }).to_string()
    }

    /// A token that is valid for an hour, with the usual claims and these ones.
    fn token(&self, more: &Value) -> String {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let mut claims = json!({"iss": "https://id.example", "aud": "shop", "sub": "jo",
            "exp": now.as_secs() + 3600});
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(self.id.clone());
        encode(&header, &claims, &self.key).unwrap()
    }
}

fn ask(port: u16, target: &str, token: Option<&str>) -> Response {
    let field = token.map(|token| format!("Authorization: Bearer {token}\r\n"));
    let field = field.unwrap_or_default();
    let request = format!("GET {target} HTTP/1.1\r\nHost: shop\r\n{field}X-Kept: yes\r\n\r\n");
    Client::connect(port).request(request)
}

#[test]
fn a_route_demands_a_token_and_rules_read_its_claims() {
    let pki = Pki::new();
    let signer = Signer::new("k1");
    pki.replace("jwks.json", &signer.key_set());
    let origin = Origin::saying("hello");
    let port = free_port();
    let proxy = Proxy::start(
        &format!(
            "listeners: {{web: {{bind: 127.0.0.1:{port}}}}}\n\
         jwt:\n  id:\n    issuer: https://id.example\n    audiences: [shop]\n\
         \x20   jwks: {{file: {0}}}\n\
         \x20 seen: {{issuer: https://id.example, jwks: {{file: {0}}}, forward: true}}\n\
         \x20 own: {{issuer: https://id.example, jwks: {{file: {0}}}, header: x-token}}\n\
         routes:\n  \"*\":\n\
         \x20   - {{match: {{path: /open/*}}, to: open}}\n\
         \x20   - {{match: {{path: /maybe/*}}, to: app, jwt: {{providers: id, optional: true}}}}\n\
         \x20   - {{match: {{path: /seen/*}}, to: app, jwt: seen}}\n\
         \x20   - {{match: {{path: /own/*}}, to: app, jwt: own}}\n\
         \x20   - {{match: {{path: /fixed}}, respond: {{body: fixed}}, jwt: id}}\n\
         \x20   - {{to: app}}\n\
         services:\n  open: {{endpoints: [\"{1}\"]}}\n\
         \x20 app: {{endpoints: [\"{1}\"], jwt: id}}\n\
         authorization:\n\
         \x20 - {{name: no-guests, action: deny, to: {{service: app}}, \n\
         \x20    when: {{claims: {{role: guest}}}}}}\n\
         \x20 - {{name: bosses, action: deny, to: {{service: app, paths: /boss/*}},\n\
         \x20    from: {{ips: 127.0.0.1}}, when: {{claims: {{\"realm.roles\": \"~[^b].*\"}}}}}}\n",
            pki.path("jwks.json"),
            origin.address()
        )
        .replace("(?!boss).*", "[^b].*")
        .replace(": &id\n", ":\n"),
    );
    let good = signer.token(&json!({}));
    let none = ask(port, "/", None);
    assert_eq!(none.status, 401);
    assert_eq!(none.field("www-authenticate"), Some("Bearer"));
    assert_eq!(none.text(), "a token is required");
    assert_eq!(ask(port, "/", Some(&good)).text(), "hello");
    assert_eq!(ask(port, "/fixed", None).status, 401, "also what the proxy answers itself");
    assert_eq!(ask(port, "/fixed", Some(&good)).text(), "fixed");
    assert_eq!(ask(port, "/open/x", None).status, 200);
    for dodge in ["/open/../x", "//x", "/open/%2e%2e/x"] {
        assert_eq!(ask(port, dodge, None).status, 401, "{dodge}");
    }
    assert_eq!(ask(port, "/maybe/x", None).status, 200);
    assert_eq!(ask(port, "/maybe/x", Some("not.a.token")).status, 401);
    let stranger = Signer::new("k1").token(&json!({}));
    assert_eq!(ask(port, "/", Some(&stranger)).text(), "the token's signature is wrong");
    let other = signer.token(&json!({"aud": "stock"}));
    assert_eq!(ask(port, "/", Some(&other)).text(), "the token is for another audience");
    let old = signer.token(&json!({"exp": 1_000_000_000}));
    assert_eq!(ask(port, "/", Some(&old)).text(), "the token has expired");
    assert_eq!(ask(port, "/", Some(&signer.token(&json!({"role": "guest"})))).status, 403);
    for (roles, status) in [(json!(["boss"]), 200), (json!(["clerk"]), 403)] {
        let token = signer.token(&json!({"realm": {"roles": roles}}));
        assert_eq!(ask(port, "/boss/x", Some(&token)).status, status, "{roles}");
    }
    // The token is forwarded only if the configuration says so.
    assert_eq!(ask(port, "/seen/x", Some(&good)).status, 200);
    let own = format!("X-Token: {good}");
    assert_eq!(curl(&["-H", &own, &format!("http://127.0.0.1:{port}/own/x")]), "hello");
    let requests = origin.requests();
    let seen: Vec<_> = requests.iter().filter(|head| head.contains(&good)).collect();
    assert!(seen.len() == 1 && seen[0].starts_with("GET /seen/x"), "{seen:?}");
    assert!(requests[0].contains("X-Kept: yes"));
    let count = |series: &str| proxy.metric(&format!("ringway_jwt_requests_total{{{series}"));
    assert_eq!(count("provider=\"id\",result=\"missing\""), 5.0);
    assert_eq!(count("provider=\"id\",result=\"signature\""), 1.0);
    assert_eq!(count("provider=\"seen\",result=\"accepted\""), 1.0);
    assert!(!proxy.log().contains(&good), "tokens are not logged");
    // The file has other keys now, so the old token is not accepted.
    pki.replace("jwks.json", &Signer::new("k2").key_set());
    eventually("the new keys", || (ask(port, "/", Some(&good)).status == 401).then_some(()));
}

#[test]
fn keys_are_fetched_again_when_they_change_and_kept_when_that_fails() {
    let pki = Pki::new();
    pki.leaf("keys", &Wanted::default());
    let (first, second) = (Signer::new("k1"), Signer::new("k2"));
    let served = Arc::new(Mutex::new(Some(first.key_set())));
    let keys = Origin::scripted({
        let served = Arc::clone(&served);
        move |peer| {
            while peer.request().is_some() {
                let Some(body) = served.lock().unwrap().clone() else { return };
                let length = body.len();
                peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}"));
            }
        }
    });
    // The proxy fetches the keys over TLS, from another proxy.
    let tls_port = free_port();
    let _front = Proxy::start(&format!(
        "listeners: {{web: {{bind: 127.0.0.1:{tls_port}, tls: {{cert: {}, key: {}}}}}}}\n\
         routes: {{\"*\": [{{to: keys}}]}}\nservices: {{keys: {{endpoints: [\"{}\"]}}}}\n",
        pki.path("keys.pem"),
        pki.path("keys.key"),
        keys.address()
    ));
    let port = free_port();
    let proxy = Proxy::start(&format!(
        "listeners: {{web: {{bind: 127.0.0.1:{port}}}}}\n\
         jwt:\n  id: {{issuer: https://id.example, jwks: {{\n\
         \x20   url: \"https://localhost:{tls_port}/keys\",\n\
         \x20   ca: {}, refresh: 1s}}}}\n\
         routes: {{\"*\": [{{respond: {{body: hello}}, jwt: id}}]}}\n",
        pki.path("ca.pem")
    ));
    let (one, two) = (first.token(&json!({})), second.token(&json!({})));
    assert_eq!(ask(port, "/", Some(&one)).text(), "hello", "{}", proxy.log());
    assert_eq!(ask(port, "/", Some(&two)).text(), "the token's key is not known");
    *served.lock().unwrap() = Some(second.key_set());
    eventually("the new key", || (ask(port, "/", Some(&two)).status == 200).then_some(()));
    // The workers begin to use the new keys at different times.
    eventually("the old key to be gone", || {
        (ask(port, "/", Some(&one)).status == 401).then_some(())
    });
    let failures = || proxy.metric("ringway_jwks_fetches_total{result=\"failure\"}");
    for broken in [None, Some("not json".to_owned()), Some(r#"{"keys":[]}"#.to_owned())] {
        *served.lock().unwrap() = broken;
        let before = failures();
        eventually("a failed fetch", || (failures() > before).then_some(()));
        assert_eq!(ask(port, "/", Some(&two)).status, 200, "the keys known last stay");
    }
    assert_eq!(proxy.metric("ringway_jwt_keys{provider=\"id\""), 1.0);
}
