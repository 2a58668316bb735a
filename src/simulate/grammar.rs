//! The grammar of a scenario file.

use serde::Deserialize;

use crate::sources::files::values::{Entries, Factor, Placed, Share, Time};

/// A scenario: the load, how endpoints behave, what happens to them, and the expected result.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScenarioFile {
    /// The simulated time. Default 5m.
    pub duration: Option<Placed<Time>>,
    /// The seed of all random choices. Default 1.
    pub seed: Option<u64>,
    /// The load.
    pub requests: Requests,
    /// How endpoints behave, by `SERVICE`, `SERVICE/VERSION`, address or `*`. Later entries
    /// override earlier ones.
    pub endpoints: Entries<Behaviour>,
    /// The events, which change the behaviour of endpoints.
    pub events: Vec<Placed<Event>>,
    /// The expected result.
    pub expect: Expect,
}

/// The load.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Requests {
    /// Requests per second. Default 100.
    pub rate: Option<Placed<u32>>,
    /// The listener that gets the requests. Default: the first for HTTP.
    pub listener: Option<Placed<String>>,
    /// `GET http://shop.example.com/cart`, each with its weight. Default: one request for each
    /// rule.
    pub mix: Entries<u32>,
    /// Header fields of each request.
    pub headers: Entries<String>,
}

/// How an endpoint behaves. Keys that are not written stay as they are.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Behaviour {
    /// The time to a response.
    pub latency: Option<Placed<Latency>>,
    /// The share of requests that fail.
    pub errors: Option<Share>,
    /// The status of failed requests. Default 503.
    pub status: Option<Placed<u16>>,
    /// `up`, `refuses` connections, or is `silent`.
    pub state: Option<State>,
    /// How many requests it works on at a time; the others queue. Default: all.
    pub capacity: Option<Placed<u32>>,
}

/// The distribution of response times (log-normal).
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Latency {
    /// Half of the responses are faster.
    pub p50: Time,
    /// One response in a hundred is slower. Default: four times `p50`.
    pub p99: Option<Time>,
}

/// Whether an endpoint can be reached.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It answers.
    #[default]
    Up,
    /// Its process is gone: open connections are reset, new ones refused.
    Refuses,
    /// Its network is gone: nothing is answered, and nothing refused.
    Silent,
}

/// Something that happens to endpoints.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// When it begins.
    pub at: Placed<Time>,
    /// How long it lasts. Default: to the end.
    #[serde(rename = "for")]
    pub lasts: Option<Time>,
    /// `SERVICE`, `SERVICE/VERSION`, an address or `*`.
    pub endpoints: Placed<String>,
    /// The time to a response.
    pub latency: Option<Placed<Latency>>,
    /// The share of requests that fail.
    pub errors: Option<Share>,
    /// The status of failed requests.
    pub status: Option<Placed<u16>>,
    /// `up`, `refuses` connections, or is `silent`.
    pub state: Option<State>,
}

/// The expected result of the whole run. If it is not reached, the exit code is 1.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Expect {
    /// The smallest share of successful requests.
    pub success: Option<Share>,
    /// The largest median of the response times.
    pub p50: Option<Time>,
    /// The largest 99th percentile of the response times.
    pub p99: Option<Time>,
    /// The largest number of attempts per request.
    pub attempts: Option<Factor>,
}
