//! Tests that every example is accepted: the YAML blocks of the documents, and the directories of
//! conf/. A block with objects of Kubernetes is beside a configuration that reads it. Test files
//! replace the files below `/etc/ringway` that they name.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::*;
use crate::ca;
use crate::compile::registry::Registry;

/// The directory that the examples use for certificates and keys.
const ETC: &str = "/etc/ringway";

/// The directory that the examples use for logs.
const LOGS: &str = "/var/log/ringway";

/// The configuration beside an example of objects.
const OBJECTS: &str = "listeners: {web: {bind: 127.0.0.1:8080}}\n\
    sources: {SOURCE: {files: istio/*.yaml}}\n";

/// A key set with the public key of RFC 8037 A.2.
const KEY_SET: &str = r#"{"keys": [{"kty": "OKP", "crv": "Ed25519",
    "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

/// Creates the test files: a CA, and a certificate for each name in the examples.
fn files() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let authority = root.path().join("ca");
    let plan = ca::Plan {
        trust_domain: "spiffe://cluster.local".parse().unwrap(),
        name: "Examples".to_owned(),
        root_lifetime: Duration::from_secs(7200),
        intermediate_lifetime: Duration::from_secs(3600),
    };
    ca::init(&authority, &plan, SystemTime::now()).unwrap();
    let id = "spiffe://cluster.local/ns/demo/sa/shop".parse().unwrap();
    let request = ca::Request {
        id,
        dns: Vec::new(),
        ips: Vec::new(),
        lifetime: Duration::from_secs(600),
        now: SystemTime::now(),
    };
    let issuer = ca::Issuer::open(&authority).unwrap();
    for name in ["tls", "workload", "shop", "blog"] {
        let issued = issuer.issue(&request).unwrap();
        std::fs::write(root.path().join(format!("{name}.pem")), &issued.chain_pem).unwrap();
        std::fs::write(root.path().join(format!("{name}.key")), &*issued.key_pem).unwrap();
    }
    let roots = std::fs::read(authority.join(ca::ROOTS)).unwrap();
    for name in ["roots.pem", "partner.pem", "app.pem"] {
        std::fs::write(root.path().join(name), &roots).unwrap();
    }
    std::fs::write(root.path().join("robots.json"), KEY_SET).unwrap();
    root
}

fn accepted(path: PathBuf, environment: &HashMap<String, String>) -> Result<(), String> {
    let loaded = load(&[path], environment);
    let result = compile(&loaded, 1, &mut Registry::new(1), &Resolutions::new());
    result.map(|_| ()).map_err(|errors| errors.to_string())
}

fn documents(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            documents(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
}

#[test]
fn examples_are_accepted() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = files();
    let etc = files.path().to_str().unwrap();
    for directory in ["istio", "gw", "smi"] {
        std::fs::create_dir(files.path().join(directory)).unwrap();
        std::fs::write(files.path().join(directory).join("objects.yaml"), "").unwrap();
    }
    let mut examples = 0;
    let mut pages = vec![root.join("README.md")];
    documents(&root.join("docs"), &mut pages);
    for page in pages {
        let text = std::fs::read_to_string(&page).unwrap();
        for block in text.split("```yaml\n").skip(1) {
            let block = block.split("```").next().unwrap().replace(ETC, etc).replace(LOGS, etc);
            let file = files.path().join("example.yaml");
            let objects = files.path().join("istio/objects.yaml");
            std::fs::write(&objects, "").unwrap();
            if block.contains("apiVersion:") {
                let source = match block.as_str() {
                    text if text.contains("gateway.networking.k8s.io") => "gateway_api",
                    text if text.contains("smi-spec.io") => "smi",
                    _ => "istio",
                };
                std::fs::write(&file, OBJECTS.replace("SOURCE", source)).unwrap();
                std::fs::write(&objects, &block).unwrap();
            } else {
                std::fs::write(&file, &block).unwrap();
            }
            if let Err(errors) = accepted(file, &HashMap::new()) {
                panic!("{}:\n{block}\n{errors}", page.display());
            }
            examples += 1;
        }
    }
    let environment = HashMap::from([("CA".to_owned(), format!("{etc}/ca"))]);
    for entry in std::fs::read_dir(root.join("conf")).unwrap() {
        let path = entry.unwrap().path();
        // Files with other grammars, which have their own tests.
        if ["scenarios", "prometheus", "grafana"].iter().any(|other| path.ends_with(other)) {
            continue;
        }
        if let Err(errors) = accepted(path.clone(), &environment) {
            panic!("{}:\n{errors}", path.display());
        }
        examples += 1;
    }
    assert!(examples >= 9, "{examples}");
}
