//! Warns if the rules would capture the port of the operator's SSH login.

use std::net::IpAddr;

use super::plan::{Inbound, InterceptPlan};

/// The environment variable in which sshd describes the connection: the address and port of the
/// client, then those of the host.
const VARIABLE: &str = "SSH_CONNECTION";

/// The maximum number of parent processes that are searched for the variable.
const PARENTS_MAX: usize = 16;

/// Returns a warning if the rules of `plan` capture new connections to the port of the operator's
/// SSH login. Open connections are not affected, so without the warning the operator would notice
/// it only at the next login.
pub fn login_warning(plan: &InterceptPlan) -> Option<String> {
    warning(plan, &ssh_connection()?)
}

fn warning(plan: &InterceptPlan, connection: &str) -> Option<String> {
    let mut fields = connection.split_ascii_whitespace();
    let client: IpAddr = fields.next()?.split('%').next()?.parse().ok()?;
    let port: u16 = fields.nth(2)?.parse().ok()?;
    let exclusions = &plan.exclude_inbound;
    let left_alone = plan.inbound == Inbound::None
        || client.to_canonical().is_loopback()
        || [plan.inbound_port, plan.outbound_port].contains(&port)
        || plan.own_ports.contains(port)
        || exclusions.ports.contains(port)
        || exclusions.networks.iter().any(|network| network.contains(client));
    if left_alone {
        return None;
    }
    let unless = match exclusions.interfaces.is_empty() {
        true => "",
        false => ", unless it comes through an excluded interface",
    };
    Some(format!(
        "you are logged in from {client} through port {port}, and the rules capture your next \
         login{unless}: add --exclude-inbound-ports {port}, or exclude.inbound.ports of \
         mesh.intercept"
    ))
}

/// The value of the variable in this process, or in the nearest parent process that has it: sudo
/// removes the variable.
fn ssh_connection() -> Option<String> {
    if let Ok(value) = std::env::var(VARIABLE) {
        return Some(value);
    }
    let mut process = parent("self")?;
    for _ in 0..PARENTS_MAX {
        let environment = std::fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
        let found = environment.split(|byte| *byte == 0).find_map(|entry| {
            std::str::from_utf8(entry).ok()?.strip_prefix(VARIABLE)?.strip_prefix('=')
        });
        if let Some(value) = found {
            return Some(value.to_owned());
        }
        process = parent(&process)?;
    }
    None
}

/// The parent of a process in /proc. Returns `None` for the first process.
fn parent(process: &str) -> Option<String> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim();
    (parent != "0").then(|| parent.to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::plan::{Exclusions, Interface, Ports};
    use super::*;

    const LOGIN: &str = "198.51.100.7 51000 192.0.2.1 22";

    fn port(first: u16) -> Ports {
        Ports::new([first.to_string().parse().unwrap()])
    }

    fn excluding(exclude_inbound: Exclusions) -> InterceptPlan {
        InterceptPlan { exclude_inbound, ..InterceptPlan::default() }
    }

    #[test]
    fn a_login_that_the_rules_capture_is_named() {
        let said = warning(&InterceptPlan::default(), LOGIN).unwrap();
        assert!(said.contains("198.51.100.7 through port 22"), "{said}");
        assert!(said.contains("--exclude-inbound-ports 22"), "{said}");
        let link_local = "fe80::1%eth0 51000 fe80::2%eth0 2222";
        assert!(warning(&InterceptPlan::default(), link_local).unwrap().contains("port 2222"));
        let interfaces: Vec<Interface> = vec!["wg0".parse().unwrap()];
        let plan = excluding(Exclusions { interfaces, ..Exclusions::default() });
        assert!(warning(&plan, LOGIN).unwrap().contains("excluded interface"));
        let plan = excluding(Exclusions { ports: port(2222), ..Exclusions::default() });
        assert!(warning(&plan, LOGIN).is_some());
    }

    #[test]
    fn a_login_that_the_rules_leave_alone_is_not() {
        let networks = vec![crate::net::Network::parse("198.51.100.0/24").unwrap()];
        for plan in [
            InterceptPlan { inbound: Inbound::None, ..InterceptPlan::default() },
            InterceptPlan { inbound_port: 22, ..InterceptPlan::default() },
            InterceptPlan { own_ports: port(22), ..InterceptPlan::default() },
            excluding(Exclusions { ports: port(22), ..Exclusions::default() }),
            excluding(Exclusions { networks, ..Exclusions::default() }),
        ] {
            assert_eq!(warning(&plan, LOGIN), None, "{plan:?}");
        }
        assert_eq!(warning(&InterceptPlan::default(), "127.0.0.1 5 127.0.0.1 22"), None);
        assert_eq!(warning(&InterceptPlan::default(), "nonsense"), None);
    }
}
