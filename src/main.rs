//! The `ringway` command.

use std::process::ExitCode;

/// mimalloc replaces the allocator of glibc. An HTTP/2 request needs about thirty allocations,
/// mostly in library crates. With a hundred streams, glibc keeps too little freed memory for the
/// next ones.
#[global_allocator]
static ALLOCATOR: ringway::runtime::heap::Heap = ringway::runtime::heap::Heap;

fn main() -> ExitCode {
    // Disable transparent huge pages: without them, an idle proxy uses several megabytes less
    // memory. Ignore the error of an older kernel that does not have this option.
    nix::sys::prctl::set_thp_disable(true).ok();
    ringway::cli::main()
}
