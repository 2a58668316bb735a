//! Memory that an exchange needs and an idle connection does not need.

use crate::message::Head;
use crate::runtime::spare::Spare;

/// How many workspaces are kept for reuse, about 5 KiB each. Workspaces that are
/// not needed for a second are freed.
pub const WORKSPACES_POOLED_MAX: usize = 1024;

/// The memory of one exchange.
#[derive(Debug, Default)]
pub struct Workspace {
    /// The head of the request. It does not change during the exchange.
    pub request: Head,
    /// The memory that changes during the exchange.
    pub drafts: Drafts,
}

/// The parts of a [`Workspace`] that change during an exchange.
#[derive(Debug, Default)]
pub struct Drafts {
    /// The head of the response.
    pub response: Head,
    /// The text of a head before it is sent.
    pub scratch: Vec<u8>,
}

/// A worker's workspaces. They are boxed, so that taking one moves only a pointer.
pub struct Workspaces(Spare<Box<Workspace>>);

impl Default for Workspaces {
    fn default() -> Self {
        Self(Spare::new(WORKSPACES_POOLED_MAX))
    }
}

impl Workspaces {
    /// Takes a workspace with empty heads.
    pub fn take(&self) -> Box<Workspace> {
        self.0.take().unwrap_or_default()
    }

    /// Puts a workspace back into the pool.
    pub fn put(&self, mut workspace: Box<Workspace>) {
        workspace.request.clear();
        workspace.drafts.response.clear();
        workspace.drafts.scratch.clear();
        self.0.put(workspace);
    }

    /// Frees workspaces that were not used since the last call.
    pub fn trim(&self) {
        self.0.trim();
    }
}
