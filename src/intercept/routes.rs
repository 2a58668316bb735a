//! The policy route that delivers marked packets on this host, whatever their destination: what
//! `ip` is given.

use super::plan::{DIVERT_MARK, ROUTING_TABLE};

/// Who made a rule or a route: `protocol` in `ip`. The number is ours, so that what others made
/// is never taken for it.
const PROTOCOL: &str = "133";

/// The place among the policy rules: before all that others use to have.
const PREFERENCE: &str = "133";

/// What `ip` is given in each family to have the route; each command fails with "File exists" when
/// it is there already.
pub fn add() -> [Vec<String>; 2] {
    let rule = format!(
        "rule add pref {PREFERENCE} fwmark {DIVERT_MARK} lookup {ROUTING_TABLE} protocol {PROTOCOL}"
    );
    let route = format!("route add local default dev lo table {ROUTING_TABLE} proto {PROTOCOL}");
    [words(&rule), words(&route)]
}

/// What `ip` is given in each family to remove it, whether it is there or not.
pub fn remove() -> [Vec<String>; 2] {
    let route = format!("route flush table {ROUTING_TABLE} proto {PROTOCOL}");
    [words(&format!("rule flush protocol {PROTOCOL}")), words(&route)]
}

/// What `ip` is given in each family to print it.
pub fn list() -> [Vec<String>; 2] {
    let route = format!("route show table {ROUTING_TABLE}");
    [words("rule show"), words(&route)]
}

/// Lines of [`list`] that are ours.
pub fn ours(listing: &str) -> impl Iterator<Item = &str> {
    let tag = format!(" proto {PROTOCOL}");
    listing.lines().map(str::trim).filter(move |line| {
        let after = line.split_once(&tag).map(|(_, after)| after);
        after.is_some_and(|after| after.is_empty() || after.starts_with(' '))
    })
}

/// Lines of [`list`] that use our mark or our table and are not ours.
pub fn foreign(rules: &str, routes: &str) -> Vec<String> {
    let mark = format!("fwmark {DIVERT_MARK:#x} ");
    let table = format!("lookup {ROUTING_TABLE}");
    let uses = |line: &str| line.contains(&mark) || line.trim_end().ends_with(&table);
    let rules = rules.lines().filter(|line| uses(line)).chain(routes.lines());
    let ours = |line: &str| ours(line).next().is_some();
    rules.filter(|line| !ours(line)).map(|line| line.trim().to_owned()).collect()
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}
