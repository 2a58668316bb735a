//! Addresses of endpoints and listeners, the ways in which connections reach and leave this host,
//! and the shortages that hinder them. Pure: no I/O, no clock.

mod name;
mod network;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

pub use name::{DnsName, Families};
pub use network::Network;

/// Whether `error` says that this process or system has no descriptors or memory left. The same
/// call may succeed later.
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

/// How a connection to an endpoint leaves this host. The default is no mark and no source address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Egress {
    /// The mark of its packets (SO_MARK). The rules of traffic capture let packets with this mark
    /// pass. 0 means no mark.
    pub mark: u32,
    /// The source address, although it is not an address of this host (IP_TRANSPARENT).
    pub source: Option<IpAddr>,
    /// How the kernel notices that the endpoint is gone.
    pub liveness: TcpLiveness,
}

/// How the kernel notices that the other side of a TCP connection is gone. The default is not at
/// all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpLiveness {
    /// Probes on a silent connection. `None` means no probes.
    pub keepalive: Option<Keepalive>,
    /// How long sent bytes may wait for their acknowledgement, or for the peer's receive window
    /// (TCP_USER_TIMEOUT). `None` leaves it to the kernel.
    pub user_timeout: Option<Duration>,
}

/// TCP keep-alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// The silence before the first probe.
    pub time: Duration,
    /// The time between two probes.
    pub interval: Duration,
    /// The number of probes without an answer that ends the connection. With a user timeout, the
    /// kernel ends it at that time instead.
    pub probes: u32,
}

/// The source of a listener's traffic: an address, a path, or a socket from systemd.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Bind {
    /// An IP address and port.
    Tcp(SocketAddr),
    /// An IP address and port for captured UDP.
    Udp(SocketAddr),
    /// The path of a Unix-domain socket.
    Unix(PathBuf),
    /// A socket passed by systemd under this name (`FileDescriptorName=`).
    Systemd(String),
}

impl Bind {
    /// Whether connections arrive here, and not datagrams.
    pub fn is_stream(&self) -> bool {
        !matches!(self, Self::Udp(_))
    }

    /// The port, or 0 if there is none.
    pub fn port(&self) -> u16 {
        match self {
            Self::Tcp(address) | Self::Udp(address) => address.port(),
            Self::Unix(_) | Self::Systemd(_) => 0,
        }
    }
}

impl std::fmt::Display for Bind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Udp(address) => write!(f, "udp:{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Systemd(name) => write!(f, "systemd:{name}"),
        }
    }
}

/// How the kernel brings connections to a capturing listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intercept {
    /// REDIRECT: the kernel rewrites the destination, and conntrack keeps the original one.
    Redirect,
    /// TPROXY: the socket has the original destination as its local address.
    Tproxy,
}
