//! A task whose panic must not end other tasks.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::core::Core;
use super::io::Io;

/// A task that catches its own panic. It is boxed, because a large task is cheap to move by
/// pointer.
pub struct Contained<I: Io, F> {
    task: Pin<Box<F>>,
    core: Rc<Core<I>>,
}

impl<I: Io, F: Future<Output = ()>> Contained<I, F> {
    /// Makes the task with `make`. The worker of `core` counts its panic. The task is made directly
    /// in the box; otherwise its large, mostly unused state would be copied.
    #[inline]
    pub fn new(core: Rc<Core<I>>, make: impl FnOnce() -> F) -> Self {
        let place = Box::new_uninit();
        Self { task: Box::into_pin(Box::write(place, make())), core }
    }
}

impl<I: Io, F: Future<Output = ()>> Future for Contained<I, F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let task = this.task.as_mut();
        let polled = std::panic::catch_unwind(AssertUnwindSafe(|| task.poll(context)));
        polled.unwrap_or_else(|_| {
            this.core.cells().panics.increment();
            Poll::Ready(())
        })
    }
}
