//! PeerAuthentication: whether clients must use mutual TLS.

use std::collections::BTreeMap;

use super::selector::{Reach, reach};
use super::{Context, at};
use crate::model::{Item, Model, Mtls, Origin, ServerTls};
use crate::sources::objects::{Fields, Object, items};

const MODES: [(&str, Option<Mtls>); 4] = [
    ("UNSET", None),
    ("DISABLE", Some(Mtls::Disable)),
    ("PERMISSIVE", Some(Mtls::Permissive)),
    ("STRICT", Some(Mtls::Strict)),
];

/// A PeerAuthentication for this workload.
struct Wanted {
    title: String,
    origin: Origin,
    mode: Option<Item<Mtls>>,
    ports: Vec<(u16, Option<Item<Mtls>>)>,
}

/// Reads all PeerAuthentications and sets the modes of captured traffic.
pub(super) fn peer_authentications<'o>(
    cx: &mut Context<'_>,
    objects: impl Iterator<Item = &'o Object>,
    model: &mut Model,
) {
    let mesh = &mut model.mesh;
    let is_of_mesh = |tls: &Item<ServerTls>| matches!(tls.value, ServerTls::Mesh);
    let terminates = model.listeners.iter().any(|it| it.value.tls.iter().any(is_of_mesh));
    let before = cx.reader.count();
    let mut by_reach: BTreeMap<Reach, Wanted> = BTreeMap::new();
    for object in objects {
        let Some((reach, wanted)) = read(cx, object) else { continue };
        if let Some(first) = by_reach.get(&reach) {
            let message = format!("{} is for the same workloads", first.title);
            cx.reader.at(object.place, message, "keep one of them");
            continue;
        }
        by_reach.insert(reach, wanted);
    }
    let Some(last) = by_reach.values().next_back() else { return };
    if mesh.inbound.binds.is_empty() && !terminates && cx.reader.count() == before {
        let message = "no inbound traffic is captured, so this has no effect";
        let help = "write `mesh: {inbound: {bind: IP:PORT}}` for captured traffic, or `tls: mesh` \
             in a listener";
        if let Origin::File(place) = &last.origin {
            cx.reader.object.clone_from(&last.title);
            cx.reader.warn(*place, message, help);
        }
    }
    if let Some(own) = &mesh.inbound.mtls {
        let line = cx.reader.origin_line(&own.origin);
        if let Origin::File(place) = &last.origin {
            let message = format!("`mesh.inbound.mtls` at {line} has precedence over this");
            cx.reader.object.clone_from(&last.title);
            cx.reader.warn(*place, message, "take one of them out");
        }
        return;
    }
    let mode = by_reach.values().rev().find_map(|wanted| wanted.mode.clone());
    mesh.inbound.mtls.clone_from(&mode);
    let Some(workload) = by_reach.get(&Reach::Workload) else { return };
    for (port, own) in &workload.ports {
        let taken = mesh.inbound.port_mtls.iter().any(|(known, _)| known == port);
        if let Some(mode) = own.clone().or_else(|| mode.clone()).filter(|_| !taken) {
            mesh.inbound.port_mtls.push((*port, mode));
        }
    }
}

fn read(cx: &mut Context<'_>, object: &Object) -> Option<(Reach, Wanted)> {
    let mut spec = cx.reader.spec(object)?;
    let reach = reach(cx, object, &mut spec);
    let r = &mut cx.reader;
    let mode = spec.map(r, "mtls").and_then(|mut mtls| {
        let mode = mtls.one_of(r, "mode", &MODES);
        mtls.finish(r);
        mode
    });
    let mut ports = Vec::new();
    if let Some(node) = spec.get("portLevelMtls") {
        for (port, value) in items(r, node, "portLevelMtls") {
            let Some(mut fields) = Fields::of(r, value, "the mode of a port") else { continue };
            let mode = fields.one_of(r, "mode", &MODES);
            fields.finish(r);
            match port.value.parse() {
                Ok(number) => ports.push((number, mode.and_then(known))),
                Err(_) => r.item(&port, "a port is a number up to 65535", "write digits only"),
            }
        }
        if reach.is_some_and(|reach| reach != Reach::Workload) {
            let help = "write `selector: {matchLabels: ...}`";
            r.at(spec.place_of("portLevelMtls"), "`portLevelMtls` needs a selector", help);
        }
    }
    spec.hint("mode", "write `mtls: {mode: STRICT}`");
    spec.finish(r);
    let wanted = Wanted {
        title: object.title(),
        origin: at(object.place),
        mode: mode.and_then(known),
        ports,
    };
    reach.map(|reach| (reach, wanted))
}

/// The mode. `None` for UNSET, which means the mode of the wider policy.
fn known(mode: Item<Option<Mtls>>) -> Option<Item<Mtls>> {
    mode.value.map(|value| Item::new(value, mode.origin))
}
