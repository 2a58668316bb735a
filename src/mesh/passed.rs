//! The compiled configuration of a listener that passes QUIC through without decrypting it.

use std::net::SocketAddr;
use std::sync::Arc;

use super::Udp;
use crate::cells::{Count, PerWorker};
use crate::cluster::Destination;
use crate::detect::ServerIds;
use crate::net::Egress;
use crate::route::Table;

/// The settings of a listener that passes QUIC through.
#[derive(Clone, Debug)]
pub struct Passed {
    /// The routes: the server name of a connection selects a service.
    pub routes: Arc<Table>,
    /// The service of datagrams that are not QUIC. `None` means that they are refused.
    pub other: Option<Destination>,
    /// The limits on flows.
    pub udp: Udp,
    /// The counters, and the ids of connections. They are kept over reloads.
    pub state: Arc<PassedState>,
}

/// The part of a listener that a reload keeps.
#[derive(Debug)]
pub struct PassedState {
    /// The counters of each worker.
    pub cells: PerWorker<PassedCells>,
    /// The endpoints of connections, by the ids that they have chosen.
    pub ids: ServerIds<PassedTo>,
}

/// The endpoint of a connection.
#[derive(Clone, Debug)]
pub struct PassedTo {
    /// Its address.
    pub address: SocketAddr,
    /// The socket options of datagrams to it.
    pub egress: Egress,
    /// The name of its service.
    pub service: Arc<str>,
    /// The original destination of captured datagrams. `None` if they were sent to a listener.
    pub destination: Option<SocketAddr>,
}

impl PassedState {
    /// The state of a listener that has passed nothing.
    pub fn new(workers: usize) -> Self {
        Self { cells: PerWorker::new(workers), ids: ServerIds::default() }
    }
}

/// The counters of one listener that passes QUIC through, for one worker.
#[derive(Debug, Default)]
pub struct PassedCells {
    /// Flows opened.
    pub flows: Count,
    /// Flows open now (gauge).
    pub active: Count,
    /// Flows whose client has moved from another address.
    pub moved: Count,
    /// Refused datagrams, by `PassRefusal::index`.
    pub refused: [Count; PassRefusal::ALL.len()],
    /// Datagrams sent to endpoints.
    pub out: Count,
    /// Datagrams sent to clients.
    pub back: Count,
    /// Datagrams lost because the kernel buffer was full.
    pub lost: Count,
}

/// The reason why datagrams are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PassRefusal {
    /// The datagram is not QUIC, and the listener has no service for it.
    NotQuic,
    /// The ClientHello cannot be read.
    Malformed,
    /// A packet of a connection that is not known.
    UnknownConnection,
    /// No route has the server name.
    NoRoute,
    /// A rule of `authorization:` denies the connection, or the service demands a token.
    Denied,
    /// The service has no endpoint with an IP address.
    NoEndpoint,
    /// The limit on flows, or on connections whose ClientHello is being read, is reached.
    Overflow,
    /// The system cannot create a socket.
    Failed,
}

impl PassRefusal {
    /// All reasons, in the order of [`PassRefusal::index`].
    pub const ALL: [Self; 8] = [
        Self::NotQuic,
        Self::Malformed,
        Self::UnknownConnection,
        Self::NoRoute,
        Self::Denied,
        Self::NoEndpoint,
        Self::Overflow,
        Self::Failed,
    ];

    /// The position in [`PassRefusal::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// The value of the metric label `reason`.
    pub fn label(self) -> &'static str {
        match self {
            Self::NotQuic => "not_quic",
            Self::Malformed => "malformed",
            Self::UnknownConnection => "unknown_connection",
            Self::NoRoute => "no_route",
            Self::Denied => "denied",
            Self::NoEndpoint => "no_endpoint",
            Self::Overflow => "overflow",
            Self::Failed => "failed",
        }
    }

    /// The reason for the log.
    pub fn detail(self) -> &'static str {
        match self {
            Self::NotQuic => "the datagram is not QUIC, and the listener has no `service`",
            Self::Malformed => "the ClientHello cannot be read",
            Self::UnknownConnection => "the connection is not known",
            Self::NoRoute => "no route has the server name in the ClientHello",
            Self::Denied => "an authorization rule denies it, or the service demands a token",
            Self::NoEndpoint => "the service has no endpoint with an IP address",
            Self::Overflow => {
                "the limit on flows (udp.flows), or on unfinished ClientHellos, is reached"
            }
            Self::Failed => "the system cannot create a socket",
        }
    }
}
