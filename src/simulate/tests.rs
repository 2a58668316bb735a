//! Tests of the simulation: mistakes in scenarios, the shipped scenarios, and the effects of
//! policies.

use super::grammar::State;
use super::result::Outcome;
use super::*;

mod blame;
mod hedging;
mod mesh;

/// Loads the configuration and the scenario from texts.
fn of_texts(config: &str, scenario: &str) -> Result<(Configuration, Scenario), String> {
    let directory = tempfile::tempdir().unwrap();
    let [config_path, scenario_path] =
        ["ringway.yaml", "scenario.yaml"].map(|name| directory.path().join(name));
    std::fs::write(&config_path, config).unwrap();
    std::fs::write(&scenario_path, scenario).unwrap();
    let arguments = SimulateArgs {
        config: vec![config_path],
        scenario: Some(scenario_path),
        seed: None,
        svg: None,
    };
    let prepared = prepared(&arguments);
    prepared.map_err(|text| text.replace(&format!("{}/", directory.path().display()), ""))
}

fn outcome(configuration: &Configuration, scenario: &Scenario) -> Outcome {
    world::run(configuration, scenario, &mut |_| {}).unwrap()
}

/// A configuration with a service of three endpoints. `more` are further settings of the service.
fn shop(more: &str) -> String {
    format!(
        "listeners: {{web: {{bind: 127.0.0.1:8080}}}}\nroutes: {{\"*\": [{{to: shop}}]}}\n\
         services: {{shop: {{endpoints: [10.0.0.1:80, 10.0.0.2:80, 10.0.0.3:80]{more}}}}}\n"
    )
}

#[test]
fn an_adaptive_limit_keeps_an_overloaded_service_fast() {
    // Each endpoint can answer 50 requests per second. Together they receive 600.
    let scenario = "duration: 8s\nrequests: {rate: 600}\n\
                    endpoints: {shop: {capacity: 1, latency: {p50: 20ms, p99: 24ms}}}\n";
    let (adaptive, scenario) = of_texts(&shop(", concurrency: adaptive"), scenario).unwrap();
    let with = outcome(&adaptive, &scenario);
    let plain = adaptive.without_policies().expect("a policy");
    let without = outcome(&plain, &scenario);
    let (with, without) = (with.total(), without.total());
    // The quantiles include refused requests, which fail fast.
    assert!(with.quantile(0.99) < Duration::from_millis(200), "{:?}", with.quantile(0.99));
    assert!(with.success() > 0.12, "{}", with.success());
    assert!(without.quantile(0.5) > Duration::from_millis(500), "{:?}", without.quantile(0.5));
}

#[test]
fn each_mistake_of_a_scenario_has_its_place_and_advice() {
    for (scenario, place, message, help) in [
        ("rate: 5", "1:1", "unknown field \"rate\"", ""),
        (
            "events: [{at: 1s, for: 2s, endpoints: shp, errors: 5%}]",
            "1:39",
            "no endpoint is named \"shp\"",
            "shop, 10.0.0.1:80",
        ),
        (
            "events: [{at: 1s, endpoints: shop}]",
            "1:10",
            "this event changes nothing",
            "errors: 50%",
        ),
        (
            "duration: 10s\nevents: [{at: 1m, endpoints: shop, errors: 5%}]",
            "2:15",
            "nothing happens after the end, 10s",
            "a later `duration`",
        ),
        ("duration: 48h", "1:11", "a simulation lasts at most a day", "at most 24h"),
        (
            "endpoints: {shop: {latency: {p50: 1s, p99: 1ms}}}",
            "1:29",
            "p99, 1ms, is less than p50, 1s",
            "at least p50",
        ),
        (
            "endpoints: {shop: {errors: 5%, status: 200}}",
            "1:40",
            "200 is not the status of an error",
            "400 to 599",
        ),
        ("requests: {rate: 0}", "1:18", "0 requests per second cannot be simulated", "1 to 100000"),
        ("requests: {mix: {GET /: 1}}", "1:18", "\"GET /\" is not a request", "GET http://"),
        (
            "requests: {mix: {HEAD http://a/: 1}}",
            "1:18",
            "\"HEAD http://a/\" is not a request",
            "not HEAD",
        ),
        ("expect: {success: 101%}", "1:19", "\"101%\" is not a part of a whole", "0% to 100%"),
        ("expect: {attempts: many}", "1:20", "\"many\" is not a number above 0", "such as 1.9"),
    ] {
        let Err(text) = of_texts(&shop(""), scenario) else { panic!("accepted: {scenario}") };
        let first = format!("scenario.yaml:{place}: error: {message}");
        assert!(text.starts_with(&first) && text.contains(help), "{scenario}\n{text}\n{first}");
    }
    let Err(text) = of_texts(&shop(""), "requests: {listener: wbe}") else { panic!() };
    assert_eq!(text, "error: no HTTP listener is named \"wbe\"; write one of web");
}

#[test]
fn events_change_what_they_name_while_they_last() {
    let scenario = "
duration: 1m
endpoints: {shop: {errors: 1%}, \"10.0.0.2:80\": {latency: {p50: 8ms}}}
events:
  - {at: 10s, for: 20s, endpoints: shop, errors: 50%, status: 500}
  - {at: 20s, endpoints: \"10.0.0.2:80\", state: silent}";
    let (_, scenario) = of_texts(&shop(""), scenario).unwrap();
    let seconds = Duration::from_secs;
    assert_eq!(scenario.changes(), [10, 20, 30].map(seconds));
    for (index, at, errors, status, state) in [
        (0, 9, 0.01, 503, State::Up),
        (0, 10, 0.5, 500, State::Up),
        (1, 20, 0.5, 500, State::Silent),
        (0, 30, 0.01, 503, State::Up),
        (1, 59, 0.01, 503, State::Silent),
    ] {
        let behaviour = scenario.behaviour(index, seconds(at));
        let is = (behaviour.errors, behaviour.status, behaviour.state);
        assert_eq!(is, (errors, status, state), "endpoint {index} at {at} s");
    }
    let latency = |index| scenario.behaviour(index, seconds(0)).p99;
    assert_eq!((latency(0), latency(1)), (Duration::from_millis(20), Duration::from_millis(32)));
}

#[test]
fn policies_hide_failures_and_the_same_seed_gives_the_same_result() {
    let scenario = "
duration: 20s
requests: {rate: 50}
events: [{at: 1s, endpoints: \"10.0.0.1:80\", errors: 60%}]
expect: {success: 99%}";
    let policies = ", retries: {attempts: 2, on: [gateway-error]}";
    let (configuration, scenario) = of_texts(&shop(policies), scenario).unwrap();
    let with = outcome(&configuration, &scenario);
    let without = outcome(&configuration.without_policies().unwrap(), &scenario);
    let [kept, lost] = [&with, &without].map(|outcome| outcome.total().success());
    assert!(kept > 0.99, "{kept}");
    // A third of the requests goes to an endpoint that fails six of ten requests.
    assert!((lost - 0.8).abs() < 0.06, "{lost}");
    assert!(with.total().attempts_per_request() > 1.1);
    let report =
        |outcome: &Outcome| Report { scenario: &scenario, outcome, without: None }.to_string();
    assert!(report(&with).contains("ok: success"));
    assert!(report(&without).contains("FAILED: success"));
    assert_eq!(report(&with), report(&outcome(&configuration, &scenario)));
    let other = Scenario { seed: scenario.seed + 1, ..scenario.clone() };
    assert_ne!(report(&with), report(&outcome(&configuration, &other)));
}

#[test]
fn an_endpoint_that_is_gone_or_silent_gets_nothing_until_it_is_back() {
    let config = shop(", health_check: {http: /, interval: 1s}, connect_timeout: 1s, timeout: 2s");
    let scenario = "
duration: 30s
requests: {rate: 50}
events:
  - {at: 5s, for: 20s, endpoints: \"10.0.0.1:80\", state: refuses}
  - {at: 5s, for: 20s, endpoints: \"10.0.0.2:80\", state: silent}";
    let (configuration, scenario) = of_texts(&config, scenario).unwrap();
    let outcome = outcome(&configuration, &scenario);
    let requests: Vec<u64> = outcome.endpoints.iter().map(|(_, requests, _)| *requests).collect();
    assert!(requests[0] < 500 && requests[1] < 500 && requests[2] > 900, "{requests:?}");
    let notes: Vec<&String> = outcome.intervals.iter().flat_map(|it| &it.notes).collect();
    for (state, times) in [("is unhealthy", 2), ("is healthy", 2)] {
        let count = notes.iter().filter(|note| note.ends_with(state)).count();
        assert_eq!(count, times, "{state}: {notes:?}");
    }
}

#[test]
fn another_zone_takes_over_when_a_zone_goes_away() {
    let config = "
zone: eu/a
listeners: {web: {bind: 127.0.0.1:8080}}
routes: {'*': [{to: shop}]}
services:
  shop:
    endpoints:
      - {address: 10.0.0.1:80, zone: eu/a}
      - {address: 10.0.0.2:80, zone: eu/a}
      - {address: 10.0.1.1:80, zone: eu/b}
      - {address: 10.0.1.2:80, zone: eu/b}
    health_check: {http: /, interval: 1s}
    retries: {attempts: 2, on: [connect-failure, reset]}
    connect_timeout: 1s";
    let scenario = "
duration: 40s
requests: {rate: 50}
events:
  - {at: 10s, for: 20s, endpoints: \"10.0.0.1:80\", state: refuses}
  - {at: 10s, for: 20s, endpoints: \"10.0.0.2:80\", state: refuses}";
    let (configuration, scenario) = of_texts(config, scenario).unwrap();
    let outcome = outcome(&configuration, &scenario);
    assert!(outcome.total().success() > 0.999, "{}", outcome.total().success());
    let requests: Vec<u64> = outcome.endpoints.iter().map(|(_, requests, _)| *requests).collect();
    // The near zone is healthy half of the time. When it fails, some attempts still go there before
    // the health checks fail.
    let (near, far) = (requests[0] + requests[1], requests[2] + requests[3]);
    assert!((900..1300).contains(&near) && (700..1050).contains(&far), "{requests:?}");
}

#[test]
fn an_endpoint_that_fails_is_ejected_and_returns() {
    let detection = ", outlier_detection: {consecutive_5xx: 3, base_ejection_time: 5s}";
    let scenario = "
duration: 60s
requests: {rate: 50}
events: [{at: 5s, for: 20s, endpoints: \"10.0.0.1:80\", errors: 100%}]";
    let (configuration, scenario) = of_texts(&shop(detection), scenario).unwrap();
    let with = outcome(&configuration, &scenario);
    let without = outcome(&configuration.without_policies().unwrap(), &scenario);
    let [kept, lost] = [&with, &without].map(|outcome| outcome.total().success());
    assert!(kept > 0.99 && lost < 0.92, "{kept} {lost}");
    let notes: Vec<&String> = with.intervals.iter().flat_map(|it| &it.notes).collect();
    for does in ["10.0.0.1:80 is ejected", "10.0.0.1:80 returns"] {
        assert!(notes.iter().any(|note| *note == does), "{does}: {notes:?}");
    }
    // At the end, the last ejection is over, and the endpoint gets its share of requests again.
    assert!(with.endpoints[0].1 > 400, "{:?}", with.endpoints);
}

#[test]
fn the_shipped_scenarios_hold() {
    let conf = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf");
    for (config, scenario) in [
        ("canary", "canary"),
        ("resilience", "restart"),
        ("resilience", "outage"),
        ("shift", "shift"),
    ] {
        let arguments = SimulateArgs {
            config: vec![conf.join(config)],
            scenario: Some(conf.join(format!("scenarios/{scenario}.yaml"))),
            seed: None,
            svg: None,
        };
        let (configuration, scenario) = prepared(&arguments).unwrap();
        let outcome = outcome(&configuration, &scenario);
        let report = Report { scenario: &scenario, outcome: &outcome, without: None };
        assert!(report.holds(), "{report}");
        if config == "shift" {
            both_ends(&outcome);
        }
        let picture = picture::draw(&scenario, &outcome, None);
        assert!(picture.ends_with("</svg>\n") && picture.contains("<polyline"), "{picture}");
    }
}

/// The good version has all requests in the end, and the bad one none.
fn both_ends(outcome: &Outcome) {
    let notes: Vec<&str> =
        outcome.intervals.iter().flat_map(|it| &it.notes).map(|it| &**it).collect();
    let of = |rule: &str| notes.iter().filter(|note| note.starts_with(rule)).collect::<Vec<_>>();
    let (shop, cart) = (of("shop: "), of("cart: "));
    assert_eq!(shop.len(), 6, "{notes:?}");
    assert_eq!(*shop[0], "shop: 20% to shop/v2 (step 1 of 5)");
    assert_eq!(*shop[5], "shop: the shift to shop/v2 is complete");
    assert_eq!(cart.len(), 3, "{notes:?}");
    assert!(cart[2].starts_with("cart: all back to cart/v1: "), "{notes:?}");
    let requests = |port: &str| {
        let of_port = outcome.endpoints.iter().filter(|(address, ..)| address.ends_with(port));
        of_port.map(|(_, requests, _)| *requests).sum::<u64>()
    };
    assert!(requests(":9003") + requests(":9004") > 3000, "{:?}", outcome.endpoints);
    assert!(requests(":9012") < 700, "{:?}", outcome.endpoints);
}

#[test]
fn the_scenarios_in_the_documents_are_accepted() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/simulate.md");
    let text = std::fs::read_to_string(page).unwrap();
    let blocks: Vec<&str> = text.split("```yaml scenario\n").skip(1).collect();
    assert!(!blocks.is_empty());
    for block in blocks {
        let scenario = block.split("```").next().unwrap();
        of_texts(&shop(""), scenario).unwrap();
    }
}
