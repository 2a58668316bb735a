//! Advice for the operator if the kernel refuses io_uring, so that the workers use epoll.

use std::io;

use crate::error::plain;

/// Logs why the workers use epoll, and how to allow io_uring.
pub(super) fn warn(error: &io::Error) {
    let help = help(error);
    let message = "io_uring is not available: the workers use epoll and need more CPU";
    tracing::warn!(error = %plain(error), help, "{message}");
}

fn help(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            "allow it: sysctl kernel.io_uring_disabled=0, and io_uring_setup, io_uring_enter and \
             io_uring_register in the seccomp profile of the container or SystemCallFilter= of the \
             unit; `runtime: {driver: epoll}` hides this message"
        }
        Some(libc::ENOSYS) => {
            "use Linux 5.6 or later, and allow io_uring_setup, io_uring_enter and \
             io_uring_register in the seccomp profile of the container; \
             `runtime: {driver: epoll}` hides this message"
        }
        Some(libc::ENOMEM) => {
            "raise the limit on locked memory: LimitMEMLOCK=infinity of the unit, `ulimit -l \
             unlimited`, or `--ulimit memlock=-1` of the container"
        }
        Some(libc::EMFILE | libc::ENFILE) => {
            "raise the limit on open files (`ulimit -n`, LimitNOFILE=)"
        }
        _ => "`runtime: {driver: epoll}` hides this message",
    }
}
