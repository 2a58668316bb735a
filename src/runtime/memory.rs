//! Returns memory to the system that the process does not need now: freed heap, and pages of code
//! that has run.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::ops::Range;
use std::ptr::{NonNull, with_exposed_provenance_mut};

use nix::sys::mman::{MmapAdvise, madvise};

/// Returns freed memory of this thread to the system. The allocator itself does this only while its
/// thread allocates, and the control thread may be idle for hours after a large reload.
pub fn give_back() {
    // SAFETY: mi_collect takes no pointer and may be called from any thread, at any time.
    unsafe { libmimalloc_sys::mi_collect(true) }
}

/// Like [`give_back`], after work that has run much of the code once: the start or a reload. Unmaps
/// the pages of code, too.
pub fn give_back_with_code() {
    give_back();
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap_or_default();
    for range in code(&smaps) {
        let Some(start) = NonNull::new(with_exposed_provenance_mut::<c_void>(range.start)) else {
            continue;
        };
        // SAFETY: the range is a mapping of a file that nobody can write to, and no page of it has
        // been changed. So a page that is mapped again has the same content.
        if let Err(error) = unsafe { madvise(start, range.len(), MmapAdvise::MADV_DONTNEED) } {
            tracing::debug!(%error, "cannot unmap code that is not in use; it stays in memory");
        }
    }
}

/// The mappings of unchanged code in `smaps` (proc_pid_smaps(5)). The start and a reload run most
/// of the code once: parsers, the command line, the compiler. Its pages stay mapped, and are most
/// of the memory of an idle proxy. When a page is used again, the kernel maps it again, normally
/// without a read from the disk. A mapping with private pages is left out: a debugger changed it.
fn code(smaps: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut current = None;
    for line in smaps.lines() {
        if let Some(range) = mapping(line) {
            current = range;
        } else if line.starts_with("Anonymous:") && line.ends_with(" 0 kB") {
            found.extend(current.take());
        }
    }
    found
}

/// `Some` if `line` begins a mapping: its range if it is the code of a file, else `None`.
fn mapping(line: &str) -> Option<Option<Range<usize>>> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let start = usize::from_str_radix(start, 16).ok()?;
    let end = usize::from_str_radix(end, 16).ok()?;
    let is_code = words.next() == Some("r-xp");
    let is_file = words.nth(3).is_some_and(|path| path.starts_with('/'));
    Some((is_code && is_file).then_some(start..end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unchanged_code_of_files_is_given_back() {
        let smaps = "\
1000-2000 r--p 00000000 fe:00 77   /usr/bin/ringway
Anonymous:             0 kB
2000-5000 r-xp 00001000 fe:00 77   /usr/bin/ringway
Rss:                  12 kB
Anonymous:             0 kB
5000-6000 rw-p 00004000 fe:00 77   /usr/bin/ringway
Anonymous:             0 kB
6000-7000 r-xp 00000000 fe:00 78   /usr/lib/changed.so
Anonymous:             4 kB
7000-8000 r-xp 00000000 00:00 0
Anonymous:             0 kB
7ffc1000-7ffc3000 r-xp 00000000 00:00 0   [vdso]
Anonymous:             0 kB
ff600000-ff601000 r-xp 00000000 fe:00 79   /usr/lib/with space.so
Anonymous:             0 kB
";
        assert_eq!(code(smaps), [0x2000..0x5000, 0xff60_0000..0xff60_1000]);
    }

    #[test]
    fn the_code_still_runs_after_its_pages_were_given_back() {
        let own = || code(&std::fs::read_to_string("/proc/self/smaps").expect("smaps"));
        let before = own();
        assert!(!before.is_empty());
        give_back_with_code();
        assert_eq!(own(), before);
    }
}
