//! The rules of a plan in a form that is neither nft nor iptables. The rules for both are written
//! from it, so they have the same meaning.

use super::plan::{
    DIVERT_MARK, Exclusions, Inbound, InterceptPlan, Interface, Owners, PortRange, Ports, WhenDead,
};
use crate::net::Network;

/// The port of DNS servers (RFC 1035 4.2).
const DNS_PORT: u16 = 53;

/// The ports of DHCP clients and servers (RFC 2131 4.1, RFC 8415 7.2). DHCP is not captured:
/// otherwise the host could lose its lease.
const DHCP_PORTS: [u16; 4] = [67, 68, 546, 547];

/// A hook in the kernel's packet path, with its rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The hook to which the chain is attached.
    pub hook: Hook,
    /// The rules, in order.
    pub rules: Vec<Rule>,
}

/// The hook of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Connections from outside: NAT at PREROUTING.
    Inbound,
    /// Connections of local processes: NAT at OUTPUT.
    Outbound,
    /// Packets from outside: mangle at PREROUTING.
    DivertIn,
    /// Packets of local processes: mangle at OUTPUT. The kernel routes them again if the chain has
    /// changed them.
    DivertOut,
}

impl Hook {
    /// All hooks, in the order in which their chains are installed.
    pub const ALL: [Self; 4] = [Self::DivertIn, Self::DivertOut, Self::Inbound, Self::Outbound];

    /// The name of the chain, in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
            Self::DivertIn => "divert_in",
            Self::DivertOut => "divert_out",
        }
    }
}

/// A rule: packets that match all of `matches` get `action`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The conditions. All of them must match.
    pub matches: Vec<Match>,
    /// The action for matching packets.
    pub action: Action,
    /// The comment of the rule, for the operator.
    pub why: &'static str,
}

/// A property of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// The packet is TCP.
    Tcp,
    /// The packet is UDP.
    Udp,
    /// The first packet of a TCP connection: of SYN, ACK, RST and FIN, only SYN is set.
    Syn,
    /// The packet came through the loopback interface.
    FromLoopback,
    /// The packet leaves through the loopback interface.
    ToLoopback,
    /// The packet came through one of these interfaces.
    FromInterfaces(Vec<Interface>),
    /// The packet leaves through one of these interfaces.
    ToInterfaces(Vec<Interface>),
    /// The destination is not an address of this host.
    NotForThisHost,
    /// The source is in one of these networks.
    From(Vec<Network>),
    /// The destination is in one of these networks.
    To(Vec<Network>),
    /// The packet is TCP to one of these ports.
    TcpPorts(Ports),
    /// The packet is UDP to one of these ports.
    UdpPorts(Ports),
    /// One of these users sent the packet.
    Uids(Vec<u32>),
    /// One of these groups sent the packet.
    Gids(Vec<u32>),
    /// The packet has this mark.
    Mark(u32),
    /// The connection has this mark.
    ConnectionMark(u32),
    /// The packet goes in the same direction as the first packet of its connection.
    Original,
    /// The packet goes in the opposite direction of the first packet of its connection.
    Reply,
}

/// The action for a matching packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The chain ends for the packet. The packet is not captured.
    Leave,
    /// The connection is redirected to this port of this host.
    Redirect(u16),
    /// The packet gets [`DIVERT_MARK`], and goes unchanged to a transparent socket on this port. If
    /// there is no such socket, nft continues with the next rule, and iptables drops the packet.
    Tproxy(u16),
    /// Sets the packet mark, and ends the chain.
    Mark(u32),
    /// Sets the connection mark, and continues with the next rule.
    MarkConnection(u32),
    /// The packet is refused with a TCP reset. The iptables rules leave this action out.
    Reset,
    /// The packet is refused with an ICMP error (port unreachable). The iptables rules leave this
    /// action out.
    Unreachable,
    /// The packet is dropped. iptables does not need this rule, because its TPROXY has already
    /// dropped the packet.
    Drop,
}

/// The chains of a plan. Chains without rules are left out.
pub fn chains(plan: &InterceptPlan) -> Vec<Chain> {
    let rules = [divert_in(plan), divert_out(plan), inbound(plan), outbound(plan)];
    let chains = Hook::ALL.into_iter().zip(rules).map(|(hook, rules)| Chain { hook, rules });
    chains.filter(|chain| !chain.rules.is_empty()).collect()
}

fn rule<const N: usize>(matches: [Match; N], action: Action, why: &'static str) -> Rule {
    Rule { matches: matches.into(), action, why }
}

fn leave(only: Match, why: &'static str) -> Rule {
    rule([only], Action::Leave, why)
}

fn inbound(plan: &InterceptPlan) -> Vec<Rule> {
    if plan.inbound != Inbound::Redirect {
        return Vec::new();
    }
    let mut rules = Vec::new();
    rules.push(leave(Match::FromLoopback, "this host to itself"));
    rules.push(leave(Match::NotForThisHost, "for other hosts"));
    exclusions_inbound(plan, &[Transport::Tcp], &mut rules);
    rules.push(rule([Match::Tcp], Action::Redirect(plan.inbound_port), "caught inbound"));
    rules
}

fn outbound(plan: &InterceptPlan) -> Vec<Rule> {
    let mut rules = Vec::new();
    if !plan.outbound && plan.dns.is_none() {
        return rules;
    }
    rules.push(leave(Match::Mark(plan.proxy.mark), "the proxy, by its mark"));
    owners(&plan.proxy.owners, "the proxy, by its account", &mut rules);
    owners(&plan.exclude_owners, "excluded account", &mut rules);
    if let Some(port) = plan.dns {
        let dns = || [DNS_PORT].into_iter().collect();
        let redirect = Action::Redirect(port);
        rules.push(rule([Match::UdpPorts(dns())], redirect, "caught DNS query"));
        rules.push(rule([Match::TcpPorts(dns())], redirect, "caught DNS query"));
    }
    if plan.outbound {
        rules.push(leave(Match::ToLoopback, "this host to itself"));
        exclusions_outbound(plan, &[Transport::Tcp], &mut rules);
        rules.push(rule([Match::Tcp], Action::Redirect(plan.outbound_port), "caught outbound"));
    }
    rules
}

/// The rules for arriving packets: packets from outside for a transparent socket, and packets of
/// local processes that [`divert_out`] has routed through the loopback interface.
fn divert_in(plan: &InterceptPlan) -> Vec<Rule> {
    let mut rules = Vec::new();
    if !plan.diverts() {
        return rules;
    }
    if !plan.outbound_udp.is_empty() {
        let sent = [Match::FromLoopback, Match::Udp, Match::Mark(DIVERT_MARK), Match::Original];
        rules.push(rule(sent.clone(), Action::Tproxy(plan.outbound_port), "caught outbound"));
        // No proxy listens: drop the packet. It cannot be sent out from this hook, a local wildcard
        // socket must not get it, and a reject sends no ICMP error for the address of another host.
        rules.push(rule(sent, Action::Drop, "refused: no proxy"));
    }
    rules.push(leave(Match::FromLoopback, "this host to itself"));
    let to_proxy = Action::Tproxy(plan.inbound_port);
    let mut transports = Vec::new();
    if plan.inbound == Inbound::Tproxy {
        // Match all packets of a captured connection, and not only the first one: with SYN cookies,
        // the connection may begin with the second packet.
        let caught = [Match::Tcp, Match::ConnectionMark(DIVERT_MARK), Match::Original];
        rules.push(rule(caught, to_proxy, "caught inbound, going on"));
        transports.push(Transport::Tcp);
    }
    if !plan.inbound_udp.is_empty() {
        transports.push(Transport::Udp);
    }
    if transports.is_empty() {
        return rules;
    }
    rules.push(leave(Match::NotForThisHost, "for other hosts"));
    exclusions_inbound(plan, &transports, &mut rules);
    if transports.contains(&Transport::Tcp) {
        let mark = Action::MarkConnection(DIVERT_MARK);
        rules.push(rule([Match::Syn], mark, "caught inbound"));
        rules.push(rule([Match::Syn], to_proxy, "caught inbound"));
        refuse(plan, &[Match::Syn], Action::Reset, &mut rules);
    }
    if transports.contains(&Transport::Udp) {
        if let Some(port) = plan.quic {
            let quic = Match::UdpPorts([port].into_iter().collect());
            rules.push(leave(quic, "QUIC of other proxies"));
        }
        let wanted = [Match::UdpPorts(plan.inbound_udp.clone()), Match::Original];
        rules.push(rule(wanted.clone(), to_proxy, "caught inbound"));
        refuse(plan, &wanted, Action::Unreachable, &mut rules);
    }
    rules
}

/// The rules for packets of local processes. Responses of the application to the client's address
/// return to the proxy. UDP goes to the proxy through the loopback interface.
fn divert_out(plan: &InterceptPlan) -> Vec<Rule> {
    let mut rules = Vec::new();
    if !plan.diverts() {
        return rules;
    }
    let mark = plan.proxy.mark;
    let sent = [Match::Mark(mark), Match::Original];
    rules.push(rule(sent, Action::MarkConnection(mark), "the proxy, by its mark"));
    rules.push(leave(Match::Mark(mark), "the proxy, by its mark"));
    let answers = [Match::ConnectionMark(mark), Match::Reply];
    rules.push(rule(answers, Action::Mark(DIVERT_MARK), "answers to the proxy"));
    if !plan.outbound_udp.is_empty() {
        owners(&plan.proxy.owners, "the proxy, by its account", &mut rules);
        owners(&plan.exclude_owners, "excluded account", &mut rules);
        rules.push(leave(Match::ToLoopback, "this host to itself"));
        if plan.dns.is_some() {
            let dns = [DNS_PORT].into_iter().collect();
            rules.push(leave(Match::UdpPorts(dns), "DNS has a rule of its own"));
        }
        exclusions_outbound(plan, &[Transport::Udp], &mut rules);
        let wanted = [Match::UdpPorts(plan.outbound_udp.clone()), Match::Original];
        rules.push(rule(wanted, Action::Mark(DIVERT_MARK), "caught outbound"));
    }
    rules
}

/// Refuses packets for which there is no socket of a proxy, unless they may bypass the proxy.
fn refuse(plan: &InterceptPlan, matches: &[Match], action: Action, rules: &mut Vec<Rule>) {
    if plan.when_dead == WhenDead::Closed {
        rules.push(Rule { matches: matches.to_vec(), action, why: "refused: no proxy" });
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Transport {
    Tcp,
    Udp,
}

impl Transport {
    fn ports(self, ports: Ports) -> Match {
        match self {
            Self::Tcp => Match::TcpPorts(ports),
            Self::Udp => Match::UdpPorts(ports),
        }
    }
}

fn exclusions_inbound(plan: &InterceptPlan, transports: &[Transport], rules: &mut Vec<Rule>) {
    let own = [plan.inbound_port, plan.outbound_port].into_iter().collect();
    let own = plan.own_ports.with(&own);
    for transport in transports {
        rules.push(leave(transport.ports(own.clone()), "listeners of the proxy"));
    }
    let Exclusions { ports, networks, interfaces } = &plan.exclude_inbound;
    if !interfaces.is_empty() {
        rules.push(leave(Match::FromInterfaces(interfaces.clone()), "excluded interface"));
    }
    if !networks.is_empty() {
        rules.push(leave(Match::From(networks.clone()), "excluded address"));
    }
    exclude_ports(ports, transports, rules);
}

fn exclusions_outbound(plan: &InterceptPlan, transports: &[Transport], rules: &mut Vec<Rule>) {
    let Exclusions { ports, networks, interfaces } = &plan.exclude_outbound;
    if !interfaces.is_empty() {
        rules.push(leave(Match::ToInterfaces(interfaces.clone()), "excluded interface"));
    }
    if !networks.is_empty() {
        rules.push(leave(Match::To(networks.clone()), "excluded address"));
    }
    exclude_ports(ports, transports, rules);
}

fn exclude_ports(ports: &Ports, transports: &[Transport], rules: &mut Vec<Rule>) {
    for transport in transports {
        if !ports.is_empty() {
            rules.push(leave(transport.ports(ports.clone()), "excluded port"));
        }
        if *transport == Transport::Udp {
            rules.push(leave(Match::UdpPorts(DHCP_PORTS.into_iter().collect()), "DHCP"));
        }
    }
}

fn owners(owners: &Owners, why: &'static str, rules: &mut Vec<Rule>) {
    if !owners.uids.is_empty() {
        rules.push(leave(Match::Uids(owners.uids.clone()), why));
    }
    if !owners.gids.is_empty() {
        rules.push(leave(Match::Gids(owners.gids.clone()), why));
    }
}

/// A range of ports as text. `between` is the separator: `-` for nft, `:` for iptables.
pub(super) fn range_text(range: PortRange, between: char) -> String {
    match range.bounds() {
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first}{between}{last}"),
    }
}
