//! A task whose panic must not end other tasks.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::core::Core;
use super::io::Io;

/// A task that catches its own panic. The task is boxed, so that moving it moves only
/// a pointer.
pub struct Contained<I: Io, F> {
    task: Pin<Box<F>>,
    core: Rc<Core<I>>,
}

impl<I: Io, F: Future<Output = ()>> Contained<I, F> {
    /// Creates the task with `make`. A panic of the task is counted by the worker of `core`.
    #[inline]
    pub fn new(core: Rc<Core<I>>, make: impl FnOnce() -> F) -> Self {
        Self { task: boxed(make), core }
    }
}

/// Boxes the future that `make` creates. The future is created inside the box; `Box::pin` would
/// create it on the stack and copy it.
#[inline]
pub fn boxed<F>(make: impl FnOnce() -> F) -> Pin<Box<F>> {
    Box::into_pin(Box::write(Box::new_uninit(), make()))
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
