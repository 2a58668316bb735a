//! Real servers and clients: nginx, HAProxy, curl, and the strict recording origin of the probes.
//! `./test` installs them. If one is missing, its test fails and reports it.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::pki::Pki;
use super::{eventually, free_port};

/// A server process on a loopback port. Killed when dropped.
pub struct Server {
    child: Child,
    directory: tempfile::TempDir,
    /// The port.
    pub port: u16,
}

impl Server {
    /// nginx with a page, a large file and keep-alive.
    pub fn nginx() -> Self {
        let files = [("page", "from nginx\n".to_owned()), ("large", "n".repeat(3_000_000))];
        let directory = with_files(&files);
        let port = free_port();
        let root = directory.path();
        let conf = format!(
            "daemon off; worker_processes 1; pid {0}/pid; error_log {0}/error;\n\
             events {{ worker_connections 256; }}\n\
             http {{ access_log off; keepalive_requests 7; client_body_temp_path {0};\n\
             server {{ listen 127.0.0.1:{port}; root {0}; gzip off; }} }}\n",
            root.display()
        );
        std::fs::write(root.join("conf"), conf).unwrap();
        let mut command = program("nginx");
        command.arg("-c").arg(root.join("conf"));
        Self::start(command, directory, port)
    }

    /// nghttpd, which supports only HTTP/2, with these files; with TLS and NAME.pem of `pki`. It
    /// echoes posted bodies and logs its frames.
    pub fn nghttpd(files: &[(&str, String)], tls: Option<(&Pki, &str)>) -> Self {
        let directory = with_files(files);
        let port = free_port();
        let mut command = program("nghttpd");
        command.args(["-v", "--echo-upload", "-a", "127.0.0.1", "-d"]).arg(directory.path());
        match tls {
            None => _ = command.arg("--no-tls").arg(port.to_string()),
            Some((pki, name)) => {
                command.arg(port.to_string());
                command.args([".key", ".pem"].map(|end| pki.path(&format!("{name}{end}"))));
            }
        }
        Self::start(command, directory, port)
    }

    /// nginx that serves these files over HTTP/2 and closes each connection after a hundred
    /// requests. With `tls`, it uses TLS with NAME.pem of `pki`.
    pub fn nginx_http2(files: &[(&str, String)], tls: Option<(&Pki, &str)>) -> Self {
        let directory = with_files(files);
        let port = free_port();
        let root = directory.path();
        let secure = tls.map_or(String::new(), |(pki, name)| {
            let [key, certificate] = [".key", ".pem"].map(|end| pki.path(&format!("{name}{end}")));
            format!("ssl_certificate {certificate}; ssl_certificate_key {key};")
        });
        let conf = format!(
            "daemon off; worker_processes 1; pid {0}/pid; error_log {0}/error;\n\
             events {{ worker_connections 256; }}\n\
             http {{ access_log off; keepalive_requests 100; client_body_temp_path {0};\n\
             client_max_body_size 9m; {secure}\n\
             server {{ listen 127.0.0.1:{port} http2{1}; root {0}; gzip off; }} }}\n",
            root.display(),
            if tls.is_some() { " ssl" } else { "" },
        );
        std::fs::write(root.join("conf"), conf).unwrap();
        let mut command = program("nginx");
        command.arg("-c").arg(root.join("conf"));
        Self::start(command, directory, port)
    }

    /// HAProxy that answers all requests itself.
    pub fn haproxy() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let port = free_port();
        let conf = format!(
            "defaults\n  mode http\n  timeout client 9s\n  timeout server 9s\n\
             \x20 timeout connect 9s\n\
             frontend f\n  bind 127.0.0.1:{port}\n  option http-keep-alive\n\
             \x20 http-request return status 200 content-type text/plain lf-string \
             \"%[method] %[path] %[req.hdr(x-forwarded-for)]\"\n"
        );
        std::fs::write(directory.path().join("conf"), conf).unwrap();
        let mut command = program("haproxy");
        command.arg("-db").arg("-f").arg(directory.path().join("conf"));
        Self::start(command, directory, port)
    }

    /// nginx with TLS that requires client certificates. Its own certificate is NAME.pem of `pki`.
    pub fn nginx_tls(pki: &Pki, name: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let port = free_port();
        let root = directory.path();
        std::fs::write(root.join("page"), "from nginx\n").unwrap();
        let open: std::fs::Permissions = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(root, open).unwrap();
        let (cert, key) = (pki.path(&format!("{name}.pem")), pki.path(&format!("{name}.key")));
        let conf = format!(
            "daemon off; worker_processes 1; pid {0}/pid; error_log {0}/error;\n\
             events {{ worker_connections 256; }}\n\
             http {{ access_log off; server {{ listen 127.0.0.1:{port} ssl; root {0};\n\
             ssl_certificate {cert}; ssl_certificate_key {key};\n\
             ssl_client_certificate {1}; ssl_verify_client on; ssl_verify_depth 3; }} }}\n",
            root.display(),
            pki.path("ca.pem"),
        );
        std::fs::write(root.join("conf"), conf).unwrap();
        let mut command = program("nginx");
        command.arg("-c").arg(root.join("conf"));
        Self::start(command, directory, port)
    }

    /// HAProxy with TLS that requires client certificates.
    pub fn haproxy_tls(pki: &Pki, name: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let port = free_port();
        let read = |file: String| std::fs::read_to_string(pki.path(&file)).unwrap();
        let both = read(format!("{name}.pem")) + &read(format!("{name}.key"));
        std::fs::write(directory.path().join("both.pem"), both).unwrap();
        let conf = format!(
            "defaults\n  mode http\n  timeout client 9s\n  timeout server 9s\n\
             \x20 timeout connect 9s\nfrontend f\n\
             \x20 bind 127.0.0.1:{port} ssl crt {} ca-file {} verify required\n\
             \x20 http-request return status 200 content-type text/plain string hello\n",
            directory.path().join("both.pem").display(),
            pki.path("ca.pem"),
        );
        std::fs::write(directory.path().join("conf"), conf).unwrap();
        let mut command = program("haproxy");
        command.arg("-db").arg("-f").arg(directory.path().join("conf"));
        Self::start(command, directory, port)
    }

    /// HAProxy with a `bind` line that has these options. It forwards all requests over HTTP/1.1 to
    /// the port `to`.
    pub fn haproxy_before(bind: &str, to: u16) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let port = free_port();
        let conf = format!(
            "defaults\n  mode http\n  timeout client 20s\n  timeout server 20s\n\
             \x20 timeout connect 9s\nfrontend f\n  bind 127.0.0.1:{port} {bind}\n\
             \x20 default_backend b\nbackend b\n  server a 127.0.0.1:{to}\n"
        );
        std::fs::write(directory.path().join("conf"), conf).unwrap();
        let mut command = program("haproxy");
        command.arg("-db").arg("-f").arg(directory.path().join("conf"));
        Self::start(command, directory, port)
    }

    /// `openssl s_server`, which requests client certificates and shows the connection's properties
    /// as a page.
    pub fn openssl_tls(pki: &Pki, name: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let port = free_port();
        let (cert, key) = (pki.path(&format!("{name}.pem")), pki.path(&format!("{name}.key")));
        let mut command = program("openssl");
        command.args(["s_server", "-accept", &format!("127.0.0.1:{port}"), "-www"]);
        command.args(["-cert", &cert, "-cert_chain", &cert, "-key", &key, "-Verify", "3"]);
        command.args(["-verify_return_error", "-CAfile", &pki.path("ca.pem")]);
        command.stdin(Stdio::null());
        Self::start(command, directory, port)
    }

    /// nginx that forwards requests over TLS to `127.0.0.1:TO`. It presents `NAME.pem` of `pki`,
    /// trusts the CAs in `roots`, and requires a certificate for the name `expected`.
    pub fn nginx_client(pki: &Pki, name: &str, roots: &str, expected: &str, to: u16) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let port = free_port();
        let (cert, key) = (pki.path(&format!("{name}.pem")), pki.path(&format!("{name}.key")));
        let conf = format!(
            "daemon off; worker_processes 1; pid {0}/pid; error_log {0}/error;\n\
             events {{ worker_connections 256; }}\n\
             http {{ access_log off; server {{ listen 127.0.0.1:{port}; location / {{\n\
             proxy_pass https://127.0.0.1:{to}; proxy_http_version 1.1; proxy_temp_path {0};\n\
             proxy_ssl_certificate {cert}; proxy_ssl_certificate_key {key};\n\
             proxy_ssl_verify on; proxy_ssl_verify_depth 3; proxy_ssl_name {expected};\n\
             proxy_ssl_protocols TLSv1.2 TLSv1.3; proxy_ssl_server_name on;\n\
             proxy_ssl_trusted_certificate {roots}; }} }} }}\n",
            directory.path().display(),
        );
        std::fs::write(directory.path().join("conf"), conf).unwrap();
        let mut command = program("nginx");
        command.arg("-c").arg(directory.path().join("conf"));
        Self::start(command, directory, port)
    }

    /// Like [`Server::nginx_client`], with HAProxy.
    pub fn haproxy_client(pki: &Pki, name: &str, roots: &str, expected: &str, to: u16) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let port = free_port();
        let both = pki.read(&format!("{name}.pem")) + &pki.read(&format!("{name}.key"));
        std::fs::write(directory.path().join("both.pem"), both).unwrap();
        let conf = format!(
            "defaults\n  mode http\n  timeout client 9s\n  timeout server 9s\n\
             \x20 timeout connect 9s\nfrontend f\n  bind 127.0.0.1:{port}\n\
             \x20 default_backend b\nbackend b\n\
             \x20 server a 127.0.0.1:{to} ssl crt {} ca-file {roots} verify required \
             verifyhost {expected} sni str({expected})\n",
            directory.path().join("both.pem").display(),
        );
        std::fs::write(directory.path().join("conf"), conf).unwrap();
        let mut command = program("haproxy");
        command.arg("-db").arg("-f").arg(directory.path().join("conf"));
        Self::start(command, directory, port)
    }

    /// Envoy as an inbound sidecar. It presents `NAME.pem`, and accepts clients with the SPIFFE ID
    /// `peer`.
    pub fn envoy_inbound(pki: &Pki, name: &str, peer: &str) -> Self {
        let answer = "direct_response: {status: 200, body: {inline_string: from envoy}}";
        let socket = format!(
            "      transport_socket:\n        name: tls\n        typed_config:\n\
             \x20         \"@type\": {ENVOY_TLS}.DownstreamTlsContext\n\
             \x20         require_client_certificate: true\n\
             \x20         common_tls_context: {}\n",
            envoy_context(pki, name, peer)
        );
        Self::envoy(answer, &socket, "")
    }

    /// Envoy as an outbound sidecar. It presents `NAME.pem` to the endpoint `127.0.0.1:TO`, and
    /// accepts the endpoint if it has the SPIFFE ID `peer`.
    pub fn envoy_outbound(pki: &Pki, name: &str, peer: &str, to: u16) -> Self {
        let cluster = format!(
            "  clusters:\n  - name: peer\n    connect_timeout: 5s\n    load_assignment:\n\
             \x20     cluster_name: peer\n      endpoints: [{{lb_endpoints: \
             [{{endpoint: {{address: \
             {{socket_address: {{address: 127.0.0.1, port_value: {to}}}}}}}}}]}}]\n\
             \x20   transport_socket:\n      name: tls\n      typed_config:\n\
             \x20       \"@type\": {ENVOY_TLS}.UpstreamTlsContext\n\
             \x20       common_tls_context: {}\n",
            envoy_context(pki, name, peer)
        );
        Self::envoy("route: {cluster: peer}", "", &cluster)
    }

    fn envoy(action: &str, socket: &str, clusters: &str) -> Self {
        const FILTERS: &str = "type.googleapis.com/envoy.extensions.filters";
        const MANAGER: &str = "http_connection_manager.v3.HttpConnectionManager";
        let directory = tempfile::tempdir().unwrap();
        let port = free_port();
        let conf = format!(
            "static_resources:\n  listeners:\n  - name: web\n\
             \x20   address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}\n\
             \x20   filter_chains:\n    - filters:\n\
             \x20     - name: http\n        typed_config:\n\
             \x20         \"@type\": {FILTERS}.network.{MANAGER}\n\
             \x20         stat_prefix: web\n          route_config:\n            virtual_hosts:\n\
             \x20           - {{name: all, domains: [\"*\"], \
             routes: [{{match: {{prefix: /}}, {action}}}]}}\n\
             \x20         http_filters:\n          - name: router\n            typed_config:\n\
             \x20             \"@type\": {FILTERS}.http.router.v3.Router\n{socket}{clusters}"
        );
        std::fs::write(directory.path().join("envoy.yaml"), conf).unwrap();
        let mut command = program("envoy");
        command.arg("-c").arg(directory.path().join("envoy.yaml"));
        command.args(["--concurrency", "1", "--use-dynamic-base-id", "--log-level", "error"]);
        Self::start(command, directory, port)
    }

    /// The strict recording origin of `tests/probes`.
    pub fn strict_origin() -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/probes/strict_origin.py");
        let directory = tempfile::tempdir().unwrap();
        let port = free_port();
        let mut command = program("python3");
        command.arg(script).arg(port.to_string()).arg(directory.path().join("log"));
        Self::start(command, directory, port)
    }

    /// OpenSSL as a TLS server that presents `NAME.pem` of `credentials` and requires client
    /// certificates that lead to `roots`. It answers each line with its letters in reverse.
    #[track_caller]
    pub fn openssl(credentials: &Path, name: &str, roots: &str) -> Self {
        let port = free_port();
        let mut command = program("openssl");
        command.args(["s_server", "-rev", "-verify_return_error", "-Verify", "3"]);
        command.args(["-accept", &format!("127.0.0.1:{port}"), "-CAfile", roots]);
        let (certificate, key) = (format!("{name}.pem"), format!("{name}.key"));
        command.args(["-cert", &certificate, "-cert_chain", &certificate, "-key", &key]);
        command.current_dir(credentials);
        Self::start(command, tempfile::tempdir().unwrap(), port)
    }

    fn start(mut command: Command, directory: tempfile::TempDir, port: u16) -> Self {
        let said = std::fs::File::create(directory.path().join("said")).unwrap();
        let more = said.try_clone().unwrap();
        let child = command.stdout(more).stderr(said).spawn();
        let child = child.unwrap_or_else(|error| panic!("{command:?}: {error}; run ./test"));
        let server = Self { child, directory, port };
        eventually(&format!("{command:?} to listen"), || {
            std::net::TcpStream::connect(("127.0.0.1", port)).ok()
        });
        server
    }

    /// Changes the configuration file of an nginx with TLS, and makes nginx reload it.
    pub fn reconfigure(&self, change: impl Fn(String) -> String) {
        // nginx listens before it handles signals. After its first answer it handles signals.
        self.chooses_http2();
        let file = self.directory.path().join("conf");
        let before = std::fs::read_to_string(&file).unwrap();
        std::fs::write(file, change(before)).unwrap();
        self.signal(nix::sys::signal::Signal::SIGHUP);
    }

    /// Whether a TLS handshake with this server chooses HTTP/2.
    pub fn chooses_http2(&self) -> bool {
        let to = format!("127.0.0.1:{}", self.port);
        let said = openssl(&["s_client", "-connect", &to, "-alpn", "h2,http/1.1"], "");
        said.contains("ALPN protocol: h2")
    }

    /// Sends a signal.
    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        nix::sys::signal::kill(pid, signal).unwrap();
    }

    /// The output.
    pub fn said(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("said")).unwrap_or_default()
    }

    /// The log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

/// A directory with files that any user can read.
fn with_files(files: &[(&str, String)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    let open: std::fs::Permissions = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(directory.path(), open).unwrap();
    directory
}

const ENVOY_TLS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3";

/// Envoy's own certificate, and the peers that it accepts: the CA of the trust domain and one
/// SPIFFE ID.
fn envoy_context(pki: &Pki, name: &str, peer: &str) -> String {
    format!(
        "{{alpn_protocols: [http/1.1], tls_params: {{tls_maximum_protocol_version: TLSv1_3}}, \
         tls_certificates: [{{certificate_chain: {{filename: {}}}, \
         private_key: {{filename: {}}}}}], \
         validation_context: {{trusted_ca: {{filename: {}}}, match_typed_subject_alt_names: \
         [{{san_type: URI, matcher: {{exact: \"{peer}\"}}}}]}}}}",
        pki.path(&format!("{name}.pem")),
        pki.path(&format!("{name}.key")),
        pki.path("ca.pem"),
    )
}

impl Drop for Server {
    fn drop(&mut self) {
        // On SIGTERM, nginx ends its workers. A SIGKILL would leave them running.
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).ok();
        self.child.wait().ok();
    }
}

/// The options of every curl. Without a 100 (Continue), curl would wait a second before it sends a
/// body.
const CURL_OPTIONS: [&str; 5] = ["-sS", "--max-time", "20", "--expect100-timeout", "0.05"];

/// The output of curl for these arguments.
#[track_caller]
pub fn curl(arguments: &[&str]) -> String {
    let output = program("curl").args(CURL_OPTIONS).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("curl: {error}; run ./test"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "curl {arguments:?}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The error output of curl, which must fail.
#[track_caller]
pub fn curl_fails(arguments: &[&str]) -> String {
    let output = program("curl").args(CURL_OPTIONS).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("curl: {error}; run ./test"));
    assert!(!output.status.success(), "curl {arguments:?} was to fail");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The output of openssl for these arguments and this input, with any exit code.
#[track_caller]
pub fn openssl(arguments: &[&str], input: &str) -> String {
    let mut command = program("openssl");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("openssl: {error}; run ./test"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).ok();
    let output = child.wait_with_output().unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

/// A program, also if it is only in the PATH of root, or if `./test` has installed it.
pub fn program(name: &str) -> Command {
    let tools = concat!(env!("CARGO_MANIFEST_DIR"), "/target/tools/bin");
    let found = ["/usr/sbin", "/usr/bin", "/usr/local/bin", tools]
        .into_iter()
        .map(|directory| PathBuf::from(directory).join(name))
        .find(|path| path.exists());
    Command::new(found.unwrap_or_else(|| PathBuf::from(name)))
}
