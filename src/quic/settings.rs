//! Compiled settings of QUIC: the TLS of a listener, and the transport's limits and windows.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use quinn_proto::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn_proto::{
    ClientConfig, IdleTimeout, ServerConfig, TokenLog, TokenReuseError, TransportConfig,
    ValidationTokenConfig, VarInt,
};

use super::keys::Keys;

/// How many unidirectional streams a peer may open: its control stream, two for QPACK, and some
/// that are ignored (RFC 9114 6.2).
const UNI_STREAMS_MAX: u32 = 8;

/// How many streams a client may open at first. quinn-proto keeps a place of 42 bytes for each
/// stream that is allowed, in hash maps of 56, 112 or 224 places, so an idle connection with few of
/// them is 8 KB smaller.
const STREAMS_AT_FIRST: u32 = 40;

/// A client may open more when it has so many open.
const STREAMS_FOR_MORE: u64 = 10;

/// The bytes that a handshake may take before its keys are there: certificates of a long chain.
const CRYPTO_BUFFER_BYTES: usize = 64 * 1024;

/// The bytes of datagrams that are kept for one connection attempt until it is accepted.
const ATTEMPT_BYTES_MAX: u64 = 64 * 1024;

/// How many tokens a client gets. With a token, it proves its address in its first datagram.
const TOKENS_SENT: u32 = 1;

/// How long a token holds.
const TOKEN_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// Accepts a token again: it says only that the client's address was proven before. The address is
/// in the token, so that nobody else can use it.
struct AnyToken;

impl TokenLog for AnyToken {
    fn check_and_insert(&self, _: u128, _: SystemTime, _: Duration) -> Result<(), TokenReuseError> {
        Ok(())
    }
}

/// The limits and windows of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transport {
    /// How many streams the peer may have open.
    pub streams_max: u32,
    /// The bytes of one stream that may wait to be read.
    pub stream_window_bytes: u32,
    /// The bytes of all streams together that may wait to be read.
    pub window_bytes: u32,
    /// The bytes of all streams together that may wait to be sent or acknowledged.
    pub send_window_bytes: u32,
    /// A connection ends when no packet has arrived for this time.
    pub idle: Duration,
    /// Whether a client may move to another address.
    pub migration: bool,
}

impl Default for Transport {
    fn default() -> Self {
        Self {
            streams_max: 100,
            stream_window_bytes: 256 * 1024,
            window_bytes: 1024 * 1024,
            send_window_bytes: 1024 * 1024,
            idle: Duration::from_secs(60),
            migration: true,
        }
    }
}

impl Transport {
    fn config(&self) -> TransportConfig {
        let mut config = TransportConfig::default();
        config
            .max_concurrent_bidi_streams(self.streams_max.min(STREAMS_AT_FIRST).into())
            .max_concurrent_uni_streams(UNI_STREAMS_MAX.into())
            .stream_receive_window(self.stream_window_bytes.into())
            .receive_window(self.window_bytes.into())
            .send_window(self.send_window_bytes.into())
            .max_idle_timeout(idle(self.idle))
            .crypto_buffer_size(CRYPTO_BUFFER_BYTES)
            .datagram_receive_buffer_size(None);
        config
    }
}

/// The idle timeout as a transport parameter. `None` (no timeout) if it is too long to be written.
fn idle(timeout: Duration) -> Option<IdleTimeout> {
    let milliseconds = u64::try_from(timeout.as_millis()).ok()?;
    VarInt::from_u64(milliseconds).ok().map(IdleTimeout::from)
}

/// The settings with which a listener accepts QUIC connections.
#[derive(Clone, Debug)]
pub struct ServerQuic {
    pub(super) config: Arc<ServerConfig>,
    pub(super) more: Option<MoreStreams>,
}

/// How many streams a peer may open when it uses those that it may open at first.
#[derive(Clone, Copy, Debug)]
pub(super) struct MoreStreams {
    /// It may open more when this many are open.
    pub from: u64,
    /// Then it may have this many open.
    pub max: u32,
}

impl MoreStreams {
    /// `None` if a peer may open all of `streams_max` at first.
    fn new(streams_max: u32) -> Option<Self> {
        let more = Self { from: STREAMS_FOR_MORE, max: streams_max };
        (streams_max > STREAMS_AT_FIRST).then_some(more)
    }
}

impl ServerQuic {
    /// Compiles the settings. `tls` must support TLS 1.3.
    ///
    /// # Errors
    /// If `tls` has no cipher suite for QUIC's first packets (AES-128-GCM).
    pub fn new(
        tls: Arc<rustls::ServerConfig>,
        keys: &Keys,
        transport: &Transport,
    ) -> Result<Self, rustls::Error> {
        let takes_early_data = tls.max_early_data_size > 0;
        let crypto = QuicServerConfig::try_from(tls)
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        let mut config = ServerConfig::new(Arc::new(crypto), Arc::clone(&keys.token));
        config
            .transport_config(Arc::new(transport.config()))
            .migration(transport.migration)
            .incoming_buffer_size(ATTEMPT_BYTES_MAX);
        if takes_early_data {
            let mut tokens = ValidationTokenConfig::default();
            tokens.lifetime(TOKEN_LIFETIME).sent(TOKENS_SENT).log(Arc::new(AnyToken));
            config.validation_token_config(tokens);
        }
        Ok(Self { config: Arc::new(config), more: MoreStreams::new(transport.streams_max) })
    }
}

/// The settings with which connections to endpoints are opened.
#[derive(Clone, Debug)]
pub struct ClientQuic {
    pub(super) config: ClientConfig,
    pub(super) keys: Keys,
}

impl ClientQuic {
    /// Compiles the settings. `tls` must support TLS 1.3.
    ///
    /// # Errors
    /// If `tls` has no cipher suite for QUIC's first packets (AES-128-GCM).
    pub fn new(
        tls: Arc<rustls::ClientConfig>,
        keys: &Keys,
        transport: &Transport,
    ) -> Result<Self, rustls::Error> {
        let crypto = QuicClientConfig::try_from(tls)
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        let mut config = ClientConfig::new(Arc::new(crypto));
        config.transport_config(Arc::new(transport.config()));
        Ok(Self { config, keys: keys.clone() })
    }

    /// The keys of the endpoint that opens the connections.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }
}
