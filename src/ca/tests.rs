//! Tests a CA from its creation to its workload certificates. A second X.509 parser checks the
//! result.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;

use super::*;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A fixed time, so that the tests read no clock.
fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(1_800_000_000_500)
}

fn plan() -> Plan {
    Plan {
        trust_domain: SpiffeId::of_trust_domain("cluster.local").unwrap(),
        name: "Test CA".to_owned(),
        root_lifetime: 100 * DAY,
        intermediate_lifetime: 10 * DAY,
    }
}

fn made() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    init(directory.path(), &plan(), now()).unwrap();
    directory
}

fn wanted(id: &str) -> Request {
    let id = id.parse().unwrap();
    Request { id, dns: Vec::new(), ips: Vec::new(), lifetime: DAY, now: now() }
}

fn cart() -> Request {
    wanted("spiffe://cluster.local/ns/shop/sa/cart")
}

fn ders(pem: &str) -> Vec<Vec<u8>> {
    pem::parse_many(pem).unwrap().into_iter().map(pem::Pem::into_contents).collect()
}

fn parsed(der: &[u8]) -> X509Certificate<'_> {
    X509Certificate::from_der(der).unwrap().1
}

fn names_of(certificate: &X509Certificate<'_>) -> Vec<String> {
    let names = certificate.subject_alternative_name().unwrap().unwrap();
    let text = |name: &GeneralName<'_>| match name {
        GeneralName::URI(uri) => format!("uri {uri}"),
        GeneralName::DNSName(name) => format!("dns {name}"),
        GeneralName::IPAddress(bytes) => format!("ip {bytes:?}"),
        other => panic!("{other:?}"),
    };
    names.value.general_names.iter().map(text).collect()
}

fn at(seconds: i64) -> i64 {
    1_800_000_000 + seconds
}

#[test]
fn the_cas_are_as_spiffe_wants_them_and_sign_each_other() {
    let directory = made();
    let read = |name: &str| fs::read_to_string(directory.path().join(name)).unwrap();
    assert_eq!(read(ROOTS), read(ROOT_CERTIFICATE));
    let (roots, intermediates) = (ders(&read(ROOTS)), ders(&read(INTERMEDIATE_CERTIFICATE)));
    let (root, intermediate) = (parsed(&roots[0]), parsed(&intermediates[0]));
    for (certificate, name, path_length, days) in
        [(&root, "CN=Test CA", 1, 100), (&intermediate, "CN=Test CA intermediate", 0, 10)]
    {
        assert_eq!(certificate.subject().to_string(), name);
        assert_eq!(names_of(certificate), ["uri spiffe://cluster.local"]);
        let basic = certificate.basic_constraints().unwrap().unwrap();
        assert!(basic.critical && basic.value.ca);
        assert_eq!(basic.value.path_len_constraint, Some(path_length));
        let usage = certificate.key_usage().unwrap().unwrap();
        assert!(usage.critical);
        assert_eq!(usage.value.flags, 1 << 5 | 1 << 6, "certificate and CRL sign alone");
        assert!(certificate.extended_key_usage().unwrap().is_none());
        let validity = certificate.validity();
        assert_eq!(validity.not_before.timestamp(), at(-60));
        assert_eq!(validity.not_after.timestamp(), at(days * 86_400));
        certificate.verify_signature(Some(root.public_key())).unwrap();
    }
}

#[test]
fn a_workload_gets_a_leaf_for_both_sides() {
    let directory = made();
    let issuer = Issuer::open(directory.path()).unwrap();
    let mut request = cart();
    request.dns = vec!["cart.internal".to_owned(), "*.cart.internal".to_owned()];
    request.ips = vec!["10.0.0.1".parse().unwrap(), "::1".parse().unwrap()];
    let issued = issuer.issue(&request).unwrap();
    let chain = ders(&issued.chain_pem);
    assert_eq!(chain.len(), 2, "the leaf and the intermediate");
    let (leaf, intermediate) = (parsed(&chain[0]), parsed(&chain[1]));
    leaf.verify_signature(Some(intermediate.public_key())).unwrap();
    let mut names = names_of(&leaf);
    assert_eq!(names.pop().unwrap(), "ip [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]");
    let id = "uri spiffe://cluster.local/ns/shop/sa/cart";
    assert_eq!(names, [id, "dns cart.internal", "dns *.cart.internal", "ip [10, 0, 0, 1]"]);
    assert!(leaf.subject_alternative_name().unwrap().unwrap().critical, "no subject");
    let basic = leaf.basic_constraints().unwrap().unwrap();
    assert!(!basic.value.ca);
    let usage = leaf.key_usage().unwrap().unwrap();
    assert!(usage.critical);
    assert_eq!(usage.value.flags, 1, "digital signature alone");
    let extended = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(extended.server_auth && extended.client_auth && !extended.any);
    assert_eq!(leaf.validity().not_before.timestamp(), at(-60));
    assert_eq!(leaf.validity().not_after.timestamp(), at(86_400));
    let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap();
    assert_eq!(seconds(issued.not_before), Duration::from_secs(1_800_000_000 - 60));
    assert_eq!(seconds(issued.not_after), Duration::from_secs(1_800_000_000 + 86_400));
    let key = rcgen::KeyPair::from_pem(&issued.key_pem).unwrap();
    assert_eq!(key.public_key_raw(), &*leaf.public_key().subject_public_key.data);
}

#[test]
fn serial_numbers_and_keys_are_never_the_same_twice() {
    let directory = made();
    let issuer = Issuer::open(directory.path()).unwrap();
    let mut seen = std::collections::HashSet::new();
    for _ in 0..50 {
        let issued = issuer.issue(&cart()).unwrap();
        let chain = ders(&issued.chain_pem);
        let leaf = parsed(&chain[0]);
        assert_eq!(leaf.raw_serial().len(), 16);
        assert!(leaf.raw_serial()[0] & 0x80 == 0, "positive");
        assert!(seen.insert(leaf.raw_serial().to_vec()));
        assert!(seen.insert(issued.key_pem.as_bytes().to_vec()));
    }
}

#[test]
fn nothing_lives_longer_than_what_signed_it() {
    let directory = tempfile::tempdir().unwrap();
    let long = Plan { intermediate_lifetime: 1000 * DAY, ..plan() };
    let made = init(directory.path(), &long, now()).unwrap();
    assert_eq!(made.intermediate_until, made.root_until);
    let issuer = Issuer::open(directory.path()).unwrap();
    assert_eq!(issuer.not_after(), made.root_until);
    let issued = issuer.issue(&Request { lifetime: 101 * DAY, ..cart() }).unwrap();
    assert_eq!(issued.not_after, made.root_until);
    let last = Request { now: made.root_until - Duration::from_secs(1), ..cart() };
    assert_eq!(issuer.issue(&last).unwrap().not_after, made.root_until);
    let late = issuer.issue(&Request { now: made.root_until, ..cart() }).unwrap_err();
    assert!(late.to_string().contains("intermediate.pem has ended at 2027-"), "{late}");
    assert!(late.to_string().contains("ringway ca renew"), "{late}");
}

#[test]
fn a_short_certificate_is_not_renewed_at_once() {
    let directory = made();
    let issuer = Issuer::open(directory.path()).unwrap();
    for seconds in [1, 10, 60, 600, 3600] {
        let lifetime = Duration::from_secs(seconds);
        let issued = issuer.issue(&Request { lifetime, ..cart() }).unwrap();
        let renewed = renew_at(issued.not_before, issued.not_after, 0.0);
        let begun = now() - Duration::from_millis(500);
        let after = renewed.duration_since(begun).unwrap();
        assert!(after >= lifetime / 4, "{seconds} s: renewed after {after:?}");
    }
}

#[test]
fn requests_that_cannot_be_are_refused() {
    let directory = made();
    let issuer = Issuer::open(directory.path()).unwrap();
    let dns = |name: &str| Request { dns: vec![name.to_owned()], ..cart() };
    let lasting = |lifetime| Request { lifetime, ..cart() };
    for (request, said) in [
        (wanted("spiffe://other/ns/a/sa/b"), "write spiffe://cluster.local/ns/a/sa/b"),
        (wanted("spiffe://a.cluster.local/b"), "not in the trust domain"),
        (wanted("spiffe://cluster.local"), "names no workload"),
        (dns("a b"), "is no DNS name"),
        (dns(""), "is no DNS name"),
        (dns("*"), "is no DNS name"),
        (dns("a.*.b"), "is no DNS name"),
        (dns("10.0.0.1"), "is no DNS name"),
        (lasting(Duration::from_millis(999)), "lifetime is impossible"),
        (lasting(Duration::MAX), "lifetime is impossible"),
    ] {
        let error = issuer.issue(&request).unwrap_err().to_string();
        assert!(error.contains(said), "{request:?}: {error}");
    }
}

#[test]
fn a_ca_is_never_overwritten_and_half_of_one_is_taken_back() {
    let directory = made();
    let listed = || {
        let files = fs::read_dir(directory.path()).unwrap();
        let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
        files.sort();
        files.into_iter().map(|path| (fs::read(&path).unwrap(), path)).collect::<Vec<_>>()
    };
    let before = listed();
    let aside = |path: &Path| Path::new(&format!("{}.aside", path.display())).to_owned();
    for name in [ROOT_KEY, ROOT_CERTIFICATE, INTERMEDIATE_KEY, INTERMEDIATE_CERTIFICATE, ROOTS] {
        for (_, path) in &before {
            if !path.ends_with(name) {
                fs::rename(path, aside(path)).unwrap();
            }
        }
        let error = init(directory.path(), &plan(), now()).unwrap_err();
        assert!(matches!(&error, CaError::Exists(path) if path.ends_with(name)), "{error}");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 5);
        for (bytes, path) in &before {
            fs::write(path, bytes).unwrap();
            fs::remove_file(aside(path)).ok();
        }
    }
    assert_eq!(listed(), before);
    for name in ["", &"x".repeat(51)] {
        let other = tempfile::tempdir().unwrap();
        let error = init(other.path(), &Plan { name: name.to_owned(), ..plan() }, now());
        assert!(matches!(error, Err(CaError::Name)), "{error:?}");
    }
    let other = tempfile::tempdir().unwrap();
    // Only the intermediate fails. The written root files must be removed.
    let short = Plan { intermediate_lifetime: Duration::ZERO, ..plan() };
    let error = init(other.path(), &short, now()).unwrap_err();
    assert!(matches!(error, CaError::Lifetime), "{error}");
    assert_eq!(fs::read_dir(other.path()).unwrap().count(), 0);
}

#[test]
fn a_new_intermediate_is_under_the_same_root() {
    let directory = made();
    let path = directory.path();
    let read = |name: &str| fs::read_to_string(path.join(name)).unwrap();
    let old = read(INTERMEDIATE_CERTIFICATE);
    let later = now() + 9 * DAY;
    assert_eq!(renew(path, 30 * DAY, later).unwrap(), Issuer::open(path).unwrap().not_after());
    let (roots, new) = (ders(&read(ROOTS)), ders(&read(INTERMEDIATE_CERTIFICATE)));
    assert_ne!(new, ders(&old));
    let (root, new) = (parsed(&roots[0]), parsed(&new[0]));
    new.verify_signature(Some(root.public_key())).unwrap();
    assert_eq!(new.subject().to_string(), "CN=Test CA intermediate");
    assert_eq!(new.validity().not_after.timestamp(), at(39 * 86_400));
    let ended = renew(path, DAY, now() + 100 * DAY).unwrap_err().to_string();
    assert!(ended.contains("root.pem has ended"), "{ended}");
    // Without the root's key, `issue` works and `renew` asks for the key.
    fs::remove_file(path.join(ROOT_KEY)).unwrap();
    Issuer::open(path).unwrap().issue(&Request { now: later, ..cart() }).unwrap();
    let error = renew(path, DAY, later).unwrap_err();
    assert!(matches!(error, CaError::NoRootKey(_)), "{error}");
    assert!(matches!(renew(Path::new("/nowhere"), DAY, later), Err(CaError::NoCa(_))));
}

#[test]
fn files_that_are_no_ca_are_named() {
    let other = made();
    let leaf = Issuer::open(other.path()).unwrap().issue(&cart()).unwrap();
    let foreign_key = fs::read_to_string(other.path().join(INTERMEDIATE_KEY)).unwrap();
    for (name, text, said) in [
        (INTERMEDIATE_CERTIFICATE, "", "intermediate.pem holds no certificate"),
        (INTERMEDIATE_CERTIFICATE, &foreign_key, "intermediate.pem holds no certificate"),
        (INTERMEDIATE_CERTIFICATE, &leaf.chain_pem, "is not the certificate of a CA"),
        (INTERMEDIATE_KEY, "", "intermediate.key holds no private key"),
        (INTERMEDIATE_KEY, &leaf.chain_pem, "intermediate.key holds no private key"),
        (INTERMEDIATE_KEY, &foreign_key, "intermediate.key is not the key of"),
    ] {
        let directory = made();
        fs::write(directory.path().join(name), text).unwrap();
        let error = Issuer::open(directory.path()).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
    let directory = made();
    fs::remove_file(directory.path().join(INTERMEDIATE_KEY)).unwrap();
    let error = Issuer::open(directory.path()).unwrap_err().to_string();
    assert!(error.contains("cannot read") && error.contains("intermediate.key"), "{error}");
}

#[test]
fn a_ca_from_elsewhere_needs_a_trust_domain_and_leaks_no_key() {
    let directory = made();
    let certificate = directory.path().join(INTERMEDIATE_CERTIFICATE);
    let key = directory.path().join(INTERMEDIATE_KEY);
    // A certificate and its key in one file, as some tools write them.
    let both = [fs::read_to_string(&key).unwrap(), fs::read_to_string(&certificate).unwrap()];
    fs::write(&certificate, both.concat()).unwrap();
    let issued = Issuer::open(directory.path()).unwrap().issue(&cart()).unwrap();
    assert!(!issued.chain_pem.contains("PRIVATE"), "only certificates are in the chain");
    assert_eq!(ders(&issued.chain_pem).len(), 2);
    let pair = rcgen::KeyPair::from_pem(&both[0]).unwrap();
    let uri = |uri: &str| rcgen::SanType::URI(uri.try_into().unwrap());
    for names in [vec![], vec![uri("spiffe://a/b")], vec![uri("spiffe://a"), uri("spiffe://b")]] {
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.subject_alt_names = names;
        fs::write(&certificate, params.self_signed(&pair).unwrap().pem()).unwrap();
        let error = Issuer::open(directory.path()).unwrap_err().to_string();
        assert!(error.contains("names no trust domain"), "{error}");
    }
}

#[test]
fn an_issuer_may_be_used_from_any_thread() {
    fn shared<T: Send + Sync + 'static>() {}
    shared::<Issuer>();
    shared::<Issued>();
}

#[test]
fn no_key_is_shown() {
    let directory = made();
    let issuer = Issuer::open(directory.path()).unwrap();
    let issued = issuer.issue(&cart()).unwrap();
    let key = fs::read_to_string(directory.path().join(INTERMEDIATE_KEY)).unwrap();
    let shown = format!("{issuer:?} {issued:?} {issuer:#?} {issued:#?}");
    assert!(shown.contains("cluster.local") && !shown.contains("PRIVATE"), "{shown}");
    for line in key.lines().chain(issued.key_pem.lines()) {
        assert!(!shown.contains(line), "{shown}");
    }
}

#[test]
fn a_certificate_is_saved_where_it_was_asked_for_but_never_over_a_ca() {
    let directory = made();
    let issuer = Issuer::open(directory.path()).unwrap();
    let (request, root) = (cart(), directory.path());
    for (out, certificate) in [
        ("web", "web.pem"),
        ("web.v1", "web.v1.pem"),
        ("certs/", "certs/cart.pem"),
        ("certs", "certs/cart.pem"),
        ("new/below/", "new/below/cart.pem"),
    ] {
        let issued = issuer.issue(&request).unwrap();
        let saved = issued.save(&root.join(out), &request.id).unwrap();
        assert_eq!(saved.certificate, root.join(certificate), "{out}");
        assert_eq!(saved.key, root.join(certificate).with_extension("key"), "{out}");
        assert_eq!(fs::read_to_string(&saved.certificate).unwrap(), issued.chain_pem);
        assert_eq!(fs::read_to_string(&saved.key).unwrap(), *issued.key_pem);
    }
    let before = fs::read(root.join(ROOT_KEY)).unwrap();
    for name in ["root", "roots", "intermediate"] {
        let id: SpiffeId = format!("spiffe://cluster.local/{name}").parse().unwrap();
        let issued = issuer.issue(&Request { id: id.clone(), ..cart() }).unwrap();
        for out in [root.to_owned(), root.join(name)] {
            let error = issued.save(&out, &id).unwrap_err();
            assert!(matches!(error, CaError::Reserved(_)), "{error}");
        }
        for _ in 0..2 {
            issued.save(&root.join("certs"), &id).unwrap();
        }
    }
    // The root's certificate was moved, but its key was not.
    fs::rename(root.join(ROOT_CERTIFICATE), root.join("certs/a-root.pem")).unwrap();
    for out in ["root", "certs/a-root"] {
        let error = issuer.issue(&request).unwrap().save(&root.join(out), &request.id);
        assert!(matches!(error, Err(CaError::Reserved(_))), "{error:?}");
    }
    assert_eq!(fs::read(root.join(ROOT_KEY)).unwrap(), before);
    let missing = issuer.issue(&request).unwrap().save(&root.join("no/where"), &request.id);
    assert!(missing.unwrap_err().to_string().contains("no/where.key"));
}

#[test]
fn certificates_are_renewed_around_the_middle_of_their_life() {
    let begin = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
    let after = |secs| begin + Duration::from_secs(secs);
    for (life, jitter, expected) in [
        (100, 0.0, 40),
        (100, 0.5, 50),
        (100, 1.0, 60),
        (86_400, 0.25, 38_880),
        (100, -3.0, 40),
        (100, 7.0, 60),
        (100, f64::NAN, 50),
        (0, 0.5, 0),
    ] {
        let at = renew_at(begin, after(life), jitter);
        let error = at.duration_since(after(expected)).unwrap_or_else(|e| e.duration());
        assert!(error < Duration::from_millis(1), "{life} {jitter}: {at:?}");
    }
    assert_eq!(renew_at(after(10), begin, 0.5), after(10), "ends before it begins");
}
