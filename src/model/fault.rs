//! Errors and warnings about a configuration, and refused resources.

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

/// A mistake in the configuration: its item, and the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Whether the configuration is refused because of the mistake.
    pub severity: Severity,
    /// The origin of the item.
    pub origin: Origin,
    /// The reason, as text for the operator.
    pub message: String,
    /// Advice for the operator: how to correct the mistake. `None` if there is none.
    pub help: Option<String>,
    /// Whether this error may only follow from a part of the configuration that could not be read.
    /// If there is such a part, this error is not reported.
    pub secondary: bool,
    /// The section and the name of an item that does not exist. If the source could not read this
    /// item, this error is not reported.
    pub missing: Option<(&'static str, Box<str>)>,
}

impl Fault {
    /// Creates an error about the item with this origin.
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

    /// Creates a warning about the item with this origin.
    pub fn warning(origin: &Origin, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::new(origin, message) }
    }

    /// Adds advice for the operator.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// A refused resource. The refusal is reported to the source of the resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The origin of the resource.
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
