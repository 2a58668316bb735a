//! The `ringway` command.

use std::process::ExitCode;

/// HTTP/2 allocates some thirty times a request, nearly all of it in the crates that speak it, and
/// what a hundred streams have given back is more than glibc keeps at hand.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // With huge pages an idle proxy would hold megabytes of nothing. A kernel that does not know
    // the option only leaves it at that.
    nix::sys::prctl::set_thp_disable(true).ok();
    ringway::cli::main()
}
