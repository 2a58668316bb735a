//! The `ringway` command.

use std::process::ExitCode;

/// HTTP/2 makes about thirty allocations per request, mostly in library crates. With a hundred
/// streams, the allocator of glibc keeps too little freed memory for the next allocations.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Without huge pages an idle proxy uses megabytes less memory. An older kernel does not know
    // this option, so ignore the error.
    nix::sys::prctl::set_thp_disable(true).ok();
    ringway::cli::main()
}
