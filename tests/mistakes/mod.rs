//! Wrong configurations, each with the whole output of `ringway check`: `TOPIC/NAME.yaml` and
//! `TOPIC/NAME.txt`. `UPDATE=1 cargo test --test all mistakes` writes the outputs again.
//!
//! A comment in the first line may have options: `# strict` for `--strict`, `# messages: 2` if the
//! file has two mistakes. Certificates and keys are in `files/`. The files in `objects/` are
//! objects of Kubernetes, beside the configuration `OBJECTS`.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use ringway::sources::files;

/// Fewer cases than this mean that some were lost.
const CASES_MIN: usize = 250;

/// Cases whose advice has numbers that their author did not write.
const NUMBERS: &[&str] = &[
    // One less than `max_tokens`.
    "envoy/token_bucket-of-a-minute",
    "envoy/token_bucket-smaller-than-its-fill",
    "envoy/token_bucket-without-its-level",
    // Without a burst, nginx lets one request pass at a time.
    "nginx/limit_req_zone",
    // 1500 thousandths.
    "envoy/success_rate_stdev_factor",
    // A ratio as a share, and ten times the retries of a second.
    "linkerd/retryBudget",
    // The class 5xx.
    "logs/filter-of-words",
    // The rest of 100.
    "istio/weight-in-a-rule",
    // Defaults.
    "envoy/overload_manager",
    "meaning/budget-of-min-alone",
    "meaning/overload-the-wrong-way-round",
    // All requests and none.
    "meaning/shift-of-a-whole-service",
    "meaning/shift-to-a-version-outside-to",
    // The next whole second.
    "meaning/sticky-cookie-of-milliseconds",
    // The beginning of a configuration.
    "meaning/no-listener",
    "yaml/empty",
    // All addresses.
    "nginx/http-block",
    "traefik/entryPoints",
];

/// The configuration beside a file of objects, which is `objects.yaml`.
const OBJECTS: &str = "\
listeners: {web: {bind: 127.0.0.1:8080}}
routes: {\"*\": [{to: own}]}
services: {own: {versions: {v1: [127.0.0.1:9000], v2: [127.0.0.1:9001]}}}
sources: {SOURCE: {files: objects.yaml}}
";

/// The key that anyone may read. Git does not keep the modes of files.
const OPEN_KEY: &str = "open.key";

#[test]
fn each_wrong_configuration_has_its_one_message() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mistakes");
    let update = std::env::var_os("UPDATE").is_some();
    let cases = cases(&root);
    assert!(cases.len() >= CASES_MIN, "only {} cases", cases.len());
    let place = directory_of_materials(&root.join("files"));
    let mut wrong = String::new();
    for case in &cases {
        let name = case.strip_prefix(&root).unwrap().display();
        let (output, messages, expected_messages) = checked(case, place.path());
        let expected_file = case.with_extension("txt");
        if update {
            std::fs::write(&expected_file, &output).unwrap();
        }
        let expected = std::fs::read_to_string(&expected_file).unwrap_or_default();
        if output != expected {
            write!(wrong, "\n{name}:\n{}", difference(&expected, &output)).unwrap();
        }
        let topic = case.with_extension("");
        let topic = topic.strip_prefix(&root).unwrap().to_str().unwrap();
        let invented = invented(&std::fs::read_to_string(case).unwrap(), &output);
        if !invented.is_empty() && !NUMBERS.contains(&topic) {
            let what = format!("the advice has {invented:?}, and its author did not write that");
            write!(wrong, "\n{name}: {what}:\n{output}").unwrap();
        }
        if messages != expected_messages {
            let what = format!("{messages} messages for {expected_messages} mistakes");
            write!(wrong, "\n{name}: {what}:\n{output}").unwrap();
        }
    }
    assert!(
        wrong.is_empty(),
        "{wrong}\n- is expected, + is found. UPDATE=1 cargo test --test all mistakes writes +"
    );
}

#[test]
fn every_output_has_its_configuration() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mistakes");
    for output in below(&root, "txt") {
        assert!(output.with_extension("yaml").exists(), "{} is left over", output.display());
    }
}

fn cases(root: &Path) -> Vec<PathBuf> {
    below(root, "yaml")
}

fn below(root: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let topics = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
    for topic in topics.filter(|path| path.is_dir()) {
        let entries = std::fs::read_dir(topic).unwrap().map(|entry| entry.unwrap().path());
        found.extend(entries.filter(|path| path.extension().is_some_and(|it| it == extension)));
    }
    found.sort();
    found
}

/// A directory with the certificates and keys. Only their owner may read the keys.
fn directory_of_materials(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let copy = to.path().join(entry.file_name());
        std::fs::copy(entry.path(), &copy).unwrap();
        let mode = if entry.file_name() == OPEN_KEY { 0o644 } else { 0o600 };
        std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    to
}

/// The output for one configuration, the number of its messages, and their expected number.
fn checked(case: &Path, directory: &Path) -> (String, usize, usize) {
    let text = std::fs::read_to_string(case).unwrap();
    let first = text.lines().next().unwrap_or_default();
    let strict = first.starts_with("# strict");
    let expected = first.strip_prefix("# messages: ").map_or(1, |count| count.parse().unwrap());
    let mut copy = directory.join(case.file_name().unwrap());
    if case.parent().is_some_and(|topic| topic.ends_with("objects")) {
        std::fs::write(directory.join("objects.yaml"), &text).unwrap();
        copy = directory.join("configuration.yaml");
        std::fs::write(&copy, OBJECTS.replace("SOURCE", source_of(&text))).unwrap();
    } else {
        std::fs::write(&copy, &text).unwrap();
    }
    let environment = HashMap::from([("PORT".to_owned(), "8080".to_owned())]);
    let report = files::check(&[copy], &environment, strict);
    let output = format!("{}{}\n", report.mistakes, report.summary);
    let output = output.replace(&format!("{}/", directory.display()), "");
    let messages = output.lines().filter(|line| is_message(line)).count();
    (output, messages, expected)
}

/// The source that reads these objects.
fn source_of(objects: &str) -> &'static str {
    match objects {
        text if text.contains("gateway.networking.k8s.io") => "gateway_api",
        text if text.contains("smi-spec.io") => "smi",
        _ => "istio",
    }
}

/// Whether a line of the output begins a message.
fn is_message(line: &str) -> bool {
    [": error: ", ": warning: "].iter().any(|mark| line.contains(mark))
        || ["error: ", "warning: "].iter().any(|mark| line.starts_with(mark))
}

/// The numbers in the code of the advice that are not in the configuration. An author who copies
/// such an advice gets a value that nobody chose. Placeholders are in capitals: see
/// `src/compile/habits/fill.rs`.
fn invented(configuration: &str, output: &str) -> Vec<String> {
    let numbers = |text: &str| {
        let parts = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let digits = |part: &str| part.trim_end_matches(|c: char| !c.is_ascii_digit()).to_owned();
        let parts = parts.filter(|part| part.starts_with(|c: char| c.is_ascii_digit()));
        parts.map(digits).collect::<Vec<_>>()
    };
    let known = numbers(configuration);
    let helps = output.lines().filter(|line| line.contains("= help:"));
    // Every other part is between backticks.
    let code = helps.flat_map(|help| help.split('`').skip(1).step_by(2));
    code.flat_map(numbers).filter(|number| !known.contains(number)).collect()
}

/// The lines that differ: `-` is expected, `+` is found.
fn difference(expected: &str, found: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), found.lines().collect());
    let same = old.iter().zip(&new).take_while(|(old, new)| old == new).count();
    let (mut old_end, mut new_end) = (old.len(), new.len());
    while old_end > same && new_end > same && old[old_end - 1] == new[new_end - 1] {
        (old_end, new_end) = (old_end - 1, new_end - 1);
    }
    let mut out = String::new();
    let mut lines = |mark: &str, lines: &[&str]| {
        lines.iter().for_each(|line| writeln!(out, "{mark} {line}").unwrap());
    };
    lines(" ", &old[..same]);
    lines("-", &old[same..old_end]);
    lines("+", &new[same..new_end]);
    lines(" ", &new[new_end..]);
    out
}
