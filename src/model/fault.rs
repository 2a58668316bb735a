//! Errors in a configuration, and refused resources.

use std::fmt;

use super::Origin;

/// An error in the configuration: an item that cannot be used, and the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The item.
    pub origin: Origin,
    /// The reason.
    pub message: String,
    /// Advice for the user.
    pub help: Option<String>,
    /// Whether an unreadable part of the same configuration may be the cause. Then this error is
    /// not reported.
    pub secondary: bool,
}

impl Fault {
    /// An error of the item with this origin.
    pub fn new(origin: &Origin, message: impl Into<String>) -> Self {
        Self { origin: origin.clone(), message: message.into(), help: None, secondary: false }
    }

    /// Adds help to the error.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// A refused resource, for its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The resource.
    pub origin: Origin,
    /// Every reason why the resource was refused.
    pub reasons: Vec<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::Resource(id) => write!(f, "{id}: ")?,
            Origin::File(_) | Origin::BuiltIn => {}
        }
        f.write_str(&self.reasons.join("; "))
    }
}
