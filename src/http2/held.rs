//! Counts the bytes that HTTP/2 connections hold: frames that are not written yet.
//!
//! The count is per thread, because a worker and its connections stay on one thread.

use std::cell::Cell;

thread_local! {
    static HELD_BYTES: Cell<usize> = const { Cell::new(0) };
}

/// The bytes that are held on this thread.
pub fn held_bytes() -> usize {
    HELD_BYTES.get()
}

/// The held bytes of one connection. The drop subtracts them from the count.
#[derive(Debug, Default)]
pub(super) struct HeldBytes(usize);

impl HeldBytes {
    /// Sets the current number.
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
