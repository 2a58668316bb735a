//! Several rate limits of one rule: a request passes all of them, or it takes nothing from any.

use std::time::{Duration, Instant};

use super::rate_limits::Settings;
use crate::support::http::Client;
use crate::support::peers::curl;
use crate::support::proxy::Proxy;

/// The value of a metric of the rule, for one limit of its list.
fn counted(proxy: &Proxy, metric: &str, limit: &str) -> f64 {
    let owner = "scope=\"route\",host=\"a.test\",name=\"a.test#2\"";
    proxy.metric(&format!("{metric}{{{owner},limit=\"{limit}\"}}"))
}

#[test]
fn a_request_passes_all_limits_of_a_list_or_takes_nothing() {
    let settings = Settings::new();
    let list = |all: u32| {
        let user = "requests: 3, per: 1h, by: {header: x-user}, name: user";
        settings.rule(&format!("[{{{user}}}, {{requests: {all}, per: 2h}}]"))
    };
    let proxy = Proxy::start(&list(4));
    let ask = |user: &str| {
        let answer = settings.ask("/", &format!("x-user: {user}\r\n"));
        let state = answer.field("ratelimit").unwrap();
        assert_eq!(state.matches(";r=").count(), 1, "one limit speaks: {state}");
        let (limit, left) = state.split_once(";t=").unwrap().0.split_once(";r=").unwrap();
        (answer.status, limit.to_owned(), left.to_owned())
    };
    let said = |status, limit: &str, left: &str| (status, format!("\"{limit}\""), left.to_owned());
    for left in ["2", "1", "0"] {
        assert_eq!(ask("ada"), said(200, "user", left));
    }
    assert_eq!(ask("ada"), said(429, "user", "0"));
    // The refused request has not taken the last unit of all users.
    assert_eq!(ask("bob"), said(200, "a.test#2/2", "0"));
    for _ in 0..3 {
        assert_eq!(ask("bob"), said(429, "a.test#2/2", "0"));
    }
    let refused = |limit: &str| counted(&proxy, "ringway_rate_limited_total", limit);
    assert_eq!((refused("user"), refused("2")), (1.0, 3.0));
    // The limit of users is as before, and bob's refused requests have taken nothing from it.
    proxy.reload(&list(5));
    assert_eq!((ask("bob").0, ask("bob").0), (200, 200));
    assert_eq!(ask("bob"), said(429, "user", "0"));
    let url = format!("http://127.0.0.1:{}/", settings.port);
    let http2 = ["-si", "--http2-prior-knowledge", "-H", "host: a.test", "-H", "x-user: bob", &url];
    let answer = curl(&http2);
    assert!(answer.starts_with("HTTP/2 429"), "{answer}");
    assert!(answer.contains("ratelimit-policy: \"user\";q=3;w=3600\r\n"), "{answer}");
    assert!(!answer.contains("a.test#2/2"), "{answer}");
}

#[test]
fn several_limits_on_bytes_slow_a_body_to_the_slowest() {
    let settings = Settings::new();
    let limits = "[{bytes: 1MiB, per: 1s}, {bytes: 64KiB, per: 500ms, by: {header: x-user}}]";
    let proxy = Proxy::start(&settings.rule(limits));
    let body = "x".repeat(96 << 10);
    let head = "POST / HTTP/1.1\r\nHost: a.test\r\nX-User: ada\r\nContent-Length: 98304\r\n\r\n";
    let began = Instant::now();
    let answer = Client::connect(settings.port).request(format!("{head}{body}"));
    assert_eq!(answer.status, 200);
    // 64 KiB may come at once, and the other 32 KiB take 250 ms.
    assert!(began.elapsed() >= Duration::from_millis(200), "{:?}", began.elapsed());
    let delays = |limit| counted(&proxy, "ringway_rate_limit_delays_total", limit);
    assert_eq!(delays("1"), 0.0);
    assert!(delays("2") > 0.0);
}
