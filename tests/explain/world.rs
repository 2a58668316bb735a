//! Runs a proxy with a random configuration, its services, and requests to it. This is one world.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::AddAssign;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use ringway::cli::explain::{Asked, explanation};
use ringway::compile::Resolutions;
use ringway::compile::registry::Registry;
use ringway::decision;
use ringway::downstream::connection;
use ringway::l4::Arrival;
use ringway::net::Egress;
use ringway::runtime::io::{Io, Read, Stream};
use ringway::runtime::sim::{SimIo, SimStream, Simulation};
use ringway::serve::Worker;
use ringway::snapshot::Snapshot;
use ringway::sources::files;
use ringway::tls::{ClientTls, Session, TlsStream};
use ringway::wire::Wire;
use serde_json::Value;

use super::generate::{self, By, Generated, IDS, PORTS};
use super::told::{Told, Way};
use crate::sim::one::{address, compiled, lines, logging_worker};
use crate::support::pki::{Pki, Wanted};

/// The number of requests in one world.
const REQUESTS: usize = 12;

/// The number of configurations that are tried until one is valid.
const CONFIGURATIONS_MAX: usize = 100;

/// The limit of virtual time for one world.
const LIMIT: Duration = Duration::from_secs(3600);

/// The addresses of servers: endpoints, the workload, and unknown destinations.
const SERVERS: [&str; 15] = [
    "10.0.1.1:80",
    "10.0.1.2:80",
    "10.0.1.3:80",
    "10.0.1.4:80",
    "10.0.1.5:80",
    "10.0.5.5:80",
    "10.0.5.5:81",
    "10.0.5.5:8080",
    "10.0.7.1:80",
    "10.0.7.1:81",
    "127.0.0.1:80",
    "127.0.0.1:81",
    "127.0.0.1:8080",
    "127.0.0.1:8443",
    "10.0.7.1:8080",
];

/// The certificates of the proxy and of its clients.
pub struct Identities {
    pki: Pki,
    clients: HashMap<&'static str, Arc<ClientTls>>,
}

impl Identities {
    pub fn new() -> Self {
        let pki = Pki::new();
        let leaf =
            |name: &str, id: &str| pki.leaf(name, &Wanted { names: &[id], ..Wanted::default() });
        leaf("own", "spiffe://cluster.local/ns/own/sa/own");
        let mut clients = HashMap::new();
        for (number, id) in IDS.into_iter().enumerate() {
            let name = format!("client{number}");
            leaf(&name, id);
            let (ca, file) = (pki.path("ca.pem"), pki.path(&name));
            let domain = id.split('/').nth(2).unwrap();
            let bundles = match domain {
                "cluster.local" => String::new(),
                _ => format!("trust_bundles: {{cluster.local: {ca}}}"),
            };
            let configuration = format!(
                "mesh:
  trust_domain: {domain}
  identity: {{cert: {file}.pem, key: {file}.key, roots: {ca}}}
  {bundles}
listeners: {{web: {{bind: 127.0.0.1:80}}}}
routes: {{'*': {{to: proxy}}}}
services: {{proxy: {{endpoints: ['127.0.0.1:1'], tls: mesh}}}}
"
            );
            let snapshot = compiled(&mut Registry::new(1), 1, &configuration);
            clients.insert(id, Arc::clone(snapshot.services[0].tls.as_ref().unwrap()));
        }
        Self { pki, clients }
    }

    /// The directory of the certificates.
    pub fn directory(&self) -> &str {
        self.pki.directory().to_str().unwrap()
    }
}

/// The events in all worlds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    forwarded: u64,
    answered: u64,
    denied: u64,
    unrouted: u64,
    members_only: u64,
    without_token: u64,
    bytes: u64,
    handshakes: u64,
    with_identity: u64,
    capture_errors: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.forwarded += other.forwarded;
        self.answered += other.answered;
        self.denied += other.denied;
        self.unrouted += other.unrouted;
        self.members_only += other.members_only;
        self.without_token += other.without_token;
        self.bytes += other.bytes;
        self.handshakes += other.handshakes;
        self.with_identity += other.with_identity;
        self.capture_errors += other.capture_errors;
    }
}

impl Tally {
    /// Checks that every kind of result occurs.
    pub fn check(&self) {
        let Self { forwarded, answered, denied, unrouted, members_only, .. } = *self;
        let Self { without_token, bytes, handshakes, with_identity, capture_errors, .. } = *self;
        for (count, what) in [
            (forwarded, "forwarded request"),
            (answered, "answer of the proxy itself"),
            (denied, "request that authorization denies"),
            (unrouted, "request without a route"),
            (members_only, "plain request to a strict port"),
            (without_token, "request without a token"),
            (bytes, "connection of bytes"),
            (handshakes, "refused handshake"),
            (with_identity, "request of a member"),
            (capture_errors, "connection that should not be captured"),
        ] {
            assert!(count > 0, "the worlds do not reach what they are for: no {what}");
        }
    }
}

/// The behaviour of the proxy for one request.
#[derive(Debug, Default)]
struct Seen {
    /// 0 if the connection was closed without an answer.
    status: u16,
    head: String,
    lines: Vec<Value>,
}

impl Seen {
    fn field(&self, name: &str) -> &str {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(field, _)| field.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value)
    }
}

/// A proxy, and the requests to it.
pub struct World<'a> {
    seed: u64,
    identities: &'a Identities,
    generated: Generated,
    snapshot: Arc<Snapshot>,
    requests: Vec<(By, Asked)>,
}

impl<'a> World<'a> {
    pub fn new(seed: u64, identities: &'a Identities) -> Self {
        let mut random = Rng::with_seed(seed);
        let directory = identities.directory();
        // Some configurations are refused, mostly because a rule hides another one.
        let (generated, snapshot) = (0..CONFIGURATIONS_MAX)
            .find_map(|_| {
                let generated = generate::configuration(&mut random, directory);
                let snapshot = snapshot(&generated.text)?;
                Some((generated, snapshot))
            })
            .expect("a valid configuration");
        let requests = (0..REQUESTS).map(|_| generate::request(&mut random)).collect();
        Self { seed, identities, generated, snapshot, requests }
    }

    /// The world with this configuration and these requests.
    pub fn of(
        seed: u64,
        identities: &'a Identities,
        generated: Generated,
        requests: Vec<(By, Asked)>,
    ) -> Self {
        let snapshot = snapshot(&generated.text).expect("a valid configuration");
        Self { seed, identities, generated, snapshot, requests }
    }

    /// Compares, and returns the status of each answer. 0 means that the connection was closed.
    pub fn statuses(&self) -> Vec<u16> {
        self.compare_all();
        self.run(Arc::clone(&self.snapshot)).iter().map(|seen| seen.status).collect()
    }

    /// Explains all requests, sends them, and compares the explanations with the answers.
    pub fn compare_all(&self) -> Tally {
        let mut tally = Tally::default();
        let snapshot = &self.snapshot;
        let seen = self.run(Arc::clone(snapshot));
        assert_eq!(seen.len(), self.requests.len());
        for ((by, asked), seen) in self.requests.iter().zip(seen) {
            let text = explanation(snapshot, asked).unwrap_or_else(|error| panic!("{error}"));
            let told = Told::read(&text, by.listener());
            let agree = compare(&told, &seen, &mut tally);
            let configuration = &self.generated.text;
            assert_eq!(
                agree,
                Ok(()),
                "{configuration}\n{by:?} {asked:#?}\n{text}\n{told:#?}\n{seen:#?}"
            );
        }
        tally
    }

    /// Sends all requests, one after another.
    fn run(&self, snapshot: Arc<Snapshot>) -> Vec<Seen> {
        let simulation = Simulation::new(self.seed);
        let (client, far) = (simulation.io(), simulation.io());
        let (worker, written) = logging_worker(simulation.io(), self.seed);
        worker.prepare(Arc::clone(&snapshot));
        assert!(worker.commit(1));
        for at in SERVERS {
            serve(&far, at);
        }
        let all: Vec<_> = self.requests.iter().map(|(by, asked)| self.sent(*by, asked)).collect();
        let seen = Rc::new(RefCell::new(Vec::new()));
        let told = Rc::clone(&seen);
        let main = async move {
            for sent in all {
                let mut seen = sent.send(&client, &worker, &snapshot).await;
                while !worker.registry.is_empty() {
                    client.sleep(Duration::from_millis(10)).await;
                }
                seen.lines = lines(&worker, &written);
                told.borrow_mut().push(seen);
            }
        };
        assert_eq!(simulation.run(LIMIT, main), Ok(()), "{}", self.generated.text);
        seen.take()
    }

    fn sent(&self, by: By, asked: &Asked) -> Sent {
        let to = asked.to.unwrap();
        let mode = PORTS.iter().position(|port| *port == to.port());
        let takes_tls = match by {
            By::Web | By::Outbound => false,
            // Other ports have the default, which is `permissive`.
            By::Mtls | By::Inbound => mode.is_none_or(|at| self.generated.modes[at] != "disable"),
        };
        let id = asked.identity.as_deref().filter(|_| takes_tls);
        let tls = id.map(|id| Arc::clone(&self.identities.clients[id]));
        Sent { by, to, tls, peer: SocketAddr::new(asked.ip.unwrap(), 4711), text: text(asked) }
    }
}

/// The compiled configuration. `None` if it is refused.
fn snapshot(configuration: &str) -> Option<Arc<Snapshot>> {
    let mut file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    std::io::Write::write_all(&mut file, configuration.as_bytes()).unwrap();
    let loaded = files::load(&[file.path().to_owned()], &HashMap::new());
    let compiled = files::compile(&loaded, 1, &mut Registry::new(1), &Resolutions::new());
    Some(Arc::new(compiled.ok()?.snapshot))
}

/// The request as a client writes it.
fn text(asked: &Asked) -> String {
    let (target, host) = match asked.url.strip_prefix("http://") {
        Some(rest) => {
            let slash = rest.find('/').unwrap();
            (&rest[slash..], &rest[..slash])
        }
        None => (&*asked.url, &*asked.url),
    };
    let headers: String = asked.headers.iter().map(|header| format!("{header}\r\n")).collect();
    format!("{} {target} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n", asked.method)
}

/// A request, ready to be sent.
struct Sent {
    by: By,
    to: SocketAddr,
    tls: Option<Arc<ClientTls>>,
    peer: SocketAddr,
    text: String,
}

impl Sent {
    async fn send(&self, client: &SimIo, worker: &Rc<Worker<SimIo>>, snapshot: &Snapshot) -> Seen {
        let listener = self.by.listener();
        let capture = snapshot.listener(listener).and_then(|listener| listener.capture());
        let original = capture.map(|capture| {
            let is_local = |_| false;
            let peer = Some(self.peer);
            let error = decision::capture_error(capture, snapshot, peer, self.to, is_local);
            error.map_or(Ok(self.to), Err)
        });
        let at = address("10.0.0.1:1");
        let accepting = worker.io.listen(&at);
        let stream = client.connect(&at, Egress::default()).await.unwrap();
        let accepted = accepting.accept().await;
        let arrival = Arrival { peer: Some(self.peer), port: self.to.port(), original };
        let serving = connection::serve(Rc::clone(worker), accepted, Rc::from(listener), arrival);
        worker.io.spawn(serving);
        let Some(tls) = &self.tls else { return self.ask(client, &Wire::Plain(stream)).await };
        // Without ALPN, so that the server speaks HTTP/1.1.
        let session = Session::client(Arc::clone(&tls.bytes), tls.name_for(&at)).unwrap();
        let stream = TlsStream::new(stream, session, None, client.buffers());
        match stream.handshake().await {
            Ok(()) => self.ask(client, &Wire::Tls(Box::new(stream))).await,
            Err(_) => Seen::default(),
        }
    }

    async fn ask(&self, io: &SimIo, stream: &impl Stream) -> Seen {
        let mut buf = io.buffers().take();
        buf.append(self.text.as_bytes());
        stream.write_all(buf).await.0.ok();
        let Some(head) = head(io, stream, &mut Vec::new()).await else { return Seen::default() };
        let status = head[9..12].parse().unwrap();
        stream.shutdown_write().await;
        while let (Ok(Read::Data(_)), _) = stream.read(io.buffers().take()).await {}
        Seen { status, head, lines: Vec::new() }
    }
}

/// Reads a head. `seen` holds the bytes read so far, and then the bytes after the head. Returns
/// `None` when the stream ends first.
async fn head(io: &SimIo, stream: &impl Stream, seen: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(at) = seen.windows(4).position(|four| four == b"\r\n\r\n") {
            let rest = seen.split_off(at + 4);
            return String::from_utf8(std::mem::replace(seen, rest)).ok();
        }
        let (read, buf) = stream.read(io.buffers().take()).await;
        let Ok(Read::Data(_)) = read else { return None };
        seen.extend_from_slice(buf.data());
    }
}

/// Starts a server that describes each request in the head of its response.
fn serve(io: &SimIo, at: &'static str) {
    let (listener, io) = (io.listen(&address(at)), io.clone());
    io.clone().spawn(async move {
        loop {
            let (stream, io) = (listener.accept().await, io.clone());
            io.clone().spawn(async move { answer(&io, &stream, at).await });
        }
    });
}

async fn answer(io: &SimIo, stream: &SimStream, at: &str) {
    let mut seen = Vec::new();
    while let Some(request) = head(io, stream, &mut seen).await {
        let line = request.lines().next().unwrap_or_default();
        let mut fields = request.lines().filter_map(|line| line.split_once(": "));
        let host = fields.find(|(name, _)| name.eq_ignore_ascii_case("host")).map(|(_, host)| host);
        let host = host.unwrap_or_default();
        let length = if line.starts_with("CONNECT ") { "" } else { "content-length: 0\r\n" };
        let mut buf = io.buffers().take();
        buf.append(
            format!(
                "HTTP/1.1 200 OK\r\n{length}x-at: {at}\r\nx-line: {line}\r\nx-host: {host}\r\n\r\n"
            )
            .as_bytes(),
        );
        if stream.write_all(buf).await.0.is_err() {
            return;
        }
    }
}

/// Checks that the proxy did what the explanation says.
fn compare(told: &Told, seen: &Seen, tally: &mut Tally) -> Result<(), String> {
    if let Some(why) = told.refused.as_ref().and_then(|it| it.strip_prefix("the TLS handshake")) {
        tally.handshakes += 1;
        // A client that speaks plain HTTP gets 400.
        let closed = matches!(seen.status, 0 | 400) && seen.lines.len() == 1;
        return if closed { Ok(()) } else { Err(format!("the handshake{why}")) };
    }
    let [line] = &seen.lines[..] else { return Err("not one line in the log".to_owned()) };
    let logged = |name: &str| line[name].as_str().unwrap_or_default();
    same("bytes", told.is_bytes || seen.status == 0, logged("protocol") == "TCP")?;
    if !told.is_bytes && logged("protocol") != "TCP" {
        same("the rule", told.rule.as_deref().unwrap_or_default(), logged("route"))?;
    }
    if !logged("identity").is_empty() {
        tally.with_identity += 1;
    }
    if told.is_bytes {
        tally.bytes += 1;
    }
    if logged("response_flags") != "-" {
        return compare_refusal(told, seen, line, tally);
    }
    if let Some((status, location)) = &told.answers {
        tally.answered += 1;
        same("the location", location.as_str(), seen.field("location"))?;
        return same("the status", *status, seen.status);
    }
    tally.forwarded += 1;
    same("the status", 200, seen.status)?;
    let passes = |way: &&Way| {
        let at = |endpoint: &String| endpoint == seen.field("x-at");
        way.service == logged("service") && way.refused.is_none() && way.endpoints.iter().any(at)
    };
    if told.refused.is_some() || !told.ways.iter().any(|way| passes(&way)) {
        return Err(format!("{} got it at {}", logged("service"), seen.field("x-at")));
    }
    if let Some(path) = &told.path {
        same("the path", Some(&**path), seen.field("x-line").split(' ').nth(1))?;
    }
    told.host.as_ref().map_or(Ok(()), |host| same("the host", &**host, seen.field("x-host")))
}

/// Checks that a refusal has the reason that the explanation gives.
fn compare_refusal(
    told: &Told,
    seen: &Seen,
    line: &Value,
    tally: &mut Tally,
) -> Result<(), String> {
    let text = |name: &str| line[name].as_str().unwrap_or_default();
    let (flag, detail, policy) = (text("response_flags"), text("detail"), text("policy"));
    let is_it = |refused: &String, verdict: &str| {
        let reason = refused.strip_suffix(&format!("{flag}: {detail}"));
        let status = reason.and_then(|status| status.trim().parse().ok());
        let same_status = seen.status == 0 || status == Some(seen.status);
        let same_policy = policy.is_empty() || verdict == policy;
        reason.is_some() && same_status && same_policy
    };
    let own = told.refused.iter().any(|refused| is_it(refused, &told.verdict));
    let of_service = told
        .ways
        .iter()
        .any(|way| way.refused.as_ref().is_some_and(|refused| is_it(refused, &way.verdict)));
    if !own && !of_service {
        return Err(format!("{flag} {detail} {policy}"));
    }
    match (flag, detail) {
        ("NR", _) => tally.unrouted += 1,
        ("UAEX", "access denied by policy") => tally.denied += 1,
        ("UAEX", "this port requires mutual TLS") => tally.members_only += 1,
        ("UAEX", _) => tally.without_token += 1,
        ("OD", _) => tally.capture_errors += 1,
        _ => {}
    }
    Ok(())
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, told: T, seen: T) -> Result<(), String> {
    match told == seen {
        true => Ok(()),
        false => Err(format!("{what}: told {told:?}, seen {seen:?}")),
    }
}
