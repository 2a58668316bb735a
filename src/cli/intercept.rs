//! `ringway intercept`: the rules that bring a service's traffic to the proxy.

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::authz::Network;
use crate::intercept::plan::{
    Exclusions, INBOUND_PORT, Inbound, Interface, OUTBOUND_PORT, Owners, PROXY_MARK, PortRange,
    Ports, Proxy, USER, WhenDead,
};
use crate::intercept::{self, Backend, InterceptError, InterceptPlan};

#[derive(Subcommand)]
pub(super) enum InterceptCommand {
    /// Installs the rules, in place of those that were installed before.
    #[command(after_help = "Examples:\n  ringway intercept up\n  \
        ringway intercept up --tproxy --exclude-inbound-ports 22,9100\n  \
        ringway intercept up --netns shop --udp 443 --dns 15053\n\n\
        Rules of others are never touched, and what is in the way is an error. Doing it again \
        replaces all rules at once.")]
    Up(UpArgs),
    /// Removes everything that `up` has installed, also after a crash.
    #[command(after_help = "Examples:\n  ringway intercept down\n  \
        ringway intercept down --netns shop\n\n\
        Nothing needs to be remembered: what is ours bears our name.")]
    Down(DownArgs),
    /// Prints the rules that `up` would install, or those that are in place.
    #[command(after_help = "Examples:\n  ringway intercept show --tproxy\n  \
        ringway intercept show --backend iptables\n  \
        ringway intercept show --installed      # with counters; exit code 1 when there are none")]
    Show(ShowArgs),
}

/// Where, and by which program.
#[derive(Args)]
pub(super) struct PlaceArgs {
    /// The network namespace: a name of `ip netns`, the id of a process in it, or a path.
    #[arg(long, value_name = "NAME|PID")]
    netns: Option<String>,
    /// The program that changes the rules. Default: nft where it works, else iptables.
    #[arg(long, value_enum)]
    backend: Option<Backend>,
}

/// What is to be caught.
#[derive(Args)]
pub(super) struct PlanArgs {
    /// Catches inbound connections by TPROXY: without NAT, and the application can see the
    /// client's address. The proxy needs CAP_NET_ADMIN.
    #[arg(long, conflicts_with = "no_inbound")]
    tproxy: bool,
    /// Where inbound connections are taken.
    #[arg(long, value_name = "PORT", default_value_t = INBOUND_PORT)]
    inbound_port: u16,
    /// Where outbound connections are taken.
    #[arg(long, value_name = "PORT", default_value_t = OUTBOUND_PORT)]
    outbound_port: u16,
    /// Catches no inbound connections.
    #[arg(long)]
    no_inbound: bool,
    /// Catches no outbound connections.
    #[arg(long)]
    no_outbound: bool,
    /// UDP that is caught: ports of destinations, or all. Needs a proxy with CAP_NET_ADMIN.
    #[arg(long, value_name = "PORTS", value_delimiter = ',')]
    udp: Vec<PortRange>,
    /// The port of the resolver on this host that gets all DNS queries.
    #[arg(long, value_name = "PORT")]
    dns: Option<u16>,
    /// The user that the proxy runs as, which is left alone; `none` when the mark is enough.
    /// Default: `ringway`, where there is one.
    #[arg(long, value_name = "NAME|UID")]
    user: Option<String>,
    /// The group that the proxy runs as, which is left alone.
    #[arg(long, value_name = "NAME|GID")]
    group: Option<String>,
    /// The mark of the proxy's sockets, which are left alone.
    #[arg(long, default_value_t = PROXY_MARK)]
    mark: u32,
    #[command(flatten)]
    exclude: ExcludeArgs,
    /// While no proxy runs, caught traffic passes by it where rules can say so (nft with
    /// --tproxy); else remove the rules when it ends.
    #[arg(long, conflicts_with = "fail_closed")]
    fail_open: bool,
    /// While no proxy runs, caught traffic is refused. That is the default.
    #[arg(long)]
    fail_closed: bool,
}

/// What is left alone. Lists are separated by commas, or given several times.
#[derive(Args)]
pub(super) struct ExcludeArgs {
    /// Ports of this host: 22,8000-8100.
    #[arg(long, value_name = "PORTS", value_delimiter = ',')]
    exclude_inbound_ports: Vec<PortRange>,
    /// Ports of others.
    #[arg(long, value_name = "PORTS", value_delimiter = ',')]
    exclude_outbound_ports: Vec<PortRange>,
    /// Addresses that connect: 10.0.0.0/8, 2001:db8::/32.
    #[arg(long, value_name = "CIDRS", value_delimiter = ',', value_parser = network)]
    exclude_inbound_cidrs: Vec<Network>,
    /// Addresses that are connected to.
    #[arg(long, value_name = "CIDRS", value_delimiter = ',', value_parser = network)]
    exclude_outbound_cidrs: Vec<Network>,
    /// Interfaces that traffic arrives through: eth1, or docker+ for all that begin so.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    exclude_inbound_interfaces: Vec<Interface>,
    /// Interfaces that traffic leaves through.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    exclude_outbound_interfaces: Vec<Interface>,
    /// Users whose connections are not caught.
    #[arg(long, value_name = "NAMES|UIDS", value_delimiter = ',')]
    exclude_uids: Vec<String>,
    /// Groups whose connections are not caught.
    #[arg(long, value_name = "NAMES|GIDS", value_delimiter = ',')]
    exclude_gids: Vec<String>,
}

#[derive(Args)]
pub(super) struct UpArgs {
    #[command(flatten)]
    place: PlaceArgs,
    #[command(flatten)]
    plan: PlanArgs,
}

#[derive(Args)]
pub(super) struct DownArgs {
    #[command(flatten)]
    place: PlaceArgs,
}

#[derive(Args)]
pub(super) struct ShowArgs {
    #[command(flatten)]
    place: PlaceArgs,
    #[command(flatten)]
    plan: PlanArgs,
    /// Prints what is in place instead.
    #[arg(long)]
    installed: bool,
}

pub(super) fn intercept(command: InterceptCommand) -> ExitCode {
    let done = match command {
        InterceptCommand::Up(arguments) => up(&arguments),
        InterceptCommand::Down(arguments) => down(&arguments),
        InterceptCommand::Show(arguments) => show(&arguments),
    };
    match done {
        Ok((text, code)) => {
            // What was to be done is done, also for a reader that has left (`| head`).
            std::io::stdout().write_all(text.as_bytes()).ok();
            code
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

type Done = Result<(String, ExitCode), InterceptError>;

fn up(arguments: &UpArgs) -> Done {
    let plan = plan(&arguments.plan)?;
    enter(&arguments.place)?;
    let backend = Backend::choose(arguments.place.backend)?;
    intercept::up(&plan, backend)?;
    Ok((format!("installed: {plan}\n"), ExitCode::SUCCESS))
}

fn down(arguments: &DownArgs) -> Done {
    enter(&arguments.place)?;
    let removed = intercept::down(arguments.place.backend)?;
    let text = match removed.is_empty() {
        true => "nothing to remove\n".to_owned(),
        false => format!("removed: {}\n", removed.join(", ")),
    };
    Ok((text, ExitCode::SUCCESS))
}

fn show(arguments: &ShowArgs) -> Done {
    if !arguments.installed {
        let plan = plan(&arguments.plan)?;
        let backend = arguments.place.backend.unwrap_or(Backend::Nft);
        return Ok((intercept::planned(&plan, backend), ExitCode::SUCCESS));
    }
    enter(&arguments.place)?;
    let text = intercept::installed()?;
    match text.is_empty() {
        true => Ok(("# nothing is installed\n".to_owned(), ExitCode::FAILURE)),
        false => Ok((text, ExitCode::SUCCESS)),
    }
}

fn enter(place: &PlaceArgs) -> Result<(), InterceptError> {
    place.netns.as_deref().map_or(Ok(()), intercept::enter)
}

fn plan(arguments: &PlanArgs) -> Result<InterceptPlan, InterceptError> {
    let exclude = &arguments.exclude;
    let ids = |names: &[String], id: fn(&str) -> Result<u32, InterceptError>| {
        names.iter().map(|name| id(name)).collect::<Result<Vec<_>, _>>()
    };
    Ok(InterceptPlan {
        inbound: match (arguments.no_inbound, arguments.tproxy) {
            (true, _) => Inbound::None,
            (false, true) => Inbound::Tproxy,
            (false, false) => Inbound::Redirect,
        },
        outbound: !arguments.no_outbound,
        inbound_port: arguments.inbound_port,
        outbound_port: arguments.outbound_port,
        udp: Ports::new(arguments.udp.iter().copied()),
        dns: arguments.dns,
        proxy: Proxy {
            mark: arguments.mark,
            owners: Owners {
                uids: proxy_user(arguments.user.as_deref())?,
                gids: arguments
                    .group
                    .iter()
                    .map(|g| intercept::gid(g))
                    .collect::<Result<_, _>>()?,
            },
        },
        own_ports: Ports::default(),
        exclude_inbound: Exclusions {
            ports: Ports::new(exclude.exclude_inbound_ports.iter().copied()),
            networks: exclude.exclude_inbound_cidrs.clone(),
            interfaces: exclude.exclude_inbound_interfaces.clone(),
        },
        exclude_outbound: Exclusions {
            ports: Ports::new(exclude.exclude_outbound_ports.iter().copied()),
            networks: exclude.exclude_outbound_cidrs.clone(),
            interfaces: exclude.exclude_outbound_interfaces.clone(),
        },
        exclude_owners: Owners {
            uids: ids(&exclude.exclude_uids, intercept::uid)?,
            gids: ids(&exclude.exclude_gids, intercept::gid)?,
        },
        when_dead: if arguments.fail_open { WhenDead::Open } else { WhenDead::Closed },
    })
}

fn network(text: &str) -> Result<Network, String> {
    Network::parse(text).map_err(|error| format!("{}\n{}", error.message, error.help))
}

fn proxy_user(named: Option<&str>) -> Result<Vec<u32>, InterceptError> {
    match named {
        Some("none") => Ok(Vec::new()),
        Some(name) => Ok(vec![intercept::uid(name)?]),
        None => Ok(intercept::uid(USER).into_iter().collect()),
    }
}
