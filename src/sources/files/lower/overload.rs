//! Lowers `overload:` and `priority:` to the model.

use super::super::grammar::overload::{self as grammar, Overload};
use super::super::values::{Percent, Placed};
use super::{list, origin};
use crate::model::{self, Item, Priority};

pub(super) fn overload(written: Overload) -> model::Overload {
    model::Overload {
        memory: written.memory.map(|it| Item::new(it.value.0, origin(it.place))),
        descriptors: written.descriptors.map(|it| Item::new(it.value.0, origin(it.place))),
        cpu: written.cpu.map(|it| Item::new(it.value.0, origin(it.place))),
        shed: written.shed.map(percent),
        stop: written.stop_accepting.map(percent),
        priority: written.priority.map(|it| {
            let grammar::PriorityBy { header, high, low } = it.value;
            let header = header.map(Into::into);
            let by = model::PriorityBy { header, high: list(high.0), low: list(low.0) };
            Item::new(by, origin(it.place))
        }),
    }
}

pub(super) fn priority(written: grammar::Priority) -> Priority {
    match written {
        grammar::Priority::High => Priority::High,
        grammar::Priority::Normal => Priority::Normal,
        grammar::Priority::Low => Priority::Low,
    }
}

fn percent(written: Placed<Percent>) -> Item<u8> {
    Item::new(written.value.0, origin(written.place))
}
