//! A worker's thread and its mailbox.

pub mod mailbox;
#[cfg(feature = "uring")]
mod quic;
#[cfg(feature = "uring")]
pub mod thread;
