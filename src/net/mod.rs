//! Addresses of endpoints and listeners, and the ways in which connections reach and leave this
//! host. Pure: no I/O, no clock.

mod network;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

pub use network::Network;

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
}

/// The address on which a listener accepts connections.
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
