//! The services that need the control thread.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::OutlierGroup;

/// The services with news for the control thread. A service without failures is never here, so it
/// costs nothing. All services of the process share it.
#[derive(Debug, Default)]
pub struct OutlierHub(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    groups: VecDeque<Arc<OutlierGroup>>,
    waker: Option<Waker>,
}

impl OutlierHub {
    /// Adds a service. The control thread attends to it until it is quiet again.
    pub(super) fn push(&self, group: Arc<OutlierGroup>) {
        let mut waiting = self.lock();
        waiting.groups.push_back(group);
        if let Some(waker) = waiting.waker.take() {
            waker.wake();
        }
    }

    /// The next service. Only one task may wait.
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
