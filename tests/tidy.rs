//! The rules of the house that a machine can see (ARCHITECTURE.md, CONTRIBUTING.md).

use std::path::{Path, PathBuf};

/// Lines of a file; a longer one is split by idea.
const FILE_LINES_MAX: usize = 600;

/// Characters of a line.
const LINE_CHARS_MAX: usize = 100;

/// The rooms, top floor first, each with the rooms that it may import. All of them are on floors
/// below, so there is no circle. A new arrow is a decision: it goes in here with its reason in the
/// commit. A room that is not here does not exist.
const FLOORS: [(&str, &[&str]); 42] = [
    (
        "cli",
        &[
            "demo",
            "loadgen",
            "control",
            "sources",
            "intercept",
            "compile",
            "model",
            "snapshot",
            "mesh",
            "authz",
            "route",
            "ca",
            "http1",
            "jwt",
            "identity",
            "error",
            "net",
            "message",
        ],
    ),
    ("demo", &["control"]),
    ("loadgen", &["http1", "tls", "error", "message"]),
    (
        "control",
        &[
            "admin",
            "sources",
            "intercept",
            "telemetry",
            "compile",
            "model",
            "worker",
            "snapshot",
            "mesh",
            "cluster",
            "health",
            "dns",
            "grpc",
            "proxy_protocol",
            "tls",
            "runtime",
            "cells",
            "net",
        ],
    ),
    ("admin", &["telemetry", "cluster", "health", "cells"]),
    (
        "sources",
        &[
            "intercept",
            "telemetry",
            "compile",
            "model",
            "snapshot",
            "cluster",
            "authz",
            "ca",
            "http1",
            "jwt",
            "tls",
            "identity",
            "net",
            "matching",
            "message",
        ],
    ),
    ("intercept", &["model", "net"]),
    (
        "telemetry",
        &[
            "snapshot", "mesh", "cluster", "health", "grpc", "http2", "jwt", "tls", "runtime",
            "cells", "error", "net",
        ],
    ),
    (
        "compile",
        &[
            "model",
            "snapshot",
            "mesh",
            "authz",
            "route",
            "cluster",
            "balance",
            "health",
            "dns",
            "grpc",
            "http2",
            "http1",
            "jwt",
            "proxy_protocol",
            "tls",
            "identity",
            "cells",
            "net",
            "matching",
            "message",
        ],
    ),
    ("model", &["net", "matching"]),
    ("worker", &["downstream", "l4", "serve", "snapshot", "runtime", "cells", "net", "time"]),
    (
        "downstream",
        &[
            "l4",
            "serve",
            "upstream",
            "wire",
            "snapshot",
            "mesh",
            "cluster",
            "detect",
            "http2",
            "http1",
            "proxy_protocol",
            "tls",
            "runtime",
            "error",
            "message",
            "time",
        ],
    ),
    (
        "l4",
        &[
            "serve", "upstream", "wire", "snapshot", "mesh", "authz", "route", "cluster", "detect",
            "tls", "runtime", "error", "net", "time",
        ],
    ),
    (
        "serve",
        &[
            "upstream",
            "wire",
            "snapshot",
            "mesh",
            "authz",
            "route",
            "cluster",
            "resilience",
            "grpc",
            "http2",
            "http1",
            "jwt",
            "propagation",
            "tls",
            "identity",
            "runtime",
            "cells",
            "error",
            "net",
            "message",
            "time",
        ],
    ),
    (
        "upstream",
        &[
            "wire",
            "snapshot",
            "mesh",
            "route",
            "cluster",
            "balance",
            "grpc",
            "http2",
            "propagation",
            "proxy_protocol",
            "tls",
            "runtime",
            "cells",
            "error",
            "net",
            "message",
            "time",
        ],
    ),
    ("wire", &["http2", "http1", "tls", "runtime", "cells", "message", "time"]),
    (
        "snapshot",
        &["mesh", "authz", "route", "cluster", "http2", "jwt", "tls", "cells", "net", "message"],
    ),
    ("mesh", &["route", "cluster", "detect", "tls", "identity", "cells", "net"]),
    ("authz", &["http1", "jwt", "cells", "error", "net", "matching", "message"]),
    ("route", &["cluster", "http1", "jwt", "cells", "matching", "message"]),
    (
        "cluster",
        &[
            "balance",
            "health",
            "grpc",
            "http2",
            "jwt",
            "proxy_protocol",
            "tls",
            "cells",
            "error",
            "net",
        ],
    ),
    ("resilience", &["error"]),
    ("balance", &["health", "grpc", "cells", "net", "message", "time"]),
    ("health", &["cells"]),
    ("ca", &["identity"]),
    ("detect", &["http2", "tls"]),
    ("dns", &[]),
    ("grpc", &["cells", "error", "message"]),
    ("http2", &["http1", "tls", "runtime", "error", "message", "time"]),
    ("http1", &["error", "message"]),
    ("jwt", &["cells", "matching", "message"]),
    ("propagation", &["message"]),
    ("proxy_protocol", &[]),
    ("tls", &["identity", "runtime", "net"]),
    ("identity", &[]),
    ("runtime", &["cells", "error", "net", "time"]),
    ("cells", &[]),
    ("error", &[]),
    ("net", &["matching"]),
    ("matching", &[]),
    ("message", &[]),
    ("time", &[]),
];

/// Rooms that decide: no I/O, no clock, no randomness of their own. `ca` reads its directory, and
/// `tls` and `http2` have files that move bytes over `runtime::io::Io`.
const DRY_ROOMS: [&str; 25] = [
    "authz",
    "balance",
    "cells",
    "cluster",
    "compile",
    "detect",
    "dns",
    "error",
    "grpc",
    "health",
    "http1",
    "http2",
    "identity",
    "jwt",
    "matching",
    "mesh",
    "message",
    "model",
    "net",
    "propagation",
    "proxy_protocol",
    "resilience",
    "route",
    "snapshot",
    "time",
];

/// The files in which `unsafe` is allowed.
const UNSAFE_FILES: [&str; 2] = ["src/runtime/heap.rs", "src/runtime/ring.rs"];

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

/// The rooms that a file names by `crate::`, tests included, each with its line.
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
        "SystemTime",
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
fn framing_is_decided_in_one_file() {
    // Code that compares a field name with these decides framing. Encoding may write them.
    let fields = ["\"content-length\"", "\"transfer-encoding\"", "b\"upgrade\"", "b\"expect\""];
    let allowed = ["src/http1/framing.rs", "src/http1/encode.rs", "src/http1/chunked.rs"];
    let mut found = Vec::new();
    for (path, text) in sources(&["src"]) {
        // That one refuses to let a rule change them.
        let elsewhere = path == "src/compile/routes.rs";
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

/// The code of a file without its tests, which stand last.
fn code_of(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests").next().unwrap_or(text)
}

/// Places in `text` that name one of `words`, outside of comments.
fn uses(path: &str, text: &str, words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        for word in words.iter().filter(|word| code.contains(**word)) {
            found.push(format!("{path}:{}: {word}", number + 1));
        }
    }
    found
}

/// All Rust files below `folders`, with paths relative to the repository.
fn sources(folders: &[&str]) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for folder in folders {
        gather(&root.join(folder), &mut found);
    }
    assert!(!found.is_empty() || folders == ["fuzz/fuzz_targets"], "no sources below {folders:?}");
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        (path.strip_prefix(root).unwrap().display().to_string(), text)
    };
    found.into_iter().map(read).collect()
}

fn gather(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.map_while(Result::ok) {
        let path = entry.path();
        if path.is_dir() {
            gather(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}
