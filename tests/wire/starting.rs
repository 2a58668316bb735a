//! The messages of a start, and of a start that fails.

use std::process::{Command, Output};

use crate::support::origin::Origin;
use crate::support::proxy::Proxy;
use crate::support::{eventually, free_listener, free_port};

fn ringway(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ringway")).args(words).output().unwrap()
}

#[test]
fn a_start_that_fails_says_why_once() {
    let busy = free_listener();
    let file = tempfile::NamedTempFile::with_suffix(".yaml").unwrap();
    let config = format!(
        "listeners: {{web: {{bind: \"{}\"}}}}\nadmin: {{bind: 127.0.0.1:{}}}\n\
         routes: {{\"*\": [{{respond: {{status: 204}}}}]}}\n",
        busy.local_addr().unwrap(),
        free_port()
    );
    std::fs::write(file.path(), config).unwrap();
    let output = ringway(&["run", "-c", file.path().to_str().unwrap()]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(said.matches("cannot listen on").count(), 1, "{said}");
    assert!(!said.contains("stays in use"), "{said}");
}

#[test]
fn a_demo_on_a_busy_port_names_the_option() {
    let busy = free_listener();
    let (port, free) = (busy.local_addr().unwrap().port().to_string(), free_port().to_string());
    for (words, option) in [
        (["demo", "--port", &port, "--admin-port", &free], "with --port"),
        (["demo", "--port", &free, "--admin-port", &port], "with --admin-port"),
    ] {
        let output = ringway(&words);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(option), "{said}");
        assert!(output.stdout.is_empty(), "no success before the failure");
    }
}

#[test]
fn the_start_says_what_listens_where_and_how() {
    let (origin, port) = (Origin::saying("x"), free_port());
    let proxy = Proxy::start_under(
        &[],
        "workers: 1, driver: epoll",
        &format!(
            "listeners: {{web: {{bind: 127.0.0.1:{port}}}}}\nroutes: {{\"*\": [{{to: app}}]}}\n\
             services: {{app: {{endpoints: [\"{}\"]}}}}\n",
            origin.address()
        ),
    );
    for words in ["listening listener=\"web\"", &format!("bind=127.0.0.1:{port}"), "\"epoll\""] {
        eventually(words, || proxy.log().contains(words).then_some(()));
    }
    assert!(!proxy.log().contains("io_uring is not available"), "it was not asked for");
}

#[test]
fn the_warnings_of_check_are_logged_once_for_each_reload() {
    let config = format!(
        "listeners: {{web: {{bind: 127.0.0.1:{}}}}}\nroutes: {{\"*\": [{{to: app}}]}}\n\
         services: {{app: {{endpoints: []}}}}\n",
        free_port()
    );
    let proxy = Proxy::start(&config);
    let message = "WARN this service has no endpoints: each request to it gets 503 place=";
    let place = "ringway.yaml:3";
    let said = |proxy: &Proxy| {
        let log = proxy.log();
        log.lines().filter(|line| line.contains(message) && line.contains(place)).count()
    };
    eventually("the warning", || (said(&proxy) == 1).then_some(()));
    proxy.reload(&format!("{config}drain: 5s\n"));
    eventually("the warning again", || (said(&proxy) == 2).then_some(()));
}

/// Starts the rest of its arguments with a seccomp filter that answers io_uring_setup with EPERM,
/// like the filters of containers.
const WITHOUT_IO_URING: &str = r#"
import ctypes, os, struct, sys
IO_URING_SETUP, ERRNO_EPERM, ALLOW = 425, 0x00050001, 0x7fff0000
code = [(0x20, 0, 0, 0), (0x15, 0, 1, IO_URING_SETUP), (6, 0, 0, ERRNO_EPERM), (6, 0, 0, ALLOW)]
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]
text = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in code))
program = Program(len(code), ctypes.cast(text, ctypes.c_char_p))
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, ctypes.byref(program), 0, 0) == 0
os.environ.pop("MONOIO_FORCE_LEGACY_DRIVER", None)
os.execv(sys.argv[1], sys.argv[1:])
"#;

#[test]
fn workers_without_io_uring_say_why_and_how_to_allow_it() {
    let config = format!(
        "listeners: {{web: {{bind: 127.0.0.1:{}}}}}\n\
         routes: {{\"*\": [{{respond: {{status: 204}}}}]}}\n",
        free_port()
    );
    let wrapper = ["python3", "-c", WITHOUT_IO_URING];
    let proxy = Proxy::start_under(&wrapper, "workers: 2", &config);
    eventually("the start", || proxy.log().contains("ready workers=2").then_some(()));
    let log = proxy.log();
    let said: Vec<&str> =
        log.lines().filter(|line| line.contains("io_uring is not available")).collect();
    let [line] = said[..] else { panic!("once for all workers: {said:?}") };
    for words in [" WARN ", "Operation not permitted", "kernel.io_uring_disabled=0"] {
        assert!(line.contains(words), "{line}");
    }
    assert!(proxy.admin("/metrics").text().contains("driver=\"epoll\""));
}
