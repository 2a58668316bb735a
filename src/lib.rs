//! Ringway: a service-mesh proxy, thread-per-core on io_uring.
//!
//! The rooms, in reading order. Dry rooms decide and do no I/O; the driver rooms move bytes over
//! the `runtime::io::Io` trait; only `runtime/ring.rs` knows the ring. ARCHITECTURE.md has the map.

// Control: may block, never touches a request.
pub mod admin;
pub mod ca;
pub mod checks;
#[cfg(feature = "uring")]
pub mod cli;
pub mod compile;
pub mod control;
#[cfg(feature = "uring")]
pub mod demo;
pub mod discovery;
pub mod dns;
pub mod intercept;
pub mod listener;
pub mod loadgen;
pub mod model;
pub mod sources;
// Both sides: used by all, depend on none.
pub mod error;
pub mod snapshot;
pub mod telemetry;
pub mod time;
// Wet: workers, ring, buffers, clock.
pub mod runtime;
// Dry: no I/O, no clock.
pub mod authz;
pub mod balance;
pub mod cluster;
pub mod detect;
pub mod grpc;
pub mod health;
pub mod http1;
pub mod http2;
pub mod identity;
pub mod jwt;
pub mod mesh;
pub mod message;
pub mod proxy_protocol;
pub mod route;
// Drivers: async, over runtime::io::Io.
pub mod serve;
pub mod tls;
pub mod upstream;
