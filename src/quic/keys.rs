//! The keys of stateless resets and address validation tokens.

use std::sync::Arc;

use aws_lc_rs::{hkdf, hmac};
use quinn_proto::crypto::{HandshakeTokenKey, HmacKey};

/// The keys that all workers share, so that each can reset a connection of another worker, and read
/// the tokens of another worker.
#[derive(Clone)]
pub struct Keys {
    pub(super) reset: Arc<dyn HmacKey>,
    pub(super) token: Arc<dyn HandshakeTokenKey>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys")
    }
}

impl Keys {
    /// Derives the keys from `secret`. The same secret gives the same keys, so resets and tokens
    /// hold over a restart.
    pub fn derive(secret: &[u8]) -> Self {
        let reset = hmac::Key::new(hmac::HMAC_SHA256, &part(secret, b"ringway quic reset"));
        let token = hkdf::Salt::new(hkdf::HKDF_SHA256, b"ringway quic token").extract(secret);
        Self { reset: Arc::new(reset), token: Arc::new(token) }
    }
}

/// Derives 32 bytes for one purpose (HMAC as a key derivation function).
fn part(secret: &[u8], purpose: &[u8]) -> [u8; 32] {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let tag = hmac::sign(&key, purpose);
    let mut bytes = [0; 32];
    bytes.copy_from_slice(tag.as_ref());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_secret_gives_the_same_reset_tokens() {
        let sign = |secret: &[u8]| {
            let mut out = [0; 32];
            Keys::derive(secret).reset.sign(b"an id", &mut out);
            out
        };
        assert_eq!(sign(b"one"), sign(b"one"));
        assert_ne!(sign(b"one"), sign(b"two"));
    }
}
