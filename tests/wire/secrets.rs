//! The proxy never writes a key, token or password to its output, even with the most detailed log.

use crate::support::http::Client;
use crate::support::origin::Origin;
use crate::support::pki::{Pki, Wanted};
use crate::support::proxy::Proxy;
use crate::support::tls::{TlsClient, client};
use crate::support::{eventually, free_port};

const TOKEN: &str = "eyJhbGciOiJFUzI1NiJ9.eyJzZWNyZXQiOiJodHRwczovL2V4YW1wbGUifQ.c2VjcmV0LXNpZw";

/// The base64 lines of a PEM file. The output must not contain them.
fn lines(pem: &str) -> Vec<String> {
    pem.lines().filter(|line| line.len() > 20 && !line.contains("-----")).map(Into::into).collect()
}

/// Parts of requests and of the configuration that the output must not contain.
const SECRETS: [&str; 4] = ["do-not-log-me", "dXNlcjpkby1ub3QtbG9n", "sesame-open", "PRIVATE KEY"];

#[track_caller]
fn assert_without(said: &str, secrets: &[String]) {
    for secret in secrets {
        let line = said.lines().find(|line| line.contains(secret));
        assert!(line.is_none(), "{secret} is in: {line:?}");
    }
}

#[test]
fn no_secret_is_in_any_log_dump_or_metric() {
    let pki = Pki::new();
    let (ca, id) = (pki.path("ca"), "spiffe://cluster.local/ns/demo/sa/me");
    let made = std::process::Command::new(env!("CARGO_BIN_EXE_ringway"))
        .args(["ca", "init", "--dir", &ca])
        .output()
        .unwrap();
    assert!(made.status.success());
    pki.leaf("web", &Wanted::default());
    pki.leaf("client", &Wanted { names: &["client"], ..Wanted::default() });
    pki.replace(
        "jwks.json",
        r#"{"keys":[{"kty":"OKP","crv":"Ed25519",
        "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#,
    );
    let origin = Origin::saying("hello");
    let (https, mesh, plain) = (free_port(), free_port(), free_port());
    let config = |extra: &str| {
        format!(
            "mesh: {{identity: {{ca: {ca}, id: \"{id}\", lifetime: 10m}}}}\n\
             listeners:\n\
             \x20 https:\n    bind: 127.0.0.1:{https}\n    forward_client_cert: append\n\
             \x20   tls: {{cert: {0}/web.pem, key: {0}/web.key, client_ca: {0}/ca.pem}}\n\
             \x20 mesh: {{bind: \"127.0.0.1:{mesh}\", tls: mesh, hosts: [\"*\"]}}\n\
             \x20 plain: {{bind: 127.0.0.1:{plain}}}\n\
             jwt: {{id: {{issuer: me, jwks: {{file: {0}/jwks.json}}}}}}\n\
             routes:\n  open:\n\
             \x20 - {{to: app, headers: {{request: {{set: {{x-key: \"sesame-open\"}}}}}}}}\n\
             \x20 mesh: [{{to: mesh}}]\n\
             \x20 \"*\": [{{match: {{path: /token}}, to: app, jwt: id}}, {{to: app}}]\n\
             services:\n  app: {{endpoints: [\"{1}\"]}}\n\
             \x20 mesh: {{endpoints: [\"127.0.0.1:{mesh}\"], tls: mesh, identity: \"{id}\"}}\n\
             authorization: [{{name: look, action: audit, to: {{service: app}}}}]\n\
             telemetry: {{access_log: {{path: stdout}}}}\n{extra}",
            pki.directory().display(),
            origin.address(),
        )
    };
    let wrapper = ["env", "RUST_LOG=trace"];
    let proxy = Proxy::start_under(&wrapper, "workers: 1", &config(""));
    // Use all features, with successes and errors: handshakes, tokens, a refused configuration.
    assert_eq!(TlsClient::connect(&client(&pki, Some("client")), https).get().unwrap(), "hello");
    assert!(TlsClient::connect(&client(&pki, None), https).get().is_err());
    assert_eq!(Client::connect(plain).get("mesh", "/").text(), "hello", "{}", proxy.log());
    let ask = format!(
        "GET /token HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\n\
         Cookie: session=do-not-log-me\r\n\r\n"
    );
    assert_eq!(Client::connect(plain).request(&ask).status, 401);
    let basic = "GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Basic dXNlcjpkby1ub3QtbG9n\r\n\r\n";
    assert_eq!(Client::connect(plain).request(basic).status, 200);
    std::fs::write(proxy.config_file(), config("nonsense: true\n")).unwrap();
    eventually("the refusal", || proxy.log().contains("nonsense").then_some(()));
    // A key file instead of a certificate: the error must describe the mistake without the content
    // of the file.
    pki.replace("web.pem", &pki.read("web.key"));
    std::fs::write(proxy.config_file(), config("")).unwrap();
    let failures = || proxy.metric("ringway_config_reloads_total{result=\"failure\"");
    eventually("the second refusal", || (failures() >= 2.0).then_some(()));
    eventually("the access log", || proxy.log().contains("\"target\":\"/token\"").then_some(()));
    let mut said = proxy.log();
    for page in ["/config", "/certs", "/metrics", "/services", "/ready", "/live", "/dashboard"] {
        said += proxy.admin(page).text();
    }
    let mut secrets = lines(&pki.read("web.key"));
    for name in ["ca/root.key", "ca/intermediate.key", "client.key"] {
        secrets.extend(lines(&pki.read(name)));
    }
    assert!(secrets.len() >= 8);
    let signature = TOKEN.rsplit('.').next().unwrap();
    secrets.extend([TOKEN, signature].into_iter().chain(SECRETS).map(Into::into));
    assert_without(&said, &secrets);
}
