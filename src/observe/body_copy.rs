//! Copies of the beginnings of bodies, for taps that ask for them.

use std::cell::{Cell, Ref, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The maximum number of bytes of a body that a tap shows.
pub const BODY_BYTES_MAX: usize = 64 * 1024;

/// The maximum number of bytes of all copies of the process. A copy that would need more ends.
pub const COPIES_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The copy of one body. Clones share it.
#[derive(Clone)]
pub struct BodyCopy {
    copied: Rc<Copied>,
    /// The message that this handle copies. A request that is sent again has several.
    message: u32,
}

struct Copied {
    bytes: RefCell<Vec<u8>>,
    max: usize,
    message: Cell<u32>,
    /// Whether the copy has ended for want of room, so that it has no holes.
    ended: Cell<bool>,
    /// The number of bytes of all copies.
    total: Arc<AtomicUsize>,
}

impl BodyCopy {
    /// Creates an empty copy of at most `max` bytes. `total` counts the bytes of all copies.
    pub fn new(max: usize, total: &Arc<AtomicUsize>) -> Self {
        let total = Arc::clone(total);
        let (message, ended) = (Cell::default(), Cell::default());
        let copied = Copied { bytes: RefCell::default(), max, message, ended, total };
        Self { copied: Rc::new(copied), message: 0 }
    }

    /// Begins again, with the body of another message. Older handles copy nothing from now on.
    pub fn again(&self) -> Self {
        let message = self.copied.message.get() + 1;
        self.copied.message.set(message);
        self.copied.ended.set(false);
        self.copied.give_back();
        Self { copied: Rc::clone(&self.copied), message }
    }

    /// Whether more bytes are wanted.
    pub fn has_room(&self) -> bool {
        let is_last = self.message == self.copied.message.get();
        is_last && !self.copied.ended.get() && self.copied.bytes.borrow().len() < self.copied.max
    }

    /// Copies as many of these bytes as have room.
    pub fn add(&self, bytes: &[u8]) {
        if !self.has_room() {
            return;
        }
        let Copied { bytes: copy, max, total, .. } = &*self.copied;
        let mut copy = copy.borrow_mut();
        let wanted = bytes.len().min(max - copy.len());
        if total.fetch_add(wanted, Ordering::Relaxed) + wanted > COPIES_BYTES_MAX {
            total.fetch_sub(wanted, Ordering::Relaxed);
            self.copied.ended.set(true);
            return;
        }
        copy.extend_from_slice(&bytes[..wanted]);
    }

    /// Whether the copy has ended early, because all copies together have no more room.
    pub fn has_ended(&self) -> bool {
        self.copied.ended.get()
    }

    /// The bytes so far.
    pub fn bytes(&self) -> Ref<'_, Vec<u8>> {
        self.copied.bytes.borrow()
    }
}

impl Copied {
    fn give_back(&self) {
        let copied = std::mem::take(&mut *self.bytes.borrow_mut());
        self.total.fetch_sub(copied.len(), Ordering::Relaxed);
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_bounded_and_that_of_the_last_message() {
        let total = Arc::new(AtomicUsize::new(0));
        let copy = BodyCopy::new(5, &total);
        let first = copy.again();
        first.add(b"abc");
        first.add(b"defg");
        assert_eq!((&**copy.bytes(), first.has_room()), (&b"abcde"[..], false));
        // The request is sent again.
        let second = copy.again();
        second.add(b"xy");
        first.add(b"z");
        assert_eq!((&**copy.bytes(), total.load(Ordering::Relaxed)), (&b"xy"[..], 2));
        drop((copy, first, second));
        assert_eq!(total.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn all_copies_together_are_bounded() {
        let total = Arc::new(AtomicUsize::new(COPIES_BYTES_MAX - 3));
        let copy = BodyCopy::new(100, &total).again();
        copy.add(b"ab");
        copy.add(b"four");
        copy.add(b"c");
        // No byte comes after a hole.
        assert_eq!((&**copy.bytes(), copy.has_ended(), copy.has_room()), (&b"ab"[..], true, false));
        let next = copy.again();
        next.add(b"abc");
        assert_eq!((&**next.bytes(), next.has_ended()), (&b"abc"[..], false));
    }
}
