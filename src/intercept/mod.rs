//! Interception: kernel rules that capture traffic. `plan` and `rules` decide what is captured.
//! `nft`, `iptables` and `routes` write the rules as text. None of these does I/O. `install` and
//! `system` run the programs that change the kernel.

mod advice;
mod check;
mod error;
mod held;
mod install;
pub mod iptables;
mod login;
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
pub use login::login_warning;
pub use options::{ids, plan_of, proxy_uids};
pub use plan::InterceptPlan;
pub use system::{enter, gid, uid};
