//! `run --intercept`: the rules while the proxy runs, and the rules that stay after it is killed.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::namespace::World;
use super::needs_namespaces;
use super::talk::{ask, ask_udp, server, udp_server};
use crate::support::eventually;

const CONFIG: &str = "
admin: {bind: 127.0.0.1:9900}
runtime: {workers: 1}
drain: 1s
mesh:
  inbound: {bind: ['0.0.0.0:15006', '[::]:15006']}
  outbound: {bind: ['127.0.0.1:15001', '[::1]:15001']}
  intercept:
    user: none
    exclude: {inbound: {ports: [22, 9000-9100]}, outbound: {cidrs: 203.0.113.0/24, ports: 23}}
";

/// A proxy in the namespace of the host. Killed when dropped.
struct Running {
    child: Child,
    directory: tempfile::TempDir,
}

impl Running {
    /// Starts the proxy and waits until it has installed its rules.
    fn start(world: &World, options: &str) -> Self {
        Self::start_on(world, options, CONFIG)
    }

    fn start_on(world: &World, options: &str, config: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("ringway.yaml"), config).unwrap();
        // `ip` executes the proxy, so the child process is the proxy.
        let child = Command::new("ip")
            .args(["netns", "exec", &world.host.name, env!("CARGO_BIN_EXE_ringway")])
            .args(["run", "--intercept", "-c"])
            .arg(directory.path())
            .args(options.split_whitespace())
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut running = Self { child, directory };
        let mut log = BufReader::new(running.child.stderr.take().unwrap()).lines();
        let installed = |line: &String| line.contains("capture rules installed");
        assert!(log.by_ref().map_while(Result::ok).any(|line| installed(&line)), "it has ended");
        // Read the log, so that the proxy does not block.
        std::thread::spawn(move || log.for_each(drop));
        running
    }

    fn end(&mut self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn rules_live_as_long_as_the_proxy() {
    needs_namespaces!("rules_live_as_long_as_the_proxy");
    let world = World::new();
    let (host, others) = (&world.host, &world.others);
    let _app = server(host, "app", 8080);
    let _server = server(others, "server", 80);
    let before = host.state();
    for backend in ["nft", "iptables"] {
        for open in ["", "--fail-open"] {
            let mut proxy = Running::start(&world, &format!("--backend {backend} {open}"));
            let config = proxy.directory.path().display().to_string();
            let said = host.must(&format!("intercept check -c {config}"));
            assert!(said.contains("ok       inbound IPv6"), "{said}");
            assert!(!said.contains("no proxy listens"), "{said}");
            // The connection passes the proxy, so the application sees this host as its peer.
            assert_eq!(ask(others, "10.99.0.1", 8080), "app 10.99.0.1:8080 from 10.99.0.1");
            assert!(ask(host, "2001:db8:9::9", 80).starts_with("server "));
            // The port is excluded, so the connection is refused: no server listens there.
            assert_eq!(ask(host, "203.0.113.9", 81), "refused");
            proxy.end(Signal::SIGTERM);
            assert_eq!(host.state(), before, "{backend} {open}");
        }
    }
}

#[test]
fn after_a_kill_it_is_closed_or_open_as_was_asked() {
    needs_namespaces!("after_a_kill_it_is_closed_or_open_as_was_asked");
    let world = World::new();
    let (host, others) = (&world.host, &world.others);
    let _app = server(host, "app", 8080);
    let before = host.state();
    for backend in ["nft", "iptables"] {
        let mut proxy = Running::start(&world, &format!("--backend {backend}"));
        proxy.end(Signal::SIGKILL);
        // The kernel closes the sockets of a ring only after the process has ended.
        eventually("connections to be refused", || {
            (ask(others, "10.99.0.1", 8080) == "refused").then_some(())
        });
        // A new proxy takes over the existing rules, and `down` needs only the names.
        let mut proxy = Running::start(&world, "");
        assert!(ask(others, "10.99.0.1", 8080).starts_with("app "));
        proxy.end(Signal::SIGKILL);
        host.must("intercept down");
        assert_eq!(host.state(), before, "{backend}");
    }
    let mut proxy = Running::start(&world, "--backend nft --fail-open");
    let (fine, said) = host.ringway("intercept down");
    assert!(!fine && said.contains("belong to a running `ringway run"), "{said}");
    proxy.end(Signal::SIGKILL);
    eventually("the kernel to remove the table", || (host.state() == before).then_some(()));
    assert_eq!(ask(others, "10.99.0.1", 8080), "app 10.99.0.1:8080 from 10.99.0.2");
}

#[test]
fn the_real_proxy_serves_what_tproxy_and_udp_rules_bring() {
    needs_namespaces!("the_real_proxy_serves_what_tproxy_and_udp_rules_bring");
    let world = World::new();
    let (host, others) = (&world.host, &world.others);
    let _app = server(host, "app", 8080);
    for any in ["0.0.0.0", "::"] {
        std::mem::forget(udp_server(host, "app", (any, 5000), false));
    }
    let _server = server(others, "server", 80);
    for remote in World::SERVER {
        std::mem::forget(udp_server(others, "server", (remote, 443), false));
    }
    let config = CONFIG
        .replace("'[::]:15006']", "'[::]:15006'], intercept: tproxy, udp: {}")
        .replace("'[::1]:15001']", "'[::1]:15001'], udp: {}")
        .replace("cidrs: 203.0.113.0/24, ", "");
    let before = host.state();
    for backend in ["nft", "iptables"] {
        let mut proxy = Running::start_on(&world, &format!("--backend {backend}"), &config);
        for (index, (ip, remote)) in World::HOST.iter().zip(World::SERVER).enumerate() {
            let client = ["10.99.0.2", "fd99::2"][index];
            let seen = ask(others, ip, 8080);
            assert!(seen.starts_with("app "), "{backend} {ip}: {seen}");
            assert!(seen.ends_with(&format!("from {client}")), "{backend} {ip}: {seen}");
            assert!(ask(host, remote, 80).starts_with("server "), "{backend} {remote}");
            let said = ask_udp(host, remote, 443);
            assert!(said.starts_with("server "), "{backend} {remote}: {said}");
            let said = ask_udp(others, ip, 5000);
            assert!(said.starts_with("app "), "{backend} {ip}: {said}");
        }
        let config = proxy.directory.path().display().to_string();
        let said = host.must(&format!("intercept check -c {config}"));
        assert!(said.contains("is caught by TPROXY"), "{said}");
        let metrics = host.sh("curl -s http://127.0.0.1:9900/metrics");
        for direction in ["inbound", "outbound"] {
            let flows = metrics.lines().any(|line| {
                line.starts_with("ringway_capture_udp_flows_total")
                    && line.contains(&format!("mesh.{direction}"))
                    && !line.ends_with(" 0")
            });
            assert!(flows, "{direction}: {metrics}");
        }
        proxy.end(Signal::SIGTERM);
        assert_eq!(host.state(), before, "{backend}");
    }
}
