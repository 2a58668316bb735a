//! Compiles the shifts of rules.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use super::Compiler;
use crate::cluster::{Destination, Service};
use crate::model::{self, Item};
use crate::resilience::{AbortIf, Chance, SHIFT_EVERY_MIN, SHIFT_MIN_REQUESTS, ShiftPlan};
use crate::route::Shift;

/// The rule that a shift belongs to.
pub(super) struct Owner<'a> {
    pub(super) host: &'a str,
    pub(super) rule: &'a str,
    /// Whether the rule has a name of its own.
    pub(super) is_named: bool,
    /// The destinations of the rule, with their weights as written.
    pub(super) to: &'a [(Item<String>, u32)],
    /// The same destinations.
    pub(super) destinations: &'a [Destination],
}

/// Compiles a shift. `None` after an error.
pub(super) fn shift(
    compiler: &mut Compiler<'_>,
    services: &[Arc<Service>],
    owner: &Owner<'_>,
    written: &Item<model::Shift>,
) -> Option<Arc<Shift>> {
    let value = &written.value;
    let is_complete = is_complete(compiler, owner, written);
    let sides = sides(compiler, services, owner, value);
    let timing = timing(compiler, value);
    let abort_if = value.abort_if.as_ref().map(|item| abort_if(compiler, item));
    let (sides, (step, every)) = (sides.filter(|_| is_complete)?, timing?);
    let weights = sides.map(|side| u64::from(owner.to[side].1));
    let names = sides.map(|side| Box::<str>::from(owner.to[side].0.value.as_str()));
    if weights[0] == 0 {
        let message = format!("{} has the weight 0 in `to`: nothing is left to shift", names[0]);
        let help = format!(
            "if the release is done, leave `shift` out; \
             to begin it, write `to: {{{}: 100, {}: 0}}`",
            names[0], names[1]
        );
        compiler.fault_with_help(&owner.to[sides[0]].0.origin, message, help);
        return None;
    }
    let first = weights[1] * u64::from(Chance::PARTS) / (weights[0] + weights[1]);
    let start = value.start;
    let plan = ShiftPlan { first: first as u32, step, every, start, abort_if };
    let id = id(compiler, owner, &names, &plan);
    let shift = Arc::new(Shift {
        host: owner.host.into(),
        rule: owner.rule.into(),
        place: compiler.model.files.line_of(&written.origin).into(),
        destinations: sides.map(|side| owner.destinations[side]),
        names,
        state: compiler.registry.shift(&id, plan),
    });
    compiler.shifts.push(Arc::clone(&shift));
    Some(shift)
}

/// The indices of the old and the new destination.
fn sides(
    compiler: &mut Compiler<'_>,
    services: &[Arc<Service>],
    owner: &Owner<'_>,
    value: &model::Shift,
) -> Option<[usize; 2]> {
    if let [(only, _)] = owner.to
        && !only.value.contains('/')
        && let (Some(from), Some(to)) = (&value.from, &value.to)
    {
        let message = format!("`to: {}` has no versions to shift between", only.value);
        let full = |version: &str| match version.contains('/') {
            true => version.to_owned(),
            false => format!("{}/{version}", only.value),
        };
        let (from, to) = (full(&from.value), full(&to.value));
        let help = format!("write `to: {{{from}: 100, {to}: 0}}`");
        compiler.fault_with_help(&only.origin, message, help);
        return None;
    }
    let mut named = |version: &Option<Item<String>>| {
        version.as_ref().map(|version| self::version(compiler, services, owner, version))
    };
    let (from, to) = (named(&value.from)?, named(&value.to)?);
    let sides = [from?, to?];
    if sides[0] == sides[1] {
        let to = value.to.as_ref()?;
        let message = format!("{:?} is the version that `from` names, too", to.value);
        compiler.fault_with_help(&to.origin, message, "name the new version in `to`");
        return None;
    }
    Some(sides)
}

/// The key under which the state of a shift is kept. A rule without a name of its own has a number,
/// which says nothing about the plan.
fn id(
    compiler: &Compiler<'_>,
    owner: &Owner<'_>,
    names: &[Box<str>; 2],
    plan: &ShiftPlan,
) -> String {
    let rule = if owner.is_named { owner.rule } else { "" };
    let mut id = format!("{} {rule} from {} to {}: {plan}", owner.host, names[0], names[1]);
    let alike = |shift: &&Arc<Shift>| shift.state.id.starts_with(&id);
    let nth = compiler.shifts.iter().filter(alike).count();
    if nth > 0 {
        // Writing to a String does not fail.
        write!(id, " ({})", nth + 1).ok();
    }
    id
}

/// The index of the destination that `from` or `to` of a shift names.
fn version(
    compiler: &mut Compiler<'_>,
    services: &[Arc<Service>],
    owner: &Owner<'_>,
    written: &Item<String>,
) -> Option<usize> {
    let text = written.value.as_str();
    let names: Vec<&str> = owner.to.iter().map(|(name, _)| name.value.as_str()).collect();
    if let Some(index) = names.iter().position(|name| *name == text) {
        return Some(index);
    }
    let is_it = |name: &str| name.split_once('/').is_some_and(|(_, version)| version == text);
    let mut found = (0..).zip(&names).filter(|(_, name)| is_it(name));
    match (found.next(), found.next()) {
        (None, _) => {}
        (Some((index, _)), None) => return Some(index),
        (Some((_, one)), Some((_, other))) => {
            let message = format!("{text:?} may be {one} or {other}");
            compiler.fault_with_help(&written.origin, message, format!("write {one} or {other}"));
            return None;
        }
    }
    let is_service = services.iter().any(|service| *service.name == *text);
    let full = match names.first().and_then(|name| name.split('/').next()) {
        Some(service) if !is_service && !text.contains('/') => format!("{service}/{text}"),
        _ => text.to_owned(),
    };
    // A version that does not exist has its own message.
    compiler.destination(services, &Item::new(full.clone(), written.origin.clone()))?;
    let message = format!("{text:?} is no destination in `to` of this rule");
    // A destination alone has no weight of its own.
    let is_alone = owner.to.len() == 1;
    let weights = owner
        .to
        .iter()
        .map(|(name, weight)| format!("{}: {}", name.value, if is_alone { 100 } else { *weight }));
    let all: Vec<String> = weights.chain([format!("{full}: 0")]).collect();
    let help = format!("write `to: {{{}}}`", all.join(", "));
    compiler.fault_with_help(&written.origin, message, help);
    None
}

/// Reports keys that are missing. The advice has the destinations of the rule.
fn is_complete(
    compiler: &mut Compiler<'_>,
    owner: &Owner<'_>,
    written: &Item<model::Shift>,
) -> bool {
    let model::Shift { from, to, step, every, .. } = &written.value;
    let of_rule = |nth: usize, placeholder: &str| {
        owner.to.get(nth).map_or_else(|| placeholder.to_owned(), |(name, _)| name.value.clone())
    };
    let keys = [
        ("from", from.is_some(), of_rule(0, "VERSION")),
        ("to", to.is_some(), of_rule(1, "VERSION")),
        ("step", step.is_some(), "N%".to_owned()),
        ("every", every.is_some(), "TIME".to_owned()),
    ];
    let missing: Vec<_> = keys.iter().filter(|(_, there, _)| !there).collect();
    if !missing.is_empty() {
        let names: Vec<_> = missing.iter().map(|(key, ..)| *key).collect();
        let values: Vec<_> = missing.iter().map(|(key, _, it)| format!("{key}: {it}")).collect();
        let message = format!("this shift has no `{}`", names.join("` and no `"));
        compiler.missing(&written.origin, &message, &format!("add `{}`", values.join(", ")));
    }
    missing.is_empty()
}

/// The step, and the time between two steps.
fn timing(compiler: &mut Compiler<'_>, value: &model::Shift) -> Option<(u32, Duration)> {
    let model::Shift { step, every, .. } = value;
    if let Some(step) = step.as_ref().filter(|step| step.value == 0) {
        let message = "a step of 0% never reaches the end";
        compiler.fault_with_help(&step.origin, message, "write `step: N%`, with N from 1 to 100");
    }
    if let Some(every) = every.as_ref().filter(|every| every.value < SHIFT_EVERY_MIN) {
        let message = format!("{:?} is too short to see anything of a step", every.value);
        let help = format!("write {SHIFT_EVERY_MIN:?} or longer, such as some minutes");
        compiler.fault_with_help(&every.origin, message, help);
    }
    let step = step.as_ref().map(|step| step.value).filter(|step| *step > 0)?;
    let every = every.as_ref().map(|every| every.value);
    Some((step, every.filter(|every| *every >= SHIFT_EVERY_MIN)?))
}

fn abort_if(compiler: &mut Compiler<'_>, written: &Item<model::AbortIf>) -> AbortIf {
    let model::AbortIf { error_rate, p99, min_requests } = &written.value;
    if error_rate.is_none() && p99.is_none() {
        let help = "add `error_rate: N%` or `p99: TIME`";
        compiler.missing(&written.origin, "`abort_if` has no limit", help);
    }
    if let Some(rate) = error_rate.as_ref().filter(|rate| rate.value >= Chance::PARTS) {
        let message = "no version has more than 100% of errors, so this is no limit";
        compiler.fault_with_help(&rate.origin, message, "write `error_rate: N%`, with N below 100");
    }
    if let Some(least) = min_requests.as_ref().filter(|least| least.value == 0) {
        let help = format!("write `min_requests: {SHIFT_MIN_REQUESTS}`, or 1");
        compiler.fault_with_help(&least.origin, "a step without requests shows nothing", help);
    }
    AbortIf {
        error_rate: error_rate.as_ref().map(|rate| rate.value),
        p99: p99.as_ref().map(|p99| p99.value),
        min_requests: min_requests.as_ref().map_or(SHIFT_MIN_REQUESTS, |it| it.value.into()),
    }
}
