//! The policy route that delivers marked packets to this host, whatever their destination is. This
//! module makes the arguments for `ip`.

use super::plan::{DIVERT_MARK, ROUTING_TABLE};

/// The `protocol` of our rules and routes in `ip`. It distinguishes them from those of other
/// programs.
const PROTOCOL: &str = "133";

/// The priority of our policy rule. It is before the values that other programs normally use.
const PREFERENCE: &str = "133";

/// The arguments for `ip` that add the rule and the route, for one family. A command fails with
/// "File exists" if its object already exists.
pub fn add() -> [Vec<String>; 2] {
    let rule = format!(
        "rule add pref {PREFERENCE} fwmark {DIVERT_MARK} lookup {ROUTING_TABLE} protocol {PROTOCOL}"
    );
    let route = format!("route add local default dev lo table {ROUTING_TABLE} proto {PROTOCOL}");
    [words(&rule), words(&route)]
}

/// The arguments for `ip` that remove the rule and the route, for one family.
pub fn remove() -> [Vec<String>; 2] {
    let route = format!("route flush table {ROUTING_TABLE} proto {PROTOCOL}");
    [words(&format!("rule flush protocol {PROTOCOL}")), words(&route)]
}

/// The arguments for `ip` that list the rules and the routes, for one family.
pub fn list() -> [Vec<String>; 2] {
    let route = format!("route show table {ROUTING_TABLE}");
    [words("rule show"), words(&route)]
}

/// The lines in the output of [`list`] that belong to Ringway.
pub fn ours(listing: &str) -> impl Iterator<Item = &str> {
    let tag = format!(" proto {PROTOCOL}");
    listing.lines().map(str::trim).filter(move |line| {
        let after = line.split_once(&tag).map(|(_, after)| after);
        after.is_some_and(|after| after.is_empty() || after.starts_with(' '))
    })
}

/// The lines in the output of [`list`] that use our mark or routing table, but belong to another
/// program.
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
