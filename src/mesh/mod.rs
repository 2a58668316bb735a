//! The compiled configuration of captured traffic: targets, admission and limits. Pure: no I/O, no
//! clock.
//!
//! A capturing listener gets connections that the kernel redirects to it (REDIRECT or TPROXY). The
//! address that the client connected to is the original destination.

mod addresses;
mod cells;
mod destinations;
mod onward;
mod original;
mod passed;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

pub use addresses::{Addresses, EndpointAddresses, Leads, canonical};
pub use cells::CaptureCells;
pub use destinations::{DESTINATIONS_MAX, Destinations, Seen};
pub use onward::Onward;
pub use original::OriginalTarget;
pub use passed::{PassRefusal, Passed, PassedCells, PassedState, PassedTo};

use crate::cells::PerWorker;
use crate::cluster::EndpointCells;
use crate::cluster::Service;
use crate::detect::Protocol;
use crate::identity::SpiffeId;
use crate::net::Intercept;
use crate::net::Network;
use crate::route::{Rule, Table};
use crate::tls::ServerTls;

/// The default mark (SO_MARK) of all packets that a capturing proxy sends. The capture rules skip
/// packets with this mark. It is Istio's mark, so Istio's rules work, too.
pub const MARK: u32 = 1338;

/// The kind of traffic that a capturing listener gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Traffic from other hosts to the workload.
    Inbound,
    /// Traffic from the workload to other hosts.
    Outbound,
}

/// How outbound traffic to unknown destinations is handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// Forward it to its original destination.
    Allow,
    /// Refuse it.
    Deny,
}

/// The address at which the workload is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Application {
    /// The original destination.
    Original,
    /// The loopback address, in the family of the original destination (IPv4 or IPv6).
    Loopback,
}

/// The declared protocol of a port of a capturing listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Declared {
    /// Opaque bytes. The protocol is not detected.
    Tcp,
    /// HTTP, so the client sends the first bytes.
    Http,
}

/// The kinds of inbound connections that a port accepts.
#[derive(Clone, Debug)]
pub enum Admission {
    /// Plain text. TLS, if any, ends at the application.
    Plain,
    /// Mutual TLS or plain text ([`crate::tls::Mode`]).
    Tls(Arc<ServerTls>),
}

/// An HTTP health check of an orchestrator. It needs no identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The destination port.
    pub port: u16,
    /// The path, without a query.
    pub path: Box<str>,
}

/// Traffic that the capture rules must not capture.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Excluded {
    /// Addresses of the other side: of the client (inbound) or the destination (outbound).
    pub networks: Vec<Network>,
    /// Destination ports. Each range is the first and the last port.
    pub ports: Vec<(u16, u16)>,
}

/// Limits on captured UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Udp {
    /// The idle timeout of a flow.
    pub idle: Duration,
    /// The maximum number of open flows of one worker.
    pub flows_max_each: usize,
}

/// The reason why a UDP flow is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UdpRefusal {
    /// The destination is not a known service, and `unknown: allow` is not set.
    Unknown,
    /// A rule of `authorization:` denies the flow.
    Denied,
    /// The service requires TLS, which UDP does not have.
    NeedsTls,
    /// The service has no endpoint.
    NoEndpoint,
    /// The limit on open flows, or on unfinished ClientHellos, is reached.
    Overflow,
    /// The system cannot create a socket.
    Failed,
    /// A QUIC packet of a connection that is not known.
    UnknownConnection,
}

impl UdpRefusal {
    /// All reasons, in the order of [`UdpRefusal::index`].
    pub const ALL: [Self; 7] = [
        Self::Unknown,
        Self::Denied,
        Self::NeedsTls,
        Self::NoEndpoint,
        Self::Overflow,
        Self::Failed,
        Self::UnknownConnection,
    ];

    /// The position in [`UdpRefusal::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// The value of the metric label `reason`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Denied => "denied",
            Self::NeedsTls => "needs_tls",
            Self::NoEndpoint => "no_endpoint",
            Self::Overflow => "overflow",
            Self::Failed => "failed",
            Self::UnknownConnection => "unknown_connection",
        }
    }

    /// The reason for the log.
    pub fn detail(self) -> &'static str {
        match self {
            Self::Unknown => "the destination is no known service, and `unknown` is not `allow`",
            Self::Denied => "an authorization rule denies the flow",
            Self::NeedsTls => "the service requires TLS, which UDP does not have",
            Self::NoEndpoint => "the service has no endpoint",
            Self::Overflow => {
                "the limit on open flows (udp.flows), or on unfinished ClientHellos, is reached"
            }
            Self::Failed => "the system cannot create a socket",
            Self::UnknownConnection => "the QUIC connection is not known",
        }
    }
}

/// The configuration of a capturing listener.
#[derive(Debug)]
pub struct Capture {
    /// The kind of traffic that the listener gets.
    pub direction: Direction,
    /// How the kernel redirects the traffic.
    pub intercept: Intercept,
    /// The routes for requests that name a host (outbound).
    pub routes: Arc<Table>,
    /// The rule for requests that no route matches. It forwards to the original destination.
    pub onward: Arc<Rule>,
    /// The services and endpoints that have the destination addresses.
    pub addresses: Addresses,
    /// How traffic to unknown destinations is handled (outbound).
    pub unknown: Unknown,
    /// Ports with a declared protocol, which need no detection.
    pub ports: Vec<(u16, Declared)>,
    /// The requirement for clients (inbound) on ports without one in `port_admissions`.
    pub admission: Admission,
    /// The requirements of single ports (inbound).
    pub port_admissions: Vec<(u16, Admission)>,
    /// Health checks that need no identity (inbound).
    pub probes: Vec<Probe>,
    /// The address of the workload (inbound).
    pub application: Application,
    /// Whether connections to the workload have the client's address as their source (inbound).
    pub keeps_source: bool,
    /// The SO_MARK of the traffic that this listener sends.
    pub mark: u32,
    /// Traffic that the capture rules must exclude. It is refused if it is captured anyway.
    pub excluded: Excluded,
    /// The service that stands for all original destinations that no service has.
    pub passthrough: Arc<Service>,
    /// The sum of the counters of all endpoints of `passthrough`.
    pub endpoint_stats: Arc<PerWorker<EndpointCells>>,
    /// The limits on captured UDP. `None` if UDP is not captured.
    pub udp: Option<Udp>,
    /// The ids of the QUIC connections that are captured (outbound). `None` if UDP is not captured.
    /// They are kept over reloads.
    pub passed: Option<Arc<PassedState>>,
    /// The SPIFFE ID of this workload, the source of the outbound traffic.
    pub identity: Option<SpiffeId>,
    /// The counters. They are kept over reloads.
    pub stats: Arc<PerWorker<CaptureCells>>,
    /// The counters of unknown destinations.
    pub seen: Arc<PerWorker<Destinations>>,
}

impl Capture {
    /// Returns the rules for traffic that no route matches.
    pub fn own_rules(&self) -> impl Iterator<Item = &Arc<Rule>> {
        self.addresses.rules().chain([&self.onward])
    }

    /// The declared protocol of `port`. `None`: the protocol must be detected.
    pub fn declared(&self, port: u16) -> Option<Declared> {
        self.ports.iter().find(|(known, _)| *known == port).map(|(_, declared)| *declared)
    }

    /// The requirement for clients of `port`.
    pub fn admission(&self, port: u16) -> &Admission {
        let own = self.port_admissions.iter().find(|(known, _)| *known == port);
        own.map_or(&self.admission, |(_, admission)| admission)
    }

    /// Whether a connection from `peer` to `original` must not be captured.
    pub fn excludes(&self, peer: Option<SocketAddr>, original: SocketAddr) -> bool {
        let other_side = match self.direction {
            Direction::Inbound => peer,
            Direction::Outbound => Some(original),
        };
        let Excluded { networks, ports } = &self.excluded;
        let port = original.port();
        ports.iter().any(|(first, last)| (*first..=*last).contains(&port))
            || other_side.is_some_and(|other| networks.iter().any(|n| n.contains(other.ip())))
    }

    /// Whether a request for `path` at `port` is a health check of an orchestrator.
    pub fn is_probe(&self, port: u16, path: &[u8]) -> bool {
        self.probes.iter().any(|probe| probe.port == port && probe.path.as_bytes() == path)
    }

    /// The address of the workload for an inbound connection to `original`.
    pub fn application(&self, original: SocketAddr) -> SocketAddr {
        match (self.application, original) {
            (Application::Original, _) => original,
            (Application::Loopback, SocketAddr::V4(_)) => {
                SocketAddr::new(std::net::Ipv4Addr::LOCALHOST.into(), original.port())
            }
            (Application::Loopback, SocketAddr::V6(_)) => {
                SocketAddr::new(std::net::Ipv6Addr::LOCALHOST.into(), original.port())
            }
        }
    }
}

/// The reason why a captured connection cannot be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaptureError {
    /// The kernel reports no original destination: the connection was made directly to this port.
    NoDestination,
    /// The original destination is a listener of this proxy.
    Ourselves,
    /// The original destination is excluded from capture.
    Excluded,
    /// This process opened the connection itself: the capture rules do not skip its traffic.
    Loop,
}

impl CaptureError {
    /// All reasons, in the order of [`CaptureError::index`].
    pub const ALL: [Self; 4] = [Self::NoDestination, Self::Ourselves, Self::Excluded, Self::Loop];

    /// The position in [`CaptureError::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// The value of the metric label `reason`.
    pub fn label(self) -> &'static str {
        match self {
            Self::NoDestination => "no_destination",
            Self::Ourselves => "ourselves",
            Self::Excluded => "excluded",
            Self::Loop => "loop",
        }
    }

    /// A text for operators.
    pub fn detail(self) -> &'static str {
        match self {
            Self::NoDestination => {
                "the connection has no original destination: it was not captured"
            }
            Self::Ourselves => "the original destination is a listener of this proxy",
            Self::Excluded => "the original destination is excluded from capture",
            Self::Loop => "the connection comes from this proxy: the capture rules form a loop",
        }
    }
}

/// The number of detection results: see [`outcome_index`].
pub const OUTCOMES: usize = Protocol::ALL.len() + 1;

/// The index of the counter of a detection result. `protocol` is the protocol in which the client
/// sent the first bytes. `None` means that the server sent first.
pub fn outcome_index(protocol: Option<Protocol>) -> usize {
    protocol.map_or(Protocol::ALL.len(), Protocol::index)
}

/// The value of the metric label for a detection result.
pub fn outcome_label(index: usize) -> &'static str {
    Protocol::ALL.get(index).map_or("server_first", |protocol| protocol.label())
}
