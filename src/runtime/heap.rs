//! Unused memory that the allocator still holds.
#![allow(unsafe_code)]

/// Returns freed memory of this thread to the system. The allocator itself does this only while the
/// thread allocates, and the control thread may be idle for hours after a large reload.
pub fn give_back() {
    // SAFETY: mi_collect takes no pointer and may be called from any thread, at any time.
    unsafe { libmimalloc_sys::mi_collect(true) }
}
