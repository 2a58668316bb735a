//! `ringway explain` says what the proxy does: random configurations and requests, on a simulated
//! network.
//!
//! `EXPLAIN_SEED=n cargo test --test all explain` runs one seed, and `EXPLAIN_SEEDS=n` sets the
//! number of seeds.

mod generate;
mod told;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use generate::{By, Generated, IDS, PORTS};
use ringway::cli::explain::Asked;
use world::{Identities, Tally, World};

/// The number of seeds that `cargo test` runs.
const SEEDS: u64 = 60;

#[test]
fn what_explain_says_is_what_the_proxy_does() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    let seeds = match number("EXPLAIN_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("EXPLAIN_SEEDS").unwrap_or(SEEDS),
    };
    let identities = Identities::new();
    let mut total = Tally::default();
    for seed in seeds.clone() {
        let run = AssertUnwindSafe(|| World::new(seed, &identities).compare_all());
        match catch_unwind(run) {
            Ok(tally) => total += tally,
            Err(_) => panic!(
                "seed {seed} failed; replay: EXPLAIN_SEED={seed} cargo test --test all explain"
            ),
        }
    }
    println!("seeds {}..{}: {total:?}", seeds.start, seeds.end);
    if seeds.end - seeds.start >= 60 {
        total.check();
    }
}

/// A GET on a connection that `mesh.inbound` has captured.
fn inbound(to: &str, identity: Option<&str>) -> (By, Asked) {
    let asked = Asked {
        identity: identity.map(ToOwned::to_owned),
        ip: Some([10, 1, 0, 9].into()),
        to: Some(to.parse().unwrap()),
        method: "GET".to_owned(),
        url: "http://a.test/".to_owned(),
        ..Asked::default()
    };
    (By::Inbound, asked)
}

/// A configuration with `inbound` in `mesh.inbound`, and with this mode for all ports.
fn configuration(identities: &Identities, mode: &'static str, inbound: &str) -> Generated {
    let directory = identities.directory();
    let ports = PORTS.map(|port| format!("'{port}': {mode}")).join(", ");
    let text = format!(
        "telemetry: {{access_log: {{path: stdout}}}}
mesh:
  identity: {{cert: {directory}/own.pem, key: {directory}/own.key, roots: {directory}/ca.pem}}
  inbound: {{bind: 10.0.0.1:15006, ports: {{{ports}}}, {inbound}}}
jwt: {{id: {{issuer: https://id.example, jwks: {{url: http://127.0.0.1:9/keys}}}}}}
services:
  open: {{endpoints: ['10.0.1.1:80']}}
  guarded: {{endpoints: ['10.0.1.4:80'], jwt: id}}
"
    );
    Generated { text, modes: [mode; 4] }
}

#[test]
fn the_workload_on_loopback_is_at_each_address_the_service_of_this_address() {
    let identities = Identities::new();
    let generated = configuration(&identities, "disable", "application: loopback");
    let requests = ["10.0.1.1:80", "10.0.1.4:80", "10.0.5.5:80"].map(|to| inbound(to, None));
    let world = World::of(1, &identities, generated, requests.to_vec());
    assert_eq!(world.statuses(), [200, 401, 200]);
}

#[test]
fn a_member_reaches_a_permissive_port_whose_protocol_is_declared() {
    let identities = Identities::new();
    let declared = "protocols: {'81': tcp, '8080': http}";
    let generated = configuration(&identities, "permissive", declared);
    let clients = [None, Some(IDS[0])];
    let to = ["10.0.5.5:81", "10.0.5.5:8080"];
    let requests = to.into_iter().flat_map(|to| clients.map(|identity| inbound(to, identity)));
    let world = World::of(1, &identities, generated, requests.collect());
    assert_eq!(world.statuses(), [200; 4]);
}
