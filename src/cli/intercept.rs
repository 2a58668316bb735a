//! `ringway intercept`: kernel rules that redirect a service's traffic to the proxy.

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
    /// Install the rules, and replace those from an earlier `up`.
    #[command(after_help = "Examples:\n  ringway intercept up\n  \
        ringway intercept up --tproxy --exclude-inbound-ports 22,9100\n  \
        ringway intercept up --netns shop --udp 443 --dns 15053\n\n\
        It never changes the rules of other programs; a conflict is an error. Run it again to \
        replace all rules at once.")]
    Up(UpArgs),
    /// Remove everything that `up` installed. This also works after a crash of `up` or the proxy.
    #[command(after_help = "Examples:\n  ringway intercept down\n  \
        ringway intercept down --netns shop\n\n\
        It needs no saved state: it finds the rules by their names.")]
    Down(DownArgs),
    /// Print the rules that `up` would install, or the installed ones.
    #[command(after_help = "Examples:\n  ringway intercept show --tproxy\n  \
        ringway intercept show --backend iptables\n  \
        ringway intercept show --installed      # with counters; exit code 1 when there are none")]
    Show(ShowArgs),
    /// Open connections that must be captured, and report those that were not (exit code 1).
    #[command(after_help = "Examples:\n  ringway intercept check -c /etc/ringway\n  \
        ringway intercept check --tproxy --netns shop\n\n\
        Use the options of `up`. It works with and without a running proxy: it listens on a port \
        that no proxy uses. It tests inbound traffic from a temporary network namespace, which \
        needs root.")]
    Check(UpArgs),
}

/// The network namespace, and the program that changes its rules.
#[derive(Args)]
pub(super) struct PlaceArgs {
    /// The network namespace: a name from `ip netns`, the id of a process in it, or a path.
    #[arg(long, value_name = "NAME|PID")]
    netns: Option<String>,
    /// The program that changes the rules. Default: nft if it works, else iptables.
    #[arg(long, value_enum)]
    backend: Option<Backend>,
}

/// The traffic to capture.
#[derive(Args)]
pub(super) struct PlanArgs {
    /// The configuration of the proxy. It sets what to capture and where to send it. Other options
    /// add to it.
    #[arg(short, long = "config", value_name = "DIR")]
    config: Vec<PathBuf>,
    /// Capture inbound connections with TPROXY: there is no NAT, and the application can see the
    /// client's address. The proxy needs CAP_NET_ADMIN.
    #[arg(long, conflicts_with = "no_inbound")]
    tproxy: bool,
    /// The proxy's port for inbound connections. Default: that of mesh.inbound.bind, or 15006.
    #[arg(long, value_name = "PORT")]
    inbound_port: Option<u16>,
    /// The proxy's port for outbound connections. Default: that of mesh.outbound.bind, or 15001.
    #[arg(long, value_name = "PORT")]
    outbound_port: Option<u16>,
    /// Do not capture inbound connections.
    #[arg(long)]
    no_inbound: bool,
    /// Do not capture outbound connections.
    #[arg(long)]
    no_outbound: bool,
    /// UDP destination ports to capture, or all. The proxy needs CAP_NET_ADMIN.
    #[arg(long, value_name = "PORTS", value_delimiter = ',')]
    udp: Vec<PortRange>,
    /// The port of the resolver on this host that gets all DNS queries.
    #[arg(long, value_name = "PORT")]
    dns: Option<u16>,
    /// The user of the proxy, whose traffic is not captured; `none` if the mark is enough. Default:
    /// `ringway`, if that user exists.
    #[arg(long, value_name = "NAME|UID")]
    user: Option<String>,
    /// The group of the proxy, whose traffic is not captured.
    #[arg(long, value_name = "NAME|GID")]
    group: Option<String>,
    /// The mark of the proxy's sockets, whose traffic is not captured. Default:
    /// mesh.intercept.mark, or 1338.
    #[arg(long)]
    mark: Option<u32>,
    #[command(flatten)]
    exclude: ExcludeArgs,
    /// While no proxy runs, captured traffic bypasses it, if the rules can do this (nft with
    /// --tproxy). Otherwise remove the rules when the proxy ends.
    #[arg(long, conflicts_with = "fail_closed")]
    fail_open: bool,
    /// While no proxy runs, captured traffic is refused. This is the default.
    #[arg(long)]
    fail_closed: bool,
}

/// Traffic that is not captured. Separate values with commas, or repeat the option.
#[derive(Args)]
pub(super) struct ExcludeArgs {
    /// Ports of this host: 22,8000-8100.
    #[arg(long, value_name = "PORTS", value_delimiter = ',')]
    exclude_inbound_ports: Vec<PortRange>,
    /// Ports of other hosts.
    #[arg(long, value_name = "PORTS", value_delimiter = ',')]
    exclude_outbound_ports: Vec<PortRange>,
    /// Source addresses: 10.0.0.0/8, 2001:db8::/32.
    #[arg(long, value_name = "CIDRS", value_delimiter = ',', value_parser = network)]
    exclude_inbound_cidrs: Vec<Network>,
    /// Destination addresses.
    #[arg(long, value_name = "CIDRS", value_delimiter = ',', value_parser = network)]
    exclude_outbound_cidrs: Vec<Network>,
    /// Interfaces through which traffic arrives: eth1, or docker+ for all names with this prefix.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    exclude_inbound_interfaces: Vec<Interface>,
    /// Interfaces through which traffic leaves.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    exclude_outbound_interfaces: Vec<Interface>,
    /// Users whose connections are not captured.
    #[arg(long, value_name = "NAMES|UIDS", value_delimiter = ',')]
    exclude_uids: Vec<String>,
    /// Groups whose connections are not captured.
    #[arg(long, value_name = "NAMES|GIDS", value_delimiter = ',')]
    exclude_gids: Vec<String>,
}

/// Rules that exist while the proxy runs.
#[derive(Args)]
pub(super) struct RunInterceptArgs {
    /// Install the rules for `mesh:` at the start, and remove them at the end.
    #[arg(long)]
    intercept: bool,
    /// The program that changes the rules. Default: nft if it works, else iptables.
    #[arg(long, value_enum, requires = "intercept")]
    backend: Option<Backend>,
    /// While the proxy does not run, traffic bypasses it; with nft even after a SIGKILL.
    #[arg(long, requires = "intercept", conflicts_with = "fail_closed")]
    fail_open: bool,
    /// While the proxy does not run, captured traffic is refused. This is the default.
    #[arg(long, requires = "intercept")]
    fail_closed: bool,
}

impl RunInterceptArgs {
    /// The rules to install when the configuration is active.
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
                if let Some(warning) = intercept::login_warning(&plan) {
                    tracing::warn!("{warning}");
                }
                let installed = Installed::up(&plan, backend)?;
                tracing::info!("capture rules installed: {plan}");
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
    /// Print the installed rules instead.
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
            // Ignore the error of a closed pipe (`| head`): the command has done its work.
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
    // The operator's SSH login is in this network namespace. Rules in another one do not capture
    // it.
    let login = arguments.place.netns.is_none().then(|| intercept::login_warning(&plan)).flatten();
    if let Some(warning) = login {
        eprintln!("warning: {warning}");
    }
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

/// Makes the plan from the configuration, if there is one, and from the options.
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

/// Reads the configuration. An error in it is the result.
fn read(arguments: &[PathBuf]) -> Result<std::sync::Arc<Model>, InterceptError> {
    let loaded = files::load_without_log(arguments, &ProcessEnvironment);
    let compiled = files::compile(&loaded, 0, &mut Registry::new(1), &Resolutions::new());
    compiled.map_err(|errors| InterceptError::Plan(errors.to_string().trim_end().to_owned()))?;
    Ok(loaded.model())
}

fn network(text: &str) -> Result<Network, String> {
    Network::parse(text).map_err(|error| format!("{}\n{}", error.message, error.help))
}
