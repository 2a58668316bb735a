//! Finds the errors that only follow from another mistake. They are left out, so that one mistake
//! gives one message.

use std::collections::HashSet;

use super::diagnostic::{Diagnostic, Place};
use super::node::{Kind, Node};
use crate::model::{Fault, Origin};

/// The parts of a tree around its mistakes.
#[derive(Default)]
pub(super) struct Around {
    /// The places of all values that contain a mistake, at any depth, and the places of their keys.
    places: HashSet<Place>,
    /// The names of these values.
    names: HashSet<String>,
    /// The sections that could not be read at all.
    lost: HashSet<String>,
    /// A file could not be read at all: any item may be in it.
    unreadable: bool,
}

impl Around {
    /// Finds the values around `mistakes` in `tree`. `unreadable` says whether a file is missing in
    /// the tree.
    pub(super) fn new(tree: &Node, mistakes: &[Diagnostic], unreadable: bool) -> Self {
        let wrong: HashSet<Place> = mistakes.iter().filter_map(|mistake| mistake.place).collect();
        let mut around = Self { unreadable, ..Self::default() };
        if let Kind::Map(sections) = &tree.kind {
            for (key, section) in sections {
                if wrong.contains(&section.place) {
                    around.lost.insert(key.text.clone());
                }
                // A section with a wrong name may be any section.
                around.unreadable |= wrong.contains(&key.place);
            }
        }
        around.walk(tree, &wrong);
        around
    }

    /// Notes the values with a mistake in or below `node`. Returns whether there is one.
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

    /// Whether a mistake in the files may be the cause of `fault`.
    pub(super) fn explains(&self, fault: &Fault) -> bool {
        let named = |(section, name): &(&str, Box<str>)| {
            self.unreadable || self.lost.contains(*section) || self.names.contains(&**name)
        };
        fault.secondary
            || fault.missing.as_ref().is_some_and(named)
            || matches!(&fault.origin, Origin::File(place) if self.places.contains(place))
    }
}
