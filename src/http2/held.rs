//! Counts the bytes that HTTP/2 connections hold: data for peers that is not written yet.
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

/// Bytes that count as held until this value is dropped.
#[derive(Debug)]
pub struct Held(Vec<u8>);

impl Held {
    /// Holds a copy of `bytes`.
    pub fn copy_of(bytes: &[u8]) -> Self {
        count(0, bytes.len());
        Self(bytes.to_vec())
    }
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        count(self.0.len(), 0);
    }
}

/// Held bytes whose number changes.
#[derive(Debug, Default)]
pub struct HeldBytes(usize);

impl HeldBytes {
    /// Sets the current number.
    pub fn set(&mut self, bytes: usize) {
        count(self.0, bytes);
        self.0 = bytes;
    }
}

impl Drop for HeldBytes {
    fn drop(&mut self) {
        count(self.0, 0);
    }
}

fn count(before: usize, now: usize) {
    HELD_BYTES.set(HELD_BYTES.get().wrapping_sub(before).wrapping_add(now));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_is_held_no_longer() {
        assert_eq!(held_bytes(), 0);
        let mut elsewhere = HeldBytes::default();
        elsewhere.set(7);
        let mut whole = bytes::Bytes::from_owner(Held::copy_of(b"hello"));
        let part = whole.split_to(2);
        assert_eq!((&part[..], &whole[..], held_bytes()), (&b"he"[..], &b"llo"[..], 12));
        drop(whole);
        elsewhere.set(1);
        assert_eq!(held_bytes(), 6);
        drop((part, elsewhere));
        assert_eq!(held_bytes(), 0);
    }
}
