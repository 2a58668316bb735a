//! Everything that needs more than one room: real sockets and peers (`wire`), seeded simulation
//! (`sim`), and the rules of the house (`tidy`).

#![allow(clippy::unwrap_used, clippy::print_stdout)] // a test that cannot go on fails

#[cfg(feature = "uring")]
mod sidecar;
#[cfg(feature = "uring")]
mod support;
#[cfg(feature = "uring")]
mod wire;

mod activity;
mod authorization;
mod draining;
mod endpoint_sets;
mod http2_format;
#[cfg(feature = "uring")]
mod netns;
mod properties;
mod retention;
mod second_source;
mod server_first;
mod sim;
mod tidy;
