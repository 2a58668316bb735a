//! TLS for clients and endpoints: a state machine over rustls, the streams that use it, and the
//! verification of peers.
//!
//! `session` is the protocol without a socket, `stream` moves its bytes, and `wire` is the
//! interface for the rest of the proxy. `server` and `client` are compiled configurations. `verify`
//! decides whether a peer's certificate is accepted.

mod chain;
mod client;
pub mod forwarded;
mod info;
pub mod reason;
mod server;
mod session;
mod stream;
mod tickets;
mod verify;
mod workload;

use std::sync::{Arc, LazyLock};

use rustls::crypto::CryptoProvider;
use rustls::{CipherSuite, SupportedCipherSuite};

pub use client::ClientTls;
pub use info::CertificateInfo;
pub use server::{CertificateTable, ClientAuth, Mode, ServerParameters, ServerTls, Versions};
pub use session::Session;
pub use stream::{DISCARD_BYTES_MAX, EXPIRED_MEANWHILE, HandshakeError, TlsStream};
pub use tickets::{EarlySessionStores, EarlySessions, TicketKeys, terms_of};
pub use verify::{Bundle, Expected, Issued, PeerVerifier, Trust, spiffe_id};
pub use workload::{IdentityParts, WorkloadIdentity, unknown_key};

/// The cryptography of rustls: aws-lc-rs with X25519MLKEM768 preferred, and AES-128 before AES-256,
/// because AES-128 costs less and is the mandatory suite of TLS 1.3 (RFC 8446 9.1). The process has
/// one provider, and handshakes share its Arc.
pub static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    let is_aes_128 = |suite: &SupportedCipherSuite| {
        matches!(
            suite.suite(),
            CipherSuite::TLS13_AES_128_GCM_SHA256
                | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
                | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
        )
    };
    // The sort is stable, so the other suites keep their order. The version is chosen before the
    // suite.
    provider.cipher_suites.sort_by_key(|suite| !is_aes_128(suite));
    Arc::new(provider)
});

/// The first byte of every TLS connection: a handshake record (RFC 8446 5.1).
pub const FIRST_BYTE: u8 = 0x16;
