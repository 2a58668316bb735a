//! What the rules say of a request.

use super::facts::Facts;
use super::policies::Policies;
use super::{Action, Rule};

/// Whether a request may pass, and by which rule.
#[derive(Clone, Copy, Debug)]
pub enum Verdict<'p> {
    /// It may: no rule that decides is about it.
    Unconcerned,
    /// It may: this rule allows it.
    Allowed(&'p Rule),
    /// It may not: this rule denies it.
    Denied(&'p Rule),
    /// It may not: there are allow rules for its service, of which this is the first, and none of
    /// them matches.
    DeniedByDefault(&'p Rule),
}

impl<'p> Verdict<'p> {
    /// Whether the request may pass.
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Unconcerned | Self::Allowed(_))
    }

    /// The rule that it rests on.
    pub fn rule(&self) -> Option<&'p Rule> {
        match self {
            Self::Unconcerned => None,
            Self::Allowed(rule) | Self::Denied(rule) | Self::DeniedByDefault(rule) => Some(rule),
        }
    }
}

/// As an operator reads it: `denied by only-frontend (mesh.yaml:12)`.
impl std::fmt::Display for Verdict<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unconcerned => f.write_str("no rule concerns it"),
            Self::Allowed(Rule { name, place, .. }) => write!(f, "allowed by {name} ({place})"),
            Self::Denied(Rule { name, place, .. }) => write!(f, "denied by {name} ({place})"),
            Self::DeniedByDefault(Rule { name, place, .. }) => {
                write!(f, "denied: no allow rule matches ({name} ({place}) looked at)")
            }
        }
    }
}

/// What a rule that does not decide has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// An audit rule matches.
    Audited,
    /// An allow rule on trial matches.
    WouldAllow,
    /// A deny rule on trial matches; or an allow rule on trial does not, and would be the reason
    /// why a request that may pass is denied by default.
    WouldDeny,
}

/// A rule that does not decide, and what it has to say.
#[derive(Clone, Copy, Debug)]
pub struct Report<'p> {
    /// The rule.
    pub rule: &'p Rule,
    /// What it has to say.
    pub outcome: Outcome,
}

/// As an operator reads it: `would be denied by only-frontend (mesh.yaml:12)`.
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

/// What all rules together say of one request.
pub struct Decision<'p, 'r> {
    /// Whether it may pass.
    pub verdict: Verdict<'p>,
    watched: Option<(&'p Policies, Facts<'r>)>,
}

impl<'p, 'r> Decision<'p, 'r> {
    pub(super) fn new(verdict: Verdict<'p>, watched: Option<(&'p Policies, Facts<'r>)>) -> Self {
        Self { verdict, watched }
    }

    /// The rules that do not decide and have something to say: audit rules and those on trial
    /// (`dry_run`), in the order of the file.
    pub fn reports(&self) -> impl Iterator<Item = Report<'p>> {
        let unconcerned = matches!(self.verdict, Verdict::Unconcerned);
        self.watched.iter().flat_map(move |(policies, facts)| {
            let watched = || policies.watched.about(facts.service);
            // One allow rule on trial that matches is enough for all of them.
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
                rule.concerns(facts.service).then_some(Report { rule, outcome })
            })
        })
    }

    /// Counts it with the rules it names, in the cells of this worker.
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
