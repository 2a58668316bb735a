//! Advice for the operator about installed rules.

use super::check::listens;
use super::plan::{Inbound, InterceptPlan, WhenDead};

/// Returns one sentence of advice for each risk of `plan`. It is for an operator who has installed
/// the rules with [`super::up`].
pub fn advice(plan: &InterceptPlan) -> Vec<String> {
    let mut said = Vec::new();
    let mut ports = Vec::new();
    if plan.inbound != Inbound::None {
        ports.push(("inbound", plan.inbound_port));
    }
    if plan.outbound {
        ports.push(("outbound", plan.outbound_port));
    }
    for (direction, port) in ports {
        if !listens(port) {
            said.push(format!(
                "no proxy listens on port {port} yet: {direction} connections are refused until \
                 the proxy runs"
            ));
        }
    }
    let owners = &plan.proxy.owners;
    if plan.outbound && owners.uids.is_empty() && owners.gids.is_empty() {
        said.push(format!(
            "the rules recognise the proxy only by its mark {}: give it CAP_NET_ADMIN, or an \
             account of its own (--user)",
            plan.proxy.mark
        ));
    }
    let passes = plan.inbound == Inbound::Tproxy && !plan.outbound;
    if plan.when_dead == WhenDead::Open && !passes {
        said.push(
            "redirecting rules stay when the proxy is killed: use `ringway run --intercept \
             --fail-open`, or `ringway intercept down` as ExecStopPost of systemd"
                .to_owned(),
        );
    }
    said
}
