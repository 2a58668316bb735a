//! The traffic of several proxies: this one, and those whose admin interfaces the configuration
//! names. A browser asks only this proxy, so no other one needs to allow it.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::compile::AdminPeer;
use crate::error::plain;
use crate::sources::lookup::Lookups;
use crate::sources::{authority, dial};
use crate::telemetry::history::{EDGES_MAX, Edge, Minute};
use crate::telemetry::status::{Known, Status};

/// How long another proxy may take to answer.
const LIMIT: Duration = Duration::from_secs(2);

/// How long an answer is used again, so that many browsers cost no more than one.
const FRESH: Duration = Duration::from_secs(2);

/// The maximum size of an answer, in bytes.
const ANSWER_BYTES_MAX: u64 = 512 * 1024;

/// The maximum size of the head of an answer, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// The space for each read.
const READ_BYTES: usize = 16 * 1024;

/// The maximum length of a name in an answer, in characters.
const NAME_CHARS_MAX: usize = 256;

/// The traffic of a proxy in the last minute.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Seen {
    /// `ready`, `draining` or `starting`.
    state: String,
    /// The version of Ringway.
    version: String,
    /// The name of its workload. `None` if it is unknown.
    workload: Option<String>,
    /// Its SPIFFE ID. `None` if it has none.
    principal: Option<String>,
    edges: Vec<EdgeSeen>,
}

/// The traffic with a client or a service in the last minute.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct EdgeSeen {
    /// `client` or `service`.
    kind: String,
    /// The SPIFFE ID of the client, or the name of the service.
    name: String,
    requests: u64,
    errors: u64,
    per_second: f64,
    p99_ms: Option<f64>,
}

/// A proxy of the mesh.
#[derive(Clone, Debug, Serialize)]
struct Proxy {
    /// Its name in the configuration; none for this proxy.
    name: Option<Arc<str>>,
    /// Its address in the configuration; none for this proxy.
    address: Option<String>,
    /// Why it has not answered.
    away: Option<String>,
    #[serde(flatten)]
    seen: Option<Seen>,
}

/// The proxies whose admin interfaces the configuration names. Clones share them.
#[derive(Clone)]
pub(super) struct Peers(Arc<Shared>);

struct Shared {
    status: Status,
    lookups: Lookups,
    list: RwLock<Arc<[AdminPeer]>>,
    /// The last answers, and their time.
    answers: Mutex<Option<(Instant, Vec<Proxy>)>>,
}

impl Peers {
    pub(super) fn new(status: Status, lookups: Lookups) -> Self {
        let (list, answers) = (RwLock::default(), Mutex::default());
        Self(Arc::new(Shared { status, lookups, list, answers }))
    }

    /// Asks these proxies from now on.
    pub(super) fn set(&self, peers: &Arc<[AdminPeer]>) {
        *self.0.list.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(peers);
        // While they are asked, the answers of the old ones come once more.
        if let Ok(mut answers) = self.0.answers.try_lock() {
            *answers = None;
        }
    }

    fn list(&self) -> Arc<[AdminPeer]> {
        Arc::clone(&self.0.list.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The traffic of this proxy.
pub(super) async fn traffic(State(status): State<Status>) -> Json<Seen> {
    Json(own(&status.known()))
}

/// The traffic of this proxy and of the others.
pub(super) async fn mesh(State(peers): State<Peers>) -> Json<serde_json::Value> {
    let this =
        Proxy { name: None, address: None, away: None, seen: Some(own(&peers.0.status.known())) };
    let mut answers = peers.0.answers.lock().await;
    let others = match &*answers {
        Some((asked, others)) if asked.elapsed() < FRESH => others.clone(),
        _ => {
            let others = ask_all(&peers).await;
            *answers = Some((Instant::now(), others.clone()));
            others
        }
    };
    let proxies: Vec<Proxy> = std::iter::once(this).chain(others).collect();
    Json(serde_json::json!({ "proxies": proxies }))
}

async fn ask_all(peers: &Peers) -> Vec<Proxy> {
    let mut asking = JoinSet::new();
    let list = peers.list();
    for (index, peer) in list.iter().cloned().enumerate() {
        let lookups = peers.0.lookups.clone();
        asking.spawn(async move {
            let answer = timeout(LIMIT, ask(&lookups, &peer)).await;
            (index, answer.unwrap_or_else(|_| Err(format!("no answer within {LIMIT:?}"))))
        });
    }
    let mut others: Vec<Proxy> = list
        .iter()
        .map(|peer| Proxy {
            name: Some(Arc::clone(&peer.name)),
            address: Some(authority(&peer.server.0, peer.server.1)),
            away: Some("not asked".to_owned()),
            seen: None,
        })
        .collect();
    while let Some(ended) = asking.join_next().await {
        let Ok((index, answer)) = ended else { continue };
        match answer {
            Ok(seen) => (others[index].seen, others[index].away) = (Some(seen), None),
            Err(why) => others[index].away = Some(plain(&why)),
        }
    }
    others
}

async fn ask(lookups: &Lookups, peer: &AdminPeer) -> Result<Seen, String> {
    let (host, port) = &peer.server;
    let mut stream = dial(lookups, peer.tls.as_ref(), (host, *port)).await?;
    let broken = |error: std::io::Error| format!("the connection broke off: {}", plain(&error));
    let token = peer.token.iter().map(|token| format!("Authorization: Bearer {token}\r\n"));
    let fields: String = token.collect();
    // An answer to HTTP/1.0 has no chunks: it ends with the connection.
    let host = authority(host, *port);
    let request = format!("GET /traffic HTTP/1.0\r\nHost: {host}\r\n{fields}\r\n");
    stream.write_all(request.as_bytes()).await.map_err(broken)?;
    stream.flush().await.map_err(broken)?;
    let mut answer = Vec::new();
    loop {
        answer.reserve(READ_BYTES);
        if stream.read_buf(&mut answer).await.map_err(broken)? == 0 || is_whole(&answer) {
            return read(&answer);
        }
    }
}

/// Whether the answer is complete, or too long. Another server may not close the connection.
fn is_whole(answer: &[u8]) -> bool {
    let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else {
        return answer.len() > HEAD_BYTES_MAX;
    };
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length = length.and_then(|length| length.trim().parse::<usize>().ok());
    let has_body = length.is_some_and(|length| answer.len() - end - 4 >= length);
    has_body || answer.len() as u64 >= ANSWER_BYTES_MAX
}

/// Reads an answer. Another proxy is trusted with numbers only: names are cut, edges counted.
fn read(answer: &[u8]) -> Result<Seen, String> {
    let strange = || "it is not the admin interface of Ringway".to_owned();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").ok_or_else(strange)?;
    let head = std::str::from_utf8(&answer[..end]).map_err(|_| strange())?;
    let status = head.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5));
    match status.ok_or_else(strange)? {
        "200" => {}
        "401" => return Err("it demands a token (status 401)".to_owned()),
        "404" => return Err("it has no page /traffic: an older version".to_owned()),
        other => return Err(format!("it answers status {other}")),
    }
    if answer.len() as u64 >= ANSWER_BYTES_MAX {
        return Err(format!("its answer has more than {ANSWER_BYTES_MAX} bytes"));
    }
    let body = &answer[end + 4..];
    if body.first() != Some(&b'{') {
        return Err(strange());
    }
    let mut seen: Seen = serde_json::from_slice(body).map_err(|_| strange())?;
    seen.edges.truncate(EDGES_MAX);
    let edges = seen.edges.iter_mut().flat_map(|edge| [&mut edge.kind, &mut edge.name]);
    let own = [&mut seen.state, &mut seen.version].into_iter();
    let own = own.chain(&mut seen.workload).chain(&mut seen.principal);
    for text in edges.chain(own) {
        if let Some((at, _)) = text.char_indices().nth(NAME_CHARS_MAX) {
            text.truncate(at);
        }
    }
    Ok(seen)
}

fn own(known: &Known) -> Seen {
    let standard = known.snapshot.as_ref().and_then(|snapshot| snapshot.standard.as_ref());
    let principal = standard.and_then(|it| it.own.principal.as_ref());
    let seconds = known.history.recent().as_secs_f64().max(1.0);
    let edges = known.history.edges().map(|(edge, now, _)| {
        let (kind, name) = match edge {
            Edge::Client(name) => ("client", name),
            Edge::Service(name) => ("service", name),
        };
        edge_seen(kind, name, &now, seconds)
    });
    Seen {
        state: super::dashboard::state_of(known).to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        workload: super::dashboard::workload(known),
        principal: principal.map(ToString::to_string),
        edges: edges.collect(),
    }
}

fn edge_seen(kind: &str, name: &str, minute: &Minute, seconds: f64) -> EdgeSeen {
    let traffic = &minute.traffic;
    EdgeSeen {
        kind: kind.to_owned(),
        name: name.to_owned(),
        requests: traffic.requests,
        errors: traffic.errors,
        per_second: super::dashboard::rounded(traffic.requests as f64 / seconds),
        p99_ms: minute.quantile_ms(0.99).map(super::dashboard::rounded),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_another_proxy_is_bounded_and_judged() {
        let says = |head: &str, body: &str| read(format!("{head}\r\n\r\n{body}").as_bytes());
        let long = "x".repeat(1000);
        let edge = format!("{{\"kind\":\"client\",\"name\":\"{long}\",\"requests\":7}}");
        let edges = vec![edge; EDGES_MAX + 9].join(",");
        let body = format!("{{\"workload\":\"cart\",\"unknown\":1,\"edges\":[{edges}]}}");
        let seen = says("HTTP/1.0 200 OK", &body).unwrap();
        assert_eq!((seen.workload.as_deref(), seen.edges.len()), (Some("cart"), EDGES_MAX));
        assert_eq!((seen.edges[0].name.len(), seen.edges[0].requests), (NAME_CHARS_MAX, 7));
        for (head, body, expected) in [
            ("HTTP/1.0 401 Unauthorized", "", "token"),
            ("HTTP/1.0 404 Not Found", "", "older"),
            ("HTTP/1.1 503 Service Unavailable", "", "status 503"),
            ("HTTP/1.0 200 OK", "[]", "not the admin interface"),
            ("HTTP/1.0 200 OK", "{\"edges\":7}", "not the admin interface"),
            ("SSH-2.0", "", "not the admin interface"),
            ("HTTP/1.0 \u{e9}\u{e9}", "", "not the admin interface"),
        ] {
            let why = says(head, body).unwrap_err();
            assert!(why.contains(expected), "{head}: {why}");
        }
        assert!(read(b"").is_err());
        assert!(read(&vec![b' '; ANSWER_BYTES_MAX as usize]).is_err());
    }
}
