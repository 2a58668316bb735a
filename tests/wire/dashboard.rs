//! The dashboard of the admin interface, and the token that guards the interface.

use crate::support::http::{Client, Response};
use crate::support::origin::Origin;
use crate::support::proxy::Proxy;
use crate::support::{eventually, free_listener, free_port};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

fn ask(port: u16, path: &str, fields: &str) -> Response {
    Client::connect(port).request(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n"))
}

#[test]
fn a_browser_gets_one_page_that_loads_nothing_from_elsewhere() {
    let proxy = Proxy::start("listeners: {}\n");
    let page = ask(proxy.admin_port, "/", "Accept: text/html,*/*;q=0.8\r\n");
    assert_eq!(page.status, 200);
    assert_eq!(page.field("content-type"), Some("text/html; charset=utf-8"));
    let policy = page.field("content-security-policy").unwrap().to_owned();
    assert!(policy.starts_with("default-src 'none'") && policy.contains("connect-src 'self'"));
    let nonce = policy.split("'nonce-").nth(1).and_then(|rest| rest.split('\'').next()).unwrap();
    let text = page.text();
    assert!(text.matches(&format!("nonce=\"{nonce}\"")).count() == 2 && !text.contains("NONCE"));
    let links =
        text.match_indices("http").filter(|(at, _)| !text[*at..].starts_with("http://www.w3"));
    assert_eq!(links.count(), 0, "the page names no other host");
    for danger in ["innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval("] {
        assert!(!text.contains(danger), "{danger}");
    }
    let other = ask(proxy.admin_port, "/", "Accept: text/html\r\n");
    assert!(!other.text().contains(nonce), "each page has its own nonce");
    // Other clients get the list of pages, as before.
    assert!(proxy.admin("/").text().starts_with("ringway admin\n"));
}

#[test]
fn its_values_are_those_of_the_load() {
    let origin = Origin::saying("x");
    let dead = free_listener().local_addr().unwrap();
    let port = free_port();
    let config = |more: &str| {
        format!(
            "listeners: {{web: {{bind: 127.0.0.1:{port}}}}}\n\
             routes: {{good: [{{to: good}}], dead: [{{to: dead}}]}}\nservices:\n\
             \x20 good: {{endpoints: ['{}']}}\n\
             \x20 dead: {{endpoints: ['{dead}'], outlier_detection: {{consecutive_5xx: 2}}}}\n\
             telemetry: {{metrics: {{istio: true, workload: {{name: gate}}}}}}\n{more}",
            origin.address()
        )
    };
    let proxy = Proxy::start(&config(""));
    let mut client = Client::connect(port);
    for (host, times) in [("good", 7), ("dead", 3)] {
        (0..times).for_each(|_| _ = client.get(host, "/"));
    }
    let values =
        || -> serde_json::Value { serde_json::from_str(proxy.admin("/dashboard").text()).unwrap() };
    let found = eventually("a reading of the counters", || {
        let values = values();
        let edges = values["traffic"]["edges"].as_array().unwrap();
        let requests = |edge: &serde_json::Value| edge["minute"]["requests"].as_u64().unwrap();
        (edges.iter().map(requests).sum::<u64>() == 20).then(|| values.clone())
    });
    let edge = |kind: &str, name: &str| {
        let edges = found["traffic"]["edges"].as_array().unwrap();
        let of = edges.iter().find(|edge| edge["kind"] == kind && edge["name"] == name);
        of.unwrap_or_else(|| panic!("{edges:?}"))["minute"].clone()
    };
    let good = edge("service", "good");
    assert_eq!(
        (&good["requests"], &good["errors"], &good["success"]),
        (&7.into(), &0.into(), &1.0.into())
    );
    assert!(good["p99_ms"].as_f64().unwrap() > 0.0);
    let bad = edge("service", "dead");
    assert_eq!(
        (&bad["requests"], &bad["errors"], &bad["success"]),
        (&3.into(), &3.into(), &0.0.into())
    );
    let all = edge("client", "");
    assert_eq!((&all["requests"], &all["errors"]), (&10.into(), &3.into()));
    assert_eq!((&found["workload"], &found["state"]), (&"gate".into(), &"ready".into()));
    let services = found["services"].as_array().unwrap();
    let dead = services.iter().find(|service| service["name"] == "dead").unwrap();
    assert_eq!(dead["endpoints"][0]["outlier"]["ejected"], true);
    assert_eq!(found["config"]["errors"], "");
    // The errors of a refused reload are shown, and the texts of the files are not.
    std::fs::write(proxy.config_file(), config("nonsense: 1\n")).unwrap();
    let refused = eventually("the refused reload", || {
        let values = values();
        (values["config"]["errors"] != "").then_some(values)
    });
    assert!(refused["config"]["errors"].as_str().unwrap().contains("unknown field \"nonsense\""));
    assert!(!refused.to_string().contains("istio: true"));
}

#[test]
fn other_hosts_need_the_token() {
    let port = free_port();
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    write("token", &format!("{TOKEN}\n"));
    let base = format!(
        "admin: {{bind: '0.0.0.0:{port}', token: token}}\nruntime: {{workers: 1}}\n\
         listeners: {{}}\n"
    );
    write("ringway.yaml", &base);
    let path = directory.path().join("token");
    let proxy = Proxy::start_on(directory, port);
    for page in ["/live", "/ready"] {
        assert_eq!(ask(port, page, "").status, 200, "{page}");
    }
    let right = format!("Authorization: Bearer {TOKEN}\r\n");
    for page in ["/", "/metrics", "/config", "/services", "/certs", "/dashboard", "/nothing"] {
        let refused = ask(port, page, "");
        assert_eq!(refused.status, 401, "{page}");
        assert!(refused.field("www-authenticate").unwrap().starts_with("Basic realm="));
        assert!(!refused.text().contains(TOKEN));
        assert_eq!(ask(port, page, "Authorization: Bearer 0123\r\n").status, 401, "{page}");
        let expected = if page == "/nothing" { 404 } else { 200 };
        assert_eq!(ask(port, page, &right).status, expected, "{page}");
    }
    assert!(!ask(port, "/config", &right).text().contains(TOKEN));
    // A new token replaces the old one, without a new connection.
    let new = TOKEN.replace('0', "z");
    std::fs::write(&path, &new).unwrap();
    let renewed = format!("Authorization: Bearer {new}\r\n");
    eventually("the new token", || (ask(port, "/metrics", &renewed).status == 200).then_some(()));
    assert_eq!(ask(port, "/metrics", &right).status, 401);
    assert!(!proxy.log().contains(TOKEN) && !proxy.log().contains(&new));
}
