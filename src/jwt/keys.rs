//! The public keys of an issuer: a JSON Web Key Set (RFC 7517).

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;
use thiserror::Error;

/// The maximum number of keys that are read from a set. More keys are an error or an attack.
const KEYS_MAX: usize = 100;

const RSA: &[Algorithm] = &[
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

/// The public keys of an issuer.
#[derive(Default)]
pub struct KeySet(Vec<Key>);

/// A public key and its allowed algorithms. The token's `alg` never decides this; otherwise an
/// attacker could use the public key as a shared secret.
pub(super) struct Key {
    id: Option<Box<str>>,
    algorithms: Vec<Algorithm>,
    pub(super) key: DecodingKey,
}

/// The reason why a key set is not usable.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum KeySetError {
    /// The text is not a JSON Web Key Set.
    #[error("not a JSON Web Key Set: {0}")]
    Syntax(String),
    /// No key of the set can verify a token.
    #[error("no public key is usable (RSA of 2048 bits, EC P-256 or P-384, Ed25519)")]
    NoKey,
}

impl KeySet {
    /// Parses a JSON Web Key Set. Ignores keys of unsupported kinds and for other uses (RFC 7517
    /// 5), including shared secrets.
    ///
    /// # Errors
    /// When the text is not a key set, or has no usable key.
    pub fn parse(json: &[u8]) -> Result<Self, KeySetError> {
        let set: Value =
            serde_json::from_slice(json).map_err(|error| KeySetError::Syntax(error.to_string()))?;
        let Some(list) = set.get("keys").and_then(Value::as_array) else {
            return Err(KeySetError::Syntax("it has no list of `keys`".to_owned()));
        };
        let keys: Vec<Key> = list.iter().take(KEYS_MAX).filter_map(Key::read).collect();
        if keys.is_empty() { Err(KeySetError::NoKey) } else { Ok(Self(keys)) }
    }

    /// The number of keys.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no key, for example before the first fetch.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the keys that may have signed a token with this `kid`: the keys with that id and the
    /// keys without an id. For a token without `kid`, returns all keys.
    pub(super) fn candidates(&self, id: Option<&str>) -> impl Iterator<Item = &Key> {
        self.0.iter().filter(move |key| match (id, &key.id) {
            (Some(wanted), Some(id)) => **id == *wanted,
            (Some(_), None) | (None, _) => true,
        })
    }
}

impl std::fmt::Debug for KeySet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeySet({} keys)", self.len())
    }
}

impl Key {
    fn read(value: &Value) -> Option<Self> {
        // `key_ops` is read as text, so that an unknown operation does not make the whole key
        // invalid.
        let operations = value.get("key_ops").and_then(Value::as_array);
        if operations.is_some_and(|list| !list.iter().any(|operation| operation == "verify")) {
            return None;
        }
        let jwk: Jwk = serde_json::from_value(value.clone()).ok()?;
        if !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
            return None;
        }
        let mut algorithms = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => RSA.to_vec(),
            AlgorithmParameters::EllipticCurve(key) => match key.curve {
                EllipticCurve::P256 => vec![Algorithm::ES256],
                EllipticCurve::P384 => vec![Algorithm::ES384],
                _ => return None,
            },
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
                vec![Algorithm::EdDSA]
            }
            _ => return None,
        };
        if let Some(only) = jwk.common.key_algorithm {
            algorithms.retain(|&algorithm| is_same(only, algorithm));
        }
        let key = DecodingKey::from_jwk(&jwk).ok()?;
        let id = jwk.common.key_id.map(String::into_boxed_str);
        (!algorithms.is_empty()).then_some(Self { id, algorithms, key })
    }

    pub(super) fn allows(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }
}

fn is_same(named: KeyAlgorithm, algorithm: Algorithm) -> bool {
    format!("{named:?}") == format!("{algorithm:?}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jwt::token::tests::Signer;

    #[test]
    fn keys_that_cannot_verify_are_passed_over() {
        let good = Signer::es256("a").jwk;
        for (extra, count) in [
            (r#"{"kty":"oct","k":"c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0","alg":"HS256"}"#, 1),
            (r#"{"kty":"new","x":"y"}"#, 1),
            (r#"{"kty":"RSA","n":"AQAB"}"#, 1),
            (r#"17"#, 1),
            (&good.replace("\"use\":\"sig\"", "\"use\":\"enc\""), 1),
            (&good.replace("\"use\":\"sig\"", "\"key_ops\":[\"encrypt\"]"), 1),
            (&good.replace("\"use\":\"sig\"", "\"key_ops\":[\"verify\",\"x\"]"), 2),
            (&good.replace("ES256", "ES384"), 1),
            (&Signer::ed25519("b").jwk, 2),
        ] {
            let set = KeySet::parse(format!("{{\"keys\":[{extra},{good}]}}").as_bytes()).unwrap();
            assert_eq!(set.len(), count, "{extra}");
        }
    }

    #[test]
    fn what_is_no_key_set_says_so() {
        for (text, expected) in [
            ("", "not a JSON Web Key Set"),
            ("{}", "no list of `keys`"),
            (r#"{"keys": {}}"#, "no list of `keys`"),
            (r#"{"keys": []}"#, "no public key"),
            (r#"{"keys": [{"kty":"oct","k":"AAAA"}]}"#, "no public key"),
        ] {
            let error = KeySet::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
