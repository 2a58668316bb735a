//! WebSockets on either side: asked for by Upgrade in HTTP/1.1 (RFC 6455 4), by extended CONNECT in
//! HTTP/2 (RFC 8441 5), which needs neither the key nor the proof that it was understood.

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The only protocol that both can ask for.
pub const PROTOCOL: &str = "websocket";

/// The field with the key.
pub const KEY: &str = "sec-websocket-key";

/// The field with the proof.
pub const ACCEPT: &str = "sec-websocket-accept";

/// What the proof is made with (RFC 6455 1.3).
const SALT: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A key made of `nonce`.
pub fn key(nonce: [u8; 16]) -> String {
    STANDARD.encode(nonce)
}

/// The proof that `key` was understood.
pub fn accept(key: &[u8]) -> String {
    let mut hash = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(key);
    hash.update(SALT);
    STANDARD.encode(hash.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proof_is_that_of_rfc_6455_1_3() {
        assert_eq!(accept(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
