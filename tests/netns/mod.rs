//! Interception in real network namespaces: the rules, the captured traffic, and the cleanup. The
//! tests need root. Without root, each test reports that it was skipped.

mod catching;
mod check;
mod login;
mod namespace;
mod rules;
mod running;
mod talk;

use std::process::{Command, Stdio};

use crate::support::skipped;

/// Whether this machine can create namespaces. If not, reports that `test` is skipped.
fn able(test: &str) -> bool {
    let made = Command::new("unshare").args(["--net", "true"]).stderr(Stdio::null()).status();
    let able = made.is_ok_and(|status| status.success());
    if !able {
        skipped(&format!("{test}: network namespaces need root (CAP_SYS_ADMIN)"));
    }
    able
}

/// Returns from a test that cannot run here, and reports it.
macro_rules! needs_namespaces {
    ($test:literal) => {
        if !crate::netns::able($test) {
            return;
        }
    };
}
pub(crate) use needs_namespaces;
