//! Builds a plan from a configuration.

use std::net::SocketAddr;

use super::error::InterceptError;
use super::plan::{Exclusions, Inbound, InterceptPlan, PortRange, Ports, USER, WhenDead};
use super::system::{gid, uid};
use crate::config::file::Config;
use crate::config::file_intercept::{self, Side};
use crate::config::file_mesh::InterceptBy;
use crate::config::values::{OneOrMany, Placed};

/// Builds the plan: traffic of each section with a `bind` is captured. Looks up user and group
/// names.
///
/// # Errors
/// When there is nothing to capture, or a user or group does not exist.
pub fn plan_of(config: &Config) -> Result<InterceptPlan, InterceptError> {
    let mesh = &config.mesh;
    let written = &mesh.intercept;
    let mut plan = InterceptPlan {
        inbound: Inbound::None,
        outbound: false,
        own_ports: own_ports(config),
        exclude_inbound: exclusions(&written.exclude.inbound),
        exclude_outbound: exclusions(&written.exclude.outbound),
        ..InterceptPlan::default()
    };
    let udp = match &*written.udp.0 {
        [] => Ports::new([PortRange::ALL]),
        ranges => Ports::new(ranges.iter().map(|range| range.0)),
    };
    if let Some(port) = port_of(&mesh.inbound.bind) {
        plan.inbound_port = port;
        plan.inbound = match mesh.inbound.intercept {
            InterceptBy::Redirect => Inbound::Redirect,
            InterceptBy::Tproxy => Inbound::Tproxy,
            InterceptBy::None => Inbound::None,
        };
        if mesh.inbound.udp.is_some() && plan.inbound != Inbound::None {
            plan.inbound_udp = udp.clone();
        }
    }
    if let Some(port) = port_of(&mesh.outbound.bind) {
        plan.outbound_port = port;
        plan.outbound = mesh.outbound.intercept != InterceptBy::None;
        if mesh.outbound.udp.is_some() && plan.outbound {
            plan.outbound_udp = udp;
        }
    }
    if let Some(mark) = &written.mark {
        plan.proxy.mark = mark.value;
    }
    plan.dns = mesh.dns.as_ref().and_then(|dns| port(&dns.bind.value));
    plan.when_dead = match written.when_dead {
        file_intercept::WhenDead::Closed => WhenDead::Closed,
        file_intercept::WhenDead::Open => WhenDead::Open,
    };
    plan.proxy.owners.uids = proxy_uids(written.user.as_deref())?;
    plan.proxy.owners.gids = ids(written.group.as_slice(), gid)?;
    plan.exclude_owners.uids = ids(&written.exclude.users.0, uid)?;
    plan.exclude_owners.gids = ids(&written.exclude.groups.0, gid)?;
    if plan.inbound == Inbound::None && !plan.outbound && plan.dns.is_none() {
        return Err(InterceptError::Plan(
            "the configuration catches nothing\n  add `mesh: {inbound: {bind: 0.0.0.0:15006}, \
             outbound: {bind: 127.0.0.1:15001}}`, or one of the two"
                .to_owned(),
        ));
    }
    plan.mistake().map_or(Ok(plan), |mistake| Err(InterceptError::Plan(mistake)))
}

/// The users of the proxy: the named one, none for `none`, or `ringway` if that user exists.
///
/// # Errors
/// When the named user does not exist.
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
/// When a name does not exist.
pub fn ids(
    names: &[String],
    id: fn(&str) -> Result<u32, InterceptError>,
) -> Result<Vec<u32>, InterceptError> {
    names.iter().map(|name| id(name)).collect()
}

fn exclusions(side: &Side) -> Exclusions {
    Exclusions {
        ports: Ports::new(side.ports.0.iter().map(|range| range.0)),
        networks: side.cidrs.0.iter().map(|cidr| cidr.0).collect(),
        interfaces: side.interfaces.0.iter().map(|name| name.0.clone()).collect(),
    }
}

/// The ports of the proxy that other hosts can reach.
fn own_ports(config: &Config) -> Ports {
    let listeners = config.listeners.0.iter().flat_map(|(_, listener)| &listener.value.bind.0);
    let binds = listeners.chain(&config.admin.bind);
    let from_elsewhere = |bind: &&Placed<String>| {
        bind.value.parse::<SocketAddr>().is_ok_and(|address| !address.ip().is_loopback())
    };
    binds.filter(from_elsewhere).filter_map(|bind| port(&bind.value)).collect()
}

fn port_of(binds: &OneOrMany<Placed<String>>) -> Option<u16> {
    binds.0.iter().find_map(|bind| port(&bind.value))
}

fn port(bind: &str) -> Option<u16> {
    bind.parse::<SocketAddr>().ok().map(|address| address.port()).filter(|&port| port > 0)
}
