//! Finds the errors that only follow from another mistake. They are not reported, so that one
//! mistake gives one message.

use std::collections::HashSet;

use super::diagnostic::{Diagnostic, Place};
use super::node::{Kind, Node};
use crate::model::{Fault, Origin};

/// The values and sections of a configuration that contain mistakes.
#[derive(Default)]
pub(super) struct Around {
    /// The places of all values that contain a mistake, at any depth, and the places of their keys.
    places: HashSet<Place>,
    /// The keys of these values, such as the name of a service.
    names: HashSet<String>,
    /// The sections of which nothing could be read.
    lost: HashSet<String>,
    /// Whether a whole file could not be read. Any missing item may be in it.
    unreadable: bool,
}

impl Around {
    /// Finds the values that contain `mistakes`, in `tree`. `unreadable` says whether a file could
    /// not be read, so that it is missing in the tree.
    pub(super) fn new(tree: &Node, mistakes: &[Diagnostic], unreadable: bool) -> Self {
        let wrong: HashSet<Place> = mistakes.iter().filter_map(|mistake| mistake.place).collect();
        let mut around = Self { unreadable, ..Self::default() };
        if let Kind::Map(sections) = &tree.kind {
            for (key, section) in sections {
                if wrong.contains(&section.place) {
                    around.lost.insert(key.text.clone());
                }
                // The section with the wrong name may be any section.
                around.unreadable |= wrong.contains(&key.place);
            }
        }
        around.walk(tree, &wrong);
        around
    }

    /// Records the values in or below `node` that contain a mistake. Returns whether there is a
    /// mistake.
    fn walk(&mut self, node: &Node, wrong: &HashSet<Place>) -> bool {
        let mut found = wrong.contains(&node.place);
        match &node.kind {
            Kind::Map(entries) => {
                for (key, value) in entries {
                    if self.walk(value, wrong) || wrong.contains(&key.place) {
                        self.places.insert(key.place);
                        self.names.insert(key.text.clone());
                        found = true;
                    }
                }
            }
            Kind::List(items) => {
                for item in items {
                    found |= self.walk(item, wrong);
                }
            }
            Kind::Null | Kind::Scalar { .. } => {}
        }
        if found {
            self.places.insert(node.place);
        }
        found
    }

    /// Whether `fault` may only follow from another mistake in the files.
    pub(super) fn explains(&self, fault: &Fault) -> bool {
        let named = |(section, name): &(&str, Box<str>)| {
            self.unreadable || self.lost.contains(*section) || self.names.contains(&**name)
        };
        fault.secondary
            || fault.missing.as_ref().is_some_and(named)
            || matches!(&fault.origin, Origin::File(place) if self.places.contains(place))
    }
}
