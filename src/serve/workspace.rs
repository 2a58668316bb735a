//! Memory that an exchange needs, but an idle connection does not.

use crate::message::Head;
use crate::runtime::spare::Spare;

/// The maximum number of workspaces that a worker keeps for reuse. Each needs about 5 KiB. Those
/// that were not used for a second are freed.
pub const WORKSPACES_POOLED_MAX: usize = 1024;

/// The memory of one exchange.
#[derive(Debug, Default)]
pub struct Workspace {
    /// The head of the request, which does not change during the exchange.
    pub request: Head,
    /// The parts that change during the exchange.
    pub drafts: Drafts,
}

/// The parts of a [`Workspace`] that change during an exchange.
#[derive(Debug, Default)]
pub struct Drafts {
    /// The head of the response.
    pub response: Head,
    /// A buffer for the text of a head that is sent.
    pub scratch: Vec<u8>,
}

/// The pool of workspaces of a worker. They are boxed, so that taking one moves only a pointer.
pub struct Workspaces(Spare<Box<Workspace>>);

impl Default for Workspaces {
    fn default() -> Self {
        Self(Spare::new(WORKSPACES_POOLED_MAX))
    }
}

impl Workspaces {
    /// Takes a workspace. Its heads are empty.
    pub fn take(&self) -> Box<Workspace> {
        self.0.take().unwrap_or_default()
    }

    /// Returns a workspace to the pool.
    pub fn put(&self, mut workspace: Box<Workspace>) {
        workspace.request.clear();
        workspace.drafts.response.clear();
        workspace.drafts.scratch.clear();
        self.0.put(workspace);
    }

    /// Frees the workspaces that were not used since the last call.
    pub fn trim(&self) {
        self.0.trim();
    }
}
