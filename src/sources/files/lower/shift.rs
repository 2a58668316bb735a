//! Lowers `shift:` of rules to the model.

use super::super::grammar::shift::{AbortIf, Shift};
use super::super::values::Placed;
use super::origin;
use crate::model::{self, Item};

pub(super) fn shift(written: Placed<Shift>) -> Item<model::Shift> {
    let Shift { from, to, step, every, start, abort_if } = written.value;
    let shift = model::Shift {
        from: from.map(Into::into),
        to: to.map(Into::into),
        step: step.map(|step| Item::new(step.value.0, origin(step.place))),
        every: every.map(|every| Item::new(every.value.0, origin(every.place))),
        start: start.map(|start| start.0),
        abort_if: abort_if.map(self::abort_if),
    };
    Item::new(shift, origin(written.place))
}

fn abort_if(written: Placed<AbortIf>) -> Item<model::AbortIf> {
    let AbortIf { error_rate, p99, min_requests } = written.value;
    let abort_if = model::AbortIf {
        error_rate: error_rate.map(|rate| Item::new(rate.value.0, origin(rate.place))),
        p99: p99.map(|p99| Item::new(p99.value.0, origin(p99.place))),
        min_requests: min_requests.map(Into::into),
    };
    Item::new(abort_if, origin(written.place))
}
