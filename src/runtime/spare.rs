//! Values kept for reuse. Values that were not needed for a while are dropped.

use std::cell::{Cell, RefCell};

/// A stock of values for reuse. It is last in, first out, so the next value is likely in the CPU
/// cache.
pub struct Spare<T> {
    free: RefCell<Vec<T>>,
    max: usize,
    /// The lowest number of values in stock since the last [`Spare::trim`]. This many values were
    /// not needed.
    unneeded: Cell<usize>,
}

impl<T> Spare<T> {
    /// Creates an empty stock that keeps at most `max` values.
    pub const fn new(max: usize) -> Self {
        Self { free: RefCell::new(Vec::new()), max, unneeded: Cell::new(0) }
    }

    /// Takes a value, if there is one.
    pub fn take(&self) -> Option<T> {
        let mut free = self.free.borrow_mut();
        let taken = free.pop();
        self.unneeded.set(self.unneeded.get().min(free.len()));
        taken
    }

    /// Keeps `thing` for reuse. Drops it if the stock is full.
    pub fn put(&self, thing: T) {
        let mut free = self.free.borrow_mut();
        if free.len() < self.max {
            free.push(thing);
        }
    }

    /// Drops the values that were not needed since the last call.
    pub fn trim(&self) {
        let mut free = self.free.borrow_mut();
        // The oldest values are at the front.
        free.drain(..self.unneeded.get());
        if free.is_empty() {
            free.shrink_to_fit();
        }
        self.unneeded.set(free.len());
    }

    /// The number of values in stock.
    pub fn len(&self) -> usize {
        self.free.borrow().len()
    }

    /// True when the stock is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_needed_between_two_looks_is_given_up() {
        let spare = Spare::new(3);
        (0..5).for_each(|n| spare.put(n));
        assert_eq!(spare.len(), 3);
        spare.trim();
        let taken = spare.take();
        assert_eq!(taken, Some(2));
        spare.put(2);
        spare.trim();
        assert_eq!(spare.len(), 1, "two of three were not needed");
        assert_eq!(spare.take(), Some(2));
    }
}
