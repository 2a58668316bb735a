//! Network namespaces, and a pair of them that a veth pair connects.

use std::fs::File;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sched::{CloneFlags, setns};

/// A network namespace with its own name. It is removed when this value is dropped.
pub struct Namespace {
    pub name: String,
}

impl Namespace {
    pub fn new() -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("rw-{}-{number}", std::process::id());
        sh(&format!("ip netns add {name} && ip -n {name} link set lo up"));
        Self { name }
    }

    /// Runs a closure on a thread in the namespace. Sockets that the closure creates stay in the
    /// namespace.
    #[track_caller]
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let file = File::open(format!("/run/netns/{}", self.name)).unwrap();
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(file, CloneFlags::CLONE_NEWNET).unwrap();
                work()
            });
            thread.join().unwrap()
        })
    }

    /// Runs a shell line in the namespace and returns its output. The line must succeed.
    #[track_caller]
    pub fn sh(&self, line: &str) -> String {
        let output = self.try_sh(line);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {said}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Like [`Namespace::sh`], but the line may fail.
    pub fn try_sh(&self, line: &str) -> Output {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, "sh", "-c", line]).output().unwrap()
    }

    /// Runs `ringway` with these arguments in the namespace. Returns whether it succeeded, and its
    /// output.
    pub fn ringway(&self, arguments: &str) -> (bool, String) {
        ran(self.try_sh(&format!("{} {arguments}", env!("CARGO_BIN_EXE_ringway"))))
    }

    /// Like [`Namespace::ringway`], but the command must succeed.
    #[track_caller]
    pub fn must(&self, arguments: &str) -> String {
        let (fine, said) = self.ringway(arguments);
        assert!(fine, "ringway {arguments}: {said}");
        said
    }

    /// The state that rules could have changed, as the system's tools print it, without the times
    /// of iptables-save and without packet counters.
    pub fn state(&self) -> String {
        let printed = self.sh("nft list ruleset; iptables-save; ip6tables-save; \
            iptables-legacy-save; ip6tables-legacy-save; ip rule; ip -6 rule; \
            ip route show table all; ip -6 route show table all; ip link | grep -o '^[0-9].*mtu'");
        // Link-local addresses change while the kernel runs duplicate address detection.
        let steady = |line: &&str| !line.starts_with('#') && !line.contains("fe80::");
        let kept = printed.lines().filter(steady);
        let plain = |line: &str| match (line.starts_with(':'), line.rsplit_once(" [")) {
            (true, Some((policy, _))) => policy.to_owned(),
            _ => line.to_owned(),
        };
        kept.map(plain).collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        Command::new("ip").args(["netns", "delete", &self.name]).status().ok();
    }
}

/// Whether a command succeeded, and its output.
pub fn ran(output: Output) -> (bool, String) {
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

#[track_caller]
fn sh(line: &str) {
    let (fine, said) = ran(Command::new("sh").args(["-c", line]).output().unwrap());
    assert!(fine, "{line}: {said}");
}

/// A host with an application, and a second namespace for all other hosts: clients of the
/// application, and servers behind the host's default route.
pub struct World {
    pub host: Namespace,
    pub others: Namespace,
}

impl World {
    /// The host's addresses.
    pub const HOST: [&str; 2] = ["10.99.0.1", "fd99::1"];

    /// Addresses of a server on another host.
    pub const SERVER: [&str; 2] = ["203.0.113.9", "2001:db8:9::9"];

    pub fn new() -> Self {
        let (host, others) = (Namespace::new(), Namespace::new());
        sh(&format!(
            "set -e
            ip -n {h} link add eth0 type veth peer name eth0 netns {o}
            ip -n {h} addr add 10.99.0.1/24 dev eth0
            ip -n {h} addr add fd99::1/64 dev eth0 nodad
            ip -n {o} addr add 10.99.0.2/24 dev eth0
            ip -n {o} addr add fd99::2/64 dev eth0 nodad
            ip -n {o} addr add 203.0.113.9/32 dev lo
            ip -n {o} addr add 2001:db8:9::9/128 dev lo nodad
            ip -n {h} link set eth0 up
            ip -n {o} link set eth0 up
            ip -n {h} route add default via 10.99.0.2
            ip -n {h} route add default via fd99::2",
            h = host.name,
            o = others.name,
        ));
        Self { host, others }
    }
}
