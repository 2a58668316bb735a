//! A configuration as the workers see it: compiled, immutable, shared by `Arc`.
//!
//! Everything a request needs was resolved when the snapshot was built: names are indices,
//! patterns are compiled, counters are at hand. A worker keeps the snapshot that an exchange began
//! with until that exchange is over.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::authz::{EscapedSlashes, Policies};
use crate::cells::{Count, PerWorker};
use crate::cluster::{Destination, Endpoints, Service};
use crate::http2::Flood;
use crate::http2::{FloodLimits, Settings};
use crate::jwt::Provider;
use crate::mesh::{Capture, EndpointAddresses};
use crate::message;
use crate::net::Bind;
use crate::route::{Rule, Table};
use crate::tls::reason::Failure;
use crate::tls::{CertificateInfo, ServerTls};

/// One applied configuration.
#[derive(Debug)]
pub struct Snapshot {
    /// Counts applied configurations, from 1.
    pub version: u64,
    /// Listeners, in order of name.
    pub listeners: Vec<Arc<Listener>>,
    /// Services, in order of name; destinations index into it.
    pub services: Vec<Arc<Service>>,
    /// Which service has an endpoint at an address; `None` where no traffic is captured.
    pub endpoint_addresses: Option<Arc<EndpointAddresses>>,
    /// All rules, at the place that each has as its index.
    pub rules: Vec<Arc<Rule>>,
    /// Who may do what.
    pub authorization: Policies,
    /// Limits on what a client may send.
    pub limits: Limits,
    /// How long connections may finish when they are drained.
    pub drain: Duration,
    /// Where and how exchanges are logged; `None` when they are not.
    pub access_log: Option<AccessLog>,
    /// Our own certificates in use, for operators.
    pub certificates: Vec<CertificateInfo>,
    /// Issuers of tokens, for operators.
    pub jwt_providers: Vec<Arc<Provider>>,
}

impl Snapshot {
    /// A snapshot that serves nothing, with version 0.
    pub fn empty() -> Self {
        Self {
            version: 0,
            listeners: Vec::new(),
            services: Vec::new(),
            endpoint_addresses: None,
            rules: Vec::new(),
            authorization: Policies::default(),
            limits: Limits::default(),
            drain: Duration::from_secs(30),
            access_log: None,
            certificates: Vec::new(),
            jwt_providers: Vec::new(),
        }
    }

    /// Whether it depends on its path what a request may do: then there must be one spelling of it.
    pub fn is_guarded(&self) -> bool {
        !self.authorization.is_empty() || !self.jwt_providers.is_empty()
    }

    /// The services, and what stands for the destinations of captured connections that none of them
    /// names.
    pub fn all_services(&self) -> impl Iterator<Item = &Arc<Service>> {
        let captures = self.listeners.iter().filter_map(|listener| listener.capture());
        self.services.iter().chain(captures.map(|capture| &capture.passthrough))
    }

    /// Replaces the endpoints of the service at `index`. Returns the addresses that came or went;
    /// none where no traffic is captured.
    pub fn replace_endpoints(&self, index: usize, endpoints: Arc<Endpoints>) -> Vec<SocketAddr> {
        let set = &self.services[index].endpoints;
        let Some(addresses) = &self.endpoint_addresses else {
            set.replace(endpoints);
            return Vec::new();
        };
        let old = set.load();
        addresses.replace(index as u32, &old, endpoints, |endpoints| {
            set.replace(endpoints);
        })
    }

    /// The service called `name`.
    pub fn service(&self, name: &str) -> Option<&Arc<Service>> {
        let found = self.services.binary_search_by(|service| (*service.name).cmp(name));
        found.ok().map(|index| &self.services[index])
    }

    /// The listener called `name`.
    pub fn listener(&self, name: &str) -> Option<&Arc<Listener>> {
        let found = self.listeners.binary_search_by(|listener| (*listener.name).cmp(name));
        found.ok().map(|index| &self.listeners[index])
    }
}

/// What a listener does with a connection.
#[derive(Clone, Debug)]
pub enum Serves {
    /// HTTP/1, by these routes.
    Http(Arc<Table>),
    /// Bytes to one service.
    Tcp(Destination),
    /// TLS that is not terminated here, by the name that the client asks for.
    Tls(Arc<Table>),
    /// Connections that were meant for others.
    Captured(Arc<Capture>),
}

/// A listener.
#[derive(Debug)]
pub struct Listener {
    /// Its name in the configuration.
    pub name: Box<str>,
    /// Where it listens; at least one.
    pub binds: Vec<Bind>,
    /// What it does.
    pub serves: Serves,
    /// TLS; `None` for plain text.
    pub tls: Option<Arc<ServerTls>>,
    /// Whether HTTP/1 is spoken.
    pub http1: bool,
    /// How HTTP/2 is spoken; `None` where it is not.
    pub http2: Option<Settings>,
    /// Whether each connection begins with a PROXY protocol header (required then).
    pub proxy_protocol: bool,
    /// Proxies before us whose forwarded fields are believed.
    pub trusted_hops: u32,
    /// What services are told of client certificates.
    pub forward_client_cert: ForwardClientCert,
    /// Whether requests without `x-request-id` get one.
    pub request_id: bool,
    /// The pseudonym of RFC 9110 7.6.3 to add to `via`, if any.
    pub via: Option<Box<str>>,
    /// What becomes of escaped slashes in the paths of requests.
    pub escaped_slashes: EscapedSlashes,
    /// Connections open at once, over all workers.
    pub connections_max: u32,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// Its counters; the same ones across reloads as long as the name stays.
    pub stats: Arc<PerWorker<ListenerCells>>,
}

impl Listener {
    /// The rules for what names a host: HTTP requests, and clients of TLS that is passed on.
    pub fn routes(&self) -> Option<&Table> {
        match &self.serves {
            Serves::Http(table) | Serves::Tls(table) => Some(table),
            Serves::Captured(capture) => Some(&capture.routes),
            Serves::Tcp(_) => None,
        }
    }

    /// What it does with captured connections, if it gets any.
    pub fn capture(&self) -> Option<&Arc<Capture>> {
        match &self.serves {
            Serves::Captured(capture) => Some(capture),
            _ => None,
        }
    }

    /// On what terms clients are trusted; `None` in the clear.
    pub fn tls_terms(&self) -> Option<u64> {
        self.tls.as_ref().map(|tls| tls.terms)
    }
}

/// The treatment of `x-forwarded-client-cert`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForwardClientCert {
    /// Remove it.
    #[default]
    Sanitize,
    /// Add the client's certificate to the field of a client that has a certificate.
    Append,
    /// Replace it with the client's certificate.
    Set,
}

/// How long a client may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From the accept to the end of the TLS handshake.
    pub handshake: Duration,
    /// From the first byte of a request head (or the accept) to its end. Also for a PROXY header.
    pub header: Duration,
    /// Between two portions of a body, in either direction.
    pub body_idle: Duration,
    /// From the end of a response to the first byte of the next request.
    pub keep_alive: Duration,
    /// Without a byte in either direction of a tunnel or TCP stream.
    pub tcp_idle: Duration,
}

/// Limits on what peers may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections open at once, over all listeners and workers.
    pub connections: u32,
    /// The size of a message's parts.
    pub message: message::Limits,
    /// What a peer of HTTP/2 may send besides messages.
    pub http2: FloodLimits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 100_000,
            message: message::Limits::default(),
            http2: FloodLimits::default(),
        }
    }
}

/// The access log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLog {
    /// Where it goes.
    pub sink: LogSink,
    /// How a line looks.
    pub format: LogFormat,
}

/// Where log lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogSink {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file that is appended to.
    File(PathBuf),
}

/// How an access log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// Envoy's default line.
    Text,
}

/// The counters of one listener, for one worker.
#[derive(Debug, Default)]
pub struct ListenerCells {
    /// Connections accepted.
    pub connections: Count,
    /// Connections open now (gauge).
    pub active: Count,
    /// Connections closed at once because a limit was reached.
    pub overflow: Count,
    /// Requests refused before a route was looked up (bad syntax, limits, header timeout).
    pub refused: Count,
    /// Full TLS handshakes.
    pub tls_handshakes: Count,
    /// TLS handshakes that went on from an earlier connection.
    pub tls_resumed: Count,
    /// Connections cut because a peer's certificate was revoked.
    pub revoked: Count,
    /// TLS handshakes refused, by kind of failure.
    pub tls_failures: [Count; Failure::ALL.len()],
    /// Connections of HTTP/2 ended at a limit, by `Flood::index`.
    pub http2_floods: [Count; Flood::ALL.len()],
    /// Bytes read from clients.
    pub received_bytes: Count,
    /// Bytes written to clients.
    pub sent_bytes: Count,
}
