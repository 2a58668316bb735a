//! Cancels the read of a socket on the ring.
//!
//! monoio cancels an operation that was entered in a list before. Almost no read is cancelled, so
//! the list costs more than the reads' own code. The kernel finds a read by its socket, too.
#![allow(unsafe_code)]

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::{Mutex, PoisonError};

/// IORING_REGISTER_SYNC_CANCEL of `linux/io_uring.h`.
const REGISTER_SYNC_CANCEL: libc::c_uint = 24;
/// IORING_ASYNC_CANCEL_FD: the operations of a descriptor.
const CANCEL_FD: u32 = 1 << 1;
/// IORING_ASYNC_CANCEL_OP: the operations of a kind.
const CANCEL_OP: u32 = 1 << 5;
/// IORING_OP_RECV, by which monoio reads a socket.
const OP_RECV: u8 = 27;

/// `struct io_uring_sync_cancel_reg` of `linux/io_uring.h`.
#[repr(C)]
#[derive(Default)]
struct SyncCancel {
    address: u64,
    descriptor: i32,
    flags: u32,
    timeout_s: i64,
    timeout_ns: i64,
    operation: u8,
    padding: [u8; 7],
    reserved: [u64; 3],
}

/// A ring whose reads can be cancelled by their socket. Needs Linux 6.6.
#[derive(Clone, Copy)]
pub struct Cancels {
    ring: RawFd,
}

impl Cancels {
    /// Creates a ring by `build`. Also returns `None` if the kernel cannot cancel by the socket, or
    /// if /proc does not tell the descriptor of the ring.
    ///
    /// # Errors
    /// Those of `build`.
    pub fn of<R>(build: impl FnOnce() -> io::Result<R>) -> io::Result<(R, Option<Self>)> {
        /// One thread at a time, so that the new descriptor is that of its own ring.
        static ONE: Mutex<()> = Mutex::new(());
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let before = rings();
        let built = build()?;
        let new: Vec<RawFd> = rings().into_iter().filter(|ring| !before.contains(ring)).collect();
        drop(one);
        let found = match new[..] {
            [ring] => Some(Self { ring }).filter(|it| it.is_supported()),
            _ => None,
        };
        Ok((built, found))
    }

    /// Cancels the read of `socket`, which then completes with ECANCELED or with what it has read.
    /// Returns false if the kernel has no such read, or not yet: it gets the operations of a turn
    /// together.
    pub fn read_of(self, socket: BorrowedFd<'_>) -> bool {
        self.cancel(socket.as_raw_fd()).is_ok_and(|done| done)
    }

    /// No read of the ring itself is running. A kernel that does not know the flags says EINVAL.
    fn is_supported(self) -> bool {
        matches!(self.cancel(self.ring), Ok(false))
    }

    fn cancel(self, descriptor: RawFd) -> io::Result<bool> {
        let request = SyncCancel {
            descriptor,
            flags: CANCEL_FD | CANCEL_OP,
            timeout_s: -1, // none
            timeout_ns: -1,
            operation: OP_RECV,
            ..SyncCancel::default()
        };
        // SAFETY: `ring` is the descriptor of this worker's ring, which outlives its tasks, and the
        // kernel only reads the request, which has the layout and the size that it expects.
        let done = unsafe {
            libc::syscall(libc::SYS_io_uring_register, self.ring, REGISTER_SYNC_CANCEL, &request, 1)
        };
        if done >= 0 {
            return Ok(true);
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::ENOENT) => Ok(false),
            // It completes by itself.
            Some(libc::EALREADY) => Ok(true),
            _ => Err(error),
        }
    }
}

/// The descriptors of all rings of this process.
fn rings() -> Vec<RawFd> {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return Vec::new() };
    let is_ring = |entry: &fs::DirEntry| {
        fs::read_link(entry.path()).is_ok_and(|it| it.as_os_str() == "anon_inode:[io_uring]")
    };
    let number = |entry: fs::DirEntry| entry.file_name().to_str()?.parse().ok();
    entries.flatten().filter(is_ring).filter_map(number).collect()
}
