//! A connection to the target, with or without TLS.
//!
//! Any server certificate is accepted, because a test server has no trusted one. The key exchange
//! is X25519, which every server supports, so that servers with and without a post-quantum hybrid
//! do the same work. P-256 is only for TLS 1.2 certificates.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::path::Path;
use std::sync::Arc;

use nix::sys::socket::{MsgFlags, recv};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind};

use super::answer::Answer;
use crate::error::plain;
use crate::tls::{Expected, PeerVerifier, Trust};

/// The TLS settings that all connections of a run share.
#[derive(Clone, Debug)]
pub(super) struct Tls {
    pub(super) config: Arc<ClientConfig>,
    pub(super) name: ServerName<'static>,
}

/// The size of the session cache for `--resume`. For one server, rustls keeps at most 8 TLS 1.3
/// sessions in it.
const SESSIONS_MAX: usize = 1024;

impl Tls {
    /// Creates TLS settings for `host`. `own` has the files of the client certificate and its key,
    /// for a server that requests a certificate. `alpn` is the protocol to offer.
    ///
    /// # Errors
    /// The problem with the host or the files, as text for the user.
    pub(super) fn new(
        host: &str,
        own: Option<(&Path, &Path)>,
        resume: bool,
        alpn: &[u8],
    ) -> Result<Self, String> {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host.to_owned()).map_err(|e| format!("{host}: {e}"))?;
        let provider = CryptoProvider {
            kx_groups: vec![aws_lc_rs::kx_group::X25519, aws_lc_rs::kx_group::SECP256R1],
            ..aws_lc_rs::default_provider()
        };
        let verifier = PeerVerifier::new(Arc::new(Trust::default()), Expected::Unverified, false);
        let builder = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| plain(&error))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match own {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let at = |path: &Path| format!("{}: ", path.display());
                let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(certificate)
                    .and_then(Iterator::collect)
                    .map_err(|error| format!("{}{error}", at(certificate)));
                let secret = PrivateKeyDer::from_pem_file(key)
                    .map_err(|error| format!("{}{error}", at(key)))?;
                builder
                    .with_client_auth_cert(chain?, secret)
                    .map_err(|error| format!("{}{error}", at(certificate)))?
            }
        };
        config.resumption = match resume {
            true => Resumption::in_memory_sessions(SESSIONS_MAX),
            false => Resumption::disabled(),
        };
        config.alpn_protocols = vec![alpn.to_vec()];
        Ok(Self { config: Arc::new(config), name })
    }

    /// The name of the server, as QUIC takes it.
    pub(super) fn host(&self) -> String {
        self.name.to_str().into_owned()
    }
}

/// An open connection. Its operations do not block.
pub(super) struct Link {
    socket: TcpStream,
    tls: Option<Box<ClientConnection>>,
}

/// The result of one read.
pub(super) struct Portion {
    pub(super) count: usize,
    /// Whether the bytes were only counted and not copied.
    pub(super) discarded: bool,
    /// Whether no more bytes are available now.
    pub(super) is_last: bool,
}

impl Link {
    /// Creates a connection on `socket`, which may still be connecting.
    ///
    /// # Errors
    /// If rustls refuses the configuration.
    pub(super) fn new(socket: TcpStream, tls: Option<&Tls>) -> io::Result<Self> {
        let session = |tls: &Tls| ClientConnection::new(Arc::clone(&tls.config), tls.name.clone());
        let tls = tls.map(session).transpose().map_err(io::Error::other)?.map(Box::new);
        Ok(Self { socket, tls })
    }

    /// The socket of the connection.
    pub(super) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Whether the connection uses TLS.
    pub(super) fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Whether the handshake resumed an earlier session.
    pub(super) fn resumed(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.handshake_kind() == Some(HandshakeKind::Resumed))
    }

    /// Whether bytes are buffered that still have to be sent.
    pub(super) fn wants_write(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.wants_write())
    }

    /// Takes `bytes`, or as many of them as possible, for sending. Returns their number.
    ///
    /// # Errors
    /// As for a write to a socket.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.tls {
            None => self.socket.write(bytes),
            Some(tls) => match tls.writer().write(bytes)? {
                0 => Err(io::ErrorKind::WouldBlock.into()),
                count => Ok(count),
            },
        }
    }

    /// Sends the buffered bytes.
    ///
    /// # Errors
    /// `WouldBlock` if some bytes are still buffered. Otherwise as for a write to a socket.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        let Some(tls) = &mut self.tls else { return Ok(()) };
        while tls.wants_write() {
            tls.write_tls(&mut self.socket)?;
        }
        Ok(())
    }

    /// Reads received bytes. Bytes that `answer` does not need may only be counted.
    ///
    /// # Errors
    /// As for a read from a socket. `InvalidData` if the bytes are not valid TLS.
    pub(super) fn read(&mut self, scratch: &mut [u8], answer: &Answer) -> io::Result<Portion> {
        match &mut self.tls {
            None => read_plain(&self.socket, scratch, answer),
            Some(tls) => loop {
                match tls.reader().read(scratch) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Ok(count) => return Ok(Portion { count, discarded: false, is_last: false }),
                    // Many servers close the connection without close_notify after `connection:
                    // close`. Accept that.
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                        return Ok(Portion { count: 0, discarded: false, is_last: true });
                    }
                    Err(error) => return Err(error),
                }
                // If the connection has ended, the next read reports it.
                tls.read_tls(&mut self.socket)?;
                let processed = tls.process_new_packets();
                while tls.wants_write() {
                    match tls.write_tls(&mut self.socket) {
                        Ok(_) => {}
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                        Err(error) => return Err(error),
                    }
                }
                processed.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            },
        }
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn read_plain(mut socket: &TcpStream, scratch: &mut [u8], answer: &Answer) -> io::Result<Portion> {
    let room = match answer.discardable() {
        0 => scratch.len(),
        bytes => bytes.min(scratch.len()),
    };
    let discarded = answer.discardable() > 0;
    let count = loop {
        let result = if discarded {
            // MSG_TRUNC drops the bytes in the kernel, so that no CPU time is spent on a copy.
            recv(socket.as_raw_fd(), &mut scratch[..room], MsgFlags::MSG_TRUNC).map_err(Into::into)
        } else {
            socket.read(&mut scratch[..room])
        };
        match result {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => break other?,
        }
    };
    Ok(Portion { count, discarded, is_last: count < room })
}
