//! Maps that are wrong as a whole: their entries have no names, or they are destinations in the
//! form of another proxy.

use super::super::diagnostic::Place;
use super::super::node::{Key, Kind, Node};
use super::{entries_of, flow, own_entry, targets};

/// A map that is wrong as a whole, and the advice for it.
type Whole = Option<(Place, String)>;

/// Whether the entries of a map fit.
type Fits<'a> = dyn Fn(&[(Key, Node)]) -> bool + 'a;

/// The map with the key at `place`, if it has only keys of one entry, `fields`. Then the name of
/// the entry is missing. A key without a value may be that name.
pub(in super::super) fn nameless(root: &Node, place: Place, fields: &[&str]) -> Whole {
    let is = |entries: &[(Key, Node)]| entries.iter().any(|(key, _)| key.place == place);
    let (section, map) = find(root, &is)?;
    let is_field =
        |(key, node): &(Key, Node)| fields.contains(&key.text.as_str()) && node.kind != Kind::Null;
    if !entries_of(map).iter().all(is_field) {
        return None;
    }
    let entry = flow::pairs(entries_of(map).iter()).unwrap_or_else(|| "...".to_owned());
    let advice = match section {
        "routes" => format!("write `routes: {{\"*\": [{{{entry}}}]}}`: rules by host"),
        _ => format!("write `{section}: {{NAME: {{{entry}}}}}`: each entry has a name"),
    };
    Some((map.place, advice))
}

/// The map with the value at `place`, if it is a destination such as `{name: app, weight: 10}`.
pub(in super::super) fn destination(root: &Node, place: Place) -> Whole {
    let is = |entries: &[(Key, Node)]| entries.iter().any(|(_, value)| value.place == place);
    let (section, map) = find(root, &is)?;
    let keys = entries_of(map).iter().map(|(key, _)| key.text.as_str());
    if section != "to" || !keys.clone().any(|key| targets::TARGETS.contains(&key)) {
        return None;
    }
    let to = targets::destination(map)?;
    let weight = own_entry(map, "weight").map(|weight| weight.text().trim_end_matches('%'));
    let advice = match weight.filter(|weight| weight.parse::<u32>().is_ok()) {
        Some(weight) => format!("write `to: {{{to}: {weight}}}`, or `to: {to}` for all requests"),
        None if keys.clone().any(|key| key == "port") => {
            format!("write `to: {to}`; the port is in `endpoints` of the service")
        }
        None => format!("write `to: {to}`"),
    };
    Some((map.place, advice))
}

/// The first map below `node` whose entries fit, and its key.
fn find<'n>(node: &'n Node, fits: &Fits<'_>) -> Option<(&'n str, &'n Node)> {
    match &node.kind {
        Kind::Null | Kind::Scalar { .. } => None,
        Kind::List(items) => items.iter().find_map(|item| find(item, fits)),
        Kind::Map(entries) => entries.iter().find_map(|(key, value)| {
            if fits(entries_of(value)) {
                return Some((key.text.as_str(), value));
            }
            find(value, fits)
        }),
    }
}
