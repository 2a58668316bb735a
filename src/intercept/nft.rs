//! Writes the rules as input for `nft`, and finds the rules of Ringway in its output.

use std::fmt::Write as _;

use super::plan::{DIVERT_MARK, Interface, Ports, disjoint};
use super::rules::{Action, Chain, Hook, Match, range_text};
use crate::net::Network;

/// The only table of Ringway, in the family `inet` (IPv4 and IPv6).
pub const TABLE: &str = "inet ringway";

/// The prefix of the comment of each rule, which identifies our rules.
pub(super) const TAG: &str = "ringway: ";

/// How long the table exists in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// Until a command removes it.
    UntilRemoved,
    /// Until the process that created the table ends (`flags owner`, Linux 5.12).
    OfProcess,
}

/// The input for `nft -f` that replaces or creates our table in one transaction.
pub fn install(chains: &[Chain], lifetime: Lifetime) -> String {
    let mut text = String::new();
    if lifetime == Lifetime::UntilRemoved {
        // `delete` fails if there is no table. `add` creates it, or does nothing if it exists.
        _ = writeln!(text, "add table {TABLE}\n{}", remove());
    }
    text + &table(chains, lifetime)
}

/// The input for `nft -f` that removes the table.
pub fn remove() -> String {
    format!("delete table {TABLE}\n")
}

/// The table in the syntax of `nft`.
pub fn table(chains: &[Chain], lifetime: Lifetime) -> String {
    let mut text = format!("table {TABLE} {{\n");
    if lifetime == Lifetime::OfProcess {
        text.push_str("\tflags owner;\n");
    }
    for chain in chains {
        let (name, hook) = (chain.hook.name(), hook(chain.hook));
        _ = writeln!(text, "\tchain {name} {{\n\t\t{hook}; policy accept;");
        for rule in &chain.rules {
            for matches in alternatives(&rule.matches) {
                let action = action(rule.action);
                _ = writeln!(text, "\t\t{matches}{action} comment \"{TAG}{}\"", rule.why);
            }
        }
        text.push_str("\t}\n");
    }
    text.push_str("}\n");
    text
}

/// A [`table`] on one line, because `nft -i` reads one command per line.
pub fn in_one_line(table: &str) -> String {
    let mut text = String::new();
    for line in table.lines().map(str::trim) {
        text.push_str(line.trim_end_matches(';'));
        text.push_str(if line.ends_with('{') { " " } else { "; " });
    }
    text.push('\n');
    text
}

fn hook(hook: Hook) -> &'static str {
    // These priorities are after those of other NAT rules, so that connections that they have
    // redirected stay redirected. For the same reason, the iptables rules are appended.
    match hook {
        Hook::Inbound => "type nat hook prerouting priority -99",
        Hook::Outbound => "type nat hook output priority -99",
        Hook::DivertIn => "type filter hook prerouting priority -150",
        Hook::DivertOut => "type route hook output priority -150",
    }
}

fn action(action: Action) -> String {
    match action {
        Action::Leave => "counter return".to_owned(),
        Action::Redirect(port) => format!("counter redirect to :{port}"),
        Action::Tproxy(port) => {
            format!("tproxy to :{port} meta mark set {DIVERT_MARK} counter accept")
        }
        Action::Mark(mark) => format!("counter meta mark set {mark} return"),
        Action::MarkConnection(mark) => format!("ct mark set {mark}"),
        Action::Reset => "counter reject with tcp reset".to_owned(),
        Action::Drop => "counter drop".to_owned(),
        Action::Unreachable => "counter reject with icmpx type port-unreachable".to_owned(),
    }
}

/// The matches of a rule. Each address family that they name has its own text.
fn alternatives(matches: &[Match]) -> Vec<String> {
    let mut found = vec![String::new()];
    for wanted in matches {
        let texts = match wanted {
            Match::From(networks) => addresses("saddr", networks),
            Match::To(networks) => addresses("daddr", networks),
            single => vec![match_text(single)],
        };
        found = found
            .iter()
            .flat_map(|before| texts.iter().map(move |text| format!("{before}{text} ")))
            .collect();
    }
    found
}

fn addresses(side: &str, networks: &[Network]) -> Vec<String> {
    let of_family = |v4: bool| -> Vec<String> {
        let networks = disjoint(networks).into_iter();
        networks.filter(|n| n.first().is_ipv4() == v4).map(|n| n.to_string()).collect()
    };
    let families = [("ip", of_family(true)), ("ip6", of_family(false))];
    let named = families.into_iter().filter(|(_, networks)| !networks.is_empty());
    named.map(|(family, networks)| format!("{family} {side} {}", set(networks))).collect()
}

fn match_text(wanted: &Match) -> String {
    match wanted {
        Match::Tcp => "meta l4proto tcp".to_owned(),
        Match::Udp => "meta l4proto udp".to_owned(),
        Match::Syn => "tcp flags & (fin | syn | rst | ack) == syn".to_owned(),
        Match::FromLoopback => "iifname \"lo\"".to_owned(),
        Match::ToLoopback => "oifname \"lo\"".to_owned(),
        Match::FromInterfaces(names) => format!("iifname {}", interfaces(names)),
        Match::ToInterfaces(names) => format!("oifname {}", interfaces(names)),
        Match::NotForThisHost => "fib daddr type != local".to_owned(),
        Match::From(_) | Match::To(_) => unreachable!("written once for each family"),
        Match::TcpPorts(wanted) => format!("tcp dport {}", ports(wanted)),
        Match::UdpPorts(wanted) => format!("udp dport {}", ports(wanted)),
        Match::Uids(ids) => format!("meta skuid {}", set(ids)),
        Match::Gids(ids) => format!("meta skgid {}", set(ids)),
        Match::Mark(mark) => format!("meta mark {mark}"),
        Match::ConnectionMark(mark) => format!("ct mark {mark}"),
        Match::Original => "ct direction original".to_owned(),
        Match::Reply => "ct direction reply".to_owned(),
    }
}

fn interfaces(names: &[Interface]) -> String {
    set(names.iter().map(|interface| match interface.name() {
        (name, true) => format!("\"{name}*\""),
        (name, false) => format!("\"{name}\""),
    }))
}

fn ports(ports: &Ports) -> String {
    set(ports.ranges().iter().map(|&range| range_text(range, '-')))
}

fn set<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    match &*items {
        [single] => single.clone(),
        _ => format!("{{ {} }}", items.join(", ")),
    }
}

/// The content of a table with the name of our table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Only rules of Ringway.
    Ours {
        /// Whether the table belongs to a running process. Only that process can change it.
        held: bool,
    },
    /// The lines that Ringway did not write.
    Foreign(Vec<String>),
}

/// Parses the output of `nft list table inet ringway`.
pub fn recognise(listing: &str) -> Found {
    let mut foreign = Vec::new();
    let mut held = false;
    for line in listing.lines().map(str::trim) {
        held |= line == "flags owner";
        let structure = line.is_empty()
            || line == "}"
            || line == "flags owner"
            || line.starts_with(&format!("table {TABLE} {{"))
            || Hook::ALL.iter().any(|hook| line == format!("chain {} {{", hook.name()))
            || line.starts_with("type ") && line.ends_with("policy accept;");
        if !structure && !line.contains(&format!("comment \"{TAG}")) {
            foreign.push(line.to_owned());
        }
    }
    if foreign.is_empty() { Found::Ours { held } } else { Found::Foreign(foreign) }
}

#[cfg(test)]
mod tests {
    use super::super::plan::InterceptPlan;
    use super::super::rules::chains;
    use super::*;

    #[test]
    fn what_is_written_is_recognised() {
        let chains = chains(&InterceptPlan::default());
        let text = table(&chains, Lifetime::UntilRemoved);
        assert_eq!(recognise(&text), Found::Ours { held: false });
        let listed = text.replace("{\n\tchain", "{ # progname nft\n\tflags owner\n\n\tchain");
        assert_eq!(recognise(&listed), Found::Ours { held: true });
        let more = text.replace("\tchain inbound {", "\tchain inbound {\n\t\ttcp dport 1 accept");
        assert_eq!(recognise(&more), Found::Foreign(vec!["tcp dport 1 accept".to_owned()]));
        let line = in_one_line(&text);
        assert_eq!(line.lines().count(), 1);
        assert!(line.contains("iifname \"lo\" counter return comment"), "{line}");
    }
}
