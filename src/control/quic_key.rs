//! The file `quic.key`: the secret of QUIC's stateless resets and tokens. With it, a client learns
//! at once that a proxy was restarted, and its token stays valid.

use std::io::{self, ErrorKind};
use std::path::Path;

use crate::compile::registry::Registry;
use crate::error::plain;
use crate::file;
use crate::quic::Keys;

/// The name of the file in the directory for state.
const NAME: &str = "quic.key";

/// The length of the secret.
const SECRET_BYTES: usize = 32;

/// The registry of a process that begins. QUIC's keys come from the directory for state.
pub fn registry(workers: usize, state_dir: Option<&Path>) -> Registry {
    let mut registry = Registry::new(workers);
    if let Some(keys) = state_dir.and_then(keys) {
        registry.quic = keys;
    }
    registry
}

/// The keys of QUIC from the secret in `directory`. Without a file, makes one. `None` if there is
/// none, so that each start has other keys.
fn keys(directory: &Path) -> Option<Keys> {
    match secret(directory) {
        Ok(secret) => Some(Keys::derive(&secret)),
        Err(error) => {
            let path = directory.join(NAME);
            let error = plain(&error);
            let message = "cannot keep the keys of QUIC: after a restart, clients notice late";
            tracing::info!(path = %path.display(), error, "{message}");
            None
        }
    }
}

fn secret(directory: &Path) -> io::Result<Vec<u8>> {
    let path = directory.join(NAME);
    match file::read(&path, SECRET_BYTES as u64) {
        Ok(secret) if secret.len() == SECRET_BYTES => Ok(secret),
        Ok(_) => Err(io::Error::other("the file does not have 32 bytes; remove it")),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let mut secret = vec![0; SECRET_BYTES];
            aws_lc_rs::rand::fill(&mut secret)
                .map_err(|_| io::Error::other("the system gives no random bytes"))?;
            file::written(&path, &secret, 0o600)?.persist(&path).map_err(|error| error.error)?;
            Ok(secret)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_restart_finds_the_same_secret() {
        let directory = tempfile::tempdir().unwrap();
        let first = secret(directory.path()).unwrap();
        assert_eq!(secret(directory.path()).unwrap(), first);
        let path = directory.path().join(NAME);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::write(&path, "short").unwrap();
        assert!(secret(directory.path()).is_err());
        assert!(secret(&directory.path().join("none")).is_err());
    }
}
