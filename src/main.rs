//! The `ringway` command.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // The allocator's arena is sparse: with huge pages an idle proxy would hold 8 MB of nothing.
    // A kernel that does not know the option only leaves it at that.
    nix::sys::prctl::set_thp_disable(true).ok();
    ringway::cli::main()
}
