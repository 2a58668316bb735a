//! WebSocket upgrades: HTTP/1.1 uses Upgrade (RFC 6455 4), HTTP/2 uses extended CONNECT (RFC 8441
//! 5) without a key or an accept value.

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The only upgrade that the proxy translates between HTTP/1.1 and HTTP/2.
pub const PROTOCOL: &str = "websocket";

/// The request field with the client's random key (RFC 6455 11.3.1).
pub const KEY: &str = "sec-websocket-key";

/// The response field that is computed from the key (RFC 6455 11.3.3).
pub const ACCEPT: &str = "sec-websocket-accept";

/// The constant that is hashed with the key (RFC 6455 1.3).
const SALT: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Returns the value of Sec-WebSocket-Key: the base64 of `nonce`.
pub fn key(nonce: [u8; 16]) -> String {
    STANDARD.encode(nonce)
}

/// Returns the value of Sec-WebSocket-Accept for `key`.
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
