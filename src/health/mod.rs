//! Whether endpoints are fit for requests: what they are asked (`check`), what is made of their
//! answers (`verdict`, `grpc`), and where that is written down for the workers (`standing`). Dry:
//! the asking itself is done by `checks`, on the control thread.

mod check;
pub mod grpc;
mod standing;
mod verdict;

pub use check::{Ask, Check, Statuses};
pub use standing::{Account, Changes, Standing};
pub use verdict::{Eligible, Judge, Reason, State, Thresholds, eligible};
