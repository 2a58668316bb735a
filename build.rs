//! Chooses how the binary is linked.

use std::process::Command;

/// The first glibc that can start a binary with packed relocations.
const GLIBC_WITH_RELR: (u32, u32) = (2, 36);

/// Packs the relocations of the binary if the glibc of this system can start such a binary. Packed,
/// they have a few kilobytes. Otherwise they have a third of a megabyte, which the process reads at
/// each start and keeps in memory.
fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let is_native = std::env::var("TARGET").ok() == std::env::var("HOST").ok();
    if is_native && glibc_version().is_some_and(|version| version >= GLIBC_WITH_RELR) {
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// The version of this system's glibc, for example `(2, 36)`. `None` on systems without it.
fn glibc_version() -> Option<(u32, u32)> {
    let answer = Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok()?;
    let text = String::from_utf8(answer.stdout).ok()?;
    let (major, minor) = text.trim().strip_prefix("glibc ")?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
