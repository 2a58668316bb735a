//! Documents of the grammar that a server has sent, and their copy on the disk.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::error::plain;
use crate::file;

/// The maximum size of the copy on the disk.
const COPY_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// One state of a server: all its documents at one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Documents {
    /// The revision of the server.
    pub revision: u64,
    /// The documents as (name, text), in the order of their names.
    pub texts: Vec<(Arc<str>, Arc<str>)>,
    /// The reason why this state cannot be used. `None` if it can.
    pub fault: Option<String>,
}

impl Documents {
    /// The state with these documents, each as its name and its bytes.
    pub fn new<'a>(
        revision: u64,
        documents: impl Iterator<Item = (&'a [u8], &'a [u8])>,
        source: &str,
    ) -> Self {
        let mut state = Self { revision, ..Self::default() };
        for (key, value) in documents {
            let name = format!("{source}:{}", String::from_utf8_lossy(key));
            match std::str::from_utf8(value) {
                Ok(text) if !text.contains('\0') => {
                    state.texts.push((name.into(), text.into()));
                }
                _ => {
                    let fault = || format!("{name}: error: this is not UTF-8 text");
                    state.fault.get_or_insert_with(fault);
                }
            }
        }
        state
    }
}

/// The directory with the last state that was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    directory: PathBuf,
    /// The server and the part of it that is read. A copy of another one is not used.
    owner: String,
    path: PathBuf,
}

impl Cache {
    /// The cache in `directory` of the source `name`, whose server and keys `owner` describes.
    pub fn new(directory: &Path, name: &str, owner: String) -> Self {
        let path = directory.join(format!("{name}.json"));
        Self { directory: directory.to_owned(), owner, path }
    }

    /// The last state, and the time at which it was written. `None` if there is no copy.
    ///
    /// # Errors
    /// A sentence about a copy that cannot be read or understood.
    pub fn read(&self) -> Result<Option<(Documents, SystemTime)>, String> {
        let path = self.path.display();
        let bytes = match file::read(&self.path, COPY_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("cannot read {path}: {}", plain(&error))),
        };
        let value: Value =
            serde_json::from_slice(&bytes).map_err(|_| format!("{path} is damaged"))?;
        if value.get("owner").and_then(Value::as_str) != Some(&self.owner) {
            return Err(format!("{path} is the copy of another server or other keys"));
        }
        state(&value).map(Some).ok_or_else(|| format!("{path} is damaged"))
    }

    /// Replaces the copy. A crash leaves either the old one or the new one. Only this user can read
    /// it, because documents may have private keys.
    ///
    /// # Errors
    /// A sentence about a directory that cannot be written.
    pub fn write(&self, documents: &Documents) -> Result<(), String> {
        let saved = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let texts: Vec<Value> = documents
            .texts
            .iter()
            .map(|(name, text)| json!({ "name": &**name, "text": &**text }))
            .collect();
        let text = json!({
            "owner": self.owner,
            "saved_unix_s": saved.as_secs(),
            "revision": documents.revision,
            "documents": texts,
        });
        let text = text.to_string();
        if text.len() as u64 > COPY_BYTES_MAX {
            return Err(format!("a copy of more than {COPY_BYTES_MAX} bytes is not written"));
        }
        self.replace(text.as_bytes())
            .map_err(|error| format!("cannot write {}: {}", self.path.display(), plain(&error)))
    }

    fn replace(&self, text: &[u8]) -> io::Result<()> {
        let directory = File::open(&self.directory)?;
        file::written(&self.path, text, 0o600)?.persist(&self.path).map_err(|e| e.error)?;
        directory.sync_all()
    }
}

fn state(value: &Value) -> Option<(Documents, SystemTime)> {
    let saved = Duration::from_secs(value.get("saved_unix_s")?.as_u64()?);
    let texts = value.get("documents")?.as_array()?.iter().map(|document| {
        let part = |name: &str| Some(document.get(name)?.as_str()?.into());
        Some((part("name")?, part("text")?))
    });
    let (revision, texts) = (value.get("revision")?.as_u64()?, texts.collect::<Option<_>>()?);
    Some((Documents { revision, texts, fault: None }, UNIX_EPOCH.checked_add(saved)?))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn documents() -> Documents {
        let all: [(&[u8], &[u8]); 2] = [(b"/r/a", b"services: {}"), (b"/r/b", b"routes: {}")];
        Documents::new(7, all.into_iter(), "etcd")
    }

    #[test]
    fn a_copy_is_read_as_it_was_written_and_only_by_its_owner() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::new(directory.path(), "etcd", "etcd-1 /r/".to_owned());
        assert_eq!(cache.read(), Ok(None));
        cache.write(&documents()).unwrap();
        let (read, saved) = cache.read().unwrap().unwrap();
        assert_eq!(read, documents());
        assert!(saved.elapsed().is_ok_and(|age| age < Duration::from_secs(60)));
        let mode = std::fs::metadata(directory.path().join("etcd.json")).unwrap().permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
        let other = Cache::new(directory.path(), "etcd", "etcd-1 /s/".to_owned());
        assert!(other.read().unwrap_err().contains("another server"));
    }

    #[test]
    fn a_damaged_copy_is_told_and_not_used() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::new(directory.path(), "etcd", String::new());
        for text in ["", "{", "[]", "{\"owner\":\"\",\"revision\":-1}"] {
            std::fs::write(directory.path().join("etcd.json"), text).unwrap();
            assert!(cache.read().is_err(), "{text}");
        }
    }

    #[test]
    fn a_value_that_is_no_text_makes_the_state_unusable() {
        for value in [&b"\xff"[..], b"a\0b"] {
            let state = Documents::new(1, [(&b"/r/a"[..], value)].into_iter(), "etcd");
            let fault = "etcd:/r/a: error: this is not UTF-8 text";
            assert_eq!(state.fault.as_deref(), Some(fault));
        }
    }
}
