//! Metrics, logs and the status of the process. The control thread owns the metrics and the status.
//! Each log has its own thread.

pub mod logs;
pub mod metrics;
pub mod outlet;
pub mod status;
