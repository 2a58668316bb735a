//! The order of rules: the more specific one comes first, then that of the older route.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::matching::PathMatch;
use crate::model::{Item, Match, Routes, Rule};

/// A rule with its place and its rank.
pub(super) struct Ranked {
    /// The scope of the gateway. `None` means the mesh.
    pub(super) scope: Option<String>,
    pub(super) host: Item<String>,
    pub(super) aliases: Vec<Item<String>>,
    pub(super) rule: Item<Rule>,
    pub(super) rank: Rank,
}

/// The precedence of a rule: the lowest one is first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    path: (u8, Reverse<usize>),
    without_method: bool,
    headers: Reverse<usize>,
    query: Reverse<usize>,
    /// Routes without a time come last.
    without_time: bool,
    created: String,
    name: String,
    numbers: (usize, usize),
}

impl Rank {
    /// The rank of a rule with these conditions. `route` is the time and the name of its route, and
    /// `numbers` are those of the rule and of its conditions.
    pub(super) fn new(matches: &Match, route: (&str, String), numbers: (usize, usize)) -> Self {
        let path = match matches.path.as_ref().map(|path| &path.value) {
            Some(PathMatch::Exact(path)) => (0, Reverse(path.len())),
            Some(PathMatch::Regex(regex)) => (1, Reverse(regex.as_str().len())),
            Some(PathMatch::Prefix(path) | PathMatch::Starts(path)) => (2, Reverse(path.len())),
            _ => (3, Reverse(0)),
        };
        Self {
            path,
            without_method: matches.methods.is_empty(),
            headers: Reverse(matches.headers.len()),
            query: Reverse(matches.query.len()),
            without_time: route.0.is_empty(),
            created: route.0.to_owned(),
            name: route.1,
            numbers,
        }
    }
}

/// Groups the rules by gateway and host, and orders them.
pub(super) fn routes(rules: Vec<Ranked>) -> Vec<Item<Routes>> {
    let mut groups: BTreeMap<(Option<String>, String), Vec<Ranked>> = BTreeMap::new();
    for ranked in rules {
        let key = (ranked.scope.clone(), ranked.host.value.clone());
        groups.entry(key).or_default().push(ranked);
    }
    let mut all = Vec::new();
    for ((scope, _), mut group) in groups {
        group.sort_by(|one, other| one.rank.cmp(&other.rank));
        let Some(first) = group.first() else { continue };
        let (host, aliases) = (first.host.clone(), first.aliases.clone());
        let origin = host.origin.clone();
        let routes = Routes {
            host,
            aliases,
            scope: scope.map(Into::into),
            tolerant: true,
            rules: group.into_iter().map(|ranked| ranked.rule).collect(),
        };
        all.push(Item::new(routes, origin));
    }
    all
}
