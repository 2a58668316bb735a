//! Runs one health check of one endpoint.

use std::fmt;
use std::io;
use std::net::TcpStream as StdTcpStream;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use super::{FAREWELL, Target, http1, http2};
use crate::cluster::Protocol;
use crate::error::plain;
use crate::health::{Ask, Reason};
use crate::net::{Address, Egress};
use crate::proxy_protocol;
use crate::runtime::own::Own;
use crate::runtime::socket::start_connect;
use crate::tls::{ClientTls, reason};

/// The maximum size of a failure message.
pub const MESSAGE_BYTES_MAX: usize = 300;

/// The failure of a health check.
#[derive(Debug)]
pub struct Failed {
    /// The reason, for the metrics.
    pub reason: Reason,
    /// The message, for the log.
    pub message: String,
}

impl Failed {
    /// Creates a failure. Shortens a long `message`.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        let mut message = message.into();
        // The message may contain text from the endpoint, so limit its length.
        let end = (0..=MESSAGE_BYTES_MAX).rev().find(|&end| message.is_char_boundary(end));
        message.truncate(end.unwrap_or_default());
        Self { reason, message }
    }
}

/// A bidirectional stream, with or without TLS.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// The connection of a health check.
pub struct Link {
    /// The stream to the endpoint.
    pub stream: Box<dyn Duplex>,
    /// Whether ALPN selected HTTP/2.
    pub http2: bool,
    /// The entry in the table of the proxy's own connections, if traffic is captured.
    pub own: Option<Own>,
}

/// Checks the endpoint of `target`.
///
/// # Errors
/// The reason for the failure.
pub async fn probe(target: &Target) -> Result<(), Failed> {
    let limit = target.check.timeout;
    let end = Instant::now() + limit;
    let late = |what: &str| Failed::new(Reason::Timeout, format!("no {what} within {limit:?}"));
    let connecting = timeout_at(end, Box::pin(connect(target))).await;
    let link = connecting.map_err(|_| late("connection"))??;
    timeout_at(end, Box::pin(ask(target, link))).await.map_err(|_| late("answer"))?
}

async fn ask(target: &Target, link: Link) -> Result<(), Failed> {
    let (secure, limit) = (target.service.tls.is_some(), target.check.timeout);
    match &target.check.ask {
        Ask::Tcp => {
            farewell(link);
            Ok(())
        }
        Ask::Http { method, path, host, statuses } => {
            let multiplexed = match target.service.protocol {
                Protocol::Http2 | Protocol::Grpc => true,
                Protocol::Auto => link.http2,
                // A service of HTTP/3 has no health checks.
                Protocol::Http1 | Protocol::Http3 | Protocol::Tcp => false,
            };
            let status = match multiplexed {
                true => http2::status(link, secure, method, host, path, limit).await?,
                false => http1::status(link, method, host, path).await?,
            };
            match statuses.contain(status) {
                true => Ok(()),
                false => {
                    let message = format!("the answer's status is {status}, not {statuses}");
                    Err(Failed::new(Reason::Status, message))
                }
            }
        }
        Ask::Grpc { service, authority } => {
            http2::call(link, secure, authority, service, limit).await
        }
    }
}

/// Closes the connection normally, in a separate task.
pub fn farewell(link: Link) {
    let Link { mut stream, own, .. } = link;
    tokio::spawn(async move {
        tokio::time::timeout(FAREWELL, stream.shutdown()).await.ok();
        drop(own);
    });
}

/// Opens a connection with the SO_MARK, PROXY protocol header and TLS of the service.
async fn connect(target: &Target) -> Result<Link, Failed> {
    let Target { service, endpoint, check } = target;
    let failed = |error: io::Error| Failed::new(Reason::Connect, plain(&error));
    let (mut stream, own) = dial(&endpoint.address, service.egress).await.map_err(failed)?;
    if let Some(form) = service.send_proxy_protocol {
        // The connection has no client, so the PROXY header has no addresses.
        let mut header = Vec::new();
        proxy_protocol::encode(&mut header, form, None, None);
        stream.write_all(&header).await.map_err(broken)?;
    }
    let Some(tls) = &service.tls else { return Ok(Link { stream, http2: false, own }) };
    let (stream, http2) = encrypt(stream, tls, &endpoint.address, &check.ask).await?;
    Ok(Link { stream, http2, own })
}

async fn dial(address: &Address, egress: Egress) -> io::Result<(Box<dyn Duplex>, Option<Own>)> {
    let socket = start_connect(address, egress)?;
    match address {
        Address::Tcp(remote) => {
            let local = socket.local_addr().ok().and_then(|local| local.as_socket());
            let own = local.filter(|_| egress.mark != 0).map(|local| Own::note(local, *remote));
            let stream = TcpStream::from_std(StdTcpStream::from(socket))?;
            stream.writable().await?;
            match stream.take_error()? {
                Some(error) => Err(error),
                None => Ok((Box::new(stream), own)),
            }
        }
        Address::Unix(_) => {
            let stream = UnixStream::from_std(StdUnixStream::from(socket))?;
            Ok((Box::new(stream), None))
        }
    }
}

/// Runs a full TLS handshake without session resumption, so that each check verifies the
/// certificate of the endpoint.
async fn encrypt(
    stream: Box<dyn Duplex>,
    tls: &ClientTls,
    address: &Address,
    ask: &Ask,
) -> Result<(Box<dyn Duplex>, bool), Failed> {
    let mut config = match ask {
        Ask::Tcp => rustls::ClientConfig::clone(&tls.bytes),
        Ask::Http { .. } | Ask::Grpc { .. } => rustls::ClientConfig::clone(&tls.config),
    };
    if matches!(ask, Ask::Grpc { .. }) {
        config.alpn_protocols = vec![b"h2".to_vec()];
    }
    config.resumption = rustls::client::Resumption::disabled();
    let connector = TlsConnector::from(Arc::new(config));
    let connecting = connector.connect(tls.name_for(address), stream);
    let stream = connecting.await.map_err(|error| {
        let told = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        let message = told.map_or_else(|| error.to_string(), |told| Words(told).to_string());
        Failed::new(Reason::Tls, format!("the TLS handshake failed: {message}"))
    })?;
    let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    Ok((Box::new(stream), http2))
}

struct Words<'a>(&'a rustls::Error);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        reason::write(f, self.0)
    }
}

/// Creates the failure of a connection that has broken.
pub fn broken(error: impl fmt::Display) -> Failed {
    Failed::new(Reason::Broken, format!("the connection broke off: {}", plain(&error)))
}
