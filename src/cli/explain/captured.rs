//! Explains a request on a connection that a listener has captured.

use std::fmt::Write as _;
use std::net::SocketAddr;

use super::asked::Asked;
use super::connection::{Secured, title, tls_of, unproven};
use super::request::{self, Call};
use crate::cluster::{Destination, Service};
use crate::decision::{self, Client, DENIED, UNKNOWN};
use crate::identity::SpiffeId;
use crate::mesh::{Admission, Capture, Declared, Direction, OriginalTarget};
use crate::route::{Action, Rule};
use crate::runtime::socket;
use crate::snapshot::{Listener, Snapshot};
use crate::tls::Mode;

/// Explains a request on a connection that `listener` has captured.
pub(super) fn explain(
    out: &mut String,
    snapshot: &Snapshot,
    listener: &Listener,
    capture: &Capture,
    asked: &Asked,
) -> Result<(), String> {
    title(out, listener);
    let Some(original) = asked.original() else {
        return without_destination(out, snapshot, listener, capture, asked);
    };
    writeln!(out, "  original destination {original}").ok();
    let peer = asked.ip.map(|ip| SocketAddr::new(ip, 0));
    let refused = decision::capture_error(capture, snapshot, peer, original, socket::is_local);
    if let Some(error) = refused {
        writeln!(out, "  refused: OD: {}", error.detail()).ok();
        return Ok(());
    }
    let (identity, scheme, probes_only) = match secured(capture, original, asked) {
        Secured::Refused(why) => {
            writeln!(out, "  refused: the TLS handshake fails: {why}").ok();
            return Ok(());
        }
        Secured::Tls(id) => (id, "https", false),
        Secured::Plain => (capture.identity.clone(), "http", is_strict(capture, original)),
    };
    match (capture.direction, &identity, &asked.identity) {
        (Direction::Outbound, Some(own), Some(other)) if own.as_str() != other => {
            writeln!(out, "  the client is this workload, {}: --from does not count", own.as_str())
                .ok();
        }
        _ => unproven(out, asked, identity.as_ref()),
    }
    let client = Client {
        listener,
        identity: identity.as_ref().map(SpiffeId::as_str),
        ip: asked.ip,
        scheme,
        port: original.port(),
        original: Some(original),
        probes_only,
    };
    at(out, snapshot, client, asked)
}

/// The result of the TLS check of the connection.
fn secured(capture: &Capture, original: SocketAddr, asked: &Asked) -> Secured {
    match (capture.admission(original.port()), asked.id()) {
        (Admission::Tls(tls), Some(id)) => tls_of(tls, Some(id)),
        (Admission::Plain, _) | (Admission::Tls(_), None) => Secured::Plain,
    }
}

/// Whether the port of the original destination requires mutual TLS.
fn is_strict(capture: &Capture, original: SocketAddr) -> bool {
    match capture.admission(original.port()) {
        Admission::Tls(tls) => tls.mode == Mode::Strict,
        Admission::Plain => false,
    }
}

/// Explains the connection of `client` as HTTP, TLS or opaque bytes.
fn at(
    out: &mut String,
    snapshot: &Snapshot,
    client: Client<'_>,
    asked: &Asked,
) -> Result<(), String> {
    let service = client.service(snapshot, Destination::ORIGINAL);
    let Some((capture, _)) = client.captured() else { return Ok(()) };
    let declared = client.declared(service.map(|service| &**service));
    if declared == Some(Declared::Tcp) && !client.probes_only {
        writeln!(out, "  declared as tcp: the proxy reads no requests").ok();
        bytes(out, snapshot, &client, None);
        return Ok(());
    }
    if asked.is_https() && capture.direction == Direction::Outbound {
        writeln!(out, "  TLS of the client: the proxy reads only its server name").ok();
        let rule = capture.routes.passes(asked.host_name().as_bytes());
        let rule = rule.filter(|rule| matches!(rule.action, Action::Forward(_)));
        bytes(out, snapshot, &client, rule.map(|rule| &**rule));
        return Ok(());
    }
    request::explain_asked(out, snapshot, client, asked)
}

/// Explains a connection with opaque bytes, which goes by `rule` or to its original destination.
fn bytes(out: &mut String, snapshot: &Snapshot, client: &Client<'_>, rule: Option<&Rule>) {
    let mut to = |destination| {
        if let Some(service) = client.service(snapshot, destination) {
            request::write_service(out, client, service, destination, "");
            bytes_to(out, snapshot, client, rule, service);
        }
    };
    match rule.map(|rule| &rule.action) {
        Some(Action::Forward(split)) => {
            split.shares().into_iter().for_each(|(destination, _)| to(destination));
        }
        _ => match client.captured().map(|(capture, original)| capture.target(original)) {
            Some(OriginalTarget::Denied) => {
                writeln!(out, "  refused: {UNKNOWN}").ok();
            }
            _ => to(Destination::ORIGINAL),
        },
    }
}

fn bytes_to(
    out: &mut String,
    snapshot: &Snapshot,
    client: &Client<'_>,
    rule: Option<&Rule>,
    service: &Service,
) {
    if !request::authorized(out, snapshot, client, &service.name, None, None) {
        writeln!(out, "    refused: {DENIED}").ok();
    } else if let Err(refusal) = decision::check_bytes(rule, service) {
        writeln!(out, "    refused: {refusal}").ok();
    }
}

/// Explains a request for which no original destination is given. Only a route can match it.
fn without_destination(
    out: &mut String,
    snapshot: &Snapshot,
    listener: &Listener,
    capture: &Capture,
    asked: &Asked,
) -> Result<(), String> {
    let ask = "the original destination decides; add --to IP:PORT, the address that the client \
               connects to";
    if capture.direction == Direction::Inbound || asked.is_https() {
        writeln!(out, "  {ask}").ok();
        return Ok(());
    }
    let parsed = match asked.normalised(snapshot, listener)? {
        Ok(parsed) => parsed,
        Err(refusal) => {
            writeln!(out, "  refused: {refusal}").ok();
            return Ok(());
        }
    };
    let client = Client {
        listener,
        identity: capture.identity.as_ref().map(SpiffeId::as_str),
        ip: asked.ip,
        scheme: "http",
        port: asked.url_port(),
        original: None,
        probes_only: false,
    };
    let call = Call { snapshot, client, request: parsed.head.view(&parsed.text) };
    if call.client.rule(call.request).rule.is_ok() {
        request::explain(out, &call);
    } else {
        request::write_looked(out, &call);
    }
    writeln!(out, "  {ask}").ok();
    Ok(())
}
