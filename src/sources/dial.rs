//! Connects to a server that is asked for more of the configuration: TCP, perhaps with TLS.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use pki_types::ServerName;
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use super::lookup::Lookups;
use crate::error::plain;
use crate::net::Address;
use crate::tls::ClientTls;

/// Bytes in both directions.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}

/// A connection, with or without TLS.
pub type Connection = Box<dyn Duplex>;

/// Connects to `host` and `port`. The caller has a time limit.
///
/// # Errors
/// The reason why no address accepts the connection, or why TLS fails.
pub async fn dial(
    lookups: &Lookups,
    tls: Option<&Arc<ClientTls>>,
    (host, port): (&str, u16),
) -> Result<Connection, String> {
    let addresses = match host.parse::<IpAddr>() {
        Ok(ip) => vec![ip],
        Err(_) => lookups.all_addresses(host).await?,
    };
    let mut last = format!("{host} has no address");
    for ip in addresses {
        let address = SocketAddr::new(ip, port);
        match lookups.outward().stream(address).await {
            Ok(stream) => {
                stream.set_nodelay(true).ok();
                return match tls {
                    None => Ok(Box::new(stream)),
                    Some(tls) => {
                        encrypt(Box::new(stream), &tls.config, name(tls, host, address)).await
                    }
                };
            }
            Err(error) => last = format!("cannot connect: {}", plain(&error)),
        }
    }
    Err(last)
}

/// The authority of requests to `host` and `port`.
pub fn authority(host: &str, port: u16) -> String {
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

/// The name that the certificate must have.
fn name(tls: &ClientTls, host: &str, address: SocketAddr) -> ServerName<'static> {
    match ServerName::try_from(host.to_owned()) {
        Ok(name @ ServerName::DnsName(_)) if tls.name.is_none() => name,
        _ => tls.name_for(&Address::Tcp(address)),
    }
}

/// Makes the handshake with a server whose certificate must have this name.
///
/// # Errors
/// The reason why it fails.
pub(super) async fn encrypt(
    stream: Connection,
    config: &Arc<ClientConfig>,
    name: ServerName<'static>,
) -> Result<Connection, String> {
    match TlsConnector::from(Arc::clone(config)).connect(name, stream).await {
        Ok(stream) => Ok(Box::new(stream)),
        Err(error) => Err(format!("the TLS handshake failed: {}", plain(&error))),
    }
}
