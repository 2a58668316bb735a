//! Opens connections of HTTP/2 and HTTP/3.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quinn::crypto::rustls::QuicClientConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{Opener2, Opener3};
use crate::loadgen::args::{StreamTarget, Version};
use crate::loadgen::link::Tls;
use crate::loadgen::report::Failure;

/// The credit for response bodies, for a stream and for a connection: the client never slows the
/// server down.
const WINDOW_BYTES: u32 = 16 * 1024 * 1024;

/// An open connection. It closes after the last copy of it is dropped.
#[derive(Clone)]
pub(super) enum Connection {
    Http2(Rc<()>, Opener2),
    Http3(Rc<Udp>, Opener3),
}

/// The socket and the state of QUIC behind a connection.
pub(super) struct Udp {
    connection: quinn::Connection,
    /// Dropping it stops the work of the connection.
    _endpoint: quinn::Endpoint,
}

impl Drop for Udp {
    fn drop(&mut self) {
        self.connection.close(H3_NO_ERROR.into(), b"");
    }
}

/// RFC 9114 8.1.
const H3_NO_ERROR: u32 = 0x100;

impl Connection {
    /// Whether both are the same connection.
    pub(super) fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Http2(one, _), Self::Http2(two, _)) => Rc::ptr_eq(one, two),
            (Self::Http3(one, _), Self::Http3(two, _)) => Rc::ptr_eq(one, two),
            _ => false,
        }
    }
}

/// Opens a connection.
///
/// # Errors
/// The part that failed, and the reason.
pub(super) async fn connect(target: &StreamTarget) -> Result<Connection, (Failure, io::Error)> {
    match (target.version, &target.tls) {
        (Version::Http3, Some(tls)) => http3(target.address, tls).await,
        (Version::Http3, None) => unreachable!("the arguments have been checked"),
        (Version::Http2, tls) => {
            let socket = TcpStream::connect(target.address).await;
            let socket = socket.map_err(|error| (Failure::Connect, error))?;
            socket.set_nodelay(true).map_err(|error| (Failure::Connect, error))?;
            let Some(tls) = tls else { return http2(socket).await };
            let connector = TlsConnector::from(Arc::clone(&tls.config));
            let socket = connector.connect(tls.name.clone(), socket).await;
            let socket = socket.map_err(|error| (Failure::Handshake, error))?;
            if socket.get_ref().1.alpn_protocol() != Some(b"h2") {
                return Err((Failure::Handshake, io::Error::other("it does not offer HTTP/2")));
            }
            http2(socket).await
        }
    }
}

async fn http2(
    socket: impl AsyncRead + AsyncWrite + Unpin + 'static,
) -> Result<Connection, (Failure, io::Error)> {
    let opened = h2::client::Builder::new()
        .initial_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .enable_push(false)
        .handshake::<_, Bytes>(socket)
        .await;
    let (opener, connection) =
        opened.map_err(|error| (Failure::Handshake, io::Error::other(error)))?;
    tokio::task::spawn_local(connection);
    Ok(Connection::Http2(Rc::new(()), opener))
}

async fn http3(address: SocketAddr, tls: &Tls) -> Result<Connection, (Failure, io::Error)> {
    let failed =
        |error: &dyn std::error::Error| (Failure::Handshake, io::Error::other(error.to_string()));
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => ([0; 4], 0).into(),
        SocketAddr::V6(_) => ([0_u16; 8], 0).into(),
    };
    // A socket for each connection, as for TCP: the server's workers share the connections by
    // their addresses.
    let endpoint = quinn::Endpoint::client(any).map_err(|error| (Failure::Connect, error))?;
    let crypto = QuicClientConfig::try_from(Arc::clone(&tls.config));
    let mut config = quinn::ClientConfig::new(Arc::new(crypto.map_err(|error| failed(&error))?));
    let mut transport = quinn::TransportConfig::default();
    transport.stream_receive_window(WINDOW_BYTES.into()).receive_window(WINDOW_BYTES.into());
    transport.keep_alive_interval(Some(KEEP_ALIVE));
    config.transport_config(Arc::new(transport));
    let connecting = endpoint.connect_with(config, address, &tls.host());
    let connecting = connecting.map_err(|error| failed(&error))?;
    let connection = connecting.await.map_err(|error| failed(&error))?;
    let opening = h3::client::new(h3_quinn::Connection::new(connection.clone()));
    let opened = Box::pin(opening).await;
    let (mut driver, opener) = opened.map_err(|error| failed(&error))?;
    tokio::task::spawn_local(async move { poll_fn(|context| driver.poll_close(context)).await });
    Ok(Connection::Http3(Rc::new(Udp { connection, _endpoint: endpoint }), opener))
}

/// Shorter than the idle timeout of usual servers.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
