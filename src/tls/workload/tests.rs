use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose, SanType,
};

use super::*;

const ID: &str = "spiffe://one.example/shop";

struct Made {
    chain: Vec<u8>,
    key: Vec<u8>,
    root: Vec<u8>,
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

/// A certificate for `id`, and its root.
fn made(id: &str) -> Made {
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let issuer = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut leaf = CertificateParams::default();
    leaf.subject_alt_names = vec![uri(id)];
    let chain = leaf.signed_by(&key, &issuer).unwrap().der().to_vec();
    Made { chain, key: key.serialize_der(), root: issuer.der().to_vec() }
}

fn read(made: &Made, federated: &[(&str, &[u8])]) -> Result<WorkloadIdentity, String> {
    let Made { chain, key, root } = made;
    WorkloadIdentity::read(&IdentityParts {
        id: ID,
        chain,
        key,
        bundle: root,
        federated,
        crls: &[],
    })
}

#[test]
fn an_identity_has_its_roots_and_those_of_other_domains_in_one_order() {
    let (own, other) = (made(ID), made("spiffe://two.example"));
    let both: [(&str, &[u8]); 2] =
        [("spiffe://two.example", &other.root), ("b.example", &own.root)];
    let one = read(&own, &both).unwrap();
    let domains = one.bundles().into_iter().map(|it| it.trust_domain.unwrap().to_string());
    assert_eq!(domains.collect::<Vec<_>>(), ["one.example", "b.example", "two.example"]);
    assert!(one.bundles().iter().all(|bundle| bundle.anchors.len() == 1));
    let turned = read(&own, &[both[1], both[0]]).unwrap();
    assert_eq!((&one, one.trusted()), (&turned, turned.trusted()));
    let fewer = read(&own, &both[..1]).unwrap();
    assert!(one != fewer && one.trusted() != fewer.trusted());
    // A bundle for its own domain among the others is no second bundle.
    assert_eq!(read(&own, &[("spiffe://one.example", &other.root)]).unwrap().bundles().len(), 1);
}

#[test]
fn two_certificates_may_stand_one_after_the_other() {
    let own = made(ID);
    let chain = [&own.chain[..], &own.root].concat();
    let root = [&own.root[..], &made(ID).root].concat();
    let read = read(&Made { chain, root, key: own.key.clone() }, &[]).unwrap();
    assert_eq!((read.own.cert.len(), read.bundles()[0].anchors.len()), (2, 2));
}

#[test]
fn parts_that_do_not_fit_together_are_refused() {
    let own = || made(ID);
    let cut = |bytes: Vec<u8>| bytes[..bytes.len() - 1].to_vec();
    for (made, why) in [
        (Made { chain: Vec::new(), ..own() }, "its chain is not DER"),
        (Made { chain: cut(own().chain), ..own() }, "its chain is not DER"),
        (Made { chain: b"garbage".to_vec(), ..own() }, "its chain is not DER"),
        (made("spiffe://one.example/other"), "proves spiffe://one.example/other"),
        (Made { chain: own().root, ..own() }, "has no SPIFFE ID"),
        (Made { key: own().key, ..own() }, "cannot be used: keys may not be consistent"),
        (Made { key: b"garbage".to_vec(), ..own() }, "the key of spiffe://one.example/shop cannot"),
        (Made { root: Vec::new(), ..own() }, "the roots of one.example are not DER"),
        (Made { root: b"\x30\x00".to_vec(), ..own() }, "the roots of one.example are not DER"),
    ] {
        let error = read(&made, &[]).unwrap_err();
        assert!(error.contains(why), "{error:?} has no {why:?}");
    }
    let own = own();
    let federated = |name| read(&own, &[(name, b"x")]).unwrap_err();
    assert!(federated("spiffe://two.example").contains("the roots of two.example"));
    assert!(federated("Two").contains("is not a trust domain"));
    let parts = IdentityParts { id: "shop", ..IdentityParts::default() };
    assert!(WorkloadIdentity::read(&parts).unwrap_err().contains("not a SPIFFE ID"));
}

#[test]
fn no_handshake_succeeds_with_the_stand_in() {
    assert!(unknown_key().key.choose_scheme(&[SignatureScheme::ED25519]).is_none());
}
