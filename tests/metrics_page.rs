//! `docs/reference/metrics.md` has every metric, with its type, labels and help.
//! `UPDATE=1 cargo test --test all metrics_page` writes the page again.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ringway::ca;
use ringway::cells::PerWorker;
use ringway::compile::Resolutions;
use ringway::compile::registry::Registry;
use ringway::grpc::Code;
use ringway::grpc::methods::{Call, KnownMethods};
use ringway::snapshot::{Level, Resource, Snapshot};
use ringway::sources::files;
use ringway::standard::{Key, Reporter, Spoken, Standard};
use ringway::telemetry::metrics::{self, Format};
use ringway::telemetry::status::{Reading, ResourceState, SourceState, Status};

use crate::skipped::{of_prometheus, skipped};

/// A configuration with an item of each kind that has metrics.
const CONFIGURATION: &str = "
mesh:
  identity: {ca: ca, id: spiffe://cluster.local/ns/demo/sa/shop}
  transport: quic
  quic_port: 15009
  inbound: {bind: '127.0.0.1:15006', mtls: strict, udp: {}}
  outbound: {bind: '127.0.0.1:15001', udp: {}}
listeners:
  web: {bind: '127.0.0.1:8080'}
  h3: {bind: '127.0.0.1:8443', protocol: http3, tls: mesh}
  pass: {bind: '127.0.0.1:8444', protocol: quic}
routes:
  '*':
    - {to: shop, fault: {delay: {duration: 1s}}, mirror: {to: shop}}
  site.example.com:
    - to: {site/v1: 100, site/v2: 0}
      shift: {from: v1, to: v2, step: 10%, every: 5m}
services:
  shop:
    protocol: grpc
    endpoints: [{address: '127.0.0.1:9001', zone: eu/a}]
    health_check: {grpc: true}
    retries: {attempts: 1}
    circuit_breaker: {max_requests: 100}
    concurrency: adaptive
    rate_limit: [{requests: 1, by: source}, {service: shop, domain: shop, descriptors: [source]}]
    outlier_detection: {consecutive_5xx: 5}
  site: {versions: {v1: ['127.0.0.1:9001'], v2: ['127.0.0.1:9002']}}
  near: {endpoints: ['127.0.0.1:9003'], tls: mesh}
jwt: {id: {issuer: robots, jwks: {file: keys.json}}}
authorization: [{name: everyone, action: allow, to: {service: shop}}]
";

const KEYS: &str = r#"{"keys": [{"kty": "OKP", "crv": "Ed25519",
    "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

const BEGIN: &str = "# Metrics

The admin page `/metrics` has these metrics in the Prometheus text format. This page is made from
the code: `UPDATE=1 cargo test --test all metrics_page` writes it.

A counter begins at 0 when the proxy starts. It continues through reloads as long as its listener,
route or service stays. `le` is the upper bound of a histogram's bucket. The
[cookbook](../cookbook/prometheus.md) has alerts.

| metric | type | labels | meaning |
|---|---|---|---|
";

#[test]
fn the_page_has_every_metric() {
    let page = root().join("docs/reference/metrics.md");
    let families = families();
    let mut text = BEGIN.to_owned();
    for Family { name, kind, help, labels, .. } in &families {
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        writeln!(text, "| `{name}` | {kind} | {} | {help} |", labels.join(", ")).unwrap();
    }
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&page, &text).unwrap();
    }
    let found = std::fs::read_to_string(&page).unwrap_or_default();
    for line in text.lines() {
        assert!(
            found.lines().any(|row| row == line),
            "docs/reference/metrics.md lacks this line; UPDATE=1 cargo test --test all \
             metrics_page writes the page:\n{line}"
        );
    }
    assert_eq!(found, text, "UPDATE=1 cargo test --test all metrics_page writes the page");
}

/// Finds a metric that is missing in the page because this test does not configure its item.
#[test]
fn every_metric_in_the_code_is_rendered() {
    let families = families();
    let folder = root().join("src/telemetry/metrics");
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let code = std::fs::read_to_string(&path).unwrap();
        for name in code.split('"').filter(|text| is_name(text)) {
            assert!(
                families.iter().any(|family| family.name == name),
                "{}: extend CONFIGURATION of tests/metrics_page.rs so that {name} is written",
                path.display()
            );
        }
    }
    for family in &families {
        assert!(
            family.samples > 0,
            "{} has no sample: count something in `exercise` of tests/metrics_page.rs",
            family.name
        );
    }
}

/// The rules for Prometheus and the dashboard for Grafana name only metrics and labels that exist.
#[test]
fn every_metric_of_the_rules_and_the_dashboard_exists() {
    let families = families();
    let recording = read("conf/prometheus/recording.yml");
    let dashboard: serde_json::Value =
        serde_json::from_str(&read("conf/grafana/ringway.json")).unwrap();
    let mut expressions: Vec<String> = [recording.clone(), read("conf/prometheus/alerts.yml")]
        .iter()
        .flat_map(|file| file.lines().map(str::to_owned).collect::<Vec<_>>())
        .filter_map(|line| line.trim().strip_prefix("expr: ").map(str::to_owned))
        .collect();
    let mut ids = std::collections::HashSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "two panels have one id");
        assert!(!panel["description"].as_str().unwrap().is_empty(), "{panel}");
        for target in panel["targets"].as_array().unwrap() {
            expressions.push(target["expr"].as_str().unwrap().to_owned());
        }
    }
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        expressions.extend(variable["definition"].as_str().map(str::to_owned));
    }
    assert!(expressions.len() > 40, "{}", expressions.len());
    // Labels that Prometheus adds.
    let mut labels: Vec<&str> = vec!["job", "instance"];
    labels.extend(families.iter().flat_map(|family| family.labels.iter().map(String::as_str)));
    for expression in &expressions {
        for name in expression.split(|c: char| !(c.is_ascii_alphanumeric() || "_:".contains(c))) {
            let is_rule = name.contains(":ringway_") || name.contains(":istio_");
            if is_rule {
                assert!(recording.contains(&format!("record: {name}\n")), "{name}: {expression}");
            } else if is_name(name) || name.starts_with("istio_") {
                let family = ["_bucket", "_count", "_sum"]
                    .iter()
                    .find_map(|suffix| name.strip_suffix(suffix))
                    .unwrap_or(name);
                assert!(families.iter().any(|it| it.name == family), "{name}: {expression}");
            }
        }
        for part in expression.split(" by (").skip(1) {
            for label in part.split(')').next().unwrap().split(", ") {
                assert!(labels.contains(&label), "{label}: {expression}");
            }
        }
    }
}

/// promtool accepts the rules, and has no complaint about our own metrics. In the metrics of Istio,
/// it has one: about the milliseconds in a name that Istio has chosen.
#[test]
fn promtool_has_no_complaint() {
    let programs = of_prometheus("promtool");
    if programs.is_empty() {
        return skipped("promtool is missing");
    }
    programs.iter().for_each(|promtool| has_no_complaint(promtool));
}

fn has_no_complaint(promtool: &Path) {
    let check = |arguments: &[&str], input: &str| {
        let child = Command::new(promtool)
            .args(arguments)
            .current_dir(root())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = child.ok()?;
        child.stdin.take()?.write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        Some((output.status.success(), String::from_utf8(said).unwrap()))
    };
    let page = page(Format::Text);
    let (_, said) = check(&["check", "metrics"], &page).unwrap();
    let name = "istio_request_duration_milliseconds";
    let complaint = format!("{name} use base unit \"seconds\" instead of \"milliseconds\"");
    assert_eq!(said.trim(), complaint);
    let (mut own, mut is_istio) = (String::new(), false);
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            is_istio = rest.starts_with(name);
        }
        if !is_istio {
            own += line;
            own.push('\n');
        }
    }
    assert_eq!(check(&["check", "metrics"], &own).unwrap(), (true, String::new()));
    let (fine, said) = check(&["check", "config", "conf/prometheus/prometheus.yml"], "").unwrap();
    assert!(fine, "{said}");
}

/// In OpenMetrics, each family has its type once, samples of counters end with `_total`, and the
/// page ends with a mark.
#[test]
fn the_page_is_openmetrics_for_those_who_ask() {
    let text = page(Format::OpenMetrics);
    assert!(text.ends_with("# EOF\n") && text.matches("# EOF").count() == 1);
    let mut seen = std::collections::HashSet::new();
    let (mut family, mut kind) = (String::new(), String::new());
    for line in text.lines().filter(|line| *line != "# EOF") {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, of) = rest.split_once(' ').unwrap();
            assert!(seen.insert(name.to_owned()), "{name} appears twice");
            (family, kind) = (name.to_owned(), of.to_owned());
            assert!(kind != "counter" || !name.ends_with("_total"), "{name}");
        } else if !line.starts_with("# HELP ") {
            let name = line.split(['{', ' ']).next().unwrap();
            let suffix = name.strip_prefix(&*family).unwrap_or_else(|| panic!("{line}: {family}"));
            let allowed: &[&str] = match &*kind {
                "counter" => &["_total"],
                "histogram" => &["_bucket", "_sum", "_count"],
                "summary" => &["_sum", "_count"],
                _ => &[""],
            };
            assert!(allowed.contains(&suffix), "{line}");
            if let Some((_, le)) = line.split_once(",le=\"") {
                assert!(le.starts_with("+Inf") || le[..le.find('"').unwrap()].contains('.'));
            }
        }
    }
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

fn is_name(text: &str) -> bool {
    let rest = text.strip_prefix("ringway_").or_else(|| text.strip_prefix("process_"));
    rest.is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_lowercase() || b"_0123".contains(&b)))
}

struct Family {
    name: String,
    kind: String,
    help: String,
    labels: Vec<String>,
    samples: usize,
}

/// The page of a proxy after one event of each kind.
fn page(format: Format) -> String {
    let place = tempfile::tempdir().unwrap();
    let snapshot = snapshot(place.path());
    exercise(&snapshot);
    let workers = Arc::new(PerWorker::new(1));
    workers.worker(0); // A worker's counters exist from its first use.
    let status = Status::new(workers, Arc::default());
    status.known().snapshot = Some(snapshot);
    let (resource, level) = (Resource::Descriptors, Level::Shed);
    let heard = Some(std::time::Instant::now());
    let source = SourceState { name: "etcd", heard, ..SourceState::default() };
    status.known().sources.insert("etcd", source);
    let resources = vec![ResourceState::default()];
    let source = SourceState { name: "xds", heard, resources, ..SourceState::default() };
    status.known().sources.insert("xds", source);
    status.known().overload[0] = Some(Reading { resource, used: 91.0, limit: 100.0, level });
    metrics::render(&status.known(), format)
}

fn families() -> Vec<Family> {
    let text = page(Format::Text);
    let mut families: Vec<Family> = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            let (name, help) = (name.to_owned(), help.to_owned());
            families.push(Family { name, kind: String::new(), help, labels: vec![], samples: 0 });
            continue;
        }
        let family = families.last_mut().unwrap();
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            rest.rsplit(' ').next().unwrap().clone_into(&mut family.kind);
            continue;
        }
        assert!(line.starts_with(&family.name), "{line} stands below {}", family.name);
        family.samples += 1;
        for label in labels(line) {
            if !family.labels.contains(&label) {
                family.labels.push(label);
            }
        }
    }
    families
}

/// The labels of a sample.
fn labels(line: &str) -> Vec<String> {
    let Some((_, rest)) = line.split_once('{') else { return Vec::new() };
    rest.split("=\"")
        .filter_map(|piece| {
            let name = piece.rsplit([',', '"']).next().unwrap();
            let is_label = name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            (is_label && !name.is_empty()).then(|| name.to_owned())
        })
        .collect()
}

fn snapshot(place: &Path) -> Arc<Snapshot> {
    let plan = ca::Plan {
        trust_domain: "spiffe://cluster.local".parse().unwrap(),
        name: "Metrics".to_owned(),
        root_lifetime: Duration::from_secs(7200),
        intermediate_lifetime: Duration::from_secs(3600),
    };
    ca::init(&place.join("ca"), &plan, SystemTime::now()).unwrap();
    std::fs::write(place.join("keys.json"), KEYS).unwrap();
    let file = place.join("ringway.yaml");
    std::fs::write(&file, CONFIGURATION).unwrap();
    let loaded = files::load(&[file], &HashMap::new());
    let compiled = files::compile(&loaded, 1, &mut Registry::new(1), &Resolutions::new());
    Arc::new(compiled.unwrap_or_else(|errors| panic!("{errors}")).snapshot)
}

/// Counts one event of each kind that has no sample before its first event.
fn exercise(snapshot: &Snapshot) {
    for listener in &snapshot.listeners {
        listener.stats.worker(0).tls_failures[0].increment();
        listener.stats.worker(0).http2_floods[0].increment();
        listener.stats.worker(0).http3_floods[0].increment();
        for rule in listener.routes().into_iter().flat_map(|table| table.rules()) {
            rule.stats.worker(0).status_class[1].increment();
        }
        if let Some(capture) = listener.capture() {
            capture.seen.worker(0).count("192.0.2.1:80".parse().unwrap(), true);
        }
    }
    exercise_standard(snapshot.standard.as_ref().unwrap());
    for rule in snapshot.authorization.rules() {
        rule.stats.worker(0).allowed.increment();
    }
    for service in &snapshot.services {
        service.stats.worker(0).http2_floods[0].increment();
        let (method, code) = (Some("shop.Cart/Add"), Code::OK);
        let call = Call { method, code, request_messages: 1, response_messages: 1 };
        KnownMethods::default().count(&service.methods, 0, &call);
        for endpoint in &service.endpoints.load().list {
            endpoint.stats.worker(0).status_class[1].increment();
            if let Some(state) = &endpoint.health {
                state.failures[0].increment();
            }
        }
    }
}

/// Counts one event of each of Istio's standard metrics.
fn exercise_standard(standard: &Standard) {
    let store = &standard.store;
    for spoken in [Spoken::Grpc, Spoken::Tcp] {
        let key = Key {
            source: store.unknown_party().id,
            target: store.unknown_target().id,
            reporter: Reporter::Destination,
            spoken,
            mutual: true,
            status: 200,
            flag: None,
            delayed: false,
            grpc: (spoken == Spoken::Grpc).then_some(0),
            facts: 0,
        };
        let series = store.find(key, store.unknown_party(), store.unknown_target(), None);
        series.http.worker(0).duration.observe_us(1);
        series.tcp.worker(0).opened.increment();
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
