//! Tests the installed rules. Opens connections that the rules must capture, and one that they must
//! not capture, and finds the socket at the other end in `/proc/net`. If no proxy listens on a
//! port, the test itself listens, so it does not need a running proxy.

use std::fmt::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use super::error::InterceptError;
use super::plan::{Exclusions, Inbound, InterceptPlan};
use super::proc_net::{TcpSocket, tcp_sockets};
use super::system::{has_ipv6, proc_net};
use super::visitor::Visitor;

use crate::error::plain;

/// The time limit for a connection that must be captured. Such a connection does not leave this
/// host.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The time limit for a connection that must not be captured. No host has its destination address,
/// so it gets no answer.
const UNCAUGHT_TIMEOUT: Duration = Duration::from_millis(300);

/// Documentation addresses (RFC 5737, RFC 3849, RFC 9637), as destinations. No host has them, so an
/// answer proves that the connection was captured.
const NOBODY: [IpAddr; 5] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)),
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 1)),
];

/// Destination ports to try, in this order. The first one that is not excluded is used.
const PORTS: [u16; 6] = [443, 80, 8080, 7, 30001, 61001];

/// The result of one test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The rules behave as planned.
    Proven,
    /// The rules do not behave as planned.
    Failed,
    /// The test could not run here.
    Skipped,
}

/// The results of all tests, each with a text for the operator.
#[derive(Debug, Default)]
pub struct Report(Vec<(Outcome, String)>);

impl Report {
    /// Whether no test failed.
    pub fn is_good(&self) -> bool {
        self.0.iter().all(|(outcome, _)| *outcome != Outcome::Failed)
    }

    fn say(&mut self, outcome: Outcome, text: impl Into<String>) {
        self.0.push((outcome, text.into()));
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (outcome, text) in &self.0 {
            let word = match outcome {
                Outcome::Proven => "ok",
                Outcome::Failed => "FAILED",
                Outcome::Skipped => "skipped",
            };
            writeln!(f, "{word:<8} {text}")?;
        }
        Ok(())
    }
}

/// Tests the rules of `plan` in the current network namespace.
///
/// # Errors
/// If no test can run: another program uses a port, or the traffic of this user is not captured.
pub fn check(plan: &InterceptPlan) -> Result<Report, InterceptError> {
    let mut report = Report::default();
    let uid = nix::unistd::geteuid().as_raw();
    let gid = nix::unistd::getegid().as_raw();
    let excluded = [&plan.proxy.owners, &plan.exclude_owners];
    if excluded.iter().any(|owners| owners.uids.contains(&uid) || owners.gids.contains(&gid)) {
        return Err(InterceptError::Plan(format!(
            "connections of this account (uid {uid}, gid {gid}) are excluded from capture\n  \
             run the check as another user"
        )));
    }
    let _listeners = listen_where_free(plan, &mut report)?;
    let families: &[bool] = if has_ipv6() { &[false, true] } else { &[false] };
    if plan.outbound {
        for &v6 in families {
            outbound(plan, v6, &mut report);
        }
    }
    if plan.inbound != Inbound::None {
        match Visitor::new() {
            Ok(visitor) => {
                for &v6 in families {
                    inbound(plan, &visitor, v6, &mut report)?;
                }
            }
            Err(error) => {
                let reason = error.to_string().replace("\n ", ";");
                report.say(Outcome::Skipped, format!("inbound: no client outside: {reason}"));
            }
        }
    }
    if plan.catches_udp() || plan.dns.is_some() {
        report.say(Outcome::Skipped, "UDP and DNS: `intercept show --installed` counts packets");
    }
    Ok(report)
}

/// Listens on each port of the proxy that has no listener, so that captured connections are
/// accepted.
fn listen_where_free(
    plan: &InterceptPlan,
    report: &mut Report,
) -> Result<Vec<Socket>, InterceptError> {
    let mut wanted = Vec::new();
    if plan.outbound {
        wanted.push((plan.outbound_port, false, [Ipv4Addr::LOCALHOST.into(), localhost6()]));
    }
    if plan.inbound != Inbound::None {
        let any = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
        wanted.push((plan.inbound_port, plan.inbound == Inbound::Tproxy, any));
    }
    let mut listeners = Vec::new();
    for (port, transparent, addresses) in wanted {
        if listens(port) {
            continue;
        }
        for ip in addresses {
            if ip.is_ipv6() && !has_ipv6() {
                continue;
            }
            let address = SocketAddr::new(ip, port);
            let listener = listen(address, transparent);
            let said = |error| {
                InterceptError::Plan(format!("cannot listen on {address}: {}", plain(&error)))
            };
            listeners.push(listener.map_err(said)?);
        }
        report
            .say(Outcome::Skipped, format!("no proxy listens on {port}; the check listens there"));
    }
    Ok(listeners)
}

fn localhost6() -> IpAddr {
    Ipv6Addr::LOCALHOST.into()
}

fn listen(address: SocketAddr, transparent: bool) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if transparent {
        // An IPv6 socket needs IP_TRANSPARENT separately for IPv4.
        socket.set_ip_transparent_v4(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(16)?;
    Ok(socket)
}

fn outbound(plan: &InterceptPlan, v6: bool, report: &mut Report) {
    let family = family(v6);
    let Some(port) = port(&plan.exclude_outbound, plan) else {
        let text = format!("outbound {family}: all ports that could be tried are excluded");
        return report.say(Outcome::Skipped, text);
    };
    let free = |ip: &&IpAddr| {
        ip.is_ipv6() == v6 && !plan.exclude_outbound.networks.iter().any(|n| n.contains(**ip))
    };
    let routed = |ip: &IpAddr| is_routed(SocketAddr::new(*ip, port));
    let Some(ip) = NOBODY.iter().filter(free).copied().find(routed) else {
        let text = format!("outbound {family}: no route to anywhere, so nothing can leave");
        return report.say(Outcome::Skipped, text);
    };
    let to = SocketAddr::new(ip, port);
    let at = plan.outbound_port;
    let seen = try_connect(to, None, CONNECT_TIMEOUT);
    let mut text = format!("outbound {family}: a connection to {to} ");
    let outcome = match &seen {
        Ok(Seen::Caught(local)) if local.port() == at => {
            _ = write!(text, "is caught at {local}");
            Outcome::Proven
        }
        Ok(Seen::Ended) => {
            text.push_str("is caught, and ended at once");
            Outcome::Proven
        }
        other => {
            _ = write!(text, "must be caught at port {at}, and {}", said(other));
            Outcome::Failed
        }
    };
    report.say(outcome, text);
    let mark = plan.proxy.mark;
    let mut text = format!("outbound {family}: the same with the proxy's mark {mark} ");
    let outcome = match try_connect(to, Some(mark), UNCAUGHT_TIMEOUT) {
        Ok(Seen::Caught(local)) => {
            _ = write!(text, "is caught at {local}: the proxy would capture itself");
            Outcome::Failed
        }
        Ok(Seen::Ended) => {
            text.push_str("is caught: the proxy would capture itself");
            Outcome::Failed
        }
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            text.push_str("needs CAP_NET_ADMIN");
            Outcome::Skipped
        }
        _ => {
            text.push_str("is left alone");
            Outcome::Proven
        }
    };
    report.say(outcome, text);
}

fn inbound(
    plan: &InterceptPlan,
    visitor: &Visitor,
    v6: bool,
    report: &mut Report,
) -> Result<(), InterceptError> {
    let family = family(v6);
    let excluded = plan.exclude_inbound.networks.iter().any(|n| n.contains(Visitor::own(v6)));
    let Some(port) = port(&plan.exclude_inbound, plan).filter(|_| !excluded) else {
        let text = format!("inbound {family}: all that could be tried is excluded");
        report.say(Outcome::Skipped, text);
        return Ok(());
    };
    let to = visitor.address(v6, port);
    let at = plan.inbound_port;
    // This socket stands for the application. It gets the client's connection only if the rules do
    // not capture it. Otherwise it may get a connection from the proxy.
    let listening =
        |error| InterceptError::Plan(format!("cannot listen on {to}: {}", plain(&error)));
    let application = listen(to, false).map_err(listening)?;
    application.set_nonblocking(true).map_err(listening)?;
    // The client's socket is in the other namespace. The socket of its peer is in this one.
    let connected = visitor.within(move || Ok(connect(to, None, CONNECT_TIMEOUT)))?;
    let seen = connected.map(|(_held, local)| owner_of_other_end(&application, local, at));
    let mut text = format!("inbound {family}: a connection from outside to port {port} ");
    let outcome = match &seen {
        Ok(Seen::Caught(local)) if local.port() == at => {
            _ = write!(text, "is caught at {local}");
            Outcome::Proven
        }
        Ok(Seen::HandedOn) if plan.inbound == Inbound::Tproxy => {
            _ = write!(text, "is caught by TPROXY");
            Outcome::Proven
        }
        Ok(Seen::Ended) => {
            text.push_str("is caught");
            Outcome::Proven
        }
        other => {
            _ = write!(text, "must be caught at port {at}, and {}", said(other));
            if matches!(other, Err(error) if error.kind() == std::io::ErrorKind::TimedOut) {
                _ = write!(text, ": does a firewall drop packets to port {at}?");
            }
            Outcome::Failed
        }
    };
    report.say(outcome, text);
    Ok(())
}

/// Finds the owner of the socket at the other end of the connection from `client` to `application`.
/// `at` is the port of the proxy to which the rules may have redirected the connection.
fn owner_of_other_end(application: &Socket, client: SocketAddr, at: u16) -> Seen {
    let began = Instant::now();
    let mut handed_on = false;
    while began.elapsed() < UNCAUGHT_TIMEOUT {
        if let Ok((_, peer)) = application.accept() {
            if peer.as_socket() == Some(client) {
                return Seen::Uncaught;
            }
            handed_on = true;
        }
        let port = application.local_addr().ok().and_then(|address| address.as_socket());
        let port = port.map_or(0, |address| address.port());
        let ends = sockets().into_iter().filter(|socket| socket.remote == client);
        let mut caught = ends.filter(|socket| socket.local.port() != port || port == at);
        if let Some(socket) = caught.next() {
            return Seen::Caught(socket.local);
        }
        std::thread::yield_now();
    }
    // A socket of this host has completed the handshake, and it was not that of the application.
    if handed_on { Seen::HandedOn } else { Seen::Ended }
}

/// The owner of the socket at the other end of a connection.
enum Seen {
    /// Another socket of this host, with this local address. So the connection was captured.
    Caught(SocketAddr),
    /// A proxy, which then connected to the application.
    HandedOn,
    /// A proxy that closed the connection at once, or a socket that cannot be distinguished from
    /// that of the application.
    Ended,
    /// The application itself. So the connection was not captured.
    Uncaught,
    /// No socket of this host.
    Elsewhere,
}

fn said(seen: &std::io::Result<Seen>) -> String {
    use std::io::ErrorKind;
    match seen {
        Ok(Seen::Caught(local)) => format!("is caught at {local}"),
        Ok(Seen::HandedOn) => "is handed on from another port".to_owned(),
        Ok(Seen::Ended) => "is ended at once".to_owned(),
        Ok(Seen::Uncaught) => "reaches the application".to_owned(),
        Ok(Seen::Elsewhere) => "a host outside answered".to_owned(),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => "is refused".to_owned(),
        Err(error) if error.kind() == ErrorKind::TimedOut => "nobody answers".to_owned(),
        Err(error) => format!("fails: {}", plain(&error)),
    }
}

fn try_connect(to: SocketAddr, mark: Option<u32>, limit: Duration) -> std::io::Result<Seen> {
    let (socket, local) = connect(to, mark, limit)?;
    Ok(match other_end(local) {
        // If a proxy refuses a captured connection, it closes the connection at once.
        Seen::Elsewhere if has_ended(&socket) => Seen::Ended,
        seen => seen,
    })
}

fn has_ended(socket: &Socket) -> bool {
    let mut byte = [std::mem::MaybeUninit::uninit()];
    let waits = std::io::ErrorKind::WouldBlock;
    socket.set_nonblocking(true).is_ok()
        && socket.peek(&mut byte).map_or_else(|error| error.kind() != waits, |length| length == 0)
}

/// Opens a connection, and returns its socket and its local address. The connection is open as long
/// as the caller keeps the socket.
fn connect(
    to: SocketAddr,
    mark: Option<u32>,
    limit: Duration,
) -> std::io::Result<(Socket, SocketAddr)> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    if let Some(mark) = mark {
        socket.set_mark(mark)?;
    }
    socket.connect_timeout(&to.into(), limit)?;
    let local = socket.local_addr()?.as_socket();
    let local = local.ok_or_else(|| std::io::Error::other("a socket without an address"))?;
    Ok((socket, local))
}

/// Finds the socket in this namespace whose peer is `local`. The socket may exist only briefly: it
/// may appear before `connect` returns, and a proxy that refuses the connection closes it soon.
fn other_end(local: SocketAddr) -> Seen {
    let began = Instant::now();
    loop {
        let found = sockets().into_iter().find(|socket| socket.remote == local);
        match found {
            Some(socket) => return Seen::Caught(socket.local),
            None if began.elapsed() > UNCAUGHT_TIMEOUT => return Seen::Elsewhere,
            None => std::thread::yield_now(),
        }
    }
}

/// Whether a socket in this network namespace listens on this TCP port.
pub(super) fn listens(port: u16) -> bool {
    sockets().iter().any(|socket| socket.listens && socket.local.port() == port)
}

fn sockets() -> Vec<TcpSocket> {
    ["tcp", "tcp6"].iter().flat_map(|name| tcp_sockets(&proc_net(name))).collect()
}

fn family(v6: bool) -> &'static str {
    if v6 { "IPv6" } else { "IPv4" }
}

/// The first port in `PORTS` that is not excluded and has no listener here.
fn port(exclusions: &Exclusions, plan: &InterceptPlan) -> Option<u16> {
    let excluded = |port| exclusions.ports.contains(port) || plan.own_ports.contains(port);
    PORTS.into_iter().find(|&port| !excluded(port) && !listens(port))
}

fn is_routed(to: SocketAddr) -> bool {
    let any: SocketAddr = match to {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    // `connect` on a UDP socket only looks up the route. It sends no packet.
    UdpSocket::bind(any).and_then(|socket| socket.connect(to)).is_ok()
}
