//! The rules of the house that a test can check (ARCHITECTURE.md, CONTRIBUTING.md).

use std::path::Path;

use crate::floors::FLOORS;
use crate::sources::{code_of, sources, uses};

/// The maximum number of lines of a file. Split a longer file so that each part has one topic.
const FILE_LINES_MAX: usize = 600;

/// The maximum number of characters of a line.
const LINE_CHARS_MAX: usize = 100;

/// Rooms that only decide: they have no I/O, no clock and no randomness. `ca` reads its directory,
/// and `tls` and `http2` have files that move bytes over `runtime::io::Io`.
const DRY_ROOMS: [&str; 31] = [
    "authz",
    "balance",
    "cells",
    "cluster",
    "compile",
    "decision",
    "detect",
    "dns",
    "error",
    "grpc",
    "health",
    "hpack",
    "http1",
    "http2",
    "http3",
    "identity",
    "jwt",
    "matching",
    "mesh",
    "message",
    "model",
    "net",
    "observe",
    "propagation",
    "proxy_protocol",
    "quic",
    "resilience",
    "route",
    "snapshot",
    "standard",
    "time",
];

/// The files in which `unsafe` is allowed.
const UNSAFE_FILES: [&str; 3] =
    ["src/runtime/heap.rs", "src/runtime/memory.rs", "src/runtime/ring.rs"];

#[test]
fn files_and_lines_are_short() {
    let mut found = Vec::new();
    for (path, text) in sources(&["src", "tests", "fuzz/fuzz_targets", "fuzz/properties"]) {
        let lines = text.lines().count();
        if lines > FILE_LINES_MAX {
            found.push(format!("{path}: {lines} lines"));
        }
        for (number, line) in text.lines().enumerate() {
            if line.chars().count() > LINE_CHARS_MAX {
                found.push(format!("{path}:{}: {} characters", number + 1, line.chars().count()));
            }
        }
    }
    assert!(found.is_empty(), "split by idea:\n{}", found.join("\n"));
}

#[test]
fn imports_go_down_and_only_where_an_arrow_is_declared() {
    let floor = |room: &str| FLOORS.iter().position(|(name, _)| *name == room);
    let mut found = Vec::new();
    for (room, allowed) in FLOORS {
        for target in allowed {
            if floor(target).is_none_or(|below| Some(below) <= floor(room)) {
                found.push(format!("the table lets {room} import {target}, which is not below it"));
            }
        }
    }
    let mut rooms = std::collections::BTreeSet::new();
    for (path, text) in sources(&["src"]) {
        let room = room_of(&path);
        if ["lib", "main"].contains(&room) {
            continue;
        }
        rooms.insert(room.to_owned());
        let Some(at) = floor(room) else {
            found.push(format!("{path}: nobody has declared the room {room}"));
            continue;
        };
        for (line, target) in imports(&text) {
            if target != room && !FLOORS[at].1.contains(&&*target) {
                found.push(format!("{path}:{line}: {room} may not import {target}"));
            }
        }
    }
    for (room, _) in FLOORS.iter().filter(|(room, _)| !rooms.contains(*room)) {
        found.push(format!("the table declares {room}, which does not exist"));
    }
    assert!(found.is_empty(), "imports go down:\n{}", found.join("\n"));
}

/// The rooms that a file names with `crate::`, including its tests, each with the line number.
fn imports(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        for (at, _) in code.match_indices("crate::") {
            let name =
                code[at + "crate::".len()..].split(|c: char| !c.is_alphanumeric() && c != '_');
            found.push((number + 1, name.into_iter().next().unwrap_or_default().to_owned()));
        }
    }
    found
}

/// The room of a source file.
fn room_of(path: &str) -> &str {
    let room = path.trim_start_matches("src/").split('/').next().unwrap_or_default();
    room.trim_end_matches(".rs")
}

#[test]
fn dry_rooms_do_no_io_and_read_no_clock() {
    let banned = [
        "std::net::Tcp",
        "std::net::Udp",
        "std::fs",
        "std::thread",
        "std::env",
        "Instant::now",
        "SystemTime::now",
        "UNIX_EPOCH",
        "fastrand::Rng::new",
        "tokio::",
        "monoio",
        "tracing::",
        "nix::",
    ];
    let mut found = Vec::new();
    for (path, text) in sources(&["src"]) {
        if DRY_ROOMS.contains(&room_of(&path)) {
            found.extend(uses(&path, code_of(&text), &banned));
        }
    }
    assert!(found.is_empty(), "dry rooms only decide:\n{}", found.join("\n"));
}

#[test]
fn only_the_ring_names_monoio() {
    let mut found = Vec::new();
    for (path, text) in sources(&["src"]) {
        if path != "src/runtime/ring.rs" {
            found.extend(uses(&path, code_of(&text), &["monoio::", "io_uring::"]));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn sockets_are_opened_where_they_get_their_mark() {
    // A socket that a library opens has no mark, so the capture rules would redirect it to the
    // proxy.
    let opened = [
        "Socket::new(",
        "TcpSocket::new",
        "TcpStream::connect",
        "UnixStream::connect",
        "UdpSocket::bind",
        "UnixDatagram::",
        "to_socket_addrs",
        "lookup_host",
        "DefaultResolver",
        "TcpConnector",
        "config.into()",
    ];
    let allowed = [
        "src/runtime/socket.rs",
        "src/runtime/datagram.rs",
        "src/runtime/raw_udp.rs",
        "src/runtime/udp.rs",
        // These files open listening sockets.
        "src/control/sockets.rs",
        "src/control/resolver.rs",
        "src/admin/listen.rs",
        // This file opens the Unix socket of syslog.
        "src/telemetry/sink.rs",
        // These files are not part of the proxy: a load generator, the check of the capture
        // rules, and a client of the admin interface.
        "src/loadgen/",
        "src/intercept/check.rs",
        "src/cli/live/client.rs",
    ];
    let mut found = Vec::new();
    for (path, text) in sources(&["src"]) {
        if !allowed.iter().any(|allowed| path.starts_with(allowed)) {
            found.extend(uses(&path, code_of(&text), &opened));
        }
    }
    assert!(found.is_empty(), "use sources::Outward, or runtime::socket:\n{}", found.join("\n"));
}

#[test]
fn framing_is_decided_in_one_file() {
    // Code that compares a field name with one of these decides about framing. Encoding may write
    // them.
    let fields = ["\"content-length\"", "\"transfer-encoding\"", "b\"upgrade\"", "b\"expect\""];
    let allowed = ["src/http1/framing.rs", "src/http1/encode.rs", "src/http1/chunked.rs"];
    let mut found = Vec::new();
    for (path, text) in sources(&["src"]) {
        // `routes` refuses rules that change these fields. `hpack` has a table of names.
        let elsewhere = path == "src/compile/routes.rs" || room_of(&path) == "hpack";
        if !allowed.contains(&path.as_str()) && !elsewhere {
            found.extend(uses(&path, code_of(&text), &fields));
        }
    }
    assert!(found.is_empty(), "ask http1::framing:\n{}", found.join("\n"));
}

#[test]
fn unsafe_stays_where_it_was_opened() {
    let mut found = Vec::new();
    for (path, text) in sources(&["src"]) {
        let allows = text.contains("#![allow(unsafe_code)]");
        if allows != UNSAFE_FILES.contains(&path.as_str()) {
            found.push(path);
        }
    }
    assert!(found.is_empty(), "unsafe opened or closed elsewhere: {found:?}");
}

#[test]
fn nothing_is_left_open() {
    let marks = ["TODO", "FIXME", "XXX", "todo!(", "unimplemented!(", "#[ignore"];
    let mut found = Vec::new();
    for (path, text) in sources(&["src", "tests", "fuzz/fuzz_targets", "fuzz/properties"]) {
        if !path.ends_with("tidy.rs") {
            found.extend(uses(&path, &text, &marks));
        }
    }
    assert!(found.is_empty(), "finish it or say it in an issue:\n{}", found.join("\n"));
}

#[test]
fn no_room_has_a_name_that_tells_nothing() {
    let names = ["utils", "util", "helpers", "common", "misc", "inner", "handy"];
    for (path, _) in sources(&["src", "tests"]) {
        for part in Path::new(&path).components() {
            let part = part.as_os_str().to_string_lossy();
            let name = part.trim_end_matches(".rs");
            assert!(!names.contains(&name), "{path}: what is it about?");
        }
    }
}
