//! Makes an interception plan from a configuration.

use std::net::SocketAddr;

use super::error::InterceptError;
use super::plan::{Exclusions, Inbound, InterceptPlan, PortRange, Ports, USER, WhenDead};
use super::system::{gid, uid};
use crate::model::{AdminBind, Exclude, InterceptBy, Item, Model};
use crate::net::{Address, Bind};

/// Makes the plan: the traffic of each section with a `bind` is captured. Looks up the names of
/// users and groups.
///
/// # Errors
/// If the configuration captures nothing, or if a user or group does not exist.
pub fn plan_of(model: &Model) -> Result<InterceptPlan, InterceptError> {
    let mesh = &model.mesh;
    let written = &mesh.intercept;
    let mut plan = InterceptPlan {
        inbound: Inbound::None,
        outbound: false,
        own_ports: own_ports(model),
        exclude_inbound: exclusions(&written.exclude_inbound)?,
        exclude_outbound: exclusions(&written.exclude_outbound)?,
        ..InterceptPlan::default()
    };
    let udp = match &*written.udp_ports {
        [] => Ports::new([PortRange::ALL]),
        ranges => ports(ranges)?,
    };
    if let Some(port) = port_of(&mesh.inbound.binds) {
        plan.inbound_port = port;
        plan.inbound = match mesh.inbound.intercept {
            InterceptBy::Redirect => Inbound::Redirect,
            InterceptBy::Tproxy => Inbound::Tproxy,
            InterceptBy::None => Inbound::None,
        };
        if mesh.inbound.udp.is_some() && plan.inbound != Inbound::None {
            plan.inbound_udp = udp.clone();
            plan.quic = mesh.quic.as_ref().and(mesh.quic_port.as_ref()).map(|port| port.value);
        }
    }
    if let Some(port) = port_of(&mesh.outbound.binds) {
        plan.outbound_port = port;
        plan.outbound = mesh.outbound.intercept != InterceptBy::None;
        if mesh.outbound.udp.is_some() && plan.outbound {
            plan.outbound_udp = udp;
        }
    }
    if let Some(mark) = &written.mark {
        plan.proxy.mark = mark.value;
    }
    plan.dns = mesh.dns.and_then(port);
    plan.when_dead = if written.open_when_dead { WhenDead::Open } else { WhenDead::Closed };
    plan.proxy.owners.uids = proxy_uids(written.user.as_deref())?;
    plan.proxy.owners.gids = ids(written.group.as_slice(), gid)?;
    plan.exclude_owners.uids = ids(&written.exclude_users, uid)?;
    plan.exclude_owners.gids = ids(&written.exclude_groups, gid)?;
    if plan.inbound == Inbound::None && !plan.outbound && plan.dns.is_none() {
        return Err(InterceptError::Plan(
            "the configuration captures nothing\n  add `mesh: {inbound: {bind: 0.0.0.0:15006}, \
             outbound: {bind: 127.0.0.1:15001}}`, or one of the two"
                .to_owned(),
        ));
    }
    plan.mistake().map_or(Ok(plan), |mistake| Err(InterceptError::Plan(mistake)))
}

/// The users of the proxy: the one called `named`, or none if it is `none`. Without a name, the
/// user `ringway` if it exists.
///
/// # Errors
/// If the user called `named` does not exist.
pub fn proxy_uids(named: Option<&str>) -> Result<Vec<u32>, InterceptError> {
    match named {
        Some("none") => Ok(Vec::new()),
        Some(name) => Ok(vec![uid(name)?]),
        None => Ok(uid(USER).into_iter().collect()),
    }
}

/// The numeric ids of users or groups.
///
/// # Errors
/// If a user or group does not exist.
pub fn ids(
    names: &[String],
    id: fn(&str) -> Result<u32, InterceptError>,
) -> Result<Vec<u32>, InterceptError> {
    names.iter().map(|name| id(name)).collect()
}

fn exclusions(written: &Exclude) -> Result<Exclusions, InterceptError> {
    let interfaces =
        written.interfaces.iter().map(|name| name.parse().map_err(InterceptError::Plan));
    Ok(Exclusions {
        ports: ports(&written.ports)?,
        networks: written.networks.clone(),
        interfaces: interfaces.collect::<Result<_, _>>()?,
    })
}

fn ports(ranges: &[(u16, u16)]) -> Result<Ports, InterceptError> {
    let range = |(first, last): &(u16, u16)| format!("{first}-{last}").parse::<PortRange>();
    let parsed: Result<Vec<_>, String> = ranges.iter().map(range).collect();
    parsed.map(Ports::new).map_err(InterceptError::Plan)
}

/// The ports of the proxy's listeners that other hosts can reach.
fn own_ports(model: &Model) -> Ports {
    let binds = model.listeners.iter().flat_map(|listener| &listener.value.binds);
    let tcp = binds.filter_map(|bind| match bind.value {
        Bind::Tcp(address) => Some(address),
        Bind::Udp(_) | Bind::Quic(_) | Bind::Passed(_) | Bind::Unix(_) | Bind::Systemd(_) => None,
    });
    let admin = match model.settings.admin.bind {
        AdminBind::At(Address::Tcp(address)) => Some(address),
        AdminBind::At(Address::Unix(_)) | AdminBind::Default | AdminBind::Off => None,
    };
    tcp.chain(admin).filter(|address| !address.ip().is_loopback()).filter_map(port).collect()
}

fn port_of(binds: &[Item<SocketAddr>]) -> Option<u16> {
    binds.iter().find_map(|bind| port(bind.value))
}

fn port(address: SocketAddr) -> Option<u16> {
    Some(address.port()).filter(|&port| port > 0)
}
