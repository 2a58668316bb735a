//! The shift of a rule: its traffic moves from one destination to another.

use std::sync::Arc;

use crate::cluster::Destination;
use crate::resilience::{Chance, ShiftEvent, ShiftSide, ShiftState, UnixTime};

/// The shift of a rule.
#[derive(Debug)]
pub struct Shift {
    /// The host pattern that contains the rule.
    pub host: Box<str>,
    /// The name of the rule.
    pub rule: Box<str>,
    /// `file:line` of the definition.
    pub place: Box<str>,
    /// The old and the new destination, by [`ShiftSide`].
    pub destinations: [Destination; 2],
    /// Their names in the configuration.
    pub names: [Box<str>; 2],
    /// The share in force, which survives reloads.
    pub state: Arc<ShiftState>,
}

impl Shift {
    /// The version that `destination` is. `None` means a destination that the plan does not move.
    pub fn side_of(&self, destination: Destination) -> Option<ShiftSide> {
        ShiftSide::BOTH.into_iter().find(|side| self.destinations[*side as usize] == destination)
    }

    /// The name of a version.
    pub fn name(&self, side: ShiftSide) -> &str {
        &self.names[side as usize]
    }

    /// A note for operators that explains `event`.
    pub fn note(&self, event: &ShiftEvent) -> String {
        let [from, to] = &self.names;
        match event {
            ShiftEvent::Step { share, step, steps, .. } => {
                format!("{} to {to} (step {step} of {steps})", Chance::of_parts(*share))
            }
            ShiftEvent::Done => format!("the shift to {to} is complete"),
            ShiftEvent::Aborted(abort) => {
                format!("all back to {from}: {}", abort.why(&self.state.plan))
            }
        }
    }

    /// The plan and its two versions.
    pub fn plan(&self) -> String {
        let [from, to] = &self.names;
        format!("from {from} to {to}: {}", self.state.plan)
    }

    /// When the next step is due, for logs. Empty if the plan has ended.
    pub fn next(&self) -> String {
        let running = self.state.progress().filter(|progress| progress.is_running());
        running.map(|progress| UnixTime(progress.next).to_string()).unwrap_or_default()
    }
}
