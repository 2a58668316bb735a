//! Writes the rules as input for `iptables-restore` and `ip6tables-restore`, and finds the rules of
//! Ringway in the output of `iptables-save`.

use std::fmt::Write as _;

use super::nft::TAG;
use super::plan::{DIVERT_MARK, Ports, disjoint};
use super::rules::{Action, Chain, Hook, Match, range_text};
use crate::net::Network;

/// The prefix of the names of our chains.
const CHAIN_PREFIX: &str = "RINGWAY_";

/// The object that was created for a jump to our chain. It is removed together with the jump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// No object: the built-in chain existed before.
    Nothing,
    /// The built-in chain. iptables creates it with its first rule; nft can list it.
    Chain,
    /// The table, because no program had used it before.
    Table,
}

impl Made {
    const ALL: [Self; 3] = [Self::Table, Self::Chain, Self::Nothing];

    /// The comment of the jump. It stores this value in the kernel.
    fn comment(self) -> &'static str {
        match self {
            Self::Nothing => "ringway: caught here",
            Self::Chain => "ringway: caught here, in a chain made for it",
            Self::Table => "ringway: caught here, in a table made for it",
        }
    }
}

/// Reads the output of `nft list chains`. Returns the chains of a family, as `TABLE CHAIN`. No
/// iptables command shows whether a built-in chain exists.
pub fn chains_listed(listing: &str) -> Vec<String> {
    let mut table = "";
    let mut found = Vec::new();
    for line in listing.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match *words {
            ["table", _, name, "{"] => table = name,
            ["chain", name, "{"] => found.push(format!("{table} {name}")),
            _ => {}
        }
    }
    found
}

/// An address family. Each has its own rules and its own iptables programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4: `iptables-restore`.
    V4,
    /// IPv6: `ip6tables-restore`.
    V6,
}

impl Family {
    /// Both address families.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The program that prints all rules.
    pub fn save(self) -> &'static str {
        match self {
            Self::V4 => "iptables-save",
            Self::V6 => "ip6tables-save",
        }
    }

    /// The program that installs the rules of this address family.
    pub fn restore(self) -> &'static str {
        match self {
            Self::V4 => "iptables-restore",
            Self::V6 => "ip6tables-restore",
        }
    }

    /// The name of the family in nft.
    pub fn nft(self) -> &'static str {
        match self {
            Self::V4 => "ip",
            Self::V6 => "ip6",
        }
    }
}

/// The iptables tables that contain chains of Ringway.
const TABLES: [&str; 2] = ["mangle", "nat"];

fn table_of(hook: Hook) -> &'static str {
    match hook {
        Hook::Inbound | Hook::Outbound => "nat",
        Hook::DivertIn | Hook::DivertOut => "mangle",
    }
}

fn parent_of(hook: Hook) -> &'static str {
    match hook {
        Hook::Inbound | Hook::DivertIn => "PREROUTING",
        Hook::Outbound | Hook::DivertOut => "OUTPUT",
    }
}

fn chain_name(hook: Hook) -> String {
    format!("{CHAIN_PREFIX}{}", hook.name().to_uppercase())
}

/// The input for `iptables-restore --noflush` that replaces our rules in `saved` with `chains`.
/// Each table changes atomically. `listed` are the existing chains, if they are known.
pub fn install(
    chains: &[Chain],
    family: Family,
    saved: &Saved,
    listed: Option<&[String]>,
) -> String {
    let mut text = String::new();
    for table in TABLES {
        let new: Vec<&Chain> = chains.iter().filter(|c| table_of(c.hook) == table).collect();
        let old = saved.table(table);
        if new.is_empty() && old.is_none_or(|old| old.is_without_us()) {
            continue;
        }
        _ = writeln!(text, "*{table}");
        for chain in &new {
            _ = writeln!(text, ":{} - [0:0]", chain_name(chain.hook));
        }
        let kept: Vec<String> = new.iter().map(|chain| chain_name(chain.hook)).collect();
        if let Some(old) = old {
            old.remove_into(&kept, &mut text);
        }
        for chain in new {
            chain_into(chain, family, &mut text);
            let (parent, name) = (parent_of(chain.hook), chain_name(chain.hook));
            let is_listed = listed.is_none_or(|listed| {
                listed.iter().any(|chain| *chain == format!("{table} {parent}"))
            });
            let comment = old.map_or(Made::Table, |old| old.made(parent, is_listed)).comment();
            _ = writeln!(text, "-A {parent} -m comment --comment \"{comment}\" -j {name}");
        }
        text.push_str("COMMIT\n");
    }
    text
}

/// The input for `iptables-restore --noflush` that removes our rules in `saved`. Empty if `saved`
/// contains none.
pub fn remove(saved: &Saved) -> String {
    let mut text = String::new();
    for table in saved.tables.iter().filter(|table| !table.is_without_us()) {
        _ = writeln!(text, "*{}", table.name);
        table.remove_into(&[], &mut text);
        text.push_str("COMMIT\n");
    }
    text
}

fn chain_into(chain: &Chain, family: Family, text: &mut String) {
    let name = chain_name(chain.hook);
    for rule in &chain.rules {
        let Some(targets) = targets(rule.action) else { continue };
        for matches in alternatives(&rule.matches, family) {
            for target in &targets {
                let comment = format!("-m comment --comment \"{TAG}{}\"", rule.why);
                _ = writeln!(text, "-A {name} {matches}{comment} -j {target}");
            }
        }
    }
}

/// The iptables targets for an action. Returns `None` if iptables has no such action.
fn targets(action: Action) -> Option<Vec<String>> {
    Some(match action {
        Action::Leave => vec!["RETURN".to_owned()],
        Action::Redirect(port) => vec![format!("REDIRECT --to-ports {port}")],
        Action::Tproxy(port) => {
            vec![format!("TPROXY --on-port {port} --tproxy-mark {DIVERT_MARK}")]
        }
        Action::Mark(mark) => vec![format!("MARK --set-mark {mark}"), "RETURN".to_owned()],
        Action::MarkConnection(mark) => vec![format!("CONNMARK --set-mark {mark}")],
        Action::Reset | Action::Unreachable | Action::Drop => return None,
    })
}

/// The match options of a rule. iptables has no lists, so each item of a list has its own text.
fn alternatives(matches: &[Match], family: Family) -> Vec<String> {
    let mut found = vec![String::new()];
    for wanted in matches {
        let texts = match_texts(wanted, family);
        found = found
            .iter()
            .flat_map(|before| texts.iter().map(move |text| format!("{before}{text} ")))
            .collect();
    }
    found
}

fn match_texts(wanted: &Match, family: Family) -> Vec<String> {
    let one = |text: &str| vec![text.to_owned()];
    match wanted {
        Match::Tcp => one("-p tcp"),
        Match::Udp => one("-p udp"),
        Match::Syn => one("-p tcp --syn"),
        Match::FromLoopback => one("-i lo"),
        Match::ToLoopback => one("-o lo"),
        Match::FromInterfaces(names) => names.iter().map(|name| format!("-i {name}")).collect(),
        Match::ToInterfaces(names) => names.iter().map(|name| format!("-o {name}")).collect(),
        Match::NotForThisHost => one("-m addrtype ! --dst-type LOCAL"),
        Match::From(networks) => addresses("-s", networks, family),
        Match::To(networks) => addresses("-d", networks, family),
        Match::TcpPorts(wanted) => ports("tcp", wanted),
        Match::UdpPorts(wanted) => ports("udp", wanted),
        Match::Uids(ids) => ids.iter().map(|id| format!("-m owner --uid-owner {id}")).collect(),
        Match::Gids(ids) => ids.iter().map(|id| format!("-m owner --gid-owner {id}")).collect(),
        Match::Mark(mark) => vec![format!("-m mark --mark {mark}")],
        Match::ConnectionMark(mark) => vec![format!("-m connmark --mark {mark}")],
        Match::Original => one("-m conntrack --ctdir ORIGINAL"),
        Match::Reply => one("-m conntrack --ctdir REPLY"),
    }
}

fn addresses(option: &str, networks: &[Network], family: Family) -> Vec<String> {
    let networks = disjoint(networks).into_iter();
    let ours = networks.filter(|network| network.first().is_ipv4() == (family == Family::V4));
    ours.map(|network| format!("{option} {network}")).collect()
}

fn ports(protocol: &str, ports: &Ports) -> Vec<String> {
    let ranges = ports.ranges().iter();
    ranges.map(|&range| format!("-p {protocol} --dport {}", range_text(range, ':'))).collect()
}

/// The tables in the output of `iptables-save`, with the chains and rules that concern Ringway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    tables: Vec<SavedTable>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct SavedTable {
    name: String,
    /// The chains of Ringway.
    chains: Vec<String>,
    /// Rules in other chains that jump to our chains, as `iptables-save` prints them.
    jumps: Vec<String>,
    /// Rules in our chains that Ringway did not write.
    foreign: Vec<String>,
    /// Chains that another program has created, or that contain its rules.
    others: Vec<String>,
}

impl Saved {
    /// Reads the output of `iptables-save`.
    pub fn read(text: &str) -> Self {
        let mut tables: Vec<SavedTable> = Vec::new();
        for line in text.lines() {
            if let Some(name) = line.strip_prefix('*') {
                tables.push(SavedTable { name: name.to_owned(), ..SavedTable::default() });
            } else if let Some(table) = tables.last_mut() {
                table.take(line);
            }
        }
        Self { tables }
    }

    /// Rules of other programs in our chains, and their jumps to our chains.
    pub fn foreign(&self) -> Vec<String> {
        let of_table = |table: &SavedTable| {
            let name = table.name.clone();
            table.foreign.clone().into_iter().map(move |rule| format!("{name}: {rule}"))
        };
        self.tables.iter().flat_map(of_table).collect()
    }

    /// Whether there are rules of Ringway.
    pub fn has_ours(&self) -> bool {
        self.tables.iter().any(|table| !table.is_without_us())
    }

    /// The tables and built-in chains that iptables created only because of our jumps. For each
    /// table: its chains, as `TABLE CHAIN`, then the table itself if it is new.
    pub fn made(&self) -> Vec<String> {
        let mut found = Vec::new();
        for table in &self.tables {
            let made = || table.jumps.iter().map(|jump| (jump, made_for(jump)));
            let chains = made().filter(|(_, made)| *made != Made::Nothing);
            found.extend(chains.map(|(jump, _)| format!("{} {}", table.name, parent_in(jump))));
            if made().any(|(_, made)| made == Made::Table) {
                found.push(table.name.clone());
            }
        }
        found
    }

    /// Tables that were created for our rules and contain no rules of other programs.
    pub fn only_ours(&self) -> impl Iterator<Item = &str> {
        let made = |table: &&SavedTable| {
            let jumps = &mut table.jumps.iter();
            table.others.is_empty() && jumps.any(|jump| made_for(jump) == Made::Table)
        };
        self.tables.iter().filter(made).map(|table| table.name.as_str())
    }

    /// Whether a table, or a built-in chain (`TABLE CHAIN`), contains no rules.
    pub fn is_empty(&self, place: &str) -> bool {
        let (table, chain) = place.split_once(' ').map_or((place, None), |(t, c)| (t, Some(c)));
        let empty = |table: &SavedTable| match chain {
            None => table.others.is_empty() && table.is_without_us(),
            Some(chain) => {
                !table.others.iter().any(|other| other == chain)
                    && !table.jumps.iter().any(|jump| parent_in(jump) == chain)
            }
        };
        self.table(table).is_none_or(empty)
    }

    /// The rules of Ringway, as `iptables-save` prints them.
    pub fn ours(text: &str) -> String {
        let mut kept = String::new();
        for line in text.lines() {
            let header = line.starts_with('*') && TABLES.contains(&&line[1..]);
            if header || line.contains(CHAIN_PREFIX) {
                _ = writeln!(kept, "{line}");
            }
        }
        kept
    }

    fn table(&self, name: &str) -> Option<&SavedTable> {
        self.tables.iter().find(|table| table.name == name)
    }
}

/// The chain that a rule belongs to.
fn parent_in(rule: &str) -> &str {
    rule.split(' ').next().unwrap_or_default()
}

fn made_for(jump: &str) -> Made {
    let said = |made: &Made| jump.contains(&format!("\"{}\"", made.comment()));
    Made::ALL.into_iter().find(said).unwrap_or(Made::Nothing)
}

impl SavedTable {
    fn take(&mut self, line: &str) {
        if let Some(chain) = line.strip_prefix(':') {
            let (name, rest) = chain.split_once(' ').unwrap_or((chain, ""));
            if name.starts_with(CHAIN_PREFIX) {
                self.chains.push(name.to_owned());
            } else if !rest.starts_with("ACCEPT ") {
                // A user-defined chain, or a built-in chain whose policy is not ACCEPT. Neither is
                // ours.
                self.others.push(name.to_owned());
            }
            return;
        }
        let Some(rule) = line.strip_prefix("-A ") else { return };
        let in_ours = rule.starts_with(CHAIN_PREFIX);
        let tagged = rule.contains(&format!("--comment \"{TAG}"));
        let leads_to_ours = rule.contains(&format!(" -j {CHAIN_PREFIX}"))
            || rule.contains(&format!(" -g {CHAIN_PREFIX}"));
        match (in_ours, leads_to_ours, tagged) {
            (true, _, true) => {}
            (false, true, true) => self.jumps.push(rule.to_owned()),
            (true, _, false) | (false, true, false) => self.foreign.push(rule.to_owned()),
            (false, false, _) => self.others.push(parent_in(rule).to_owned()),
        }
    }

    /// The object that a new jump in the chain `parent` creates, or that an earlier jump has
    /// created.
    fn made(&self, parent: &str, is_listed: bool) -> Made {
        let before = |jump: &&String| parent_in(jump) == parent;
        if let Some(jump) = self.jumps.iter().find(before) {
            return made_for(jump);
        }
        match self.jumps.iter().any(|jump| made_for(jump) == Made::Table) {
            true => Made::Table,
            false if is_listed => Made::Nothing,
            false => Made::Chain,
        }
    }

    fn is_without_us(&self) -> bool {
        self.chains.is_empty() && self.jumps.is_empty()
    }

    /// Writes the commands that remove our jumps and our chains. The chains in `kept` are only
    /// emptied.
    fn remove_into(&self, kept: &[String], text: &mut String) {
        for jump in &self.jumps {
            _ = writeln!(text, "-D {jump}");
        }
        let gone = || self.chains.iter().filter(|chain| !kept.contains(chain));
        for chain in gone() {
            _ = writeln!(text, "-F {chain}");
        }
        for chain in gone() {
            _ = writeln!(text, "-X {chain}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAVED: &str = "# Generated by iptables-save v1.8.9 (nf_tables)
*mangle
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:RINGWAY_DIVERT_IN - [0:0]
-A PREROUTING -p udp -j MARK --set-xmark 0x7/0xffffffff
-A PREROUTING -m comment --comment \"ringway: caught here\" -j RINGWAY_DIVERT_IN
-A OUTPUT -m comment --comment \"ringway: caught here, in a chain made for it\" -j RINGWAY_DIVERT_IN
-A RINGWAY_DIVERT_IN -i lo -m comment --comment \"ringway: this host to itself\" -j RETURN
COMMIT
*nat
:OUTPUT DROP [0:0]
:RINGWAY_X - [0:0]
-A OUTPUT -j RINGWAY_X
-A RINGWAY_X -j ACCEPT
COMMIT
";

    #[test]
    fn what_is_ours_is_told_from_what_is_not() {
        let saved = Saved::read(SAVED);
        assert_eq!(saved.foreign(), ["nat: OUTPUT -j RINGWAY_X", "nat: RINGWAY_X -j ACCEPT"]);
        assert_eq!(saved.made(), ["mangle OUTPUT"]);
        assert!(!saved.is_empty("mangle") && !saved.is_empty("mangle OUTPUT"));
        assert!(!saved.is_empty("nat OUTPUT"), "a policy is someone's");
        assert!(saved.is_empty("raw") && saved.is_empty("nat PREROUTING"));
        assert!(remove(&saved).starts_with(
            "*mangle
-D PREROUTING -m comment --comment \"ringway: caught here\" -j RINGWAY_DIVERT_IN
-D OUTPUT -m comment --comment \"ringway: caught here, in a chain made for it\" -j RINGWAY_DIVERT_IN
-F RINGWAY_DIVERT_IN
-X RINGWAY_DIVERT_IN
COMMIT
"
        ));
    }

    #[test]
    fn chains_are_read_from_what_nft_lists() {
        let listing = "table ip nat {\n\tchain OUTPUT {\n\t\ttype nat hook output\n\t}\n}\n\
            table ip mangle {\n\tchain X {\n\t}\n}\n";
        assert_eq!(chains_listed(listing), ["nat OUTPUT", "mangle X"]);
    }
}
