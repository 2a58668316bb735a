//! The rules of the house that a machine can see (ARCHITECTURE.md, CONTRIBUTING.md).

use std::path::{Path, PathBuf};

/// Lines of a file; a longer one is split by idea.
const FILE_LINES_MAX: usize = 600;

/// Characters of a line.
const LINE_CHARS_MAX: usize = 100;

/// Rooms that decide: no I/O, no clock, no randomness of their own.
const DRY_ROOMS: [&str; 15] = [
    "authz",
    "balance",
    "cluster",
    "compile",
    "detect",
    "health",
    "http1",
    "identity",
    "jwt",
    "mesh",
    "message",
    "model",
    "proxy_protocol",
    "route",
    "snapshot.rs",
];

/// The files in which `unsafe` is allowed.
const UNSAFE_FILES: [&str; 1] = ["src/runtime/ring.rs"];

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
        let room = path.trim_start_matches("src/").split('/').next().unwrap_or_default();
        if DRY_ROOMS.contains(&room) {
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
    // Whoever compares a field name with these decides framing. Encoding may write them.
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
