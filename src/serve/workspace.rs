//! Memory that an exchange needs and a waiting connection does not.

use crate::message::Head;
use crate::runtime::spare::Spare;

/// Workspaces kept for reuse, about 5 KiB each; those not needed for a second are given up.
pub const WORKSPACES_POOLED_MAX: usize = 1024;

/// What one exchange works with.
#[derive(Debug, Default)]
pub struct Workspace {
    /// The request's head.
    pub request: Head,
    /// The response's head.
    pub response: Head,
    /// Where a head is written before it goes to its place, as text.
    pub scratch: Vec<u8>,
}

/// A worker's workspaces. Boxed: handing one out moves a pointer.
pub struct Workspaces(Spare<Box<Workspace>>);

impl Default for Workspaces {
    fn default() -> Self {
        Self(Spare::new(WORKSPACES_POOLED_MAX))
    }
}

impl Workspaces {
    /// One to use; its heads are clear.
    pub fn take(&self) -> Box<Workspace> {
        self.0.take().unwrap_or_default()
    }

    /// Takes it back.
    pub fn put(&self, mut workspace: Box<Workspace>) {
        workspace.request.clear();
        workspace.response.clear();
        workspace.scratch.clear();
        self.0.put(workspace);
    }

    /// Gives up what has not been used since the last call.
    pub fn trim(&self) {
        self.0.trim();
    }
}
