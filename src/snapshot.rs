//! A compiled configuration as the workers use it: immutable, shared by `Arc`.
//!
//! Building a snapshot resolves all that a request needs: names become indices, patterns are
//! compiled and counters are looked up. An exchange keeps only a few values of its snapshot.

use std::collections::HashSet;
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
use crate::mesh::{Capture, Direction, EndpointAddresses};
use crate::message;
use crate::net::{Bind, TcpLiveness};
use crate::resilience::{RateLimit, Sources};
use crate::route::{Rule, Shift, Table};
use crate::tls::reason::Failure;
use crate::tls::{CertificateInfo, ServerTls};

/// One applied configuration.
#[derive(Debug)]
pub struct Snapshot {
    /// The number of the attempt to apply this configuration, from 1.
    pub version: u64,
    /// All listeners, sorted by name.
    pub listeners: Vec<Arc<Listener>>,
    /// All services, sorted by name. Destinations are indices into this.
    pub services: Vec<Arc<Service>>,
    /// The services by the addresses of their endpoints. `None` means that no traffic is captured.
    pub endpoint_addresses: Option<Arc<EndpointAddresses>>,
    /// All rules, by their index.
    pub rules: Vec<Arc<Rule>>,
    /// All rate limits.
    pub rate_limits: Vec<Arc<RateLimit>>,
    /// All shifts.
    pub shifts: Vec<Arc<Shift>>,
    /// The authorization rules.
    pub authorization: Policies,
    /// Limits on peers.
    pub limits: Limits,
    /// How the process drains.
    pub drain: Drain,
    /// The access log. `None` means that it is off.
    pub access_log: Option<AccessLog>,
    /// The certificates in use, for operators.
    pub certificates: Vec<CertificateInfo>,
    /// Token issuers, for operators.
    pub jwt_providers: Vec<Arc<Provider>>,
}

impl Snapshot {
    /// Each rule that a listener uses, once.
    pub fn used_rules(&self) -> impl Iterator<Item = &Arc<Rule>> {
        let mut seen = HashSet::new();
        let all = self.listeners.iter().flat_map(|listener| {
            let named = listener.routes().into_iter().flat_map(Table::rules);
            named.chain(listener.capture().into_iter().flat_map(|capture| capture.own_rules()))
        });
        all.filter(move |rule| seen.insert(Arc::as_ptr(rule)))
    }

    /// A snapshot that serves nothing, with version 0.
    pub fn empty() -> Self {
        Self {
            version: 0,
            listeners: Vec::new(),
            services: Vec::new(),
            endpoint_addresses: None,
            rules: Vec::new(),
            rate_limits: Vec::new(),
            shifts: Vec::new(),
            authorization: Policies::default(),
            limits: Limits::default(),
            drain: Drain::default(),
            access_log: None,
            certificates: Vec::new(),
            jwt_providers: Vec::new(),
        }
    }

    /// Whether the path of a request must be normalised, because authorization or tokens depend on
    /// it.
    pub fn is_guarded(&self) -> bool {
        !self.authorization.is_empty() || !self.jwt_providers.is_empty()
    }

    /// All services, including those for unknown original destinations.
    pub fn all_services(&self) -> impl Iterator<Item = &Arc<Service>> {
        let captures = self.listeners.iter().filter_map(|listener| listener.capture());
        self.services.iter().chain(captures.map(|capture| &capture.passthrough))
    }

    /// Replaces the endpoints of the service at `index`. Returns the added and removed
    /// addresses, or nothing if no traffic is captured.
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
        self.service_index(name).map(|index| &self.services[index])
    }

    /// The index of the service called `name`.
    pub fn service_index(&self, name: &str) -> Option<usize> {
        self.services.binary_search_by(|service| (*service.name).cmp(name)).ok()
    }

    /// The listener called `name`.
    pub fn listener(&self, name: &str) -> Option<&Arc<Listener>> {
        let found = self.listeners.binary_search_by(|listener| (*listener.name).cmp(name));
        found.ok().map(|index| &self.listeners[index])
    }
}

/// How the process drains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// How long the whole drain may take. Connections of removed listeners have this time, too.
    pub limit: Duration,
    /// How long outbound listeners keep accepting.
    pub outbound: OutboundDrain,
}

impl Default for Drain {
    fn default() -> Self {
        let outbound = OutboundDrain::AfterInbound { min: Duration::ZERO };
        Self { limit: Duration::from_secs(30), outbound }
    }
}

/// How long outbound listeners accept during a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutboundDrain {
    /// They drain together with the inbound listeners.
    WithInbound,
    /// They accept until the last inbound connection has closed, and for this time at least.
    AfterInbound {
        /// The time from the start of the drain.
        min: Duration,
    },
}

/// A step of a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrainStep {
    /// All listeners except the outbound ones drain.
    Inbound,
    /// All listeners drain.
    All,
}

/// The treatment of connections at a listener.
#[derive(Clone, Debug)]
pub enum Serves {
    /// HTTP, by these routes.
    Http(Arc<Table>),
    /// Opaque bytes to one service.
    Tcp(Destination),
    /// TLS passthrough. The server name selects the route.
    Tls(Arc<Table>),
    /// Captured connections.
    Captured(Arc<Capture>),
}

/// A listener.
#[derive(Debug)]
pub struct Listener {
    /// The name in the configuration.
    pub name: Box<str>,
    /// The addresses; at least one.
    pub binds: Vec<Bind>,
    /// Whether its clients are the workload beside the proxy.
    pub direction: Direction,
    /// The treatment of connections.
    pub serves: Serves,
    /// TLS. `None` means plain text.
    pub tls: Option<Arc<ServerTls>>,
    /// Whether HTTP/1 is supported.
    pub http1: bool,
    /// The settings of HTTP/2. `None` means that it is off.
    pub http2: Option<Settings>,
    /// Whether each connection must begin with a PROXY protocol header.
    pub proxy_protocol: bool,
    /// The number of proxies in front of this one whose forwarded fields are trusted.
    pub trusted_hops: u32,
    /// The treatment of `x-forwarded-client-cert`.
    pub forward_client_cert: ForwardClientCert,
    /// Whether requests without `x-request-id` get one.
    pub request_id: bool,
    /// The pseudonym of RFC 9110 7.6.3 to add to `via`, if any.
    pub via: Option<Box<str>>,
    /// The treatment of escaped slashes in request paths.
    pub escaped_slashes: EscapedSlashes,
    /// Whether a client that has closed its sending side counts as disconnected. `None` means: only
    /// if its request asked for a persistent connection.
    pub abort_on_close: Option<bool>,
    /// The maximum number of open connections, over all workers.
    pub connections_max: u32,
    /// The limit on open connections from one client address, over all workers.
    pub per_source: Option<PerSource>,
    /// The number of requests after which a connection closes.
    pub requests_max: u32,
    /// The limit on requests.
    pub rate_limit: Option<Arc<RateLimit>>,
    /// Time limits.
    pub timeouts: Timeouts,
    /// How the kernel detects that a client is gone.
    pub liveness: TcpLiveness,
    /// The counters. They survive reloads while the name stays the same.
    pub stats: Arc<PerWorker<ListenerCells>>,
}

impl Listener {
    /// The routes by host, for HTTP requests and TLS passthrough.
    pub fn routes(&self) -> Option<&Table> {
        match &self.serves {
            Serves::Http(table) | Serves::Tls(table) => Some(table),
            Serves::Captured(capture) => Some(&capture.routes),
            Serves::Tcp(_) => None,
        }
    }

    /// Whether its clients are the workload beside the proxy. It then drains last.
    pub fn is_outbound(&self) -> bool {
        self.direction == Direction::Outbound
    }

    /// The capture settings, if this is a capturing listener.
    pub fn capture(&self) -> Option<&Arc<Capture>> {
        match &self.serves {
            Serves::Captured(capture) => Some(capture),
            _ => None,
        }
    }

    /// A number that changes when the trust settings for clients change. Returns `None` without
    /// TLS.
    pub fn tls_terms(&self) -> Option<u64> {
        self.tls.as_ref().map(|tls| tls.terms)
    }
}

/// A limit on the open connections from one client address.
#[derive(Clone, Debug)]
pub struct PerSource {
    /// The maximum.
    pub max: u32,
    /// The connections. They survive reloads while the listener has a limit.
    pub sources: Arc<Sources>,
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

/// Time limits for clients. [`NO_LIMIT`](crate::time::NO_LIMIT) means none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From accept to the end of the TLS handshake.
    pub handshake: Duration,
    /// From the first byte of a request head (or accept) to its end. It also limits a PROXY header.
    pub header: Duration,
    /// Without a byte of a body in either direction. Rules may override it.
    pub body_idle: Duration,
    /// From the end of a response to the first byte of the next request.
    pub keep_alive: Duration,
    /// Without a byte in either direction of a tunnel or TCP connection.
    pub tcp_idle: Duration,
}

/// Limits on peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The maximum number of open connections, over all listeners and workers.
    pub connections: u32,
    /// The maximum number of mirrored requests that a worker has in progress.
    pub mirrored_requests: u32,
    /// Limits on the parts of a message.
    pub message: message::Limits,
    /// Limits on HTTP/2 frames that carry no message data.
    pub http2: FloodLimits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 100_000,
            mirrored_requests: 256,
            message: message::Limits::default(),
            http2: FloodLimits::default(),
        }
    }
}

/// The access log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLog {
    /// The target of the lines.
    pub sink: LogSink,
    /// The lines.
    pub lines: LogLines,
}

/// The lines of an access log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLines {
    /// The format of the lines.
    pub format: LogFormat,
    /// The exchanges that get a line.
    pub filter: LogFilter,
}

/// The exchanges that get a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFilter {
    /// All exchanges.
    All,
    /// Exchanges that failed: with a response flag, a status of 5xx, a gRPC status of a server
    /// error, or without a complete response.
    Failed,
}

/// A target of log lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogSink {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file. Lines are appended.
    File(PathBuf),
}

/// The format of an access log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// Envoy's default text format.
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
    /// Connections closed at once because their client had too many.
    pub source_overflow: Count,
    /// Refused request heads, PROXY headers and TLS ClientHellos.
    pub refused: Count,
    /// Full TLS handshakes.
    pub tls_handshakes: Count,
    /// TLS handshakes that resumed a session.
    pub tls_resumed: Count,
    /// Connections closed, and HTTP/2 streams reset, because a certificate was revoked.
    pub revoked: Count,
    /// Failed TLS handshakes, by `Failure::index`.
    pub tls_failures: [Count; Failure::ALL.len()],
    /// HTTP/2 connections closed at a limit, by `Flood::index`.
    pub http2_floods: [Count; Flood::ALL.len()],
    /// Body bytes from clients.
    pub received_bytes: Count,
    /// Body bytes to clients.
    pub sent_bytes: Count,
}
