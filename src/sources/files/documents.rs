//! Documents of a server beside files.

use std::collections::HashMap;

use super::{Loaded, compile, load, warnings};
use crate::compile::Resolutions;
use crate::compile::registry::Registry;
use crate::sources::documents::Documents;

const FILES: &str = "
listeners: {web: {bind: 127.0.0.1:1}}
services: {shop: {endpoints: [10.0.0.1:80]}}
routes: {a: [{to: shop}]}
authorization: [{action: deny, from: {ips: 10.0.0.0/8}}]
";

fn with(documents: &[(&str, &str)]) -> Loaded {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a.yaml");
    std::fs::write(&file, FILES).unwrap();
    std::fs::write(directory.path().join("ca.pem"), "-----BEGIN CERTIFICATE-----").unwrap();
    let texts = documents.iter().map(|(name, text)| ((*name).into(), (*text).into())).collect();
    let documents = Documents { revision: 1, texts, fault: None };
    load(&[file], &HashMap::new()).with_documents(&documents, &Documents::default())
}

fn errors(documents: &[(&str, &str)]) -> String {
    let compiled = compile(&with(documents), 1, &mut Registry::new(1), &Resolutions::new());
    compiled.err().map(|errors| errors.to_string()).unwrap_or_default()
}

#[test]
fn documents_add_to_files_and_files_come_first() {
    let documents = [
        (
            "etcd:/a",
            "services: {cart: {endpoints: [10.0.0.2:80]}, shop: {endpoints: [10.9.9.9:80]}}",
        ),
        ("etcd:/b", "routes: {b: [{to: cart}]}\nauthorization: [{action: deny, to: {ports: 1}}]"),
        ("etcd:/empty", ""),
    ];
    let loaded = with(&documents);
    let compiled = compile(&loaded, 1, &mut Registry::new(1), &Resolutions::new()).unwrap();
    let model = loaded.model();
    let names = model.services.iter().map(|service| service.value.name.value.as_str());
    assert_eq!(names.collect::<Vec<_>>(), ["shop", "cart"]);
    assert_eq!(model.policies.len(), 2);
    let shop = compiled.snapshot.services.iter().find(|service| &*service.name == "shop").unwrap();
    let list = &shop.endpoints.load().list;
    assert!(list.iter().all(|endpoint| endpoint.address.to_string() == "10.0.0.1:80"));
    let warnings = warnings(&loaded, &compiled).to_string();
    assert!(warnings.starts_with("etcd:/a:1:46: warning: \"shop\" is not used: "), "{warnings}");
    // The model is made again from the texts.
    loaded.release();
    assert_eq!(loaded.model().services.len(), 2);
    let without = loaded.with_documents(&Documents::default(), &Documents::default());
    assert_eq!(without.model().services.len(), 1);
    assert_eq!(without.sources.files().len(), 1);
}

#[test]
fn a_document_reads_nothing_of_this_machine() {
    const TLS: &str = "services: {x: {endpoints: [10.0.0.2:80], tls: {ca: ";
    let ca = |path: &str| format!("{TLS}{path}}}}}}}");
    let listener =
        |tls: &str| format!("listeners: {{x: {{bind: 127.0.0.1:2, hosts: [a], tls: {{{tls}}}}}}}");
    for (text, message) in [
        (ca("ca.pem"), "a document of a server cannot name files of this machine"),
        (ca("/etc/passwd"), "a document of a server cannot name files of this machine"),
        (listener("cert: a.pem, key: a.key"), "a document of a server cannot name files"),
        ("services: {x: {endpoints: ['unix:/a']}}".into(), "sockets of this machine"),
        ("services: {x: {endpoints: [127.0.0.1:9900]}}".into(), "is the admin interface"),
        ("services: {x: {versions: {a: [0.0.0.0:9900]}}}".into(), "is the admin interface"),
        ("listeners: {x: {bind: 'unix:/a'}}".into(), "sockets of this machine"),
        ("listeners: {x: {bind: 'systemd:a'}}".into(), "sockets of this machine"),
        ("routes: {x: [{respond: {body: '${PATH}'}}]}".into(), "cannot read variables"),
        ("routes: {x: [{respond: {body: '${NO:-a}'}}]}".into(), "cannot read variables"),
        ("admin: {bind: 0.0.0.0:1}".into(), "cannot have `admin`"),
        ("runtime: {state_dir: /}".into(), "cannot have `runtime`"),
        ("telemetry: {access_log: {path: /a}}".into(), "cannot have `telemetry`"),
        ("mesh: {identity: {ca: /a}}".into(), "cannot have `mesh`"),
        ("jwt: {x: {issuer: x, jwks: {file: /a}}}".into(), "cannot have `jwt`"),
        ("sources: {cache: /}".into(), "cannot have `sources`"),
        ("- a".into(), "a document is a map of sections, not a list"),
    ] {
        let errors = errors(&[("etcd:/a", &text)]);
        let first = errors.lines().next().unwrap_or_default();
        assert!(first.starts_with("etcd:/a:") && first.contains(message), "{text}: {errors}");
    }
}

#[test]
fn a_secret_in_the_place_of_a_file_is_not_shown() {
    let text = "listeners:\n  x:\n    bind: 127.0.0.1:2\n    hosts: [a]\n    tls:\n\
                \x20     cert: |\n        a secret\n        of two lines\n      key: |\n        \
                another\n        secret\n";
    let errors = errors(&[("etcd:/a", text)]);
    let message = errors.lines().find(|line| line.contains("error: ")).unwrap();
    assert!(message.contains("this machine: write the text"), "{message}");
    assert!(!message.contains("secret"), "{message}");
}

#[test]
fn a_document_has_the_text_of_a_certificate_and_its_key_is_not_shown() {
    let made = rcgen::generate_simple_self_signed(["a".to_owned()]).unwrap();
    let indented = |pem: String| pem.replace('\n', "\n        ");
    let (cert, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let secret = key.lines().nth(1).unwrap().to_owned();
    let text = format!(
        "listeners:\n  x:\n    bind: 127.0.0.1:2\n    hosts: [a]\n    tls:\n\
         \x20     cert: |\n        {}\n      key: |\n        {}\n",
        indented(cert),
        indented(key)
    );
    let loaded = with(&[("etcd:/a", &text)]);
    let compiled = compile(&loaded, 1, &mut Registry::new(1), &Resolutions::new());
    assert!(compiled.is_ok(), "{}", compiled.err().unwrap());
    let shown = loaded.shown();
    let lines = |text: &str| text.lines().count();
    assert!(shown[1].1.contains("BEGIN CERTIFICATE") && !shown[1].1.contains(&secret));
    assert_eq!(lines(&shown[1].1), lines(&text), "lines keep their numbers");
}
