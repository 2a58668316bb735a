//! systemd: the notifications to it, and the sockets from it.

use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use nix::time::{ClockId, clock_gettime};

use crate::support::http::Client;
use crate::support::origin::Origin;
use crate::support::proxy::Proxy;
use crate::support::{PATIENCE, eventually, free_port};

fn config(bind: &str, endpoint: &str) -> String {
    format!(
        "listeners: {{web: {{bind: \"{bind}\"}}}}\n\
         routes: {{\"*\": [{{to: app}}]}}\n\
         services: {{app: {{endpoints: [\"{endpoint}\"]}}}}\n"
    )
}

fn monotonic_us() -> i64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap();
    now.tv_sec() * 1_000_000 + now.tv_nsec() / 1000
}

#[test]
fn a_reload_tells_its_time() {
    let origin = Origin::saying("x");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let message = || {
        loop {
            let mut text = [0; 1024];
            let bytes = crate::support::uninterrupted(|| socket.recv(&mut text)).unwrap();
            let text = String::from_utf8_lossy(&text[..bytes]);
            if text.trim() != "WATCHDOG=1" {
                return text.into_owned();
            }
        }
    };
    let env = format!("NOTIFY_SOCKET={}", path.display());
    let config = config(&format!("127.0.0.1:{}", free_port()), &origin.address());
    let proxy = Proxy::start_under(&["env", &env], "workers: 1", &config);
    assert_eq!(message().trim(), "READY=1");
    // `Type=notify-reload` waits for this message.
    let before = monotonic_us();
    proxy.signal(Signal::SIGHUP);
    let reloading = message();
    let time = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
    let time: i64 = time.trim().parse().unwrap();
    assert!((before..=monotonic_us()).contains(&time), "{reloading}");
    assert_eq!(message().trim(), "READY=1");
}

#[test]
fn a_system_manager_that_reads_nothing_stops_nothing() {
    let origin = Origin::saying("x");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let _unread = UnixDatagram::bind(&path).unwrap();
    let env = format!("NOTIFY_SOCKET={}", path.display());
    let port = free_port();
    let config = config(&format!("127.0.0.1:{port}"), &origin.address());
    let mut proxy = Proxy::start_under(&["env", &env], "workers: 1", &config);
    // Send more messages than the socket and the queue can hold.
    let mut reloads = 1.0;
    while reloads < 400.0 {
        proxy.signal(Signal::SIGHUP);
        reloads = eventually("the reload", || {
            Some(proxy.metric("ringway_config_reloads_total")).filter(|count| *count > reloads)
        });
    }
    assert_eq!(Client::connect(port).get("a", "/").text(), "x");
    proxy.signal(Signal::SIGTERM);
    assert!(proxy.wait().success());
}

/// Starts the proxy with sockets at `ports`, all called `web`. Returns its output.
fn refused(config: &str, ports: &[u16]) -> String {
    let addresses: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    refused_beside(config, ports[0], &addresses)
}

/// Starts the proxy with sockets at `addresses`, all called `web`; the first is at `port`. Returns
/// its output.
fn refused_beside(config: &str, port: u16, addresses: &[String]) -> String {
    let directory = tempfile::tempdir().unwrap();
    let base = format!("admin: {{bind: 127.0.0.1:{}}}\n", free_port());
    std::fs::write(directory.path().join("ringway.yaml"), base + config).unwrap();
    let names = vec!["web"; addresses.len()].join(":");
    let mut command = Command::new("systemd-socket-activate");
    command.arg(format!("--fdname={names}"));
    for address in addresses {
        command.args(["-l", address]);
    }
    command.args([env!("CARGO_BIN_EXE_ringway"), "run", "-c"]).arg(directory.path());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    // It starts the proxy at the first connection.
    let _knock = eventually("the socket", || TcpStream::connect(("127.0.0.1", port)).ok());
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    text
}

#[test]
fn two_sockets_of_one_name_are_refused_by_name() {
    let ports = [free_port(), free_port()];
    let text = refused(&config("systemd:web", "127.0.0.1:1"), &ports);
    let wanted = format!(
        "cannot listen on systemd:web: systemd has passed several sockets of that name \
         (127.0.0.1:{} and 127.0.0.1:{}); give each",
        ports[0], ports[1]
    );
    assert!(text.contains(&wanted), "{text}");
}

#[test]
fn an_address_whose_socket_systemd_has_passed_is_said_as_such() {
    let port = free_port();
    let text = refused(&config(&format!("127.0.0.1:{port}"), "127.0.0.1:1"), &[port]);
    assert!(text.contains("systemd has passed this socket: write `bind: systemd:web`"), "{text}");
    assert!(!text.contains("another process"), "{text}");
}

/// `ListenStream=80` is a socket on `[::]:80`, and it also accepts IPv4.
#[test]
fn a_socket_of_systemd_on_all_addresses_is_said_as_such() {
    for (passed, bind) in [
        ("[::]", "0.0.0.0"),
        ("[::]", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1"),
        ("127.0.0.1", "0.0.0.0"),
    ] {
        let port = free_port();
        let config = config(&format!("{bind}:{port}"), "127.0.0.1:1");
        let text = refused_beside(&config, port, &[format!("{passed}:{port}")]);
        let wanted = "systemd has passed this socket: write `bind: systemd:web`";
        assert!(text.contains(wanted), "{bind} beside {passed}: {text}");
    }
}

/// Enabling the service does not enable the sockets: a `bind` with an address needs none of them.
#[test]
fn the_units_and_the_page_name_the_same_socket() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = |name: &str| std::fs::read_to_string(root.join(name)).unwrap();
    let (socket, service) = (text("systemd/ringway.socket"), text("systemd/ringway.service"));
    let name = socket.lines().find_map(|line| line.strip_prefix("FileDescriptorName=")).unwrap();
    assert!(text("docs/operate.md").contains(&format!("`bind: systemd:{name}`")));
    assert!(socket.contains("\nService=ringway.service\n"));
    assert!(!service.contains("\nAlso="), "{service}");
}
