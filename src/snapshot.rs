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
use crate::http3;
use crate::jwt::{Provider, Requirement};
use crate::mesh::{Capture, Direction, EndpointAddresses, Passed};
use crate::message;
use crate::net::{Bind, TcpLiveness};
use crate::observe::{Export, Filter, Format, Tracing, Wanted};
use crate::quic::{Keys, ServerQuic};
use crate::resilience::{GlobalLimit, LimitList, RateLimits, Sources};
pub use crate::resilience::{
    Level, Overload, OverloadTerms, Pressure, Priority, PriorityBy, Resource, Watched,
};
use crate::route::{Rule, Shift, Table};
use crate::standard::Standard;
use crate::tls::reason::Failure;
use crate::tls::{CertificateInfo, ServerTls};

/// A compiled configuration that was applied, or is being applied.
#[derive(Debug)]
pub struct Snapshot {
    /// The number of the attempt to apply a configuration, from 1.
    pub version: u64,
    /// All listeners, sorted by name.
    pub listeners: Vec<Arc<Listener>>,
    /// All services, sorted by name. Destinations are indices into this.
    pub services: Vec<Arc<Service>>,
    /// The TCP addresses of the admin interface and the resolver. No captured traffic goes there.
    pub reserved: Vec<SocketAddr>,
    /// The services by the addresses of their endpoints. `None` means that no traffic is captured.
    pub endpoint_addresses: Option<Arc<EndpointAddresses>>,
    /// All route rules, by their index.
    pub rules: Vec<Arc<Rule>>,
    /// All rate limits of listeners, services and rules.
    pub rate_limits: RateLimits,
    /// All shifts.
    pub shifts: Vec<Arc<Shift>>,
    /// The authorization rules.
    pub authorization: Policies,
    /// Limits on what peers may do.
    pub limits: Limits,
    /// The settings of overload protection.
    pub overload: OverloadTerms,
    /// The header field that determines the priority of a request. `None` means that only rules set
    /// it.
    pub priority: Option<PriorityBy>,
    /// How the process drains its connections.
    pub drain: Drain,
    /// The access log. `None` means that it is switched off.
    pub access_log: Option<AccessLog>,
    /// The settings of tracing. `None` means that there is none.
    pub tracing: Option<Tracing>,
    /// Istio's standard metrics. `None` means that they are off.
    pub standard: Option<Arc<Standard>>,
    /// Whether the durations of requests to services are shown in exponential buckets.
    pub exponential_buckets: bool,
    /// The certificates in use, for display to operators.
    pub certificates: Vec<CertificateInfo>,
    /// The token issuers, for display to operators.
    pub jwt_providers: Vec<Arc<Provider>>,
}

impl Snapshot {
    /// Returns each rule that a listener uses, once.
    pub fn used_rules(&self) -> impl Iterator<Item = &Arc<Rule>> {
        let mut seen = HashSet::new();
        let all = self.listeners.iter().flat_map(|listener| {
            let named = listener.routes().into_iter().flat_map(Table::rules);
            named.chain(listener.capture().into_iter().flat_map(|capture| capture.own_rules()))
        });
        all.filter(move |rule| seen.insert(Arc::as_ptr(rule)))
    }

    /// Creates a snapshot without listeners and services, with version 0.
    pub fn empty() -> Self {
        Self {
            version: 0,
            listeners: Vec::new(),
            services: Vec::new(),
            reserved: Vec::new(),
            endpoint_addresses: None,
            rules: Vec::new(),
            rate_limits: RateLimits::default(),
            shifts: Vec::new(),
            authorization: Policies::default(),
            limits: Limits::default(),
            overload: OverloadTerms::default(),
            priority: None,
            drain: Drain::default(),
            access_log: None,
            tracing: None,
            standard: None,
            exponential_buckets: false,
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

    /// Replaces the endpoints of the service at `index`. Returns the addresses that were added or
    /// removed, or nothing if no traffic is captured.
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

    /// The index of the service called `name` in `services`.
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
    /// The time limit of the complete drain. Connections of removed listeners have this time, too.
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

/// How long outbound listeners keep accepting during a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutboundDrain {
    /// Outbound listeners drain together with the inbound ones.
    WithInbound,
    /// Outbound listeners accept until the last inbound connection has closed, and at least for
    /// this time.
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

/// How a listener serves its connections.
#[derive(Clone, Debug)]
pub enum Serves {
    /// Serve HTTP, by these routes.
    Http(Arc<Table>),
    /// Forward opaque bytes to one service.
    Tcp(Destination),
    /// Forward TLS without decrypting it (passthrough). The server name selects the route.
    Tls(Arc<Table>),
    /// Forward QUIC without decrypting it. The server name selects the route.
    Quic(Arc<Passed>),
    /// Serve captured connections.
    Captured(Arc<Capture>),
}

/// A compiled listener.
#[derive(Debug)]
pub struct Listener {
    /// The name of the listener in the configuration.
    pub name: Box<str>,
    /// The addresses or sockets at which it listens; at least one.
    pub binds: Vec<Bind>,
    /// The direction. The clients of an outbound listener are workloads on this host.
    pub direction: Direction,
    /// How the listener serves its connections.
    pub serves: Serves,
    /// The TLS settings. `None` means that connections do not use TLS.
    pub tls: Option<Arc<ServerTls>>,
    /// Whether HTTP/1 is supported.
    pub http1: bool,
    /// The settings of HTTP/2. `None` means that HTTP/2 is not supported.
    pub http2: Option<Settings>,
    /// The settings of HTTP/3. `None` means that HTTP/3 is not served.
    pub http3: Option<Http3>,
    /// Whether each connection must begin with a PROXY protocol header.
    pub proxy_protocol: bool,
    /// The number of proxies in front of this one whose forwarded fields are trusted.
    pub trusted_hops: u32,
    /// How `x-forwarded-client-cert` is handled.
    pub forward_client_cert: ForwardClientCert,
    /// Whether requests without `x-request-id` get this field.
    pub request_id: bool,
    /// The pseudonym to add to `via` (RFC 9110 7.6.3). `None` means that `via` is not added.
    pub via: Option<Box<str>>,
    /// How percent-encoded slashes in request paths are handled.
    pub escaped_slashes: EscapedSlashes,
    /// Whether a client that has closed its sending side counts as disconnected. `None` means: only
    /// if its request asked for a persistent connection.
    pub abort_on_close: Option<bool>,
    /// The maximum number of open connections, over all workers.
    pub connections_max: u32,
    /// The limit on open connections from one client address, over all workers.
    pub per_source: Option<PerSource>,
    /// The number of requests after which a connection is closed.
    pub requests_max: u32,
    /// The rate limit on requests.
    pub rate_limits: LimitList,
    /// The limit that a rate limit service counts.
    pub global_limit: Option<Arc<GlobalLimit>>,
    /// The time limits for clients.
    pub timeouts: Timeouts,
    /// How the kernel detects a dead TCP peer.
    pub liveness: TcpLiveness,
    /// The token requirement of requests whose rule and service have none.
    pub jwt: Option<Arc<Requirement>>,
    /// The counters. They are kept over reloads while the name stays the same.
    pub stats: Arc<PerWorker<ListenerCells>>,
}

impl Listener {
    /// The routes by host, for HTTP requests and TLS passthrough. `None` for a TCP listener.
    pub fn routes(&self) -> Option<&Table> {
        match &self.serves {
            Serves::Http(table) | Serves::Tls(table) => Some(table),
            Serves::Captured(capture) => Some(&capture.routes),
            Serves::Quic(passed) => Some(&passed.routes),
            Serves::Tcp(_) => None,
        }
    }

    /// Whether the clients of the listener are workloads on this host. The listener then drains
    /// last.
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

    /// A number that changes when the trust settings for clients change. `None` without TLS.
    pub fn tls_terms(&self) -> Option<u64> {
        self.tls.as_ref().map(|tls| tls.terms)
    }
}

/// The settings of a listener for HTTP/3.
#[derive(Clone, Debug)]
pub struct Http3 {
    /// The settings of the handshake and the transport.
    pub server: ServerQuic,
    /// The keys of stateless resets and tokens. All listeners have the same.
    pub keys: Keys,
    /// The value of `alt-svc` in responses over TCP. `None` means that it is not added.
    pub alt_svc: Option<Box<str>>,
    /// How many streams a client may have open.
    pub streams_max: u32,
    /// When a client must prove its address.
    pub retry: Retry,
    /// The maximum number of handshakes in progress on a worker.
    pub handshakes_max: u32,
    /// Whether safe requests are served before the handshake is complete.
    pub early_data: bool,
}

/// When a client must prove its address before its handshake costs anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// While many handshakes are in progress.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// A limit on the open connections from one client address.
#[derive(Clone, Debug)]
pub struct PerSource {
    /// The maximum number of connections from one address.
    pub max: u32,
    /// The open connections, by address. They are kept over reloads while the listener has a limit.
    pub sources: Arc<Sources>,
}

/// How `x-forwarded-client-cert` is handled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForwardClientCert {
    /// Remove the field.
    #[default]
    Sanitize,
    /// If the client has a certificate, append the certificate to the field.
    Append,
    /// Replace the field with the client's certificate.
    Set,
}

/// Time limits for clients. [`NO_LIMIT`](crate::time::NO_LIMIT) means no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// The maximum time from accept to the end of the TLS handshake.
    pub handshake: Duration,
    /// The maximum time from the first byte of a request head (or from accept) to its end. It also
    /// limits a PROXY header.
    pub header: Duration,
    /// The maximum pause within the body of a request, until the response begins. Rules may
    /// override it.
    pub request_body: Duration,
    /// The maximum time in which no byte of an exchange passes, in either direction. `None` means
    /// the default, [`STREAM_IDLE`]. Rules and services may override it.
    pub stream_idle: Option<Duration>,
    /// The maximum time from the end of a response to the first byte of the next request.
    pub keep_alive: Duration,
    /// The maximum time without a byte in either direction of a tunnel or TCP connection.
    pub tcp_idle: Duration,
}

impl Timeouts {
    /// The maximum time for which a peer reads nothing, although bytes wait for it.
    pub fn stalled(&self) -> Duration {
        self.stream_idle.unwrap_or(STREAM_IDLE)
    }
}

/// The default of `stream_idle_timeout`, as in Envoy.
pub const STREAM_IDLE: Duration = Duration::from_secs(300);

/// Limits on what peers may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The maximum number of open connections, over all listeners and workers.
    pub connections: u32,
    /// The maximum number of bytes of all buffers. `None` means a part of the memory.
    pub buffer_bytes: Option<usize>,
    /// The maximum number of mirrored requests that one worker has in progress.
    pub mirrored_requests: u32,
    /// Limits on the parts of a message.
    pub message: message::Limits,
    /// Limits on floods of HTTP/2 frames.
    pub http2: FloodLimits,
    /// Limits on floods of HTTP/3 frames.
    pub http3: http3::FloodLimits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 100_000,
            buffer_bytes: None,
            mirrored_requests: 256,
            message: message::Limits::default(),
            http2: FloodLimits::default(),
            http3: http3::FloodLimits::default(),
        }
    }
}

/// The settings of the access log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLog {
    /// Where the lines are written.
    pub sink: LogSink,
    /// The format of the lines, and which exchanges get a line.
    pub lines: Arc<LogLines>,
}

/// The format of the access log lines, and which exchanges get a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLines {
    /// The format of the lines.
    pub format: Format,
    /// Which exchanges get a line.
    pub filter: LogFilter,
    /// The share of the exchanges without a failure that gets a line, in millionths. `None` means
    /// all.
    pub sample: Option<u32>,
    /// The header fields that the format and the filter read.
    pub wanted: Wanted,
}

/// Which exchanges get an access log line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogFilter {
    /// All exchanges.
    All,
    /// Exchanges that failed: with a response flag, a status of 5xx, a gRPC status of a server
    /// error, or without a complete response.
    Failed,
    /// Exchanges that this filter accepts.
    Only(Filter),
}

/// Where log lines are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogSink {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file, to which lines are appended.
    File(PathBuf),
    /// The syslog daemon that listens on this Unix datagram socket (RFC 5424).
    Syslog(PathBuf),
    /// A collector, which gets the lines as log records of OTLP.
    Otlp(Export),
}

/// The counters of one listener, for one worker.
#[derive(Debug, Default)]
pub struct ListenerCells {
    /// Connections accepted.
    pub connections: Count,
    /// Connections open now (gauge).
    pub active: Count,
    /// Connections that were closed at once because a limit on connections was reached.
    pub overflow: Count,
    /// Connections that were closed at once because their client address had too many.
    pub source_overflow: Count,
    /// Refused request heads, PROXY headers and TLS ClientHellos.
    pub refused: Count,
    /// Full TLS handshakes.
    pub tls_handshakes: Count,
    /// TLS handshakes that resumed a session.
    pub tls_resumed: Count,
    /// Connections that were closed, and HTTP/2 streams that were reset, because a certificate was
    /// revoked.
    pub revoked: Count,
    /// Failed TLS handshakes, by `Failure::index`.
    pub tls_failures: [Count; Failure::ALL.len()],
    /// HTTP/2 connections that were closed because the client exceeded a limit, by `Flood::index`.
    pub http2_floods: [Count; Flood::ALL.len()],
    /// HTTP/3 connections closed because their peer exceeded a limit, by `Flood::index`.
    pub http3_floods: [Count; http3::Flood::ALL.len()],
    /// QUIC clients that were asked to prove their address.
    pub quic_retries: Count,
    /// Requests in early data (0-RTT), served before the handshake was complete.
    pub early_requests: Count,
    /// Requests in early data that had to wait for the end of the handshake.
    pub early_held: Count,
    /// Bytes of bodies received from clients.
    pub received_bytes: Count,
    /// Bytes of bodies sent to clients.
    pub sent_bytes: Count,
}
