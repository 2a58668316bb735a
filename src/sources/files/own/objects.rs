//! Parts of objects of Istio and Kubernetes in a file of Ringway, for the advice about them.

use super::super::diagnostic::Diagnostic;
use super::super::node::{Kind, Node};
use super::{entries_of, own_entry, quoted, text};
use crate::compile::habits::{self, Names};

/// Istio's `match` of an override, `{metric: REQUEST_COUNT, mode: CLIENT}`, in the own words.
pub(super) fn metric(node: &Node) -> Option<String> {
    let metric = own_entry(node, "metric").map(|it| it.text().to_lowercase());
    let mode = own_entry(node, "mode").map(|it| it.text().to_lowercase());
    let mode = mode.filter(|mode| mode == "client" || mode == "server");
    let entries = [("metric", metric.filter(|it| it != "all_metrics")), ("mode", mode)];
    let entries: Vec<_> =
        entries.into_iter().filter_map(|(key, it)| Some(format!("{key}: {}", it?))).collect();
    (!entries.is_empty()).then(|| entries.join(", "))
}

/// Istio's `tagOverrides`, as the entries of `tags`.
pub(super) fn tags(node: &Node) -> Option<String> {
    let (mut removed, mut set) = (Vec::new(), Vec::new());
    for (key, change) in entries_of(node) {
        let label = quoted(&key.text)?;
        match own_entry(change, "value") {
            Some(value) => set.push(format!("{label}: {}", text(value)?)),
            None => removed.push(label),
        }
    }
    let removed = (!removed.is_empty()).then(|| format!("remove: [{}]", removed.join(", ")));
    let set = (!set.is_empty()).then(|| format!("set: {{{}}}", set.join(", ")));
    let all: Vec<_> = removed.into_iter().chain(set).collect();
    (!all.is_empty()).then(|| all.join(", "))
}

/// The advice for an empty list of rules. Istio's ALLOW without rules matches nothing, so only
/// other rules allow requests; its DENY without rules denies nothing.
pub(super) fn no_rules(rules: &Node, action: Option<&Node>) -> Option<String> {
    let is_empty = match &rules.kind {
        Kind::Null => true,
        Kind::List(items) => items.is_empty(),
        Kind::Map(_) | Kind::Scalar { .. } => false,
    };
    let allows = action.is_none_or(|action| action.text().eq_ignore_ascii_case("allow"));
    is_empty.then(|| match allows {
        true => "Istio's ALLOW without rules allows only what other rules allow: write \
                 `{action: allow, from: {identities: nobody/none}}`"
            .to_owned(),
        false => "without rules, this has no effect in Istio: take it out".to_owned(),
    })
}

/// Whether a file is an object of Kubernetes, or several.
pub(in super::super) fn is_of_kubernetes(root: &Node) -> bool {
    entries_of(root).iter().any(|(key, _)| key.text == "apiVersion")
}

/// The one mistake of a file that is an object of Kubernetes. `tree` has all other files.
pub(in super::super) fn of_kubernetes(root: &Node, tree: &Node) -> Option<Diagnostic> {
    let (key, version) = entries_of(root).iter().find(|(key, _)| key.text == "apiVersion")?;
    let message = match own_entry(root, "kind").map(Node::text) {
        Some(kind) if !kind.is_empty() => format!("this is an object of Kubernetes: {kind}"),
        _ => "this is an object of Kubernetes".to_owned(),
    };
    let group = version.text().split('/').next()?;
    let kind = own_entry(root, "kind").map_or("", Node::text);
    if let Some(help) = habits::of_kind(kind, group, &[group]) {
        return Some(Diagnostic::at(key.place, message).help(help));
    }
    let source = match group {
        group if group.ends_with("istio.io") => "istio",
        "gateway.networking.k8s.io" => "gateway_api",
        group if group.ends_with("smi-spec.io") => "smi",
        _ => {
            let help = "-c is for files of Ringway: keep this one in a place that -c does not name";
            return Some(Diagnostic::at(key.place, message).help(help));
        }
    };
    let known = own_entry(tree, "sources").and_then(|sources| own_entry(sources, source));
    let help = match known.and_then(|known| own_entry(known, "files")) {
        Some(_) => format!(
            "-c is for files of Ringway: move this one to a place that -c does not name, and \
             `sources.{source}.files` does"
        ),
        None => format!(
            "write `sources: {{{source}: {{files: {source}/*.yaml}}}}` in a file of Ringway, and \
             move this one to {source}/"
        ),
    };
    Some(Diagnostic::at(key.place, message).help(help))
}

/// The advice `write `to: SERVICE/VERSION`...`, with a word on the versions of a service that has
/// none.
pub(super) fn with_version(advice: String, names: &Names) -> String {
    let reference = advice.split_once("to: ").map_or("", |(_, rest)| rest);
    let end = reference.find(|c| ",`}".contains(c)).unwrap_or(0);
    let Some((name, version)) = reference[..end].split_once('/') else { return advice };
    // A service whose addresses are known has no versions.
    let Some((_, keys)) = names.reached.iter().find(|(service, _)| service == name) else {
        return advice;
    };
    let list = keys.strip_prefix("endpoints: ").and_then(|it| it.split_inclusive(']').next());
    let own = if version == "v1" { "v0" } else { "v1" };
    format!(
        "{advice}; {name} has no versions yet: give it `versions: {{{own}: {}, {version}: \
         [IP:PORT]}}`, and send this rule to `{name}/{own}`",
        list.unwrap_or("[IP:PORT]")
    )
}
