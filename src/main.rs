//! The `ringway` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    // With huge pages an idle proxy would hold megabytes of nothing. A kernel that does not know
    // the option only leaves it at that.
    nix::sys::prctl::set_thp_disable(true).ok();
    ringway::cli::main()
}
