//! What operators see: metrics, logs, and what the control thread knows. All on the control thread.

pub mod logs;
pub mod metrics;
pub mod status;
