//! The services whose outlier detection needs the control thread.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::OutlierGroup;

/// The services that the control thread must attend to. A service without failures is never in the
/// queue, so it costs nothing. All services of the process share one hub.
#[derive(Debug, Default)]
pub struct OutlierHub(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    groups: VecDeque<Arc<OutlierGroup>>,
    waker: Option<Waker>,
}

impl OutlierHub {
    /// Adds a service to the queue. The control thread attends to the service until nothing is left
    /// to do.
    pub(super) fn push(&self, group: Arc<OutlierGroup>) {
        let mut waiting = self.lock();
        waiting.groups.push_back(group);
        if let Some(waker) = waiting.waker.take() {
            waker.wake();
        }
    }

    /// Returns the next service in the queue. Only one task may wait.
    pub fn poll_next(&self, context: &mut Context<'_>) -> Poll<Arc<OutlierGroup>> {
        let mut waiting = self.lock();
        match waiting.groups.pop_front() {
            Some(group) => Poll::Ready(group),
            None => {
                waiting.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
