//! Metrics, logs and the status of the process. All of it runs on the control thread.

pub mod logs;
pub mod metrics;
pub mod status;
