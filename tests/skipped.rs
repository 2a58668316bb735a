//! Tests that cannot run on this machine.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Reports that a test does not run here. With CI=true the test fails instead. The report goes to
/// stderr directly, because the test harness hides `eprintln!` of a test that passes.
#[track_caller]
pub fn skipped(reason: &str) {
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "cannot run here: {reason}");
    writeln!(io::stderr().lock(), "SKIPPED: {reason}").unwrap();
}

/// The command `name` (`prometheus`, `promtool`) of the newest Prometheus, which
/// `tests/peers/build prometheus` builds, and of the installed one. Without the newest one, the
/// result is neither a failure nor a success.
pub fn of_prometheus(name: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let versions = std::fs::read_to_string(root.join("tests/peers/versions")).unwrap();
    let version = versions.lines().find_map(|line| line.strip_prefix("prometheus_version="));
    let home = std::env::var("HOME").unwrap_or_default();
    let peers = std::env::var("RINGWAY_PEERS");
    let peers = peers.unwrap_or_else(|_| format!("{home}/.cache/ringway-peers"));
    let newest = PathBuf::from(format!("{peers}/prometheus-{}/{name}", version.unwrap()));
    let runs = |path: &PathBuf| {
        let mut command = Command::new(path);
        command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    if !runs(&newest) {
        let text = "NOT CHECKED with Prometheus 3: run tests/peers/build prometheus";
        writeln!(io::stderr().lock(), "{text}").unwrap();
    }
    [newest, name.into()].into_iter().filter(runs).collect()
}
