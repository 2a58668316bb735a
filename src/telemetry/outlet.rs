//! Output that never blocks its callers: a bounded queue, and a thread that writes it to a sink.
//!
//! A pipe without a reader, a stopped terminal or a hanging file system blocks only this thread. If
//! the queue is full, lines are dropped and counted.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::sink::{self, Out};
use super::syslog;
use crate::snapshot::LogSink;

/// The maximum number of bytes in the queue. Further lines are dropped and counted.
pub const QUEUE_BYTES_MAX: usize = 2 * 1024 * 1024;

/// The memory overhead of a batch in the queue.
const BATCH_COST_BYTES: usize = 64;

/// How long an outlet may still write its queue after [`Outlet::let_go`]. Then the rest is dropped.
pub const LET_GO: Duration = Duration::from_secs(1);

/// The minimum time between two reports of dropped lines.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// The interval in which a thread that waits for space in a pipe checks whether it must end.
const LOOK_INTERVAL_MS: u8 = 100;

/// The size of an atomic write to a pipe (PIPE_BUF). A writable pipe accepts this many bytes
/// without blocking, and does not mix them with bytes of other writers.
const PIPE_BYTES: usize = 4096;

/// The number of dropped lines, and how they are reported.
pub struct Losses {
    lines: AtomicU64,
    unsaid: Mutex<Unsaid>,
    report: fn(u64, &str),
    /// Whether the report itself goes to this log. Then it waits until the queue is empty.
    waits: bool,
}

#[derive(Default)]
struct Unsaid {
    lines: u64,
    reason: String,
    last: Option<Instant>,
}

impl Losses {
    /// Creates a count of 0. `report` gets the number of dropped lines and the reason, at most once
    /// a second. It must not block.
    pub fn new(report: fn(u64, &str)) -> Self {
        Self { lines: AtomicU64::new(0), unsaid: Mutex::default(), report, waits: false }
    }

    /// Like [`Losses::new`], but `report` writes to this same log.
    pub fn of_log(report: fn(u64, &str)) -> Self {
        Self { waits: true, ..Self::new(report) }
    }

    /// The number of lines that were dropped so far.
    pub fn lines(&self) -> u64 {
        self.lines.load(Ordering::Relaxed)
    }

    /// Counts the lines in `lost`. Reports them now, or together with later ones.
    pub fn count(&self, lost: &[u8], reason: &str) {
        // If the last line is incomplete, count it, too.
        let cut = lost.last().is_some_and(|&byte| byte != b'\n');
        let lines = memchr::memchr_iter(b'\n', lost).count() as u64 + u64::from(cut);
        self.add(lines, reason);
    }

    /// Counts this many lines. Reports them now, or together with later ones.
    pub fn add(&self, lines: u64, reason: &str) {
        self.lines.fetch_add(lines, Ordering::Relaxed);
        if lines == 0 {
            return;
        }
        let mut unsaid = lock(&self.unsaid);
        unsaid.lines += lines;
        reason.clone_into(&mut unsaid.reason);
        drop(unsaid);
        if !self.waits {
            self.say();
        }
    }

    /// Reports the new losses, unless the last report was less than [`REPORT_INTERVAL`] ago.
    /// Returns whether losses are still to be reported.
    fn say(&self) -> bool {
        let mut unsaid = lock(&self.unsaid);
        if unsaid.lines == 0 {
            return false;
        }
        if unsaid.last.is_some_and(|last| last.elapsed() < REPORT_INTERVAL) {
            return true;
        }
        let Unsaid { lines, reason, .. } = std::mem::take(&mut *unsaid);
        unsaid.last = Some(Instant::now());
        drop(unsaid);
        (self.report)(lines, &reason);
        false
    }
}

/// A handle to the writing thread and its queue. Clones share them.
#[derive(Clone)]
pub struct Outlet(Arc<Shared>);

struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
    losses: Arc<Losses>,
}

#[derive(Default)]
struct Queue {
    batches: VecDeque<Vec<u8>>,
    bytes: usize,
    /// If set, the thread ends when the queue is empty, but at the latest at this time.
    end: Option<Instant>,
    /// Whether the thread has ended.
    ended: bool,
}

impl Outlet {
    /// Starts a thread called `name`, which writes to `sink`.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn open(name: &str, sink: LogSink, losses: Arc<Losses>) -> io::Result<Self> {
        let shared = Shared { queue: Mutex::default(), changed: Condvar::new(), losses };
        let shared = Arc::new(shared);
        let its = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name(name.to_owned());
        thread.spawn(move || Writer { shared: its, sink, out: None, torn: false }.run())?;
        Ok(Self(shared))
    }

    /// Queues complete lines. If the queue is full, the lines are dropped and counted.
    pub fn write(&self, lines: Vec<u8>) {
        let mut queue = lock(&self.0.queue);
        if queue.bytes + lines.len() + BATCH_COST_BYTES > QUEUE_BYTES_MAX || queue.ended {
            drop(queue);
            return self.0.losses.count(&lines, "they were not written in time");
        }
        queue.bytes += lines.len() + BATCH_COST_BYTES;
        queue.batches.push_back(lines);
        // The thread that wakes up must not find the lock taken.
        drop(queue);
        self.0.changed.notify_all();
    }

    /// Lets the thread write its queue for at most [`LET_GO`], and then end. Does not wait for the
    /// thread.
    pub fn let_go(&self) {
        lock(&self.0.queue).end = Some(Instant::now() + LET_GO);
        self.0.changed.notify_all();
    }

    /// Drops the queue of a thread that should have ended, but may be stuck in a write. Returns
    /// whether the thread may still run.
    pub fn forget(&self) -> bool {
        let mut queue = lock(&self.0.queue);
        if queue.is_over() {
            let lost = queue.take_all();
            let ended = queue.ended;
            drop(queue);
            self.0.losses.count(&lost, "the writer is stuck");
            return !ended;
        }
        true
    }

    /// Ends the thread. Waits until the queue is written, but at most for `limit`. Then the rest is
    /// dropped.
    pub fn finish(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        let mut queue = lock(&self.0.queue);
        queue.end = Some(deadline);
        self.0.changed.notify_all();
        while !queue.ended {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.0.changed.wait_timeout(queue, left);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Queue {
    fn is_over(&self) -> bool {
        self.end.is_some_and(|end| Instant::now() >= end)
    }

    fn take_all(&mut self) -> Vec<u8> {
        self.bytes = 0;
        std::mem::take(&mut self.batches).into_iter().flatten().collect()
    }
}

/// The state of the writing thread.
struct Writer {
    shared: Arc<Shared>,
    sink: LogSink,
    out: Option<Out>,
    /// Whether the last write ended in the middle of a line.
    torn: bool,
}

/// The number of bytes of a batch that were not written, and the reason.
struct Lost(usize, String);

impl Writer {
    fn run(mut self) {
        match sink::open(&self.sink) {
            Ok(out) => self.out = Some(out),
            Err(error) => {
                let reason = sink::reason(&self.sink, &error);
                tracing::error!("cannot open the log; its lines are dropped, will retry: {reason}");
            }
        }
        while let Some(batch) = self.next() {
            if let Err(Lost(bytes, reason)) = self.write(&batch) {
                self.shared.losses.count(&batch[batch.len() - bytes..], &reason);
            }
        }
        loop {
            let mut queue = lock(&self.shared.queue);
            let lost = queue.take_all();
            if lost.is_empty() {
                queue.ended = true;
                break;
            }
            drop(queue);
            self.shared.losses.count(&lost, "they were not written in time");
        }
        self.shared.changed.notify_all();
    }

    /// Waits for the next batch. Returns `None` when the thread must end.
    fn next(&self) -> Option<Vec<u8>> {
        let Shared { queue, changed, losses } = &*self.shared;
        let mut queue = lock(queue);
        loop {
            if queue.is_over() {
                return None;
            }
            if let Some(batch) = queue.batches.pop_front() {
                queue.bytes -= batch.len() + BATCH_COST_BYTES;
                return Some(batch);
            }
            if queue.end.is_some() {
                return None;
            }
            drop(queue);
            let unsaid = losses.say();
            queue = lock(&self.shared.queue);
            if !queue.batches.is_empty() || queue.end.is_some() {
                continue;
            }
            queue = if unsaid {
                let waited = changed.wait_timeout(queue, REPORT_INTERVAL);
                waited.unwrap_or_else(PoisonError::into_inner).0
            } else {
                changed.wait(queue).unwrap_or_else(PoisonError::into_inner)
            };
        }
    }

    fn write(&mut self, batch: &[u8]) -> Result<(), Lost> {
        let all = |error: io::Error| Lost(batch.len(), sink::reason(&self.sink, &error));
        let out = match self.out.take() {
            // The file was renamed. If a new one cannot be created, the old one gets the lines.
            Some(mut old) => match old.is_moved(&self.sink).then(|| sink::open(&self.sink)) {
                Some(Ok(new)) => {
                    self.torn = false;
                    new
                }
                Some(Err(_)) | None => old,
            },
            // Try to open the sink again: its directory may exist now, or the process may have
            // descriptors again.
            None => sink::open(&self.sink).map_err(all)?,
        };
        if out.is_syslog {
            return self.write_datagrams(out, batch);
        }
        if self.torn {
            self.write_piece(&out, b"\n").map_err(all)?;
            self.torn = false;
        }
        let mut rest = batch;
        while !rest.is_empty() {
            match self.write_piece(&out, piece(rest, &out)) {
                Ok(written) => {
                    self.torn = rest[written - 1] != b'\n';
                    rest = &rest[written..];
                }
                Err(error) => return Err(Lost(rest.len(), sink::reason(&self.sink, &error))),
            }
        }
        self.out = Some(out);
        Ok(())
    }

    /// Sends each line to the syslog daemon. Connects again if the daemon has been restarted.
    fn write_datagrams(&mut self, mut out: Out, batch: &[u8]) -> Result<(), Lost> {
        let mut sent = 0;
        for line in batch.split_inclusive(|&byte| byte == b'\n') {
            let message = syslog::message(line, SystemTime::now());
            let mut result = self.write_piece(&out, &message);
            if result.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::TimedOut)
                && let Ok(again) = sink::open(&self.sink)
            {
                out = again;
                result = self.write_piece(&out, &message);
            }
            match result {
                Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => {
                    self.shared.losses.count(line, "they are too long for syslog");
                }
                Err(error) => {
                    return Err(Lost(batch.len() - sent, sink::reason(&self.sink, &error)));
                }
                Ok(_) => {}
            }
            sent += line.len();
        }
        self.out = Some(out);
        Ok(())
    }

    /// Waits for space in the sink, and writes a part of `piece`. Returns the number of written
    /// bytes.
    fn write_piece(&self, out: &Out, piece: &[u8]) -> io::Result<usize> {
        let descriptor = out.descriptor.as_fd();
        loop {
            if out.may_block {
                self.wait_for_room(out)?;
            }
            match nix::unistd::write(descriptor, piece) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => return Ok(written),
                Err(Errno::EINTR) => {}
                // Another writer has filled the pipe.
                Err(Errno::EAGAIN) => std::thread::park_timeout(Duration::from_millis(10)),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn wait_for_room(&self, out: &Out) -> io::Result<()> {
        loop {
            let mut ready = [PollFd::new(out.descriptor.as_fd(), PollFlags::POLLOUT)];
            match poll(&mut ready, PollTimeout::from(LOOK_INTERVAL_MS)) {
                Ok(0) | Err(Errno::EINTR) => {}
                // The descriptor has an error, which the write will report.
                Ok(_) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
            if !self.shared.losses.waits {
                self.shared.losses.say();
            }
            if lock(&self.shared.queue).is_over() {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
    }
}

/// The next bytes to write. For a pipe: as many complete lines as fit into one atomic write.
fn piece<'b>(rest: &'b [u8], out: &Out) -> &'b [u8] {
    if !out.may_block || rest.len() <= PIPE_BYTES {
        return rest;
    }
    let end = memchr::memrchr(b'\n', &rest[..PIPE_BYTES]).map_or(PIPE_BYTES, |at| at + 1);
    &rest[..end]
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::io::Read as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    use std::path::Path;

    use super::*;

    fn outlet(path: &Path) -> (Outlet, Arc<Losses>) {
        let losses = Arc::new(Losses::new(|_, _| ()));
        let sink = LogSink::File(path.to_owned());
        (Outlet::open("test", sink, Arc::clone(&losses)).unwrap(), losses)
    }

    fn fifo(directory: &tempfile::TempDir) -> std::path::PathBuf {
        let path = directory.path().join("pipe");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        path
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_tried_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("later/access.log");
        let (outlet, losses) = outlet(&path);
        outlet.write(b"lost\n".to_vec());
        while losses.lines() == 0 {
            std::thread::yield_now();
        }
        std::fs::create_dir_all(directory.path().join("later")).unwrap();
        outlet.write(b"kept\n".to_vec());
        outlet.finish(Duration::from_secs(60));
        assert_eq!(std::fs::read_to_string(path).unwrap(), "kept\n");
        assert_eq!(losses.lines(), 1);
    }

    #[test]
    fn a_pipe_that_nobody_reads_loses_counted_lines_and_blocks_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let path = fifo(&directory);
        let mut reader =
            OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&path).unwrap();
        let (outlet, losses) = outlet(&path);
        let line = [&[b'x'; 999][..], b"\n"].concat();
        let sent = 2 * QUEUE_BYTES_MAX / line.len();
        (0..sent).for_each(|_| outlet.write(line.clone()));
        // Wait until the outlet has begun to write the first line.
        let mut read = vec![0; line.len()];
        while reader.read_exact(&mut read[..1]).is_err() {
            std::thread::yield_now();
        }
        outlet.finish(Duration::from_millis(1));
        while !lock(&outlet.0.queue).ended {
            std::thread::yield_now();
        }
        read.truncate(1);
        reader.read_to_end(&mut read).unwrap();
        let written = read.len() / line.len();
        assert!(written > 0 && read.len() % line.len() == 0, "whole lines: {}", read.len());
        assert_eq!(losses.lines() as usize + written, sent);
    }

    #[test]
    fn each_line_is_a_message_to_syslog_and_a_restarted_daemon_is_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let losses = Arc::new(Losses::new(|_, _| ()));
        let daemon = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
        let sink = LogSink::Syslog(path.clone());
        let outlet = Outlet::open("test", sink, Arc::clone(&losses)).unwrap();
        let receive = |daemon: &std::os::unix::net::UnixDatagram| {
            let mut message = [0; 500];
            let len = daemon.recv(&mut message).unwrap();
            String::from_utf8(message[..len].to_vec()).unwrap()
        };
        outlet.write(b"one\ntwo\n".to_vec());
        let first = receive(&daemon);
        assert!(first.starts_with("<30>1 20") && first.ends_with(" - - one"), "{first}");
        assert!(receive(&daemon).ends_with(" - - two"));
        drop(daemon);
        std::fs::remove_file(&path).unwrap();
        let daemon = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
        outlet.write(b"three\n".to_vec());
        assert!(receive(&daemon).ends_with(" - - three"));
        outlet.finish(Duration::from_secs(60));
        assert_eq!(losses.lines(), 0);
    }

    #[test]
    fn a_renamed_file_gets_no_more_lines() {
        let directory = tempfile::tempdir().unwrap();
        let (path, old) = (directory.path().join("log"), directory.path().join("log.1"));
        let (outlet, losses) = outlet(&path);
        outlet.write(b"one\n".to_vec());
        while std::fs::read(&path).unwrap_or_default().is_empty() {
            std::thread::yield_now();
        }
        std::fs::rename(&path, &old).unwrap();
        let mut lines = 1;
        while !path.exists() {
            outlet.write(b"more\n".to_vec());
            lines += 1;
            std::thread::park_timeout(Duration::from_millis(20));
        }
        outlet.finish(Duration::from_secs(60));
        let both = [std::fs::read(old).unwrap(), std::fs::read(path).unwrap()].concat();
        let written = both.iter().filter(|&&byte| byte == b'\n').count();
        assert_eq!((written, losses.lines()), (lines, 0));
    }

    #[test]
    fn a_pipe_without_a_reader_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let (outlet, losses) = outlet(&fifo(&directory));
        outlet.write(b"one\ntwo\n".to_vec());
        outlet.finish(Duration::from_secs(60));
        assert_eq!(losses.lines(), 2);
    }
}
