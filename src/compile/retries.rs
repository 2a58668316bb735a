//! Compiles retry policies.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::suggestion::value_suggestion;
use super::{Compiler, methods};
use crate::cluster::{Destination, Service};
use crate::model::{self, Action, Item, Model};
use crate::resilience::{
    ATTEMPTS, AttemptCount, BACKOFF_BASE, BACKOFF_MAX_FACTOR, BUDGET_MIN, BUDGET_PERCENT,
    Condition, HedgeAfter, REPLAY_BYTES, RetryPolicy,
};
use crate::route::Split;

/// The names of the services to which a rule with a retry policy forwards requests.
pub(super) fn retried(model: &Model) -> HashSet<&str> {
    let rules = model.routes.iter().flat_map(|routes| &routes.value.rules);
    let retried = rules.filter(|rule| rule.value.retries.is_some());
    let destinations = retried.filter_map(|rule| match &rule.value.action {
        Some(Action::Forward(to)) => Some(to),
        _ => None,
    });
    let names = destinations.flatten().map(|(to, _)| to.value.split('/').next());
    names.flatten().collect()
}

/// The time limit for all attempts of a request together.
#[derive(Clone, Copy, Default)]
pub(super) struct Total {
    timeout: Option<Duration>,
    /// The place of the limit, if it is not beside the policy.
    place: &'static str,
}

impl Total {
    /// The `timeout` beside the policy.
    pub(super) fn own(timeout: Option<Duration>) -> Self {
        Self { timeout, place: "" }
    }

    /// The `timeout` of a rule, or else the longest one of its services, if each has one.
    pub(super) fn of_rule(
        own: Option<Duration>,
        services: &[Arc<Service>],
        split: Option<&Split>,
    ) -> Self {
        if own.is_some() {
            return Self::own(own);
        }
        let destinations = split.iter().flat_map(|split| split.destinations());
        let of_service = |to: Destination| services.get(to.service as usize)?.timeout;
        let all: Option<Vec<Duration>> = destinations.map(of_service).collect();
        Self { timeout: all.and_then(|all| all.into_iter().max()), place: " in the service" }
    }
}

/// Compiles a retry policy.
pub(super) fn policy(
    compiler: &mut Compiler<'_>,
    written: &Item<model::Retries>,
    Total { timeout, place }: Total,
) -> Arc<RetryPolicy> {
    let value = &written.value;
    let backoff_base = value.backoff_base.as_ref().map_or(BACKOFF_BASE, |base| base.value);
    let longest = backoff_base.saturating_mul(BACKOFF_MAX_FACTOR);
    let backoff_max = value.backoff_max.as_ref().map_or(longest, |max| max.value);
    if let Some(max) = value.backoff_max.as_ref().filter(|max| max.value < backoff_base) {
        let message = format!("the longest wait is shorter than the first one, {backoff_base:?}");
        let help = format!("write {backoff_base:?} or longer, or a shorter `base`");
        compiler.fault_with_help(&max.origin, message, help);
    }
    if let (Some(per_try), Some(timeout)) = (&value.per_try_timeout, timeout)
        && per_try.value >= timeout
    {
        let message = format!(
            "{:?} is not shorter than `timeout` of all attempts together, {timeout:?}{place}",
            per_try.value
        );
        let help = "write a shorter per_try_timeout, or a longer timeout";
        compiler.fault_with_help(&per_try.origin, message, help);
    }
    empty_budget(compiler, value);
    let per_try = value.per_try_timeout.as_ref().map(|time| time.value);
    Arc::new(RetryPolicy {
        attempts: value.attempts.unwrap_or(ATTEMPTS),
        on: conditions(compiler, value),
        per_try_timeout: value.per_try_timeout.as_ref().map(|time| time.value),
        backoff_base,
        backoff_max,
        budget_percent: value
            .budget_percent
            .as_ref()
            .map_or(BUDGET_PERCENT, |percent| percent.value.into()),
        budget_min: value.budget_min.unwrap_or(BUDGET_MIN),
        methods: (!value.methods.is_empty()).then(|| methods(compiler, &value.methods)),
        replay_bytes: value.replay_bytes.unwrap_or(REPLAY_BYTES),
        attempt_count: AttemptCount {
            in_request: value.attempt_count_in_request,
            in_response: value.attempt_count_in_response,
        },
        hedge: hedge(compiler, value, [("per_try_timeout", per_try), ("timeout", timeout)]),
    })
}

/// Hedging must begin before the time limits of the request end it.
fn hedge(
    compiler: &mut Compiler<'_>,
    written: &model::Retries,
    limits: [(&str, Option<Duration>); 2],
) -> Option<HedgeAfter> {
    let after = written.hedge_after.as_ref()?;
    let time = match after.value {
        model::HedgeAfter::Percentile(tenths) => return Some(HedgeAfter::Percentile(tenths)),
        model::HedgeAfter::Time(time) => time,
    };
    let reached = limits.into_iter().find_map(|(name, limit)| Some((name, limit?)));
    if let Some((name, limit)) = reached.filter(|(_, limit)| time >= *limit) {
        let message = format!("no request is hedged after {time:?}: its `{name}` is {limit:?}");
        let help = format!("write a time shorter than {limit:?}, or a percentile such as p95");
        compiler.fault_with_help(&after.origin, message, help);
    }
    Some(HedgeAfter::Time(time))
}

/// Reports a retry budget of 0 %: `budget_min` still allows retries, so it must be written.
fn empty_budget(compiler: &mut Compiler<'_>, written: &model::Retries) {
    let Some(percent) = written.budget_percent.as_ref().filter(|it| it.value == 0) else { return };
    let (message, help) = match written.budget_min {
        None => (
            format!("a budget of 0% leaves `min`, and that is {BUDGET_MIN} by default"),
            format!(
                "write `min: {BUDGET_MIN}`, too, if that is meant; \
                 `retries: {{attempts: 0}}` for no retries"
            ),
        ),
        Some(0) => (
            "a budget of 0% with `min: 0` allows no retry".to_owned(),
            "write `retries: {attempts: 0}` for no retries".to_owned(),
        ),
        Some(_) => return,
    };
    compiler.fault_with_help(&percent.origin, message, help);
}

/// Checks the name of a condition for retries.
///
/// # Errors
/// A sentence about the mistake.
pub fn check_condition(name: &str) -> Result<(), String> {
    match Condition::parse(name) {
        Some(_) => Ok(()),
        None => Err(format!("{name:?} is no condition for a retry")),
    }
}

fn conditions(compiler: &mut Compiler<'_>, written: &model::Retries) -> Vec<Condition> {
    let Some(written) = &written.on else {
        return vec![Condition::ConnectFailure, Condition::RefusedStream];
    };
    let mut conditions = Vec::new();
    for item in written {
        match Condition::parse(&item.value) {
            Some(condition) => conditions.push(condition),
            None => {
                let names: Vec<_> = Condition::names().collect();
                let mut help = value_suggestion(&item.value, &names);
                if help.starts_with("expected one of") {
                    help.push_str(", or a status from 400 to 599");
                }
                let message = format!("{:?} is no condition for a retry", item.value);
                compiler.fault_with_help(&item.origin, message, help);
            }
        }
    }
    conditions
}
