//! Captured traffic, as compiled: where connections that were meant for others go, and on which
//! terms. Dry.
//!
//! A capturing listener gets connections that the kernel has turned aside (REDIRECT or TPROXY).
//! Where each was meant to go is its original destination.

mod addresses;
mod cells;
mod destinations;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

pub use addresses::{Addresses, EndpointAddresses, Leads, canonical};
pub use cells::CaptureCells;
pub use destinations::{DESTINATIONS_MAX, Destinations, Seen};

use crate::cells::PerWorker;
use crate::cluster::EndpointCells;
use crate::cluster::Service;
use crate::detect::Protocol;
use crate::identity::SpiffeId;
use crate::net::Intercept;
use crate::net::Network;
use crate::route::{Rule, Table};
use crate::tls::ServerTls;

/// The mark (SO_MARK) of all that a proxy with captured traffic sends, unless it is told
/// otherwise: the rules leave alone what has it. Istio's, so that its rules work too.
pub const MARK: u32 = 1338;

/// Which traffic a capturing listener gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// What others send to the workload.
    Inbound,
    /// What the workload sends to others.
    Outbound,
}

/// What becomes of outbound traffic whose destination nobody has named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// It goes on to its original destination.
    Allow,
    /// It is refused.
    Deny,
}

/// Where the workload is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Application {
    /// At the address that the client meant.
    Original,
    /// At the loopback address of the same family.
    Loopback,
}

/// What the ports of a capturing listener are told to carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Declared {
    /// Bytes; nobody looks at them.
    Tcp,
    /// HTTP; the client speaks first.
    Http,
}

/// What inbound connections to one port must be.
#[derive(Clone, Debug)]
pub enum Admission {
    /// Plain text; TLS, if any, is the application's.
    Plain,
    /// Mutual TLS or plain text ([`crate::tls::Mode`]).
    Tls(Arc<ServerTls>),
}

/// A request that an orchestrator sends to see whether the workload lives: it needs no identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The port that it is sent to.
    pub port: u16,
    /// Its path, without a query.
    pub path: Box<str>,
}

/// What the rules were meant to leave alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Excluded {
    /// The other side: who connects, or who is connected to.
    pub networks: Vec<Network>,
    /// Ports of destinations: the first and the last of each range.
    pub ports: Vec<(u16, u16)>,
}

/// Limits on captured UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Udp {
    /// How long a flow may be silent.
    pub idle: Duration,
    /// Flows that one worker has open at once.
    pub flows_max_each: usize,
}

/// Why a flow of datagrams is not carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UdpRefusal {
    /// Neither a service nor `unknown: allow` lets it.
    Unknown,
    /// A rule of `authorization:` denies it.
    Denied,
    /// Its service demands TLS, which UDP cannot be given.
    NeedsTls,
    /// Its service has no endpoint.
    NoEndpoint,
    /// As many flows as may be are open.
    Overflow,
    /// The system gives no socket for it.
    Failed,
}

impl UdpRefusal {
    /// All of them, in the order of [`UdpRefusal::index`].
    pub const ALL: [Self; 6] = [
        Self::Unknown,
        Self::Denied,
        Self::NeedsTls,
        Self::NoEndpoint,
        Self::Overflow,
        Self::Failed,
    ];

    /// Position in [`UdpRefusal::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// Its name in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Denied => "denied",
            Self::NeedsTls => "needs_tls",
            Self::NoEndpoint => "no_endpoint",
            Self::Overflow => "overflow",
            Self::Failed => "failed",
        }
    }
}

/// What a capturing listener does.
#[derive(Debug)]
pub struct Capture {
    /// Which traffic it gets.
    pub direction: Direction,
    /// How.
    pub intercept: Intercept,
    /// What requests fall under that name a host (outbound).
    pub routes: Arc<Table>,
    /// What all other requests fall under: to where the connection was meant to go.
    pub onward: Arc<Rule>,
    /// Where addresses lead.
    pub addresses: Addresses,
    /// What becomes of the rest (outbound).
    pub unknown: Unknown,
    /// Ports that need not be looked at.
    pub ports: Vec<(u16, Declared)>,
    /// On which terms clients are let in (inbound), for all ports and for single ones.
    pub admission: Admission,
    /// See [`Capture::admission`].
    pub port_admissions: Vec<(u16, Admission)>,
    /// Requests that need no identity (inbound).
    pub probes: Vec<Probe>,
    /// Where the workload is (inbound).
    pub application: Application,
    /// Whether the workload sees the client's address as its peer (inbound).
    pub keeps_source: bool,
    /// The mark of what goes on from here.
    pub mark: u32,
    /// What should not have been captured.
    pub excluded: Excluded,
    /// How original destinations are reached that no service names.
    pub passthrough: Arc<Service>,
    /// Counters of their endpoints, all together.
    pub endpoint_stats: Arc<PerWorker<EndpointCells>>,
    /// What becomes of captured datagrams, if they are captured.
    pub udp: Option<Udp>,
    /// Who sends outbound traffic: this workload.
    pub identity: Option<SpiffeId>,
    /// Its counters; the same ones across reloads.
    pub stats: Arc<PerWorker<CaptureCells>>,
    /// Destinations that nobody has named, and how often they were asked for.
    pub seen: Arc<PerWorker<Destinations>>,
}

impl Capture {
    /// The rules of what no route names.
    pub fn own_rules(&self) -> impl Iterator<Item = &Arc<Rule>> {
        self.addresses.rules().chain([&self.onward])
    }

    /// What `port` is told to carry, if anything.
    pub fn declared(&self, port: u16) -> Option<Declared> {
        self.ports.iter().find(|(known, _)| *known == port).map(|(_, declared)| *declared)
    }

    /// On which terms clients of `port` are let in.
    pub fn admission(&self, port: u16) -> &Admission {
        let own = self.port_admissions.iter().find(|(known, _)| *known == port);
        own.map_or(&self.admission, |(_, admission)| admission)
    }

    /// Whether a connection from `peer` that was meant for `original` should not be here.
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

    /// Whether requests to `port` may be probes.
    pub fn has_probes(&self, port: u16) -> bool {
        self.probes.iter().any(|probe| probe.port == port)
    }

    /// Whether a request for `path` at `port` is one.
    pub fn is_probe(&self, port: u16, path: &[u8]) -> bool {
        self.probes.iter().any(|probe| probe.port == port && probe.path.as_bytes() == path)
    }

    /// Where an inbound connection for `original` goes.
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

/// Why a captured connection cannot be served at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaptureError {
    /// Nobody knows where it was meant to go: it came here directly.
    NoDestination,
    /// It was meant for one of our own listeners.
    Ourselves,
    /// It was meant for an address that is not to be captured.
    Excluded,
    /// We have sent it ourselves: the rules do not leave our traffic alone.
    Loop,
}

impl CaptureError {
    /// All of them, in the order of [`CaptureError::index`].
    pub const ALL: [Self; 4] = [Self::NoDestination, Self::Ourselves, Self::Excluded, Self::Loop];

    /// Position in [`CaptureError::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// Its name in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::NoDestination => "no_destination",
            Self::Ourselves => "ourselves",
            Self::Excluded => "excluded",
            Self::Loop => "loop",
        }
    }

    /// What an operator reads.
    pub fn detail(self) -> &'static str {
        match self {
            Self::NoDestination => {
                "the connection has no original destination: it was not captured"
            }
            Self::Ourselves => "the original destination is one of our own listeners",
            Self::Excluded => "the original destination is excluded from capture",
            Self::Loop => "the connection comes from this proxy itself: a loop in the rules",
        }
    }
}

/// Outcomes of looking at the first bytes, by [`outcome_index`].
pub const OUTCOMES: usize = Protocol::ALL.len() + 1;

/// The place of an outcome among the counters: what the client has begun with; `None` when the
/// server spoke first.
pub fn outcome_index(protocol: Option<Protocol>) -> usize {
    protocol.map_or(Protocol::ALL.len(), Protocol::index)
}

/// The name of an outcome in metrics.
pub fn outcome_label(index: usize) -> &'static str {
    Protocol::ALL.get(index).map_or("server_first", |protocol| protocol.label())
}
