//! The control thread: files, signals, DNS and logs. It may block. It never handles a request.

#[cfg(feature = "uring")]
mod apply;
#[cfg(feature = "uring")]
mod certificates;
pub mod checks;
mod cpus;
pub mod resolver;
#[cfg(feature = "uring")]
pub mod run;
pub mod sockets;
#[cfg(feature = "uring")]
mod watch;
