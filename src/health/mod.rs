//! Whether endpoints are fit for requests: what they are asked (`check`), what is made of their
//! answers (`verdict`, `grpc`), and where that is written down for the workers (`state`). Dry:
//! the asking itself is done by `checks`, on the control thread.

mod check;
pub mod grpc;
mod state;
mod verdict;

pub use check::{Ask, Check, Statuses};
pub use state::{Account, Changes, HealthState};
pub use verdict::{Eligible, Judge, Reason, State, Thresholds, eligible};
