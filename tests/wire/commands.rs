//! Commands other than `run`: their output matches the behaviour of the proxy.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::support::http::Client;
use crate::support::origin::Origin;
use crate::support::peers::program;
use crate::support::pki::{Pki, Wanted};
use crate::support::proxy::Proxy;
use crate::support::{eventually, free_port};

fn ringway(arguments: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_ringway")).args(arguments).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn explain_names_the_rule_that_then_serves_the_request() {
    let origin = Origin::saying("x");
    let port = free_port();
    let address = origin.address();
    let config = format!(
        "listeners: {{web: {{bind: 127.0.0.1:{port}}}}}
routes:
  shop.test:
    - {{name: testers, match: {{headers: {{x-canary: 'true'}}}}, to: new}}
    - {{name: cart, match: {{path: /cart/*, method: [GET, HEAD]}}, to: cart}}
    - {{name: searches, match: {{query: {{q: '*'}}}}, to: search}}
    - {{name: everyone, to: shop}}
  '*.shop.test':
    - {{name: tenants, to: shop}}
  '*':
    - {{name: moved, match: {{path: /old}}, redirect: {{path: /new}}}}
    - {{name: gone, respond: {{status: 410, body: gone}}}}
services:
  new: {{endpoints: ['{address}']}}
  cart: {{endpoints: ['{address}']}}
  search: {{endpoints: ['{address}']}}
  shop: {{endpoints: ['{address}']}}
"
    );
    let proxy = Proxy::start_with(&config, 1);
    let file = proxy.config_file();
    for (method, host, path, header) in [
        ("GET", "shop.test", "/", ""),
        ("GET", "shop.test", "/cart/1", ""),
        ("POST", "shop.test", "/cart/1", ""),
        ("GET", "SHOP.test", "/cart/1", "X-Canary: true"),
        ("GET", "shop.test", "/?q=a", ""),
        ("GET", "shop.test:80", "/?p=a", ""),
        ("GET", "a.shop.test", "/", ""),
        ("GET", "a.b.shop.test", "/cart/", ""),
        ("GET", "other", "/old", ""),
        ("GET", "other", "/else", ""),
    ] {
        let url = format!("http://{host}{path}");
        let mut arguments = vec!["explain", "-c", file.to_str().unwrap(), method, &url];
        if !header.is_empty() {
            arguments.extend(["-H", header]);
        }
        let (fine, said) = ringway(&arguments);
        assert!(fine, "{said}");
        let rule = said.lines().find_map(|line| line.trim().strip_prefix("rule ")).expect(&said);
        let rule = rule.split(' ').next().unwrap();
        let served = || {
            let page = proxy.admin("/metrics");
            let wanted = format!("route=\"{rule}\"");
            let lines = page.text().lines().filter(|line| {
                line.starts_with("ringway_route_requests_total") && line.contains(&wanted)
            });
            lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>()
        };
        let before = served();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n");
        let own = if header.is_empty() { String::new() } else { format!("{header}\r\n") };
        let mut client = Client::connect(port);
        client.send(format!("{head}{own}Content-Length: 0\r\n\r\n"));
        let response = client.response();
        eventually(&format!("{url} to be counted for {rule}: {said}"), || {
            (served() > before).then_some(())
        });
        if let Some(answer) = said.lines().find_map(|line| line.trim().strip_prefix("answers ")) {
            assert!(answer.starts_with(&response.status.to_string()), "{said}");
        } else {
            assert_eq!(response.text(), "x", "{said}");
        }
    }
}

#[test]
fn explain_says_where_a_connect_goes() {
    let file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    let config = "listeners: {web: {bind: 127.0.0.1:8080}}
mesh: {outbound: {bind: '127.0.0.1:15001'}, inbound: {bind: '127.0.0.1:15006'}}
routes:
  '*.internal': [{to: app}, {name: tunnel, match: {method: CONNECT}, to: app}]
  plain: [{to: app, stream_idle_timeout: none}]
services: {app: {endpoints: ['10.2.2.2:80']}}
authorization: [{name: paths, action: allow, to: {paths: /api}}]
";
    std::fs::write(file.path(), config).unwrap();
    let path = file.path().to_str().unwrap();
    let tunnel = "405 NR: no route names the method CONNECT";
    for (to, target, words) in [
        (
            "10.1.1.1:9",
            "db.internal:5432",
            &["rule tunnel", "does not name the method CONNECT"][..],
        ),
        ("10.1.1.1:9", "db.internal:5432", &["denied: no allow rule matches (paths", "403 UAEX"]),
        ("10.1.1.1:9", "plain:80", &[tunnel]),
        ("10.2.2.2:80", "other:80", &["no routes", tunnel]),
        ("10.1.1.1:9", "other:80", &["to mesh/passthrough", "`to.paths` does not match"]),
        ("127.0.0.1:8080", "plain:80", &["listener web", tunnel]),
    ] {
        let (fine, said) = ringway(&["explain", "-c", path, "--to", to, "CONNECT", target]);
        let all = words.iter().all(|words| said.contains(words));
        assert!(fine && all, "{target}: {said}");
    }
    let (_, said) = ringway(&["explain", "-c", path, "GET", "http://plain/"]);
    assert!(said.contains("  stream_idle_timeout none\n"), "{said}");
    assert!(said.contains("the original destination decides; add --to IP:PORT"), "{said}");
}

#[test]
fn explain_says_how_endpoints_are_checked() {
    let file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    let config = "listeners: {web: {bind: 127.0.0.1:8080}}
routes: {'*': {to: {shop: 1, cart: 1}}}
services:
  shop: {endpoints: [], health_check: {http: /healthz}}
  cart: {endpoints: [], protocol: grpc, health_check: {grpc: {service: a.Cart}, interval: 5s}}
";
    std::fs::write(file.path(), config).unwrap();
    let (fine, said) =
        ringway(&["explain", "-c", file.path().to_str().unwrap(), "GET", "http://a/"]);
    for words in ["check: GET /healthz of shop, good is 200; every 2s", "grpc a.Cart; every 5s"] {
        assert!(fine && said.contains(words), "{said}");
    }
}

#[test]
fn explain_says_which_version_and_which_level_a_request_gets() {
    let file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    let config = "zone: eu/a
listeners: {web: {bind: 127.0.0.1:8080}}
routes: {'*': [{to: {app/v1: 50, app/v2: 50}, sticky: {header: x-user}}]}
services:
  app:
    versions:
      v1: [{address: 127.0.0.1:9001, zone: eu/b}, {address: 127.0.0.1:9002, zone: eu/a}]
      v2: [127.0.0.1:9003]
";
    std::fs::write(file.path(), config).unwrap();
    let path = file.path().to_str().unwrap();
    let explained = |more: &[&str]| {
        let arguments = [&["explain", "-c", path][..], more, &["GET", "http://a/"]].concat();
        let (fine, said) = ringway(&arguments);
        assert!(fine, "{said}");
        said
    };
    let said = explained(&[]);
    let levels = "      level 1, priority 0, eu/a: 127.0.0.1:9002\n      \
        level 2, priority 0, eu/b: 127.0.0.1:9001\n";
    assert!(said.contains(levels), "{said}");
    assert!(said.contains("the request has none, so versions take turns"), "{said}");
    let version = |user: &str| {
        let said = explained(&["-H", &format!("x-user: {user}")]);
        let line = said.lines().find(|line| line.contains("sticky by the header x-user"));
        line.unwrap().rsplit(' ').next().unwrap().to_owned()
    };
    let users = ["ada", "bob", "cyd", "dan", "eve", "fay", "gus", "hal"];
    let versions: Vec<String> = users.into_iter().map(version).collect();
    assert!(versions.iter().all(|it| it == "app/v1" || it == "app/v2"), "{versions:?}");
    assert!(versions.iter().any(|it| *it != versions[0]), "{versions:?}");
}

#[test]
fn explain_says_which_authorization_rule_decides() {
    let file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    let pki = Pki::new();
    pki.leaf("own", &Wanted { names: &["spiffe://cluster.local/own"], ..Wanted::default() });
    let directory = pki.directory().display();
    let config = format!(
        "listeners:
  web: {{bind: [127.0.0.1:8080, 127.0.0.1:8081], tls: mesh}}
  plain: {{bind: 127.0.0.1:8082}}
mesh:
  identity: {{cert: {directory}/own.pem, key: {directory}/own.key, roots: {directory}/ca.pem}}
routes: {{'*': {{to: shop}}}}
services: {{shop: {{endpoints: []}}}}
authorization:
  - {{name: web-only, action: allow, from: {{namespaces: web}}, to: {{paths: /api/*}}}}
  - {{name: bad-net, action: deny, from: {{ips: 192.0.2.0/24}}}}
  - {{name: trial, action: deny, dry_run: true, to: {{ports: 8081}}}}
"
    );
    std::fs::write(file.path(), config).unwrap();
    let path = file.path().to_str().unwrap();
    let web = "spiffe://cluster.local/ns/web/sa/x";
    let none_matches = |field: &str| format!("not web-only ({path}:9): `{field}` does not match");
    for (identity, ip, url, words) in [
        (web, "10.0.0.1", "http://a/x/../api/", format!("allowed by web-only ({path}:9)")),
        (web, "192.0.2.1", "http://a/api/1", format!("denied by bad-net ({path}:10)")),
        (web, "10.0.0.1", "http://a/api/..%2f", "denied: no allow rule matches".to_owned()),
        (web, "10.0.0.1", "http://a/b", none_matches("to.paths")),
        (web, "10.0.0.1", "http://a/%zz", "refused: 400 DPE: the path has a malformed".to_owned()),
    ] {
        let (fine, said) =
            ringway(&["explain", "-c", path, "--from", identity, "--from-ip", ip, "GET", url]);
        let (plain, secured) = said.split_once("listener web").unwrap();
        assert!(fine && secured.contains(&words), "{url}: {said}");
        let trial = secured.matches(&format!("would be denied by trial ({path}:11)")).count();
        assert_eq!(trial, usize::from(!words.contains("400")), "at one of two ports: {said}");
        assert!(plain.contains("nobody asks for a certificate here"), "{said}");
        assert!(!plain.contains("allowed by"), "{said}");
    }
    let (_, said) = ringway(&["explain", "-c", path, "--from", "web", "GET", "http://a/"]);
    assert!(said.contains("error: --from web: "), "{said}");
}

#[test]
fn explain_says_what_a_captured_connection_gets() {
    let file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    let pki = Pki::new();
    pki.leaf("own", &Wanted { names: &["spiffe://cluster.local/own"], ..Wanted::default() });
    let directory = pki.directory().display();
    let config = format!(
        "mesh:
  identity: {{cert: {directory}/own.pem, key: {directory}/own.key, roots: {directory}/ca.pem}}
  inbound:
    {{bind: 0.0.0.0:15006, mtls: strict, ports: {{'9': disable}}, protocols: {{'25': tcp}},
     probes: [{{port: 8080, path: /up}}]}}
  outbound: {{bind: 127.0.0.1:15001, unknown: deny}}
routes: {{shop.test: {{to: shop}}}}
services:
  app: {{endpoints: ['192.0.2.7:8080']}}
  shop: {{addresses: 192.0.2.9:443, endpoints: ['192.0.2.8:1']}}
authorization: [{{name: web, action: allow, from: {{namespaces: web}}, to: {{service: app}}}}]
"
    );
    std::fs::write(file.path(), config).unwrap();
    let web = "spiffe://cluster.local/ns/web/sa/x";
    let stranger = "spiffe://cluster.local/ns/x/sa/x";
    let app = "192.0.2.7:8080";
    for (identity, to, url, words) in [
        (Some(web), app, "http://app/", &["to app", "endpoint: 192.0.2.7:8080", "allowed by"][..]),
        (Some(stranger), app, "http://app/", &["`from.namespaces` does not", "refused: 403 UAEX"]),
        (Some(stranger), "", "http://192.0.2.7:8080/", &["destination 192.0.2.7", "403 UAEX"]),
        (Some("spiffe://a/b"), app, "http://app/", &["handshake fails: no bundle for the domain"]),
        (None, app, "http://app/", &["refused: 403 UAEX: this port requires mutual TLS"]),
        (None, app, "http://app/up", &["a probe: it needs no identity"]),
        (Some(web), "192.0.2.7:9", "http://app/", &["nobody asks for a certificate here"]),
        (Some(web), "192.0.2.7:25", "http://app/", &["declared as tcp", "to mesh/inbound"]),
        (Some(web), "192.0.2.1:1", "http://x/", &["refused: 502 OD", "--from does not count"]),
        (None, "192.0.2.9:443", "https://x/", &["only its server name", "to shop"]),
        (None, "192.0.2.1:443", "https://shop.test/", &["only its server name", "to shop"]),
    ] {
        let mut arguments = vec!["explain", "-c", file.path().to_str().unwrap()];
        identity.into_iter().for_each(|identity| arguments.extend(["--from", identity]));
        if !to.is_empty() {
            arguments.extend(["--to", to]);
        }
        let (fine, said) = ringway(&[&arguments[..], &["GET", url]].concat());
        let all = words.iter().all(|words| said.contains(words));
        assert!(fine && all, "{identity:?} {to} {url} {words:?}: {said}");
    }
}

#[test]
fn the_demo_shows_its_canary_to_curl() {
    let (port, admin) = (free_port(), free_port());
    let child = Command::new(env!("CARGO_BIN_EXE_ringway"))
        .args(["demo", "--port", &port.to_string(), "--admin-port", &admin.to_string()])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut demo = Demo(child.unwrap());
    let lines = BufReader::new(demo.0.stdout.take().unwrap()).lines().map_while(Result::ok);
    // Run the printed commands, like a new user.
    let commands: Vec<String> = lines
        .map(|line| line.trim().to_owned())
        .filter(|line| line.starts_with("curl "))
        .take(2)
        .collect();
    eventually("the demo to serve", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
    let mut answers = Vec::new();
    for _ in 0..10 {
        for command in &commands {
            let output = Command::new("sh").args(["-c", command]).output().unwrap();
            answers.push(String::from_utf8_lossy(&output.stdout).into_owned());
        }
    }
    assert!(answers.iter().any(|answer| answer.contains("shop v1")), "{commands:?}: {answers:?}");
    assert!(answers.iter().any(|answer| answer.contains("shop v2")), "{commands:?}: {answers:?}");
    let pid = nix::unistd::Pid::from_raw(demo.0.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let status = eventually("the demo to end", || demo.0.try_wait().unwrap());
    assert!(status.success());
}

struct Demo(Child);

impl Drop for Demo {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn the_examples_are_valid_for_the_check_and_for_the_schema() {
    let schema = tempfile::NamedTempFile::new().unwrap();
    let (fine, text) = ringway(&["schema"]);
    assert!(fine);
    std::fs::write(schema.path(), text).unwrap();
    let conf = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf");
    // One of the files has an identity that a CA issues.
    let ca = tempfile::tempdir().unwrap();
    let ca = ca.path().join("ca").display().to_string();
    assert!(ringway(&["ca", "init", "--dir", &ca]).0);
    let mut files = Vec::new();
    let examples = std::fs::read_dir(conf).unwrap().map(|entry| entry.unwrap().path());
    // These files have other grammars.
    let others = ["scenarios", "prometheus", "grafana"];
    let is_example = |path: &PathBuf| !others.iter().any(|other| path.ends_with(other));
    for example in examples.filter(is_example) {
        let mut check = Command::new(env!("CARGO_BIN_EXE_ringway"));
        let output = check.args(["check", "-c"]).arg(&example).env("CA", &ca).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let entries = std::fs::read_dir(example).unwrap().map(|entry| entry.unwrap().path());
        // A directory below an example has objects of another grammar.
        files.extend(entries.filter(|path| path.is_file()));
    }
    let broken = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    std::fs::write(broken.path(), "listeners: {web: {bnd: 127.0.0.1:1}}\n").unwrap();
    let validate = |files: &[PathBuf]| {
        let mut command = program("check-jsonschema");
        command.arg("--schemafile").arg(schema.path()).args(files).stdin(Stdio::null());
        let output = command.output();
        let output = output.unwrap_or_else(|error| panic!("check-jsonschema: {error}; run ./test"));
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (valid, said) = validate(&files);
    assert!(valid, "{said}");
    let (valid, said) = validate(&[broken.path().to_owned()]);
    assert!(!valid && said.contains("bnd"), "the schema refuses what the check refuses: {said}");
}
