//! Changes that a rule makes to the header fields of a message.

/// Changes to the header fields of a message. Names are compared case-insensitively, and sent in
/// the case written here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderEdits {
    /// Fields that replace all fields with the same name.
    pub set: Vec<(Box<str>, Box<str>)>,
    /// Fields that are added. Fields with the same name stay.
    pub add: Vec<(Box<str>, Box<str>)>,
    /// Names of fields that are removed.
    pub remove: Vec<Box<str>>,
}

impl HeaderEdits {
    /// Creates edits that change nothing.
    pub const fn none() -> Self {
        Self { set: Vec::new(), add: Vec::new(), remove: Vec::new() }
    }

    /// True when there are no changes.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }

    /// Whether a received field called `name` is removed or replaced.
    pub fn drops(&self, name: &[u8]) -> bool {
        let same = |other: &str| other.as_bytes().eq_ignore_ascii_case(name);
        self.remove.iter().any(|removed| same(removed))
            || self.set.iter().any(|(replaced, _)| same(replaced))
    }

    /// The fields to append, as (name, value).
    pub fn appended(&self) -> impl Iterator<Item = (&str, &str)> {
        self.set.iter().chain(&self.add).map(|(name, value)| (&**name, &**value))
    }
}
