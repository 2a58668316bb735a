//! Ringway: a service-mesh proxy with one thread per core, on io_uring.
//!
//! The modules, highest level first. A module imports only modules below it. `tests/tidy.rs` checks
//! the table of allowed imports, and ARCHITECTURE.md explains it.

// Commands.
#[cfg(feature = "uring")]
pub mod cli;
#[cfg(feature = "uring")]
pub mod demo;
pub mod inject;
pub mod loadgen;
pub mod simulate;
// The control thread. It may block, and it never handles a request.
pub mod admin;
pub mod control;
pub mod intercept;
pub mod sources;
pub mod telemetry;
// From the wanted configuration to the snapshot of the workers.
pub mod compile;
pub mod model;
// Workers: asynchronous code over runtime::io::Io.
pub mod downstream;
pub mod l4;
pub mod serve;
pub mod upstream;
pub mod wire;
pub mod worker;
// Decisions about connections and requests. No I/O, no clock.
pub mod decision;
// The compiled configuration.
pub mod snapshot;
// Policies. No I/O, no clock.
pub mod authz;
pub mod balance;
pub mod cluster;
pub mod health;
pub mod mesh;
pub mod observe;
pub mod resilience;
pub mod route;
pub mod standard;
// Protocols. No I/O, except in the files that use runtime::io::Io.
pub mod ca;
pub mod detect;
pub mod dns;
pub mod grpc;
pub mod hpack;
pub mod http1;
pub mod http2;
pub mod http3;
pub mod identity;
pub mod jwt;
pub mod propagation;
pub mod proxy_protocol;
pub mod quic;
pub mod tls;
// I/O and time: the ring, the simulated network, buffers, the clock.
pub mod runtime;
// Basic types.
pub mod cells;
pub mod error;
pub mod file;
pub mod matching;
pub mod message;
pub mod net;
pub mod time;
