//! The arguments of `ringway bench`, and the plan that is made from them.

use std::net::SocketAddr;
use std::net::ToSocketAddrs as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use http::Request;

use super::Error;
use super::link::Tls;

use crate::error::plain;

/// The arguments of `ringway bench`: the load to generate.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  \
    ringway bench http://127.0.0.1:8080/                    # 64 connections, full speed\n  \
    ringway bench http://127.0.0.1:8080/ --rate 5000 -d 30s   # the latency at that rate\n  \
    ringway bench http://127.0.0.1:8080/ --close -c 16          # a connection for each request\n  \
    ringway bench http://127.0.0.1:8080/ --idle 10000 -d 60s    # hold idle connections\n  \
    ringway bench https://127.0.0.1:8443/ --close           # a TLS handshake for each request\n  \
    ringway bench https://127.0.0.1:8443/ --http3 -c 10 -m 10   # 10 connections x 10 streams\n  \
    ringway bench --serve-tcp 127.0.0.1:9001                  # a server that echoes\n  \
    ringway bench --tcp 127.0.0.1:9000 --size 64              # ping-pong through a proxy to it\n  \
    ringway bench --serve-tcp 127.0.0.1:9002 --sink             # a server that swallows\n  \
    ringway bench --tcp 127.0.0.1:9003 --bulk -c 8              # a one-way stream to it\n\n\
    With --rate every request has its moment on a schedule, and its latency counts from that\n\
    moment, however late it is sent: a stall of the server is not hidden by the client waiting\n\
    for it. Exit code 1 when anything failed.")]
pub struct BenchArgs {
    /// The target: http://HOST:PORT/PATH, or https:// (any certificate is accepted), or HOST:PORT
    /// with --tcp.
    #[arg(required_unless_present = "serve_tcp", conflicts_with = "serve_tcp")]
    url: Option<String>,
    /// Use HTTP/2. Without TLS, the server must expect it.
    #[arg(long, conflicts_with_all = ["http3", "tcp", "idle"])]
    http2: bool,
    /// Use HTTP/3. The target must be https://.
    #[arg(long, conflicts_with_all = ["tcp", "idle"])]
    http3: bool,
    /// With --http2 or --http3: number of requests at the same time on each connection.
    #[arg(short = 'm', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    streams: Option<u32>,
    /// Number of connections in use at the same time.
    #[arg(short, long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// How long the load lasts: no request starts later. With --idle, how long the connections stay
    /// open.
    #[arg(short, long, default_value = "10s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// Requests per second, started on a schedule. Without it, each connection, or each of its
    /// streams, sends its next request after the answer to the last one.
    #[arg(short, long)]
    rate: Option<f64>,
    /// A header field, `name: value`. You may repeat it. `host` replaces the host of the URL.
    #[arg(short = 'H', long = "header")]
    headers: Vec<String>,
    /// Open a new connection for each request.
    #[arg(long, conflicts_with = "idle")]
    close: bool,
    /// The client certificate (PEM file), for a server that requests one.
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// The private key of the client certificate.
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// Resume TLS sessions. Without it, every connection makes a full handshake.
    #[arg(long, conflicts_with_all = ["http2", "http3"])]
    resume: bool,
    /// Open this many connections, send one request on each, and keep them idle.
    #[arg(long, value_name = "N", conflicts_with_all = ["rate", "tcp"])]
    idle: Option<u32>,
    /// Use plain TCP: send --size bytes and wait until the same number has come back.
    #[arg(long)]
    tcp: bool,
    /// Size of a TCP message in bytes.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    size: u32,
    /// With --tcp: send continuously. The server sends nothing but the end of the stream.
    #[arg(long, requires = "tcp", conflicts_with_all = ["rate", "close"])]
    bulk: bool,
    /// Time limit for an answer. After it, the request counts as failed.
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Print the report as one JSON object.
    #[arg(long)]
    pub(super) json: bool,
    /// Run as a TCP server on this address instead. It echoes received bytes.
    #[arg(long, value_name = "ADDRESS")]
    serve_tcp: Option<SocketAddr>,
    /// With --serve-tcp: discard received bytes.
    #[arg(long, requires = "serve_tcp")]
    sink: bool,
}

/// The plan of a run, which is made from the arguments.
pub(super) struct Plan {
    pub(super) work: Work,
    pub(super) load: Load,
}

/// The modes of `ringway bench`.
pub(super) enum Work {
    Serve { address: SocketAddr, sink: bool },
    Requests(Target),
    Streams(StreamTarget),
    Hold { target: Target, connections: u32 },
    Bulk(Target),
}

/// The target and the bytes to send.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// The target as the user wrote it, for messages.
    pub(super) name: String,
    pub(super) address: SocketAddr,
    /// The bytes of one request, or of one TCP message.
    pub(super) request: Vec<u8>,
    pub(super) protocol: Protocol,
    /// The TLS settings. `None` means plain text.
    pub(super) tls: Option<Tls>,
}

/// The target of requests over HTTP/2 or HTTP/3.
#[derive(Clone, Debug)]
pub(super) struct StreamTarget {
    /// The target as the user wrote it, for messages.
    pub(super) name: String,
    pub(super) address: SocketAddr,
    pub(super) request: Request<()>,
    pub(super) version: Version,
    /// The number of requests at once on each connection.
    pub(super) streams: u32,
    /// The TLS settings. `None` means plain text, which HTTP/3 does not have.
    pub(super) tls: Option<Tls>,
}

/// The version of HTTP with streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    Http2,
    Http3,
}

/// The protocol of the load. It determines which response is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    /// A TCP echo: the response has as many bytes as the request.
    Echo,
}

/// The amount and duration of the load.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    pub(super) connections: u32,
    pub(super) duration: Duration,
    /// The number of requests per second. `None` means that each connection, or each of its
    /// streams, sends its next request after the response to the previous one (closed loop).
    pub(super) rate: Option<f64>,
    pub(super) close: bool,
    pub(super) timeout: Duration,
}

impl BenchArgs {
    /// Makes the plan of the run. Checks the arguments that clap does not check, and resolves the
    /// name of the target.
    ///
    /// # Errors
    /// [`Error::Usage`]. Its text has the correction.
    pub(super) fn plan(&self) -> Result<Plan, Error> {
        let load = self.load()?;
        if let Some(address) = self.serve_tcp {
            return Ok(Plan { work: Work::Serve { address, sink: self.sink }, load });
        }
        let url = self.url.as_deref().unwrap_or_default();
        let version = match (self.http2, self.http3) {
            (_, true) => Some(Version::Http3),
            (true, _) => Some(Version::Http2),
            _ => None,
        };
        if let Some(version) = version {
            return Ok(Plan { work: Work::Streams(self.stream_target(url, version)?), load });
        }
        if self.streams.is_some() {
            return Err(usage("--streams: add --http2 or --http3".to_owned()));
        }
        let target = self.target(url)?;
        let work = match self.idle {
            Some(connections) => Work::Hold { target, connections },
            None if self.bulk => Work::Bulk(target),
            None => Work::Requests(target),
        };
        Ok(Plan { work, load })
    }

    fn load(&self) -> Result<Load, Error> {
        if let Some(rate) = self.rate
            && !(rate.is_finite() && (RATE_MIN..=RATE_MAX).contains(&rate))
        {
            return Err(usage(format!("--rate {rate}: write a number from {RATE_MIN} to 1000000")));
        }
        Ok(Load {
            connections: self.connections,
            duration: self.duration,
            rate: self.rate,
            close: self.close,
            timeout: self.timeout,
        })
    }

    fn target(&self, url: &str) -> Result<Target, Error> {
        if self.tcp {
            let host = url.strip_prefix("tcp://").unwrap_or(url);
            return Ok(Target {
                name: url.to_owned(),
                address: resolve(host, "add the port: --tcp 127.0.0.1:9000")?,
                request: vec![b'r'; self.size as usize],
                protocol: Protocol::Echo,
                tls: None,
            });
        }
        let parts = UrlParts::of(url)?;
        Ok(Target {
            name: url.to_owned(),
            address: parts.address()?,
            request: self.request(parts.host, &parts.path)?,
            protocol: Protocol::Http1,
            tls: parts.secure.then(|| self.tls(&parts, b"http/1.1")).transpose()?,
        })
    }

    fn stream_target(&self, url: &str, version: Version) -> Result<StreamTarget, Error> {
        let parts = UrlParts::of(url)?;
        if version == Version::Http3 && !parts.secure {
            return Err(usage(format!("{url:?}: HTTP/3 always uses TLS: write https://")));
        }
        let alpn: &[u8] = if version == Version::Http2 { b"h2" } else { b"h3" };
        let mut authority = parts.host.to_owned();
        let mut request = Request::builder();
        for (name, value) in self.fields()? {
            match name.eq_ignore_ascii_case("host") {
                true => value.clone_into(&mut authority),
                false => request = request.header(name.to_ascii_lowercase(), value),
            }
        }
        let scheme = if parts.secure { "https" } else { "http" };
        let request = request.uri(format!("{scheme}://{authority}{}", parts.path)).body(());
        Ok(StreamTarget {
            name: url.to_owned(),
            address: parts.address()?,
            request: request.map_err(|error| usage(format!("{url}: {error}")))?,
            version,
            streams: self.streams.unwrap_or(1),
            tls: parts.secure.then(|| self.tls(&parts, alpn)).transpose()?,
        })
    }

    fn tls(&self, url: &UrlParts<'_>, alpn: &[u8]) -> Result<Tls, Error> {
        let authority = url.with_port();
        let host = authority.rsplit_once(':').map_or(&*authority, |(host, _)| host);
        let own = self.cert.as_deref().zip(self.key.as_deref());
        Tls::new(host, own, self.resume, alpn).map_err(usage)
    }

    /// The bytes of one request of HTTP/1.1.
    fn request(&self, host: &str, path: &str) -> Result<Vec<u8>, Error> {
        let mut fields = String::new();
        let mut names_host = false;
        for (name, value) in self.fields()? {
            names_host |= name.eq_ignore_ascii_case("host");
            fields.push_str(&format!("{name}: {value}\r\n"));
        }
        let host = if names_host { String::new() } else { format!("host: {host}\r\n") };
        let close = if self.close { "connection: close\r\n" } else { "" };
        Ok(format!("GET {path} HTTP/1.1\r\n{host}{fields}{close}\r\n").into_bytes())
    }

    /// The names and values of `--header`.
    fn fields(&self) -> Result<Vec<(&str, &str)>, Error> {
        let clean = |text: &str| !text.chars().any(char::is_control);
        let mut fields = Vec::new();
        for header in &self.headers {
            match header.split_once(':').map(|(name, value)| (name.trim(), value.trim())) {
                Some((name, value)) if !name.is_empty() && clean(name) && clean(value) => {
                    fields.push((name, value));
                }
                _ => return Err(usage(format!("--header {header:?}: write 'name: value'"))),
            }
        }
        Ok(fields)
    }
}

/// The parts of the URL of the target.
struct UrlParts<'a> {
    secure: bool,
    /// The host, with its port if the URL has one.
    host: &'a str,
    /// The path with its query.
    path: String,
}

impl<'a> UrlParts<'a> {
    fn of(url: &'a str) -> Result<Self, Error> {
        let (rest, secure) = match (url.strip_prefix("http://"), url.strip_prefix("https://")) {
            (Some(rest), _) => (rest, false),
            (_, Some(rest)) => (rest, true),
            _ => {
                let advice = "is not http://HOST:PORT/PATH or https://; for TCP add --tcp";
                return Err(usage(format!("{url:?} {advice}")));
            }
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (host, path) = rest.split_at(end);
        let path = path.split('#').next().unwrap_or_default();
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let bytes_ok = path.bytes().chain(host.bytes()).all(|byte| byte.is_ascii_graphic());
        if host.is_empty() || host.contains('@') || !bytes_ok {
            return Err(usage(format!("{url:?}: write http://HOST:PORT/PATH, encoded, no user")));
        }
        Ok(Self { secure, host, path })
    }

    fn with_port(&self) -> String {
        let has_port = self.host.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
        match (has_port, self.secure) {
            (true, _) => self.host.to_owned(),
            (_, true) => format!("{}:443", self.host),
            (_, false) => format!("{}:80", self.host),
        }
    }

    fn address(&self) -> Result<SocketAddr, Error> {
        resolve(&self.with_port(), "write http://HOST:PORT/PATH")
    }
}

const RATE_MIN: f64 = 0.01;
const RATE_MAX: f64 = 1e6;

#[allow(clippy::disallowed_methods)] // a command may block on DNS
fn resolve(host: &str, advice: &str) -> Result<SocketAddr, Error> {
    let found = host
        .to_socket_addrs()
        .map_err(|error| usage(format!("{host}: {}; {advice}", plain(&error))));
    found?.next().ok_or_else(|| usage(format!("{host} has no address")))
}

fn usage(text: String) -> Error {
    Error::Usage(text)
}
