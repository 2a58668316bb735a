//! The rules of one host. The first matching rule is found without checking all rules.
//!
//! Rules are indexed by path: one hash table for exact paths, and one for prefixes, with one lookup
//! for each length of prefix. Rules with any other path are checked in order. If several rules
//! match, the first one in the file has priority.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::Rule;
use super::matcher::Mismatch;
use crate::matching::PathMatch;
use crate::message::HeadView;

/// Up to this many rules are checked one by one, because that is faster than the index.
const LINEAR_MAX: usize = 8;

/// The rules of one host, in the order of the file.
#[derive(Debug)]
pub(super) struct Rules {
    list: Vec<Arc<Rule>>,
    exact: FxHashMap<Box<[u8]>, Vec<u32>>,
    prefixes: FxHashMap<Box<[u8]>, Vec<u32>>,
    /// The lengths of all prefixes, in ascending order.
    prefix_lengths: Vec<usize>,
    /// The indices of rules for any path, with a regex, or for letters of any case.
    others: Vec<u32>,
}

impl Rules {
    pub(super) fn new(list: Vec<Arc<Rule>>) -> Self {
        let mut rules = Self {
            exact: FxHashMap::default(),
            prefixes: FxHashMap::default(),
            prefix_lengths: Vec::new(),
            others: Vec::new(),
            list: Vec::new(),
        };
        for (index, rule) in (0..).zip(&list) {
            match &rule.matcher.path {
                PathMatch::Exact(path) => {
                    rules.exact.entry(path.clone()).or_default().push(index);
                }
                PathMatch::Prefix(prefix) => {
                    let without_slash = &prefix[..prefix.len() - 1];
                    rules.exact.entry(without_slash.into()).or_default().push(index);
                    rules.prefixes.entry(prefix.clone()).or_default().push(index);
                    rules.prefix_lengths.push(prefix.len());
                }
                PathMatch::Starts(start) => {
                    rules.prefixes.entry(start.clone()).or_default().push(index);
                    rules.prefix_lengths.push(start.len());
                }
                PathMatch::Any
                | PathMatch::ExactAnyCase(_)
                | PathMatch::StartsAnyCase(_)
                | PathMatch::Regex(_) => rules.others.push(index),
            }
        }
        rules.prefix_lengths.sort_unstable();
        rules.prefix_lengths.dedup();
        rules.list = list;
        rules
    }

    pub(super) fn find(&self, request: HeadView<'_>) -> Option<&Arc<Rule>> {
        if self.list.len() <= LINEAR_MAX {
            return self.list.iter().find(|rule| rule.matcher.check(request).is_ok());
        }
        let path = request.path();
        let mut best = u32::MAX;
        if let Some(candidates) = self.exact.get(path) {
            self.improve(&mut best, candidates, request);
        }
        for &length in self.prefix_lengths.iter().take_while(|&&length| length <= path.len()) {
            if let Some(candidates) = self.prefixes.get(&path[..length]) {
                self.improve(&mut best, candidates, request);
            }
        }
        self.improve(&mut best, &self.others, request);
        self.list.get(best as usize)
    }

    /// Finds the first matching rule of `candidates`, and stores its index in `best` if it is
    /// lower.
    fn improve(&self, best: &mut u32, candidates: &[u32], request: HeadView<'_>) {
        let earlier = candidates.iter().copied().take_while(|index| index < best);
        for index in earlier {
            if self.list[index as usize].matcher.check(request).is_ok() {
                *best = index;
                return;
            }
        }
    }

    /// Returns the rules in order, up to the first one that matches. Each rule before it has the
    /// reason why it does not match.
    pub(super) fn explain(&self, request: HeadView<'_>) -> Vec<(&Arc<Rule>, Option<Mismatch<'_>>)> {
        let mut looked = Vec::new();
        for rule in &self.list {
            let mismatch = rule.matcher.check(request).err();
            looked.push((rule, mismatch));
            if mismatch.is_none() {
                break;
            }
        }
        looked
    }

    pub(super) fn list(&self) -> &[Arc<Rule>] {
        &self.list
    }
}
