//! The values around an unknown key, for its advice: those beside it, and those above it.

use std::cell::RefCell;

use super::super::diagnostic::Place;
use super::super::node::{Key, Kind, Node};
use super::addresses::Addresses;
use super::{
    entries_of, flow, forms, limits, objects, own_entry, quoted, rules, shares, targets, text, urls,
};
use crate::compile::habits::{self, Names};

/// An unknown key and its map.
struct Around<'n> {
    key: &'n Key,
    node: &'n Node,
    /// The entries of its map.
    all: &'n [(Key, Node)],
    /// The maps above, the nearest first: the key below which the search went on, and the entries.
    above: Vec<(&'n Key, &'n [(Key, Node)])>,
    names: &'n Names,
}

/// The advice for the unknown key at `place` below `root`, and the places of the other unknown keys
/// whose values it includes.
pub(in super::super) fn advice(
    advice: &str,
    root: &Node,
    place: Place,
    names: &Names,
) -> (String, Vec<Place>) {
    let mut above = Vec::new();
    let Some((key, node, all)) = find(root, place, &mut above) else {
        return (advice.to_owned(), Vec::new());
    };
    if habits::is_switch(&key.text) && ["false", "off", "no", "0"].contains(&node.text()) {
        return ("leave it out: without it, this is off".to_owned(), Vec::new());
    }
    let around = Around { key, node, all, above, names };
    if let Some(list) = around.cut_list() {
        return (list, Vec::new());
    }
    let others = RefCell::new(Vec::new());
    let value = |name: &str| match around.value(name) {
        Some((value, others_of)) => {
            others.borrow_mut().extend(others_of.iter().map(|key| key.place));
            Some(value)
        }
        None => super::value(node, name),
    };
    let filled = habits::filled(advice, &value);
    let others = others.into_inner();
    let advice = around.in_place_of_another(filled, &others);
    let advice = around.in_place_of_all(advice, &others);
    let advice = around.in_section(advice);
    (objects::with_version(advice, names), others)
}

/// An entry, and all entries of its map.
type Entry<'n> = (&'n Key, &'n Node, &'n [(Key, Node)]);

/// The entry with the key at `place`, and the entries of its map.
fn find<'n>(
    node: &'n Node,
    place: Place,
    above: &mut Vec<(&'n Key, &'n [(Key, Node)])>,
) -> Option<Entry<'n>> {
    match &node.kind {
        Kind::Null | Kind::Scalar { .. } => None,
        Kind::List(items) => items.iter().find_map(|item| find(item, place, above)),
        Kind::Map(entries) => {
            if let Some((key, value)) = entries.iter().find(|(key, _)| key.place == place) {
                return Some((key, value, entries));
            }
            entries.iter().find_map(|(key, value)| {
                let found = find(value, place, above)?;
                above.push((key, entries));
                Some(found)
            })
        }
    }
}

/// Keys of lists, whose values other proxies separate by commas.
const LISTS: [&str; 8] =
    ["on", "retry_on", "method", "methods", "hosts", "ips", "identities", "audiences"];

/// A value for advice, and the other keys that it includes.
type Found<'n> = Option<(String, Vec<&'n Key>)>;

impl<'n> Around<'n> {
    /// The value for the placeholder `name`, and the other keys that it includes.
    fn value(&self, name: &str) -> Found<'n> {
        let alone = |value: Option<String>| Some((value?, Vec::new()));
        match name {
            "@" | "endpoint" | "reach" => {
                let (value, other) = super::address(self.node, name, (self.key, self.all))?;
                Some((value, vec![other]))
            }
            "above" => alone(quoted(&self.above.first()?.0.text)),
            "key" => alone(quoted(&self.key.text)),
            "limits" => limits::of_entries(self.key, self.all),
            "fields" => self.fields(),
            "to" => alone(text(self.beside("to").or_else(|| self.of_rule("to"))?)),
            "weighted" => alone(self.weighted()),
            "oldpath" => alone(self.old_path()),
            "target" => alone(self.target()),
            "hostrules" => alone(self.host_rules()),
            "versions" => alone(forms::versions(self.node, self.beside("endpoints"))),
            "copy" => self.copy(),
            "toversion" => alone(self.to_version()),
            "paths" => self.paths(),
            "allowed" => alone(self.members(&rules::cidrs(self.node)?, true)),
            "denied" => alone(rules::denied(self.node, |ips| self.members(ips, false))),
            "denyall" => alone(self.denied_here()),
            "ownport" => alone(self.port()),
            "istiowhen" => self.condition(),
            "traefik" => alone(rules::traefik(self.node, self.key, self.all)),
            "dnshost" => alone(self.dns_host()),
            "clients" => alone(self.clients()),
            "rest" => alone(shares::rest(self.node)),
            "mirrorshare" => alone(self.mirror_share()),
            "sections" => alone(self.sections()),
            "routes" => alone(self.routes()),
            "metricof" => alone(objects::metric(self.node)),
            "tagsof" => alone(objects::tags(self.node)),
            "hedged" => alone(self.beside("retries").map(|_| habits::HEDGE.to_owned())),
            "norules" => alone(objects::no_rules(self.node, self.beside("action"))),
            _ => None,
        }
    }

    /// The advice for `on: 5xx,reset` between braces, where the comma ends the value.
    fn cut_list(&self) -> Option<String> {
        let at = self.all.iter().position(|(key, _)| key.place == self.key.place)?;
        let (before, value) = self.all.get(at.checked_sub(1)?)?;
        let is_list = LISTS.contains(&before.text.as_str()) && self.node.kind == Kind::Null;
        let value = text(value).filter(|_| is_list)?;
        Some(format!("write `{}: [{value}, {}]`", before.text, self.key.text))
    }

    fn beside(&self, name: &str) -> Option<&'n Node> {
        self.all.iter().find(|(key, _)| key.text == name).map(|(_, value)| value)
    }

    /// The entry `name` of the rule above.
    fn of_rule(&self, name: &str) -> Option<&'n Node> {
        let (_, entries) = self.above.first()?;
        entries.iter().find(|(key, _)| key.text == name).map(|(_, value)| value)
    }

    /// Header fields that are written without `set`, all of them.
    fn fields(&self) -> Found<'n> {
        let known = ["set", "add", "remove"];
        let is = |(key, value): &&(Key, Node)| {
            !known.contains(&key.text.as_str()) && !value.text().is_empty()
        };
        let fields = || self.all.iter().filter(is);
        let pairs = flow::pairs(fields()).filter(|pairs| !pairs.is_empty())?;
        let others = fields().map(|(key, _)| key).filter(|key| key.place != self.key.place);
        Some((pairs, others.collect()))
    }

    /// The destination beside `weight: 90`, with it.
    fn weighted(&self) -> Option<String> {
        let weight: u32 = self.node.text().trim_end_matches('%').parse().ok()?;
        let to = text(self.beside("to")?)?;
        let name = to.split('/').next()?;
        if weight >= 100 {
            return Some(format!("{to}: {weight}"));
        }
        let other = if name.len() < to.len() { format!("{name}/VERSION") } else { "OTHER".into() };
        Some(format!("{to}: {weight}, {other}: {}", 100_u32.checked_sub(weight)?))
    }

    /// The destination beside its version.
    fn to_version(&self) -> Option<String> {
        let to = self.beside("to")?.text();
        quoted(&format!("{}/{}", to.split('/').next()?, self.node.text()))
    }

    /// Paths in the places of keys, such as `/a: app`, as rules.
    fn paths(&self) -> Found<'n> {
        let is = |(key, _): &&(Key, Node)| rules::path(&key.text).is_some();
        let found: Vec<_> = self.all.iter().filter(is).collect();
        let rule = |(key, node): &&(Key, Node)| {
            let to = targets::target(node).and_then(|to| Some(to.split_once('`')?.0.to_owned()));
            let to = to.unwrap_or_else(|| "to: SERVICE".to_owned());
            Some(format!("{{match: {{path: {}}}, {to}}}", rules::path(&key.text)?))
        };
        let all: Option<Vec<_>> = found.iter().map(rule).collect();
        let others = found.iter().map(|(key, _)| key).filter(|key| key.place != self.key.place);
        Some((all?.join(", "), others.collect()))
    }

    /// The host in DNS of the service of the rule.
    fn dns_host(&self) -> Option<String> {
        let to = self.beside("to")?.text();
        let (_, keys) = self.names.reached.iter().find(|(name, _)| name == to)?;
        let (host, _) = keys.strip_prefix("dns: ")?.split_once(':')?;
        quoted(host)
    }

    /// The path in `match` beside the key.
    fn old_path(&self) -> Option<String> {
        let path = own_entry(self.beside("match")?, "path")?;
        text(path).filter(|_| path.text().ends_with("/*"))
    }

    /// The destination in a URL. Its path replaces that of the rule.
    fn target(&self) -> Option<String> {
        let target = targets::target(self.node)?;
        let Some(path) = urls::path(self.node.text()) else { return Some(target) };
        let prefix = || quoted(&format!("{}/", path.trim_end_matches('/')));
        let old = self.beside("match").and_then(|it| own_entry(it, "path")).map(Node::text);
        let rewrite = match old {
            Some(old) if old.ends_with("/*") => format!("rewrite: {{prefix: {}}}", prefix()?),
            Some(old) if old != path => format!("rewrite: {{path: {}}}", quoted(path)?),
            None if path != "/" => {
                format!("match: {{path: /*}}, rewrite: {{prefix: {}}}", prefix()?)
            }
            _ => return Some(target),
        };
        let (to, service) = target.split_once('`')?;
        Some(format!("{to}, {rewrite}`{service}"))
    }

    /// The entries of `routes` for the hosts in a rule, with the rest of the rule.
    fn host_rules(&self) -> Option<String> {
        let in_match = self.above.first().is_some_and(|(key, _)| key.text == "match");
        let rest = |all: &'n [(Key, Node)], key: &Key| {
            flow::pairs(all.iter().filter(|(it, _)| it.place != key.place))
        };
        let rule = match in_match {
            false => rest(self.all, self.key)?,
            true => {
                let (key, all) = *self.above.first()?;
                let conditions = rest(self.all, self.key)?;
                let rest = rest(all, key)?;
                match conditions.is_empty() {
                    true => rest,
                    false => format!("match: {{{conditions}}}, {rest}"),
                }
            }
        };
        let is_rule = self.beside("to").or_else(|| self.of_rule("to")).is_some()
            || ["respond", "redirect"].iter().any(|name| self.beside(name).is_some());
        let rule = if is_rule { rule } else { "to: SERVICE".to_owned() };
        let hosts = match &self.node.kind {
            Kind::List(items) => items.iter().collect(),
            _ => vec![self.node],
        };
        let entry = |host: &&Node| Some(format!("{}: [{{{rule}}}]", forms::host(host)?));
        let all: Option<Vec<_>> = hosts.iter().map(entry).collect();
        all.filter(|all| !all.is_empty()).map(|all| all.join(", "))
    }

    /// The destination of a copy, which may be in two entries: `host` and `subset`.
    fn copy(&self) -> Found<'n> {
        let find =
            |names: &[&str]| self.all.iter().find(|(key, _)| names.contains(&key.text.as_str()));
        let name = find(&["host", "cluster", "service", "name", "to"]);
        if let Some((_, to)) = name.filter(|(key, to)| key.text == "to" && to.text().contains('/'))
        {
            return Some((text(to)?, Vec::new()));
        }
        let version = find(&["subset", "version"]);
        let others = [name, version].into_iter().flatten().map(|(key, _)| key);
        let others = others.filter(|key| key.place != self.key.place).collect();
        let to = match (name, version) {
            (Some((_, name)), None) => targets::destination(name)?,
            (Some((_, name)), Some((_, version))) => {
                quoted(&format!("{}/{}", targets::destination(name)?, version.text()))?
            }
            (None, Some((_, version))) => format!("SERVICE/{}", text(version)?),
            (None, None) => return None,
        };
        Some((to, others))
    }

    /// The authorization rule for a condition on the address of the client. It is no wider than the
    /// other conditions of the rule.
    fn clients(&self) -> Option<String> {
        rules::access(&super::list(self.node)?, self.of_rule("to"), self.all, true)
    }

    /// The same for addresses in a rule, which it lets in or refuses.
    fn members(&self, ips: &str, allows: bool) -> Option<String> {
        let conditions = self.beside("match").map_or(&[][..], entries_of);
        rules::access(ips, self.beside("to"), conditions, allows)
    }

    /// The port of the listener that the key is in.
    fn port(&self) -> Option<String> {
        let port = self.beside("bind")?.text().rsplit_once(':')?.1;
        port.parse::<u16>().ok().map(|port| port.to_string())
    }

    /// The advice to refuse clients of a listener.
    fn denied_here(&self) -> Option<String> {
        rules::denied(self.node, |ips| {
            let port = self.port().unwrap_or_else(|| "PORT".to_owned());
            Some(format!("{{action: deny, from: {{ips: [{ips}]}}, to: {{ports: [{port}]}}}}"))
        })
    }

    /// Istio's condition of a policy, in one of its keys.
    fn condition(&self) -> Found<'n> {
        let words = "write `headers: {NAME: VALUE}` or `claims: {NAME: VALUE}`".to_owned();
        let is = |key: &&Key| ["key", "values", "notValues"].contains(&key.text.as_str());
        let others = self.all.iter().map(|(key, _)| key).filter(is);
        let others = others.filter(|key| key.place != self.key.place).collect();
        Some((rules::condition(self.all).unwrap_or(words), others))
    }

    /// The mirror beside its share.
    fn mirror_share(&self) -> Option<String> {
        let share = shares::share(self.node);
        let to = self.beside("mirror").and_then(|mirror| match own_entry(mirror, "to") {
            Some(to) => text(to),
            None => targets::destination(mirror),
        });
        let to = to.unwrap_or_else(|| "OTHER".to_owned());
        Some(format!("{{to: {to}, percent: {}}}", share?))
    }

    /// The services that a section of another proxy has, without those that exist already.
    fn sections(&self) -> Option<String> {
        let found: Vec<(&str, &Node)> = match &self.node.kind {
            Kind::Map(entries) => entries.iter().map(|(key, it)| (key.text.as_str(), it)).collect(),
            Kind::List(items) => {
                let named = |it: &'n Node| Some((own_entry(it, "name")?.text(), it));
                items.iter().map(named).collect::<Option<_>>()?
            }
            Kind::Null | Kind::Scalar { .. } => return None,
        };
        let known = |(name, _): &&(&str, &Node)| self.names.services.iter().any(|it| it == name);
        let there: Vec<&str> = found.iter().filter(known).map(|(name, _)| *name).collect();
        let shown = there.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let are = if there.len() == 1 { "is" } else { "are" };
        let others = found.iter().any(|(name, it)| self.has_other_addresses(name, it));
        if !found.is_empty() && there.len() == found.len() {
            return Some(match others {
                true => format!("{shown} {are} in `services`, with other addresses: keep one"),
                false => format!("leave it out: {shown} {are} in `services` already"),
            });
        }
        let all = super::value(self.node, "services")?;
        if self.names.sections.iter().all(|section| section != "services") {
            return Some(format!("services are in `services`: services: {{{all}}}"));
        }
        let new = forms::without(self.node, &there);
        let new = super::value(&new, "services")?;
        let there = match (there.is_empty(), others) {
            (true, _) => String::new(),
            (false, true) => format!("; {shown} {are} there, with other addresses: keep one"),
            (false, false) => format!("; {shown} {are} there"),
        };
        Some(format!("services are in `services`; write there: {new}{there}"))
    }

    /// Whether the service `name` is there, and does not have the addresses in `node`.
    fn has_other_addresses(&self, name: &str, node: &Node) -> bool {
        let own = self.names.reached.iter().find(|(known, _)| known == name);
        let wanted = Addresses::of(node, &[]).to_service();
        own.zip(wanted).is_some_and(|((_, own), wanted)| *own != wanted)
    }

    /// The rules of Traefik's routers.
    fn routes(&self) -> Option<String> {
        let routers: Vec<&Node> = match &self.node.kind {
            Kind::Map(entries) => entries.iter().map(|(_, value)| value).collect(),
            _ => return None,
        };
        let all: Option<Vec<_>> = routers.into_iter().map(targets::router).collect();
        let all = all?.join(", ");
        match self.names.sections.iter().any(|section| section == "routes") {
            true => Some(format!("rules are in `routes`, by host; write there: {all}")),
            false => Some(format!("rules are in `routes`, by host: routes: {{{all}}}")),
        }
    }

    /// The advice to write a key that is there already. `included` are the places of keys whose
    /// values are in the advice.
    fn in_place_of_another(&self, advice: String, included: &[Place]) -> String {
        let Some(rest) = advice.strip_prefix("write `") else { return advice };
        let Some((name, _)) = rest.split_once(':') else { return advice };
        let is = |(key, _): &&(Key, Node)| key.text == name && !included.contains(&key.place);
        let Some((_, node)) = self.all.iter().find(is) else { return advice };
        let Some(there) = flow::pair(name, node) else { return advice };
        let Some((new, more)) = rest.split_once('`') else { return advice };
        if new == there {
            return format!("leave it out: `{there}` is there already");
        }
        if let Some(entry) = new_entry(new, name, node) {
            let time = own_entry(node, "per_try_timeout").and_then(text);
            if let ("hedge: {after: p95}", Some(time)) = (entry, time) {
                // Envoy sends a second request at this time. It does not end the first one.
                return format!(
                    "write `hedge: {{after: {time}}}` in `{name}`, in place of \
                     `per_try_timeout: {time}`, which ends a try"
                );
            }
            return format!("write `{entry}` in `{name}`{more}");
        }
        format!("leave it out, or write `{new}` in place of `{there}`{more}")
    }

    /// The advice to write a section that is there already.
    fn in_section(&self, advice: String) -> String {
        let has = |name: &str| self.names.sections.iter().any(|section| section == name);
        let list = advice.split_once("write at the top of the file: authorization: [");
        if let Some((before, rest)) = list.filter(|_| has("authorization"))
            && let Some((rules, more)) = rest.rsplit_once(']')
        {
            return format!("{before}add to `authorization`: {rules}{more}");
        }
        let code = advice.strip_prefix("write `").and_then(|rest| rest.split_once('`'));
        let Some((code, more)) = code.filter(|_| self.above.is_empty()) else { return advice };
        let entry = code.split_once(": {").filter(|(name, _)| has(name));
        match entry.and_then(|(name, entry)| Some((name, entry.strip_suffix('}')?))) {
            Some((name, entry)) => format!("write `{entry}` in `{name}`{more}"),
            None => advice,
        }
    }

    /// The advice with the names of all keys whose values it includes.
    fn in_place_of_all(&self, advice: String, included: &[Place]) -> String {
        let code = advice.strip_prefix("write `").and_then(|rest| rest.split_once('`'));
        let fits = |more: &str| more.is_empty() || more.starts_with(';');
        let code = code.filter(|(_, more)| !included.is_empty() && fits(more));
        let Some((code, more)) = code else { return advice };
        let is = |key: &&Key| key.place == self.key.place || included.contains(&key.place);
        let keys: Vec<_> = self.all.iter().map(|(key, _)| key).filter(is).collect();
        let Some((last, first)) = keys.split_last().filter(|(_, first)| !first.is_empty()) else {
            return advice;
        };
        let first: Vec<_> = first.iter().map(|key| format!("`{}`", key.text)).collect();
        let (first, last) = (first.join(", "), &last.text);
        format!("write `{code}` in place of {first} and `{last}`{more}")
    }
}

/// The entry in `new`, which is `name: {ENTRY}`, if the map `there` has no entry with its key.
fn new_entry<'a>(new: &'a str, name: &str, there: &Node) -> Option<&'a str> {
    let Kind::Map(entries) = &there.kind else { return None };
    let entry = new.strip_prefix(name)?.strip_prefix(": {")?.strip_suffix('}')?;
    let (key, _) = entry.split_once(':')?;
    entries.iter().all(|(own, _)| own.text != key).then_some(entry)
}
