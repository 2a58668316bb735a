//! All tests that need more than one module: real sockets and peers (`wire`), seeded simulation
//! (`sim`), and the rules for the code (`tidy`).

#![allow(clippy::unwrap_used, clippy::print_stdout)] // a panic fails the test

#[cfg(feature = "uring")]
mod sidecar;
#[cfg(feature = "uring")]
mod support;
#[cfg(feature = "uring")]
mod wire;

mod activity;
mod authorization;
mod captured_connect;
mod draining;
mod endpoint_sets;
#[cfg(feature = "uring")]
mod explain;
mod floors;
mod gateway_objects;
mod hpack_corpus;
mod http2_format;
#[cfg(feature = "uring")]
mod inject;
mod istio_gateways;
mod istio_objects;
mod istio_policies;
mod metrics_page;
mod mistakes;
mod moved_services;
#[cfg(feature = "uring")]
mod netns;
mod properties;
mod qpack_corpus;
mod quic_loss;
mod retention;
mod second_source;
mod server_first;
mod silence;
mod sim;
mod skipped;
mod sources;
#[cfg(feature = "uring")]
mod strict_ports;
mod tidy;
mod tunnel_ends;
