//! The grammar of a scenario file of `ringway simulate`.

use serde::Deserialize;

use crate::sources::files::values::{Entries, Factor, Placed, Share, Time};

/// A scenario: the load, the behaviour of endpoints, events that change it, and the expected
/// result.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScenarioFile {
    /// The simulated duration. Default 5m.
    pub duration: Option<Placed<Time>>,
    /// The seed of all random choices. Default 1.
    pub seed: Option<u64>,
    /// The requests that clients send.
    pub requests: Requests,
    /// The behaviour of endpoints, by `SERVICE`, `SERVICE/VERSION`, address or `*`. Later entries
    /// override earlier ones.
    pub endpoints: Entries<Behaviour>,
    /// The events, which change the behaviour of endpoints.
    pub events: Vec<Placed<Event>>,
    /// The expected result. If it is not reached, the exit code is 1.
    pub expect: Expect,
}

/// The requests that clients send.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Requests {
    /// Requests per second. Default 100.
    pub rate: Option<Placed<u32>>,
    /// The listener that gets the requests. Default: the first HTTP listener.
    pub listener: Option<Placed<String>>,
    /// Requests such as `GET http://shop.example.com/cart`, each with its weight. Default: one
    /// request for each rule.
    pub mix: Entries<u32>,
    /// Header fields of each request.
    pub headers: Entries<String>,
}

/// The behaviour of an endpoint. A key that is not written keeps its value.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Behaviour {
    /// The distribution of response times.
    pub latency: Option<Placed<Latency>>,
    /// The share of requests that fail.
    pub errors: Option<Share>,
    /// The status of failed requests. Default 503.
    pub status: Option<Placed<u16>>,
    /// The reachability of the endpoint: `up`, `refuses` or `silent`.
    pub state: Option<State>,
    /// The number of requests that the endpoint processes at a time. The others wait in a queue.
    /// Default: no limit.
    pub capacity: Option<Placed<u32>>,
}

/// The distribution of response times (log-normal).
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Latency {
    /// The median: half of the responses are faster.
    pub p50: Time,
    /// The 99th percentile: one response in a hundred is slower. Default: four times `p50`.
    pub p99: Option<Time>,
}

/// Whether an endpoint can be reached.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// The endpoint accepts connections and responds.
    #[default]
    Up,
    /// The process has stopped: open connections are reset, and new ones are refused.
    Refuses,
    /// The host is unreachable: packets are lost, and nothing is refused.
    Silent,
}

/// An event that changes the behaviour of endpoints for a time.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// The time at which the event begins.
    pub at: Placed<Time>,
    /// How long the event lasts. Default: to the end of the simulation.
    #[serde(rename = "for")]
    pub lasts: Option<Time>,
    /// The endpoints: `SERVICE`, `SERVICE/VERSION`, an address or `*`.
    pub endpoints: Placed<String>,
    /// The distribution of response times.
    pub latency: Option<Placed<Latency>>,
    /// The share of requests that fail.
    pub errors: Option<Share>,
    /// The status of failed requests.
    pub status: Option<Placed<u16>>,
    /// Whether the endpoint can be reached: `up`, `refuses` or `silent`.
    pub state: Option<State>,
}

/// The expected result of the whole run. If it is not reached, the exit code is 1.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Expect {
    /// The minimum share of successful requests.
    pub success: Option<Share>,
    /// The maximum median of the response times.
    pub p50: Option<Time>,
    /// The maximum 99th percentile of the response times.
    pub p99: Option<Time>,
    /// The maximum number of attempts per request.
    pub attempts: Option<Factor>,
}
