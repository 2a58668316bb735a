//! Addresses of endpoints and listeners, socket options of connections, and the errors that mean a
//! lack of descriptors or memory. Pure: no I/O, no clock.

mod name;
mod network;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

pub use name::{DnsName, Families};
pub use network::Network;

/// Whether `error` means that this process or the system has no file descriptors or no memory left.
/// The same call may succeed later.
pub fn is_shortage(error: &io::Error) -> bool {
    let shortages = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM];
    error.raw_os_error().is_some_and(|code| shortages.contains(&code))
}

/// The address of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// An IP address and port.
    Tcp(SocketAddr),
    /// The path of a Unix-domain socket.
    Unix(PathBuf),
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The socket options of a connection to an endpoint. The default is no mark and no source address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Egress {
    /// The mark of the packets (SO_MARK). The rules of traffic capture let packets with this mark
    /// pass. 0 means no mark.
    pub mark: u32,
    /// The source address. It need not be an address of this host (IP_TRANSPARENT). `None`: the
    /// kernel chooses it.
    pub source: Option<IpAddr>,
    /// How the kernel detects that the endpoint is dead.
    pub liveness: TcpLiveness,
}

/// How the kernel detects a dead TCP peer. The default sets no option.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpLiveness {
    /// Probes on an idle connection. `None` means no probes.
    pub keepalive: Option<Keepalive>,
    /// How long sent bytes may wait for their acknowledgement, or for the peer's receive window
    /// (TCP_USER_TIMEOUT). `None` leaves it to the kernel.
    pub user_timeout: Option<Duration>,
}

/// TCP keep-alive: the probes that the kernel sends on an idle connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Idle time before the first probe (TCP_KEEPIDLE).
    pub time: Duration,
    /// The time between two probes (TCP_KEEPINTVL).
    pub interval: Duration,
    /// The number of unanswered probes that ends the connection (TCP_KEEPCNT). With a user timeout,
    /// the kernel ends the connection at that time instead.
    pub probes: u32,
}

/// Where a listener receives traffic: at an address, at a path, or on a socket from systemd.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Bind {
    /// An IP address and port.
    Tcp(SocketAddr),
    /// An IP address and port for captured UDP.
    Udp(SocketAddr),
    /// An IP address and UDP port for QUIC.
    Quic(SocketAddr),
    /// An IP address and UDP port for QUIC that is not terminated.
    Passed(SocketAddr),
    /// The path of a Unix-domain socket.
    Unix(PathBuf),
    /// A socket passed by systemd under this name (`FileDescriptorName=`).
    Systemd(String),
}

impl Bind {
    /// Whether the listener receives connections, not datagrams.
    pub fn is_stream(&self) -> bool {
        !matches!(self, Self::Udp(_) | Self::Quic(_) | Self::Passed(_))
    }

    /// The port. 0 if there is none.
    pub fn port(&self) -> u16 {
        match self {
            Self::Tcp(address)
            | Self::Udp(address)
            | Self::Quic(address)
            | Self::Passed(address) => address.port(),
            Self::Unix(_) | Self::Systemd(_) => 0,
        }
    }
}

impl std::fmt::Display for Bind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Udp(address) => write!(f, "udp:{address}"),
            Self::Quic(address) | Self::Passed(address) => write!(f, "quic:{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Systemd(name) => write!(f, "systemd:{name}"),
        }
    }
}

/// How the kernel redirects connections to a capturing listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intercept {
    /// REDIRECT: the kernel rewrites the destination, and conntrack keeps the original one.
    Redirect,
    /// TPROXY: the socket has the original destination as its local address.
    Tproxy,
}
