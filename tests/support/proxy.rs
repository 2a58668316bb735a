//! A running `ringway` process, started as an operator would start it.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use super::http::{Client, Response};
use super::pki::Pki;
use super::{eventually, free_port};

/// A proxy process with its own configuration directory. Killed when dropped.
pub struct Proxy {
    child: Child,
    directory: tempfile::TempDir,
    netns: Option<String>,
    /// The port of the admin interface.
    pub admin_port: u16,
    log: Arc<Mutex<String>>,
}

impl Proxy {
    /// Starts a proxy with two workers on `config` (YAML without `admin:` and `runtime:`) and
    /// waits until it is ready.
    #[track_caller]
    pub fn start(config: &str) -> Self {
        Self::start_with(config, 2)
    }

    /// A proxy with a plain and a TLS listener in front of one service. The TLS listener has the
    /// certificate `web`. Returns the proxy and the ports of both listeners.
    pub fn before(pki: &Pki, service: &str) -> (Self, u16, u16) {
        let (plain, tls) = (free_port(), free_port());
        let proxy = Self::start(&format!(
            "listeners:\n  plain: {{bind: 127.0.0.1:{plain}}}\n\
             \x20 tls: {{bind: 127.0.0.1:{tls}, tls: {{cert: {}, key: {}}}}}\n\
             routes: {{\"*\": [{{to: app}}]}}\nservices: {{app: {{{service}}}}}\n",
            pki.path("web.pem"),
            pki.path("web.key"),
        ));
        (proxy, plain, tls)
    }

    /// Like [`Proxy::start`], with this many workers.
    #[track_caller]
    pub fn start_with(config: &str, workers: usize) -> Self {
        Self::start_under(&[], &format!("workers: {workers}"), config)
    }

    /// Like [`Proxy::start`], but the command `wrapper` (`prlimit`, `unshare`) starts the proxy,
    /// and these settings stand under `runtime:`.
    #[track_caller]
    pub fn start_under(wrapper: &[&str], runtime: &str, config: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let admin_port = free_port();
        let base = format!("admin: {{bind: 127.0.0.1:{admin_port}}}\nruntime: {{{runtime}}}\n");
        std::fs::write(directory.path().join("base.yaml"), base).unwrap();
        std::fs::write(directory.path().join("ringway.yaml"), config).unwrap();
        Self::launch(wrapper, directory, admin_port, None)
    }

    /// Starts a proxy with one worker in the network namespace called `name`.
    #[track_caller]
    pub fn start_in(name: &str, config: &str) -> Self {
        Self::start_in_under(name, &[], config)
    }

    /// Like [`Proxy::start_in`], but the command `wrapper` starts the proxy.
    #[track_caller]
    pub fn start_in_under(name: &str, wrapper: &[&str], config: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let base = "admin: {bind: 127.0.0.1:9900}\nruntime: {workers: 1}\n";
        std::fs::write(directory.path().join("base.yaml"), base).unwrap();
        std::fs::write(directory.path().join("ringway.yaml"), config).unwrap();
        let wrapper = [&["ip", "netns", "exec", name], wrapper].concat();
        Self::launch(&wrapper, directory, 9900, Some(name.to_owned()))
    }

    /// Starts a proxy with a configuration directory that the test has created. Its files must bind
    /// the admin interface to `admin_port`.
    #[track_caller]
    pub fn start_on(directory: tempfile::TempDir, admin_port: u16) -> Self {
        Self::launch(&[], directory, admin_port, None)
    }

    #[track_caller]
    fn launch(
        wrapper: &[&str],
        directory: tempfile::TempDir,
        admin_port: u16,
        netns: Option<String>,
    ) -> Self {
        let ringway = env!("CARGO_BIN_EXE_ringway");
        let (program, arguments) = wrapper.split_first().unwrap_or((&ringway, &[]));
        let inner: &[&str] = if wrapper.is_empty() { &[] } else { &[ringway] };
        let mut child = Command::new(program)
            .args(arguments)
            .args(inner)
            .args(["run", "-c"])
            .arg(directory.path())
            .env("RUST_LOG", "info")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        gather(child.stdout.take().unwrap(), &log);
        gather(child.stderr.take().unwrap(), &log);
        let mut proxy = Self { child, directory, netns, admin_port, log };
        eventually("the proxy to be ready", || {
            if let Some(status) = proxy.child.try_wait().unwrap() {
                panic!("the proxy ended with {status}:\n{}", proxy.log());
            }
            proxy.try_admin("/ready").ok().filter(|response| response.status == 200)
        });
        proxy
    }

    /// The output on stdout and stderr so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// The directory of its configuration.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The file that [`Proxy::start`] wrote.
    pub fn config_file(&self) -> PathBuf {
        self.directory.path().join("ringway.yaml")
    }

    /// Replaces the configuration file by rename and waits until the proxy has applied it.
    #[track_caller]
    pub fn reload(&self, config: &str) {
        let before = self.metric("ringway_config_version");
        let new = self.directory.path().join(".new");
        std::fs::write(&new, config).unwrap();
        std::fs::rename(&new, self.config_file()).unwrap();
        eventually("the reload", || (self.metric("ringway_config_version") > before).then_some(()));
    }

    /// GET on the admin interface.
    #[track_caller]
    pub fn admin(&self, path: &str) -> Response {
        self.try_admin(path).unwrap_or_else(|why| {
            let state = std::fs::read_to_string(format!("/proc/{}/status", self.pid()));
            let state = state.unwrap_or_else(|error| error.to_string());
            let state = state.lines().find(|line| line.starts_with("State")).unwrap_or(&state);
            panic!("the admin interface, {path}: {why}; the proxy: {state}")
        })
    }

    fn try_admin(&self, path: &str) -> Result<Response, String> {
        let connect = || std::net::TcpStream::connect(("127.0.0.1", self.admin_port));
        let stream = match &self.netns {
            Some(name) => super::netns::within(name, connect),
            None => connect(),
        };
        let stream = stream.map_err(|error| format!("connect: {error}"))?;
        stream.set_read_timeout(Some(super::PATIENCE)).unwrap();
        let mut client = Client::over(stream);
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let response = client.send(request).try_response(false);
        response.map_err(|read| format!("it ended after {} bytes of its answer", read.len()))
    }

    /// The sum of all series of a metric whose line begins with `series`.
    #[track_caller]
    pub fn metric(&self, series: &str) -> f64 {
        let metrics = self.admin("/metrics");
        let lines = metrics.text().lines().filter(|line| line.starts_with(series));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// The port of its admin interface.
    pub fn admin_port(&self) -> u16 {
        self.admin_port
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its resident memory in KiB.
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        nix::sys::signal::kill(pid, signal).unwrap();
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits until the process ends.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        eventually("the proxy to end", || self.child.try_wait().unwrap())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        if std::thread::panicking() {
            eprintln!("--- the proxy's log ---\n{}", self.log());
        }
    }
}

fn gather(stream: impl std::io::Read + Send + 'static, log: &Arc<Mutex<String>>) {
    let log = Arc::clone(log);
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let mut log = log.lock().unwrap();
            log.push_str(&line);
            log.push('\n');
        }
    });
}
