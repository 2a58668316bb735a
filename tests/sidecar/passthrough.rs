//! TLS passthrough: the server name selects the route.

use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use super::rules::{self, By};
use crate::support::netns::{Host, Wire, can_have_hosts};
use crate::support::peers::{curl, curl_fails, openssl};
use crate::support::pki::{Pki, Wanted};
use crate::support::proxy::Proxy;
use crate::support::{eventually, free_port};

/// Certificates for two web servers, which curl checks.
fn pki() -> Pki {
    let pki = Pki::new();
    for name in ["one", "two"] {
        let host = format!("{name}.example");
        pki.leaf(name, &Wanted { names: &[&host], ..Wanted::default() });
    }
    pki
}

#[test]
fn a_tls_listener_sends_connections_where_their_server_name_leads() {
    let pki = pki();
    let ports = [free_port(), free_port()];
    let servers =
        [serves_tls(None, &pki, "one", ports[0]), serves_tls(None, &pki, "two", ports[1])];
    let port = free_port();
    let proxy = Proxy::start(&format!(
        "listeners: {{tls: {{bind: 127.0.0.1:{port}, protocol: tls}}}}\n\
         routes:\n\
         \x20 one.example: [{{match: {{path: /x}}, to: two}}, {{to: one}}]\n\
         \x20 \"*.example\": [{{to: two}}]\n\
         services:\n\
         \x20 one: {{endpoints: [\"127.0.0.1:{}\"]}}\n\
         \x20 two: {{endpoints: [\"127.0.0.1:{}\"]}}\n\
         telemetry: {{access_log: {{path: stdout}}}}\n",
        ports[0], ports[1]
    ));
    let ca = pki.path("ca.pem");
    let to = format!("::127.0.0.1:{port}");
    for name in ["one", "two"] {
        // curl checks that it gets the server's own certificate.
        let url = format!("https://{name}.example/");
        let said = curl(&["--cacert", &ca, "--connect-to", &to, &url]);
        assert!(said.contains("s_server"), "{name}: {said}");
    }
    curl_fails(&["--cacert", &ca, "--connect-to", &to, "https://one.elsewhere/"]);
    let address = format!("127.0.0.1:{port}");
    let alert = openssl(&["s_client", "-connect", &address, "-servername", "no.where"], "");
    assert!(alert.contains("unrecognized name") || alert.contains("112"), "{alert}");
    curl_fails(&["--connect-to", &to, "http://one.example/"]);
    let routed = proxy.metric("ringway_route_requests_total{host=\"one.example\"");
    assert_eq!(routed, 1.0);
    eventually("the refusals in the log", || {
        let log = proxy.log();
        (log.contains("\"NR\"") && log.contains("\"DPE\"")).then_some(())
    });
    drop(servers);
}

/// A web server on `host`, or on this machine. It is killed when this value is dropped.
struct Serving(Child);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn serves_tls(host: Option<&Host>, pki: &Pki, name: &str, port: u16) -> Serving {
    let (cert, key) = (pki.path(&format!("{name}.pem")), pki.path(&format!("{name}.key")));
    let port = port.to_string();
    let words = ["-www", "-accept", &port, "-cert", &cert, "-cert_chain", &cert, "-key", &key];
    let mut command = match host {
        Some(host) => host.command(&["openssl", "s_server"]),
        None => {
            let mut command = Command::new("openssl");
            command.arg("s_server");
            command
        }
    };
    let child = command.args(words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let serving = Serving(child);
    let address = format!("127.0.0.1:{port}");
    eventually("openssl", || match host {
        Some(host) => host.try_connect(&address).ok(),
        None => TcpStream::connect(&address).ok(),
    });
    serving
}

#[test]
fn a_captured_tls_client_is_routed_by_its_server_name_or_its_address() {
    if !can_have_hosts() {
        return;
    }
    let pki = pki();
    let wire = Wire::new(2);
    let [side, other] = &wire.hosts[..] else { panic!() };
    let on = Some(other);
    let servers = [serves_tls(on, &pki, "one", 8443), serves_tls(on, &pki, "two", 8444)];
    rules::outbound(side, By::Redirect);
    let proxy = Proxy::start_in(
        &side.name,
        "mesh: {outbound: {bind: \"127.0.0.1:15001\", unknown: deny}}\n\
         routes: {one.example: [{to: one}]}\n\
         services:\n\
         \x20 one: {endpoints: [\"10.99.0.2:8443\"]}\n\
         \x20 two: {addresses: \"10.9.0.1:8443\", endpoints: [\"10.99.0.2:8444\"]}\n",
    );
    let ca = pki.path("ca.pem");
    let asks = |name: &str, address: &str| {
        let to = format!("::{address}");
        let url = format!("https://{name}.example/");
        side.command(&["curl", "-sS", "--cacert", &ca, "--connect-to", &to, &url]).output().unwrap()
    };
    for (name, address) in [("one", "10.77.0.1:8443"), ("two", "10.9.0.1:8443")] {
        let output = asks(name, address);
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("s_server"), "{name}: {output:?}");
    }
    assert!(!asks("two", "10.77.0.1:8443").status.success(), "nobody names that");
    let seen = "ringway_capture_detected_total{listener=\"mesh.outbound\",protocol=\"tls\"";
    assert_eq!(proxy.metric(seen), 3.0);
    drop(servers);
}
