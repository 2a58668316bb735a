//! The control thread. It handles files, signals, DNS and logs, and it may block. It never handles
//! a request.

#[cfg(feature = "uring")]
mod apply;
#[cfg(feature = "uring")]
mod certificates;
pub mod checks;
#[cfg(feature = "uring")]
mod consul;
mod cpus;
#[cfg(feature = "uring")]
mod descriptors;
mod export;
mod fallback;
#[cfg(feature = "uring")]
mod identity;
#[cfg(feature = "uring")]
mod kubernetes;
#[cfg(feature = "uring")]
mod moves;
#[cfg(feature = "uring")]
pub mod objects;
mod outliers;
mod overload;
#[cfg(feature = "uring")]
mod quic_key;
mod resolver;
#[cfg(feature = "uring")]
mod retry;
#[cfg(feature = "uring")]
pub mod run;
mod shift_file;
#[cfg(feature = "uring")]
mod shifts;
#[cfg(feature = "uring")]
mod signals;
pub mod sockets;
#[cfg(feature = "uring")]
mod sources;
#[cfg(feature = "uring")]
mod systemd;
#[cfg(feature = "uring")]
mod trial;
#[cfg(feature = "uring")]
mod watch;
#[cfg(feature = "uring")]
mod workers;
