//! All authorization rules, in the order of evaluation.

use rustc_hash::FxHashMap;

use super::decision::{Decision, Verdict};
use super::facts::Facts;
use super::mismatch::Mismatch;
use super::{Action, Peer, Rule, Target};
use crate::matching::Pattern;

/// A rule that was evaluated, and its first condition that does not match. `None` means that the
/// rule matches.
pub type Looked<'p> = (&'p Rule, Option<Mismatch<'p>>);

/// The compiled rules of `authorization:`. Without rules, every request is allowed.
#[derive(Debug, Default)]
pub struct Policies {
    deny: Group,
    allow: Group,
    /// The rules that only report: audit and dry-run rules.
    pub(super) watched: Group,
}

impl Policies {
    /// Sorts the rules by kind. The input has the order of the file.
    pub fn new(rules: Vec<Rule>) -> Self {
        let (mut deny, mut allow, mut watched) = (Vec::new(), Vec::new(), Vec::new());
        for rule in rules {
            match rule.action {
                Action::Deny if !rule.dry_run => deny.push(rule),
                Action::Allow if !rule.dry_run => allow.push(rule),
                Action::Allow | Action::Deny | Action::Audit => watched.push(rule),
            }
        }
        Self { deny: Group::new(deny), allow: Group::new(allow), watched: Group::new(watched) }
    }

    /// Whether there are no rules, so that no request needs a check.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.groups().iter().all(|group| group.rules.is_empty())
    }

    /// All rules: first deny, then allow, then reporting rules.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.groups().into_iter().flat_map(|group| &group.rules)
    }

    fn groups(&self) -> [&Group; 3] {
        [&self.deny, &self.allow, &self.watched]
    }

    /// Decides whether `peer` may make a request to `target`. Deny rules come first, then allow
    /// rules. If no allow rule applies to the target's service, all other requests are allowed.
    pub fn decide<'p, 'r>(&'p self, peer: &Peer<'r>, target: &Target<'r>) -> Decision<'p, 'r> {
        if self.is_empty() {
            return Decision::new(Verdict::Unconcerned, None);
        }
        let facts = Facts::new(peer, target);
        let verdict = self.verdict(&facts);
        let watched = (!self.watched.rules.is_empty()).then_some((self, facts));
        Decision::new(verdict, watched)
    }

    /// Returns the rules that [`Policies::decide`] evaluates for its verdict, in the same order,
    /// each with its first condition that does not match. If the last rule decides, it has no such
    /// condition.
    pub fn explain<'p>(&'p self, peer: &Peer<'_>, target: &Target<'_>) -> Vec<Looked<'p>> {
        let facts = Facts::new(peer, target);
        let evaluated = self.deny.about(facts.service).chain(self.allow.about(facts.service));
        let mut looked = Vec::new();
        for rule in evaluated.filter(|rule| rule.concerns(&facts)) {
            let mismatch = rule.check(&facts).err();
            looked.push((rule, mismatch));
            if mismatch.is_none() {
                break;
            }
        }
        looked
    }

    fn verdict<'p>(&'p self, facts: &Facts<'_>) -> Verdict<'p> {
        if let Some(rule) = self.deny.about(facts.service).find(|rule| rule.matches(facts)) {
            return Verdict::Denied(rule);
        }
        let mut first = None;
        for rule in self.allow.about(facts.service).filter(|rule| rule.concerns(facts)) {
            if rule.matches(facts) {
                return Verdict::Allowed(rule);
            }
            first = first.or(Some(rule));
        }
        first.map_or(Verdict::Unconcerned, Verdict::DeniedByDefault)
    }
}

/// Rules of one kind, indexed by service, so that a request does not evaluate the rules of other
/// services.
#[derive(Debug, Default)]
pub(super) struct Group {
    rules: Vec<Rule>,
    by_service: FxHashMap<Box<str>, Vec<u32>>,
    /// The rules that apply to a service that no rule names.
    others: Vec<u32>,
}

impl Group {
    fn new(rules: Vec<Rule>) -> Self {
        let mut by_service: FxHashMap<Box<str>, Vec<u32>> = FxHashMap::default();
        let mut others = Vec::new();
        let mut named = Vec::new();
        for (index, rule) in (0..).zip(&rules) {
            match named_services(rule) {
                Some(services) => named.extend(services.into_iter().map(|name| (name, index))),
                None => others.push(index),
            }
        }
        for (name, index) in named {
            by_service.entry(name.into()).or_insert_with(|| others.clone()).push(index);
        }
        for indices in by_service.values_mut() {
            indices.sort_unstable();
            indices.dedup();
        }
        Self { rules, by_service, others }
    }

    /// Returns every rule that applies to `service`, in the order of the file. The result may
    /// include rules that do not apply.
    pub(super) fn about(&self, service: &str) -> impl Iterator<Item = &Rule> {
        let indices = self.by_service.get(service).unwrap_or(&self.others);
        indices.iter().map(|&index| &self.rules[index as usize])
    }
}

/// Returns the services that the rule names. `None` if it names no service or uses patterns.
fn named_services(rule: &Rule) -> Option<Vec<&str>> {
    let mut names = Vec::new();
    if rule.to.is_empty() {
        return None;
    }
    for operation in &rule.to {
        if operation.services.is_empty() {
            return None;
        }
        for pattern in &operation.services {
            let Pattern::Exact(name) = pattern else { return None };
            names.push(&**name);
        }
    }
    Some(names)
}
