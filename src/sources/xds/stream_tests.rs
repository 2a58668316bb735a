//! Which requests a stream sends, and when.

use std::time::Duration;

use tokio::time::Instant;

use super::kinds::Type;
use super::state::{Limits, State};
use super::stream::{Accepted, Stream};
use crate::grpc::protobuf::{Fields, Value, put_bytes, put_nested, put_number};
use crate::grpc::xds::{Node, Resource, Response};

/// A stream of the state of the world, and what belongs to it.
struct Bench {
    stream: Stream,
    state: State,
    accepted: Accepted,
    now: Instant,
}

impl Bench {
    fn new(is_careful: bool) -> Self {
        let limits = Limits { resources: 10, bytes: 10_000 };
        let types = vec![Type::Cluster, Type::Endpoints, Type::Listener];
        Self {
            stream: Stream::new(false, is_careful, types),
            state: State::new(limits, true),
            accepted: Accepted::default(),
            now: Instant::now(),
        }
    }

    /// The requests that are due, each as `TYPE VERSION NONCE NAMES REFUSAL`.
    fn requests(&mut self) -> Vec<String> {
        let node = Node::default();
        let all = self.stream.requests(&self.state, &self.accepted, &node, self.now);
        all.iter().map(|bytes| shown(bytes)).collect()
    }

    /// The server sends a cluster whose endpoints are elsewhere.
    fn receive(&mut self, version: &str, nonce: &str) {
        let mut bytes = Vec::new();
        put_bytes(&mut bytes, 1, b"a");
        put_number(&mut bytes, 2, 3);
        put_nested(&mut bytes, 3, |_| {});
        let kind = Type::Cluster;
        let resource = Resource { type_url: kind.url(), bytes: &bytes, ..Resource::default() };
        let response = Response { version, resources: vec![resource], ..Response::default() };
        self.stream.note(kind, version, nonce, self.now);
        self.state.take(kind, &response, false).unwrap();
    }

    fn judge(&mut self, refusal: Option<&str>) {
        let of = |kind| refusal.filter(|_| kind == Type::Cluster).map(str::to_owned);
        self.stream.judge(&mut self.accepted, self.now, of);
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
    }
}

fn shown(bytes: &[u8]) -> String {
    let mut parts = [const { String::new() }; 8];
    for field in Fields::of(bytes) {
        if let Ok((number, Value::Bytes(value))) = field {
            let text = match number {
                4 => value.rsplit(|byte| *byte == b'.').next().unwrap_or_default(),
                6 => &value[4..],
                _ => value,
            };
            parts[number as usize] += &String::from_utf8_lossy(text);
        }
    }
    let [_, version, _, names, kind, nonce, refusal, _] = parts;
    format!("{kind} {version} {nonce} {names} {refusal}").trim_end().to_owned()
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_response_is_accepted_at_once_and_leads_to_the_next_type() {
    let mut bench = Bench::new(false);
    assert_eq!(bench.requests(), ["Cluster", "Listener"]);
    bench.receive("1", "n1");
    assert_eq!(bench.requests(), ["ClusterLoadAssignment   a"], "an answer waits for the verdict");
    bench.judge(None);
    assert_eq!(bench.requests(), ["Cluster 1 n1"]);
    assert!(bench.requests().is_empty());
}

#[test]
fn a_refusal_waits_longer_and_longer() {
    let mut bench = Bench::new(false);
    bench.requests();
    let mut waits = Vec::new();
    for _ in 0..12 {
        bench.receive("2", "n2");
        bench.judge(Some("no"));
        let began = bench.now;
        while !bench.requests().contains(&"Cluster  n2  no".to_owned()) {
            bench.wait(SECOND / 4);
            assert!(bench.now - began < SECOND * 61);
        }
        waits.push(bench.now - began);
    }
    assert!(waits[0] >= SECOND / 2 && waits[0] <= SECOND, "{waits:?}");
    assert!(waits[11] >= SECOND * 30, "{waits:?}");
    bench.receive("3", "n3");
    bench.judge(None);
    assert!(bench.requests().contains(&"Cluster 3 n3".to_owned()));
}

#[test]
fn a_name_without_an_answer_does_not_exist_after_a_time_and_is_asked_for_again() {
    let mut bench = Bench::new(false);
    bench.requests();
    bench.receive("1", "n1");
    bench.judge(None);
    bench.requests();
    bench.wait(SECOND * 14);
    assert!(bench.stream.absent(&bench.state, bench.now).is_empty());
    bench.wait(SECOND * 2);
    let absent = bench.stream.absent(&bench.state, bench.now);
    assert_eq!(absent, [(Type::Endpoints, "a".to_owned())]);
    assert!(bench.stream.absent(&bench.state, bench.now).is_empty(), "once");
    assert_eq!(bench.requests(), ["ClusterLoadAssignment   a"]);
    assert!(bench.requests().is_empty());
}

#[test]
fn a_careful_stream_asks_for_one_type_after_the_other() {
    let mut bench = Bench::new(true);
    assert_eq!(bench.requests(), ["Cluster"]);
    assert!(bench.requests().is_empty());
    assert!(bench.stream.suspects(&bench.accepted).is_empty(), "clusters are always asked for");
    bench.receive("1", "n1");
    bench.accepted.heard.insert(Type::Cluster);
    assert_eq!(bench.requests(), ["ClusterLoadAssignment   a"]);
    assert_eq!(bench.stream.suspects(&bench.accepted), [Type::Endpoints]);
    bench.wait(SECOND);
    assert_eq!(
        bench.requests(),
        ["Listener"],
        "a silent server delays the next type only a little"
    );
}
