//! The result of the rules for a request.

use super::facts::Facts;
use super::policies::Policies;
use super::{Action, Rule};

/// Whether a request is allowed, and the rule that decides.
#[derive(Clone, Copy, Debug)]
pub enum Verdict<'p> {
    /// Allowed: no deny rule matches, and no allow rule applies to the service.
    Unconcerned,
    /// Allowed by this rule.
    Allowed(&'p Rule),
    /// Denied by this rule.
    Denied(&'p Rule),
    /// Denied: the service has allow rules, and no allow rule matches. This is the first allow
    /// rule.
    DeniedByDefault(&'p Rule),
}

impl<'p> Verdict<'p> {
    /// Whether the request is allowed.
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Unconcerned | Self::Allowed(_))
    }

    /// The rule that decides. `None` if no rule applies.
    pub fn rule(&self) -> Option<&'p Rule> {
        match self {
            Self::Unconcerned => None,
            Self::Allowed(rule) | Self::Denied(rule) | Self::DeniedByDefault(rule) => Some(rule),
        }
    }
}

/// Writes a text for operators: `denied by only-frontend (mesh.yaml:12)`.
impl std::fmt::Display for Verdict<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unconcerned => f.write_str("no rule concerns it"),
            Self::Allowed(Rule { name, place, .. }) => write!(f, "allowed by {name} ({place})"),
            Self::Denied(Rule { name, place, .. }) => write!(f, "denied by {name} ({place})"),
            Self::DeniedByDefault(Rule { name, place, .. }) => {
                write!(f, "denied: no allow rule matches ({name} ({place}) is the first)")
            }
        }
    }
}

/// The result of a rule that only reports: an audit or a dry-run rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// An audit rule matches.
    Audited,
    /// A dry-run allow rule matches.
    WouldAllow,
    /// A dry-run deny rule matches, or a dry-run allow rule does not match and would deny the
    /// request by default.
    WouldDeny,
}

/// An audit or dry-run rule, and its result.
#[derive(Clone, Copy, Debug)]
pub struct Report<'p> {
    /// The audit or dry-run rule.
    pub rule: &'p Rule,
    /// The result of the rule.
    pub outcome: Outcome,
}

/// Writes a text for operators: `would be denied by only-frontend (mesh.yaml:12)`.
impl std::fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let outcome = match self.outcome {
            Outcome::Audited => "audited",
            Outcome::WouldAllow => "would be allowed",
            Outcome::WouldDeny => "would be denied",
        };
        write!(f, "{outcome} by {} ({})", self.rule.name, self.rule.place)
    }
}

/// The result of all rules for one request.
pub struct Decision<'p, 'r> {
    /// Whether the request is allowed, and by which rule.
    pub verdict: Verdict<'p>,
    watched: Option<(&'p Policies, Facts<'r>)>,
}

impl<'p, 'r> Decision<'p, 'r> {
    pub(super) fn new(verdict: Verdict<'p>, watched: Option<(&'p Policies, Facts<'r>)>) -> Self {
        Self { verdict, watched }
    }

    /// Returns the results of the audit and dry-run rules, in the order of the file.
    pub fn reports(&self) -> impl Iterator<Item = Report<'p>> {
        let unconcerned = matches!(self.verdict, Verdict::Unconcerned);
        self.watched.iter().flat_map(move |(policies, facts)| {
            let watched = || policies.watched.about(facts.service);
            // If one dry-run allow rule matches, no other allow rule reports a denial.
            let open = unconcerned
                && !watched().any(|rule| rule.action == Action::Allow && rule.matches(facts));
            watched().filter_map(move |rule| {
                let outcome = match (rule.action, rule.matches(facts)) {
                    (Action::Audit, true) => Outcome::Audited,
                    (Action::Deny, true) => Outcome::WouldDeny,
                    (Action::Allow, true) => Outcome::WouldAllow,
                    (Action::Allow, false) if open => Outcome::WouldDeny,
                    _ => return None,
                };
                rule.concerns(facts).then_some(Report { rule, outcome })
            })
        })
    }

    /// Adds the result to the counters of the rules, for this worker.
    pub fn count(&self, worker: usize) {
        let verdict = self.verdict;
        if let Some(rule) = verdict.rule() {
            let cells = rule.stats.worker(worker);
            if verdict.is_allowed() { &cells.allowed } else { &cells.denied }.increment();
        }
        for Report { rule, outcome } in self.reports() {
            let cells = rule.stats.worker(worker);
            match outcome {
                Outcome::Audited => &cells.audited,
                Outcome::WouldAllow => &cells.dry_run_allowed,
                Outcome::WouldDeny => &cells.dry_run_denied,
            }
            .increment();
        }
    }
}
