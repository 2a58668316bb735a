//! The source files of this repository, for checks of their text.

use std::path::{Path, PathBuf};

/// The code of a file without its tests, which come last.
pub fn code_of(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests").next().unwrap_or(text)
}

/// The places in `text` that contain one of `words`, outside of comments.
pub fn uses(path: &str, text: &str, words: &[&str]) -> Vec<String> {
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
pub fn sources(folders: &[&str]) -> Vec<(String, String)> {
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
