//! `ringway intercept`: the rules that bring a service's traffic to the proxy.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::compile::Resolutions;
use crate::compile::registry::Registry;
use crate::control::run::Interception;
use crate::intercept::plan::{
    Exclusions, Inbound, Interface, Owners, PROXY_MARK, PortRange, Ports, Proxy, WhenDead,
};
use crate::intercept::{
    self, Backend, Installed, InterceptError, InterceptPlan, ids, plan_of, proxy_uids,
};
use crate::model::Model;
use crate::net::Network;
use crate::sources::files;
use crate::sources::files::ProcessEnvironment;

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
    /// Opens connections that must be captured, and says which were not; exit code 1 then.
    #[command(after_help = "Examples:\n  ringway intercept check -c /etc/ringway\n  \
        ringway intercept check --tproxy --netns shop\n\n\
        Give it what `up` was given. It works with and without a running proxy: where nobody \
        listens, it does so itself. Inbound is tried from a network namespace that is made for \
        it, which needs root.")]
    Check(UpArgs),
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

/// What is to be captured.
#[derive(Args)]
pub(super) struct PlanArgs {
    /// The configuration of the proxy, which says what is captured and where it goes. What else is
    /// given here comes on top.
    #[arg(short, long = "config", value_name = "DIR")]
    config: Vec<PathBuf>,
    /// Catches inbound connections by TPROXY: without NAT, and the application can see the
    /// client's address. The proxy needs CAP_NET_ADMIN.
    #[arg(long, conflicts_with = "no_inbound")]
    tproxy: bool,
    /// Where inbound connections are taken.
    /// Default: that of mesh.inbound.bind, or 15006.
    #[arg(long, value_name = "PORT")]
    inbound_port: Option<u16>,
    /// Where outbound connections are taken.
    /// Default: that of mesh.outbound.bind, or 15001.
    #[arg(long, value_name = "PORT")]
    outbound_port: Option<u16>,
    /// Catches no inbound connections.
    #[arg(long)]
    no_inbound: bool,
    /// Catches no outbound connections.
    #[arg(long)]
    no_outbound: bool,
    /// UDP that is captured: ports of destinations, or all. Needs a proxy with CAP_NET_ADMIN.
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
    /// The mark of the proxy's sockets, which are left alone. Default: mesh.intercept.mark, or
    /// 1338.
    #[arg(long)]
    mark: Option<u32>,
    #[command(flatten)]
    exclude: ExcludeArgs,
    /// While no proxy runs, captured traffic passes by it where rules can say so (nft with
    /// --tproxy); else remove the rules when it ends.
    #[arg(long, conflicts_with = "fail_closed")]
    fail_open: bool,
    /// While no proxy runs, captured traffic is refused. That is the default.
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
    /// Users whose connections are not captured.
    #[arg(long, value_name = "NAMES|UIDS", value_delimiter = ',')]
    exclude_uids: Vec<String>,
    /// Groups whose connections are not captured.
    #[arg(long, value_name = "NAMES|GIDS", value_delimiter = ',')]
    exclude_gids: Vec<String>,
}

/// Rules for as long as the proxy runs.
#[derive(Args)]
pub(super) struct RunInterceptArgs {
    /// Installs the rules that `mesh:` asks for, and removes them at the end.
    #[arg(long)]
    intercept: bool,
    /// The program that changes the rules. Default: nft where it works, else iptables.
    #[arg(long, value_enum, requires = "intercept")]
    backend: Option<Backend>,
    /// Traffic passes by the proxy when it is not there: with nft also after a SIGKILL.
    #[arg(long, requires = "intercept", conflicts_with = "fail_closed")]
    fail_open: bool,
    /// OriginalDestination traffic is refused while no proxy runs. That is the default.
    #[arg(long, requires = "intercept")]
    fail_closed: bool,
}

impl RunInterceptArgs {
    /// What is to be done when the configuration is served.
    pub(super) fn install(self) -> Option<Interception> {
        let Self { intercept, backend, fail_open, fail_closed } = self;
        intercept.then(|| -> Interception {
            Box::new(move |config| {
                let mut plan = plan_of(config)?;
                match (fail_open, fail_closed) {
                    (true, _) => plan.when_dead = WhenDead::Open,
                    (_, true) => plan.when_dead = WhenDead::Closed,
                    (false, false) => {}
                }
                let installed = Installed::up(&plan, backend)?;
                tracing::info!("rules are installed: {plan}");
                Ok(installed)
            })
        })
    }
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
        InterceptCommand::Check(arguments) => check(&arguments),
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
    for sentence in intercept::advice(&plan) {
        eprintln!("note: {sentence}");
    }
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

fn check(arguments: &UpArgs) -> Done {
    let plan = plan(&arguments.plan)?;
    enter(&arguments.place)?;
    let report = intercept::check(&plan)?;
    let code = if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    Ok((report.to_string(), code))
}

fn enter(place: &PlaceArgs) -> Result<(), InterceptError> {
    place.netns.as_deref().map_or(Ok(()), intercept::enter)
}

/// What is to be captured: by the configuration, if there is one, and by the options on top.
fn plan(arguments: &PlanArgs) -> Result<InterceptPlan, InterceptError> {
    let mut plan = match arguments.config.is_empty() {
        true => InterceptPlan {
            proxy: Proxy {
                mark: PROXY_MARK,
                owners: Owners { uids: proxy_uids(None)?, gids: Vec::new() },
            },
            ..InterceptPlan::default()
        },
        false => plan_of(&*read(&arguments.config)?)?,
    };
    plan.proxy.mark = arguments.mark.unwrap_or(plan.proxy.mark);
    if let Some(user) = &arguments.user {
        plan.proxy.owners.uids = proxy_uids(Some(user))?;
    }
    plan.proxy.owners.gids.extend(ids(arguments.group.as_slice(), intercept::gid)?);
    if arguments.tproxy {
        plan.inbound = Inbound::Tproxy;
    }
    if arguments.no_inbound {
        plan.inbound = Inbound::None;
        plan.inbound_udp = Ports::default();
    }
    if arguments.no_outbound {
        plan.outbound = false;
        plan.outbound_udp = Ports::default();
    }
    plan.inbound_port = arguments.inbound_port.unwrap_or(plan.inbound_port);
    plan.outbound_port = arguments.outbound_port.unwrap_or(plan.outbound_port);
    plan.dns = arguments.dns.or(plan.dns);
    if !arguments.udp.is_empty() {
        let udp = Ports::new(arguments.udp.iter().copied());
        if plan.inbound != Inbound::None {
            plan.inbound_udp = udp.clone();
        }
        if plan.outbound {
            plan.outbound_udp = udp;
        }
    }
    match (arguments.fail_open, arguments.fail_closed) {
        (true, _) => plan.when_dead = WhenDead::Open,
        (_, true) => plan.when_dead = WhenDead::Closed,
        (false, false) => {}
    }
    exclude(&arguments.exclude, &mut plan)?;
    plan.mistake().map_or(Ok(plan), |mistake| Err(InterceptError::Plan(mistake)))
}

fn exclude(arguments: &ExcludeArgs, plan: &mut InterceptPlan) -> Result<(), InterceptError> {
    let add = |exclusions: &mut Exclusions,
               ports: &[PortRange],
               networks: &[Network],
               interfaces: &[Interface]| {
        exclusions.ports = exclusions.ports.with(&Ports::new(ports.iter().copied()));
        exclusions.networks.extend(networks);
        exclusions.interfaces.extend(interfaces.iter().cloned());
    };
    add(
        &mut plan.exclude_inbound,
        &arguments.exclude_inbound_ports,
        &arguments.exclude_inbound_cidrs,
        &arguments.exclude_inbound_interfaces,
    );
    add(
        &mut plan.exclude_outbound,
        &arguments.exclude_outbound_ports,
        &arguments.exclude_outbound_cidrs,
        &arguments.exclude_outbound_interfaces,
    );
    plan.exclude_owners.uids.extend(ids(&arguments.exclude_uids, intercept::uid)?);
    plan.exclude_owners.gids.extend(ids(&arguments.exclude_gids, intercept::gid)?);
    Ok(())
}

/// The configuration, when it has no mistake.
fn read(arguments: &[PathBuf]) -> Result<std::sync::Arc<Model>, InterceptError> {
    let loaded = files::load(arguments, &ProcessEnvironment);
    let compiled = files::compile(&loaded, 0, &mut Registry::new(1), &Resolutions::new());
    compiled.map_err(|errors| InterceptError::Plan(errors.to_string().trim_end().to_owned()))?;
    Ok(loaded.model)
}

fn network(text: &str) -> Result<Network, String> {
    Network::parse(text).map_err(|error| format!("{}\n{}", error.message, error.help))
}
