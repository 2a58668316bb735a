//! A QUIC client that is not ours. It looks whether a server accepts its connection.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use pki_types::pem::PemObject as _;
use pki_types::{CertificateDer, PrivateKeyDer};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ConnectionError, EndpointConfig, TokioRuntime};
use ringway::tls::{Expected, PeerVerifier, Trust};
use rustls::ClientConfig;

/// The fate of a connection to `to` for HTTP/3 with the server name `name`: `served` if the
/// server opens a stream, `alert N` if it refuses the handshake, `closed: N` if it closes the
/// connection, N being the code. The client presents `CERTIFICATE.pem`, if a path is given.
pub fn fate(to: SocketAddr, name: &str, certificate: Option<&str>) -> String {
    let any = PeerVerifier::new(Arc::new(Trust::default()), Expected::Unverified, false);
    let builder = ClientConfig::builder().dangerous();
    let builder = builder.with_custom_certificate_verifier(Arc::new(any));
    let mut tls = match certificate {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let chain = CertificateDer::pem_file_iter(format!("{path}.pem")).unwrap();
            let key = PrivateKeyDer::from_pem_file(format!("{path}.key")).unwrap();
            builder.with_client_auth_cert(chain.map(Result::unwrap).collect(), key).unwrap()
        }
    };
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let crypto = QuicClientConfig::try_from(tls).unwrap();
    let config = quinn::ClientConfig::new(Arc::new(crypto));
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let runtime = Arc::new(TokioRuntime);
        let endpoint = quinn::Endpoint::new(EndpointConfig::default(), None, socket, runtime);
        let endpoint = endpoint.unwrap();
        let opened = async {
            let connection = endpoint.connect_with(config, to, name).unwrap().await?;
            connection.accept_uni().await.map(drop)
        };
        let fate = match tokio::time::timeout(super::PATIENCE, opened).await {
            Ok(Ok(())) => "served".to_owned(),
            Ok(Err(ConnectionError::ApplicationClosed(close))) => {
                format!("closed: {:#x}", close.error_code.into_inner())
            }
            Ok(Err(ConnectionError::ConnectionClosed(close))) => {
                format!("alert {}", u64::from(close.error_code) & 0xff)
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "silence".to_owned(),
        };
        endpoint.close(0_u8.into(), b"");
        fate
    })
}
