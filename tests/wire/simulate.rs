//! `ringway simulate` beside the running proxy: the same configuration in the same situation, once
//! simulated and once with real sockets.

use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::support::free_port;
use crate::support::http::Client;
use crate::support::origin::Origin;
use crate::support::proxy::Proxy;

/// Requests through the running proxy.
const REQUESTS: u32 = 3000;

/// An origin that fails this share of the requests, evenly.
fn failing(percent: u64) -> Origin {
    let requests = AtomicU64::new(0);
    Origin::scripted(move |peer| {
        while peer.request().is_some() {
            let number = requests.fetch_add(1, Ordering::Relaxed);
            let fails = (number + 1) * percent / 100 > number * percent / 100;
            let status = if fails { "502 Bad Gateway" } else { "200 OK" };
            peer.send(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"));
        }
    })
}

/// The share of successful requests through the running proxy, in percent.
fn measured(proxy_port: u16) -> f64 {
    let mut client = Client::connect(proxy_port);
    let mut ask = |_: &u32| client.request("GET / HTTP/1.1\r\nHost: a\r\n\r\n").status == 200;
    100.0 * (0..REQUESTS).filter(|number| ask(number)).count() as f64 / f64::from(REQUESTS)
}

/// The same share in the simulation, in percent.
fn simulated(proxy: &Proxy, scenario: &str) -> f64 {
    let file = tempfile::NamedTempFile::with_suffix(".yaml").unwrap();
    std::fs::write(file.path(), scenario).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringway"));
    command.args(["simulate", "-c"]).arg(proxy.config_file()).arg("--scenario").arg(file.path());
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    let line = text.lines().find_map(|line| line.trim().strip_prefix("this configuration"));
    let line = line.unwrap_or_else(|| panic!("no result:\n{text}{errors}"));
    line.trim().split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn the_simulation_agrees_with_real_sockets() {
    for (policy, percent) in [
        ("", 60),
        (", retries: {on: [gateway-error], attempts: 1, budget: {percent: 100%}}", 60),
        (", retries: {on: [gateway-error], budget: {percent: 5%, min: 1}}", 80),
    ] {
        let origins = [failing(percent), failing(0), failing(0)];
        let addresses = origins.each_ref().map(|origin| format!("\"{}\"", origin.address()));
        let port = free_port();
        let config = format!(
            "listeners: {{web: {{bind: 127.0.0.1:{port}}}}}\nroutes: {{\"*\": [{{to: app}}]}}\n\
             services: {{app: {{endpoints: [{}], balance: round-robin{policy}}}}}\n\
             telemetry: {{access_log: {{path: stderr, filter: none}}}}\n",
            addresses.join(", ")
        );
        let proxy = Proxy::start_with(&config, 1);
        let scenario = format!(
            "duration: 2m\nrequests: {{rate: 100, mix: {{\"GET http://a/\": 1}}}}\n\
             endpoints: {{{}: {{errors: {percent}%, status: 502}}}}\n",
            addresses[0]
        );
        let (real, virtually) = (measured(port), simulated(&proxy, &scenario));
        // docs/simulate.md states this difference.
        assert!((real - virtually).abs() < 2.0, "{policy}: real {real} %, simulated {virtually} %");
    }
}
