//! Health of endpoints: the probe (`check`), the evaluation of results (`verdict`, `grpc`), and the
//! state that workers read (`state`). Pure: `control/checks` sends the probes.

mod check;
pub mod grpc;
mod state;
mod verdict;

pub use check::{Ask, Check, Statuses};
pub use state::{Account, Changes, HealthState};
pub use verdict::{Eligible, Judge, Reason, State, Thresholds, eligible};
