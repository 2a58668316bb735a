//! Tokens and key sets: no panic. A token without a valid signature is never accepted. A condition
//! on a claim never matches a token without this claim.

use std::sync::{Arc, LazyLock};

use ringway::cells::PerWorker;
use ringway::http1::parse;
use ringway::jwt::{KeySet, KeysWanted, Presented, Provider, Requirement};
use ringway::message::Head;
use ringway::message::Limits;

/// The public key of RFC 8037 A.2. A fuzzer cannot find a signature for it.
const KEYS: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","alg":"EdDSA","kid":"a",
    "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

static REQUIREMENT: LazyLock<Requirement> = LazyLock::new(|| {
    let provider = |field: &str| Provider {
        name: "test".into(),
        issuer: "me".into(),
        audiences: Vec::new(),
        leeway_s: 60,
        field: field.into(),
        forward: false,
        keys: Arc::new(KeySet::parse(KEYS.as_bytes()).unwrap()),
        wanted: KeysWanted::default(),
        stats: Arc::new(PerWorker::new(1)),
    };
    let providers = ["authorization", "x-token"].map(|field| Arc::new(provider(field)));
    Requirement { providers: providers.to_vec(), optional: false }
});

pub fn holds(bytes: &[u8]) {
    let found = Presented { token: bytes, field: "authorization" };
    assert!(REQUIREMENT.check(found, 1_800_000_000).is_err());
    if let Ok(keys) = KeySet::parse(bytes) {
        assert!(!keys.is_empty());
    }
    let mut head = Head::default();
    let Ok(parse::Progress::Complete) =
        parse::request(bytes, 0..bytes.len(), &Limits::default(), &mut head)
    else {
        return;
    };
    if let Ok(Some(token)) = REQUIREMENT.token(head.view(bytes)) {
        assert!(REQUIREMENT.check(token, 1_800_000_000).is_err());
    }
}
