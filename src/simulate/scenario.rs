//! A scenario that is ready to run: its names are resolved to endpoints.

use std::time::Duration;

use super::grammar::{self, ScenarioFile, State};
use crate::net::Address;
use crate::sources::files::diagnostic::Diagnostic;
use crate::sources::files::values::{Placed, Share};

/// The default of `requests.rate`.
const RATE: u32 = 100;

/// The maximum of `requests.rate`, in requests per second.
const RATE_MAX: u32 = 100_000;

/// The maximum simulated duration: a day.
const DURATION_MAX: Duration = Duration::from_secs(24 * 3600);

/// An endpoint of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The address that the configuration has for it.
    pub address: Address,
    /// The names of its services, with and without versions: `shop`, `shop/v1`.
    pub names: Vec<String>,
}

impl Place {
    /// Whether `name` means this endpoint: `SERVICE`, `SERVICE/VERSION`, an address or `*`.
    fn is(&self, name: &str) -> bool {
        name == "*"
            || self.names.iter().any(|known| known == name)
            || self.address.to_string() == name
    }
}

/// A request that the clients send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The HTTP method.
    pub method: String,
    /// The value of Host.
    pub host: String,
    /// The path and the query.
    pub path: String,
    /// The weight: how often the request is sent, relative to the others.
    pub weight: u32,
}

/// The behaviour of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Behaviour {
    /// The median of the response times.
    pub p50: Duration,
    /// The 99th percentile of the response times.
    pub p99: Duration,
    /// The share of requests that fail, from 0 to 1.
    pub errors: f64,
    /// The status of failed requests.
    pub status: u16,
    /// The reachability of the endpoint.
    pub state: State,
    /// The number of requests that the endpoint processes at a time. The others wait in a queue.
    /// `None` means no limit.
    pub capacity: Option<u32>,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            p50: Duration::from_millis(5),
            p99: Duration::from_millis(20),
            errors: 0.0,
            status: 503,
            state: State::Up,
            capacity: None,
        }
    }
}

impl Behaviour {
    /// Changes the capacity if one is given.
    fn has_capacity(&mut self, written: Option<&Placed<u32>>) {
        self.capacity = written.map(|it| it.value.max(1)).or(self.capacity);
    }
}

/// A change of the behaviour. `None` keeps the value.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Change {
    latency: Option<(Duration, Duration)>,
    errors: Option<f64>,
    status: Option<u16>,
    state: Option<State>,
}

impl Change {
    fn apply(&self, behaviour: &mut Behaviour) {
        let Self { latency, errors, status, state } = *self;
        (behaviour.p50, behaviour.p99) = latency.unwrap_or((behaviour.p50, behaviour.p99));
        behaviour.errors = errors.unwrap_or(behaviour.errors);
        behaviour.status = status.unwrap_or(behaviour.status);
        behaviour.state = state.unwrap_or(behaviour.state);
    }
}

/// An event that changes the behaviour of endpoints for a time.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// The time at which the event begins.
    pub from: Duration,
    /// The time at which the event ends.
    pub until: Duration,
    /// The description of the event, for the timeline.
    pub text: String,
    /// The indices of the endpoints that the event changes.
    endpoints: Vec<usize>,
    change: Change,
}

/// The expected result.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Expect {
    /// The minimum share of successful requests, from 0 to 1.
    pub success: Option<f64>,
    /// The maximum median of the response times.
    pub p50: Option<Duration>,
    /// The maximum 99th percentile of the response times.
    pub p99: Option<Duration>,
    /// The maximum number of attempts per request.
    pub attempts: Option<f64>,
}

/// A scenario for the endpoints of a configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// The simulated duration of the run.
    pub duration: Duration,
    /// The seed of all random choices.
    pub seed: u64,
    /// Requests per second.
    pub rate: u32,
    /// The name of the listener that gets the requests. `None` means the first HTTP listener.
    pub listener: Option<String>,
    /// The requests, each with its weight.
    pub mix: Vec<Request>,
    /// Header fields of each request.
    pub headers: Vec<(String, String)>,
    /// The events, in the order of the file.
    pub events: Vec<Event>,
    /// The expected result.
    pub expect: Expect,
    /// The endpoints, each with its behaviour while there is no event.
    pub endpoints: Vec<(Place, Behaviour)>,
}

impl Scenario {
    /// The scenario if no file is given: each endpoint in turn is slow, fails, refuses connections,
    /// and is silent.
    pub fn of_each(places: Vec<Place>, mix: Vec<Request>) -> Self {
        let (calm, bad) = (Duration::from_secs(10), Duration::from_secs(20));
        let mut now = Duration::from_secs(20);
        let mut events = Vec::new();
        for (index, Place { address, .. }) in places.iter().enumerate() {
            let latency = Some((Duration::from_millis(500), Duration::from_secs(2)));
            let changes = [
                ("is slow", Change { latency, ..Change::default() }),
                ("fails half of its requests", Change { errors: Some(0.5), ..Change::default() }),
                ("is gone", Change { state: Some(State::Refuses), ..Change::default() }),
                ("is silent", Change { state: Some(State::Silent), ..Change::default() }),
            ];
            for (what, change) in changes {
                let text = format!("{address} {what}");
                events.push(Event {
                    from: now,
                    until: now + bad,
                    text,
                    endpoints: vec![index],
                    change,
                });
                now += bad + calm;
            }
        }
        Self {
            duration: now,
            seed: 1,
            rate: RATE,
            listener: None,
            mix,
            headers: Vec::new(),
            events,
            expect: Expect::default(),
            endpoints: places.into_iter().map(|place| (place, Behaviour::default())).collect(),
        }
    }

    /// Makes a scenario from `file`. `mix` are the requests if the file has none.
    ///
    /// # Errors
    /// All mistakes in the file.
    pub fn of_file(
        file: ScenarioFile,
        places: Vec<Place>,
        mix: Vec<Request>,
    ) -> Result<Self, Vec<Diagnostic>> {
        let mut faults = Vec::new();
        let named = |name: &Placed<String>, faults: &mut Vec<Diagnostic>| {
            let found = |place: &(usize, &Place)| place.1.is(&name.value);
            let indices: Vec<usize> =
                places.iter().enumerate().filter(found).map(|(index, _)| index).collect();
            if indices.is_empty() {
                faults.push(unknown(name, &places));
            }
            indices
        };
        let mut behaviours = vec![Behaviour::default(); places.len()];
        for (name, written) in &file.endpoints.0 {
            let grammar::Behaviour { latency, errors, status, state, capacity } = written;
            let change = change(latency, errors, status, *state, &mut faults);
            for index in named(name, &mut faults) {
                change.apply(&mut behaviours[index]);
                behaviours[index].has_capacity(capacity.as_ref());
            }
        }
        let duration = file.duration.as_ref().map_or(Duration::from_secs(300), |it| it.value.0);
        if let Some(written) = file.duration.as_ref().filter(|_| duration > DURATION_MAX) {
            let text = "a simulation lasts at most a day";
            faults.push(Diagnostic::at(written.place, text).help("write at most 24h"));
        }
        let mut events = Vec::new();
        for Placed { place, value: event } in &file.events {
            let at = event.at.value.0;
            if at >= duration {
                let text = format!("nothing happens after the end, {}", time(duration));
                faults.push(Diagnostic::at(event.at.place, text).help("write a later `duration`"));
            }
            let grammar::Event { latency, errors, status, state, .. } = event;
            let change = change(latency, errors, status, *state, &mut faults);
            if change == Change::default() {
                let text = "this event changes nothing";
                let help = "add `latency: {p50: 1s}`, `errors: 50%` or `state: refuses`";
                faults.push(Diagnostic::at(*place, text).help(help));
            }
            let until = event.lasts.as_ref().map_or(duration, |lasts| at + lasts.0);
            let text = describe(&event.endpoints.value, &change);
            let endpoints = named(&event.endpoints, &mut faults);
            events.push(Event { from: at, until, text, endpoints, change });
        }
        let rate = rate(&file, &mut faults);
        let mix = read_mix(&file, mix, &mut faults);
        let grammar::Expect { success, p50, p99, attempts } = file.expect;
        let expect = Expect {
            success: success.map(|share| share.0),
            p50: p50.map(|time| time.0),
            p99: p99.map(|time| time.0),
            attempts: attempts.map(|number| number.0),
        };
        let headers = file.requests.headers.0.into_iter().map(|(name, value)| (name.value, value));
        let headers = headers.collect();
        let listener = file.requests.listener.map(|name| name.value);
        let seed = file.seed.unwrap_or(1);
        match faults.is_empty() {
            false => Err(faults),
            true => Ok(Self {
                duration,
                seed,
                rate,
                listener,
                mix,
                headers,
                events,
                expect,
                endpoints: places.into_iter().zip(behaviours).collect(),
            }),
        }
    }

    /// The behaviour of the endpoint `index` at the time `now`.
    pub fn behaviour(&self, index: usize, now: Duration) -> Behaviour {
        let (_, mut behaviour) = self.endpoints[index];
        let here = |event: &&Event| event.endpoints.contains(&index);
        for event in self.events.iter().filter(here) {
            if (event.from..event.until).contains(&now) {
                event.change.apply(&mut behaviour);
            }
        }
        behaviour
    }

    /// The times at which an event begins or ends, sorted.
    pub fn changes(&self) -> Vec<Duration> {
        let ends = self.events.iter().flat_map(|event| [event.from, event.until]);
        let mut changes: Vec<Duration> = ends.filter(|end| *end < self.duration).collect();
        changes.sort();
        changes.dedup();
        changes
    }
}

/// A duration as text: 90 s is `1m 30s`.
pub fn time(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

fn unknown(name: &Placed<String>, places: &[Place]) -> Diagnostic {
    let text = format!("no endpoint is named {:?}", name.value);
    let known = places.iter().find_map(|place| Some((place.names.first()?, &place.address)));
    let help = match known {
        Some((service, address)) => {
            format!("write a service, its version or an address: {service}, {address}")
        }
        None => "the configuration has no service with endpoints".to_owned(),
    };
    Diagnostic::at(name.place, text).help(help)
}

fn change(
    latency: &Option<Placed<grammar::Latency>>,
    errors: &Option<Share>,
    status: &Option<Placed<u16>>,
    state: Option<State>,
    faults: &mut Vec<Diagnostic>,
) -> Change {
    let latency = latency.as_ref().map(|Placed { place, value }| {
        let p50 = value.p50.0;
        let p99 = value.p99.as_ref().map_or(p50 * 4, |p99| p99.0);
        if p99 < p50 {
            let text = format!("p99, {}, is less than p50, {}", time(p99), time(p50));
            faults.push(Diagnostic::at(*place, text).help("write a p99 of at least p50"));
        }
        (p50, p99)
    });
    let status = status.as_ref().map(|Placed { place, value }| {
        if !(400..=599).contains(value) {
            let text = format!("{value} is not the status of an error");
            faults.push(Diagnostic::at(*place, text).help("write 400 to 599"));
        }
        *value
    });
    Change { latency, errors: errors.as_ref().map(|share| share.0), status, state }
}

fn rate(file: &ScenarioFile, faults: &mut Vec<Diagnostic>) -> u32 {
    let Some(Placed { place, value }) = &file.requests.rate else { return RATE };
    if *value == 0 || *value > RATE_MAX {
        let text = format!("{value} requests per second cannot be simulated");
        faults.push(Diagnostic::at(*place, text).help(format!("write 1 to {RATE_MAX}")));
    }
    *value
}

fn read_mix(
    file: &ScenarioFile,
    default: Vec<Request>,
    faults: &mut Vec<Diagnostic>,
) -> Vec<Request> {
    if file.requests.mix.0.is_empty() {
        return default;
    }
    let mut mix = Vec::new();
    for (text, weight) in &file.requests.mix.0 {
        match request(&text.value, *weight) {
            Some(request) => mix.push(request),
            None => {
                let message = format!("{:?} is not a request", text.value);
                let help = "write `GET http://shop.example.com/cart`; not HEAD, not CONNECT";
                faults.push(Diagnostic::at(text.place, message).help(help));
            }
        }
    }
    mix
}

/// Parses `METHOD http://HOST/PATH`. Responses to HEAD and CONNECT have no body, so these methods
/// are not simulated.
fn request(text: &str, weight: u32) -> Option<Request> {
    let (method, url) = text.split_once(' ')?;
    let is_method = method.bytes().all(|byte| byte.is_ascii_uppercase());
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"))?;
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let is_text = rest.bytes().all(|byte| byte.is_ascii_graphic());
    let is_known = is_method && !matches!(method, "" | "HEAD" | "CONNECT");
    (is_known && is_text && !host.is_empty()).then(|| Request {
        method: method.to_owned(),
        host: host.to_owned(),
        path: if path.is_empty() { "/".to_owned() } else { path.to_owned() },
        weight,
    })
}

fn describe(endpoints: &str, change: &Change) -> String {
    let mut parts = Vec::new();
    if let Some((p50, p99)) = change.latency {
        parts.push(format!("answers in {} (p99 {})", time(p50), time(p99)));
    }
    if let Some(errors) = change.errors {
        parts.push(format!("fails {} % of its requests", errors * 100.0));
    }
    match change.state {
        Some(State::Up) => parts.push("is up".to_owned()),
        Some(State::Refuses) => parts.push("is gone".to_owned()),
        Some(State::Silent) => parts.push("is silent".to_owned()),
        None => {}
    }
    format!("{endpoints} {}", parts.join(", "))
}
