//! Network namespaces, used as separate hosts on this machine. Only root can create them.

use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use nix::sched::{CloneFlags, setns};

/// The number of namespaces that this process has created.
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// Runs `work` on a thread inside the namespace called `name`.
pub fn within<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> T {
    let path = PathBuf::from("/run/netns").join(name);
    std::thread::scope(|scope| {
        let inside = scope.spawn(move || {
            setns(File::open(path).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
            work()
        });
        inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Whether this machine can create namespaces and rules. If not, reports the reason and that the
/// test is skipped.
pub fn can_have_hosts() -> bool {
    let missing =
        ["ip", "nft"].into_iter().find(|tool| Command::new(tool).arg("-V").output().is_err());
    let reason = match missing {
        _ if !nix::unistd::geteuid().is_root() => {
            "only root can make network namespaces".to_owned()
        }
        Some(tool) => format!("{tool} is missing"),
        None => {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let name = format!("rw-probe-{}-{number}", std::process::id());
            let made = Command::new("ip").args(["netns", "add", &name]).output().unwrap();
            Command::new("ip").args(["netns", "del", &name]).output().unwrap();
            match made.status.success() {
                true => return true,
                false => String::from_utf8_lossy(&made.stderr).into_owned(),
            }
        }
    };
    super::skipped(&format!("network namespaces: {reason}"));
    false
}

/// A host: a namespace with one interface, `eth0`. Removed when dropped.
pub struct Host {
    /// The namespace.
    pub name: String,
    /// The last number of its addresses, 10.99.0.N and fd99::N.
    pub number: u8,
}

impl Host {
    /// Its IPv4 address.
    pub fn v4(&self) -> String {
        format!("10.99.0.{}", self.number)
    }

    /// Its IPv6 address, in brackets.
    pub fn v6(&self) -> String {
        format!("[fd99::{}]", self.number)
    }

    /// Runs `work` on a thread inside.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        within(&self.name, work)
    }

    /// A command that will run in the namespace.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).args(words);
        command
    }

    /// Runs a command in the namespace and returns its output. The command must succeed.
    #[track_caller]
    pub fn run(&self, words: &[&str]) -> String {
        succeeded(words, &self.command(words).output().unwrap())
    }

    /// Makes `server` the resolver of this host's system.
    pub fn resolve_by(&self, server: &str) {
        let directory = PathBuf::from("/etc/netns").join(&self.name);
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("resolv.conf"), format!("nameserver {server}\n")).unwrap();
    }

    /// Loads nft rules.
    #[track_caller]
    pub fn nft(&self, rules: &str) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), rules).unwrap();
        self.run(&["nft", "-f", file.path().to_str().unwrap()]);
    }

    /// A listening socket inside.
    #[track_caller]
    pub fn listen(&self, address: &str) -> TcpListener {
        self.within(|| TcpListener::bind(address).unwrap())
    }

    /// A connection from inside.
    #[track_caller]
    pub fn connect(&self, address: &str) -> TcpStream {
        self.try_connect(address).unwrap_or_else(|error| panic!("{address}: {error}"))
    }

    /// Like [`Host::connect`], but returns the error.
    pub fn try_connect(&self, address: &str) -> std::io::Result<TcpStream> {
        let stream = self.within(|| TcpStream::connect(address))?;
        stream.set_read_timeout(Some(super::PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Ok(stream)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        Command::new("ip").args(["netns", "del", &self.name]).output().ok();
        std::fs::remove_dir_all(PathBuf::from("/etc/netns").join(&self.name)).ok();
    }
}

/// Hosts that are connected by one switch.
pub struct Wire {
    /// The hosts, numbered from 1.
    pub hosts: Vec<Host>,
    _switch: Host,
}

impl Wire {
    /// Creates `count` hosts, each with a veth pair to a switch.
    #[track_caller]
    pub fn new(count: u8) -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("rw-{}-{number}", std::process::id());
        let switch = namespace(format!("{prefix}-switch"), 0);
        switch.run(&["ip", "link", "add", "br0", "type", "bridge"]);
        switch.run(&["ip", "link", "set", "br0", "up"]);
        let host = |number: u8| {
            let host = namespace(format!("{prefix}-{number}"), number);
            let port = format!("port{number}");
            let peer = ["peer", "name", "eth0", "netns", &host.name];
            switch.run(&[&["ip", "link", "add", &port, "type", "veth"][..], &peer].concat());
            switch.run(&["ip", "link", "set", &port, "master", "br0", "up"]);
            let v4 = format!("{}/24", host.v4());
            let v6 = format!("fd99::{number}/64");
            host.run(&["ip", "address", "add", &v4, "dev", "eth0"]);
            // Without duplicate address detection (nodad) the address is usable at once.
            host.run(&["ip", "-6", "address", "add", &v6, "dev", "eth0", "nodad"]);
            host.run(&["ip", "link", "set", "eth0", "up"]);
            for family in ["-4", "-6"] {
                host.run(&["ip", family, "route", "add", "default", "dev", "eth0"]);
            }
            host
        };
        Self { hosts: (1..=count).map(host).collect(), _switch: switch }
    }
}

#[track_caller]
fn namespace(name: String, number: u8) -> Host {
    let made = Command::new("ip").args(["netns", "add", &name]).output().unwrap();
    succeeded(&["ip", "netns", "add"], &made);
    let host = Host { name, number };
    host.run(&["ip", "link", "set", "lo", "up"]);
    host
}

#[track_caller]
fn succeeded(words: &[&str], output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// An application. Each connection runs a function on its own thread.
pub struct App {
    listener: Arc<TcpListener>,
    peers: Arc<Mutex<Vec<String>>>,
}

impl App {
    /// Serves the connections of `listener`.
    pub fn new(listener: TcpListener, serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let (listener, peers) = (Arc::new(listener), Arc::new(Mutex::new(Vec::new())));
        let (socket, seen, serve) = (Arc::clone(&listener), Arc::clone(&peers), Arc::new(serve));
        std::thread::spawn(move || {
            while let Ok((stream, peer)) = socket.accept() {
                seen.lock().unwrap().push(peer.ip().to_string());
                stream.set_read_timeout(Some(super::PATIENCE)).unwrap();
                let serve = Arc::clone(&serve);
                std::thread::spawn(move || serve(stream));
            }
        });
        Self { listener, peers }
    }

    /// Answers each request with `body`.
    pub fn saying(listener: TcpListener, body: &str) -> Self {
        let body = body.to_owned();
        Self::new(listener, move |stream| {
            let mut client = super::http::Client::over(stream);
            while client.head().is_some() {
                let length = body.len();
                client.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}"));
            }
        })
    }

    /// The addresses of the peers that have connected, in order.
    pub fn peers(&self) -> Vec<String> {
        self.peers.lock().unwrap().clone()
    }
}

impl Drop for App {
    fn drop(&mut self) {
        // Wake the accepting thread.
        let descriptor = self.listener.as_raw_fd();
        nix::sys::socket::shutdown(descriptor, nix::sys::socket::Shutdown::Both).ok();
    }
}
