//! The connections that the control thread itself opens: to DNS servers and to issuers of token
//! keys. Their sockets have the proxy's SO_MARK. Without the mark, the capture rules would redirect
//! the connections to this process.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::net::{TcpStream, UdpSocket};

use crate::net::{Address, Egress};
use crate::runtime::datagram::towards;
use crate::runtime::socket::start_connect;

/// Opens connections with the SO_MARK of the current configuration. Clones share the mark.
#[derive(Clone, Debug)]
pub struct Outward(Arc<AtomicU32>);

impl Outward {
    /// Creates a factory of connections with this SO_MARK. 0 means no mark.
    pub fn with_mark(mark: u32) -> Self {
        Self(Arc::new(AtomicU32::new(mark)))
    }

    /// Sets the SO_MARK of connections that are opened later. 0 means no mark.
    pub fn set_mark(&self, mark: u32) {
        self.0.store(mark, Ordering::Relaxed);
    }

    fn egress(&self) -> Egress {
        Egress { mark: self.0.load(Ordering::Relaxed), ..Egress::default() }
    }

    /// Creates a UDP socket that is connected to `to`.
    ///
    /// # Errors
    /// The error of socket(2) or connect(2).
    pub fn datagrams(&self, to: SocketAddr) -> io::Result<UdpSocket> {
        let (socket, _) = towards(to, self.egress())?;
        UdpSocket::from_std(socket.into())
    }

    /// Whether this host has a route to `ip`. No packet is sent.
    pub fn has_route(&self, ip: IpAddr) -> bool {
        const ANY_PORT: u16 = 9;
        towards(SocketAddr::new(ip, ANY_PORT), self.egress()).is_ok()
    }

    /// Connects to `to`.
    ///
    /// # Errors
    /// The error of connect(2).
    pub async fn stream(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let socket = start_connect(&Address::Tcp(to), self.egress())?;
        let stream = TcpStream::from_std(socket.into())?;
        stream.writable().await?;
        match stream.take_error()? {
            Some(error) => Err(error),
            None => Ok(stream),
        }
    }
}
