//! Refuses requests when the process is overloaded.

use super::downstream::Downstream;
use crate::error::{Flag, Refusal};
use crate::message::HeadView;
use crate::resilience::{Level, PriorityBy};
use crate::route::Rule;
use crate::runtime::io::Io;

/// Checks whether a request of `rule` is served at the current overload level. `by` is the header
/// field that determines the priority of a request.
///
/// # Errors
/// 503 if the process is overloaded and the priority of the request is too low. The refusal is
/// counted.
pub fn check<I: Io>(
    downstream: &Downstream<I>,
    by: Option<&PriorityBy>,
    rule: &Rule,
    request: HeadView<'_>,
) -> Result<(), Refusal> {
    let worker = &downstream.worker;
    let level = worker.overload.level();
    if level == Level::Normal {
        return Ok(());
    }
    let priority = rule
        .priority
        .or_else(|| by.map(|by| by.of(request.value(by.header.as_bytes()))))
        .unwrap_or_default();
    if level.admits(priority) {
        return Ok(());
    }
    worker.cells().shed[priority.index()].increment();
    Err(OVERLOADED)
}

/// Whether the connection closes after this refusal. Near a limit, an idle connection would hold a
/// descriptor.
pub fn closes<I: Io>(downstream: &Downstream<I>, refusal: &Refusal) -> bool {
    *refusal == OVERLOADED && downstream.worker.overload.level() == Level::Stop
}

const OVERLOADED: Refusal = Refusal {
    status: 503,
    flag: Flag::Overload,
    detail: "the proxy is near a limit of its memory, descriptors or CPU time",
};
