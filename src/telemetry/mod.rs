//! Metrics, logs and the status of the process. The control thread renders the metrics and the
//! status. Each log has a thread of its own that writes it.

pub mod history;
pub mod lines;
pub mod logs;
pub mod metrics;
pub mod outlet;
mod sink;
pub mod status;
mod syslog;
