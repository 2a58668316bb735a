//! Files of the CA. They are written atomically, and only the owner can read keys.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use tempfile::NamedTempFile;
use zeroize::Zeroizing;

use super::CaError;
use crate::file;

/// The maximum size of a CA file that is read.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// The read permission of a file.
#[derive(Clone, Copy)]
pub(super) enum Access {
    /// Only the owner: 0600.
    Owner,
    /// Everyone, if the umask allows it: 0644.
    All,
}

/// Reads a text file. The text may be a key, so its memory is wiped when it is dropped.
pub(super) fn read(path: &Path) -> Result<Zeroizing<String>, CaError> {
    let text = file::read(path, FILE_BYTES_MAX).and_then(|bytes| {
        String::from_utf8(bytes).map_err(|error| {
            drop(Zeroizing::new(error.into_bytes()));
            io::Error::new(ErrorKind::InvalidData, "it is not text")
        })
    });
    text.map(Zeroizing::new).map_err(|error| io_error("read", path, error))
}

/// Whether a file of a CA exists. A directory that this user may not enter is an error.
pub(super) fn exists(path: &Path) -> Result<bool, CaError> {
    path.try_exists().map_err(|error| match (error.kind(), path.parent()) {
        (ErrorKind::PermissionDenied, Some(directory)) => CaError::Forbidden(directory.to_owned()),
        _ => io_error("read", path, error),
    })
}

/// Creates a directory that only its owner can enter. Does not change an existing directory. Parent
/// directories get the usual mode, because `/etc/ringway` has files for the user of the proxy, too.
pub(super) fn create_directory(path: &Path) -> Result<(), CaError> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(|error| io_error("create", path, error))?;
    }
    let created = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    created.map_err(|error| io_error("create", path, error))
}

/// Writes a file that must not exist yet.
pub(super) fn write_new(path: &Path, text: &str, access: Access) -> Result<(), CaError> {
    match written(path, text, access)?.persist_noclobber(path) {
        Ok(_) => Ok(()),
        Err(error) if error.error.kind() == ErrorKind::AlreadyExists => {
            Err(CaError::Exists(path.to_owned()))
        }
        Err(error) => Err(io_error("write", path, error.error)),
    }
}

/// Replaces a file atomically: a reader gets either the old or the new contents.
pub(super) fn replace(path: &Path, text: &str, access: Access) -> Result<(), CaError> {
    let persisted = written(path, text, access)?.persist(path);
    persisted.map(drop).map_err(|error| io_error("write", path, error.error))
}

fn written(path: &Path, text: &str, access: Access) -> Result<NamedTempFile, CaError> {
    let mode = match access {
        Access::Owner => 0o600,
        Access::All => 0o644,
    };
    file::written(path, text.as_bytes(), mode).map_err(|error| io_error("write", path, error))
}

fn io_error(what: &'static str, path: &Path, error: io::Error) -> CaError {
    CaError::Io { what, path: path.to_owned(), error }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_is_new_or_replaced_whole_and_has_its_mode() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.key");
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        write_new(&path, "one", Access::Owner).unwrap();
        assert_eq!((read(&path).unwrap().as_str(), mode()), ("one", 0o600));
        let again = write_new(&path, "two", Access::Owner);
        assert!(matches!(again, Err(CaError::Exists(_))), "{again:?}");
        assert_eq!(read(&path).unwrap().as_str(), "one");
        fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
        replace(&path, "three", Access::Owner).unwrap();
        assert_eq!((read(&path).unwrap().as_str(), mode()), ("three", 0o600));
        let left = fs::read_dir(directory.path()).unwrap().count();
        assert_eq!(left, 1, "no temporary file is left");
    }

    #[test]
    fn a_directory_that_is_missing_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("missing/a.key");
        let error = replace(&path, "", Access::Owner).unwrap_err().to_string();
        assert!(error.contains("cannot write") && error.contains("missing/a.key"), "{error}");
        let within = directory.path().join("missing/ca");
        create_directory(&within).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&within), 0o700);
        let usual = directory.path().join("usual");
        fs::create_dir(&usual).unwrap();
        assert_eq!(mode(path.parent().unwrap()), mode(&usual));
        replace(&path, "", Access::Owner).unwrap();
    }
}
