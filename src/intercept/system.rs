//! System calls and programs: network namespaces, users, groups and interfaces.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sched::{CloneFlags, setns};
use nix::unistd::{Group, User};

use super::error::InterceptError;

use crate::error::plain;

/// Directories of administrator programs, which are often not in the PATH of normal users.
const SYSTEM_DIRECTORIES: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/bin"];

/// The path of a program. Returns `None` if it is not installed.
pub(super) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).chain(SYSTEM_DIRECTORIES.map(PathBuf::from));
    directories.map(|directory| directory.join(program)).find(|path| path.is_file())
}

/// The path of a program. Returns an error if it is not installed.
pub(super) fn need(program: &str) -> Result<PathBuf, InterceptError> {
    let package = match program {
        "nft" => "nftables",
        "ip" => "iproute2",
        _ => "iptables",
    };
    find(program).ok_or_else(|| InterceptError::Missing { program: program.to_owned(), package })
}

/// Runs a program with `input` on its standard input. Waits for its end, and returns its output.
pub(super) fn run<A: AsRef<str>>(
    program: &str,
    arguments: &[A],
    input: &str,
) -> Result<String, InterceptError> {
    let words: Vec<&str> = arguments.iter().map(AsRef::as_ref).collect();
    let shown = format!("{program} {}", words.join(" "));
    let failed = |error: std::io::Error| InterceptError::Failed {
        command: shown.clone(),
        said: plain(&error),
    };
    let mut child = Command::new(need(program)?)
        .args(&words)
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let mut stdin = child.stdin.take();
    let text = input.to_owned();
    // A program may fail before it has read all of its input. Report its own message then, and not
    // the failed write.
    let writer = std::thread::spawn(move || {
        stdin.take().map(|mut stdin| stdin.write_all(text.as_bytes()).is_ok())
    });
    let output = child.wait_with_output().map_err(failed)?;
    writer.join().ok();
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(InterceptError::of_program(&shown, &String::from_utf8_lossy(&output.stderr)))
}

/// Moves this thread and its later child processes into a network namespace: a name from `ip
/// netns`, a process id, or a path.
///
/// # Errors
/// If the namespace does not exist, or if this process may not enter it.
pub fn enter(namespace: &str) -> Result<(), InterceptError> {
    let is_pid = namespace.bytes().all(|byte| byte.is_ascii_digit());
    let named = Path::new("/run/netns").join(namespace);
    let path = match () {
        () if namespace.contains('/') => PathBuf::from(namespace),
        () if is_pid && !named.exists() => PathBuf::from(format!("/proc/{namespace}/ns/net")),
        () => named,
    };
    let wrong = |cause: String| InterceptError::Namespace {
        name: namespace.to_owned(),
        cause,
        hint: "the id of a process or a path names others",
    };
    let file = File::open(&path)
        .map_err(|error| wrong(format!("{}: {}", path.display(), plain(&error))))?;
    setns(file, CloneFlags::CLONE_NEWNET).map_err(|error| match error {
        nix::errno::Errno::EPERM => InterceptError::Denied { said: format!("setns: {error}") },
        _ => wrong(error.to_string()),
    })
}

/// Whether the current network namespace supports IPv6.
pub(super) fn has_ipv6() -> bool {
    Path::new("/proc/thread-self/net/if_inet6").exists()
}

/// The content of the file `name` in `/proc/net` of this thread's network namespace. Empty if there
/// is no such file.
pub(super) fn proc_net(name: &str) -> String {
    let mut text = String::new();
    let path = Path::new("/proc/thread-self/net").join(name);
    // The files of IPv6 do not exist if the kernel has no IPv6.
    File::open(path).and_then(|mut file| file.read_to_string(&mut text)).ok();
    text
}

/// The number of a user. `name` is a name, or the number as text.
///
/// # Errors
/// If the name does not exist.
pub fn uid(name: &str) -> Result<u32, InterceptError> {
    number(name, "user", |name| User::from_name(name).ok().flatten().map(|user| user.uid.as_raw()))
}

/// The number of a group. `name` is a name, or the number as text.
///
/// # Errors
/// If the name does not exist.
pub fn gid(name: &str) -> Result<u32, InterceptError> {
    number(name, "group", |name| {
        Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw())
    })
}

fn number(
    name: &str,
    kind: &'static str,
    look_up: impl Fn(&str) -> Option<u32>,
) -> Result<u32, InterceptError> {
    let known = name.parse().ok().or_else(|| look_up(name));
    known.ok_or_else(|| InterceptError::Account {
        kind,
        name: name.to_owned(),
        help: format!("name another, give its number, or create it: {kind}add --system {name}"),
    })
}
