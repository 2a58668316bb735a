//! Reads files that an operator names, and writes files whole.

use std::fs::{FileType, Metadata, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use tempfile::NamedTempFile;

/// Reads the file at `path`, of at most `bytes_max` bytes. Never waits: opening a FIFO would wait
/// for its writer, and reading a device may never end.
///
/// # Errors
/// When `path` is not a regular file, is too large, or cannot be read.
pub fn read(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    // Opening a device may have an effect, so check before opening.
    check(&std::fs::metadata(path)?, bytes_max)?;
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let data = file.metadata()?;
    check(&data, bytes_max)?;
    let mut bytes = Vec::with_capacity(usize::try_from(data.len()).unwrap_or_default());
    file.take(bytes_max + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > bytes_max {
        true => Err(too_large(bytes_max)),
        false => Ok(bytes),
    }
}

/// Writes `bytes` to a temporary file in the directory of `path`, to be renamed to `path`. The file
/// has its final `mode` from its creation (O_EXCL), so no other user can read a key. It is synced
/// before the rename, so that a crash leaves no empty file.
///
/// # Errors
/// When the file cannot be created or written.
pub fn written(path: &Path, bytes: &[u8], mode: u32) -> io::Result<NamedTempFile> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = directory.unwrap_or_else(|| Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(".ringway-").permissions(Permissions::from_mode(mode));
    let mut file = builder.tempfile_in(directory)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    Ok(file)
}

fn check(data: &Metadata, bytes_max: u64) -> io::Result<()> {
    if !data.is_file() {
        let message = format!("it is {}, not a file", kind(data.file_type()));
        return Err(io::Error::new(ErrorKind::InvalidInput, message));
    }
    match data.len() > bytes_max {
        true => Err(too_large(bytes_max)),
        false => Ok(()),
    }
}

fn too_large(bytes_max: u64) -> io::Error {
    io::Error::new(ErrorKind::FileTooLarge, format!("it is larger than {bytes_max} bytes"))
}

fn kind(kind: FileType) -> &'static str {
    match () {
        () if kind.is_dir() => "a directory",
        () if kind.is_fifo() => "a FIFO",
        () if kind.is_socket() => "a socket",
        () => "a device",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_up_to_the_limit_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        std::fs::write(at("file"), "four").unwrap();
        std::os::unix::fs::symlink("fifo", at("link")).unwrap();
        let refused = |path: &Path| read(path, 4).unwrap_err().to_string();
        assert_eq!(read(&at("file"), 4).unwrap(), b"four");
        assert_eq!(read(&at("file"), 3).unwrap_err().to_string(), "it is larger than 3 bytes");
        assert_eq!(refused(&at("fifo")), "it is a FIFO, not a file");
        assert_eq!(refused(&at("link")), "it is a FIFO, not a file");
        assert_eq!(refused(&at("socket")), "it is a socket, not a file");
        assert_eq!(refused(Path::new("/dev/zero")), "it is a device, not a file");
        assert_eq!(refused(directory.path()), "it is a directory, not a file");
        assert_eq!(read(&at("none"), 4).unwrap_err().kind(), ErrorKind::NotFound);
    }
}
