//! `ringway inject` for whole workloads: `workloads/NAME.yaml` or `.json`, with its output in
//! `NAME.out` and what it says in `NAME.txt`. `UPDATE=1 cargo test --test all inject` writes them
//! again. A comment in the first line may have options.

mod webhook;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Fewer cases than this mean that some were lost.
const CASES_MIN: usize = 6;

/// The output of a run.
struct Done {
    code: i32,
    out: String,
    said: String,
}

fn run(arguments: &[&str], input: &str) -> Done {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringway"));
    command.arg("inject").args(arguments);
    let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = pipes.spawn().unwrap();
    // A program that refuses its arguments reads nothing.
    child.stdin.take().unwrap().write_all(input.as_bytes()).ok();
    let done = child.wait_with_output().unwrap();
    Done {
        code: done.status.code().unwrap(),
        out: String::from_utf8(done.stdout).unwrap(),
        said: String::from_utf8(done.stderr).unwrap(),
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/inject/workloads")
}

fn cases() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let input = |path: &PathBuf| path.extension().is_some_and(|it| it == "yaml" || it == "json");
    let mut found: Vec<PathBuf> = entries.filter(input).collect();
    found.sort();
    found
}

#[test]
fn each_workload_gets_its_sidecar_and_nothing_else() {
    let cases = cases();
    assert!(cases.len() >= CASES_MIN, "only {} cases", cases.len());
    let mut wrong = String::new();
    for case in cases {
        let text = std::fs::read_to_string(&case).unwrap();
        let options = text.lines().next().and_then(|line| line.strip_prefix("# options: "));
        let options: Vec<&str> = options.unwrap_or_default().split_whitespace().collect();
        let once = run(&options, &text);
        // Another version of the program has another image.
        let image = concat!("ringway:", env!("CARGO_PKG_VERSION"));
        let outputs = [("out", once.out.replace(image, "ringway:VERSION")), ("txt", once.said)];
        for (extension, found) in outputs {
            let file = case.with_extension(extension);
            if std::env::var_os("UPDATE").is_some() {
                std::fs::write(&file, &found).unwrap();
            }
            if std::fs::read_to_string(&file).unwrap_or_default() != found {
                wrong += &format!("\n{} is another one:\n{found}", file.display());
            }
        }
        let twice = run(&options, &once.out);
        if twice.out != once.out {
            wrong += &format!("\n{}: a second injection changes it", case.display());
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn several_files_become_one_text() {
    let [web, stock] = ["web.yaml", "stock.yaml"].map(|name| folder().join(name));
    let both = run(&["-f", web.to_str().unwrap(), "-f", stock.to_str().unwrap()], "");
    assert_eq!(both.code, 0, "{}", both.said);
    for title in ["injected: Deployment shop/web", "injected: StatefulSet shop/stock"] {
        assert!(both.said.contains(title), "{}", both.said);
    }
    let piped = run(&["-f", "-"], &both.out);
    assert_eq!(piped.out, both.out);
    assert!(piped.said.contains("unchanged: StatefulSet shop/stock: it has its sidecar"));
    assert!(
        both.out.contains("spec: {maxUnavailable: 1, selector: {matchLabels: {app: web}}}\n---\n")
    );
}

#[test]
fn files_without_a_last_newline_stay_apart() {
    let place = tempfile::tempdir().unwrap();
    let service = "apiVersion: v1\nkind: Service\nspec:\n  type: ClusterIP";
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: b}\nspec:\n  containers:\n  - name: b\n";
    for (first, second) in [(service, pod), (service, &format!("---\n{pod}")), ("{}", pod)] {
        let [a, b] = ["a.yaml", "b.yaml"].map(|name| place.path().join(name));
        std::fs::write(&a, first).unwrap();
        std::fs::write(&b, second).unwrap();
        let done = run(&["-f", a.to_str().unwrap(), "-f", b.to_str().unwrap()], "");
        assert_eq!(done.code, 0, "{}", done.said);
        let start = format!("{first}\n---\napiVersion: v1\nkind: Pod\n");
        assert!(done.out.starts_with(&start), "{}", done.out);
    }
}

#[test]
fn wrong_usage_is_told() {
    let cases = [
        (&["-f", "/does/not/exist.yaml"][..], 1, "cannot read /does/not/exist.yaml"),
        (&["--user", "0"], 2, "--user"),
        (&["--cpu", "many"], 2, "write a quantity"),
        (&["--memory", "1Gi"], 1, "raise memory-limit"),
        (&["--exclude-inbound-ports", "http"], 2, "write 8080"),
        (&["--config", "No_Name"], 2, "write the name of an object"),
    ];
    for (arguments, code, message) in cases {
        let done = run(arguments, "");
        assert_eq!(done.code, code, "{}", done.said);
        assert!(done.said.contains(message), "{}", done.said);
        assert!(done.out.is_empty());
    }
}
