//! Outputs that accept no data, such as a pipe without a reader or a full disk, do not stop the
//! proxy.

use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;

use crate::support::http::Client;
use crate::support::origin::Origin;
use crate::support::proxy::Proxy;
use crate::support::{eventually, free_port};

/// The length of request targets. It is large, so that few requests fill the log.
const LONG: usize = 4000;

fn config(port: u16, endpoint: &str, access_log: &Path) -> String {
    format!(
        "listeners: {{web: {{bind: 127.0.0.1:{port}}}}}\n\
         routes: {{\"*\": [{{to: app}}]}}\n\
         services: {{app: {{endpoints: [\"{endpoint}\"]}}}}\n\
         telemetry: {{access_log: {{path: {}}}}}\n",
        access_log.display()
    )
}

/// Creates a FIFO. Returns its path and its reading end. Only the test reads it.
fn pipe(directory: &Path) -> (PathBuf, std::fs::File) {
    let path = directory.join("pipe");
    nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
    let flags = libc::O_NONBLOCK;
    let reader = std::fs::OpenOptions::new().read(true).custom_flags(flags).open(&path).unwrap();
    (path, reader)
}

/// Sends requests with long targets until `done` holds.
#[track_caller]
fn request_until(port: u16, mut done: impl FnMut() -> bool) {
    let mut client = Client::connect(port);
    let target = format!("/{}", "x".repeat(LONG));
    eventually("enough requests", || {
        for _ in 0..50 {
            assert_eq!(client.get("a", &target).status, 200);
        }
        done().then_some(())
    });
}

#[test]
fn an_access_log_that_nobody_reads_stops_nothing() {
    let origin = Origin::saying("x");
    let port = free_port();
    let directory = tempfile::tempdir().unwrap();
    let (path, _unread) = pipe(directory.path());
    let mut proxy = Proxy::start(&config(port, &origin.address(), &path));
    let dropped = || proxy.metric("ringway_access_log_dropped_lines_total");
    request_until(port, || dropped() > 0.0);
    eventually("the log to say it", || {
        proxy.log().contains("access log lines were dropped").then_some(())
    });
    let successes = || proxy.metric("ringway_config_reloads_total{result=\"success\"}");
    let before = successes();
    proxy.signal(Signal::SIGHUP);
    eventually("the reload", || (successes() > before).then_some(()));
    let file = directory.path().join("access.log");
    proxy.reload(&config(port, &origin.address(), &file));
    assert_eq!(Client::connect(port).get("a", "/after").status, 200);
    eventually("the line in the new file", || {
        std::fs::read_to_string(&file).ok()?.contains("/after").then_some(())
    });
    proxy.reload(&config(port, &origin.address(), &path));
    let before = proxy.metric("ringway_access_log_dropped_lines_total");
    request_until(port, || proxy.metric("ringway_access_log_dropped_lines_total") > before);
    proxy.signal(Signal::SIGTERM);
    assert!(proxy.wait().success());
}

#[test]
fn a_standard_error_that_nobody_reads_stops_nothing() {
    let origin = Origin::saying("x");
    let port = free_port();
    let directory = tempfile::tempdir().unwrap();
    let (path, mut unread) = pipe(directory.path());
    let script = format!("exec \"$0\" \"$@\" 2>{}", path.display());
    let good = config(port, &origin.address(), &directory.path().join("access.log"));
    let mut proxy = Proxy::start_under(&["sh", "-c", &script], "workers: 2", &good);
    // One refusal logs more than the queue holds, because each of the 100 messages quotes its line.
    let long = "x".repeat(30_000);
    let wrong: String = (0..100).map(|number| format!("wrong_{number}: 1 # {long}\n")).collect();
    std::fs::write(proxy.config_file(), wrong).unwrap();
    eventually("lines to be dropped", || {
        proxy.signal(Signal::SIGHUP);
        (proxy.metric("ringway_log_dropped_lines_total") > 0.0).then_some(())
    });
    proxy.reload(&good);
    assert_eq!(Client::connect(port).get("a", "/").text(), "x");
    // Read the pipe from now on.
    let mut read = String::new();
    eventually("the log to say it", || {
        let mut portion = [0; 65536];
        while let Ok(bytes @ 1..) = unread.read(&mut portion) {
            read.push_str(&String::from_utf8_lossy(&portion[..bytes]));
        }
        read.contains("lines of this log were dropped").then_some(())
    });
    proxy.signal(Signal::SIGTERM);
    assert!(proxy.wait().success());
}

#[test]
fn a_full_disk_costs_log_lines_that_are_counted_and_said_once_a_second() {
    if !nix::unistd::geteuid().is_root() {
        return crate::support::skipped("only root can mount a file system");
    }
    let origin = Origin::saying("x");
    let port = free_port();
    let directory = tempfile::tempdir().unwrap();
    let mount = directory.path().display();
    let script = format!("mount -t tmpfs -o size=64k none {mount} && exec \"$0\" \"$@\"");
    let path = directory.path().join("access.log");
    let config = config(port, &origin.address(), &path);
    let wrapper = ["unshare", "-m", "sh", "-c", &script];
    let began = Instant::now();
    let proxy = Proxy::start_under(&wrapper, "workers: 2", &config);
    let dropped = || proxy.metric("ringway_access_log_dropped_lines_total");
    request_until(port, || dropped() > 200.0);
    let log = proxy.log();
    assert!(log.contains("No space left"), "{log}");
    let said = log.matches("access log lines were dropped").count();
    assert!(said as u64 <= began.elapsed().as_secs() + 1, "{said} lines:\n{log}");
    // Make room on the disk.
    let inside = PathBuf::from(format!("/proc/{}/root{}", proxy.pid(), path.display()));
    std::fs::OpenOptions::new().write(true).open(&inside).unwrap().set_len(0).unwrap();
    assert_eq!(Client::connect(port).get("a", "/after").status, 200);
    let text = eventually("the line", || {
        let text = std::fs::read_to_string(&inside).ok()?;
        text.contains("/after").then_some(text)
    });
    for line in text.lines().filter(|line| !line.is_empty()) {
        serde_json::from_str::<serde_json::Value>(line).unwrap();
    }
}

/// Stops the main thread of the process in its argument, and no other thread.
const STOP_MAIN_THREAD: &str = r#"
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
pid, SEIZE, INTERRUPT, WALL = int(sys.argv[1]), 0x4206, 0x4207, 0x40000000
for request in (SEIZE, INTERRUPT):
    if libc.ptrace(request, pid, None, None) != 0:
        sys.exit(os.strerror(ctypes.get_errno()))
os.waitpid(pid, WALL)
print("stopped", flush=True)
while not os.WIFSIGNALED(status := os.waitpid(pid, WALL)[1]) and not os.WIFEXITED(status):
    pass
"#;

/// A debugger stops the control thread, like a file system that hangs.
#[test]
fn a_second_sigterm_ends_a_process_whose_control_thread_is_stuck() {
    if !nix::unistd::geteuid().is_root() {
        return crate::support::skipped("only root can surely stop a thread of another process");
    }
    let origin = Origin::saying("x");
    let port = free_port();
    let directory = tempfile::tempdir().unwrap();
    let config = config(port, &origin.address(), &directory.path().join("access.log"));
    let mut proxy = Proxy::start_under(&[], "workers: 1", &config);
    let mut holder = Command::new("python3");
    holder.args(["-c", STOP_MAIN_THREAD, &proxy.pid().to_string()]).stdout(Stdio::piped());
    let mut holder = holder.spawn().unwrap();
    let mut said = [0; 7];
    holder.stdout.take().unwrap().read_exact(&mut said).unwrap();
    proxy.signal(Signal::SIGTERM);
    assert_eq!(Client::connect(port).get("a", "/").text(), "x", "the workers go on");
    // Two pending SIGTERMs count as one, so send it again.
    eventually("the end", || {
        proxy.signal(Signal::SIGTERM);
        proxy.has_ended().then_some(())
    });
    holder.wait().unwrap();
}

#[test]
fn a_configuration_that_is_a_pipe_is_refused_and_blocks_nothing() {
    let origin = Origin::saying("x");
    let port = free_port();
    let directory = tempfile::tempdir().unwrap();
    let config = config(port, &origin.address(), &directory.path().join("access.log"));
    let proxy = Proxy::start(&config);
    let (path, _reader) = pipe(directory.path());
    std::fs::rename(&path, proxy.config_file()).unwrap();
    eventually("the refusal", || {
        proxy.log().contains("ringway.yaml: cannot read it: it is a FIFO, not a file").then_some(())
    });
    assert_eq!(proxy.metric("ringway_config_files_differ"), 1.0);
    proxy.reload(&format!("{config}drain: 5s\n"));
    assert_eq!(proxy.metric("ringway_config_files_differ"), 0.0);
}

#[test]
fn check_names_each_file_that_is_none() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let (fifo, _reader) = pipe(directory.path());
    std::fs::create_dir(at("ca")).unwrap();
    std::fs::rename(&fifo, at("ca/intermediate.pem")).unwrap();
    for name in ["fifo.yaml", "cert.pem"] {
        nix::unistd::mkfifo(&at(name), Mode::S_IRWXU).unwrap();
    }
    std::fs::create_dir(at("directory.yaml")).unwrap();
    std::fs::write(at("key.pem"), "").unwrap();
    let tls = "listeners: {web: {bind: 127.0.0.1:1, tls: {cert: cert.pem, key: key.pem}}}\n\
               mesh: {identity: {ca: ca, id: spiffe://cluster.local/ns/a/sa/b}}\n\
               routes: {\"*\": [{respond: {status: 204}}]}\n";
    std::fs::write(at("good.yaml"), tls).unwrap();
    let mut check = Command::new("timeout");
    check.args(["60", env!("CARGO_BIN_EXE_ringway"), "check", "-c"]).arg(directory.path());
    let output = check.output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    for words in [
        "fifo.yaml: cannot read it: it is a FIFO, not a file",
        "directory.yaml: cannot read it: it is a directory, not a file",
        "cert.pem: it is a FIFO, not a file",
        "ca/intermediate.pem: it is a FIFO, not a file",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
}
