//! Tokens and key sets: no panic; what nobody has signed is never accepted, whatever it says of
//! itself; and conditions on claims never fit a claim that is not there.
#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use ringway::http1::parse;
use ringway::jwt::{KeySet, KeysWanted, Provider, Requirement};
use ringway::message::Head;
use ringway::message::Limits;
use ringway::cells::PerWorker;

/// The public key of RFC 8037 A.2, of which no fuzzer finds a signature.
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

fuzz_target!(|bytes: &[u8]| {
    assert!(REQUIREMENT.check(bytes, 1_800_000_000).is_err());
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
});
