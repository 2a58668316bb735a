//! Memory that the allocator holds though nothing uses it.
#![allow(unsafe_code)]

/// Gives freed memory of this thread back to the system. The allocator does so by itself only while
/// the thread allocates, and the control thread may be idle for hours after a large reload.
pub fn give_back() {
    // SAFETY: mi_collect takes no pointer and may be called from any thread, at any time.
    unsafe { libmimalloc_sys::mi_collect(true) }
}
