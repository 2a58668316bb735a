//! Interception in real network namespaces: the rules, the captured traffic, and the cleanup. The
//! tests need root; without it, each test says that it was skipped.

mod catching;
mod check;
mod namespace;
mod rules;
mod running;
mod talk;

use std::process::{Command, Stdio};

use crate::support::skipped;

/// Whether namespaces can be made here. Says so when not: a test that did not run is no success.
fn able(test: &str) -> bool {
    let made = Command::new("unshare").args(["--net", "true"]).stderr(Stdio::null()).status();
    let able = made.is_ok_and(|status| status.success());
    if !able {
        skipped(&format!("{test}: network namespaces need root (CAP_SYS_ADMIN)"));
    }
    able
}

/// Leaves a test that cannot run here, aloud.
macro_rules! needs_namespaces {
    ($test:literal) => {
        if !crate::netns::able($test) {
            return;
        }
    };
}
pub(crate) use needs_namespaces;
