//! Errors in a configuration, and refused resources.

use std::fmt;

use super::Origin;

/// The severity of a mistake.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The configuration is refused.
    #[default]
    Error,
    /// The configuration is accepted, but the item is probably a mistake.
    Warning,
}

/// A mistake in the configuration: an item that cannot be used, and the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The severity.
    pub severity: Severity,
    /// The item.
    pub origin: Origin,
    /// The reason.
    pub message: String,
    /// Advice for the user.
    pub help: Option<String>,
    /// Whether an unreadable part of the same configuration may be the cause. Then this error is
    /// not reported.
    pub secondary: bool,
    /// The section and the name of an item that does not exist. If the source could not read it,
    /// this error is not reported.
    pub missing: Option<(&'static str, Box<str>)>,
}

impl Fault {
    /// An error of the item with this origin.
    pub fn new(origin: &Origin, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            origin: origin.clone(),
            message: message.into(),
            help: None,
            secondary: false,
            missing: None,
        }
    }

    /// A warning about the item with this origin.
    pub fn warning(origin: &Origin, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::new(origin, message) }
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
