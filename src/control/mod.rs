//! The control thread: files, signals, names, logs. It may block; it never touches a request.

mod apply;
#[cfg(feature = "uring")]
pub mod run;
pub mod status;
mod watch;
