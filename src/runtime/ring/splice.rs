//! Moves bytes between two sockets by splice(2), without a copy in user space.

use std::io;

use super::RingStream;
use crate::runtime::io::{SpliceError, Spliced, Stream as _};
use crate::runtime::socket::{self, Pipe};

/// How many bytes a splice moves before other tasks run.
const SPLICE_STEP_BYTES: u64 = 1024 * 1024;

/// A splice waits while its sink has less free space than this.
const SPLICE_ROOM_BYTES: usize = 16 * 1024;

/// The smallest step of a splice. A send buffer may be so small that it never has
/// [`SPLICE_ROOM_BYTES`].
const SPLICE_STEP_MIN_BYTES: usize = 1024;

/// Moves up to `bytes_max` bytes. Calls `moved` with the number of bytes of each step.
pub(super) async fn run(
    from: &RingStream,
    to: &RingStream,
    bytes_max: u64,
    moved: impl FnMut(u64),
) -> Result<Spliced, SpliceError> {
    let mut pipe = None;
    let source = from.begin_splice().map_err(SpliceError::Source)?;
    let sink = to.begin_splice().map_err(SpliceError::Sink)?;
    let result = from.splice_through(to, &mut pipe, bytes_max, moved).await;
    drop((source, sink));
    from.io.put_pipe(pipe);
    result
}

impl RingStream {
    async fn splice_through(
        &self,
        to: &Self,
        pipe: &mut Option<Pipe>,
        bytes_max: u64,
        mut moved: impl FnMut(u64),
    ) -> Result<Spliced, SpliceError> {
        let mut left = bytes_max;
        let mut since_pause = 0;
        while left > 0 {
            let mut room = to.free_bytes();
            if room < SPLICE_ROOM_BYTES {
                // A pipe holds memory even when it is empty, so return it while the sink is slow.
                self.io.put_pipe(pipe.take());
                room = to.room(SPLICE_ROOM_BYTES).await.max(SPLICE_STEP_MIN_BYTES);
                since_pause = 0;
            }
            let pipe = match pipe {
                Some(pipe) => pipe,
                None => pipe.insert(self.io.take_pipe().map_err(SpliceError::Source)?),
            };
            let step = left.min(socket::PIPE_BYTES.min(room) as u64) as usize;
            match pipe.fill(self, step) {
                Ok(0) => return Ok(Spliced::End),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.readable().await.map_err(SpliceError::Source)?;
                    since_pause = 0;
                    continue;
                }
                Err(error) => return Err(SpliceError::Source(error)),
            }
            while pipe.filled_bytes() > 0 {
                match pipe.drain(to) {
                    Ok(n) => {
                        left -= n as u64;
                        since_pause += n as u64;
                        moved(n as u64);
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        to.writable().await.map_err(SpliceError::Sink)?;
                        since_pause = 0;
                    }
                    Err(error) => return Err(SpliceError::Sink(error)),
                }
            }
            if left > 0 && since_pause > SPLICE_STEP_BYTES {
                since_pause = 0;
                // Waiting on the ring lets other tasks run first.
                self.readable().await.map_err(SpliceError::Source)?;
            }
        }
        Ok(Spliced::Limit)
    }

    /// Makes the socket nonblocking until the returned value is dropped.
    fn begin_splice(&self) -> io::Result<Splicing<'_>> {
        if self.splicing.get() == 0 && !self.io.0.epoll {
            socket::set_nonblocking(self, true)?;
        }
        self.splicing.set(self.splicing.get() + 1);
        Ok(Splicing(self))
    }
}

/// A socket that is nonblocking for a splice. Dropping this value makes the socket blocking again,
/// even when the splice is cancelled.
struct Splicing<'a>(&'a RingStream);

impl Drop for Splicing<'_> {
    fn drop(&mut self) {
        let stream = self.0;
        stream.splicing.set(stream.splicing.get() - 1);
        if stream.splicing.get() == 0 && !stream.io.0.epoll {
            // The operations work on a nonblocking socket too; they only cost more.
            socket::set_nonblocking(stream, false).ok();
        }
    }
}
