//! Compiles `overload:` and the priorities of requests.

use super::Compiler;
use crate::model::{self, Item};
use crate::resilience::{OverloadTerms, Priority, PriorityBy, SHED_PERCENT, STOP_PERCENT, Watched};

/// Compiles the settings of overload protection.
pub(super) fn terms(compiler: &mut Compiler<'_>) -> OverloadTerms {
    let written = &compiler.model.settings.overload;
    let default = OverloadTerms::default();
    let resources = [&written.memory, &written.descriptors, &written.cpu];
    let mut watched = default.watched;
    for (watched, written) in watched.iter_mut().zip(resources) {
        if let Some(item) = written {
            *watched = match item.value {
                model::Watched::Auto => Watched::Auto,
                model::Watched::Off => Watched::Off,
                model::Watched::At(limit) => Watched::At(limit),
            };
        }
    }
    let percent = |item: &Option<Item<u8>>, default| item.as_ref().map_or(default, |it| it.value);
    let shed = percent(&written.shed, SHED_PERCENT);
    let stop = percent(&written.stop, STOP_PERCENT);
    if shed == 0 || shed > stop {
        let message = format!("`shed: {shed}%` is not between 1% and `stop_accepting: {stop}%`");
        let help = match stop {
            // Both were written, in the wrong order.
            1.. if shed > stop
                && shed <= 100
                && written.shed.is_some()
                && written.stop.is_some() =>
            {
                format!(
                    "requests of low priority are refused first: write `shed: {stop}%` and \
                 `stop_accepting: {shed}%`"
                )
            }
            _ => "requests of low priority are refused first: leave it out, or write a percentage \
                  above 0, and not above `stop_accepting`"
                .to_owned(),
        };
        let written = written.shed.as_ref().or(written.stop.as_ref());
        if let Some(item) = written {
            compiler.fault_with_help(&item.origin, message, help);
        }
    }
    OverloadTerms { watched, shed, stop }
}

/// Compiles the header field that determines the priority of a request.
pub(super) fn priority_by(compiler: &mut Compiler<'_>) -> Option<PriorityBy> {
    let item = compiler.model.settings.overload.priority.as_ref()?;
    let written = &item.value;
    let Some(header) = &written.header else {
        let help = "add `header: NAME`";
        compiler.missing(&item.origin, "a `priority` needs a `header`", help);
        return None;
    };
    compiler.field_name(header);
    if written.high.is_empty() && written.low.is_empty() {
        let message = "no value of this field would have a priority";
        let help = "add `high: [VALUE]` or `low: [VALUE]`";
        compiler.fault_with_help(&item.origin, message, help);
    }
    if let Some(both) =
        written.low.iter().find(|low| written.high.iter().any(|high| high.value == low.value))
    {
        let message = format!("{:?} is both high and low", both.value);
        compiler.fault_with_help(&both.origin, message, "keep one of them");
    }
    let values = |list: &[Item<String>]| list.iter().map(|it| it.value.as_str().into()).collect();
    Some(PriorityBy {
        header: header.value.to_ascii_lowercase().into(),
        high: values(&written.high),
        low: values(&written.low),
    })
}

/// Compiles the priority of a rule. Only a rule that forwards requests may have one.
pub(super) fn priority(
    compiler: &mut Compiler<'_>,
    rule: &model::Rule,
    forwards: bool,
) -> Option<Priority> {
    let item = rule.priority.as_ref()?;
    if !forwards {
        let message = "an answer of the proxy itself is never refused because of overload";
        compiler.fault_with_help(&item.origin, message, "leave `priority` out");
    }
    Some(match item.value {
        model::Priority::High => Priority::High,
        model::Priority::Normal => Priority::Normal,
        model::Priority::Low => Priority::Low,
    })
}
