//! Checks one token: its form, its signature and its claims.

use jsonwebtoken::dangerous::insecure_decode_claims;
use jsonwebtoken::{Header, Validation, decode, decode_header};
use serde_json::{Map, Value};

use super::claims::Claims;
use super::provider::Provider;

/// The maximum length of an accepted token, in bytes.
const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// The maximum number of keys that are tried for a token without `kid`.
const KEYS_TRIED_MAX: usize = 8;

/// The reason why a request's token is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// The request has no token, but needs one.
    Missing,
    /// The request has more than one token.
    Ambiguous,
    /// The token is too long, cannot be decoded, is encrypted, or has `crit` extensions.
    Malformed,
    /// The issuer is not trusted by the route.
    Issuer,
    /// The issuer's key does not allow the algorithm that the token names, for example `none` or a
    /// shared secret.
    Algorithm,
    /// The issuer has no key with the `kid` of the token.
    Key,
    /// The signature is wrong.
    Signature,
    /// The token has expired, or has no `exp`.
    Expired,
    /// The token is not valid yet.
    NotYetValid,
    /// The token is for another audience.
    Audience,
}

impl Rejection {
    /// Every reason, in the order of [`Rejection::index`].
    pub const ALL: [Self; 10] = [
        Self::Missing,
        Self::Ambiguous,
        Self::Malformed,
        Self::Issuer,
        Self::Algorithm,
        Self::Key,
        Self::Signature,
        Self::Expired,
        Self::NotYetValid,
        Self::Audience,
    ];

    /// The value of the metric label `result`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Ambiguous => "ambiguous",
            Self::Malformed => "malformed",
            Self::Issuer => "issuer",
            Self::Algorithm => "algorithm",
            Self::Key => "key",
            Self::Signature => "signature",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::Audience => "audience",
        }
    }

    /// The text in the response to the client.
    pub fn detail(self) -> &'static str {
        match self {
            Self::Missing => "a token is required",
            Self::Ambiguous => "more than one token",
            Self::Malformed => "the token is malformed",
            Self::Issuer => "the token's issuer is not accepted",
            Self::Algorithm => "the token's algorithm is not accepted",
            Self::Key => "the token's key is not known",
            Self::Signature => "the token's signature is wrong",
            Self::Expired => "the token has expired",
            Self::NotYetValid => "the token is not valid yet",
            Self::Audience => "the token is for another audience",
        }
    }

    /// The position in [`Rejection::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }
}

/// Returns the issuer that `token` claims. The claim is not verified.
pub(super) fn issuer(token: &[u8]) -> Result<String, Rejection> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(Rejection::Malformed);
    }
    let claims: Map<String, Value> =
        insecure_decode_claims(token).map_err(|_| Rejection::Malformed)?;
    match claims.get("iss") {
        Some(Value::String(issuer)) => Ok(issuer.clone()),
        _ => Err(Rejection::Issuer),
    }
}

/// Checks that `provider` has signed `token` for one of its audiences, and that it is valid at
/// `now_unix_s`.
pub(super) fn check(
    token: &[u8],
    provider: &Provider,
    now_unix_s: i64,
) -> Result<Claims, Rejection> {
    // The decoder rejects `none` and unknown algorithms.
    let header = decode_header(token).map_err(|_| Rejection::Algorithm)?;
    if header.crit.is_some() || header.enc.is_some() {
        return Err(Rejection::Malformed); // RFC 7515 4.1.11: unknown critical headers are refused
    }
    let claims = verified(token, &header, provider)?;
    if claims.text("iss") != Some(&provider.issuer) {
        return Err(Rejection::Issuer);
    }
    check_time(&claims, provider, now_unix_s)?;
    if !provider.audiences.is_empty() && !claims.is_for(&provider.audiences) {
        return Err(Rejection::Audience);
    }
    Ok(claims)
}

/// Whether a token with these claims is valid at `now_unix_s`.
pub(super) fn check_time(
    claims: &Claims,
    provider: &Provider,
    now_unix_s: i64,
) -> Result<(), Rejection> {
    let leeway = provider.leeway_s;
    // A token without an expiry would be valid forever, so it counts as expired.
    if claims.seconds("exp").is_none_or(|end| now_unix_s >= end.saturating_add(leeway)) {
        return Err(Rejection::Expired);
    }
    if claims.seconds("nbf").is_some_and(|begin| now_unix_s.saturating_add(leeway) < begin) {
        return Err(Rejection::NotYetValid);
    }
    Ok(())
}

fn verified(token: &[u8], header: &Header, provider: &Provider) -> Result<Claims, Rejection> {
    let mut validation = Validation::new(header.alg);
    // Check only the signature here. The caller checks the claims.
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_aud = false;
    let mut rejection = Rejection::Key;
    let candidates = provider.keys.candidates(header.kid.as_deref());
    for key in candidates.take(KEYS_TRIED_MAX) {
        if !key.allows(header.alg) {
            rejection = rejection.max_of(Rejection::Algorithm);
            continue;
        }
        match decode::<Map<String, Value>>(token, &key.key, &validation) {
            Ok(data) => return Ok(data.claims.into()),
            Err(_) => rejection = Rejection::Signature,
        }
    }
    if rejection == Rejection::Key {
        provider.wanted.ring();
    }
    Err(rejection)
}

impl Rejection {
    /// Returns this reason, because it came first. Only [`Rejection::Key`] is replaced by `other`,
    /// because it means that no key was tried yet.
    fn max_of(self, other: Self) -> Self {
        if self == Self::Key { other } else { self }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use jsonwebtoken::jwk::Jwk;
    use jsonwebtoken::{Algorithm, EncodingKey, encode};
    use rcgen::{KeyPair, PKCS_RSA_SHA256, RsaKeySize};
    use serde_json::json;

    use super::*;
    use crate::cells::PerWorker;
    use crate::jwt::{KeySet, KeysWanted, Presented, Requirement};

    const NOW: i64 = 1_800_000_000;

    /// An issuer's private key, and the public key as a JSON Web Key.
    pub(in crate::jwt) struct Signer {
        pub(in crate::jwt) jwk: String,
        key: EncodingKey,
        algorithm: Algorithm,
        id: String,
    }

    impl Signer {
        fn new(id: &str, key: EncodingKey, algorithm: Algorithm) -> Self {
            let mut jwk = Jwk::from_encoding_key(&key, algorithm).unwrap();
            jwk.common.key_id = Some(id.to_owned());
            jwk.common.public_key_use = Some(jsonwebtoken::jwk::PublicKeyUse::Signature);
            let jwk = serde_json::to_string(&jwk).unwrap();
            Self { jwk, key, algorithm, id: id.to_owned() }
        }

        pub(in crate::jwt) fn es256(id: &str) -> Self {
            let der = KeyPair::generate().unwrap().serialize_der();
            Self::new(id, EncodingKey::from_ec_der(&der), Algorithm::ES256)
        }

        pub(in crate::jwt) fn ed25519(id: &str) -> Self {
            let pair = aws_lc_rs::signature::Ed25519KeyPair::generate().unwrap();
            let der = pair.to_pkcs8v1().unwrap();
            Self::new(id, EncodingKey::from_ed_der(der.as_ref()), Algorithm::EdDSA)
        }

        fn rs256(id: &str) -> Self {
            /// The length of the PKCS#8 prefix before the PKCS#1 key.
            const PREFIX_BYTES: usize = 26;
            let pair = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
            let der = &pair.serialize_der()[PREFIX_BYTES..];
            Self::new(id, EncodingKey::from_rsa_der(der), Algorithm::RS256)
        }

        fn sign(&self, claims: &Value) -> String {
            let mut header = Header::new(self.algorithm);
            header.kid = Some(self.id.clone());
            encode(&header, claims, &self.key).unwrap()
        }
    }

    fn requirement(keys: &[&Signer]) -> Requirement {
        let list: Vec<&str> = keys.iter().map(|signer| signer.jwk.as_str()).collect();
        let set = format!("{{\"keys\":[{}]}}", list.join(","));
        let provider = Provider {
            name: "test".into(),
            issuer: "https://issuer".into(),
            audiences: vec!["shop".into(), "stock".into()],
            leeway_s: 60,
            field: "authorization".into(),
            forward: false,
            keys: Arc::new(KeySet::parse(set.as_bytes()).unwrap()),
            wanted: KeysWanted::default(),
            stats: Arc::new(PerWorker::new(1)),
        };
        Requirement { providers: vec![Arc::new(provider)], optional: false }
    }

    fn good() -> Value {
        json!({"iss": "https://issuer", "aud": "shop", "sub": "jo", "exp": NOW + 300})
    }

    fn checked(requirement: &Requirement, token: &str) -> Result<Claims, Rejection> {
        let found = Presented { token: token.as_bytes(), field: "authorization" };
        requirement.check(found, NOW).map(|accepted| accepted.claims)
    }

    #[test]
    fn tokens_of_every_kind_of_key_are_accepted() {
        for signer in [Signer::es256("a"), Signer::ed25519("a"), Signer::rs256("a")] {
            let requirement = requirement(&[&Signer::es256("other"), &signer]);
            let claims = checked(&requirement, &signer.sign(&good())).unwrap();
            assert_eq!(claims.text("sub"), Some("jo"), "{:?}", signer.algorithm);
            assert!(!requirement.providers[0].wanted.take());
        }
    }

    #[test]
    fn claims_decide_by_issuer_time_and_audience() {
        let signer = Signer::es256("a");
        let requirement = requirement(&[&signer]);
        for (claim, value, expected) in [
            ("iss", json!("https://other"), Some(Rejection::Issuer)),
            ("iss", json!(["https://issuer"]), Some(Rejection::Issuer)),
            ("iss", Value::Null, Some(Rejection::Issuer)),
            ("exp", json!(NOW - 59), None),
            ("exp", json!(NOW - 60), Some(Rejection::Expired)),
            ("exp", json!((NOW - 59) as f64 + 0.5), None),
            ("exp", json!("tomorrow"), Some(Rejection::Expired)),
            ("exp", Value::Null, Some(Rejection::Expired)),
            ("exp", json!(i64::MAX), None),
            ("nbf", json!(NOW + 60), None),
            ("nbf", json!(NOW + 61), Some(Rejection::NotYetValid)),
            ("aud", json!(["x", "stock"]), None),
            ("aud", json!(["x"]), Some(Rejection::Audience)),
            ("aud", json!("shopping"), Some(Rejection::Audience)),
            ("aud", Value::Null, Some(Rejection::Audience)),
        ] {
            let mut claims = good();
            claims[claim] = value.clone();
            let result = checked(&requirement, &signer.sign(&claims));
            assert_eq!(result.err(), expected, "{claim}: {value}");
        }
    }

    #[test]
    fn a_token_counts_only_for_the_issuers_of_its_field() {
        let signer = Signer::es256("a");
        let requirement = requirement(&[&signer]);
        let token = signer.sign(&good());
        for (field, expected) in [("authorization", None), ("x-token", Some(Rejection::Issuer))] {
            let found = Presented { token: token.as_bytes(), field };
            assert_eq!(requirement.check(found, NOW).err(), expected, "{field}");
        }
    }

    /// Attacks on the token's algorithm (RFC 8725 2.1, 3.1).
    #[test]
    fn the_token_does_not_choose_how_it_is_verified() {
        let (signer, stranger) = (Signer::es256("a"), Signer::es256("a"));
        let requirement = requirement(&[&signer, &Signer::rs256("r")]);
        let token = signer.sign(&good());
        let (head, rest) = token.split_once('.').unwrap();
        let (payload, signature) = rest.split_once('.').unwrap();
        let with_head =
            |json: &str, signature: &str| format!("{}.{payload}.{signature}", base64_url(json));
        // The attacker signs with the public key as a shared secret.
        let confused = {
            let mut header = Header::new(Algorithm::HS256);
            header.kid = Some("a".to_owned());
            encode(&header, &good(), &EncodingKey::from_secret(signer.jwk.as_bytes())).unwrap()
        };
        let stolen = stranger.sign(&good());
        let unknown = Signer::es256("z").sign(&good());
        let changed = {
            let mut claims = good();
            claims["sub"] = json!("root");
            let other = signer.sign(&claims);
            let payload = other.split('.').nth(1).unwrap().to_owned();
            format!("{head}.{payload}.{signature}")
        };
        for (what, token, expected) in [
            ("none", with_head(r#"{"alg":"none"}"#, ""), Rejection::Algorithm),
            ("None", with_head(r#"{"alg":"None","kid":"a"}"#, signature), Rejection::Algorithm),
            ("HS256 with the public key", confused, Rejection::Algorithm),
            ("RS256", with_head(r#"{"alg":"RS256","kid":"a"}"#, signature), Rejection::Algorithm),
            ("ES384", with_head(r#"{"alg":"ES384","kid":"a"}"#, signature), Rejection::Algorithm),
            ("another key of that name", stolen, Rejection::Signature),
            ("a key that is not known", unknown, Rejection::Key),
            ("changed claims", changed, Rejection::Signature),
            ("no signature", format!("{head}.{payload}."), Rejection::Signature),
            (
                "crit",
                with_head(r#"{"alg":"ES256","kid":"a","crit":["x"]}"#, signature),
                Rejection::Malformed,
            ),
            (
                "its own key",
                with_head(
                    &format!(r#"{{"alg":"ES256","jwk":{}}}"#, stranger.jwk),
                    stolen_signature(&stranger.sign(&good())),
                ),
                Rejection::Signature,
            ),
            ("two parts", format!("{head}.{payload}"), Rejection::Malformed),
            ("four parts", format!("{token}.x"), Rejection::Malformed),
            ("garbage", "a.b.c".to_owned(), Rejection::Malformed),
            ("empty", String::new(), Rejection::Malformed),
            ("too long", "a".repeat(TOKEN_BYTES_MAX + 1), Rejection::Malformed),
        ] {
            assert_eq!(checked(&requirement, &token).err(), Some(expected), "{what}");
        }
        assert!(requirement.providers[0].wanted.take(), "an unknown key asks for new ones");
    }

    fn stolen_signature(token: &str) -> &str {
        token.rsplit('.').next().unwrap()
    }

    /// Base64 for URLs without padding (RFC 7515 2).
    fn base64_url(text: &str) -> String {
        const LETTERS: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let mut out = String::new();
        for group in text.as_bytes().chunks(3) {
            let bits = group.iter().fold(0_u32, |bits, &byte| bits << 8 | u32::from(byte))
                << (8 * (3 - group.len()));
            for index in 0..=group.len() {
                out.push(char::from(LETTERS[(bits >> (18 - 6 * index)) as usize & 63]));
            }
        }
        out
    }
}
