//! Opens the targets of logs.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::stat::{SFlag, fstat};

use crate::error::plain;
use crate::snapshot::LogSink;

/// The minimum time between two checks whether a file was renamed.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// An open sink.
pub(super) struct Out {
    pub(super) descriptor: Box<dyn AsFd>,
    /// Whether a write may block, as it may for all sinks except regular files. The thread waits
    /// until such a sink has space.
    pub(super) may_block: bool,
    /// Whether each line is a message to the syslog daemon.
    pub(super) is_syslog: bool,
    /// The device and the number of the file.
    id: (u64, u64),
    looked: Instant,
}

impl Out {
    /// Whether the path of the sink names another file now: log rotation has renamed the file.
    /// Looks at most once in [`LOOK_INTERVAL`].
    pub(super) fn is_moved(&mut self, sink: &LogSink) -> bool {
        let LogSink::File(path) = sink else { return false };
        if self.looked.elapsed() < LOOK_INTERVAL {
            return false;
        }
        self.looked = Instant::now();
        match std::fs::metadata(path) {
            Ok(data) => (data.dev(), data.ino()) != self.id,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        }
    }
}

/// Opens `sink`. Does not wait for a reader of a FIFO.
pub(super) fn open(sink: &LogSink) -> io::Result<Out> {
    let descriptor: Box<dyn AsFd> = match sink {
        LogSink::Stdout => Box::new(io::stdout()),
        LogSink::Stderr => Box::new(io::stderr()),
        LogSink::File(path) => Box::new(open_file(path)?),
        LogSink::Syslog(path) => Box::new(open_socket(path)?),
        // The exporter takes these lines from their queue.
        LogSink::Otlp(_) => return Err(io::ErrorKind::Unsupported.into()),
    };
    let data = fstat(descriptor.as_fd())?;
    let mode = SFlag::from_bits_truncate(data.st_mode);
    let may_block = mode & SFlag::S_IFMT != SFlag::S_IFREG;
    let (id, is_syslog) = ((data.st_dev, data.st_ino), matches!(sink, LogSink::Syslog(_)));
    Ok(Out { descriptor, may_block, is_syslog, id, looked: Instant::now() })
}

/// Opens a file to append to it. Without O_NONBLOCK, opening a FIFO would block until it has a
/// reader.
fn open_file(path: &Path) -> io::Result<std::fs::File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    options.open(path)
}

fn open_socket(path: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect(path)?;
    Ok(socket)
}

/// The reason why nothing can be written to `sink`.
pub(super) fn reason(sink: &LogSink, error: &io::Error) -> String {
    let (LogSink::File(path) | LogSink::Syslog(path)) = sink else { return error.to_string() };
    let fifo = || std::fs::metadata(path).is_ok_and(|data| data.file_type().is_fifo());
    let path = path.display();
    if error.raw_os_error() == Some(libc::ENXIO) && fifo() {
        return format!("{path}: the pipe has no reader");
    }
    format!("{path}: {}", plain(error))
}
