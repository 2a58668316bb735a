//! The `ringway` command.

use std::process::ExitCode;

/// HTTP/2 makes about thirty allocations per request, mostly in library crates. glibc keeps too
/// little freed memory ready for a hundred streams.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Without huge pages an idle proxy holds megabytes less. An older kernel does not know this
    // option; ignore its error.
    nix::sys::prctl::set_thp_disable(true).ok();
    ringway::cli::main()
}
