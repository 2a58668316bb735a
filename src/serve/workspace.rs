//! Memory that an exchange needs and a waiting connection does not.

use std::cell::RefCell;

use crate::message::Head;

/// Workspaces kept for reuse: about 5 KiB each.
pub const WORKSPACES_POOLED_MAX: usize = 256;

/// What one exchange works with.
#[derive(Debug, Default)]
pub struct Workspace {
    /// The request's head.
    pub request: Head,
    /// The response's head.
    pub response: Head,
    /// Where a head is encoded before it goes to its place.
    pub scratch: Vec<u8>,
}

/// A worker's workspaces. Boxed: handing one out moves a pointer.
#[allow(clippy::vec_box)]
#[derive(Default)]
pub struct Workspaces(RefCell<Vec<Box<Workspace>>>);

impl Workspaces {
    /// One to use; its heads are clear.
    pub fn take(&self) -> Box<Workspace> {
        self.0.borrow_mut().pop().unwrap_or_default()
    }

    /// Takes it back.
    pub fn put(&self, mut workspace: Box<Workspace>) {
        workspace.request.clear();
        workspace.response.clear();
        workspace.scratch.clear();
        let mut free = self.0.borrow_mut();
        if free.len() < WORKSPACES_POOLED_MAX {
            free.push(workspace);
        }
    }
}
