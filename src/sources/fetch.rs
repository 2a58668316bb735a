//! Fetches over HTTP on a thread that may block. The lookups and connections have the proxy's
//! SO_MARK, so that the capture rules do not redirect them.

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use pki_types::CertificateDer;
use pki_types::pem::PemObject as _;
use tokio::runtime::Handle;
use tokio::time::timeout;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectProxyConnector, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout,
    RustlsConnector, Transport,
};
use ureq::{Agent, Error, Timeout};

use super::lookup::Lookups;
use crate::error::plain;
use crate::tls::PROVIDER;

/// The file of the public CAs on Debian and most other systems.
const PUBLIC_CAS: &str = "/etc/ssl/certs/ca-certificates.crt";

/// The maximum number of addresses of a host that are tried.
const ADDRESSES_MAX: usize = 8;

/// Makes HTTP clients. Clones share all state.
#[derive(Clone)]
pub struct Fetcher {
    lookups: Lookups,
    /// The runtime that drives lookups and connects.
    runtime: Handle,
}

impl fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fetcher")
    }
}

/// The TLS settings of a client that calls `url`. `ca_pem` are the CAs to trust; the default for
/// https is the CAs of the system.
///
/// # Errors
/// If the CAs of the system cannot be read.
pub fn tls(url: &str, ca_pem: Option<&[u8]>) -> Result<TlsConfig, String> {
    let all = match url.starts_with("https:") {
        true => authorities(ca_pem)?,
        false => Vec::new(),
    };
    let roots = all.iter().map(|root| Certificate::from_der(root).to_owned());
    Ok(TlsConfig::builder()
        .root_certs(RootCerts::new_with_certs(&roots.collect::<Vec<_>>()))
        .unversioned_rustls_crypto_provider(Arc::clone(&PROVIDER))
        .build())
}

/// The CAs in `pem`, or those of the system.
///
/// # Errors
/// If the CAs of the system cannot be read.
pub fn authorities(pem: Option<&[u8]>) -> Result<Vec<CertificateDer<'static>>, String> {
    let of_system;
    let pem = match pem {
        Some(pem) => pem,
        None => {
            of_system = std::fs::read(PUBLIC_CAS).map_err(|error| {
                format!("cannot read the public CAs: {PUBLIC_CAS}: {}", plain(&error))
            })?;
            &of_system
        }
    };
    Ok(CertificateDer::pem_slice_iter(pem).filter_map(Result::ok).collect())
}

impl Fetcher {
    /// Creates a fetcher for threads that do not belong to the current runtime.
    ///
    /// # Panics
    /// If no runtime is current.
    pub fn new(lookups: Lookups) -> Self {
        Self { lookups, runtime: Handle::current() }
    }

    /// Creates an HTTP client. Its calls block, so they belong on a thread of their own.
    pub fn agent(&self, config: Config) -> Agent {
        let connector = ().chain(ConnectProxyConnector::default()).chain(self.clone());
        Agent::with_parts(config, connector.chain(RustlsConnector::default()), self.clone())
    }

    fn connect(&self, details: &ConnectionDetails<'_>) -> Result<TcpStream, Error> {
        let mut last = Error::HostNotFound;
        for address in &details.addrs {
            let connecting =
                timeout(limit(details.timeout), self.lookups.outward().stream(*address));
            // The timer of `connecting` needs the runtime as its context.
            let _context = self.runtime.enter();
            match self.runtime.block_on(connecting) {
                Err(_) => return Err(Error::Timeout(Timeout::Connect)),
                Ok(Err(error)) => last = error.into(),
                Ok(Ok(stream)) => {
                    let stream = stream.into_std()?;
                    stream.set_nonblocking(false)?;
                    return Ok(stream);
                }
            }
        }
        Err(last)
    }
}

impl Resolver for Fetcher {
    fn resolve(
        &self,
        uri: &Uri,
        _: &Config,
        patience: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let default = if uri.scheme_str() == Some("https") { 443 } else { 80 };
        let port = uri.port_u16().unwrap_or(default);
        let host = uri.host().ok_or(Error::HostNotFound)?.trim_matches(['[', ']']);
        let ips = match host.parse::<IpAddr>() {
            Ok(ip) => vec![ip],
            Err(_) => {
                let _context = self.runtime.enter();
                let looking = timeout(limit(patience), self.lookups.all_addresses(host));
                let found = self.runtime.block_on(looking);
                let found = found.map_err(|_| Error::Timeout(patience.reason))?;
                found.map_err(|why| Error::Io(io::Error::other(format!("{host}: {why}"))))?
            }
        };
        let mut addresses = self.empty();
        let list = ips.into_iter().take(ADDRESSES_MAX);
        list.for_each(|ip| addresses.push(SocketAddr::new(ip, port)));
        if addresses.is_empty() { Err(Error::HostNotFound) } else { Ok(addresses) }
    }
}

impl<In: Transport> Connector<In> for Fetcher {
    type Out = Either<In, Connection>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, Error> {
        if let Some(tunnel) = chained {
            return Ok(Some(Either::A(tunnel)));
        }
        let stream = Self::connect(self, details)?;
        let (input, output) =
            (details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(Either::B(Connection { stream, buffers: LazyBuffers::new(input, output) })))
    }
}

/// A connection without TLS. It is the transport of the HTTP client.
pub struct Connection {
    stream: TcpStream,
    buffers: LazyBuffers,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connection")
    }
}

impl Transport for Connection {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, patience: NextTimeout) -> Result<(), Error> {
        self.stream.set_write_timeout(Some(limit(patience)))?;
        let written = self.stream.write_all(&self.buffers.output()[..amount]);
        written.map_err(|error| late(error, patience))
    }

    fn await_input(&mut self, patience: NextTimeout) -> Result<bool, Error> {
        self.stream.set_read_timeout(Some(limit(patience)))?;
        let read = self.stream.read(self.buffers.input_append_buf());
        let n = read.map_err(|error| late(error, patience))?;
        self.buffers.input_appended(n);
        Ok(n > 0)
    }

    fn is_open(&mut self) -> bool {
        false // each fetch has a connection of its own
    }
}

/// The time left until the timeout, at least 1 ms, because a socket refuses a timeout of zero.
fn limit(patience: NextTimeout) -> Duration {
    (*patience.after).max(Duration::from_millis(1))
}

/// Converts an error of a socket. The kernel reports an expired timeout as `WouldBlock`.
fn late(error: io::Error, patience: NextTimeout) -> Error {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Error::Timeout(patience.reason),
        _ => Error::Io(error),
    }
}
