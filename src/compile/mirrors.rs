//! Compiles the mirrors of rules.

use std::sync::Arc;

use super::{Compiler, faults};
use crate::cluster::{Protocol, Service};
use crate::model::{self, Item};
use crate::resilience::{MIRROR_BYTES, MIRROR_TIMEOUT, MirrorPolicy};
use crate::route::Mirror;

/// Compiles the mirror of a rule. `forwards` is whether the action of the rule is to forward
/// requests.
pub(super) fn mirror(
    compiler: &mut Compiler<'_>,
    services: &[Arc<Service>],
    written: &Item<model::Mirror>,
    forwards: bool,
) -> Option<Box<Mirror>> {
    let value = &written.value;
    if !forwards {
        let help = "leave `mirror` out: this rule answers itself";
        let message = "only a rule with `to` can mirror its requests";
        compiler.fault_with_help(&written.origin, message, help);
        return None;
    }
    let Some(to) = &value.to else {
        let message = "this mirror has no destination";
        compiler.missing(&written.origin, message, "add `to: OTHER`, another service or version");
        return None;
    };
    let (name, version) = to.value.split_once('/').unwrap_or((&to.value, ""));
    if let [only] = services
        && name != &*only.name
    {
        // Its own service is no suggestion: each request would reach it twice.
        let message = format!("there is no service {name:?}");
        let endpoints = match version {
            "" => "endpoints: [IP:PORT]".to_owned(),
            version => format!("versions: {{{version}: [IP:PORT]}}"),
        };
        let versions = only.endpoints.load().subsets.len() > 1;
        let other = match versions {
            true => format!(", or name another version of {}", only.name),
            false => String::new(),
        };
        let help = format!("write `services: {{{name}: {{{endpoints}}}}}`{other}");
        compiler.unknown(&to.origin, ("services", name), message, help);
        return None;
    }
    let destination = compiler.destination(services, to)?;
    if services[destination.service as usize].protocol == Protocol::Tcp {
        let message = format!("{:?} has `protocol: tcp`, and requests are mirrored", to.value);
        compiler.fault_with_help(&to.origin, message, "name a service that speaks HTTP");
    }
    let policy = MirrorPolicy {
        chance: faults::chance(value.share),
        mirror_bytes: value.mirror_bytes.unwrap_or(MIRROR_BYTES),
        timeout: value.timeout.unwrap_or(MIRROR_TIMEOUT),
        shadow_host: value.shadow_host.unwrap_or(true),
    };
    Some(Box::new(Mirror { to: destination, policy }))
}
