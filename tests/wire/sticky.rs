//! Sticky splits: a user stays on a version while weights move, over workers and proxies.

use std::collections::HashMap;

use crate::support::free_port;
use crate::support::http::Client;
use crate::support::origin::Origin;
use crate::support::peers::curl;
use crate::support::pki::{Pki, Wanted};
use crate::support::proxy::Proxy;

/// The configuration of a split with `weight` percent for the new version.
fn config(port: u16, old: &Origin, new: &Origin, weight: u32, sticky: &str) -> String {
    format!(
        "listeners: {{web: {{bind: 127.0.0.1:{port}}}}}\n\
         routes: {{\"*\": [{{to: {{app/v1: {}, app/v2: {weight}}}, sticky: {sticky}}}]}}\n\
         services: {{app: {{versions: {{v1: [\"{}\"], v2: [\"{}\"]}}}}}}\n",
        100 - weight,
        old.address(),
        new.address()
    )
}

/// The version of each user, each asked twice on new connections to `port`.
fn versions(port: u16, field: impl Fn(u32) -> String) -> HashMap<u32, String> {
    let version = |user| {
        let ask = || {
            let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n\r\n", field(user));
            Client::connect(port).send(&head).response().text().to_owned()
        };
        let (first, second) = (ask(), ask());
        assert_eq!(first, second, "user {user}");
        (user, first)
    };
    (0..60).map(version).collect()
}

#[test]
fn a_user_stays_on_a_version_while_weights_move() {
    let (old, new) = (Origin::saying("v1"), Origin::saying("v2"));
    for (sticky, field) in [
        ("{header: x-user}", "X-User: user-@"),
        ("{cookie: session}", "Cookie: theme=dark; session=user-@; a=b"),
    ] {
        let field = |user: u32| field.replace('@', &user.to_string());
        let ports = [free_port(), free_port()];
        let with = |port, weight| config(port, &old, &new, weight, sticky);
        // Several workers, and two proxies.
        let proxies = ports
            .map(|port| Proxy::start_with(&with(port, 10), if port == ports[0] { 2 } else { 1 }));
        let mut before = versions(ports[0], field);
        assert_eq!(before, versions(ports[1], field), "both proxies agree");
        for weight in [20, 60, 100] {
            proxies[0].reload(&with(ports[0], weight));
            let after = versions(ports[0], field);
            for (user, version) in &before {
                assert!(*version == after[user] || version == "v1", "{user} moves back");
            }
            assert_ne!(before, after, "{sticky}: {weight}");
            before = after;
        }
        assert!(before.values().all(|version| version == "v2"));
    }
}

#[test]
fn requests_without_the_value_take_exact_turns() {
    let (old, new) = (Origin::saying("v1"), Origin::saying("v2"));
    let port = free_port();
    let _proxy = Proxy::start_with(&config(port, &old, &new, 10, "{header: x-user}"), 1);
    let mut client = Client::connect(port);
    let texts: Vec<String> = (0..20).map(|_| client.get("a", "/").text().to_owned()).collect();
    assert_eq!(texts.iter().filter(|text| *text == "v2").count(), 2, "{texts:?}");
}

/// The cookie that a response sets: the pair, and its attributes. `None`: it sets none.
fn cookie_set(head: &str) -> Option<(String, String)> {
    let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with("set-cookie:"))?;
    let (pair, attributes) = line[11..].trim().split_once("; ")?;
    Some((pair.to_owned(), attributes.to_owned()))
}

/// Asks for `/`, with a cookie. Returns the version, and the cookie that the response sets.
fn ask(port: u16, cookie: &str) -> (String, Option<(String, String)>) {
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: a=b; {cookie}\r\n\r\n");
    let answer = Client::connect(port).request(head);
    (answer.text().to_owned(), cookie_set(&answer.head))
}

#[test]
fn a_cookie_of_the_proxy_keeps_a_client_on_its_version() {
    let (old, new) = (Origin::saying("v1"), Origin::saying("v2"));
    let ports = [free_port(), free_port()];
    let sticky = "{cookie: {name: VERSION, ttl: 1h, path: /}}";
    let text = |port, weight| config(port, &old, &new, weight, sticky);
    let mut first = Proxy::start_with(&text(ports[0], 50), 2);
    let _second = Proxy::start_with(&text(ports[1], 50), 1);
    // New clients take turns, and get a cookie each. It names nothing.
    let mut cookies = HashMap::new();
    while cookies.len() < 2 {
        let (version, cookie) = ask(ports[0], "x=y");
        let (pair, attributes) = cookie.expect("a cookie");
        assert_eq!(attributes, "Path=/; Max-Age=3600; HttpOnly; SameSite=Lax");
        let token = pair.strip_prefix("VERSION=").unwrap();
        assert!(token.len() == 16 && token.bytes().all(|b| b.is_ascii_hexdigit()), "{token}");
        assert_eq!(cookies.entry(version).or_insert_with(|| pair.clone()), &pair);
    }
    let stays = |port: u16| {
        for (version, pair) in &cookies {
            for _ in 0..6 {
                // A client that has its cookie gets none.
                assert_eq!(ask(port, pair), (version.clone(), None), "{pair}");
            }
        }
    };
    stays(ports[0]);
    stays(ports[1]);
    first.reload(&text(ports[0], 1));
    stays(ports[0]);
    drop(first);
    first = Proxy::start_with(&text(ports[0], 99), 2);
    stays(ports[0]);
    // A version without a share is left, and the client gets the cookie of the other one.
    first.reload(&text(ports[0], 100));
    let (version, cookie) = ask(ports[0], &cookies["v1"]);
    assert_eq!((&*version, &cookie.unwrap().0), ("v2", &cookies["v2"]));
    // So is a cookie that another service has set.
    let (_, cookie) = ask(ports[0], "VERSION=0123456789abcdef");
    assert_eq!(cookie.unwrap().0, cookies["v2"]);
}

#[test]
fn the_cookie_is_secure_for_clients_with_tls_and_the_same_for_http2() {
    let (old, new) = (Origin::saying("v1"), Origin::saying("v2"));
    let pki = Pki::new();
    pki.leaf("web", &Wanted { names: &["a.test"], ..Wanted::default() });
    let (port, tls_port) = (free_port(), free_port());
    let text = config(port, &old, &new, 50, "{cookie: {name: VERSION}}");
    let tls = format!(
        "listeners: {{tls: {{bind: 127.0.0.1:{tls_port}, tls: {{cert: {}, key: {}}}}}, ",
        pki.path("web.pem"),
        pki.path("web.key")
    );
    let _proxy = Proxy::start_with(&text.replace("listeners: {", &tls), 1);
    let ask = |more: &[&str]| curl(&[&["-sik"], more].concat());
    let (plain, tls) =
        (format!("http://127.0.0.1:{port}/"), format!("https://127.0.0.1:{tls_port}/"));
    let common = "Path=/; HttpOnly; SameSite=Lax";
    let secure = format!("{common}; Secure");
    let mut tokens = HashMap::new();
    for (arguments, attributes) in [
        (["--http2-prior-knowledge", &plain], common),
        (["--http1.1", &tls], &*secure),
        (["--http2", &tls], &*secure),
        (["--http2-prior-knowledge", &plain], common),
    ] {
        let answer = ask(&arguments);
        let (pair, found) = cookie_set(&answer).unwrap_or_else(|| panic!("{answer}"));
        assert_eq!(found, attributes);
        let version = answer.rsplit_once("\r\n").unwrap().1.to_owned();
        assert_eq!(tokens.entry(version.clone()).or_insert_with(|| pair.clone()), &pair);
        let cookie = format!("cookie: {pair}");
        let again = ask(&[&arguments[..], &["-H", &cookie]].concat());
        assert_eq!((again.rsplit_once("\r\n").unwrap().1, cookie_set(&again)), (&*version, None));
    }
    assert_eq!(tokens.len(), 2);
}

#[test]
fn explain_shows_the_version_of_a_cookie() {
    let (old, new) = (Origin::saying("v1"), Origin::saying("v2"));
    let port = free_port();
    let text = config(port, &old, &new, 50, "{cookie: {name: VERSION}}");
    let proxy = Proxy::start_with(&text, 1);
    let (version, cookie) = ask(port, "x=y");
    drop(proxy);
    let file = tempfile::NamedTempFile::with_suffix(".yaml").unwrap();
    std::fs::write(file.path(), text).unwrap();
    let explain = |cookie: &str| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ringway"));
        let command = command.args(["explain", "-H", cookie, "-c"]).arg(file.path());
        let output = command.args(["GET", "http://a/"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let said = explain(&format!("cookie: {}", cookie.unwrap().0));
    let line = format!("  sticky by the cookie VERSION, which the proxy sets: app/{version}\n");
    assert!(said.contains(&line), "{said}");
    let said = explain("cookie: VERSION=0");
    assert!(said.contains("sets: the request has none, so versions take turns"), "{said}");
}
