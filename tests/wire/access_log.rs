//! The access log: the exchanges that get a line, and the destinations of the lines.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use serde_json::Value;

use crate::support::http::Client;
use crate::support::origin::{Origin, Peer};
use crate::support::proxy::Proxy;
use crate::support::{eventually, free_listener, free_port};

/// Answers with the status in the path. The answer to `/cut` is incomplete.
fn by_path(peer: &mut Peer) {
    while let Some(request) = peer.request() {
        let path = request.split(' ').nth(1).unwrap_or_default();
        match path.strip_prefix('/').and_then(|path| path.get(..3)) {
            Some("cut") => {
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx");
                return peer.reset();
            }
            Some(status) => {
                peer.send(format!("HTTP/1.1 {status} S\r\nContent-Length: 1\r\n\r\nx"));
            }
            None => return,
        }
    }
}

fn config(port: u16, raw: u16, app: &Origin, telemetry: &str) -> String {
    let dead = free_listener().local_addr().unwrap();
    format!(
        "listeners:\n  web: {{bind: 127.0.0.1:{port}}}\n\
         \x20 raw: {{bind: 127.0.0.1:{raw}, protocol: tcp, service: dead}}\n\
         routes:\n  app: [{{to: app}}]\n  dead: [{{to: dead}}]\n\
         \x20 fixed:\n  - {{match: {{path: /503-fixed}}, respond: {{status: 503}}}}\n\
         \x20 - {{respond: {{status: 403}}}}\n\
         services:\n  app: {{endpoints: [\"{}\"]}}\n  dead: {{endpoints: [\"{dead}\"]}}\n\
         authorization: [{{action: deny, to: {{service: app, paths: [/denied]}}}}]\n{telemetry}",
        app.address()
    )
}

/// The lines of the access log in the proxy's output.
fn lines(proxy: &Proxy) -> Vec<Value> {
    let log = proxy.log();
    log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Sends requests that succeed, requests that fail, and a connection that is refused.
fn load(port: u16, raw: u16) {
    for (host, target, status) in [
        ("app", "/200-fine", 200),
        ("app", "/404-of-the-endpoint", 404),
        ("fixed", "/403-fixed", 403),
        ("fixed", "/503-fixed", 503),
        ("app", "/503-of-the-endpoint", 503),
        ("app", "/denied", 403),
        ("dead", "/dead", 503),
        ("nobody", "/no-route", 404),
    ] {
        let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nX-Request-Id: i\r\n\r\n");
        assert_eq!(Client::connect(port).send(request).response().status, status, "{target}");
    }
    Client::connect(port).send("GET /cut HTTP/1.1\r\nHost: app\r\n\r\n").rest();
    Client::connect(port).send("NOT HTTP\r\n\r\n").rest();
    Client::connect(raw).send("bytes").rest();
    assert_eq!(Client::connect(port).get("app", "/200-last").status, 200);
    assert_eq!(Client::connect(port).get("nobody", "/the-end").status, 404);
}

#[test]
fn without_a_configuration_each_failure_leaves_a_line_and_nothing_else_does() {
    let app = Origin::scripted(by_path);
    let (port, raw) = (free_port(), free_port());
    let proxy = Proxy::start_with(&config(port, raw, &app, ""), 1);
    load(port, raw);
    let lines = eventually("the last line", || {
        let lines = lines(&proxy);
        lines.iter().any(|line| line["target"] == "/the-end").then_some(lines)
    });
    let mut found: Vec<String> = lines
        .iter()
        .map(|line| {
            let text = |key: &str| line[key].as_str().unwrap();
            let (status, flags) = (&line["status"], text("response_flags"));
            format!("{} {} {status} {flags}", text("protocol"), text("target"))
        })
        .collect();
    found.sort();
    let wanted = [
        "HTTP  400 DPE",
        "HTTP/1.1 /503-fixed 503 -",
        "HTTP/1.1 /503-of-the-endpoint 503 -",
        "HTTP/1.1 /cut 200 UC",
        "HTTP/1.1 /dead 503 UF",
        "HTTP/1.1 /denied 403 UAEX",
        "HTTP/1.1 /no-route 404 NR",
        "HTTP/1.1 /the-end 404 NR",
        "TCP  0 UF",
    ];
    assert_eq!(found, wanted);
    for line in &lines {
        let tried = line["service"] != "" && line["protocol"] != "TCP" && line["status"] != 403;
        assert_eq!(line["endpoint_duration_us"].is_u64(), tried, "{line}");
        if tried {
            let (part, all) = (&line["endpoint_duration_us"], &line["duration_us"]);
            assert!(part.as_u64() <= all.as_u64(), "{line}");
        }
    }
}

#[test]
fn a_request_that_fails_after_its_buffer_is_given_back_has_its_line() {
    let app = Origin::scripted(|peer| {
        // The rest of the body does not come.
        peer.portion();
        peer.reset();
    });
    let (port, raw) = (free_port(), free_port());
    let proxy = Proxy::start_with(&config(port, raw, &app, ""), 1);
    let head = "POST /half HTTP/1.1\r\nHost: app\r\nContent-Length: 9\r\n\r\n";
    Client::connect(port).send(head).response();
    let line = eventually("the line", || lines(&proxy).pop());
    assert_eq!((&line["method"], &line["target"]), (&"POST".into(), &"/half".into()), "{line}");
}

#[test]
fn the_filter_is_all_failed_or_none() {
    let app = Origin::scripted(by_path);
    for (log, all) in [
        ("{path: stdout}", true),
        ("{filter: all}", true),
        ("{path: stdout, filter: failed}", false),
        ("{format: json}", false),
    ] {
        let telemetry = format!("telemetry: {{access_log: {log}}}\n");
        // The kernel may not have freed the ports of the killed process yet.
        let (port, raw) = (free_port(), free_port());
        let proxy = Proxy::start_with(&config(port, raw, &app, &telemetry), 1);
        load(port, raw);
        let lines = eventually("the last line", || {
            let lines = lines(&proxy);
            lines.iter().any(|line| line["target"] == "/the-end").then_some(lines)
        });
        assert_eq!(lines.len(), if all { 13 } else { 9 }, "{log}");
    }
    let telemetry = "telemetry: {access_log: {path: stdout, filter: none}}\n";
    let (port, raw) = (free_port(), free_port());
    let mut proxy = Proxy::start_with(&config(port, raw, &app, telemetry), 1);
    load(port, raw);
    proxy.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(proxy.wait().success());
    assert_eq!(lines(&proxy), Vec::<Value>::new());
}

/// Filters, formats, fields and samples of the lines, through real connections.
#[test]
fn filters_formats_and_fields_of_the_lines() {
    let app = Origin::scripted(by_path);
    for (log, wanted) in [
        (
            "{path: stdout, fields: [target, status, flags], \
             filter: 'status == 404 or flags contains \"UAEX\"'}",
            vec![
                r#"{"target":"/404-of-the-endpoint","status":404,"response_flags":"-"}"#,
                r#"{"target":"/denied","status":403,"response_flags":"UAEX"}"#,
                r#"{"target":"/no-route","status":404,"response_flags":"NR"}"#,
                r#"{"target":"/the-end","status":404,"response_flags":"NR"}"#,
            ],
        ),
        (
            "{path: stdout, format: 'L %REQ(:PATH)% %RESPONSE_CODE% %RESP(CONTENT-LENGTH)% \
             %REQ(HOST)% %service%', \
             filter: 'host == \"app\" and not failed or host == \"nobody\"'}",
            vec![
                "L /200-fine 200 1 app app",
                "L /200-last 200 1 app app",
                "L /404-of-the-endpoint 404 1 app app",
                "L /no-route 404 - nobody -",
                "L /the-end 404 - nobody -",
            ],
        ),
        (
            "{path: stdout, format: 'L %target% %failed%', sample: 0%}",
            vec![
                "L - true",
                "L - true",
                "L /503-fixed true",
                "L /503-of-the-endpoint true",
                "L /cut true",
                "L /dead true",
                "L /denied true",
                "L /no-route true",
                "L /the-end true",
            ],
        ),
    ] {
        let telemetry = format!("telemetry: {{access_log: {log}}}\n");
        let (port, raw) = (free_port(), free_port());
        let proxy = Proxy::start_with(&config(port, raw, &app, &telemetry), 1);
        load(port, raw);
        let lines = eventually("the last line", || {
            let log = proxy.log();
            let lines =
                log.lines().filter(|it| it.starts_with("L ") || it.starts_with("{\"target"));
            let lines: Vec<String> = lines.map(str::to_owned).collect();
            lines.iter().any(|line| line.contains("/the-end")).then_some(lines)
        });
        let mut lines = lines;
        lines.sort();
        assert_eq!(lines, wanted, "{log}");
    }
}

/// Log rotation with SIGUSR1, and syslog.
#[test]
fn a_signal_reopens_the_file_and_syslog_gets_a_message_per_line() {
    let app = Origin::scripted(by_path);
    let (port, raw) = (free_port(), free_port());
    let telemetry = "telemetry: {access_log: {path: access.log}}\n";
    let proxy = Proxy::start(&config(port, raw, &app, telemetry));
    let path = proxy.directory().join("access.log");
    let has = |text: &str| {
        eventually(text, || std::fs::read_to_string(&path).ok()?.contains(text).then_some(()));
    };
    assert_eq!(Client::connect(port).get("app", "/200-one").status, 200);
    has("/200-one");
    std::fs::rename(&path, proxy.directory().join("access.log.1")).unwrap();
    proxy.signal(nix::sys::signal::Signal::SIGUSR1);
    eventually("the new file", || path.exists().then_some(()));
    assert_eq!(Client::connect(port).get("app", "/200-two").status, 200);
    has("/200-two");
    assert_eq!(proxy.metric("ringway_config_reloads_total{result=\"success\"}"), 1.0);
    let socket = proxy.directory().join("log");
    let daemon = std::os::unix::net::UnixDatagram::bind(&socket).unwrap();
    let syslog = format!("telemetry: {{access_log: {{path: \"syslog:{}\"}}}}\n", socket.display());
    std::fs::write(proxy.config_file(), config(port, raw, &app, &syslog)).unwrap();
    eventually("the reload", || (proxy.metric("ringway_config_version") == 2.0).then_some(()));
    assert_eq!(Client::connect(port).get("app", "/200-three").status, 200);
    let mut message = [0; 2000];
    let len = daemon.recv(&mut message).unwrap();
    let message = String::from_utf8_lossy(&message[..len]).into_owned();
    assert!(message.starts_with("<30>1 ") && message.contains("/200-three"), "{message}");
    assert!(message.ends_with('}'), "{message}");
}

#[test]
fn a_relative_path_belongs_to_the_file_that_names_it() {
    let app = Origin::scripted(by_path);
    let (port, raw) = (free_port(), free_port());
    let telemetry = "telemetry: {access_log: {path: access.log}}\n";
    let proxy = Proxy::start(&config(port, raw, &app, telemetry));
    assert_eq!(Client::connect(port).get("app", "/200").status, 200);
    let path = proxy.directory().join("access.log");
    eventually("the line", || std::fs::read_to_string(&path).ok()?.contains("/200").then_some(()));
}

#[test]
fn a_reload_that_lacks_the_directory_of_the_log_is_refused_and_tried_again() {
    let app = Origin::scripted(by_path);
    let (port, raw) = (free_port(), free_port());
    let proxy = Proxy::start(&config(port, raw, &app, ""));
    let log = "telemetry: {access_log: {path: later/access.log}}\n";
    std::fs::write(proxy.config_file(), config(port, raw, &app, log)).unwrap();
    eventually("the refusal", || {
        proxy.log().contains("cannot create the access log in").then_some(())
    });
    assert_eq!(proxy.metric("ringway_config_version"), 1.0);
    let later = proxy.directory().join("later");
    std::fs::create_dir(&later).unwrap();
    eventually("the reload", || (proxy.metric("ringway_config_files_differ") == 0.0).then_some(()));
    assert_eq!(Client::connect(port).get("app", "/200").status, 200);
    let path = later.join("access.log");
    eventually("the line", || std::fs::read_to_string(&path).ok()?.contains("/200").then_some(()));
}

#[test]
fn check_refuses_a_log_that_this_user_cannot_write() {
    if !nix::unistd::geteuid().is_root() {
        return crate::support::skipped("only root can become another user");
    }
    let directory = tempfile::tempdir().unwrap();
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(directory.path(), mode).unwrap();
    let file = directory.path().join("ringway.yaml");
    std::fs::write(directory.path().join("old.log"), "").unwrap();
    for (path, message) in
        [("new.log", "cannot create the access log in"), ("old.log", "cannot write to")]
    {
        let text = format!("telemetry: {{access_log: {{path: {path}}}}}\n");
        std::fs::write(&file, text).unwrap();
        let mut check = Command::new("setpriv");
        check.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        check.arg(env!("CARGO_BIN_EXE_ringway")).args(["check", "-c"]).arg(&file);
        let output = check.output().unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(message) && said.contains("Permission denied"), "{said}");
        assert!(
            said.contains("ringway.yaml:1:32: error") && said.contains("the user 65534"),
            "{said}"
        );
    }
}
