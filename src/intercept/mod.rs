//! Interception: which traffic is caught, as rules for the kernel. `plan` and `rules` say what,
//! `nft`, `iptables` and `routes` write it (all of them dry); `install` and `system` do it.

mod error;
mod install;
pub mod iptables;
pub mod nft;
pub mod plan;
pub mod routes;
pub mod rules;
mod system;

pub use error::InterceptError;
pub use install::{Backend, down, installed, planned, up};
pub use plan::InterceptPlan;
pub use system::{enter, gid, uid};
