//! Documents of a server beside files.

use std::collections::HashMap;

use super::{Loaded, compile, load, warnings};
use crate::cluster::Endpoints;
use crate::compile::registry::Registry;
use crate::compile::{Compiled, Resolutions, found_at};
use crate::net::{Address, DnsName, Families};
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

const CLUSTER: &str = "
listeners: {web: {bind: 127.0.0.1:1}}
routes: {a: [{to: web.shop.svc.cluster.local}]}
admin: {bind: 127.0.0.1:9900}
sources: {kubernetes: {namespaces: [shop]}}
";

const SERVICE: &str = r#"{"apiVersion": "v1", "kind": "Service",
    "metadata": {"name": "web", "namespace": "shop"},
    "spec": {"ports": [{"name": "http", "port": 80}]}}"#;

fn with_objects(objects: &[(&str, &str)], resolutions: &Resolutions) -> Result<Compiled, String> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a.yaml");
    std::fs::write(&file, CLUSTER).unwrap();
    let texts = objects.iter().map(|(name, text)| ((*name).into(), (*text).into())).collect();
    let objects = Documents { revision: 1, texts, fault: None };
    let loaded = load(&[file], &HashMap::new()).with_documents(&Documents::default(), &objects);
    assert!(loaded.asks_kubernetes());
    compile(&loaded, 1, &mut Registry::new(1), resolutions).map_err(|errors| errors.to_string())
}

#[test]
fn objects_that_take_the_host_of_a_service_or_choose_its_pods_are_refused() {
    const SERVICE_ENTRY: &str = "kubernetes:serviceentries.networking.istio.io/evil/a";
    const RULE: &str = "kubernetes:destinationrules.networking.istio.io/shop/web";
    let service = ("kubernetes:services/shop/web", SERVICE);
    let entry = |host: &str| {
        format!(
            "{{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {{name: a, \
             namespace: evil}}, spec: {{hosts: [{host}], resolution: STATIC, ports: [{{number: 80, \
             name: http, protocol: HTTP}}], endpoints: [{{address: 10.9.9.9}}]}}}}"
        )
    };
    for host in ["web.shop.svc.cluster.local", "web.shop.svc", "web.shop"] {
        let entry = entry(host);
        let found = with_objects(&[(SERVICE_ENTRY, &entry), service], &Resolutions::new());
        let errors = found.err().unwrap();
        assert!(errors.starts_with(SERVICE_ENTRY) && errors.contains("comes first"), "{errors}");
    }
    let found =
        with_objects(&[(SERVICE_ENTRY, &entry("other.shop")), service], &Resolutions::new());
    assert!(found.is_ok());
    let rule = |subset: &str| {
        format!(
            "{{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {{name: web, \
             namespace: shop}}, spec: {{host: web, subsets: [{subset}]}}}}"
        )
    };
    let labelled = rule("{name: v2, labels: {version: v2}}");
    let errors = with_objects(&[(RULE, &labelled), service], &Resolutions::new()).err().unwrap();
    assert!(errors.starts_with(RULE), "{errors}");
    assert!(errors.contains("make a Service with `selector: {version: v2}`"), "{errors}");
    let whole = rule("{name: all}");
    assert!(with_objects(&[(RULE, &whole), service], &Resolutions::new()).is_ok());
}

#[test]
fn a_name_does_not_reach_the_admin_interface() {
    let external = r#"{"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"externalName": "x.example", "ports": [{"name": "http", "port": 9900}]}}"#;
    let mut resolutions = Resolutions::new();
    let name = DnsName { address: "x.example:9900".into(), families: Families::Any };
    let addresses = ["127.0.0.1:9900", "10.0.0.1:9900"].map(|it| it.parse().unwrap());
    resolutions.names.insert(name, addresses.to_vec());
    let objects = [("kubernetes:services/shop/web", external)];
    let compiled = with_objects(&objects, &resolutions).unwrap();
    let service = &compiled.snapshot.services[0];
    let shown = |endpoints: &Endpoints| -> Vec<String> {
        endpoints.list.iter().map(|it| it.address.to_string()).collect()
    };
    assert_eq!(shown(&service.endpoints.load()), ["10.0.0.1:9900"]);
    // The addresses of a later answer.
    let admin = Address::Tcp("127.0.0.1:9900".parse().unwrap());
    let found = found_at(service, &addresses, Some(&admin), &mut Registry::new(1));
    assert_eq!(shown(&found), ["10.0.0.1:9900"]);
    let found = found_at(service, &addresses, None, &mut Registry::new(1));
    assert_eq!(found.list.len(), 2);
}
