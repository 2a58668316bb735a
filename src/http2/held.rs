//! Counts the bytes of frames that HTTP/2 connections hold in memory because they are not written
//! yet.
//!
//! The count is per thread, because a worker and its connections stay on one thread.

use std::cell::Cell;

thread_local! {
    static HELD_BYTES: Cell<usize> = const { Cell::new(0) };
}

/// The number of bytes that all connections of this thread hold.
pub fn held_bytes() -> usize {
    HELD_BYTES.get()
}

/// The number of bytes that one connection holds. Dropping it subtracts them from the thread's
/// count.
#[derive(Debug, Default)]
pub(super) struct HeldBytes(usize);

impl HeldBytes {
    /// Sets the number of held bytes, and updates the thread's count.
    pub(super) fn set(&mut self, bytes: usize) {
        HELD_BYTES.set(HELD_BYTES.get().wrapping_sub(self.0).wrapping_add(bytes));
        self.0 = bytes;
    }
}

impl Drop for HeldBytes {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_is_held_no_longer() {
        assert_eq!(held_bytes(), 0);
        let (mut one, mut other) = (HeldBytes::default(), HeldBytes::default());
        one.set(7);
        other.set(5);
        one.set(2);
        assert_eq!(held_bytes(), 7);
        drop(other);
        assert_eq!(held_bytes(), 2);
        drop(one);
        assert_eq!(held_bytes(), 0);
    }
}
