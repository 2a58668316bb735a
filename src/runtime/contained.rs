//! A task beside others of which a panic must end nothing but itself.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::core::Core;
use super::io::Io;

/// See the module. Boxed: a large task is moved by its pointer.
pub struct Contained<I: Io, F> {
    task: Pin<Box<F>>,
    core: Rc<Core<I>>,
}

impl<I: Io, F: Future<Output = ()>> Contained<I, F> {
    /// The task that `make` makes, on the worker of `core`, which counts its panic. It is made in
    /// its place: most of a task is room for later, which would be copied if it was made elsewhere.
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
