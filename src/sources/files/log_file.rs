//! Checks whether the access log can be written to the configured file.

use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use nix::unistd::AccessFlags;

use crate::error::plain;

/// The reason why access log lines cannot be written to a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LogFault {
    /// The message, which describes the problem.
    pub message: String,
    /// Advice for the operator.
    pub help: String,
}

/// A configured target of access log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target<'a> {
    Stdout,
    Stderr,
    File,
    /// The syslog daemon that listens on this socket.
    Syslog(&'a str),
    /// A word that means no log, such as `off`. It is refused, because no log file has such a name.
    Off,
}

/// The target that the configuration calls `name`.
pub(super) fn target(name: &str) -> Target<'_> {
    if let Some(socket) = name.strip_prefix("syslog:").filter(|socket| socket.starts_with('/')) {
        return Target::Syslog(socket);
    }
    match name {
        "stdout" | "/dev/stdout" => Target::Stdout,
        "stderr" | "/dev/stderr" => Target::Stderr,
        "syslog" | "/dev/log" => Target::Syslog("/dev/log"),
        "" | "off" | "none" | "no" | "false" | "null" | "~" => Target::Off,
        _ => Target::File,
    }
}

/// Checks whether this process can append lines to the file at `path`, or create the file. Does not
/// open or create it: opening a FIFO could wait for its reader.
pub(super) fn fault(path: &Path) -> Option<LogFault> {
    let shown = path.display();
    let fault = |message: String, help: String| Some(LogFault { message, help });
    let data = match std::fs::metadata(path) {
        Ok(data) => data,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return fault_of_directory(path),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            let file = path.ancestors().skip(1).find(|above| above.exists()).unwrap_or(path);
            let help = "name a file in a directory".to_owned();
            return fault(format!("{} is no directory", file.display()), help);
        }
        Err(error) => {
            let help = format!("let {} reach it, or name another file, or `stderr`", user());
            let error = plain(&error);
            return fault(format!("cannot use {shown} for the access log: {error}"), help);
        }
    };
    let kind = data.file_type();
    let kind = match () {
        () if kind.is_dir() => {
            let help = format!("name a file in it: {}", path.join("access.log").display());
            return fault(format!("the access log is a file, and {shown} is a directory"), help);
        }
        () if kind.is_socket() => "a socket",
        () if kind.is_block_device() => "a block device",
        () => {
            let error = nix::unistd::eaccess(path, AccessFlags::W_OK).err()?;
            let help = format!("let {} write it, or name another file", user());
            let message = format!("cannot write to {shown}: {}", plain(&io::Error::from(error)));
            return fault(message, help);
        }
    };
    let help = "name a file, a FIFO, `stdout` or `stderr`".to_owned();
    fault(format!("the access log is a file, and {shown} is {kind}"), help)
}

/// Checks whether this process can create the file at `path` in its directory.
fn fault_of_directory(path: &Path) -> Option<LogFault> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let shown = directory.display();
    let (message, help) = match std::fs::metadata(directory) {
        Ok(data) if !data.is_dir() => {
            (format!("{shown} is no directory"), "name a file in a directory".to_owned())
        }
        Ok(_) => {
            let wanted = AccessFlags::W_OK | AccessFlags::X_OK;
            let error = plain(&io::Error::from(nix::unistd::eaccess(directory, wanted).err()?));
            let message = format!("cannot create the access log in {shown}: {error}");
            (message, format!("let {} write there, or name another directory", user()))
        }
        Err(error) => {
            let error = plain(&error);
            let message = format!("cannot create the access log in {shown}: {error}");
            (message, format!("create the directory: mkdir -p {shown}"))
        }
    };
    Some(LogFault { message, help })
}

/// The user of this process, by number: looking up the name could block.
fn user() -> String {
    format!("the user {}", nix::unistd::geteuid())
}
