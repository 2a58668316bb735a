//! All rules, in the order in which they are asked.

use rustc_hash::FxHashMap;

use super::decision::{Decision, Verdict};
use super::facts::Facts;
use super::{Action, Peer, Rule, Target};
use crate::matching::Pattern;

/// The compiled rules of `authorization:`. Without any, everything may pass.
#[derive(Debug, Default)]
pub struct Policies {
    deny: Group,
    allow: Group,
    /// Those that do not decide: audit, and on trial.
    pub(super) watched: Group,
}

impl Policies {
    /// Sorts the rules, which come in the order of the file.
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

    /// True when there is no rule: nothing needs to be found out about a peer then.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.groups().iter().all(|group| group.rules.is_empty())
    }

    /// All rules: those that deny, those that allow, those that only report.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.groups().into_iter().flat_map(|group| &group.rules)
    }

    fn groups(&self) -> [&Group; 3] {
        [&self.deny, &self.allow, &self.watched]
    }

    /// Whether `peer` may ask this of `target`. Deny rules come first, then allow rules; where no
    /// allow rule is about the target's service, everything else is allowed.
    pub fn decide<'p, 'r>(&'p self, peer: &Peer<'r>, target: &Target<'r>) -> Decision<'p, 'r> {
        if self.is_empty() {
            return Decision::new(Verdict::Unconcerned, None);
        }
        let facts = Facts::new(peer, target);
        let verdict = self.verdict(&facts);
        let watched = (!self.watched.rules.is_empty()).then_some((self, facts));
        Decision::new(verdict, watched)
    }

    fn verdict<'p>(&'p self, facts: &Facts<'_>) -> Verdict<'p> {
        if let Some(rule) = self.deny.about(facts.service).find(|rule| rule.matches(facts)) {
            return Verdict::Denied(rule);
        }
        let mut first = None;
        for rule in self.allow.about(facts.service).filter(|rule| rule.concerns(facts.service)) {
            if rule.matches(facts) {
                return Verdict::Allowed(rule);
            }
            first = first.or(Some(rule));
        }
        first.map_or(Verdict::Unconcerned, Verdict::DeniedByDefault)
    }
}

/// Rules of one kind, indexed by the services that they name, so that the rules of a thousand
/// services do not cost a request to one of them.
#[derive(Debug, Default)]
pub(super) struct Group {
    rules: Vec<Rule>,
    by_service: FxHashMap<Box<str>, Vec<u32>>,
    /// The rules about services that no rule names.
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

    /// Every rule about `service`, in the order of the file, and perhaps some that are not.
    pub(super) fn about(&self, service: &str) -> impl Iterator<Item = &Rule> {
        let indices = self.by_service.get(service).unwrap_or(&self.others);
        indices.iter().map(|&index| &self.rules[index as usize])
    }
}

/// The services that the rule is about; `None` when it does not name them one by one.
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
