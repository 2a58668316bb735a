//! Sticky splits: a user stays on a version while weights move, over workers and proxies.

use std::collections::HashMap;

use crate::support::free_port;
use crate::support::http::Client;
use crate::support::origin::Origin;
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
