//! The access log writer. It has its own thread, because a disk or a pipe may block.

use std::fs::OpenOptions;
use std::io::Write;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use crate::snapshot::LogSink;

/// How many batches may wait to be written: about 2 MiB. Further ones are dropped and counted.
pub const BATCHES_MAX: usize = 64;

/// The handle of the writing thread.
#[derive(Default)]
pub struct LogSinkWriter {
    sink: Option<LogSink>,
    writer: Option<(SyncSender<Vec<u8>>, JoinHandle<()>)>,
}

impl LogSinkWriter {
    /// Writes to `sink` from now on. Does nothing if the sink is the same.
    pub fn configure(&mut self, sink: Option<&LogSink>) {
        if self.sink.as_ref() == sink {
            return;
        }
        self.finish();
        self.sink = sink.cloned();
        let Some(sink) = self.sink.clone() else { return };
        let (sender, batches) = sync_channel(BATCHES_MAX);
        let thread = std::thread::Builder::new().name("access-log".to_owned());
        match thread.spawn(move || write_all(&sink, &batches)) {
            Ok(thread) => self.writer = Some((sender, thread)),
            Err(error) => tracing::error!(%error, "cannot start the access log thread"),
        }
    }

    /// Reopens the file, after the log was rotated.
    pub fn reopen(&mut self) {
        let sink = self.sink.take();
        self.configure(sink.as_ref());
    }

    /// Queues a batch of lines. Returns the number of lines dropped because the queue is full.
    pub fn write(&self, lines: Vec<u8>) -> u64 {
        let Some((sender, _)) = &self.writer else { return 0 };
        match sender.try_send(lines) {
            Ok(()) => 0,
            Err(TrySendError::Full(lines) | TrySendError::Disconnected(lines)) => {
                memchr::memchr_iter(b'\n', &lines).count() as u64
            }
        }
    }

    /// Waits until all lines are written.
    pub fn finish(&mut self) {
        if let Some((sender, thread)) = self.writer.take() {
            drop(sender);
            // A panic in the writer was logged already.
            thread.join().ok();
        }
    }
}

fn write_all(sink: &LogSink, batches: &Receiver<Vec<u8>>) {
    let mut out: Box<dyn Write> = match sink {
        LogSink::Stdout => Box::new(std::io::stdout()),
        LogSink::Stderr => Box::new(std::io::stderr()),
        LogSink::File(path) => match OpenOptions::new().append(true).create(true).open(path) {
            Ok(file) => Box::new(file),
            Err(error) => {
                let path = path.display();
                return tracing::error!(%path, %error, "cannot open the access log");
            }
        },
    };
    for batch in batches {
        if let Err(error) = out.write_all(&batch).and_then(|()| out.flush()) {
            tracing::error!(%error, "cannot write the access log; lines were lost");
        }
    }
}
