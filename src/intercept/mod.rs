//! Interception: which traffic is caught, as rules for the kernel. `plan` and `rules` say what,
//! `nft`, `iptables` and `routes` write it (all of them dry); `install` and `system` do it.

mod advice;
mod check;
mod error;
mod held;
mod install;
pub mod iptables;
pub mod nft;
mod options;
pub mod plan;
mod proc_net;
pub mod routes;
pub mod rules;
mod system;
mod visitor;

pub use advice::advice;
pub use check::{Outcome, Report, check};
pub use error::InterceptError;
pub use held::Installed;
pub use install::{Backend, down, installed, planned, up};
pub use options::{ids, plan_of, proxy_uids};
pub use plan::InterceptPlan;
pub use system::{enter, gid, uid};
