//! The socket of the admin interface: TCP, TLS or a Unix socket.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use crate::compile::AdminTls;
use crate::error::plain;
use crate::net::Address;
use crate::runtime::socket::unix_listener;
use crate::sources::Connection;

/// The length of the queue of connections that are not accepted yet.
const BACKLOG: i32 = 128;

/// Only the user of the proxy may connect to a Unix socket.
const MODE: u32 = 0o600;

/// The maximum number of handshakes at a time. A further one ends the oldest, so that silent
/// clients do not keep others out.
const HANDSHAKES_MAX: usize = 64;

/// How long a handshake may take.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);

/// The pause after a connection could not be accepted, for example for want of descriptors.
const PAUSE: Duration = Duration::from_millis(500);

/// Opens the socket of the admin interface.
pub(super) fn open(address: &Address) -> io::Result<Socket> {
    match address {
        Address::Tcp(address) => tcp(*address),
        Address::Unix(path) => Ok(unix_listener(path, BACKLOG, Some(MODE))?.into()),
    }
}

fn tcp(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::from(address))?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// Removes the file of a Unix socket. Another process may have removed it.
pub(super) fn remove(path: &Path) {
    std::fs::remove_file(path).ok();
}

/// The client of a connection.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Caller {
    /// Whether it has proved a certificate of the CAs in `client_ca`.
    pub(super) is_certified: bool,
    /// Whether it comes through a Unix socket, which only the user of the proxy may open.
    pub(super) is_owner: bool,
    /// Whether it came through TLS, so that it knows a name in our certificate.
    pub(super) is_encrypted: bool,
}

impl Connected<IncomingStream<'_, Incoming>> for Caller {
    fn connect_info(stream: IncomingStream<'_, Incoming>) -> Self {
        *stream.remote_addr()
    }
}

enum Sockets {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// The connections of the admin interface, as they come.
pub(super) struct Incoming {
    sockets: Sockets,
    tls: Option<TlsAcceptor>,
    handshakes: JoinSet<io::Result<(Connection, Caller)>>,
    /// The same handshakes, the oldest first. Some may have ended.
    oldest: VecDeque<AbortHandle>,
}

impl Incoming {
    /// Accepts from `socket`, with `tls` if there is one.
    pub(super) fn new(
        socket: Socket,
        address: &Address,
        tls: Option<&AdminTls>,
    ) -> io::Result<Self> {
        let sockets = match address {
            Address::Tcp(_) => Sockets::Tcp(TcpListener::from_std(socket.into())?),
            Address::Unix(_) => Sockets::Unix(UnixListener::from_std(socket.into())?),
        };
        let tls = tls.map(|tls| TlsAcceptor::from(tls.tls.without_resumption()));
        Ok(Self { sockets, tls, handshakes: JoinSet::new(), oldest: VecDeque::new() })
    }

    /// Begins a handshake. If there are too many, the oldest one that has not ended makes room.
    fn begin(&mut self, tls: TlsAcceptor, stream: Connection) {
        self.oldest.retain(|handshake| !handshake.is_finished());
        if self.oldest.len() >= HANDSHAKES_MAX
            && let Some(oldest) = self.oldest.pop_front()
        {
            oldest.abort();
            tracing::debug!("too many handshakes: the oldest one is ended");
        }
        self.oldest.push_back(self.handshakes.spawn(handshake(tls, stream)));
    }

    async fn connection(sockets: &Sockets) -> io::Result<Connection> {
        match sockets {
            Sockets::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true).ok();
                Ok(Box::new(stream))
            }
            Sockets::Unix(listener) => Ok(Box::new(listener.accept().await?.0)),
        }
    }
}

impl axum::serve::Listener for Incoming {
    type Io = Connection;
    type Addr = Caller;

    async fn accept(&mut self) -> (Connection, Caller) {
        loop {
            tokio::select! {
                accepted = Self::connection(&self.sockets) => match accepted {
                    Ok(stream) => match self.tls.clone() {
                        None => {
                            let is_owner = matches!(self.sockets, Sockets::Unix(_));
                            return (stream, Caller { is_owner, ..Caller::default() });
                        }
                        Some(tls) => self.begin(tls, stream),
                    },
                    Err(error) => {
                        let error = plain(&error);
                        tracing::debug!(%error, "the admin interface cannot accept a connection");
                        tokio::time::sleep(PAUSE).await;
                    }
                },
                Some(ended) = self.handshakes.join_next() => match ended {
                    Ok(Ok(accepted)) => return accepted,
                    Ok(Err(error)) => {
                        let error = plain(&error);
                        tracing::debug!(%error, "a client of the admin interface has failed");
                    }
                    Err(_) => {}
                },
            }
        }
    }

    fn local_addr(&self) -> io::Result<Caller> {
        Ok(Caller::default())
    }
}

async fn handshake(tls: TlsAcceptor, stream: Connection) -> io::Result<(Connection, Caller)> {
    let done = tokio::time::timeout(HANDSHAKE_LIMIT, tls.accept(stream)).await;
    let stream = done.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let is_certified = stream.get_ref().1.peer_certificates().is_some_and(|it| !it.is_empty());
    Ok((Box::new(stream), Caller { is_certified, is_owner: false, is_encrypted: true }))
}
