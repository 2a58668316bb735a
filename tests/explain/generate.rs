//! Random configurations and requests. There are few different values, so that rules often match.

use std::fmt::Write as _;
use std::net::SocketAddr;

use fastrand::Rng;
use ringway::cli::explain::Asked;

/// The modes of mutual TLS.
pub const MODES: [&str; 3] = ["strict", "permissive", "disable"];

/// The ports of inbound connections, and of the listener with TLS.
pub const PORTS: [u16; 4] = [80, 81, 8080, 8443];

pub const WEB: &str = "10.0.0.1:8080";
pub const MTLS: &str = "10.0.0.1:8443";

/// The SPIFFE IDs of clients. The last one belongs to a trust domain without a bundle.
pub const IDS: [&str; 3] = [
    "spiffe://cluster.local/ns/web/sa/web",
    "spiffe://cluster.local/ns/shop/sa/shop",
    "spiffe://other.example/ns/web/sa/web",
];

const HOSTS: [&str; 5] = ["a.test", "*.b.test", "c.test:81", "c.test:443", "*"];
const PATHS: [&str; 5] = ["/a", "/a/*", "/a/b", "~/r[0-9]+", "/x/*"];
const METHODS: [&str; 2] = ["GET", "POST"];
const NETWORKS: [&str; 3] = ["10.1.0.0/16", "10.0.0.0/8", "203.0.113.0/24"];

/// A configuration.
pub struct Generated {
    pub text: String,
    /// The mode of each of [`PORTS`].
    pub modes: [&'static str; 4],
}

/// One of `all`.
fn of<T: Copy>(random: &mut Rng, all: &[T]) -> T {
    all[random.usize(..all.len())]
}

/// A YAML list of some of `all`, or `None`.
fn some(random: &mut Rng, all: &[&str]) -> Option<String> {
    let count = random.usize(..6).checked_sub(2)?.min(2);
    let list: Vec<_> = (0..count).map(|_| format!("'{}'", of(random, all))).collect();
    (!list.is_empty()).then(|| format!("[{}]", list.join(", ")))
}

/// A random configuration. The certificates are in `directory`.
pub fn configuration(random: &mut Rng, directory: &str) -> Generated {
    let modes = [(); 4].map(|()| of(random, &MODES));
    let mut ports = String::new();
    for (port, mode) in PORTS.iter().zip(modes) {
        write!(ports, "'{port}': {mode}, ").unwrap();
    }
    let (hops, slashes) = (random.u8(..2), of(random, &["keep", "reject", "decode"]));
    let (application, unknown) =
        (of(random, &["original", "loopback"]), of(random, &["allow", "deny"]));
    let mut text = format!(
        "telemetry: {{access_log: {{path: stdout}}}}
listeners:
  web: {{bind: '{WEB}', trusted_hops: {hops}, escaped_slashes: {slashes}}}
  mtls: {{bind: '{MTLS}', tls: mesh}}
mesh:
  identity: {{cert: {directory}/own.pem, key: {directory}/own.key, roots: {directory}/ca.pem}}
  inbound:
    bind: 10.0.0.1:15006
    application: {application}
    ports: {{{ports}}}
    protocols: {{'81': tcp}}
    probes: [{{port: 80, path: /healthz}}, {{port: 8080, path: /a}}]
  outbound: {{bind: 10.0.0.1:15001, unknown: {unknown}, ports: {{'81': tcp}}}}
  intercept: {{exclude: {{inbound: {{ports: 9999}}, outbound: {{ports: 9999}}}}}}
jwt: {{id: {{issuer: https://id.example, jwks: {{url: http://127.0.0.1:9/keys}}}}}}
services:
  s0: {{versions: {{v1: ['10.0.1.1:80'], v2: ['10.0.1.2:80']}}}}
  s1: {{addresses: '10.9.0.1:80', endpoints: ['10.0.1.3:80']}}
  s2: {{endpoints: ['10.0.1.4:80'], jwt: id}}
  s3: {{protocol: tcp, addresses: '10.9.0.3:80', endpoints: ['10.0.1.5:80']}}
"
    );
    routes(random, &mut text);
    authorization(random, &mut text);
    Generated { text, modes }
}

fn routes(random: &mut Rng, text: &mut String) {
    text.push_str("routes:\n");
    let mut number = 0;
    for host in HOSTS {
        if random.u8(..3) == 0 && number > 0 {
            continue;
        }
        writeln!(text, "  '{host}':").unwrap();
        for _ in 0..random.usize(1..4) {
            // Only a rule without a path and with a service may name CONNECT.
            let rule = match random.u8(..5) {
                0 => format!("match: {{method: CONNECT}}, to: {}", to(random)),
                _ => format!("match: {{{}}}, {}", matches(random), action(random)),
            };
            writeln!(text, "    - {{name: r{number}, {rule}}}").unwrap();
            number += 1;
        }
    }
}

fn matches(random: &mut Rng) -> String {
    let mut parts = Vec::new();
    if random.u8(..4) > 0 {
        parts.push(format!("path: '{}'", of(random, &PATHS)));
    }
    if random.u8(..4) == 0 {
        parts.push(format!("method: {}", of(random, &METHODS)));
    }
    if random.u8(..4) == 0 {
        parts.push(format!("headers: {{x-canary: '{}'}}", of(random, &["1", "~1|2"])));
    }
    if random.u8(..5) == 0 {
        parts.push("query: {q: '1'}".to_owned());
    }
    parts.join(", ")
}

fn action(random: &mut Rng) -> String {
    match random.u8(..8) {
        0 => format!("redirect: {{path: /new, status: {}}}", of(random, &[301, 307])),
        1 => of(random, &["redirect: {scheme: https}", "redirect: {host: n.test}"]).to_owned(),
        2 => "redirect: {port: 8443}".to_owned(),
        3 => format!("respond: {{status: {}, body: gone}}", of(random, &[200, 410])),
        4 | 5 => {
            let rewrite = ["prefix: /z/", "path: /y", "host: h.test", "prefix: /, host: i.test"];
            format!("to: {}, rewrite: {{{}}}", to(random), of(random, &rewrite))
        }
        _ => format!("to: {}", to(random)),
    }
}

fn to(random: &mut Rng) -> String {
    let all = ["s0", "s0/v1", "s0/v2", "s1", "s1", "s2"];
    let one = of(random, &all);
    match random.u8(..3) {
        0 => {
            let other = all.iter().find(|it| it[..2] != one[..2]).unwrap();
            format!("{{{one}: {}, {other}: {}}}", random.u8(1..3), random.u8(1..3))
        }
        _ => one.to_owned(),
    }
}

fn authorization(random: &mut Rng, text: &mut String) {
    let rules = random.usize(..5);
    if rules == 0 {
        return;
    }
    text.push_str("authorization:\n");
    for number in 0..rules {
        let action = of(random, &["allow", "allow", "deny", "deny", "audit"]);
        let dry_run = action != "audit" && random.u8(..6) == 0;
        let mut parts = vec![format!("name: p{number}, action: {action}")];
        if dry_run {
            parts.push("dry_run: true".to_owned());
        }
        let (from, to) = (from(random), operation(random));
        if !from.is_empty() {
            parts.push(format!("from: {{{from}}}"));
        }
        if !to.is_empty() || from.is_empty() {
            let to = if to.is_empty() { "service: '*'".to_owned() } else { to };
            parts.push(format!("to: {{{to}}}"));
        }
        if random.u8(..6) == 0 {
            parts.push("when: {headers: {x-canary: '1'}}".to_owned());
        }
        writeln!(text, "  - {{{}}}", parts.join(", ")).unwrap();
    }
}

fn from(random: &mut Rng) -> String {
    let lists: [(&str, &[&str]); 5] = [
        ("identities", &["*/sa/web", "cluster.local/ns/shop/sa/shop"]),
        ("namespaces", &["web", "shop", "own"]),
        ("not_namespaces", &["web", "own"]),
        ("ips", &NETWORKS),
        ("forwarded_ips", &NETWORKS),
    ];
    fields(random, &lists)
}

fn operation(random: &mut Rng) -> String {
    let lists: [(&str, &[&str]); 9] = [
        ("service", &["s0", "s1", "s*", "mesh/*"]),
        ("ports", &["80", "8080", "8443"]),
        ("ips", &["10.0.5.0/24", "10.9.0.0/16"]),
        ("hosts", &["a.test", "*.test"]),
        ("methods", &["GET", "POST"]),
        ("not_methods", &["GET"]),
        ("paths", &["/a", "/a/*", "/x/*"]),
        ("not_paths", &["/a", "/healthz"]),
        ("not_hosts", &["a.test"]),
    ];
    fields(random, &lists).replace("'80'", "80").replace("'8080'", "8080").replace("'8443'", "8443")
}

fn fields(random: &mut Rng, lists: &[(&str, &[&str])]) -> String {
    let mut parts = Vec::new();
    for (name, values) in lists {
        if random.u8(..5) == 0
            && let Some(list) = some(random, values)
        {
            parts.push(format!("{name}: {list}"));
        }
    }
    parts.join(", ")
}

/// The listener of a request, with the original destination of a captured connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    Web,
    Mtls,
    Inbound,
    Outbound,
}

impl By {
    pub fn listener(self) -> &'static str {
        match self {
            Self::Web => "web",
            Self::Mtls => "mtls",
            Self::Inbound => "mesh.inbound",
            Self::Outbound => "mesh.outbound",
        }
    }
}

/// The original destinations of captured connections: endpoints, virtual addresses, unknown
/// addresses, a port of opaque bytes, an address of the proxy and an excluded port.
const INBOUND: [&str; 7] = [
    "10.0.1.1:80",
    "10.0.1.4:80",
    "10.0.5.5:8080",
    "10.0.5.5:8080",
    "10.0.5.5:81",
    WEB,
    "10.0.5.5:9999",
];
const OUTBOUND: [&str; 7] = [
    "10.9.0.1:80",
    "10.0.1.1:80",
    "10.0.7.1:80",
    "10.0.7.1:81",
    "10.9.0.3:80",
    "10.0.1.4:80",
    "10.0.7.1:9999",
];

/// A random request.
pub fn request(random: &mut Rng) -> (By, Asked) {
    let by = of(random, &[By::Web, By::Mtls, By::Inbound, By::Inbound, By::Outbound, By::Outbound]);
    let to = match by {
        By::Web => WEB,
        By::Mtls => MTLS,
        By::Inbound => of(random, &INBOUND),
        By::Outbound => of(random, &OUTBOUND),
    };
    let to: SocketAddr = to.parse().unwrap();
    let method = of(random, &["GET", "GET", "GET", "POST", "CONNECT"]).to_owned();
    let host = of(random, &["a.test", "A.test:80", "x.b.test", "c.test:81", "c.test", "d.test"]);
    let url = match &*method {
        "CONNECT" => format!("{}:80", host.split(':').next().unwrap()),
        _ => {
            let paths = ["/a", "/a/b", "/r12", "/x/../a", "/healthz", "/a%2fb", "//a", "/%zz", "/"];
            let query = of(random, &["", "", "?q=1"]);
            format!("http://{host}{}{query}", of(random, &paths))
        }
    };
    let all =
        ["x-canary: 1", "x-canary: 2", "x-forwarded-for: 203.0.113.9", "x-forwarded-proto: https"];
    let headers = all.iter().filter(|_| random.u8(..3) == 0).map(|it| (*it).to_owned()).collect();
    let identity = (random.u8(..3) > 0).then(|| of(random, &IDS).to_owned());
    let ip = Some(of(random, &["10.1.0.9", "10.2.0.9", "192.0.2.9"]).parse().unwrap());
    (by, Asked { headers, identity, ip, to: Some(to), method, url })
}
