//! A TLS client that keeps its connection, for tests that need more control than curl and openssl
//! give.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use pki_types::pem::PemObject as _;
use pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned};

use super::pki::Pki;

/// The configuration of a client that trusts `pki` and presents `NAME.pem` of `pki`, if a name is
/// given. It stores its sessions for resumption.
pub fn client(pki: &Pki, name: Option<&str>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(pki.path("ca.pem")).unwrap() {
        roots.add(root.unwrap()).unwrap();
    }
    let builder = ClientConfig::builder().with_root_certificates(roots);
    Arc::new(match name {
        None => builder.with_no_client_auth(),
        Some(name) => {
            let chain = CertificateDer::pem_file_iter(pki.path(&format!("{name}.pem"))).unwrap();
            let key = PrivateKeyDer::from_pem_file(pki.path(&format!("{name}.key"))).unwrap();
            builder.with_client_auth_cert(chain.map(Result::unwrap).collect(), key).unwrap()
        }
    })
}

/// A server with `NAME.pem` of `pki`.
pub fn server(pki: &Pki, name: &str) -> Arc<ServerConfig> {
    let chain = CertificateDer::pem_file_iter(pki.path(&format!("{name}.pem"))).unwrap();
    let key = PrivateKeyDer::from_pem_file(pki.path(&format!("{name}.key"))).unwrap();
    let builder = ServerConfig::builder().with_no_client_auth();
    Arc::new(builder.with_single_cert(chain.map(Result::unwrap).collect(), key).unwrap())
}

/// One connection.
pub struct TlsClient(StreamOwned<ClientConnection, TcpStream>);

impl TlsClient {
    /// Connects to a loopback port. In TLS 1.3, the server's refusal of the client certificate
    /// arrives only with a later read.
    pub fn connect(config: &Arc<ClientConfig>, port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(super::PATIENCE)).unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        Self(StreamOwned::new(ClientConnection::new(Arc::clone(config), name).unwrap(), stream))
    }

    /// The body of the answer to a GET.
    pub fn get(&mut self) -> io::Result<String> {
        self.0.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
        let mut read = Vec::new();
        loop {
            let mut portion = [0; 4096];
            match super::read_once(&mut self.0, &mut portion)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => read.extend_from_slice(&portion[..n]),
            }
            let text = String::from_utf8_lossy(&read);
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                return Ok(body.to_owned());
            }
        }
    }

    /// Sends bytes and reads as many back.
    pub fn echo(&mut self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        self.0.write_all(bytes)?;
        let mut back = vec![0; bytes.len()];
        self.0.read_exact(&mut back)?;
        Ok(back)
    }

    /// Waits until the peer closes the connection. The peer must send no more data.
    #[track_caller]
    pub fn ends(&mut self) {
        match super::read_once(&mut self.0, &mut [0; 64]) {
            Ok(n) => assert_eq!(n, 0, "it was to end without another word"),
            Err(error) => assert_ne!(error.kind(), io::ErrorKind::WouldBlock, "it never ended"),
        }
    }

    /// Whether the handshake resumed an earlier session.
    pub fn resumed(&self) -> bool {
        self.0.conn.handshake_kind() == Some(rustls::HandshakeKind::Resumed)
    }
}
