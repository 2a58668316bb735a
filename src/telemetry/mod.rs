//! Counters, logs and what they mean.

pub mod access;
pub mod counters;
pub mod grpc;
pub mod log_buffer;
pub mod log_sink;
pub mod metrics;
pub mod registry;
pub mod request_id;
